"""What methods on mean-pooled features share: pooling, one linear map to attributes, and its exact heat maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Branch, Method


def pool(regions: Tensor) -> Tensor:
    """Mean of the regions to unit length: ``(B, R, C)`` to ``(B, 1, C)``."""
    return F.normalize(regions.mean(dim=1, keepdim=True), dim=-1)


def pooled_contributions(regions: Tensor, weights: Tensor) -> Tensor:
    """What each region adds to ``weights @ pool(regions)``: ``(B, R, C)``, ``(K, C)`` to ``(B, K, R)``.

    Exact, since the mean is a sum: region r adds ``w_k' f_r / (R ||mean f||)``.
    """
    norm = regions.mean(dim=1).norm(dim=-1).clamp(min=1e-12) * regions.shape[1]
    return (regions @ weights.T).transpose(1, 2) / norm[:, None, None]


class PooledLinear(Method):
    """Attribute scores ``weight`` f, with f the pooled feature and ``weight`` ``(K, C)``; one sub-net, ``linear``."""

    weight: Tensor
    prepare = staticmethod(pool)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores."""
        return {"linear": Branch(F.linear(regions[:, 0], self.weight))}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``; there is no attention."""
        contributions = pooled_contributions(regions, self.weight)
        return {"linear": Branch(contributions.sum(dim=2), None, contributions)}

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)``."""
        return branches["linear"].attribute_scores
