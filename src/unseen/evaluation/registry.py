"""Registry of metrics: name, meaning, direction, chance level and computation of each.

A metric is computed from decisions alone, so scores from any source can be measured. A new metric is one more entry
here; other packages use :func:`register_metric` or an entry point of the group ``unseen.metrics``. Every metric is in
``results.json`` and in tables on request; those that are :attr:`Metric.shown` are columns of every table.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points

import numpy as np

from unseen.errors import UnseenError
from unseen.evaluation.metrics import CORE, Decisions, SeenUnseenCurve, harmonic, per_class_accuracy

GROUP = "unseen.metrics"
HEADLINES = ("T1", "H")
"""The metrics for comparing methods; the protocol ``paper`` chooses a model by each of them."""


@dataclass(frozen=True)
class Decided:
    """Decisions at one calibration offset: the input of a metric. M images, N classes.

    Args:
        decisions: the :data:`~unseen.evaluation.metrics.LEADING` best classes of either kind.
        gamma: calibration offset, subtracted from the scores of seen classes.
        taxonomy: ``(N, L)`` codes of every class's taxa, from the coarsest rank to the finest, -1 where unknown.
        rank: column of ``taxonomy`` at which a class counts as correct; ``None`` for the class itself.
    """

    decisions: Decisions
    gamma: float = 0.0
    taxonomy: np.ndarray | None = None
    rank: int | None = None

    @property
    def labels(self) -> np.ndarray:
        """``(M,)`` true classes."""
        return self.decisions.labels

    @property
    def is_unseen(self) -> np.ndarray:
        """``(M,)`` whether the true class is unseen."""
        return self.decisions.is_unseen

    @cached_property
    def named(self) -> np.ndarray:
        """``(M,)`` predicted class of each image among all."""
        return self.decisions.predict(self.gamma)

    @cached_property
    def right(self) -> np.ndarray:
        """``(M,)`` 1 if the prediction is correct, else 0."""
        return self.agrees(self.named)

    def agrees(self, classes: np.ndarray) -> np.ndarray:
        """``(M,)`` 1 if classes ``(M,)`` are the true ones, else 0; at a rank, if they have the same taxon.

        NaN if the true class has no known taxon of the rank.
        """
        if self.rank is None or self.taxonomy is None:
            found: np.ndarray = (classes == self.labels).astype(float)
            return found
        taxa = self.taxonomy[:, self.rank]
        true = taxa[self.labels]
        return np.where(true < 0, np.nan, (taxa[classes] == true).astype(float))

    def ranked(self, count: int) -> np.ndarray:
        """``(M, count)`` the best classes among all, best first, padded with -1; ``count`` is at most LEADING."""
        return self.decisions.ranked(count, self.gamma)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: short name, used as the column of tables.
        meaning: a sentence without a capital letter or full stop.
        compute: returns a fraction; or one per image ``(M,)``, NaN for images that do not count, and the metric is then
            the mean over classes of each class's mean, with a bootstrap interval. NaN if there is nothing to measure.
            With ``of``, takes the values of those metrics.
        title: title in plain words for pages; without one, page and report do not show the metric.
        chance: chance level from the numbers of seen and unseen classes; ``None`` if meaningless.
        of: names of metrics registered earlier, whose values ``compute`` takes instead of decisions.
        alone: whether only unseen classes are candidates, for which ``paper`` has a separate model.
        higher_is_better: direction.
        shown: whether it is a column of every table.
    """

    name: str
    meaning: str
    compute: Callable[..., float | np.ndarray]
    title: str = ""
    chance: Callable[[int, int], float | None] = lambda seen, unseen: None
    of: tuple[str, ...] = ()
    alone: bool = False
    higher_is_better: bool = True
    shown: bool = True

    def computed(self, *arguments: Decided | np.ndarray) -> np.ndarray:
        """Call :attr:`compute`; without images returns an empty array.

        An error becomes one line that names the metric.
        """
        if any(isinstance(given, Decided) and not len(given.labels) for given in arguments):
            return np.empty(0)
        try:
            found = np.asarray(self.compute(*arguments), dtype=float)
        except Exception as error:
            problem = f'the metric "{self.name}" failed ({type(error).__name__}: {error})'
            raise UnseenError(problem, hint="fix it, or uninstall its package; then repeat the command") from error
        for given in arguments:
            if isinstance(given, Decided) and found.shape not in ((), (len(given.labels),)):
                problem = f'the metric "{self.name}" returned {found.shape} numbers for {len(given.labels)} images'
                raise UnseenError(problem, hint="return one number, or one for each image")
        return found


REGISTRY: dict[str, Metric] = {}
"""Metrics of this package and those registered in this process, by name, in the order of registration."""


def register_metric(metric: Metric) -> Metric:
    """Register a metric.

    Raises:
        UnseenError: it is not a metric, there is another of that name, or one that it is computed from is missing.
    """
    if not isinstance(metric, Metric) or not callable(metric.compute):
        raise UnseenError(f"{metric!r:.60} is not a metric", hint="pass Metric(name, meaning, function)")
    if REGISTRY.get(metric.name, metric) is not metric:
        raise UnseenError(f'a metric "{metric.name}" already exists', hint="choose another name")
    if missing := [name for name in metric.of if name not in REGISTRY]:
        raise UnseenError(f'no metric "{missing[0]}"', where=metric.name, hint="register it first")
    REGISTRY[metric.name] = metric
    return metric


def every_metric() -> Mapping[str, Metric]:
    """All metrics: registered ones and those of installed packages.

    Raises:
        UnseenError: a metric of an installed package cannot be imported, or is not a metric.
    """
    for metric in _installed():
        register_metric(metric)
    return REGISTRY


@cache
def _installed() -> tuple[Metric, ...]:
    found = []
    for entry in entry_points(group=GROUP):
        try:
            metric = entry.load()
        except Exception as error:
            hint = "reinstall its package, or uninstall it"
            raise UnseenError(f"cannot be imported ({error})", where=f"metric {entry.value}", hint=hint) from error
        if not isinstance(metric, Metric):
            raise UnseenError(
                "not an unseen.metrics.Metric",
                where=f"metric {entry.value}",
                hint="point the entry point to an instance",
            )
        found.append(metric)
    return tuple(found)


def chosen_metrics(asked: str | None = None) -> list[str]:
    """Names of the columns of a table: the default ones, ``all``, or the requested ones (``T1,top-5``).

    Raises:
        UnseenError: no such metric.
    """
    known = every_metric()
    if asked is None:
        return [name for name, metric in known.items() if metric.shown]
    names = list(known) if asked.strip().lower() == "all" else [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.4)
            hint = f'did you mean "{near[0]}"?' if near else f"use all, or some of {', '.join(known)}"
            raise UnseenError(f'no metric "{name}"', where="--metrics", hint=hint)
    return names


def measure(decided: Decided, alone: Decided | None = None) -> dict[str, float]:
    """Compute every metric of some decisions; ``alone`` are the decisions for metrics among the unseen classes."""
    values: dict[str, float] = {}
    for name, metric in every_metric().items():
        if metric.of:
            values[name] = float(metric.computed(*(np.asarray(values[part]) for part in metric.of)))
            continue
        found = metric.computed((alone or decided) if metric.alone else decided)
        values[name] = _over_classes(found, decided.labels) if found.ndim else float(found)
    return values


def sentence(text: str) -> str:
    """A title or a meaning with a capital letter."""
    return text[:1].upper() + text[1:]


def in_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values with ``None`` for NaN."""
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _over_classes(values: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of each class's mean; NaN for images that do not count."""
    counted = ~np.isnan(values)
    shares = per_class_accuracy(values[counted], labels[counted], np.unique(labels[counted]))
    return float(shares.mean()) if len(shares) else float("nan")


def _among_unseen(decided: Decided) -> np.ndarray:
    return np.where(decided.is_unseen, decided.agrees(decided.decisions.best_unseen), np.nan)


def _within(count: int, decided: Decided) -> np.ndarray:
    found: np.ndarray = (decided.ranked(count) == decided.labels[:, None]).any(axis=1).astype(float)
    return found


def _macro_f1(decided: Decided) -> float:
    """Mean over the classes of test images of F1 = 2 TP / (2 TP + FP + FN)."""
    size = int(max(decided.labels.max(initial=-1), decided.named.max(initial=-1))) + 1
    true, named = (np.bincount(classes, minlength=size) for classes in (decided.labels, decided.named))
    both = np.bincount(decided.labels, weights=decided.right, minlength=size)
    present = true > 0
    return float((2 * both / np.maximum(true + named, 1))[present].mean()) if present.any() else float("nan")


def _hierarchical(decided: Decided) -> float:
    """Mean share of ranks at which the predicted class differs from the true one, over images and known taxa."""
    if decided.taxonomy is None:
        return float("nan")
    true, named = decided.taxonomy[decided.labels], decided.taxonomy[decided.named]
    known = true >= 0
    return float((true != named)[known].mean()) if known.any() else float("nan")


def _one_of_all(seen: int, unseen: int) -> float | None:
    return 1 / (seen + unseen)


def _core() -> Sequence[Metric]:
    """The field's own metrics, in table order."""
    return (
        Metric(
            "T1",
            "mean per-class accuracy on unseen classes, among the unseen classes alone (CZSL)",
            _among_unseen,
            "unseen classes, among themselves",
            lambda seen, unseen: 1 / unseen if unseen else None,
            alone=True,
        ),
        Metric(
            "U",
            "mean per-class accuracy on unseen classes, among all classes",
            lambda d: np.where(d.is_unseen, d.right, np.nan),
            "unseen classes, among all",
            _one_of_all,
        ),
        Metric(
            "S",
            "mean per-class accuracy on seen classes, among all classes",
            lambda d: np.where(d.is_unseen, np.nan, d.right),
            "seen classes, among all",
            _one_of_all,
        ),
        Metric(
            "H",
            "harmonic mean of U and S; high only if both are high",
            harmonic,
            "balance of both",
            _one_of_all,
            of=("U", "S"),
        ),
        Metric(
            "AUSUC",
            "area under the seen-unseen curve, over all calibration offsets",
            lambda d: SeenUnseenCurve.of(d.decisions).area,
        ),
    )


def _further() -> Sequence[Metric]:
    """Metrics that tables show on request."""
    return (
        Metric(
            "top-5",
            "mean per-class top-5 accuracy, among all classes",
            lambda d: _within(5, d),
            chance=lambda seen, unseen: min(1.0, 5 / (seen + unseen)),
            shown=False,
        ),
        Metric("macro-F1", "mean F1 over all classes", _macro_f1, shown=False),
        Metric(
            "hierarchical distance",
            "share of taxonomic ranks at which the predicted class differs from the true class",
            _hierarchical,
            higher_is_better=False,
            shown=False,
        ),
    )


for _metric in (*_core(), *_further()):
    register_metric(_metric)
assert tuple(REGISTRY)[: len(CORE)] == CORE
