"""A closed-form method's share of a run: the hyper-parameters that validation chooses, and the solution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.ground.progress import Progress
from unseen.methods import find_method
from unseen.methods.base import ClosedFormMethod
from unseen.model.weights import save_weights
from unseen.training.divergence import DivergedError, broken_features, not_finite
from unseen.training.outcomes import Choice, Result, choice_of, criterion_of, honest_result, keep_references, measure
from unseen.training.stage import Stage
from unseen.training.steps import non_finite


def choose(seed: int, folder: Path, stage: Stage, progress: Progress) -> Choice:
    """Solve on the training classes for every candidate, testing each on the validation images."""
    method, criterion = _fitted(seed, stage), criterion_of(stage.inputs.config.select)
    swept = _sweep(method, stage, f"seed {seed}: validation", progress)
    candidate, metrics = max(swept, key=lambda pair: pair[1][criterion])
    method.use(candidate)
    return choice_of(candidate, metrics, method, stage)


def finish(
    seed: int,
    folder: Path,
    protocols: tuple[str, ...],
    stage: Stage,
    choice: Choice | None,
    progress: Progress,
) -> dict[str, Result]:
    """Solve on all seen classes, with the chosen candidate and, for ``paper``, with every one."""
    method, results = _fitted(seed, stage), {}
    if choice is not None:
        method.use(choice.pick)
        save_weights(folder / "honest.safetensors", method)
        results["honest"] = honest_result(choice, stage.decide(method), method, stage, folder)
    if "paper" in protocols:
        swept = _sweep(method, stage, f"seed {seed}: test", progress)
        sweeps = find_method(stage.inputs.config.method).sweeps_gamma
        for_t1, _ = max(swept, key=lambda pair: pair[1]["T1"])
        for_h, best = max(swept, key=lambda pair: pair[1]["best_H" if sweeps else "H"])
        method.use(for_t1)
        t1 = stage.decide(method)
        method.use(for_h)
        save_weights(folder / "paper.safetensors", method)
        if choice is None:  # the run's model
            keep_references(method, stage, folder / "paper.safetensors")
        chosen = {"T1": for_t1, "H": for_h, "by": "test set"}
        results["paper"] = Result(t1, stage.decide(method), best["best_gamma"] if sweeps else 0.0, chosen, None)
    return results


def _fitted(seed: int, stage: Stage) -> ClosedFormMethod:
    method: ClosedFormMethod = stage.inputs.new_method(seed)
    everything = stage.train.batch(np.arange(len(stage.train_labels)))
    broken = [stage.inputs.dataset.files[stage.partition.train[i]] for i in not_finite(everything)]
    if broken:
        raise broken_features(broken, method.name)
    try:
        method.fit(everything, torch.as_tensor(stage.train_labels, device=stage.fabric.device), stage.classes)
    except torch.linalg.LinAlgError as error:
        raise DivergedError(f"no solution ({error})", where=method.name, hint="--precision 64-true") from None
    return method


def _sweep(method: ClosedFormMethod, stage: Stage, task: str, progress: Progress) -> list[tuple[dict[str, Any], Any]]:
    """Every hyper-parameter candidate with its metrics on the held-out images; those without a solution apart."""
    grid = method.grid()
    swept = []
    for i, candidate in enumerate(grid):
        method.use(candidate)
        if non_finite(method.state_dict()) is None:
            swept.append((candidate, measure(stage.decide(method), stage.seen)))
        progress(task, i + 1, len(grid))
    if not swept:
        problem = f"none of {len(grid)} hyper-parameter candidates has a finite solution"
        raise DivergedError(problem, where=method.name, hint="--precision 64-true, or check the features")
    return swept
