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
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset
from unseen.errors import DataError
from unseen.evaluation.attributes import auroc, spearman
from unseen.evaluation.bootstrap import Resampled, difference, resample, same_in_all
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
    """The seen classes, some of them as if unseen, with all their images as test images.

    Holds out as many classes as there are unseen ones, but at least two and at most a sixth of the seen ones. Real
    unseen classes, other ones in each draw, make up their number, so that the choice is among as many as in use.

    Args:
        dataset: dataset without images of unseen classes.
        draw: number of the draw.

    Raises:
        DataError: the dataset has images of unseen classes, or too few seen classes.
    """
    if not needs_holdouts(dataset):
        raise DataError("unseen classes have test images", where=dataset.name, hint="no hold-out is needed")
    seen = np.flatnonzero(dataset.table.seen)
    count = max(2, min(int((~dataset.table.seen).sum()), len(seen) // 6))
    aside, unseen = _set_aside(seen, count, draw), np.flatnonzero(~dataset.table.seen)
    others = max(len(unseen) - count, 0)
    kept = np.union1d(seen, np.roll(np.random.default_rng(len(seen)).permutation(unseen), -draw * others)[:others])
    position = np.full(len(dataset.table), -1)
    position[kept] = np.arange(len(kept))
    table = dataset.table.select(kept, seen=np.isin(kept, seen) & ~np.isin(kept, aside))
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


def holdout_summary(found: Sequence[HoldOut], in_use: ClassTable) -> dict[str, Any]:
    """Results of the hold-outs as JSON types.

    Metrics over draws (:func:`estimated`), metrics and calibration of each draw, chance level, and how well each
    attribute is recognized, averaged over the draws whose classes differ in it.

    Args:
        found: the hold-outs.
        in_use: class table of the run.
    """
    draws: list[dict[str, Any]] = []
    table = found[0].dataset.table
    for dataset, result in ((f.dataset, f.result) for f in found):
        numbers = in_json(measure(Decided(result.gzsl, result.gamma, _codes(dataset.table))) | {"gamma": result.gamma})
        draws.append(
            {
                "classes": [dataset.table.names[c] for c in np.unique(result.gzsl.labels[result.gzsl.is_unseen])],
                "images": int(result.gzsl.is_unseen.sum()),
                "metrics": numbers,
                "calibration": result.calibration,
            }
        )
    known, among = counts(table)
    drawn = [(f.result.gzsl, f.result.gamma, f.dataset.table) for f in found]
    new, ranks = counts(in_use), () if table.taxonomy is None else table.taxonomy.ranks
    return {
        "metrics": estimated(drawn, new),
        **({"ranks": {name: estimated(drawn, new, rank) for rank, name in enumerate(ranks)}} if ranks else {}),
        "draws": draws,
        "classes_set_aside": len(draws[0]["classes"]),
        "classes_unseen": among,
        "distinct_classes": len({name for draw in draws for name in draw["classes"]}),
        "chance": {name: metric.chance(known, among) for name, metric in every_metric().items()},
        "attributes": {"auroc": _means([f.auroc for f in found]), "spearman": _means([f.spearman for f in found])},
    }


def counts(table: ClassTable) -> tuple[int, int]:
    """Numbers of seen and unseen classes; without unseen classes, of the two that a hold-out sets aside."""
    return int(table.seen.sum()), int((~table.seen).sum()) or 2


def _codes(table: ClassTable) -> np.ndarray | None:
    return None if table.taxonomy is None else table.taxonomy.codes


Drawn = tuple[Decisions, float, ClassTable]
"""Decisions of a hold-out, its calibration offset, and its classes."""


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
        found.append((load_decisions(path), entry["metrics"]["gamma"], holdout_dataset(dataset, draw).table))
    return found


def estimated(
    found: Sequence[Drawn], new: tuple[int, int], rank: int | None = None
) -> dict[str, dict[str, float | None]]:
    """Metrics of the class, or T1, U, S and H at a rank, as JSON types.

    ``mean`` and ``std`` are over the draws, ``low`` and ``high`` the ends of a 95% interval of what ``new`` classes of
    the kind give, ``low_mean`` and ``high_mean`` of one of the mean over all such classes. Both resample the classes of
    all draws together, and their images.

    Args:
        found: the hold-outs.
        new: numbers of seen and unseen classes in use.
        rank: column of the taxa; ``None`` for the class itself.
    """
    by_draw = [measure(Decided(decisions, gamma, _codes(table), rank)) for decisions, gamma, table in found]
    names = list(by_draw[0]) if rank is None else AT_RANKS
    in_use, over_all = (_resampled(found, names, rank, count) for count in (new, None))
    metrics = {}
    for name in names:
        values = np.array([draw[name] for draw in by_draw])
        values = values[~np.isnan(values)] if not np.isnan(values).all() else values[:1]  # of a rank, not in all draws
        entry = {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0}
        for resampled, (low, high) in ((in_use, ("low", "high")), (over_all, ("low_mean", "high_mean"))):
            least, most = resampled[name].interval().over_classes or (np.nan, np.nan)
            entry |= {low: min(least, entry["mean"]), high: max(most, entry["mean"])}
        metrics[name] = in_json(entry)
    return metrics


def paired(first: Sequence[Drawn], second: Sequence[Drawn], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """First minus second over the same draws of the same images, as JSON types by metric.

    ``mean`` is over the draws, ``low`` and ``high`` are over their classes and images, ``low_images`` and
    ``high_images`` over their images. ``equal`` says whether the two are equal on every resample.
    """
    one, other = (_resampled(found, names) for found in (first, second))
    values = [[measure(Decided(d, gamma, _codes(table))) for d, gamma, table in found] for found in (first, second)]
    gaps = {}
    for name in names:
        mean = np.mean([a[name] - b[name] for a, b in zip(*values, strict=True)])
        images, classes = (difference(one[name], other[name], over_classes=wide) for wide in (False, True))
        ends = {
            "low": min(classes.low, images.low),
            "high": max(classes.high, images.high),
            "low_images": images.low,
            "high_images": images.high,
        }
        equal = bool(mean == 0 and same_in_all(one[name].means() - other[name].means()))
        gaps[name] = {**in_json({"mean": float(mean), **ends}), "equal": equal}
    return gaps


def _resampled(
    found: Sequence[Drawn], names: Sequence[str], rank: int | None = None, new: tuple[int, int] | None = None
) -> dict[str, Resampled]:
    """Metrics of all draws as one, with the classes of every draw kept apart and its offset in the scores.

    A class of several draws is resampled as one.
    """
    classes = 1 + max(int(max(d.labels.max(), d.leading.max())) for d, _, _ in found)
    moved = [replace(d, scores=d.scores - np.array([gamma, 0.0])[:, None]) for d, gamma, _ in found]
    codes = [taxa[:classes] for _, _, table in found if (taxa := _codes(table)) is not None]
    taxonomy = np.concatenate(codes) if codes else None
    groups = np.unique([name for _, _, table in found for name in table.names[:classes]], return_inverse=True)[1]
    joined = Decisions.joined(moved, classes)
    return resample([joined], [0.0], names=names, taxonomy=taxonomy, rank=rank, new=new, groups=groups)


def _means(rows: Sequence[np.ndarray]) -> list[float | None]:
    """Mean of each column over rows that are not NaN; ``None`` if all are."""
    stacked = np.stack(rows)
    count = np.isfinite(stacked).sum(axis=0)
    sums = np.nansum(stacked, axis=0)
    return [float(s / n) if n else None for s, n in zip(sums, count, strict=True)]
