"""Tensors in safetensors files with a checksum over all content. No pickle.

All texts are one entry of the file's metadata, since the order of several entries is not fixed: equal content gives
equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from unseen.ground.files import write_with

ENTRY, SEAL = "unseen", "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str] | None = None) -> None:
    """Write tensors and texts with their checksum, atomically."""
    # clones: safetensors refuses tensors that share memory
    ready = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    about = dict(texts or {})
    about[SEAL] = _digest(ready, about)

    # not save_file, which writes its own temporary file
    content = save(ready, {ENTRY: json.dumps(about, sort_keys=True)})
    write_with(path, lambda temporary: temporary.write_bytes(content))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; a foreign file has no checksum, and its metadata as texts.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, SafetensorError: the file is damaged.
    """
    tensors, (about, ours) = load_file(path), _read_texts(path)
    if ours and about.pop(SEAL, None) != _digest(tensors, about):
        raise SafetensorError("the checksum does not match")
    return tensors, about


def read_texts(path: Path) -> dict[str, str]:
    """Only the texts, including the checksum, which is not verified; raises as :func:`load_tensors`."""
    return _read_texts(path)[0]


def _read_texts(path: Path) -> tuple[dict[str, str], bool]:
    """Also whether the file is ours."""
    with safe_open(path, "pt") as opened:
        about = dict(opened.metadata() or {})
    try:
        texts = json.loads(about[ENTRY]) if ENTRY in about else about
    except ValueError as error:
        raise SafetensorError(f"its metadata is damaged: {error}") from None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise SafetensorError("its metadata is damaged")
    return texts, ENTRY in about


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
