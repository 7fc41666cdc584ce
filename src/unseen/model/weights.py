"""Weights of a trained module as one safetensors file, without pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from unseen.errors import RunError
from unseen.ground.tensors import load_tensors, save_tensors

DAMAGED = (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError)
"""Errors that a damaged file raises; a MemoryError if its header promises more than the file holds."""


def save_weights(path: Path, module: nn.Module) -> None:
    """Write a module's state dict, atomically."""
    save_tensors(path, module.state_dict())


def load_weights(path: Path, module: nn.Module) -> None:
    """Read a module's state dict, strictly.

    Raises:
        RunError: the file is missing, damaged, or belongs to another module.
    """
    try:
        state, _ = load_tensors(path)
    except FileNotFoundError:
        raise RunError("no such file", where=path, hint="finish the training first") from None
    except DAMAGED as error:
        raise RunError(f"damaged weights ({error})", where=path, hint="train again, or restore the file") from None
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise RunError(
                f'"{name}" contains values that are not finite', where=path, hint="train again, or restore the file"
            )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"weights of another model ({reason})", where=path, hint="use the file of this run") from None
