"""When a training comes to numbers that are none: what is said of it. And when its loss grew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unseen.errors import UnseenError

GROWN = 2.0
"""The last epoch's loss over that of the first step from which on a training is doubted."""
WEIGHTS = "weights"
"""What the norm of all weights that train is called among a step's numbers."""
SHOWN = 3
"""Images that an error names."""


class DivergedError(UnseenError):
    """A loss, a weight or a score is no longer a finite number.

    Args:
        problem, where, hint: as of every error.
        term: the loss term, or what else it was.
        step, epoch: of the training, from 1.
        images: names of the step's images; only those with such features, where there are some.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: object = None,
        hint: str | None = None,
        term: str = "",
        step: int = 0,
        epoch: int = 0,
        images: Sequence[str] = (),
    ) -> None:
        super().__init__(problem, where=where, hint=hint)
        self.term, self.step, self.epoch, self.images = term, step, epoch, tuple(images)


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def not_finite(regions: Tensor) -> np.ndarray:
    """Positions of the images whose features ``(B, ...)`` hold a number that is none."""
    found: np.ndarray = np.flatnonzero(~regions.flatten(1).isfinite().all(dim=1).cpu().numpy())
    return found


def broken_features(names: Sequence[str], where: object) -> DivergedError:
    """The error for features, of the images named, that are no numbers before anything is trained on them."""
    problem = f"features of {some(names)} are not finite"
    return DivergedError(problem, where=where, hint="extract or import the features again", images=names)


def broken_start(weight: str, names: Sequence[str], where: object) -> DivergedError:
    """The error for a start that is not finite, by the images whose features are not, or by itself."""
    if names:
        return broken_features(names, where)
    return DivergedError(
        f"{weight} is not finite at the start", where=where, hint="check for classes with equal attributes"
    )


def diverged(
    numbers: dict[str, float],
    *,
    step: int,
    epoch: int,
    names: Sequence[str],
    broken: Sequence[str],
    weights: str | None,
    folder: Path,
    kept: int | None,
    lr: float,
    precision: str,
) -> DivergedError:
    """The error for a step of which some number is not finite.

    Args:
        numbers: loss terms and the norm of the weights after the step.
        step, epoch: from 1.
        names: of its images.
        broken: those of them whose features are not finite.
        weights: what else is not finite: a weight, or a state of the optimiser.
        folder: of the training.
        kept: the step of the last checkpoint; ``None`` without one.
        lr: learning rate.
        precision: Fabric's.
    """
    bad = [name for name, value in numbers.items() if not np.isfinite(value) and name != WEIGHTS]
    term = min(bad, key=lambda name: name == "total", default=WEIGHTS)  # of terms rather than of their sum
    if term == WEIGHTS:
        found = f"{weights or 'a weight'} is not finite after step {step} (epoch {epoch}), at a loss of "
        found += f"{numbers['total']:.4g}"
    else:
        found = f"{term} is {numbers[term]} at step {step} (epoch {epoch})"
    again = "starts over" if kept is None else f"resumes from the checkpoint of step {kept}"
    if broken:
        found += f": features of {some(broken)} are not finite"
        hint = f"extract or import the features again; the same command then {again}"
    else:
        found += f", on {some(names)}"
        less = f"lower the learning rate: --recipe lr={lr / 10:g}"
        if not precision.startswith(("32", "64")):
            less += " or --precision 32-true"
        hint = f"{less}, with another --output; the same command {again} and meets the same steps"
    about: dict[str, Any] = {"term": term, "step": step, "epoch": epoch, "images": broken or names}
    return DivergedError(found, where=folder, hint=hint, **about)


def growth(records: Sequence[dict[str, Any]]) -> str | None:
    """What is to be said of a training whose loss grew to :data:`GROWN` times that of its first step, or more."""
    if not records:
        return None
    start, last = records[0].get("start"), records[-1]
    if start is None or start <= 0 or last["loss"]["total"] < GROWN * start:
        return None
    return (
        f"the loss grew from {start:.3g} at the first step to {last['loss']['total']:.3g} in epoch {last['epoch']}: "
        "the learning rate is too high"
    )


def grown_losses(folder: Path) -> list[str]:
    """:func:`growth` of every training of a run's folder."""
    notes = []
    for path in sorted(folder.glob("seed-*/*/metrics.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        note = growth([json.loads(line) for line in lines])
        if note is not None:
            notes.append(f"{path.parent.relative_to(folder)}: {note}")
    return notes
