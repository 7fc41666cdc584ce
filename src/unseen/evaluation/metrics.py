"""The field's metrics: per-class mean accuracy, CZSL T1, GZSL U/S/H, calibrated stacking, AUSUC, bootstrap.

Accuracies are fractions in [0, 1]. A metric without an image to measure it on is NaN. Ties in a score go to the first
class, as ``argmax`` has it; where calibration makes the best seen and unseen class tie, the unseen one wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from unseen.evaluation.scores import best_of_kinds, columns_by_kind

METRICS = ("T1", "U", "S", "H", "AUSUC")
"""The columns of every table."""


def per_class_accuracy(correct: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Share of correct images of each class ``(N,)``; NaN for a class without images.

    Args:
        correct: bool or float ``(M,)``.
        labels: ``(M,)`` class positions.
        classes: ``(N,)`` the classes to report, in order.
    """
    size = int(max(labels.max(initial=-1), classes.max(initial=-1))) + 1
    total = np.bincount(labels, minlength=size)[classes]
    right = np.bincount(labels, weights=correct.astype(float), minlength=size)[classes]
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = right / total
        return result


def harmonic(u: float | np.ndarray, s: float | np.ndarray) -> np.ndarray:
    """H = 2US / (U + S); 0 where both are 0."""
    u, s = np.asarray(u, dtype=float), np.asarray(s, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(u + s == 0, 0.0, 2 * u * s / (u + s))


@dataclass(frozen=True)
class Decisions:
    """What of an image's class scores the metrics need: the best seen and the best unseen class.

    Args:
        labels: ``(M,)`` true class.
        best_seen, best_unseen: ``(M,)`` best class of either kind.
        offset: ``(M,)`` best seen minus best unseen score: the gamma at which the image turns unseen.
        is_unseen: ``(M,)`` whether the true class is unseen.
    """

    labels: np.ndarray
    best_seen: np.ndarray
    best_unseen: np.ndarray
    offset: np.ndarray
    is_unseen: np.ndarray

    @classmethod
    def from_scores(cls, scores: np.ndarray, labels: np.ndarray, seen: np.ndarray) -> Decisions:
        """From class scores ``(M, N)``, labels ``(M,)`` and seen flags ``(N,)``."""
        return cls.from_blocks([scores], labels, seen)

    @classmethod
    def from_blocks(cls, blocks: Iterable[np.ndarray], labels: np.ndarray, seen: np.ndarray) -> Decisions:
        """From class scores in blocks of classes, ``(M, n)`` each; without a class of a kind its best is -1."""
        kinds, start = [], 0
        tensors = []
        for scores in blocks:
            kinds.append(columns_by_kind(torch.from_numpy(seen[start : start + scores.shape[1]].copy())))
            tensors.append(torch.from_numpy(scores).double())
            start += scores.shape[1]
        best, top = (found.numpy() for found in best_of_kinds(tensors, kinds))
        return cls(labels, best[0], best[1], top[0] - top[1], ~seen[labels])

    @classmethod
    def joined(cls, parts: Sequence[Decisions], classes: int) -> Decisions:
        """Several draws as one, every draw's N classes being classes of their own: means go over classes and draws."""
        shifted = [
            (d.labels + i * classes, d.best_seen + i * classes, d.best_unseen + i * classes, d.offset, d.is_unseen)
            for i, d in enumerate(parts)
        ]
        return cls(*(np.concatenate(arrays) for arrays in zip(*shifted, strict=True)))

    def predict(self, gamma: float = 0.0) -> np.ndarray:
        """Classes predicted among all, with calibrated stacking: gamma off every seen score."""
        return np.where(self.offset > gamma, self.best_seen, self.best_unseen)

    def czsl(self) -> np.ndarray:
        """Whether each *unseen* image is right among the unseen classes ``(M_unseen,)``."""
        result: np.ndarray = self.best_unseen[self.is_unseen] == self.labels[self.is_unseen]
        return result


@dataclass(frozen=True)
class Scores:
    """The table's numbers for one model at one gamma."""

    t1: float
    u: float
    s: float
    h: float
    gamma: float
    ausuc: float

    def as_dict(self) -> dict[str, float | None]:
        """JSON form; NaN becomes ``None``."""
        values = {"T1": self.t1, "U": self.u, "S": self.s, "H": self.h, "AUSUC": self.ausuc, "gamma": self.gamma}
        return {k: None if np.isnan(v) else float(v) for k, v in values.items()}


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def evaluate(decisions: Decisions, seen: np.ndarray, gamma: float = 0.0) -> Scores:
    """T1, U, S, H at a gamma, and AUSUC."""
    d = decisions
    where_seen, where_unseen = np.flatnonzero(seen), np.flatnonzero(~seen)
    right = d.predict(gamma) == d.labels
    t1 = _mean(per_class_accuracy(d.czsl(), d.labels[d.is_unseen], where_unseen))
    u = _mean(per_class_accuracy(right[d.is_unseen], d.labels[d.is_unseen], where_unseen))
    s = _mean(per_class_accuracy(right[~d.is_unseen], d.labels[~d.is_unseen], where_seen))
    return Scores(t1, u, s, float(harmonic(u, s)), gamma, SeenUnseenCurve.of(d).area)


@dataclass(frozen=True)
class SeenUnseenCurve:
    """U and S at every gamma where either changes (Chao et al., ECCV 2016).

    Args:
        gamma: ``(G,)`` rising thresholds; entry i of ``u`` and ``s`` holds for gamma in [gamma_i, gamma_i+1).
        u, s: ``(G,)``; NaN without unseen or seen images.
    """

    gamma: np.ndarray
    u: np.ndarray
    s: np.ndarray

    @classmethod
    def of(cls, d: Decisions) -> SeenUnseenCurve:
        """The exact curve of a set of images: a step for every image."""

        def weights(mask: np.ndarray) -> np.ndarray:
            counts = np.bincount(d.labels[mask], minlength=int(d.labels.max(initial=0)) + 1)
            present = max(int((counts > 0).sum()), 1)
            result: np.ndarray = 1.0 / (counts[d.labels[mask]] * present)
            return result

        unseen, seen = d.is_unseen, ~d.is_unseen
        gain = np.zeros(len(d.labels))
        loss = np.zeros(len(d.labels))
        gain[unseen] = weights(unseen) * (d.best_unseen[unseen] == d.labels[unseen])
        loss[seen] = weights(seen) * (d.best_seen[seen] == d.labels[seen])
        finite = np.isfinite(d.offset)
        values, group = np.unique(d.offset[finite], return_inverse=True)
        up = np.bincount(group, weights=gain[finite], minlength=len(values))
        down = np.bincount(group, weights=loss[finite], minlength=len(values))
        u0 = float(gain[d.offset == -np.inf].sum())
        s0 = float(loss[d.offset > -np.inf].sum())
        gamma = np.concatenate([[-np.inf], values])
        u = u0 + np.concatenate([[0.0], np.cumsum(up)])
        s = s0 - np.concatenate([[0.0], np.cumsum(down)])
        u[:] = u.clip(0, 1) if unseen.any() else np.nan
        s[:] = s.clip(0, 1) if seen.any() else np.nan
        return cls(gamma, u, s)

    @property
    def area(self) -> float:
        """AUSUC by the trapezoid rule over (U, S); NaN without seen or unseen images."""
        if np.isnan(self.u[0] + self.s[0]):
            return float("nan")
        return float(np.sum(np.diff(self.u) * (self.s[1:] + self.s[:-1]) / 2))

    def best_gamma(self) -> tuple[float, float]:
        """The gamma of the highest H, the middle of its interval, and that H; gamma 0 where no H is above 0."""
        h = harmonic(self.u, self.s)
        i = int(h.argmax())
        if not h[i] > 0:
            return 0.0, float(h[i])
        low = self.gamma[i]
        high = self.gamma[i + 1] if i + 1 < len(self.gamma) else np.inf
        middle = (low + high) / 2
        return float(middle if middle < high else low), float(h[i])


def common_gamma(curves: Sequence[SeenUnseenCurve]) -> tuple[float, float]:
    """The gamma of the highest mean H of several curves, the middle of its interval, and that mean.

    One curve is a lottery: its maximum hangs on a few images. The mean over several draws of classes is flatter and
    more faithful to the test.
    """
    if len(curves) == 1:
        return curves[0].best_gamma()
    gamma = np.unique(np.concatenate([curve.gamma for curve in curves]))
    h = np.zeros(len(gamma))
    for curve in curves:
        at = np.searchsorted(curve.gamma, gamma, side="right") - 1
        h += harmonic(curve.u, curve.s)[at]
    i = int(h.argmax())
    best = float(h[i]) / len(curves)
    if not best > 0:
        return 0.0, best
    low, high = gamma[i], gamma[i + 1] if i + 1 < len(gamma) else np.inf
    middle = (low + high) / 2
    return float(middle if middle < high else low), best


@dataclass(frozen=True)
class Interval:
    """Mean over seeds, spread over seeds, and a bootstrap interval over images."""

    mean: float
    std: float
    low: float
    high: float
    per_seed: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, float | list[float | None] | None]:
        """JSON form; NaN becomes ``None``."""

        def plain(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        return {
            "mean": plain(self.mean),
            "std": plain(self.std),
            "low": plain(self.low),
            "high": plain(self.high),
            "per_seed": [plain(v) for v in self.per_seed],
        }


@dataclass(frozen=True)
class Resampled:
    """A metric as measured and on resampled images.

    Args:
        measured: ``(seeds,)``.
        drawn: ``(samples, seeds)``; the same draws for whatever is resampled over the same images with the same seed.
    """

    measured: np.ndarray
    drawn: np.ndarray

    def interval(self, level: float = 0.95) -> Interval:
        """Mean and spread over seeds, and the percentile interval of the mean."""
        tail = (1 - level) / 2
        low, high = np.quantile(self.drawn.mean(axis=1), [tail, 1 - tail])
        spread = float(self.measured.std(ddof=1)) if len(self.measured) > 1 else 0.0
        return Interval(float(self.measured.mean()), spread, float(low), float(high), list(self.measured))

    def paired(self, other: Resampled) -> Resampled:
        """This minus the other, seed by seed and draw by draw; for the same seeds."""
        return Resampled(self.measured - other.measured, self.drawn - other.drawn)

    def means(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """``(samples,)`` means over seeds; with ``rng`` over as many seeds drawn with replacement."""
        draws, seeds = self.drawn.shape
        drawn = self.drawn
        if rng is not None:
            drawn = np.take_along_axis(drawn, rng.integers(seeds, size=(draws, seeds)), axis=1)
        result: np.ndarray = drawn.mean(axis=1)
        return result


def difference(
    first: Resampled, second: Resampled, *, over_seeds: bool = False, level: float = 0.95, seed: int = 0
) -> Interval:
    """First minus second, with a percentile interval of the paired bootstrap.

    Args:
        first, second: of the same draws of the same images.
        over_seeds: draw each side's seeds too, so that the interval is about the methods and not about these trainings
            of them. With few seeds it is rough, and somewhat too narrow.
        level: of the interval.
        seed: of the draw of seeds.
    """
    rng = np.random.default_rng(seed) if over_seeds else None
    drawn = first.means(rng) - second.means(rng)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(first.measured.mean() - second.measured.mean()), 0.0, float(low), float(high))


def resample(
    decisions: Sequence[Decisions], gammas: Sequence[float], *, samples: int = 1000, seed: int = 0
) -> dict[str, Resampled]:
    """T1, U, S and H, measured and over images resampled within their class, the same for every seed.

    The draws depend on the images' classes, ``samples`` and ``seed`` alone, so that the results of two methods on the
    same images can be compared draw by draw.

    Args:
        decisions: one entry a seed, over the same images.
        gammas: one a seed.
        samples: bootstrap samples.
        seed: of the resampling.
    """
    first = decisions[0]
    rng = np.random.default_rng(seed)
    right = np.stack([d.predict(g) == d.labels for d, g in zip(decisions, gammas, strict=True)], axis=1)
    czsl = np.stack([d.czsl() for d in decisions], axis=1)

    def resampled(correct: np.ndarray, labels: np.ndarray) -> Resampled:
        """Per-class mean accuracy."""
        measured, drawn = [], []
        for c in np.unique(labels):
            mine = correct[labels == c].astype(float)
            counts = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=samples)
            measured.append(mine.mean(axis=0))
            drawn.append(counts @ mine / len(mine))
        if not measured:
            nan = np.full(correct.shape[1], np.nan)
            return Resampled(nan, np.tile(nan, (samples, 1)))
        return Resampled(np.mean(measured, axis=0), np.mean(drawn, axis=0))

    unseen = first.is_unseen
    t1 = resampled(czsl, first.labels[unseen])
    u = resampled(right[unseen], first.labels[unseen])
    s = resampled(right[~unseen], first.labels[~unseen])
    h = Resampled(harmonic(u.measured, s.measured), harmonic(u.drawn, s.drawn))
    return {"T1": t1, "U": u, "S": s, "H": h}


def bootstrap(
    decisions: Sequence[Decisions],
    seen: np.ndarray,
    gammas: Sequence[float],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of T1, U, S and H over images; see :func:`resample`.

    Args:
        decisions, gammas, samples, seed: as there.
        seen: bool ``(N,)``.
        level: of the interval.
    """
    found = resample(decisions, gammas, samples=samples, seed=seed)
    return {name: values.interval(level) for name, values in found.items()}
