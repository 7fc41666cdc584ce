"""Import timm and torchvision without torch's compiler, whose import takes as long as that of torch itself.

Importing them needs only one decorator of the compiler, and one question that is asked later. Stand-ins provide these
and are removed afterwards: the first `torch.compile` loads the real compiler, and what timm hides from it stays hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"


def _is_compile_supported(device: Any) -> Any:
    return import_module(f"{_COMPILER}.utils").is_compile_supported(device)


def _disable(function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Any:
    if function is None:
        return _disable
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


@contextmanager
def _without_compiler() -> Iterator[None]:
    if _COMPILER in sys.modules:
        yield
        return
    package, utils = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    package.__path__ = []
    package.disable, package.utils = _disable, utils  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    stand_ins = {module.__name__: module for module in (package, utils)}
    sys.modules.update(stand_ins)
    vars(torch)["_dynamo"] = package
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        del vars(torch)["_dynamo"]


def _import() -> None:
    try:
        with _without_compiler():
            import_module("timm")
            import_module("torchvision.transforms.v2.functional")
    except (AttributeError, ImportError):  # another version that needs more: import it as it is
        for name in [m for m in sys.modules if m.split(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]


_import()

import timm  # noqa: E402
from torchvision.transforms.v2 import InterpolationMode  # noqa: E402
from torchvision.transforms.v2 import functional as transforms  # noqa: E402

__all__ = ["InterpolationMode", "timm", "transforms"]
