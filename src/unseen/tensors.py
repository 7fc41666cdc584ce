"""Tensors in safetensors files that carry a checksum of everything in them. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unseen.files import write_with

SEAL = "unseen_sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and texts with their checksum, whole or not at all."""
    # clones: safetensors refuses tensors that share memory
    ready = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    about = dict(metadata or {})
    about[SEAL] = _digest(ready, about)

    def write(temporary: Path) -> None:
        try:
            save_file(ready, temporary, about)
        except SafetensorError as error:  # in which it wraps what the system said
            raise OSError(str(error)) from None

    write_with(path, write)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; one that carries no checksum is taken as it is.

    Raises:
        FileNotFoundError: there is none.
        OSError, SafetensorError: it is damaged.
    """
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        about = dict(opened.metadata() or {})
    if SEAL in about and about.pop(SEAL) != _digest(tensors, about):
        raise SafetensorError("not what was written, by its checksum")
    return tensors, about


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
