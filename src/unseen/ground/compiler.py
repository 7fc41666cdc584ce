"""Do without torch's compiler, whose import takes as long as that of torch itself.

Libraries import it for one decorator or one class, and torch's optimizers for marks that only it reads. Stand-ins
provide these, and are removed afterwards: the first `torch.compile` loads the real compiler, and what a library hides
from it stays hidden.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

NAME = "torch._dynamo"
_GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
_Kind = TypeVar("_Kind", bound=Optimizer)


def is_compile_supported(device: Any) -> Any:
    """As the compiler's."""
    return import_module(f"{NAME}.utils").is_compile_supported(device)


def disable(function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Any:
    """As the compiler's decorator: it marks a function."""
    if function is None:
        return disable
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


class _IsCompiled(type):
    def __instancecheck__(cls, value: object) -> bool:
        return NAME in sys.modules and isinstance(value, sys.modules[NAME].OptimizedModule)


class OptimizedModule(metaclass=_IsCompiled):
    """Has the compiled modules as its instances; there are none before the compiler is imported."""


def import_uncompiled(*names: str) -> None:
    """Import modules without the compiler, or as they are where a version of them needs more than the stand-ins."""
    try:
        with _stand_ins():
            for name in names:
                import_module(name)
    except (AttributeError, ImportError):
        packages = {name.split(".")[0] for name in names}
        for name in [m for m in sys.modules if m.split(".")[0] in packages]:
            del sys.modules[name]


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Let imports find the stand-ins, unless the compiler is already there."""
    if NAME in sys.modules:
        yield
        return
    package, utils = ModuleType(NAME), ModuleType(f"{NAME}.utils")
    package.__path__ = []
    vars(package).update(disable=disable, OptimizedModule=OptimizedModule, utils=utils)
    vars(utils).update(is_compile_supported=is_compile_supported)
    stand_ins = {module.__name__: module for module in (package, utils)}
    sys.modules.update(stand_ins)
    vars(torch)["_dynamo"] = package
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        del vars(torch)["_dynamo"]


def uncompiled(kind: type[_Kind]) -> type[_Kind]:
    """The optimizer without the marks for the compiler, whose first use would import it; its steps are the same."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _GUARDED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "__doc__": kind.__doc__, "__module__": kind.__module__})
