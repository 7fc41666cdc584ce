"""Predict a whole batch together (transductive): its images act as support images of their likely classes. Ours.

Expectation maximization over the rule of :mod:`unseen.model.support`. With q_ic the softmax of (S_ic / temperature)
over the candidate classes, and v_i the image in the space of support images, for each class c without training images::

    n_ic = d sum over j != i of q_jc             images of the batch that look like c, this one left out
    p_ic = unit(sum over j != i of q_jc v_j)
    S'_ic = (1 - w) S_ic + w (a <v_i, p_ic> + b) + (1 - exp(-n_ic)) e / (n_ic + k)       w = n_ic / (n_ic + k)

repeated with q from S'. Three measures protect against unbalanced batches. There is no prior over classes, so a class
need not occur in the batch. An image of the batch counts as d support images, with d chosen on validation classes in
batches of many kinds (:mod:`unseen.evaluation.mixtures`), 0 if it does not help. The total confidence of all classes
without training images stays unchanged for each image.
"""

from __future__ import annotations

import numpy as np

from unseen.model.support import SupportRule

ROUNDS = 10
"""Rounds of expectation and maximization."""
LEAST = 1e-6
"""Number of images below which a class is absent from the batch."""


def together(
    scores: np.ndarray,
    vectors: np.ndarray,
    seen: np.ndarray,
    rule: SupportRule,
    weight: float,
    temperature: float,
    rounds: int = ROUNDS,
    inner: np.ndarray | None = None,
) -> np.ndarray:
    """Scores that take the whole batch into account; those of seen classes stay unchanged.

    Args:
        scores: ``(B, N)`` finite scores of the candidate classes, minus gamma.
        vectors: ``(B, C)`` unit vectors v.
        seen: bool ``(N,)``.
        rule: how support images count.
        weight: d.
        temperature: temperature of the softmax.
        rounds: number of rounds.
        inner: float64 ``(B, B)`` inner products of the vectors, if known; pays off for several calls.

    Returns:
        float64 ``(B, N)``.
    """
    open_ = np.flatnonzero(~seen)
    if weight <= 0 or not len(open_) or len(scores) < 2:
        return scores
    asked = vectors.astype(np.float64) if inner is None else vectors
    plain = scores[:, open_]
    level = _log_sum(plain / temperature)
    moved: np.ndarray = scores.astype(np.float64, copy=True)
    for _ in range(rounds):
        mine = moved / temperature
        mine = np.exp(mine - mine.max(axis=1, keepdims=True))
        mine = (mine / mine.sum(axis=1, keepdims=True))[:, open_]
        count = weight * (mine.sum(axis=0) - mine)
        toward = asked @ (mine.T @ asked).T if inner is None else inner @ mine
        length = (mine * toward).sum(axis=0) - 2 * mine * toward + mine**2  # without this image, whose length is 1
        cosine = (toward - mine) / np.sqrt(length.clip(min=1e-12))
        keep = rule.prior / (count + rule.prior)
        beside = -np.expm1(-count) * rule.few / (count + rule.prior)
        found = keep * plain + (1 - keep) * (rule.scale * cosine + rule.offset) + beside
        found = np.where(count > LEAST, found, plain)
        found += temperature * (level - _log_sum(found / temperature))
        moved[:, open_] = found
    return moved


def _log_sum(scores: np.ndarray) -> np.ndarray:
    """``(B, 1)`` logarithm of the sum of the exponentials of finite scores ``(B, N)``."""
    top = scores.max(axis=1, keepdims=True)
    result: np.ndarray = top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    return result
