"""Class hold-outs: estimate accuracy on unseen classes that have no images, by holding out seen classes.

Some seen classes play the unseen ones. Without their images, the model is chosen, calibrated and trained exactly like
the real one, and then tested on them once, so no measured image influenced any choice. Ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.classes.presence import present
from unseen.data.dataset import Dataset
from unseen.errors import DataError
from unseen.evaluation.attributes import auroc, spearman
from unseen.evaluation.bootstrap import ROUNDING, Resampled, resample
from unseen.evaluation.metrics import Decisions
from unseen.evaluation.registry import Decided, every_metric, in_json, measure
from unseen.ground.progress import Progress, silent
from unseen.methods.base import Method
from unseen.model.weights import load_weights
from unseen.training.batches import batches
from unseen.training.decisions import decisions_path, load_decisions
from unseen.training.fabric import weight_dtype
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result
from unseen.training.protocols import run_seeds
from unseen.training.stage import Stage
from unseen.training.summary import AT_RANKS

LEAST = 8
"""Smallest number of seen classes for a hold-out; with fewer, too few remain to train and to choose on."""


def needs_holdouts(dataset: Dataset) -> bool:
    """Whether no unseen class has test images, and there are enough classes to hold some out."""
    return not len(dataset.indices("test_unseen")) and int(dataset.table.seen.sum()) >= LEAST


def holdout_dataset(dataset: Dataset, draw: int = 0) -> Dataset:
    """The seen classes only, some of them as if unseen, with all their images as test images.

    Holds out as many classes as there are unseen ones, but at least two and at most a quarter of the seen ones.

    Args:
        dataset: dataset without images of unseen classes.
        draw: number of the draw.

    Raises:
        DataError: the dataset has images of unseen classes, or too few seen classes.
    """
    if not needs_holdouts(dataset):
        raise DataError("unseen classes have test images", where=dataset.name, hint="no hold-out is needed")
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
    """Classes of a draw: those held out least often in earlier draws, and never the same combination twice."""
    if draw >= math.comb(len(seen), count):
        problem = f"draw {draw + 1} of {count} among {len(seen)} classes would repeat an earlier draw"
        raise DataError(problem, hint=f"use at most {math.comb(len(seen), count)}")
    uses, found = np.zeros(len(seen), int), list[np.ndarray]()
    while len(found) <= draw:
        rng = np.random.default_rng([len(found), len(seen)])
        while True:
            order = rng.permutation(len(seen))
            chosen = order[np.argsort(uses[order], kind="stable")][:count]
            if not any(set(chosen) == set(earlier) for earlier in found):
                break
            uses = np.zeros_like(uses)  # the least used ones have been combined before
        uses[chosen] += 1
        found.append(chosen)
    aside: np.ndarray = seen[found[draw]]
    return aside


@dataclass(frozen=True, eq=False)
class HoldOut:
    """One class hold-out.

    Args:
        dataset: the seen classes, some of them as if unseen.
        result: result under ``honest``.
        auroc, spearman: ``(K,)`` of each attribute score over the images of the held-out classes, against their values
            in the table; NaN if the values do not differ.
    """

    dataset: Dataset
    result: Result
    auroc: np.ndarray
    spearman: np.ndarray


def run_holdouts(inputs: RunInputs, seed: int, draws: int, folder: Path, progress: Progress = silent) -> list[HoldOut]:
    """Run the hold-out of every draw in ``folder/draw-D``; resumes like a run.

    Args:
        inputs: inputs of the run.
        seed: seed of the trainings.
        draws: number of draws.
        folder: folder for weights and decisions.
        progress: progress callback.
    """

    def told(draw: int) -> Progress:
        def tell(task: str, done: int, total: int, note: str = "") -> None:
            which = f" {draw + 1} of {draws}" if draws > 1 else ""
            progress(f"class hold-out{which}, {task}", done, total, note)

        return tell

    found = []
    for draw in range(draws):
        dataset = holdout_dataset(inputs.dataset, draw)
        mine, place = replace(inputs, dataset=dataset, with_images=False), folder / f"draw-{draw}"
        results = run_seeds(mine, [seed], place, ("honest",), told(draw))
        method = mine.new_method(seed)
        load_weights(place / f"seed-{seed}" / "honest.safetensors", method)
        found.append(HoldOut(dataset, results[seed]["honest"], *_attributes_read(mine, method)))
    return found


@torch.inference_mode()
def _attributes_read(inputs: RunInputs, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and Spearman correlation of each attribute score over the images of the held-out classes."""
    dataset, stage = inputs.dataset, Stage(inputs, "final")
    images, values = dataset.indices("test_unseen"), dataset.table.values
    features, dtype = stage.features(images, budget_bytes=0), weight_dtype(inputs.config.precision)
    method.eval()
    parts = [
        method.fused_attribute_scores(method(features.batch(positions).to(dtype))).double().cpu().numpy()
        for positions in batches(len(images))
    ]
    scores, labels = np.concatenate(parts), dataset.labels[images]
    return auroc(scores, present(values)[labels]), spearman(scores, values[labels])


def pooled_interval(drawn: np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """95% interval of the mean over draws of classes, from resampled draws and images.

    Draws are resampled with replacement, each with resampled images. Deviations from the mean are scaled by sqrt(D / (D
    - 1)), because D draws underestimate their spread. With one draw, only its images are resampled.

    Args:
        drawn: ``(samples, D)`` a metric, or a difference, on resampled images of each of D draws.
        least: smallest possible value: 0, or -1 for a difference.
    """
    samples, draws = drawn.shape
    picks = np.random.default_rng(0).integers(draws, size=(samples, draws))
    means = np.take_along_axis(drawn, picks, axis=1).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    middle, wider = float(drawn.mean()), math.sqrt(draws / (draws - 1)) if draws > 1 else 1.0
    ends = middle + wider * (float(low) - middle), middle + wider * (float(high) - middle)
    return float(np.clip(ends[0], least, 1)), float(np.clip(ends[1], least, 1))


def holdout_summary(found: Sequence[HoldOut]) -> dict[str, Any]:
    """Results of the hold-outs as JSON types.

    Metrics pooled over draws (:func:`pooled_interval`), metrics and calibration of each draw, chance level, and how
    well each attribute is recognized, averaged over the draws whose classes differ in it.
    """
    draws: list[dict[str, Any]] = []
    taxonomy = found[0].dataset.table.taxonomy
    ranks = () if taxonomy is None else taxonomy.ranks
    for dataset, result in ((f.dataset, f.result) for f in found):
        numbers = in_json(measure(Decided(result.gzsl, result.gamma, _codes(dataset))) | {"gamma": result.gamma})
        draws.append(
            {
                "classes": [dataset.table.names[c] for c in np.flatnonzero(~dataset.table.seen)],
                "images": int(result.gzsl.is_unseen.sum()),
                "metrics": numbers,
                "calibration": result.calibration,
            }
        )
    count: int = len(draws[0]["classes"])
    every = len(found[0].dataset.table)
    return {
        "metrics": _over_draws(found),
        **({"ranks": {name: _over_draws(found, rank) for rank, name in enumerate(ranks)}} if ranks else {}),
        "draws": draws,
        "classes_set_aside": count,
        "distinct_classes": len({name for draw in draws for name in draw["classes"]}),
        "chance": {name: metric.chance(every - count, count) for name, metric in every_metric().items()},
        "attributes": {"auroc": _means([f.auroc for f in found]), "spearman": _means([f.spearman for f in found])},
    }


def _codes(dataset: Dataset) -> np.ndarray | None:
    return None if dataset.table.taxonomy is None else dataset.table.taxonomy.codes


def _over_draws(found: Sequence[HoldOut], rank: int | None = None) -> dict[str, dict[str, float | None]]:
    """Metrics of the class, or T1, U, S and H at a rank, with their intervals over draws and images."""
    return pooled(resampled_draws([(f.result.gzsl, f.result.gamma, _codes(f.dataset)) for f in found], rank))


Drawn = tuple[Decisions, float, np.ndarray | None]
"""Decisions of a hold-out, its calibration offset, and the taxa of its classes."""


def saved_holdouts(folder: Path, numbers: Mapping[str, Any], dataset: Dataset, count: int) -> list[Drawn]:
    """The first hold-outs of a finished run.

    Args:
        folder: folder of the run.
        numbers: its numbers under ``honest``.
        dataset: its dataset.
        count: number of hold-outs.
    """
    seed, found = next(iter(numbers["seeds"])), list[Drawn]()
    for draw, entry in enumerate(numbers["holdout"]["draws"][:count]):
        path = decisions_path(folder / "holdouts" / f"draw-{draw}", seed, "honest", "H")
        found.append((load_decisions(path), entry["metrics"]["gamma"], _codes(holdout_dataset(dataset, draw))))
    return found


def resampled_draws(found: Sequence[Drawn], rank: int | None = None) -> dict[str, list[Resampled]]:
    """Metrics of the class, or T1, U, S and H at a rank, on resampled images of each draw."""
    measured: dict[str, list[Resampled]] = {}
    for decisions, gamma, codes in found:
        names = None if rank is None else AT_RANKS
        for name, values in resample([decisions], [gamma], names=names, taxonomy=codes, rank=rank).items():
            measured.setdefault(name, []).append(values)
    return measured


def pooled(measured: Mapping[str, Sequence[Resampled]]) -> dict[str, dict[str, float | None]]:
    """Mean, spread and interval of each metric over draws, as JSON types."""
    metrics = {}
    for name, draws in measured.items():
        values = [float(draw.measured[0]) for draw in draws]
        low, high = pooled_interval(np.concatenate([draw.drawn for draw in draws], axis=1))
        if high - low < ROUNDING:  # every draw all right, say: as wide as that of the least certain draw
            ends = [draw.ends() for draw in draws]
            low, high = min(low for low, _ in ends), max(high for _, high in ends)
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        entry = {"mean": float(np.mean(values)), "std": spread, "low": low, "high": high}
        metrics[name] = {k: None if np.isnan(v) else v for k, v in entry.items()}
    return metrics


def pooled_difference(first: Sequence[Resampled], second: Sequence[Resampled]) -> dict[str, Any]:
    """Mean of first minus second over the same draws of the same images, paired, as JSON types.

    ``low`` and ``high`` are over draws and images, ``low_images`` and ``high_images`` over the images of these draws.
    ``equal`` says whether the two are equal on every resample; the interval is then as wide as that of the least
    certain draw (:meth:`~unseen.evaluation.bootstrap.Resampled.margin`).
    """
    mean = float(np.mean([a.measured[0] - b.measured[0] for a, b in zip(first, second, strict=True)]))
    drawn = np.concatenate([a.drawn - b.drawn for a, b in zip(first, second, strict=True)], axis=1)
    low, high = pooled_interval(drawn, -1.0)
    low_images, high_images = (float(end) for end in np.quantile(drawn.mean(axis=1), [0.025, 0.975]))
    if high - low < ROUNDING:
        margin = max(one.margin() for one in (*first, *second))
        low, high = low_images, high_images = max(mean - margin, -1.0), min(mean + margin, 1.0)
    ends = {"low": low, "high": high, "low_images": low_images, "high_images": high_images}
    numbers = {key: None if np.isnan(value) else value for key, value in {"mean": mean, **ends}.items()}
    return {**numbers, "equal": bool(mean == 0 and float(np.ptp(drawn)) < ROUNDING)}


def _means(rows: Sequence[np.ndarray]) -> list[float | None]:
    """Mean of each column over rows that are not NaN; ``None`` if all are."""
    stacked = np.stack(rows)
    count = np.isfinite(stacked).sum(axis=0)
    sums = np.nansum(stacked, axis=0)
    return [float(s / n) if n else None for s, n in zip(sums, count, strict=True)]
