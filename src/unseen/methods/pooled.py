"""What methods on mean-pooled features share: pooling, preparation, one linear map to attributes, exact heat maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Branch, ClassSpace, Method
from unseen.methods.preparation import FeaturePreparation, RowPreparation


def pool(regions: Tensor) -> Tensor:
    """Mean of the regions to unit length: ``(B, R, C)`` to ``(B, 1, C)``."""
    return F.normalize(regions.mean(dim=1, keepdim=True), dim=-1)


class PooledLinear(Method):
    """Attribute scores ``weight`` g, with g the prepared pooled feature; one sub-net, ``linear``.

    A subclass gives ``weight`` ``(K, C)``; ``features`` and ``rows`` prepare features and class vectors, and leave both
    as they are until they are fitted (:mod:`unseen.methods.preparation`).
    """

    weight: Tensor
    prepare = staticmethod(pool)

    def __init__(self) -> None:
        super().__init__()
        self.features = FeaturePreparation()
        self.rows = RowPreparation()

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores."""
        return {"linear": Branch(F.linear(self.features(regions[:, 0]), self.weight))}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``; there is no attention."""
        contributions = self.features.contributions(regions, self.weight)
        return {"linear": Branch(contributions.sum(dim=2), None, contributions)}

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)``."""
        return branches["linear"].attribute_scores

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` prepared unit vectors."""
        result: Tensor = self.rows(classes.unit)
        return result
