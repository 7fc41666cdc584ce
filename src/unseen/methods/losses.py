"""Losses shared by several methods; class scores are ``(B, N)``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.class_space import ClassSpace


def seen_margin(margin: float, classes: ClassSpace) -> Tensor:
    """``(N,)`` offset of class scores: ``margin`` for unseen classes, its negative for seen ones (MSDN release)."""
    result: Tensor = margin * (1 - 2 * classes.seen.to(classes.vectors.dtype))
    return result


def self_calibration(scores: Tensor, unseen: Tensor) -> Tensor:
    """Negative log of the batch's mean softmax mass on the unseen classes (MSDN release).

    Args:
        scores: class scores, with the margin; ``(..., B, N)`` for several batches.
        unseen: positions of the unseen classes, at least one.
    """
    masses = F.log_softmax(scores, dim=-1).index_select(-1, unseen)
    return math.log(scores.shape[-2]) - masses.flatten(-2).logsumexp(dim=-1)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Batch mean of the Jensen-Shannon divergence between the softmaxes of two score matrices, in nats.

    Both divergences from a distribution are together smallest for the mixture, so its gradient is 0.
    """
    log_p, log_q = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
    with torch.no_grad():
        log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    divergences = log_p.exp() * (log_p - log_mixture) + log_q.exp() * (log_q - log_mixture)
    return 0.5 / len(first) * divergences.sum()


def cubed_distance(first: Tensor, second: Tensor) -> Tensor:
    """``mean_b( sum_c |d_c|^3 / ||d||_2 )`` with d the difference of scores; 0 if the two agree (MSDN release)."""
    difference = (first - second).abs()
    squares = difference * difference
    total = squares.sum(dim=1)
    # 0/0 where the sub-nets agree; the limit is 0, and so is its gradient
    norm = torch.where(total > 0, total, 1).sqrt()
    return ((difference * squares).sum(dim=1) / norm).mean()


def posterior_distance(first: Tensor, second: Tensor) -> Tensor:
    """``mean_b ||softmax(S1) - softmax(S2)||_2^2``."""
    return (first.softmax(dim=1) - second.softmax(dim=1)).square().sum(dim=1).mean()
