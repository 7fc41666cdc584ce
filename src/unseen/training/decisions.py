"""Decisions of a run's models, as files."""

from __future__ import annotations

from pathlib import Path

from unseen.errors import RunError
from unseen.evaluation.metrics import Decisions
from unseen.ground.files import read_arrays, write_arrays

_ARRAYS = ("labels", "best_seen", "best_unseen", "offset", "is_unseen")


def decisions_path(folder: Path, seed: int | str, protocol: str, metric: str) -> Path:
    """The file of one seed's decisions: on the test images by the model that T1 or (``H``) U, S and H come from."""
    return folder / f"seed-{seed}" / f"{protocol}-{metric}.npz"


def save_decisions(path: Path, d: Decisions) -> None:
    """Write decisions as arrays, whole or not at all."""
    write_arrays(path, **{k: getattr(d, k) for k in _ARRAYS})


def load_decisions(path: Path) -> Decisions:
    """What :func:`save_decisions` wrote.

    Raises:
        RunError: missing, damaged, or not of this kind.
    """
    arrays = read_arrays(path, _ARRAYS, RunError, "repeat the command of the run")
    return Decisions(**arrays)
