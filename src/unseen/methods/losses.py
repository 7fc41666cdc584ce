"""Losses shared by several methods; scores are ``(B, N)``, labels ``(B,)``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def self_calibration(scores: Tensor, unseen: Tensor) -> Tensor:
    """Negative log of the batch's mean softmax mass on the unseen classes (MSDN release).

    Args:
        scores: class scores, with the margin.
        unseen: positions of the unseen classes, at least one.
    """
    mass = torch.logsumexp(F.log_softmax(scores, dim=1)[:, unseen], dim=1)
    return math.log(len(scores)) - torch.logsumexp(mass, dim=0)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Batch mean of the Jensen-Shannon divergence between the softmaxes of two score matrices, in nats."""
    log_p, log_q = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
    p, q = log_p.exp(), log_q.exp()
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * ((p * (log_p - log_mixture)) + (q * (log_q - log_mixture))).sum(dim=1).mean()


def cubed_distance(first: Tensor, second: Tensor) -> Tensor:
    """``mean_b( sum_c |d_c|^3 / ||d||_2 )`` with d the difference of scores; 0 if the two agree (MSDN release)."""
    difference = (first - second).abs()
    squares = difference.square().sum(dim=1)
    # 0/0 where the sub-nets agree; the limit is 0, and so is its gradient
    apart = squares > 0
    norm = torch.where(apart, squares, torch.ones_like(squares)).sqrt()
    return (difference.pow(3).sum(dim=1) / norm).mean()


def posterior_distance(first: Tensor, second: Tensor) -> Tensor:
    """``mean_b ||softmax(S1) - softmax(S2)||_2^2``."""
    return (first.softmax(dim=1) - second.softmax(dim=1)).square().sum(dim=1).mean()
