"""Mg-MRN's losses of one level; attribute scores are ``(B, K)``, labels ``(B,)`` positions among all N classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unseen.methods.class_space import ClassSpace


def semantic_cross_entropy(attribute_scores: Tensor, labels: Tensor, classes: ClassSpace, tau: float) -> Tensor:
    """Cross-entropy over the seen classes of ``tau * cos(attribute scores, class vector)``."""
    scores = tau * F.normalize(attribute_scores, dim=1) @ classes.unit.T
    return F.cross_entropy(scores.masked_fill(~classes.seen, float("-inf")), labels)


def semantic_regression(attribute_scores: Tensor, labels: Tensor, classes: ClassSpace) -> Tensor:
    """Mean squared error between unit attribute scores and the unit class vector: ``2 (1 - cos) / K``."""
    return F.mse_loss(F.normalize(attribute_scores, dim=1), classes.unit[labels])
