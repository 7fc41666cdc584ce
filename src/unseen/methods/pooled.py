"""Shared by methods on mean-pooled features: pooling, preparation, one linear map to attributes, exact heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Branch, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.joint import JointPreparation, new_preparation
from unseen.methods.own import OwnImages
from unseen.methods.preparation import FeaturePreparation, RowPreparation


def pool(regions: Tensor) -> Tensor:
    """Mean of the regions, scaled to unit length: ``(B, R, C)`` to ``(B, 1, C)``."""
    return F.normalize(regions.mean(dim=1, keepdim=True), dim=-1)


class PooledLinear(Method):
    """Attribute scores ``weight`` g, with g the prepared pooled feature; the only sub-net is ``linear``.

    A subclass provides ``weight`` ``(K, C)``. ``features`` and ``rows`` prepare features and class vectors, and leave
    both unchanged until they are fitted (:mod:`unseen.methods.preparation`). ``own`` is the share of a seen class's own
    images (:mod:`unseen.methods.own`), none until it is fitted. A subclass that ``joins`` passes its ``channels`` on.
    """

    weight: Tensor
    prepare = staticmethod(pool)

    def __init__(self, channels: int | Sequence[int] = 0) -> None:
        super().__init__()
        self.features: FeaturePreparation | JointPreparation = new_preparation(channels)
        self.rows = RowPreparation()
        self.own = OwnImages()

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores and prepared features."""
        g = self.features(regions[:, 0])
        return {"linear": Branch(F.linear(g, self.weight), embedding=g)}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``; there is no attention."""
        contributions = self.features.contributions(regions, self.weight)
        g = self.features(pool(regions)[:, 0])
        return {"linear": Branch(contributions.sum(dim=2), None, contributions, embedding=g)}

    @property
    def own_query(self) -> Tensor | None:
        """The mean prepared feature of the training images, if own images have a share."""
        return self.own.typical if len(self.own) else None

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` attribute scores; with the features, ``(B, K + C)``, if own images have a share."""
        scores = self.fused_attribute_scores(branches)
        g = branches["linear"].embedding
        return scores if g is None or not len(self.own) else torch.cat([scores, g], dim=1)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors; with the own rows, ``(N, K + C)``, if own images have a share."""
        vectors = self.class_vectors(classes)
        return torch.cat([vectors, self.own.of(classes)], dim=1) if len(self.own) else vectors

    def of_unit_prototypes(self, classes: ClassSpace) -> tuple[Tensor, Tensor | None]:
        """Class vectors ``(N, K)`` and own rows ``(N, C)``, divided by the lengths of the prototypes that they make."""
        t: Tensor = self.rows(classes.unit)
        if not len(self.own):
            return t / (t @ self.weight).norm(dim=1, keepdim=True).clamp(min=1e-12), None
        t, own = t * self.own.left(classes), self.own.of(classes)
        length = (t @ self.weight + own).norm(dim=1, keepdim=True).clamp(min=1e-12)
        return t / length, own / length

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` attribute scores."""
        return branches["linear"].attribute_scores

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` prepared unit vectors; those of seen classes are reduced by the share of own images."""
        result: Tensor = self.rows(classes.unit)
        return result * self.own.left(classes) if len(self.own) else result
