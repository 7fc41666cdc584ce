"""How far a model's confidence can be trusted: expected calibration error, risk and coverage, seen against unseen.

Confidence is the largest entry of softmax((S - gamma seen) / T) over all classes. All measures are over images, not
averaged over classes. A measure without any image is ``None`` in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from unseen.evaluation.attributes import auroc
from unseen.evaluation.scores import best_classes, best_of_kinds, columns_by_kind

BINS = 15
"""Bins of equal width for the expected calibration error (Guo et al., ICML 2017)."""
MISTAKES = 10
"""Smallest number of wrong answers for choosing a threshold."""
POINTS = 101
"""Largest number of points of a curve that are stored."""


@dataclass(frozen=True)
class Answers:
    """Answers of a model on M images.

    Args:
        confidence: ``(M,)`` confidence of the predicted class.
        right: bool ``(M,)``, whether it is correct.
        unseen: bool ``(M,)``, whether the true class is unseen.
        offset: ``(M,)`` best seen minus best unseen score; infinite if there is only one kind.
    """

    confidence: np.ndarray
    right: np.ndarray
    unseen: np.ndarray
    offset: np.ndarray

    @classmethod
    def from_scores(
        cls, scores: np.ndarray, labels: np.ndarray, seen: np.ndarray, gamma: float, temperature: float
    ) -> Self:
        """Make answers from class scores ``(M, N)``, labels ``(M,)``, seen flags ``(N,)``, gamma and temperature."""
        every = torch.from_numpy(scores).double()
        best = best_classes([(torch.arange(len(seen)), every)], seen, 1, gamma=gamma, temperature=temperature)
        _, top = best_of_kinds([every], [columns_by_kind(torch.from_numpy(seen.copy()))])
        offset = (top[:, 0, 0] - top[:, 1, 0]).numpy()
        return cls(best.confidence[:, 0], best.index[:, 0] == labels, ~seen[labels], offset)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Self:
        """Join the answers of several batches."""
        names = ("confidence", "right", "unseen", "offset")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def reliability(self) -> dict[str, list[float]]:
        """Mean confidence, accuracy and number of images for each of :data:`BINS` bins with images."""
        bins = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        count = np.bincount(bins, minlength=BINS)
        held = count > 0
        mean = [np.bincount(bins, weights=v, minlength=BINS)[held] / count[held] for v in (self.confidence, self.right)]
        return {"confidence": mean[0].tolist(), "accuracy": mean[1].tolist(), "count": count[held].tolist()}

    def ece(self) -> float:
        """Expected calibration error: mean over images of their bin's |confidence - accuracy|."""
        bins = self.reliability()
        gaps = np.abs(np.subtract(bins["confidence"], bins["accuracy"]))
        return float(np.average(gaps, weights=bins["count"]))

    def risk_coverage(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coverage, risk and threshold at every confidence value, with decreasing thresholds.

        Risk is the share of wrong answers among the images with at least the threshold's confidence, and coverage is
        the share of such images (El-Yaniv and Wiener, JMLR 2010).
        """
        order = np.argsort(-self.confidence, kind="stable")
        threshold = self.confidence[order]
        last = np.append(threshold[1:] < threshold[:-1], True)  # images with equal confidence come together
        given = np.arange(1, len(order) + 1)[last]
        wrong = np.cumsum(~self.right[order])[last]
        return given / len(order), wrong / given, threshold[last]

    def threshold(self) -> float:
        """The lowest confidence above which the risk is half of the risk without a threshold.

        Ours. If that would leave fewer than half of the images, the confidence that leaves half; with fewer than
        :data:`MISTAKES` wrong answers, which are too few to rely on, the one that leaves 95%.
        """
        coverage, risk, threshold = self.risk_coverage()
        if (~self.right).sum() < MISTAKES:
            return float(threshold[np.flatnonzero(coverage >= 0.95)[0]])
        enough = np.flatnonzero((risk <= risk[-1] / 2) & (coverage >= 0.5))
        return float(threshold[enough[-1] if len(enough) else np.flatnonzero(coverage >= 0.5)[0]])

    def auroc(self) -> float | None:
        """How well best seen minus best unseen score separates seen from unseen images: 0.5 is chance.

        ``None`` without images, or classes, of both kinds.
        """
        if self.unseen.all() or not self.unseen.any() or not np.isfinite(self.offset).all():
            return None
        return float(auroc(self.offset[:, None], ~self.unseen[:, None])[0])

    def summary(self, threshold: float | None = None) -> dict[str, Any]:
        """All measures as JSON types.

        Args:
            threshold: confidence below which the answer is "unknown".

        Returns:
            accuracy, confidence (means over images), ece, auroc, reliability, risk_coverage (at most :data:`POINTS`
            points), and coverage and accuracy of the answers above the threshold.
        """
        if not len(self.right):
            return {}
        coverage, risk, thresholds = self.risk_coverage()
        kept = np.unique(np.linspace(0, len(coverage) - 1, POINTS).round().astype(int))
        known = self.confidence >= (threshold or 0.0)
        return {
            "images": len(self.right),
            "accuracy": float(self.right.mean()),
            "confidence": float(self.confidence.mean()),
            "ece": self.ece(),
            "auroc": self.auroc(),
            "coverage": float(known.mean()),
            "accuracy_when_known": float(self.right[known].mean()) if known.any() else None,
            "reliability": self.reliability(),
            "risk_coverage": {
                "coverage": coverage[kept].tolist(),
                "risk": risk[kept].tolist(),
                "threshold": thresholds[kept].tolist(),
            },
        }
