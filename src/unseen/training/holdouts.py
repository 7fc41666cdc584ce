"""How well unseen classes will be named where nobody has an image of one: the whole procedure with classes set aside.

Some seen classes play the unseen ones. Without their images the model is chosen, calibrated and trained just as the
real one, and then tested on them once. So nothing that the numbers are of was used to choose anything. Ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unseen.data.dataset import Dataset
from unseen.errors import DataError
from unseen.ground.progress import Progress, silent
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result
from unseen.training.protocols import run_seeds

LEAST = 8
"""Seen classes below which none is set aside: too few would be left to train and to choose on."""


def needs_holdouts(dataset: Dataset) -> bool:
    """Whether no unseen class has test images, and there are classes enough to set some aside."""
    return not len(dataset.indices("test_unseen")) and int(dataset.table.seen.sum()) >= LEAST


def holdout_dataset(dataset: Dataset, draw: int = 0) -> Dataset:
    """The seen classes alone, some of them set aside as if unseen, with all their images as test images.

    As many are set aside as there are unseen classes, but at least two and at most a quarter of the seen ones.

    Args:
        dataset: without images of unseen classes.
        draw: number of the draw.

    Raises:
        DataError: it has images of unseen classes, or too few seen ones.
    """
    if not needs_holdouts(dataset):
        raise DataError("unseen classes can be tested as they are", where=dataset.name, hint="no hold-out is needed")
    seen = np.flatnonzero(dataset.table.seen)
    count = max(2, min(int((~dataset.table.seen).sum()), len(seen) // 4))
    aside = _set_aside(seen, count, draw)
    position = np.full(len(dataset.table), -1)
    position[seen] = np.arange(len(seen))
    table = dataset.table.select(seen, seen=~np.isin(seen, aside))
    split = np.where(np.isin(dataset.labels, aside), "test_unseen", dataset.split).astype(object)
    return replace(
        dataset, name=f"{dataset.name} (hold-out {draw})", table=table, labels=position[dataset.labels], split=split
    )


def _set_aside(seen: np.ndarray, count: int, draw: int) -> np.ndarray:
    """The classes of a draw: those that earlier draws set aside least often, and never the same ones together twice."""
    if draw >= math.comb(len(seen), count):
        problem = f"draw {draw + 1} of {count} among {len(seen)} classes would repeat an earlier one"
        raise DataError(problem, hint=f"ask for at most {math.comb(len(seen), count)}")
    uses, found = np.zeros(len(seen), int), list[np.ndarray]()
    while len(found) <= draw:
        rng = np.random.default_rng([len(found), len(seen)])
        while True:
            order = rng.permutation(len(seen))
            chosen = order[np.argsort(uses[order], kind="stable")][:count]
            if not any(set(chosen) == set(earlier) for earlier in found):
                break
            uses = np.zeros_like(uses)  # the least used ones have met already
        uses[chosen] += 1
        found.append(chosen)
    aside: np.ndarray = seen[found[draw]]
    return aside


def run_holdouts(
    inputs: RunInputs, seed: int, draws: int, folder: Path, progress: Progress = silent
) -> list[tuple[Dataset, Result]]:
    """Every draw's dataset and its result under ``honest``, in ``folder/draw-D``; resumes as a run does.

    Args:
        inputs: of the run.
        seed: of the trainings.
        draws: how many.
        folder: where weights and decisions go.
        progress: told how far it is.
    """

    def told(draw: int) -> Progress:
        def tell(task: str, done: int, total: int, note: str = "") -> None:
            progress(f"class hold-out {draw}, {task}" if draws > 1 else f"class hold-out, {task}", done, total, note)

        return tell

    found = []
    for draw in range(draws):
        dataset = holdout_dataset(inputs.dataset, draw)
        results = run_seeds(replace(inputs, dataset=dataset), [seed], folder / f"draw-{draw}", ("honest",), told(draw))
        found.append((dataset, results[seed]["honest"]))
    return found


def holdout_summary(found: Sequence[tuple[Dataset, Result]]) -> dict[str, Any]:
    """What the hold-outs measured, in JSON form: metrics averaged over draws, each draw's, and its calibration."""
    from unseen.evaluation.metrics import evaluate, resample

    draws: list[dict[str, Any]] = []
    drawn: dict[str, list[np.ndarray]] = {}
    for dataset, result in found:
        numbers = evaluate(result.gzsl, dataset.table.seen, result.gamma).as_dict()
        draws.append(
            {
                "classes": [dataset.table.names[c] for c in np.flatnonzero(~dataset.table.seen)],
                "images": int(result.gzsl.is_unseen.sum()),
                "metrics": numbers,
                "calibration": result.calibration,
            }
        )
        for name, resampled in resample([result.gzsl], [result.gamma]).items():
            drawn.setdefault(name, []).append(resampled.drawn[:, 0])
    metrics = {}
    for name in ("T1", "U", "S", "H", "AUSUC"):
        values = np.array([draw["metrics"][name] for draw in draws], dtype=float)
        low, high = np.quantile(np.mean(drawn[name], axis=0), [0.025, 0.975]) if name in drawn else (np.nan, np.nan)
        entry = {
            "mean": float(values.mean()),
            "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "low": float(low),
            "high": float(high),
        }
        metrics[name] = {k: None if np.isnan(v) else v for k, v in entry.items()}
    count: int = len(draws[0]["classes"])
    return {"metrics": metrics, "draws": draws, "classes_set_aside": count, "chance": 1 / count}
