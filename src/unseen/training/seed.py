"""One seed of a run, whatever the kind of method: its validation, then its training on all seen classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unseen.ground.progress import Progress
from unseen.training.inputs import RunInputs
from unseen.training.offset import matched
from unseen.training.outcomes import Choice
from unseen.training.stage import Stage
from unseen.training.temperature import Held


class SeedValidation(ABC):
    """Chooses an epoch or hyperparameters for one seed on all draws of validation classes.

    Attributes:
        value: of the candidate that :meth:`best` returned, on the draws so far.
        race: H of each method's best candidate, and on each draw, if methods are candidates
            (:mod:`unseen.methods.auto`).
        study: how a choice between two forms of a method was made (:mod:`unseen.training.anchored`).

    Args:
        seed: of weights and sampling.
        folder: of the seed.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self.value = 0.0
        self.race: dict[str, dict[str, Any]] = {}
        self.study: dict[str, Any] = {}

    @abstractmethod
    def draw(self, stage: Stage, progress: Progress) -> None:
        """Train on the training classes of a draw, and keep what :meth:`best` needs."""

    @abstractmethod
    def best(self, inputs: RunInputs) -> dict[str, Any]:
        """Return the candidate with the highest value on the draws so far, the first of equal ones; sets ``value``."""

    @abstractmethod
    def scores(self, stage: Stage, pick: dict[str, Any]) -> Held:
        """Class scores of the validation images of a draw under a candidate."""

    def vectors(self, stage: Stage, pick: dict[str, Any]) -> np.ndarray | None:
        """Held-out images of a draw in the space of support images, if that depends on the candidate."""
        return None

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """Remove files that only the choice needed."""


@dataclass(frozen=True, eq=False)
class Final:
    """The training of one seed on all seen classes.

    Args:
        seed: of weights and sampling.
        folder: of the seed.
        protocols: ``honest``, ``paper`` or both.
        stage: ``final``.
        choice: of validation; ``None`` for ``paper`` alone.
        progress: progress callback.
    """

    seed: int
    folder: Path
    protocols: tuple[str, ...]
    stage: Stage
    choice: Choice | None
    progress: Progress

    def with_offset(self, scored: Callable[[np.ndarray, np.ndarray], Tensor]) -> Choice:
        """The choice with the offset of the final stage; arguments as for :func:`unseen.training.offset.matched`."""
        assert self.choice is not None
        self.progress(f"seed {self.seed}: offset", 0, 1)
        choice = matched(self.choice, self.stage, scored)
        self.progress(f"seed {self.seed}: offset", 1, 1)
        return choice
