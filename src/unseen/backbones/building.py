"""A network from its spec: built by timm or by the user's code, and its weights loaded strictly."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unseen.backbones import own, towers
from unseen.backbones.naming import defaults
from unseen.backbones.vision import timm
from unseen.errors import UnseenError
from unseen.ground.hub import look_for_hub
from unseen.ground.tensors import load_tensors

if TYPE_CHECKING:
    from unseen.backbones.backbone import BackboneSpec

_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar"}


def build(spec: BackboneSpec) -> nn.Module:
    """The network of a spec, with its weights."""
    if spec.tower is not None:
        assert spec.image_size
        return towers.ImageTower(spec.tower, spec.image_size)
    if spec.is_own:
        return _build_own(spec)
    options = {"num_classes": 0, **spec.options}
    cfg = defaults(spec.name)
    if cfg.fixed_input_size and spec.image_size != cfg.input_size[-1]:
        options.setdefault("img_size", spec.image_size)
    pretrained = spec.weights == "pretrained"
    if pretrained:
        look_for_hub()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            model = timm.create_model(spec.name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, TypeError, AssertionError, ValueError) as error:
        if pretrained and isinstance(error, OSError | RuntimeError):  # no network, or timm has no weights
            problem = "cannot get pretrained weights"
            page = f"model.safetensors of huggingface.co/timm/{spec.name}"
            hint = (
                f"connect to the internet once, or download {page} and pass --backbone {spec.name} "
                "--backbone-weights FILE"
            )
        else:
            problem, hint = f"timm cannot build it at {spec.image_size} pixels with {dict(spec.options)}", None
        raise UnseenError(f"{problem}: {first_line(error)}", where=spec.name, hint=hint) from None
    if spec.weights not in ("pretrained", "random"):
        _load(model, weights_file(spec.weights))
    return model


def _build_own(spec: BackboneSpec) -> nn.Module:
    assert spec.image_size
    made: nn.Module = own.make(spec.name, spec.options, spec.weights == "pretrained", spec.seed)
    made.eval()
    if spec.weights not in ("pretrained", "random"):
        _load(made, weights_file(spec.weights))
    if hasattr(made, "forward_features") and hasattr(made, "num_features"):
        return made
    try:
        return own.Plain(made, spec.channels, spec.image_size, spec.name)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise UnseenError(f"cannot take {spec.image_size}-pixel images: {first_line(error)}", where=spec.name) from None


def check_patches(model: Any, spec: BackboneSpec) -> None:
    """A transformer's patches must fill the image: timm cuts off the rest of some sizes in silence."""
    embed = getattr(model, "patch_embed", getattr(model, "embeds", model))
    side = getattr(embed, "patch_size", 1)
    side = side if isinstance(side, int) else side[0]
    size = spec.image_size
    assert size
    if not hasattr(model, "num_prefix_tokens") or size % side == 0 or getattr(embed, "dynamic_img_pad", False):
        return
    near = [s for s in (size - size % side, size - size % side + side) if s]
    raise UnseenError(
        f"cannot take {size}-pixel images: {size} is not a multiple of the patch size {side}",
        where=spec.name,
        hint=f"--image-size {' or '.join(map(str, near))}",
    )


def weights_file(weights: str) -> Path:
    """The file of weights; raises where it is none or a pickle."""
    path = Path(weights)
    if not path.is_file():
        hint = 'use "pretrained", "random" or the path of a .safetensors file'
        raise UnseenError("no such weights file", where=path, hint=hint)
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] != b"{" and (path.suffix in _PICKLES or head.startswith((b"\x80", b"PK"))):
        convert = "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
        raise UnseenError("a pickle; unseen does not load pickles", where=path, hint=f"convert it once with {convert}")
    return path


def _load(model: nn.Module, path: Path) -> None:
    """Loads weights strictly, but for the classifier head that the features do not use."""
    try:
        state, _ = load_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        problem = f"not a readable safetensors file: {first_line(error)}"
        raise UnseenError(problem, where=path, hint="restore the original file") from None
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UnseenError(
                f'"{name}" contains values that are not finite', where=path, hint="restore the original file"
            )
    problems = _misfits(model, state)
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if problems and adapt is not None:  # timm's own adaptation, e.g. of position embeddings to another size
        with suppress(Exception):  # it is written for sound files: on others the misfits tell more than its failure
            state = adapt(state, model)
            problems = _misfits(model, state)
    if problems:
        raise UnseenError(
            f"does not match the network: {'; '.join(problems)}",
            where=path,
            hint="use weights of this timm model, or the backbone options that they need",
        )
    model.load_state_dict(state, strict=False)


def _misfits(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    heads = (cfg if isinstance(cfg, Mapping) else vars(cfg)).get("classifier") or ()
    prefixes = tuple(head.split(".")[0] + "." for head in ([heads] if isinstance(heads, str) else heads))
    own = model.state_dict()
    missing = [k for k in own if k not in state and not k.startswith(prefixes) and "num_batches_tracked" not in k]
    unexpected = [k for k in state if k not in own and not k.startswith(prefixes)]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes))
    return [f"{len(keys)} {what} ({_first(keys)})" for what, keys in found if keys]


def _first(keys: Iterable[str], count: int = 3) -> str:
    keys = list(keys)
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, kept while it does not change."""
    stat = path.stat()
    return _digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _digest_of(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0]
