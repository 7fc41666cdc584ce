"""How far a model's confidence can be trusted: expected calibration error, risk and coverage, seen against unseen.

Confidence is the highest entry of softmax((S - gamma seen) / T) over all classes. All figures are over images, not
averaged over classes. A figure without an image to measure it on is ``None`` in JSON.
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
"""Wrong answers that a threshold is chosen by, at least."""
POINTS = 101
"""Most points of a curve that are kept."""


@dataclass(frozen=True)
class Answers:
    """What a model said of M images.

    Args:
        confidence: ``(M,)`` of the class it named.
        right: bool ``(M,)``.
        unseen: bool ``(M,)`` whether the true class is unseen.
        offset: ``(M,)`` best seen minus best unseen score; infinite where there is only one kind.
    """

    confidence: np.ndarray
    right: np.ndarray
    unseen: np.ndarray
    offset: np.ndarray

    @classmethod
    def from_scores(
        cls, scores: np.ndarray, labels: np.ndarray, seen: np.ndarray, gamma: float, temperature: float
    ) -> Self:
        """From class scores ``(M, N)``, labels ``(M,)``, seen flags ``(N,)``, gamma and the softmax's temperature."""
        every = torch.from_numpy(scores).double()
        best = best_classes([(torch.arange(len(seen)), every)], seen, 1, gamma=gamma, temperature=temperature)
        _, top = best_of_kinds([every], [columns_by_kind(torch.from_numpy(seen.copy()))])
        offset = (top[:, 0, 0] - top[:, 1, 0]).numpy()
        return cls(best.confidence[:, 0], best.index[:, 0] == labels, ~seen[labels], offset)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Self:
        """The answers of several batches as one."""
        names = ("confidence", "right", "unseen", "offset")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def reliability(self) -> dict[str, list[float]]:
        """Mean confidence, accuracy and number of images of each of :data:`BINS` bins that holds any."""
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
        """Coverage, risk and threshold at every confidence that occurs, thresholds falling.

        Risk is the share of wrong answers among the images with a confidence of at least the threshold, coverage
        their share of all (El-Yaniv and Wiener, JMLR 2010).
        """
        order = np.argsort(-self.confidence, kind="stable")
        threshold = self.confidence[order]
        last = np.append(threshold[1:] < threshold[:-1], True)  # images of equal confidence come together
        given = np.arange(1, len(order) + 1)[last]
        wrong = np.cumsum(~self.right[order])[last]
        return given / len(order), wrong / given, threshold[last]

    def threshold(self) -> float:
        """The lowest confidence from which on the risk is half of the risk of answering always.

        Ours. Where that would leave fewer than half of the images, the one that leaves half; where fewer than
        :data:`MISTAKES` answers are wrong, too few to go by, the one that leaves 95% of them.
        """
        coverage, risk, threshold = self.risk_coverage()
        if (~self.right).sum() < MISTAKES:
            return float(threshold[np.flatnonzero(coverage >= 0.95)[0]])
        enough = np.flatnonzero((risk <= risk[-1] / 2) & (coverage >= 0.5))
        return float(threshold[enough[-1] if len(enough) else np.flatnonzero(coverage >= 0.5)[0]])

    def auroc(self) -> float | None:
        """How well best seen minus best unseen score tells seen from unseen images: 0.5 is chance.

        ``None`` without images, or classes, of both kinds.
        """
        if self.unseen.all() or not self.unseen.any() or not np.isfinite(self.offset).all():
            return None
        return float(auroc(self.offset[:, None], ~self.unseen[:, None])[0])

    def summary(self, threshold: float | None = None) -> dict[str, Any]:
        """Everything above in JSON form.

        Args:
            threshold: below which the answer is "unknown".

        Returns:
            accuracy, confidence (means over images), ece, auroc, reliability, risk_coverage (at most
            :data:`POINTS` points), and at the threshold coverage and accuracy of what is answered.
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
