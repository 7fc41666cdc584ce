"""Realistic batches drawn from held-out images: balanced, skewed, of few classes, partly unknown, small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unseen.evaluation.metrics import harmonic

KINDS = {
    "balanced": "as many images of every class",
    "as it is": "all images",
    "skewed": "each class has 0.7 times the images of the one before",
    "few classes": "no image of half of the classes",
    "partly unknown": "images of classes that the table does not hold: a third of the unseen ones",
    "small": "30 images",
}
SMALL = 30
FALL = 0.7
SCOPES = ("unseen", "all")
"""Batches of unseen classes with only these as candidates, and of all classes."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """A batch.

    Args:
        images: positions of its images.
        classes: increasing positions of the candidate classes.
    """

    images: np.ndarray
    classes: np.ndarray


def draw_mixture(
    kind: str, scope: str, labels: np.ndarray, seen: np.ndarray, rng: np.random.Generator, most: int = 0
) -> Mixture:
    """Draw a batch of held-out images.

    Args:
        kind: one of :data:`KINDS`.
        scope: one of :data:`SCOPES`.
        labels: ``(M,)`` labels of the held-out images.
        seen: bool ``(N,)``.
        rng: generator of the draw.
        most: largest number of images of the batch; 0 for no limit.
    """
    classes = np.flatnonzero(~seen) if scope == "unseen" else np.arange(len(seen))
    mine = {c: rows for c in rng.permutation(classes) if len(rows := rng.permutation(np.flatnonzero(labels == c)))}
    if kind == "balanced":
        least = min(map(len, mine.values()))
        mine = {c: rows[:least] for c, rows in mine.items()}
    elif kind == "skewed":
        largest = max(map(len, mine.values()))
        mine = {c: rows[: max(1, round(largest * FALL**i))] for i, (c, rows) in enumerate(mine.items())}
    elif kind == "few classes":
        mine = dict(list(mine.items())[: -(-len(mine) // 2)])
    elif kind == "partly unknown":
        unseen = rng.permutation(np.flatnonzero(~seen))
        classes = np.setdiff1d(classes, unseen[: len(unseen) // 3])
    images = rng.permutation(np.concatenate(list(mine.values())))
    limit = SMALL if kind == "small" else most or len(images)
    return Mixture(images[:limit], classes)


def accuracy(scores: np.ndarray, labels: np.ndarray, mixture: Mixture, seen: np.ndarray, scope: str) -> float:
    """Mean accuracy of the batch's candidate classes; for all classes the harmonic mean of both kinds.

    Args:
        scores: ``(B, n)`` scores of the mixture's images and classes, minus gamma.
        labels: ``(M,)`` labels of the held-out images.
        mixture: the batch.
        seen: bool ``(N,)``.
        scope: one of :data:`SCOPES`.
    """
    truth = labels[mixture.images]
    right = mixture.classes[scores.argmax(axis=1)] == truth
    by_class = {c: float(right[truth == c].mean()) for c in np.unique(truth) if c in mixture.classes}
    if scope == "unseen":
        return float(np.mean(list(by_class.values()))) if by_class else float("nan")
    kinds = [[a for c, a in by_class.items() if seen[c] == kind] for kind in (True, False)]
    return float(harmonic(*(float(np.mean(k)) for k in kinds))) if all(kinds) else float("nan")
