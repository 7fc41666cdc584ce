"""Answers above the class: the confidence of taxa, and which of them can be an answer.

The confidence of a taxon is the sum of the confidences of its classes. It is the probability that the image shows one
of them, given that it shows some candidate class; it says nothing about images of other classes. A taxon therefore has
to stand out from chance: by as much as validation found necessary at its rank (:mod:`unseen.training.ranks`), else by
as much as the threshold demands of a class, see :func:`required`. Both ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unseen.classes.taxonomy import Taxonomy
from unseen.errors import UnseenError
from unseen.evaluation.scores import Best
from unseen.model.predictions import Candidate, Taxon

NEVER = -1e4
"""Log of a weight of 0: its exponential is 0, and sums with it stay finite."""


@dataclass(frozen=True)
class RankThreshold:
    """Thresholds of a rank, for confidence above chance (:func:`excess`).

    Args:
        asked: below it the answer at this rank is "unknown", if this rank was requested; ``None`` if not chosen.
        coarser: below it the rank is no answer where the class is not sure; ``None`` if it never is one.
    """

    asked: float | None
    coarser: float | None


@dataclass(frozen=True, eq=False)
class Choice:
    """What a prediction chooses from.

    Args:
        top: number of candidates per image.
        allowed: increasing positions of the candidate classes.
        threshold: confidence below which the answer is "unknown".
        rank: position of the rank whose taxa are the candidates; ``None`` for the classes.
        ranks: thresholds of ranks; those of other ranks follow ``threshold``.
    """

    top: int
    allowed: np.ndarray
    threshold: float
    rank: int | None = None
    ranks: Mapping[str, RankThreshold] = field(default_factory=dict)


def shares_of(weights: np.ndarray, images: Sequence[str]) -> np.ndarray:
    """Prior probabilities: weights ``(B, n)`` of the candidate classes, divided by their sum.

    Raises:
        UnseenError: all weights of an image are 0.
    """
    total = weights.sum(axis=1, keepdims=True)
    none = np.flatnonzero(total[:, 0] <= 0)
    if len(none):
        problem = "the prior gives every candidate class a weight of 0"
        raise UnseenError(problem, where=images[none[0]] or None, hint="give one a weight, or more candidate classes")
    found: np.ndarray = weights / total
    return found


def probabilities(
    scores: np.ndarray, seen: np.ndarray, gamma: float, temperature: float, log_weights: np.ndarray | None = None
) -> np.ndarray:
    """Float64 ``(B, n)`` softmax of (S - gamma seen) / T + log w: the confidences of n candidate classes.

    Args:
        scores: ``(B, n)`` raw class scores.
        seen: ``(n,)`` multiples of gamma to subtract.
        gamma, temperature: calibration.
        log_weights: log w ``(B, n)`` of a prior.
    """
    shifted = (scores - gamma * seen) / temperature
    shifted = shifted if log_weights is None else shifted + log_weights
    raised = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    found: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return found


def by_taxon(probability: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """``(B, count)`` sums of probabilities ``(B, n)`` over the classes of each taxon; ``codes`` ``(n,)``, or -1."""
    found = np.zeros((len(probability), count))
    for column, code in enumerate(codes):  # in class order, so that sums are the same for any batch
        if code >= 0:
            found[:, code] += probability[:, column]
    return found


def excess(confidence: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(p - g) / (1 - g): confidence above chance, as a share of what is possible; -infinity for certain taxa."""
    certain = guess >= 1 - 1e-9
    found: np.ndarray = np.where(certain, -np.inf, (confidence - guess) / np.where(certain, 1.0, 1 - guess))
    return found


def required(threshold: float, guess: float | np.ndarray, classes: int) -> np.ndarray:
    """Smallest confidence at which a taxon can be an answer; chance gives it ``guess``.

    With n of N classes of equal weight, ``guess`` is n / N. Confidence above chance, (p - guess) / (1 - guess), must
    reach that of a class at the threshold: a taxon of one class needs the threshold, one of nearly all classes nearly
    1. A taxon of all classes is certain for any image, so it is never an answer (infinity).
    """
    base = 1 / max(classes, 2)
    excess = max(threshold - base, 0.0) / (1 - base)
    needed = np.maximum(threshold, guess + excess * (1 - np.asarray(guess)))
    return np.where(np.asarray(guess) >= 1 - 1e-9, np.inf, needed)


class RankedTaxa:
    """Taxa of B images at one rank, by confidence.

    Args:
        taxonomy: taxonomy of all classes.
        rank: position of the rank.
        allowed: ``(n,)`` positions of the candidate classes.
        probability: ``(B, n)`` confidences of these classes.
        prior: ``(B, n)`` chance probabilities with sum 1.
        choice: thresholds of classes and ranks.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        rank: int,
        allowed: np.ndarray,
        probability: np.ndarray,
        prior: np.ndarray,
        choice: Choice,
    ) -> None:
        self.rank, self.names = taxonomy.ranks[rank], taxonomy.names(rank)
        self.codes = taxonomy.codes[allowed, rank]
        self.allowed, self.probability = allowed, probability
        self.confidence = by_taxon(probability, self.codes, len(self.names))
        self.guess = by_taxon(prior, self.codes, len(self.names))
        own, above = choice.ranks.get(self.rank), excess(self.confidence, self.guess)
        follows = self.confidence >= required(choice.threshold, self.guess, len(allowed))
        self.sure = follows if own is None else above >= (np.inf if own.coarser is None else own.coarser)
        self.known = follows if own is None or own.asked is None else above >= own.asked
        self.there = np.isin(np.arange(len(self.names)), self.codes)  # of some candidate class
        masked = np.where(self.there, self.confidence, -1.0)
        self.order = np.argsort(-masked, axis=1, kind="stable")

    def best_class(self, image: int, taxon: int) -> int:
        """Position of the most likely class of a taxon."""
        inside = np.flatnonzero(self.codes == taxon)
        return int(self.allowed[inside[self.probability[image, inside].argmax()]])

    def first(self, image: int, classes: Sequence[str]) -> Taxon | None:
        """The most likely taxon of an image; ``None`` if no candidate class has one."""
        taxon = int(self.order[image, 0])
        if not self.there.any():
            return None
        sure, probably = bool(self.sure[image, taxon]), classes[self.best_class(image, taxon)]
        return Taxon(self.rank, self.names[taxon], float(self.confidence[image, taxon]), probably, sure)

    def candidates(self, image: int, count: int, seen: np.ndarray, scores: np.ndarray) -> list[Candidate]:
        """The most likely taxa; seen if one of their candidate classes is, with the score of their best class."""
        found = []
        for taxon in self.order[image, : min(count, int(self.there.sum()))]:
            inside = self.allowed[self.codes == taxon]
            best = self.best_class(image, int(taxon))
            confidence = float(self.confidence[image, taxon])
            found.append(Candidate(self.names[taxon], bool(seen[inside].any()), confidence, float(scores[image, best])))
        return found


def unshifted(best: Best, scores: np.ndarray) -> Best:
    """A ranking of scores changed by a prior, with the raw scores ``(B, N)`` in it."""
    return Best(best.index, np.take_along_axis(scores, best.index, axis=1), best.confidence)
