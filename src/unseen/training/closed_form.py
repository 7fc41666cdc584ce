"""Closed-form methods in a run: choose hyperparameters by validation, and solve."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unseen.evaluation.metrics import Decisions
from unseen.ground.progress import Progress
from unseen.methods.base import ClosedFormMethod
from unseen.model.weights import save_weights
from unseen.training.divergence import DivergedError, broken_features, not_finite
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result, measure, results_of, value_of
from unseen.training.seed import Final, SeedValidation
from unseen.training.stage import Stage
from unseen.training.temperature import Held


class Validation(SeedValidation):
    """Chooses hyperparameters: tries every candidate on every draw, then takes the best on all."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self._draws: list[dict[str, tuple[dict[str, Any], Decisions]]] = []
        self._seen: list[np.ndarray] = []

    def draw(self, stage: Stage, progress: Progress) -> None:
        """Solve on the training classes of a draw for every candidate, and decide on its validation images."""
        method, task = _fitted(self._seed, stage), f"seed {self._seed}: {stage.name}"
        found = {json.dumps(candidate): (candidate, d) for candidate, d in _sweep(method, stage, task, progress)}
        self._draws.append(found)
        self._seen.append(stage.seen)

    def best(self, inputs: RunInputs) -> dict[str, Any]:
        """The candidate with the highest value; the first in a tie."""
        common = [key for key in self._draws[0] if all(key in found for found in self._draws)]
        if not common:
            problem = "no hyperparameter candidate has a finite solution on every draw of validation classes"
            raise DivergedError(
                problem, where=inputs.config.method, hint="use --precision 64-true, or check the features"
            )
        worth = {
            key: value_of([found[key][1] for found in self._draws], self._seen, inputs.config.select) for key in common
        }
        for key, value in worth.items():
            name = self._draws[0][key][0].get("method")
            if name is not None:
                self.race[name] = max(value, self.race.get(name, value))
        key = max(common, key=lambda key: worth[key])
        self.value = worth[key]
        return self._draws[0][key][0]

    def scores(self, stage: Stage, pick: dict[str, Any]) -> Held:
        """Class scores of the validation images of a draw under a candidate."""
        method = _fitted(self._seed, stage)
        method.use(pick)
        return Held(stage.scores(method).numpy(), stage.test_labels, stage.seen)


def finish(final: Final) -> dict[str, Result]:
    """Solve on all seen classes with the chosen candidate, and for ``paper`` with every candidate."""
    choice = final.choice
    if choice is not None:
        choice = final.with_offset(functools.partial(scored, final.seed, final.stage, choice.pick))
    solved = _Solved(final.seed, final.stage, final.progress)
    return results_of(solved, final.protocols, final.stage, choice, final.folder)


class _Solved:
    """A fitted method under any candidate; see :class:`unseen.training.outcomes.Trained`."""

    def __init__(self, seed: int, stage: Stage, progress: Progress) -> None:
        self.method = _fitted(seed, stage)
        self._stage, self._task, self._progress = stage, f"seed {seed}: test", progress
        self._held: dict[str, Any] | None = None

    def tested(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        self._held = None
        swept = _sweep(self.method, self._stage, self._task, self._progress)
        return [(candidate, measure(decisions, self._stage.seen)) for candidate, decisions in swept]

    def hold(self, pick: dict[str, Any], weights: Path) -> None:
        self._use(pick)
        save_weights(weights, self.method)

    def decisions(self, pick: dict[str, Any]) -> Decisions:
        self._use(pick)
        return self._stage.decide(self.method)

    def _use(self, pick: dict[str, Any]) -> None:
        if pick != self._held:
            self.method.use(pick)
            self._held = pick


def scored(seed: int, stage: Stage, pick: dict[str, Any], train: np.ndarray, held: np.ndarray) -> Tensor:
    """Class scores of some training images under the solution for others."""
    method = _fitted(seed, stage, train)
    method.use(pick)
    method.eval()
    with torch.inference_mode():
        regions = stage.train.batch(held).to(stage.classes.vectors.dtype)
        return method.class_scores(method(regions), stage.classes)


def _fitted(seed: int, stage: Stage, rows: np.ndarray | None = None) -> ClosedFormMethod:
    """The method, fitted to all training images or to some of them."""
    method: ClosedFormMethod = stage.inputs.new_method(seed)
    rows = np.arange(len(stage.train_labels)) if rows is None else rows
    everything = stage.train.batch(rows)
    broken = [stage.inputs.dataset.files[stage.partition.train[rows[i]]] for i in not_finite(everything)]
    if broken:
        raise broken_features(broken, method.name)
    try:
        method.fit(everything, torch.as_tensor(stage.train_labels[rows], device=stage.fabric.device), stage.classes)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined] # public, says torch's documentation
        raise DivergedError(f"no solution ({error})", where=method.name, hint="--precision 64-true") from None
    return method


def _sweep(
    method: ClosedFormMethod, stage: Stage, task: str, progress: Progress
) -> Iterator[tuple[dict[str, Any], Decisions]]:
    """Yield every candidate with its decisions on the held-out images, without candidates that have no solution."""
    count, done = len(method.grid()), 0
    everything = stage.test.batch(np.arange(len(stage.test_labels))).to(stage.classes.vectors.dtype)
    with torch.no_grad():
        for candidates, scores in method.sweep_blocks(everything, stage.classes):
            decisions = Decisions.of_candidates(scores, stage.test_labels, stage.seen)
            yield from zip(candidates, decisions, strict=True)
            done += len(candidates)
            progress(task, done, count)
    if not done:
        problem = f"none of {count} hyperparameter candidates has a finite solution"
        raise DivergedError(problem, where=method.name, hint="use --precision 64-true, or check the features")
    progress(task, count, count)
