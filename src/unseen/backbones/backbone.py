"""Networks that turn images into grids of region features: timm, CLIP and SigLIP towers, your own modules."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from unseen.backbones import own, towers
from unseen.backbones.building import build, check_patches, file_digest, first_line, weights_file
from unseen.backbones.engines import Compiled, Engine, chosen_engine, compiled, is_auto
from unseen.backbones.naming import IMPORTED, check_name, defaults, is_own, own_path
from unseen.backbones.reduction import Reduction
from unseen.backbones.transform import Transform
from unseen.backbones.vision import timm
from unseen.errors import UnseenError
from unseen.ground.cache import cache_folder
from unseen.ground.checked import checked
from unseen.ground.distributed import processes
from unseen.ground.files import read_json
from unseen.ground.outside import check_installed

FINAL = "final"
LARGEST = 8192
"""Side of the image that a network reads, in pixels."""
_CPU_PIXELS = 4 * 224 * 224
"""Pixels that a network on a CPU is given at once, see :meth:`Backbone.regions`."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that determines the features: a network, its weights, and the image transform.

    Attributes:
        name: timm model name, with or without a pretrained tag; ``package.module:Name`` of a function or class that
            returns a network (:mod:`unseen.backbones.own`, and :meth:`of` for a module); ``hf:`` and the folder
            or hub id of a CLIP or SigLIP model, whose image tower is used (:mod:`unseen.backbones.towers`); or
            ``features:`` and the name of imported features (:mod:`unseen.data.importing`).
        stages: feature maps to take: "final" (timm's `forward_features`) or indices of
            `forward_intermediates`, negative ones from the end.
        image_size: side of the square input; None is the model's own.
        weights: "pretrained" (timm's), "random", or the path of a `.safetensors` file; of imported features
            their store.
        options: more arguments of `timm.create_model`, such as `pad_type="same"`.
        mean: per-channel mean of the normalization; None is the model's own.
        std: per-channel standard deviation of the normalization; None is the model's own.
        crop: fraction of the resized short side that the center crop keeps.
        seed: seed of "random" weights.
        channels: of a user's network, where its maps are ``(B, h, w, C)``; checked where stated.
    """

    name: str
    stages: tuple[str | int, ...] = (FINAL,)
    image_size: int | None = None
    weights: str = "pretrained"
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float = 1.0
    seed: int = 0
    channels: int | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", own_path(self.name))
        check_name(self.name)
        if self.tower is not None and (self.weights != "pretrained" or self.options or self.stages != (FINAL,)):
            problem = "this backbone takes no weights, stages or options"
            raise UnseenError(problem, where=self.name, hint="omit weights, stages and options")
        if self.imported and (self.options or self.stages != (FINAL,)):
            raise UnseenError("imported features take no stages or options", where=self.name, hint="omit them")
        for stage in self.stages:
            if stage != FINAL and (not isinstance(stage, int) or isinstance(stage, bool)):
                raise UnseenError(
                    f"{stage!r} is not a valid stage", where=self.name, hint=f'use "{FINAL}" or an integer'
                )
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise UnseenError("stages must be distinct, and at least one", where=self.name)
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST:
            problem = f"image size {self.image_size} is not between 1 and {LARGEST}"
            raise UnseenError(problem, where=self.name, hint="use 224, for example")
        if not 0 <= self.seed < 2**63:
            raise UnseenError(f"seed {self.seed}", where=self.name, hint="use a seed from 0 to 2^63 - 1")
        if self.channels is not None and (self.channels < 1 or not self.is_own):
            problem = f"{self.channels} is not a number of channels"
            raise UnseenError(problem, where=self.name, hint="pass channels=1 or more for a network of your own")
        if not 0 < self.crop <= 1:
            raise UnseenError(f"crop {self.crop} is not in (0, 1]", where=self.name, hint="use 1 for the whole image")
        for what, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (
                len(values) != 3
                or not all(isinstance(v, int | float) and math.isfinite(v) for v in values)
                or (what == "std" and min(values) <= 0)
            ):
                raise UnseenError(f"{what} {values} is not three valid numbers", where=self.name)

    @property
    def tower(self) -> str | None:
        """Folder or hub id of the CLIP or SigLIP model; ``None`` for a timm network."""
        return self.name.removeprefix(towers.PREFIX) if self.name.startswith(towers.PREFIX) else None

    @classmethod
    def of(cls, network: Any, **entries: Any) -> Self:
        """Make the spec of a network object. In a later process, the same call lets a run find its network again.

        Args:
            network: a name as above, an ``nn.Module`` (used as it is, weights included), or a function or class that
                returns one; prefer a function in a module, because other processes can import it.
            entries: other fields of the spec: ``image_size``, ``mean``, ``std``, ``channels``, ``options``, ...

        Raises:
            UnseenError: it is none of these, or a field is invalid.
        """
        if isinstance(network, cls):
            return replace(network, **entries)
        return cls(name=network if isinstance(network, str) else own.remember(network), **entries)

    @property
    def is_own(self) -> bool:
        """Whether the network is the user's."""
        return is_own(self.name)

    @property
    def imported(self) -> bool:
        """Whether it stands for imported features, so that there is no network to look at an image with."""
        return self.name.startswith(IMPORTED)

    def resolved(self) -> Self:
        """The same spec with the model's own input size and normalisation filled in."""
        if self.imported:
            return self
        if self.tower is not None:
            mean, std = (self.mean, self.std) if self.mean and self.std else towers.normalisation(self.tower)
            size = self.image_size or towers.model_facts(self.tower).image_size
            return replace(self, image_size=size, mean=tuple(self.mean or mean), std=tuple(self.std or std))
        if self.is_own:
            known = self._own_facts()
            found = {key: getattr(self, key) or getattr(known, key) for key in ("image_size", "mean", "std")}
            if missing := [key for key, value in found.items() if not value]:
                options = ", ".join(f"--{key.replace('_', '-')}" for key in missing)
                problem = f"has no default for {' and '.join(key.replace('_', ' ') for key in missing)}"
                hint = f"pass {options}, or set {' and '.join(missing)} as attributes of the network"
                raise UnseenError(problem, where=f"backbone {self.name}", hint=hint)
            return replace(self, **found, channels=self.channels or known.channels)
        cfg = defaults(self.name)
        return replace(
            self,
            image_size=self.image_size or cfg.input_size[-1],
            mean=tuple(self.mean or cfg.mean),
            std=tuple(self.std or cfg.std),
        )

    def _own_facts(self) -> own.Facts:
        return own.facts(self.name, self.options, self.weights == "pretrained", self.seed)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON keeps as it is."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if found["channels"] is None:
            del found["channels"]
        return found

    @classmethod
    def from_json(cls, data: Any, where: object = "backbone spec", hint: str = "fix the file") -> Self:
        """The spec that `to_json` wrote, in the file ``where`` if it was one.

        Raises:
            UnseenError: an entry is missing, unknown or of another kind; or it names code that is not installed.
        """
        spec = checked(cls, data, where, hint=hint)
        if spec.is_own and not own.is_known(spec.name):
            check_installed(spec.name, where, "backbone")
        return spec

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that changes the features, the content of the weights included.

        Weights that do not come from a file are named by the versions that make them.
        """
        if self.imported:
            hint = "import them with `unseen import`"
            where = Path(self.weights) / "store.json"
            facts = read_json(where, UnseenError, hint)
            if not isinstance(facts, dict) or "fingerprint" not in facts:
                raise UnseenError("damaged: no fingerprint", where=where, hint=hint)
            return str(facts["fingerprint"])
        facts = self.resolved().to_json() | {"interpolation": "bicubic"}
        del facts["seed"]
        if self.tower is not None:
            facts |= {"name": towers.PREFIX, "weights": towers.model_digest(self.tower)}
        elif self.is_own:
            facts["made"] = self._own_facts().digest
            if self.weights not in ("pretrained", "random"):
                facts["weights"] = file_digest(weights_file(self.weights))
        elif self.weights == "pretrained":
            facts["name"] = f"{self.name.split('.')[0]}.{defaults(self.name).tag}"
            facts["weights"] = ["pretrained", timm.__version__]
        elif self.weights == "random":
            facts["weights"] = ["random", self.seed, timm.__version__, torch.__version__.split("+")[0]]
        else:
            facts["name"] = self.name.split(".")[0]
            facts["weights"] = file_digest(weights_file(self.weights))
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Backbone(nn.Module):
    """A network in evaluation mode whose feature maps are read as regions; frozen unless `fine_tuned`.

    Attributes:
        spec: the spec, resolved.
        fingerprint: `spec.fingerprint()` when the weights were loaded; of a reduced one that of its regions.
        network_fingerprint: the same without the reduction.
        transform: the matching image transform.
        grids: (height, width) of each stage's region grid.
        channels: channels of each stage.
        reduction: what its regions go through; `None` for none.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        if spec.imported:
            problem = "imported features have no network, so the model cannot read images"
            raise UnseenError(problem, where=spec.name, hint="train with --backbone to predict images")
        self.spec = spec = spec.resolved()
        self.fingerprint = self.network_fingerprint = spec.fingerprint()
        assert spec.image_size and spec.mean and spec.std  # noqa: PT018
        self.transform = Transform(spec.image_size, spec.mean, spec.std, spec.crop)
        self.model: Any = build(spec).eval().requires_grad_(False)
        self._prefix = getattr(self.model, "num_prefix_tokens", 0)
        self._channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        check_patches(self.model, spec)
        self._indices = self._intermediates()
        self.reduction: Reduction | None = None
        self._batch_statistics = False
        self._momenta: list[Any] = []
        self._wanted: str | None = None
        self._compiled: Compiled | None = None
        self._cache: Path | None = None
        self.grids: list[tuple[int, int]] = []
        self.channels: list[int] = []
        try:
            with torch.inference_mode():
                maps = self.maps(torch.zeros(1, 3, spec.image_size, spec.image_size))
        except (AssertionError, RuntimeError, ValueError) as error:
            problem = f"cannot take {spec.image_size}-pixel images: {first_line(error)}"
            raise UnseenError(problem, where=spec.name) from None
        for feature_map in maps:
            self.grids.append((feature_map.shape[2], feature_map.shape[3]))
            self.channels.append(feature_map.shape[1])

    @property
    def network(self) -> Any:
        """The network itself, of a user's without what gives it timm's interface."""
        return self.model.network if isinstance(self.model, own.Plain) else self.model

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, without dropout, but for batch normalisation that trains with its batch."""
        super().train(False)
        if mode and self._batch_statistics:
            for layer in self._normalisations():
                layer.train()
        return self

    def _normalisations(self) -> list[Any]:
        kinds = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
        return [module for module in self.model.modules() if isinstance(module, kinds)]

    def fine_tuned(self, checkpointing: bool = False, batch_norm: str = "frozen") -> Self:
        """The same backbone with weights that train, those of batch normalisation too.

        Args:
            checkpointing: compute activations again in the backward pass instead of keeping them all (timm's
                `set_grad_checkpointing`, block by block); the gradients are the same.
            batch_norm: `frozen` to normalise with the statistics of the pre-training, `batch` to train with those of
                each batch and to test with their running averages.

        Raises:
            UnseenError: the network offers no checkpointing, or several processes share each batch.
        """
        self.model.requires_grad_(True)
        self.use("torch")
        layers = self._normalisations() if batch_norm == "batch" else []
        self._batch_statistics = bool(layers)
        self._momenta = [layer.momentum for layer in layers if checkpointing]
        if self._batch_statistics and processes() > 1:
            problem = f"each of {processes()} processes would normalize its own part of a batch"
            raise UnseenError(problem, where=self.spec.name, hint="--recipe batch_norm=frozen, or use one process")
        if checkpointing:
            try:
                self.model.set_grad_checkpointing()
            except (AttributeError, AssertionError):
                raise UnseenError(
                    "timm has no gradient checkpointing for this network",
                    where=self.spec.name,
                    hint="--recipe checkpointing=false",
                ) from None
        return self

    def reduced(self, reduction: Reduction) -> Self:
        """The same backbone, of one stage, with its regions reduced from here on.

        Raises:
            UnseenError: the reduction is of another grid or of other channels.
        """
        grid, channels = self.grids[0], self.channels[0]
        axes = reduction.components
        if reduction.full_grid != grid or (axes is not None and axes.shape[1] != channels):
            raise UnseenError("its regions differ from those of the reduction", where=self.spec.name)
        self.reduction = reduction
        self.grids, self.channels = [reduction.grid], [reduction.channels(channels)]
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} {reduction.fingerprint}".encode()).hexdigest()
        return self

    def use(self, engine: str | None = None, cache: Path | None = None) -> Self:
        """Choose what computes :meth:`regions`; see :func:`unseen.backbones.engines.chosen_engine`.

        Args:
            engine: its name; None is ``$UNSEEN_ENGINE``, else "auto", which is torch where another engine cannot take
                the network.
            cache: cache folder in which converted networks are kept; None is the default one.

        Raises:
            UnseenError: there is no such engine, it is not installed, or it does not run on the network's device.
        """
        self._wanted, self._cache, self._compiled = engine, cache, None
        _ = self.engine
        return self

    @property
    def engine(self) -> Engine:
        """What computes :meth:`regions` on the device where the network is."""
        return chosen_engine(self._wanted, self.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def ready(self) -> Engine:
        """The engine, with the network converted and loaded if need be.

        Raises:
            UnseenError: the engine asked for cannot take the network.
        """
        engine = self.engine
        if engine.name != "torch" and self._compiled is None:
            try:
                self._compiled = compiled(self, engine, cache_folder(self._cache) / "engines")
            except UnseenError as error:
                if not is_auto(self._wanted):
                    raise
                _log.warning("%s; torch computes instead", error)
                self._wanted, engine = "torch", chosen_engine("torch")
        return engine

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Region features of every stage.

        Args:
            pixels: transformed images (B, 3, H, W).

        Returns:
            One tensor (B, R, C) per stage, the R = h·w regions in row-major order.
        """
        found = [feature_map.flatten(2).transpose(1, 2) for feature_map in self.maps(pixels)]
        return found if self.reduction is None else [self.reduction(found[0])]

    @torch.inference_mode()
    def regions(self, cropped: Tensor) -> list[Tensor]:
        """Region features of every stage, as `forward` gives them, computed by the :attr:`engine`.

        torch on a CPU gets a few images at a time. The activations of a large batch are blocks that the C library takes
        from the system and gives back at every layer, and clearing their pages costs as much as the layers do.

        Args:
            cropped: images as bytes (B, 3, H, W), on the network's device (:meth:`Transform.cropped`).
        """
        cpu = cropped.device.type == "cpu"
        if cpu and self.ready().name != "torch":
            assert self._compiled is not None
            found = self._compiled(cropped)
            return found if self.reduction is None else [self.reduction(found[0])]
        size = max(1, _CPU_PIXELS // cropped[0, 0].numel()) if cpu else len(cropped)
        parts = [self(self.transform.normalized(part)) for part in cropped.split(size)]
        return parts[0] if len(parts) == 1 else [torch.cat(stage) for stage in zip(*parts, strict=True)]

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """One map (B, C, h, w) per stage of transformed images (B, 3, H, W), with gradients if fine-tuned."""
        with self._counted_once():
            return self._maps(pixels.contiguous(memory_format=torch.channels_last))  # convolutions are faster so

    @contextmanager
    def _counted_once(self) -> Iterator[None]:
        """Running averages move within it alone: not when the backward pass computes activations again."""
        layers = self._normalisations() if self._momenta else []
        for layer, momentum in zip(layers, self._momenta, strict=True):
            layer.momentum = momentum
        yield
        for layer in layers:
            layer.momentum = 0.0

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        if not self._indices:
            return [self._final(self.model.forward_features(pixels))]
        indices = sorted(set(self._indices.values()))
        if FINAL in self.spec.stages:
            final, found = self.model.forward_intermediates(pixels, indices=indices)
        else:
            final, found = (
                None,
                self.model.forward_intermediates(pixels, indices=indices, intermediates_only=True, stop_early=True),
            )
        by_index = dict(zip(indices, found, strict=True))
        return [self._final(final) if s == FINAL else by_index[self._indices[s]] for s in self.spec.stages]

    def _final(self, features: Any) -> Tensor:
        if isinstance(features, Tensor) and features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self._channels_last else features
        if isinstance(features, Tensor) and features.ndim == 3:
            tokens = features[:, self._prefix :]
            side = math.isqrt(tokens.shape[1])
            if side and side * side == tokens.shape[1]:
                result: Tensor = tokens.transpose(1, 2).unflatten(2, (side, side))
                return result
        raise UnseenError(
            f'the "{FINAL}" features do not form a grid of regions',
            where=self.spec.name,
            hint=f"use one of {self._listing()}",
        )

    def _intermediates(self) -> dict[str | int, int]:
        """Absolute index of each intermediate stage asked for."""
        wanted = [stage for stage in self.spec.stages if isinstance(stage, int)]
        if wanted and not hasattr(self.model, "forward_intermediates"):
            raise UnseenError(
                "timm returns only the last feature map of this network", where=self.spec.name, hint=f'use "{FINAL}"'
            )
        count = len(self.model.feature_info) if wanted else 0
        for stage in wanted:
            if not -count <= stage < count:
                raise UnseenError(f"no stage {stage}", where=self.spec.name, hint=f"use one of {self._listing()}")
        return {stage: stage % count for stage in wanted}

    def _listing(self) -> str:
        info = enumerate(self.model.feature_info)
        return f'"{FINAL}", ' + ", ".join(f"{i} ({s['num_chs']} channels, 1/{s['reduction']})" for i, s in info)


def list_stages(name: str) -> list[tuple[str | int, int, int]]:
    """Stage, channels and reduction of every feature map that a model gives; no weights are made."""
    check_name(name)
    if name.startswith(towers.PREFIX):
        facts = towers.model_facts(name.removeprefix(towers.PREFIX))
        return [(FINAL, facts.channels, facts.patch_size)]
    if is_own(name):
        made = Backbone(BackboneSpec(name))
        stages = [(i, s["num_chs"], s["reduction"]) for i, s in enumerate(getattr(made.model, "feature_info", []))]
        return [(FINAL, made.channels[0], round((made.spec.image_size or 0) / made.grids[0][0])), *stages]
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
    info = [] if not hasattr(model, "forward_intermediates") else model.feature_info
    found: list[tuple[str | int, int, int]] = [(i, s["num_chs"], s["reduction"]) for i, s in enumerate(info)]
    last = model.feature_info[-1]["reduction"] if hasattr(model, "feature_info") else 0
    return [(FINAL, model.num_features, last), *found]
