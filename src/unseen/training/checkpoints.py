"""Training state in one safetensors file: weights, optimizer, random state, step. No pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unseen.errors import RunError
from unseen.ground.tensors import load_tensors, read_texts, save_tensors
from unseen.model.weights import DAMAGED


@contextmanager
def _undamaged(path: Path, problem: str = "damaged checkpoint") -> Iterator[None]:
    """Errors of a damaged file as :class:`RunError`."""
    try:
        yield
    except DAMAGED as error:
        hint = "delete it and repeat the command; the stage starts over"
        raise RunError(f"{problem} ({error})", where=path, hint=hint) from None


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    info: dict[str, Any],
    averaged: nn.Module | None = None,
) -> None:
    """Write weights, their average, optimizer state, random states and ``info`` (JSON) atomically."""
    tensors: dict[str, Tensor] = {f"model/{k}": v.detach() for k, v in module.state_dict().items()}
    if averaged is not None:
        tensors |= {f"average/{k}": v.detach() for k, v in averaged.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    tensors["rng/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    metadata = {
        "info": json.dumps(info),
        "optimizer": json.dumps({"groups": state["param_groups"], "scalars": scalars}),
    }
    save_tensors(path, tensors, metadata)


def read_info(path: Path) -> dict[str, Any] | None:
    """The ``info`` of a checkpoint; ``None`` without a file. Does not verify the file, :func:`load_checkpoint` does.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return None
    with _undamaged(path):
        info: dict[str, Any] = json.loads(read_texts(path)["info"])
        return info


def check_checkpoint(path: Path) -> None:
    """Raise :class:`RunError` if a checkpoint is damaged."""
    with _undamaged(path):
        load_tensors(path)


def _check_state(state: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise ValueError if a parameter has another kind of optimizer state than the others."""
    if len({frozenset(entries) for entries in state.values()}) > 1:
        raise ValueError("part of the optimizer state is missing")


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, averaged: nn.Module | None = None
) -> None:
    """Restore what :func:`save_checkpoint` wrote.

    Raises:
        RunError: the file is damaged, or belongs to another module.
    """
    with _undamaged(path, "cannot resume"):
        tensors, metadata = load_tensors(path)
        about = json.loads(metadata["optimizer"])
        for prefix, target in (("model/", module), ("average/", averaged)):
            if target is not None:
                target.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in about["scalars"].items()}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/", 2)
                state.setdefault(int(index), {})[key] = value
        _check_state(state)
        # each process decides by itself how to compute steps
        own = [
            {k: group[k] for k in ("capturable", "foreach", "fused") if k in group} for group in optimizer.param_groups
        ]
        groups = [saved | mine for saved, mine in zip(about["groups"], own, strict=True)]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        for parameter, entries in optimizer.state.items():  # fused steps read both in memory order
            for key, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        torch.set_rng_state(tensors["rng/cpu"])
        if torch.cuda.is_available() and "rng/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng/cuda"])
