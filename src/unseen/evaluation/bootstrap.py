"""Metrics on resampled images: intervals, and differences between methods on the same draws.

Intervals are over images: of these classes. They can also be over classes, because with few classes, accuracy and
which method leads depend on which ones they are; images are then resampled within resampled classes (a two-stage
bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from unseen.evaluation.metrics import Decisions
from unseen.evaluation.registry import Decided, every_metric

ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """Mean over seeds, spread over seeds, and a bootstrap interval over images; over classes, too, if known."""

    mean: float
    std: float
    low: float
    high: float
    per_seed: list[float] = field(default_factory=list)
    over_classes: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, float | list[float | None] | None]:
        """The estimate as JSON types; NaN becomes ``None``. The interval over classes is left out if unknown."""

        def plain(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        return {
            "mean": plain(self.mean),
            "std": None if np.isnan(self.mean) else plain(self.std),
            "low": plain(self.low),
            "high": plain(self.high),
            "per_seed": [plain(v) for v in self.per_seed],
            **dict(zip(("low_classes", "high_classes"), map(plain, self.over_classes or ()), strict=False)),
        }


def wilson(share: float, images: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of ``images``, which need not be a whole number; its ends include the share."""
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle, half = share + z2 / (2 * images), np.sqrt(z2 * (share * (1 - share) + z2 / (4 * images)) / images)
    low, high = (middle - half) / (1 + z2 / images), (middle + half) / (1 + z2 / images)
    return float(min(max(low, 0.0), share)), float(max(min(high, 1.0), share))


@dataclass(frozen=True)
class Resampled:
    """A metric as measured and on resampled images.

    Args:
        measured: ``(seeds,)`` measured values.
        drawn: ``(samples, seeds)`` values on resampled images; the draws are the same for everything resampled over the
            same images with the same seed.
        images: for a mean over classes of shares of right answers, the number of images that a single share with the
            same variance would have: C^2 / sum of 1 / n over C classes of n images; otherwise 0.
        over_classes: ``(samples, seeds)`` values on the same draws, of classes that are resampled, too.
        parts, compute: for a metric computed from others, these and how.
    """

    measured: np.ndarray
    drawn: np.ndarray
    images: float = 0.0
    over_classes: np.ndarray | None = None
    parts: tuple[Resampled, ...] = ()
    compute: Callable[..., Any] | None = None

    def interval(self, level: float = 0.95) -> Interval:
        """Mean and spread over seeds, and the intervals of the mean; that over classes holds the one over images."""
        low, high = self.ends(level)
        spread = float(self.measured.std(ddof=1)) if len(self.measured) > 1 else 0.0
        wide = None
        if self.over_classes is not None:
            least, most = np.quantile(self.over_classes.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
            wide = float(min(least, low)), float(max(most, high))
        return Interval(float(self.measured.mean()), spread, low, high, list(self.measured), wide)

    @property
    def constant(self) -> bool:
        """Whether all draws are equal, as where every class is all right or all wrong; they then show no spread."""
        return bool(np.ptp(self.drawn.mean(axis=1)) == 0)

    def ends(self, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of the mean over seeds; where all draws are equal, Wilson's at ``images``."""
        if self.constant and self.compute is not None:  # U, S and the like: larger if their parts are
            corners = np.array([part.ends(level) for part in self.parts])
            low, high = sorted(np.asarray(self.compute(*corners), dtype=float))
            return float(low), float(high)
        if self.constant and self.images:
            return wilson(float(self.measured.mean()), self.images, level)
        tail = (1 - level) / 2
        low, high = np.quantile(self.drawn.mean(axis=1), [tail, 1 - tail])
        return float(low), float(high)

    def margin(self, level: float = 0.95) -> float:
        """How far a paired difference may be from one that no resample changes; 0 if it is unknown.

        Wilson's upper limit of a share of 0 of ``images``: of images whose outcomes differ in another way than in this
        sample. It is z^2 / (n + z^2), about 4 / n; the rule of three gives 3 / n. Where both are all right, it equals
        Newcombe's interval of paired shares (Statistics in Medicine 17, 1998, method 10).
        """
        if self.compute is None:
            return wilson(0.0, self.images, level)[1] if self.images else 0.0
        means = np.array([part.measured.mean() for part in self.parts])
        margins = np.array([part.margin(level) for part in self.parts])
        near = [self.compute(*np.clip(means + sign * margins, 0, 1)) - self.compute(*means) for sign in (-1, 1)]
        return float(np.max(np.abs(near)))

    def means(self, rng: np.random.Generator | None = None, *, over_classes: bool = False) -> np.ndarray:
        """``(samples,)`` means over seeds; with ``rng`` over as many seeds drawn with replacement."""
        draws, seeds = self.drawn.shape
        drawn = self.drawn if self.over_classes is None or not over_classes else self.over_classes
        if rng is not None:
            drawn = np.take_along_axis(drawn, rng.integers(seeds, size=(draws, seeds)), axis=1)
        result: np.ndarray = drawn.mean(axis=1)
        return result


def difference(
    first: Resampled,
    second: Resampled,
    *,
    over_seeds: bool = False,
    over_classes: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """First minus second, with a percentile interval of the paired bootstrap.

    If all draws of the images are equal, as of two methods that are right on the same images, these show no spread; the
    interval is then at least the difference with :meth:`Resampled.margin` on both sides.

    Args:
        first, second: values on the same draws of the same images.
        over_seeds: also resample each side's seeds, so that the interval applies to the methods and not only to these
            trainings. With few seeds it is rough, and somewhat too narrow.
        over_classes: also resample the classes, so that the interval applies to other classes of the kind and not only
            to these. With few classes it is rough.
        level: level of the interval.
        seed: seed of the resampling of seeds.
    """
    rng = np.random.default_rng(seed) if over_seeds else None
    drawn = first.means(rng, over_classes=over_classes) - second.means(rng, over_classes=over_classes)
    tail, mean = (1 - level) / 2, float(first.measured.mean() - second.measured.mean())
    low, high = np.quantile(drawn, [tail, 1 - tail])
    if same_in_all(first.means() - second.means()):
        margin = max(first.margin(level), second.margin(level))
        low, high = max(min(low, mean - margin), -1.0), min(max(high, mean + margin), 1.0)
    return Interval(mean, 0.0, float(low), float(high))


def same_in_all(drawn: np.ndarray) -> bool:
    """Whether all draws are equal, apart from rounding."""
    return bool(np.ptp(drawn) < ROUNDING)


def resample(
    decisions: Sequence[Decisions],
    gammas: Sequence[float],
    *,
    alone: Sequence[Decisions] | None = None,
    names: Iterable[str] | None = None,
    taxonomy: np.ndarray | None = None,
    rank: int | None = None,
    new: tuple[int, int] | None = None,
    groups: np.ndarray | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Resampled]:
    """Metrics as measured, and over images resampled within their class, identically for every seed.

    Only metrics that are means over images, or computed from such means, have ``drawn``. The draws depend only on the
    images' classes, the requested metrics, ``samples`` and ``seed``, so results of two methods on the same images can
    be compared draw by draw.

    Args:
        decisions: one entry per seed, over the same images.
        gammas: one per seed.
        alone: decisions of other models for metrics among the unseen classes alone, if they differ.
        names: names of the metrics; ``None`` for all.
        taxonomy, rank: as in :class:`~unseen.evaluation.registry.Decided`.
        new: numbers of seen and unseen classes; ``over_classes`` then tells of so many other classes of the kind, drawn
            from the resampled ones, and not of the mean over all such classes.
        groups: int ``(N,)``; classes of the same group are resampled as one.
        samples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    known = every_metric()
    models = {
        kind: [Decided(d, gamma, taxonomy, rank) for d, gamma in zip(found, gammas, strict=True)]
        for kind, found in ((False, decisions), (True, decisions if alone is None else alone))
    }
    rng, of_classes = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    results: dict[str, Resampled] = {}
    for name in known if names is None else [name for name in known if name in set(names)]:
        metric = known[name]
        if metric.of:
            parts = [results[part] for part in metric.of]
            results[name] = Resampled(
                metric.computed(*(p.measured for p in parts)),
                metric.computed(*(p.drawn for p in parts)),
                over_classes=_computed_over_classes(metric.computed, parts),
                parts=tuple(parts),
                compute=metric.computed,
            )
            continue
        values = [np.asarray(metric.computed(decided), dtype=float) for decided in models[metric.alone]]
        if values[0].ndim:
            first = decisions[0]
            counted = ~np.isnan(values[0])
            count = None if new is None else sum(np.array(new)[np.unique(first.is_unseen[counted]).astype(int)])
            results[name] = _resampled(
                np.stack(values, axis=1), first.labels, samples, (rng, of_classes), count, groups
            )
        else:
            results[name] = Resampled(np.stack(values), np.full((samples, len(values)), np.nan))
    return results


def _computed_over_classes(compute: Callable[..., Any], parts: Sequence[Resampled]) -> np.ndarray | None:
    drawn = [part.over_classes for part in parts if part.over_classes is not None]
    return np.asarray(compute(*drawn)) if len(drawn) == len(parts) else None


def _resampled(
    values: np.ndarray,
    labels: np.ndarray,
    samples: int,
    generators: tuple[np.random.Generator, np.random.Generator],
    new: int | None,
    groups: np.ndarray | None,
) -> Resampled:
    """Mean over classes of each class's mean, for values ``(M, seeds)``; NaN for images that do not count."""
    rng, of_classes = generators
    counted = ~np.isnan(values[:, 0])
    values, labels = values[counted], labels[counted]
    measured, drawn = [], []
    classes, sizes = np.unique(labels, return_counts=True)
    for c in classes:
        mine = values[labels == c]
        counts = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=samples)
        measured.append(mine.mean(axis=0))
        drawn.append(counts @ mine / len(mine))
    if not measured:
        nan = np.full(values.shape[1], np.nan)
        return Resampled(nan, np.tile(nan, (samples, 1)))
    shares = bool(np.isin(values, (0, 1)).all())
    images = float(len(sizes) ** 2 / np.sum(1 / sizes)) if shares else 0.0
    units = np.stack(drawn)
    if groups is not None:
        mine = groups[classes]
        units = np.stack([units[mine == group].mean(axis=0) for group in np.unique(mine)])
    picks = of_classes.integers(len(units), size=(len(units), samples))
    if new is not None:
        picks = np.take_along_axis(picks, of_classes.integers(len(units), size=(new, samples)), axis=0)
    over_classes = np.take_along_axis(units, picks[:, :, None], axis=0).mean(axis=0)
    return Resampled(np.mean(measured, axis=0), np.mean(drawn, axis=0), images, over_classes)


def bootstrap(
    decisions: Sequence[Decisions],
    gammas: Sequence[float],
    *,
    alone: Sequence[Decisions] | None = None,
    names: Iterable[str] | None = None,
    taxonomy: np.ndarray | None = None,
    rank: int | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric with its interval over images (:meth:`Resampled.ends`); see :func:`resample`.

    Args:
        decisions, gammas, alone, names, taxonomy, rank, samples, seed: as there.
        level: level of the interval.
    """
    found = resample(
        decisions, gammas, alone=alone, names=names, taxonomy=taxonomy, rank=rank, samples=samples, seed=seed
    )
    return {name: values.interval(level) for name, values in found.items()}
