"""Metrics as things: what each is called, what it means, which way is better, what guessing gives, how it is computed.

A metric is computed from class scores alone, so that anybody's scores can be measured. One more metric is one more
entry here, by :func:`register_metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unseen.errors import UnseenError
from unseen.evaluation.metrics import Decisions, Scores, evaluate, per_class_accuracy


@dataclass(frozen=True)
class Scored:
    """Class scores of test images.

    Args:
        scores: ``(M, N)``, higher for the likelier class.
        labels: ``(M,)`` true classes, positions among the N.
        seen: bool ``(N,)``, classes trained on.
        gamma: calibration offset that seen classes' scores are lowered by.
        taxonomy: ``(N, L)`` ancestors of every class, from the coarsest rank to the finest, if there is a taxonomy.
    """

    scores: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    gamma: float = 0.0
    taxonomy: np.ndarray | None = None

    @cached_property
    def decisions(self) -> Decisions:
        """The best seen and unseen class of every image."""
        return Decisions.from_scores(self.scores, self.labels, self.seen)

    @cached_property
    def accuracies(self) -> Scores:
        """T1, U, S, H and AUSUC."""
        return evaluate(self.decisions, self.seen, self.gamma)

    @cached_property
    def named(self) -> np.ndarray:
        """``(M,)`` the class that each image is taken for, among all."""
        return self.decisions.predict(self.gamma)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: its short name, the column of tables.
        meaning: what it is, in a sentence without a full stop.
        compute: the value, NaN where there is nothing to measure it on.
        chance: what guessing gives, from the numbers of seen and unseen classes; ``None`` where that says nothing.
        higher_is_better: its direction.
    """

    name: str
    meaning: str
    compute: Callable[[Scored], float]
    chance: Callable[[int, int], float | None] = lambda seen, unseen: None
    higher_is_better: bool = True


REGISTRY: dict[str, Metric] = {}
"""Every metric by name, in the order of registration."""


def register_metric(metric: Metric) -> Metric:
    """Add a metric.

    Raises:
        UnseenError: there is one of that name.
    """
    if metric.name in REGISTRY:
        raise UnseenError(f'there is a metric "{metric.name}"', hint="give it another name")
    REGISTRY[metric.name] = metric
    return metric


def measure(scored: Scored) -> Mapping[str, float]:
    """Every registered metric of some class scores."""
    return {name: float(metric.compute(scored)) for name, metric in REGISTRY.items()}


def _top(scored: Scored, count: int) -> float:
    """Mean over classes of the share of images with the true class among the ``count`` best of all."""
    shifted = scored.scores - scored.gamma * scored.seen
    own = np.take_along_axis(shifted, scored.labels[:, None], axis=1)
    before = (shifted > own).sum(axis=1)
    accuracy = per_class_accuracy(before < count, scored.labels, np.unique(scored.labels))
    return float(np.mean(accuracy)) if len(accuracy) else float("nan")


def _macro_f1(scored: Scored) -> float:
    """Mean over the classes of test images of F1 = 2 TP / (2 TP + FP + FN)."""
    present = np.unique(scored.labels)
    values = []
    for c in present:
        true, named = scored.labels == c, scored.named == c
        values.append(2 * (true & named).sum() / (true.sum() + named.sum()))
    return float(np.mean(values)) if values else float("nan")


def _hierarchical(scored: Scored) -> float:
    """Mean over images of the number of ranks at which the named class differs from the true one, over all ranks."""
    if scored.taxonomy is None or not len(scored.labels):
        return float("nan")
    return float((scored.taxonomy[scored.labels] != scored.taxonomy[scored.named]).mean())


for _metric in (
    Metric(
        "T1",
        "images of unseen classes named among the unseen classes, accuracy averaged over classes (CZSL)",
        lambda s: s.accuracies.t1,
        lambda seen, unseen: 1 / unseen if unseen else None,
    ),
    Metric(
        "U",
        "images of unseen classes named among all classes, accuracy averaged over classes",
        lambda s: s.accuracies.u,
        lambda seen, unseen: 1 / (seen + unseen),
    ),
    Metric(
        "S",
        "images of seen classes named among all classes, accuracy averaged over classes",
        lambda s: s.accuracies.s,
        lambda seen, unseen: 1 / (seen + unseen),
    ),
    Metric("H", "harmonic mean of U and S", lambda s: s.accuracies.h, lambda seen, unseen: 1 / (seen + unseen)),
    Metric("AUSUC", "area under the curve of U and S over the calibration offset", lambda s: s.accuracies.ausuc),
    Metric(
        "top-5",
        "the true class among the five best of all classes, averaged over classes",
        lambda s: _top(s, 5),
        lambda seen, unseen: min(1.0, 5 / (seen + unseen)),
    ),
    Metric("macro-F1", "F1 of every class among all classes, averaged over classes", _macro_f1),
    Metric(
        "hierarchical distance",
        "share of the taxonomy's ranks at which the named class differs from the true one",
        _hierarchical,
        higher_is_better=False,
    ),
):
    register_metric(_metric)
