"""The device and precision of a training, on Lightning Fabric, for one process or several."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from unseen.errors import UnseenError
from unseen.ground.devices import split_device
from unseen.ground.distributed import launched, local_processes

PRECISIONS = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
"""Fabric's precision to the type that features are kept in; weights are float64 for ``64-true``, else float32."""
_BACKENDS = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


class _Replicas(DDPStrategy):
    """A process a device, each with the whole model, whose gradients a step adds up."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """As it is."""
        return module


def make_fabric(device: str = "auto", precision: str = "32-true") -> Fabric:
    """Fabric on one device; a process that torchrun started joins the others, and takes a GPU of its own.

    Args:
        device: Fabric's accelerator (``auto``, ``cpu``, ``cuda``, ``mps``), or one CUDA device as ``cuda:1``.
        precision: a key of :data:`PRECISIONS`.

    Raises:
        UnseenError: no such device or precision here.
    """
    if precision not in PRECISIONS:
        raise UnseenError(f'unknown precision "{precision}"', hint=f"use one of {', '.join(PRECISIONS)}")
    accelerator, index = split_device(device)
    options: dict[str, Any] = {"devices": 1 if index is None else [index]}
    if launched():
        if index is not None:
            raise UnseenError(
                f'device "{device}" is the same for all processes', hint="use --device cuda; each process gets its own"
            )
        options = {"devices": local_processes(), "num_nodes": int(os.environ["GROUP_WORLD_SIZE"])}
        options["strategy"] = _Replicas(process_group_backend=_BACKENDS, timeout=timedelta(hours=6))
    try:
        fabric = Fabric(accelerator=accelerator, precision=precision, **options)  # type: ignore[arg-type]
        if launched():
            fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise UnseenError(f'cannot use device "{device}" ({error})', hint="use auto or cpu") from None
    except Exception as error:  # Fabric's own MisconfigurationException is private
        raise UnseenError(f'cannot use device "{device}" ({error})', hint="use auto or cpu") from None
    if fabric.device.type == "cuda":
        torch.cuda.set_device(fabric.device)  # whose random state a checkpoint keeps
    if fabric.device.type == "cpu" and precision == "16-mixed":
        raise UnseenError("float16 training needs a GPU", where="precision", hint="use bf16-mixed or 32-true on a CPU")
    return fabric


def check_fabric(fabric: Fabric, precision: str) -> Fabric:
    """A Fabric of somebody's own, if a training can use it: of this precision, and one process.

    Raises:
        UnseenError: it cannot.
    """
    own = str(getattr(fabric.strategy.precision, "precision", ""))
    if own != precision:
        problem = f"a Fabric of precision {own}, and the run is of {precision}"
        raise UnseenError(problem, where="fabric", hint=f'precision="{own}", or another Fabric')
    if fabric.world_size > 1 and not launched():
        raise UnseenError("a Fabric of several processes", where="fabric", hint="leave it out and start torchrun")
    return fabric


def weight_dtype(precision: str) -> torch.dtype:
    """The type that parameters have under a precision."""
    return torch.float64 if precision == "64-true" else torch.float32
