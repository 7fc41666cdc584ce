"""Files of backbone weights: find, digest, and load them strictly."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.ground.tensors import load_tensors

if TYPE_CHECKING:
    pass

_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar"}


OF_PACKAGE = "unseen:"
"""Start of the name of a file of this package, which is found wherever the package is installed."""


def weights_file(weights: str) -> Path:
    """File of weights; raises an error if it does not exist or is a pickle."""
    inside = weights.removeprefix(OF_PACKAGE)
    path = Path(weights) if inside == weights else Path(__file__).parents[1] / inside
    if not path.is_file():
        hint = 'use "pretrained", "random" or the path of a .safetensors file'
        raise UnseenError("no such weights file", where=path, hint=hint)
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] != b"{" and (path.suffix in _PICKLES or head.startswith((b"\x80", b"PK"))):
        convert = "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
        raise UnseenError("a pickle; unseen does not load pickles", where=path, hint=f"convert it once with {convert}")
    return path


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights strictly, except for the classifier head, which the features do not use."""
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
        with suppress(Exception):  # it expects valid files; for others, the misfits explain more than its failure
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
    """SHA-256 of a file, cached while it does not change."""
    stat = path.stat()
    return _digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _digest_of(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
