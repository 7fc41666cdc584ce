"""Numbers of a run as JSON types: metrics with intervals, per seed and per class, and confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unseen.classes.table import ClassTable
from unseen.classes.taxonomy import Taxonomy
from unseen.evaluation.bootstrap import bootstrap
from unseen.evaluation.metrics import per_class_accuracy
from unseen.evaluation.registry import HEADLINES, Decided, in_json, measure
from unseen.methods import find_method
from unseen.training.config import RunConfig
from unseen.training.decisions import decisions_path, save_decisions
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Choice, Result
from unseen.training.plan import Plan

AT_RANKS = ("T1", "U", "S", "H")
"""Metrics that each rank has."""
MOST_CONFUSIONS = 20


def summary(plan: Plan, results: dict[int, dict[str, Result]]) -> dict[str, Any]:
    """All numbers of a run as JSON types, by protocol."""
    table = plan.dataset.table
    found: dict[str, Any] = {}
    for protocol in plan.config.protocols:
        per_seed = {seed: seeds[protocol] for seed, seeds in results.items()}
        values = list(per_seed.values())
        found[protocol] = {
            **_measured(plan.config, per_seed, Levels.of(table.taxonomy)),
            "per_class": per_class(table, values),
            "confusions": _confusions(table, values),
        }
    return found


def validation_summary(inputs: RunInputs, folder: Path, choices: dict[int, Choice]) -> dict[str, Any]:
    """Like the summary of one protocol, on the validation images at each seed's choice; stores the decisions."""
    per_seed = {}
    for seed, choice in choices.items():
        for metric in HEADLINES:
            save_decisions(decisions_path(folder, seed, "validation", metric), choice.decisions)
        chosen = {**choice.pick, "by": inputs.config.select}
        per_seed[seed] = Result(choice.decisions, choice.decisions, choice.gamma, chosen, choice.temperature)
    draws = [inputs.partition("validation", draw).classes for draw in range(inputs.config.draw_count)]
    return _measured(inputs.config, per_seed, Levels.of(inputs.dataset.table.taxonomy, draws))


@dataclass(frozen=True, eq=False)
class Levels:
    """The ranks of decisions' classes.

    Args:
        ranks: L names.
        codes: int ``(N, L)`` taxa of each class, or -1.
    """

    ranks: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, taxonomy: Taxonomy | None, draws: Sequence[np.ndarray] = ()) -> Levels | None:
        """From a taxonomy; ``draws`` are the classes of joined decisions (:meth:`Decisions.joined`)."""
        if taxonomy is None:
            return None
        codes = taxonomy.codes
        return cls(taxonomy.ranks, np.concatenate([codes[classes] for classes in draws]) if draws else codes)

    def measured(self, values: Sequence[Result]) -> dict[str, Any]:
        """T1, U, S and H at each rank, with a class counting as correct if its taxon is, over seeds."""
        found = {}
        for rank, name in enumerate(self.ranks):
            intervals = bootstrap(
                [r.gzsl for r in values],
                [r.gamma for r in values],
                alone=[r.t1 for r in values],
                names=AT_RANKS,
                taxonomy=self.codes,
                rank=rank,
            )
            found[name] = {metric: interval.as_dict() for metric, interval in intervals.items()}
        return found


def _measured(config: RunConfig, per_seed: dict[int, Result], levels: Levels | None) -> dict[str, Any]:
    """Metrics with their intervals, also at each rank, and the numbers of each seed."""
    values, codes = list(per_seed.values()), None if levels is None else levels.codes
    gzsl, alone = [r.gzsl for r in values], [r.t1 for r in values]
    found = bootstrap(gzsl, [r.gamma for r in values], alone=alone, taxonomy=codes)
    seeds = {}
    for seed, result in per_seed.items():
        numbers = measure(Decided(result.gzsl, result.gamma, codes), Decided(result.t1, result.gamma, codes))
        seeds[str(seed)] = {
            **in_json(numbers | {"gamma": result.gamma}),
            "chosen": result.chosen,
            "temperature": result.temperature,
        }
        if result.calibration is not None:
            seeds[str(seed)]["calibration"] = result.calibration
    return {
        "metrics": {name: interval.as_dict() for name, interval in found.items()},
        **({} if levels is None else {"ranks": levels.measured(values)}),
        "seeds": seeds,
        "deterministic": find_method(config.method).closed_form,
    }


def per_class(table: ClassTable, values: list[Result]) -> list[dict[str, Any]]:
    """Accuracy of every class among all classes, and of unseen classes among the unseen ones, averaged over seeds."""
    every = np.arange(len(table))
    gzsl = [per_class_accuracy(r.gzsl.predict(r.gamma) == r.gzsl.labels, r.gzsl.labels, every) for r in values]
    czsl = [per_class_accuracy(r.t1.czsl(), r.t1.labels[r.t1.is_unseen], every) for r in values]
    counts = np.bincount(values[0].gzsl.labels, minlength=len(table))

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return [
        {
            "class": table.names[c],
            "seen": bool(table.seen[c]),
            "images": int(counts[c]),
            "among_all": number(float(np.mean([g[c] for g in gzsl]))),
            "among_unseen": number(float(np.mean([z[c] for z in czsl]))),
        }
        for c in every
    ]


def _confusions(table: ClassTable, values: list[Result]) -> list[dict[str, Any]]:
    """Unseen classes and the classes they are most often mistaken for among all classes, over all seeds."""
    labels = np.concatenate([r.gzsl.labels for r in values])
    named = np.concatenate([r.gzsl.predict(r.gamma) for r in values])
    totals = np.bincount(labels, minlength=len(table))
    pairs, counts = np.unique(np.stack([labels, named], axis=1), axis=0, return_counts=True)
    wrong = (pairs[:, 0] != pairs[:, 1]) & ~table.seen[pairs[:, 0]]
    pairs, share = pairs[wrong], counts[wrong] / totals[pairs[wrong, 0]]
    return [
        {"class": table.names[pairs[i, 0]], "taken_for": table.names[pairs[i, 1]], "share": float(share[i])}
        for i in np.argsort(-share, kind="stable")[:MOST_CONFUSIONS]
    ]
