"""Closed-form methods in a run: choose hyperparameters by validation, and solve."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unseen.evaluation.metrics import Decisions, h_bounds
from unseen.ground.progress import Progress
from unseen.ground.threads import side_by_side
from unseen.methods.base import ClosedFormMethod, SweepPart
from unseen.model.weights import save_weights
from unseen.training.divergence import DivergedError, broken_features, not_finite
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result, measure, results_of, value_of, values_of
from unseen.training.seed import Final, SeedValidation
from unseen.training.stage import Stage
from unseen.training.temperature import Held

MOST_BESIDE = 1 << 26
"""Bytes of float64 training features, in all preparations that are computed side by side; larger ones use all threads
one after another.
"""


@dataclass(frozen=True, eq=False)
class _Tried:
    """A candidate on a draw: its decisions, in small types, and a bound of its H (:func:`h_bounds`)."""

    candidate: dict[str, Any]
    small: Decisions
    bound: float

    @property
    def decisions(self) -> Decisions:
        """Its decisions in the usual types."""
        return replace(self.small, scores=self.small.scores.astype(np.float64))


class Validation(SeedValidation):
    """Chooses hyperparameters: tries every candidate on every draw, then takes the best on all."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self._draws: list[dict[str, _Tried]] = []
        self._seen: list[np.ndarray] = []
        self._solved: dict[str, ClosedFormMethod] = {}

    def draw(self, stage: Stage, progress: Progress) -> None:
        """Solve on the training classes of a draw for every candidate, and decide on its validation images."""
        method, task = _fitted(self._seed, stage), f"seed {self._seed}: {stage.name}"
        self._draws.append(_tried(method, stage, task, progress))
        self._seen.append(stage.seen)
        stage.whitened = method.whitened
        if method.settle():
            self._solved[stage.name] = method

    def best(self, inputs: RunInputs) -> dict[str, Any]:
        """The candidate with the highest value; the first in a tie."""
        common = [key for key in self._draws[0] if all(key in found for found in self._draws)]
        if not common:
            problem = "no hyperparameter candidate has a finite solution on every draw of validation classes"
            raise DivergedError(
                problem, where=inputs.config.method, hint="use --precision 64-true, or check the features"
            )
        by_method: dict[str | None, list[int]] = {}
        for place, key in enumerate(common):
            by_method.setdefault(self._draws[0][key].candidate.get("method"), []).append(place)
        leaders = []
        for name, places in by_method.items():
            value, place = self._leader(common, places, inputs.config.select)
            leaders.append((value, place))
            if name is not None:
                h = value_of([found[common[place]].decisions for found in self._draws], self._seen, "H")
                self.race[name] = {"H": h, "draws": self._values(common[place], "H").tolist()}
        self.value, place = max(leaders, key=lambda leader: (leader[0], -leader[1]))
        return self._draws[0][common[place]].candidate

    def _leader(self, keys: list[str], places: list[int], select: str) -> tuple[float, int]:
        """Highest value and place of some candidates, the first in a tie.

        In the order of their bounds: when a bound is below the best value so far, no later candidate can win.
        """
        bounds = np.array([[found[keys[place]].bound for found in self._draws] for place in places]).mean(axis=1)
        bounds = np.where(np.isfinite(bounds) & (select == "H"), bounds, np.inf)
        best: tuple[float, int] | None = None
        for i in np.argsort(-bounds, kind="stable"):
            if best is not None and bounds[i] < best[0]:
                break
            value = value_of([found[keys[places[i]]].decisions for found in self._draws], self._seen, select)
            if best is None or value > best[0] or (value == best[0] and places[i] < best[1]):
                best = value, places[i]
        assert best is not None
        return best

    def values(self, pick: dict[str, Any], select: str) -> np.ndarray:
        """``(draws,)`` value of a candidate on each draw."""
        return self._values(json.dumps(pick), select)

    def _values(self, key: str, select: str) -> np.ndarray:
        tried = [found[key].decisions for found in self._draws]
        return values_of([replace(d, scores=d.scores.astype(np.float64)) for d in tried], self._seen, select)

    def scores(self, stage: Stage, pick: dict[str, Any]) -> Held:
        """Class scores of the validation images of a draw under a candidate."""
        method = self._solved.pop(stage.name, None) or _fitted(self._seed, stage)
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
        found = _tried(self.method, self._stage, self._task, self._progress).values()
        return [(one.candidate, measure(one.decisions, self._stage.seen)) for one in found]

    def hold(self, pick: dict[str, Any], weights: Path) -> None:
        self._use(pick)
        save_weights(weights, self.method)

    def decisions(self, pick: dict[str, Any]) -> Decisions:
        self._use(pick)
        return self._stage.decide(self.method)

    def _use(self, pick: dict[str, Any]) -> None:
        if pick != self._held:
            self.method.use(pick)
            self._held, self._stage.whitened = pick, self.method.whitened


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


def _tried(method: ClosedFormMethod, stage: Stage, task: str, progress: Progress) -> dict[str, _Tried]:
    """Every candidate on the held-out images, by its JSON in the order of the grid, without those with no solution."""
    grid, found = method.grid(), dict[str, _Tried]()
    regions = stage.test.batch(np.arange(len(stage.test_labels))).to(stage.classes.vectors.dtype)
    dtype = np.float64 if regions.dtype == torch.float64 else np.float32  # of the scores

    def try_part(part: SweepPart) -> list[tuple[dict[str, Any], Decisions, float]]:
        tried: list[tuple[dict[str, Any], Decisions, float]] = []
        with torch.no_grad():
            for candidates, scores in part:
                decisions = Decisions.of_candidates(scores, stage.test_labels, stage.seen)
                tried += zip(candidates, decisions, h_bounds(decisions).tolist(), strict=True)
        return tried

    with torch.no_grad():
        parts = method.sweep_parts(regions, stage.classes)
    for tried in side_by_side(try_part, parts, _at_a_time(stage)):
        for candidate, one, bound in tried:  # copied here, where few large arrays come and go in between
            small = Decisions(one.labels, one.leading.astype(np.int32), one.scores.astype(dtype), one.is_unseen)
            found[json.dumps(candidate)] = _Tried(candidate, small, bound)
        progress(task, len(found), len(grid))
    if not found:
        problem = f"none of {len(grid)} hyperparameter candidates has a finite solution"
        raise DivergedError(problem, where=method.name, hint="use --precision 64-true, or check the features")
    progress(task, len(grid), len(grid))
    return {key: found[key] for key in map(json.dumps, grid) if key in found}


def _at_a_time(stage: Stage) -> int:
    """Number of preparations of the training features that are computed at a time."""
    size = len(stage.train_labels) * stage.train.batch(np.arange(1)).numel() * 8
    return max(1, min(torch.get_num_threads(), MOST_BESIDE // size)) if stage.fabric.device.type == "cpu" else 1
