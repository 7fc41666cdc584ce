"""Device and precision of a training on Lightning Fabric, for one process or several.

Lightning takes seconds to import, so its Fabric is created when a training takes a step: closed forms need only the
device.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cached_property
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from unseen.errors import UnseenError
from unseen.ground.compiler import import_uncompiled
from unseen.ground.devices import find_device, split_device
from unseen.ground.distributed import launched, local_processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
"""Fabric's precision to the dtype of stored features; weights are float64 for ``64-true``, else float32."""
_BACKENDS = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


class _Later:
    """A Fabric of one process and of full precision that is created when more than its device is asked of it."""

    def __init__(self, device: torch.device, name: str) -> None:
        self.device, self._name = device, name

    def autocast(self) -> AbstractContextManager[None]:
        """As Fabric's, which does nothing in full precision."""
        return nullcontext()

    @cached_property
    def _fabric(self) -> Fabric:
        return _fabric_of(self._name, "32-true")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._fabric, name)


def make_fabric(device: str = "auto", precision: str = "32-true") -> Fabric:
    """Create a Fabric on one device; a process started by torchrun joins the others and takes its own GPU.

    Args:
        device: Fabric's accelerator (``auto``, ``cpu``, ``cuda``, ``mps``), or one CUDA device as ``cuda:1``.
        precision: a key of :data:`PRECISIONS`.

    Raises:
        UnseenError: no such device or precision on this machine.
    """
    if precision not in PRECISIONS:
        raise UnseenError(f'unknown precision "{precision}"', hint=f"use one of {', '.join(PRECISIONS)}")
    if precision == "32-true" and not launched():
        return cast("Fabric", _Later(find_device(device), device))
    fabric = _fabric_of(device, precision)
    if fabric.device.type == "cpu" and precision == "16-mixed":
        raise UnseenError("float16 training needs a GPU", where="precision", hint="use bf16-mixed or 32-true on a CPU")
    return fabric


def _fabric_of(device: str, precision: str) -> Fabric:
    """The Fabric itself."""
    accelerator, index = split_device(device)
    options: dict[str, Any] = {"devices": 1 if index is None else [index]}
    with _without_metrics():
        import_uncompiled("lightning_fabric")
        from lightning_fabric import Fabric
    if launched():
        if index is not None:
            raise UnseenError(
                f'device "{device}" is the same for all processes', hint="use --device cuda; each process gets its own"
            )
        options = {"devices": local_processes(), "num_nodes": int(os.environ["GROUP_WORLD_SIZE"])}
        options["strategy"] = _replicas()
    try:
        fabric = Fabric(accelerator=accelerator, precision=precision, **options)  # type: ignore[arg-type]
        if launched():
            fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise UnseenError(f'cannot use device "{device}" ({error})', hint="use auto or cpu") from None
    except Exception as error:  # Fabric's own MisconfigurationException is private
        raise UnseenError(f'cannot use device "{device}" ({error})', hint="use auto or cpu") from None
    if fabric.device.type == "cuda":
        torch.cuda.set_device(fabric.device)  # a checkpoint stores its random state
    return fabric


def _replicas() -> Any:
    """Strategy with one process per device, each with the whole model; a step adds up their gradients."""
    from lightning_fabric.strategies.ddp import DDPStrategy

    class Replicas(DDPStrategy):
        def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
            return module

    return Replicas(process_group_backend=_BACKENDS, timeout=timedelta(hours=6))


@contextmanager
def _without_metrics() -> Iterator[None]:
    """Keep torchmetrics from being imported: Lightning asks for its version only, and it imports transformers."""
    name = "torchmetrics"
    if name in sys.modules or importlib.util.find_spec(name) is None:
        yield
        return
    sys.modules[name] = stand_in = ModuleType(name)
    stand_in.__version__ = version(name)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del sys.modules[name]


def check_fabric(fabric: Fabric, precision: str) -> Fabric:
    """Check that a Fabric of the caller can run a training: it has this precision and one process.

    Raises:
        UnseenError: it cannot.
    """
    own = str(getattr(fabric.strategy.precision, "precision", ""))
    if own != precision:
        problem = f"the Fabric has precision {own}, but the run has {precision}"
        raise UnseenError(problem, where="fabric", hint=f'precision="{own}", or another Fabric')
    if fabric.world_size > 1 and not launched():
        raise UnseenError("a Fabric of several processes", where="fabric", hint="leave it out and start torchrun")
    return fabric


def weight_dtype(precision: str) -> torch.dtype:
    """Dtype of parameters under a precision."""
    return torch.float64 if precision == "64-true" else torch.float32
