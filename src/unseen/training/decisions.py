"""Files with the decisions of a run's models."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from unseen.errors import RunError
from unseen.evaluation.metrics import Decisions
from unseen.ground.files import read_arrays, write_arrays


def decisions_path(folder: Path, seed: int | str, protocol: str, metric: str) -> Path:
    """File of one seed's decisions on the test images, by the model of T1 or (``H``) of U, S and H."""
    return folder / f"seed-{seed}" / f"{protocol}-{metric}.npz"


def save_decisions(path: Path, d: Decisions) -> None:
    """Write decisions as arrays, atomically."""
    write_arrays(path, **d.arrays())


def load_decisions(path: Path) -> Decisions:
    """Read what :func:`save_decisions` wrote.

    Raises:
        RunError: the file is missing, damaged or of another kind.
    """
    names = [f.name for f in fields(Decisions)]
    return Decisions.from_arrays(read_arrays(path, names, RunError, "repeat the command of the run"))
