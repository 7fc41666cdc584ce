"""Options that say what a run trains on and with, declared once for all commands that train."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from unseen.cli import completing
from unseen.cli.common import CacheOption, DeviceOption, EngineOption
from unseen.cli.configuring import make_backbone, parse_protocols, parse_seeds
from unseen.errors import UnseenError

ProtocolOption = Annotated[
    str, typer.Option(help="honest (choose on validation classes), paper (choose on the test set), or both.")
]
SeedsOption = Annotated[str, typer.Option(help="Number of seeds, or a list such as 0,7.")]
EpochsOption = Annotated[int | None, typer.Option(help="Number of epochs; short for --recipe epochs=N.")]
ENTRIES = ("select", "split_seed", "draws", "folds", "store_dtype", "reduce", "precision", "accumulate", "holdouts")
"""Options that become entries of a run unchanged."""


def check_dataset(dataset: str) -> None:
    """Raise an error if there is no such dataset, before slow imports."""
    path = Path(dataset).expanduser()
    if path.is_file():
        raise UnseenError("this is a file", where=dataset, hint=f"pass its folder: {path.parent}")
    if dataset != "fieldguide" and not path.is_dir():
        raise UnseenError("no such folder", where=dataset, hint="pass a folder with images and a class table")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of ``unseen train``, ``compare``, ``ablate`` and ``reproduce``, as given."""

    vectors: Annotated[
        str, typer.Option(help="Attribute vectors: auto, given, words, random, text:MODEL or sentence:MODEL.")
    ] = "auto"
    backbone: Annotated[
        str | None,
        typer.Option(
            help="timm model, hf:MODEL (CLIP or SigLIP, a folder or hub id), fieldguide (for the drawn "
            "birds), or features:NAME (features from `unseen import`) [default: DINOv2, "
            "vit_base_patch14_reg4_dinov2.lvd142m at 336 px, on a CPU vit_small_... at 224 px; for benchmarks and "
            "mgmrn, ResNet-101 at 448 px, on a CPU ResNet-50 at 320 px].",
            autocompletion=completing.backbones,
        ),
    ] = None
    backbone_weights: Annotated[
        str | None, typer.Option(help="pretrained (timm's), random, or a .safetensors file [default: pretrained].")
    ] = None
    backbone_option: Annotated[
        list[str] | None, typer.Option(help="Argument for timm.create_model, such as pad_type=same (repeatable).")
    ] = None
    image_size: Annotated[int | None, typer.Option(help="Input size in pixels [default: the model's].")] = None
    zoom: Annotated[
        int,
        typer.Option(
            help="Look at each image a second time, in tiles, enlarged this many times; 2 often gains accuracy "
            "on small details and computes 5 times as much.",
            min=1,
            max=4,
        ),
    ] = 1
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Average the features of each image and its mirror image; often gains a little accuracy, and computes "
            "twice as much.",
        ),
    ] = False
    mean: Annotated[
        str | None, typer.Option(help="Normalization mean, one or three numbers [default: the model's].")
    ] = None
    std: Annotated[str | None, typer.Option(help="Normalization std, one or three numbers [default: the model's].")] = (
        None
    )
    crop: Annotated[float, typer.Option(help="Fraction of the short side that the center crop keeps.")] = 1.0
    pixels: Annotated[
        str,
        typer.Option(
            help="exact, or fast: images decoded and resized in half the time, with slightly different pixels.",
            autocompletion=completing.one_of("pixels"),
        ),
    ] = "exact"
    stage: Annotated[
        str,
        typer.Option(
            help="Feature map: final, a timm stage index such as -2, or -2+final to join; three for mgmrn: 1,2,3."
        ),
    ] = "final"
    select: Annotated[
        str, typer.Option(help="Validation metric that selects the epoch or hyperparameters: H, T1 or AUSUC.")
    ] = "H"
    split_seed: Annotated[int, typer.Option(help="Seed that draws the validation classes.")] = 0
    draws: Annotated[
        int,
        typer.Option(
            help="Number of draws of validation classes; 0 means 5 for closed forms and anchored, 3 for other gradient "
            "methods and tuned, 1 for other end-to-end methods.",
            min=0,
        ),
    ] = 0
    folds: Annotated[
        str,
        typer.Option(
            help="Validation classes of a draw: random, or axes: those at one end of a principal axis of the class "
            "table, a harder test.",
            autocompletion=completing.one_of("folds"),
        ),
    ] = "random"
    store_dtype: Annotated[
        str, typer.Option(help="Data type of stored region features: float16, bfloat16 or float32.")
    ] = "float16"
    reduce: Annotated[
        str,
        typer.Option(
            help="Reduce the features: pca:256 (channels), merge:2 (average 2x2 regions), or merge:2,pca:256."
        ),
    ] = ""
    precision: Annotated[str, typer.Option(help="Training precision: 32-true, bf16-mixed, 16-mixed or 64-true.")] = (
        "32-true"
    )
    accumulate: Annotated[int, typer.Option(help="Micro-batches per step.")] = 1
    holdouts: Annotated[
        int | None,
        typer.Option(
            help="Class hold-outs, which estimate the accuracy on unseen classes that have no test "
            "images; 0 for none [default: 3; closed forms 5, end to end 1].",
            min=0,
        ),
    ] = None
    device: DeviceOption = "auto"
    engine: EngineOption = None
    workers: Annotated[
        int,
        typer.Option(
            help="Worker processes that read images (threads for end-to-end methods); -1 means up to 8 for a GPU, "
            "none for a CPU."
        ),
    ] = -1
    cache: CacheOption = None

    def entries(
        self, dataset: str, protocol: str, seeds: str, methods: Sequence[str] = (), folder: Path | None = None
    ) -> dict[str, Any]:
        """Entries of :class:`unseen.training.config.RunConfig`, except those of the method.

        ``methods`` and the kind of device determine the default backbone; what ``folder`` began with stays, and
        without a folder it is that of a GPU.
        """
        check_dataset(dataset)
        device = "cuda"
        if folder is not None and self.backbone is None and dataset != "fieldguide":
            from unseen.training.plan import kind_of_device

            device = kind_of_device(self.device, folder)
        return {
            "dataset": dataset if dataset == "fieldguide" else str(Path(dataset).expanduser().absolute()),
            "backbone": make_backbone(
                dataset,
                self.backbone,
                self.backbone_weights,
                self.image_size,
                self.zoom,
                self.mirror,
                self.backbone_option or [],
                self.mean,
                self.std,
                self.crop,
                self.pixels,
                self.stage,
                device,
                methods,
            ),
            "vectors": self.vectors,
            "protocols": parse_protocols(protocol),
            "seeds": parse_seeds(seeds),
            **{name: getattr(self, name) for name in ENTRIES},
        }


def with_options(kind: type[Any], name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that gives a command every option of a dataclass, passed together as its argument ``name``."""
    hints = get_type_hints(kind, include_extras=True)
    added = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(kind)
    ]
    assert all(p.default is not MISSING for p in added)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        mine = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != name]

        @wraps(command)
        def run(**values: Any) -> None:
            names = {p.name for p in added}
            others = {key: value for key, value in values.items() if key not in names}
            command(**others, **{name: kind(**{key: value for key, value in values.items() if key in names})})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in mine]
        run.__signature__ = inspect.Signature([*parameters, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*parameters, *added)}
        del run.__wrapped__
        return run

    return decorate


with_run_options = with_options(RunOptions, "options")
"""Give a command every option of :class:`RunOptions`, passed as its argument ``options``."""
