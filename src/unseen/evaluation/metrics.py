"""The field's metrics: per-class mean accuracy, CZSL T1, GZSL U/S/H, calibrated stacking, AUSUC.

Accuracies are fractions in [0, 1]. A metric without any image is NaN. The first class wins a tie of scores, as in
``argmax``; if calibration makes the best seen and unseen class tie, the unseen one wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

LEADING = 10
"""Number of classes of either kind that are stored per image, for metrics beyond the best class."""


def per_class_accuracy(correct: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Share of correct images of each class ``(N,)``; NaN for a class without images.

    Args:
        correct: bool or float ``(M,)``.
        labels: ``(M,)`` class positions.
        classes: ``(N,)`` classes to report, in order.
    """
    size = int(max(labels.max(initial=-1), classes.max(initial=-1))) + 1
    total = np.bincount(labels, minlength=size)[classes]
    right = np.bincount(labels, weights=correct.astype(float), minlength=size)[classes]
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = right / total
        return result


def harmonic(u: float | np.ndarray, s: float | np.ndarray) -> np.ndarray:
    """H = 2US / (U + S); 0 if both are 0."""
    u, s = np.asarray(u, dtype=float), np.asarray(s, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(u + s == 0, 0.0, 2 * u * s / (u + s))


@dataclass(frozen=True)
class Decisions:
    """What metrics need of class scores: the best seen and the best unseen classes of each image.

    Args:
        labels: ``(M,)`` true classes.
        leading: ``(M, 2, k)`` the k best seen and the k best unseen classes, best first; padded with -1.
        scores: ``(M, 2, k)`` their scores; padded with -inf.
        is_unseen: ``(M,)`` whether the true class is unseen.
    """

    labels: np.ndarray
    leading: np.ndarray
    scores: np.ndarray
    is_unseen: np.ndarray

    @classmethod
    def from_scores(cls, scores: np.ndarray, labels: np.ndarray, seen: np.ndarray, count: int = 1) -> Decisions:
        """Make decisions from scores ``(M, N)``, labels ``(M,)`` and seen ``(N,)``; keeps ``count`` of each kind."""
        if count > 1 or seen.all() or not seen.any() or not np.isfinite(scores).all():
            return cls.from_blocks([scores], labels, seen, count)
        kinds = [np.flatnonzero(seen), np.flatnonzero(~seen)]
        best = np.stack([columns[scores[:, columns].argmax(axis=1)] for columns in kinds], axis=1)
        top = np.take_along_axis(scores, best, axis=1).astype(np.float64)
        return cls(labels, best[:, :, None], top[:, :, None], ~seen[labels])

    @classmethod
    def from_blocks(
        cls, blocks: Iterable[np.ndarray], labels: np.ndarray, seen: np.ndarray, count: int = 1
    ) -> Decisions:
        """Make decisions from class scores in blocks of classes, ``(M, n)`` each."""
        import torch

        from unseen.evaluation.scores import best_of_kinds, columns_by_kind

        kinds, start = [], 0
        tensors = []
        for scores in blocks:
            kinds.append(columns_by_kind(torch.from_numpy(seen[start : start + scores.shape[1]].copy())))
            tensors.append(torch.from_numpy(scores).double())
            start += scores.shape[1]
        best, top = best_of_kinds(tensors, kinds, count)
        return cls(labels, best.numpy(), top.numpy(), ~seen[labels])

    @classmethod
    def of_candidates(cls, scores: Tensor, labels: np.ndarray, seen: np.ndarray) -> list[Decisions]:
        """Decisions of n candidates from their scores ``(n, M, N)``, with the best class of each kind."""
        import torch

        def one_by_one() -> list[Decisions]:
            return [cls.from_scores(own.double().cpu().numpy(), labels, seen) for own in scores]

        if seen.all() or not seen.any():
            return one_by_one()
        by_class, is_unseen = scores.transpose(1, 2), ~seen[labels]
        index, top = [], []
        for kind in (seen, ~seen):
            columns = torch.from_numpy(np.flatnonzero(kind)).to(scores.device)
            best = by_class.index_select(1, columns).max(dim=1)
            if not best.values.isfinite().all():  # the largest of some scores with a NaN is NaN
                return one_by_one()
            index.append(columns[best.indices])
            top.append(best.values.double())
        leading, highest = (torch.stack(pair, dim=2)[..., None].cpu().numpy() for pair in (index, top))
        return [cls(labels, *pair, is_unseen) for pair in zip(leading, highest, strict=True)]

    @classmethod
    def joined(cls, parts: Sequence[Decisions], classes: int) -> Decisions:
        """Join several draws, with the N classes of every draw kept apart: means go over classes and draws."""
        shifted = [
            (d.labels + i * classes, np.where(d.leading < 0, -1, d.leading + i * classes), d.scores, d.is_unseen)
            for i, d in enumerate(parts)
        ]
        return cls(*(np.concatenate(arrays) for arrays in zip(*shifted, strict=True)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Decisions:
        """Read what :meth:`arrays` returned."""
        return cls(**{f.name: arrays[f.name] for f in fields(cls)})

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, for a file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def best_seen(self) -> np.ndarray:
        """``(M,)`` the best seen class, -1 for none."""
        result: np.ndarray = self.leading[:, 0, 0]
        return result

    @property
    def best_unseen(self) -> np.ndarray:
        """``(M,)`` the best unseen class, -1 for none."""
        result: np.ndarray = self.leading[:, 1, 0]
        return result

    @cached_property
    def offset(self) -> np.ndarray:
        """``(M,)`` best seen minus best unseen score: the gamma at which the prediction becomes unseen."""
        result: np.ndarray = self.scores[:, 0, 0] - self.scores[:, 1, 0]
        return result

    def predict(self, gamma: float = 0.0) -> np.ndarray:
        """Predicted classes among all, with calibrated stacking: gamma subtracted from seen scores."""
        return np.where(self.offset > gamma, self.best_seen, self.best_unseen)

    def czsl(self) -> np.ndarray:
        """Whether each *unseen* image is right among the unseen classes ``(M_unseen,)``."""
        result: np.ndarray = self.best_unseen[self.is_unseen] == self.labels[self.is_unseen]
        return result

    def ranked(self, count: int, gamma: float = 0.0) -> np.ndarray:
        """``(M, count)`` classes among all, best first, with calibrated stacking; padded with -1.

        Raises:
            ValueError: fewer classes of each kind are stored.
        """
        if count > self.leading.shape[2]:
            raise ValueError(f"the best {self.leading.shape[2]} classes of each kind are kept, not {count}")
        lowered = self.scores - np.array([gamma, 0.0])[:, None]
        # unseen classes first, since they win a tie
        scores, classes = (array[:, ::-1].reshape(len(array), 2 * array.shape[2]) for array in (lowered, self.leading))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(classes, order, axis=1)


CORE = ("T1", "U", "S", "H", "AUSUC")
"""The field's metrics, as in records of epochs and choices."""
ACCURACIES = CORE[:4]
"""Metrics at one calibration offset, as reported in papers."""


@dataclass(frozen=True)
class Scores:
    """The usual numbers of one model at one gamma."""

    t1: float
    u: float
    s: float
    h: float
    gamma: float
    ausuc: float

    def as_dict(self) -> dict[str, float | None]:
        """The metrics as JSON types; NaN becomes ``None``."""
        numbers = (self.t1, self.u, self.s, self.h, self.ausuc, self.gamma)
        values = dict(zip((*CORE, "gamma"), numbers, strict=True))
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
        gamma: ``(G,)`` increasing thresholds; entry i of ``u`` and ``s`` holds for gamma in [gamma_i, gamma_i+1).
        u, s: ``(G,)``; NaN without unseen or seen images.
    """

    gamma: np.ndarray
    u: np.ndarray
    s: np.ndarray

    @classmethod
    def of(cls, d: Decisions) -> SeenUnseenCurve:
        """The exact curve of a set of images, with a step for every image."""

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
        """The gamma of the highest H, as the middle of its interval, and that H; gamma 0 if no H is above 0."""
        h = harmonic(self.u, self.s)
        i = int(h.argmax())
        if not h[i] > 0:
            return 0.0, float(h[i])
        low = self.gamma[i]
        high = self.gamma[i + 1] if i + 1 < len(self.gamma) else np.inf
        middle = (low + high) / 2
        return float(middle if middle < high else low), float(h[i])


def common_gamma(curves: Sequence[SeenUnseenCurve]) -> tuple[float, float]:
    """The gamma of the highest mean H of several curves, as the middle of its interval, and that mean.

    The maximum of one curve depends on a few images. The mean over several draws of classes is flatter and closer to
    the test.
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


def h_bounds(candidates: Sequence[Decisions]) -> np.ndarray:
    """``(n,)`` upper bounds of the H at any gamma of candidates on the same M images; NaN if a kind has no image.

    As :class:`SeenUnseenCurve`, for all candidates at once, except that equal offsets are passed one by one.
    """
    labels, unseen = candidates[0].labels, candidates[0].is_unseen
    counts, weights = np.bincount(labels), np.zeros(len(labels))
    for kind in (unseen, ~unseen):
        weights[kind] = 1 / (counts[labels[kind]] * max(len(np.unique(labels[kind])), 1))
    leading = np.stack([d.leading[:, :, 0] for d in candidates])
    scores = np.stack([d.scores[:, :, 0] for d in candidates])
    right = weights * (np.where(unseen, leading[:, :, 1], leading[:, :, 0]) == labels)
    right = np.take_along_axis(np.where(unseen, right, -right), (scores[:, :, 0] - scores[:, :, 1]).argsort(axis=1), 1)
    u, lost = right.clip(min=0).cumsum(axis=1), right.clip(max=0).cumsum(axis=1)
    s = lost - lost[:, -1:]
    found: np.ndarray = (2 * u * s / np.maximum(u + s, 1e-12)).max(axis=1, initial=0) + 1e-9
    return found if unseen.any() and not unseen.all() else np.full(len(candidates), np.nan)


def kept_share(curve: SeenUnseenCurve, gamma: float) -> float:
    """Share of the correct answers on seen images that an offset keeps: S over S without unseen classes."""
    i = int(np.searchsorted(curve.gamma, gamma, side="right")) - 1
    return float(curve.s[i] / curve.s[0]) if curve.s[0] > 0 else 1.0


def gamma_keeping(curve: SeenUnseenCurve, share: float) -> float:
    """The largest gamma that keeps a share of the correct answers on seen images, as the middle of its interval.

    Args:
        curve: only its ``s`` is used.
        share: from 0 to 1, see :func:`kept_share`.
    """
    i = int(np.flatnonzero(curve.s >= share * curve.s[0] - 1e-12)[-1])
    low, high = (curve.gamma[j] if j < len(curve.gamma) else np.inf for j in (i, i + 1))
    if not np.isfinite(low) or not np.isfinite(high):
        return float(high if np.isfinite(high) else low if np.isfinite(low) else 0.0)
    return float((low + high) / 2)
