"""SAE: semantic autoencoder (Kodirov, Xiang and Gong, CVPR 2017).

W minimises ||X - W'S||^2 + lambda ||W X - S||^2, with X the pooled features (C, n) and S the unit attribute vectors of
the images' classes (K, n): features are encoded as attributes, and decoded from them by the same weights. W solves
the Sylvester equation A W + W B = (1 + lambda) S X' with A = S S', B = lambda X X'. Class score cos(W x, z_c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Branch, Card, ClassSpace, ClosedFormMethod, Preset, Settings
from unseen.methods.pooled import PooledLinear, pooled_contributions
from unseen.methods.registry import register_method

EXPONENTS = tuple(range(-3, 7))


@dataclass(frozen=True, kw_only=True)
class SAESettings(Settings):
    """Settings of :class:`SAE`; none: lambda comes from a grid."""


@register_method
class SAE(PooledLinear, ClosedFormMethod):
    """See the module's docstring; ``weight`` is W ``(K, C)``."""

    name = "sae"
    card = Card(
        title="SAE: semantic autoencoder",
        paper="Kodirov, Xiang and Gong, CVPR 2017 (arXiv 1704.08345)",
        exact="the Sylvester equation, checked by its residual and against SciPy's solver; scores from features to "
        "attributes, by cosine",
        ours="features are mean-pooled regions of unit length, class vectors have unit length; the grid; the paper's "
        "other direction, from attributes to features, is left out",
    )
    settings_class = SAESettings
    presets: ClassVar = {"default": Preset(SAESettings(), None, "ours: lambda from 10^-3 ... 10^6")}
    weight: Tensor

    def __init__(
        self, channels: int, vectors: Tensor, settings: SAESettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", vectors.new_zeros(len(vectors), channels))

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Diagonalise S S' and X X' once, in float64, so that every lambda is two small products.

        Directions in which S or X has nothing leave W undetermined for some lambda; they get 0, the shortest solution.
        """
        x, s = regions[:, 0].double(), classes.unit[labels].double()
        x_values, x_vectors = torch.linalg.eigh(x.T @ x)
        s_values, s_vectors = torch.linalg.eigh(s.T @ s)
        middle = s_vectors.T @ (s.T @ x) @ x_vectors
        for values, there in ((s_values, middle), (x_values, middle.T)):
            there[values <= len(values) * torch.finfo(values.dtype).eps * values[-1]] = 0
        self._solution = (s_values.clamp(min=0), s_vectors, x_values.clamp(min=0), x_vectors, middle)

    def grid(self) -> list[dict[str, float]]:
        """Lambda in 10^-3 ... 10^6."""
        return [{"lambda": 10.0**e} for e in EXPONENTS]

    def use(self, candidate: dict[str, float]) -> None:
        """Solve for one lambda."""
        s_values, s_vectors, x_values, x_vectors, middle = self._solution
        balance = candidate["lambda"]
        sums = s_values[:, None] + balance * x_values
        scaled = torch.where(middle == 0, 0, (1 + balance) * middle / sums)
        self.weight.copy_(s_vectors @ scaled @ x_vectors.T)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores W x / ||W x||."""
        return {"linear": Branch(F.normalize(F.linear(regions[:, 0], self.weight), dim=1))}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``, over the same ||W x||; there is no attention."""
        contributions = pooled_contributions(regions, self.weight)
        norm = contributions.sum(dim=2).norm(dim=1).clamp(min=1e-12)
        contributions = contributions / norm[:, None, None]
        return {"linear": Branch(contributions.sum(dim=2), None, contributions)}
