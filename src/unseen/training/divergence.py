"""Errors for values that are not finite in a training, and a warning if the loss grew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unseen.errors import UnseenError

GROWN = 2.0
"""Ratio of the last epoch's loss to that of the first step from which a training gets a warning."""
WEIGHTS = "weights"
"""Name of the norm of all trained weights among the numbers of a step."""
SHOWN = 3
"""Number of images that an error names."""


class DivergedError(UnseenError):
    """A loss, weight or score is not finite.

    Args:
        problem, where, hint: as in every error.
        term: the loss term, or what else is not finite.
        step, epoch: position in the training, from 1.
        images: names of the step's images, or only of those with such features if there are any.
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
    """The first names of a list, and the number of others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def not_finite(regions: Tensor) -> np.ndarray:
    """Positions of the images with features ``(B, ...)`` that are not finite."""
    found: np.ndarray = np.flatnonzero(~regions.flatten(1).isfinite().all(dim=1).cpu().numpy())
    return found


def broken_features(names: Sequence[str], where: object) -> DivergedError:
    """Error for features that are not finite before training; names the images."""
    problem = f"features of {some(names)} are not finite"
    return DivergedError(problem, where=where, hint="extract or import the features again", images=names)


def broken_start(weight: str, names: Sequence[str], where: object) -> DivergedError:
    """Error for a start that is not finite; names the images with such features if there are any."""
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
    """Error for a step with a number that is not finite.

    Args:
        numbers: loss terms and the norm of the weights after the step.
        step, epoch: from 1.
        names: names of the step's images.
        broken: those with features that are not finite.
        weights: what else is not finite: a weight, or a state of the optimizer.
        folder: folder of the training.
        kept: the step of the last checkpoint; ``None`` without one.
        lr: learning rate.
        precision: Fabric's precision.
    """
    bad = [name for name, value in numbers.items() if not np.isfinite(value) and name != WEIGHTS]
    term = min(bad, key=lambda name: name == "total", default=WEIGHTS)  # by term, because their sum hides which one
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
    """Warning for a training whose loss grew to at least :data:`GROWN` times that of its first step."""
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
    """:func:`growth` of every training in a run folder."""
    notes = []
    for path in sorted(folder.glob("seed-*/*/metrics.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        note = growth([json.loads(line) for line in lines])
        if note is not None:
            notes.append(f"{path.parent.relative_to(folder)}: {note}")
    return notes
