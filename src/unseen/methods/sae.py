"""SAE: semantic autoencoder (Kodirov, Xiang and Gong, CVPR 2017).

W minimizes ||X - W'S||^2 + lambda ||W X - S||^2, with X the prepared features (C, n) and S the prepared vectors of the
images' classes (K, n): the same weights encode features as attributes and decode them. W solves the Sylvester equation
A W + W B = (1 + lambda) S X' with A = S S', B = lambda X X'. The class score is cos(W x, t_c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Branch, Candidate, Card, ClosedFormMethod, SweepPart
from unseen.methods.class_space import ClassSpace
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import FeaturePreparation, PreparedSettings, RowPreparation
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset

STRENGTHS = tuple(10.0**e for e in range(-3, 7))


@dataclass(frozen=True, kw_only=True)
class SAESettings(PreparedSettings):
    """Settings of :class:`SAE`: preparations; lambda comes from a grid."""


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
    presets: ClassVar = {
        "default": Preset(SAESettings(features="unit", rows="unit"), None, "ours: lambda from 10^-3 ... 10^6"),
        "recommended": Preset(SAESettings(), None, "ours: preparations too, chosen on validation classes"),
    }
    weight: Tensor

    def __init__(
        self, channels: int, vectors: Tensor, settings: SAESettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", vectors.new_zeros(len(vectors), channels))

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Store the training images; solutions are computed on demand, by preparation, in float64."""
        self._training = regions[:, 0].double(), labels, classes.unit.double()
        self._solved: tuple[tuple[str, str], _Sylvester] | None = None

    def grid(self) -> list[Candidate]:
        """Every preparation with lambda from 10^-3 to 10^6."""
        names = ("features", "rows", "lambda")
        return [dict(zip(names, values, strict=True)) for values in product(*self.settings.kinds, STRENGTHS)]

    def use(self, candidate: Candidate) -> None:
        """Solve for one candidate."""
        x, labels, unit = self._training
        solved = self._by_kinds(candidate["features"], candidate["rows"])
        self.features.fit(candidate["features"], x.to(self.weight), labels)
        self.rows.fit(candidate["rows"], unit[torch.unique(labels)].to(self.weight))
        s_vectors, x_vectors = solved.vectors
        self.weight.copy_(s_vectors @ solved(candidate["lambda"]) @ x_vectors.T)

    def sweep_parts(self, regions: Tensor, classes: ClassSpace) -> Sequence[SweepPart]:
        """As in the base class, with two rotations per preparation and one product per candidate."""
        return [self._part(features, rows, regions, classes) for features, rows in product(*self.settings.kinds)]

    def _part(self, features: str, rows: str, regions: Tensor, classes: ClassSpace) -> SweepPart:
        solved = self._by_kinds(features, rows)
        s_vectors, x_vectors = solved.vectors
        x = solved.features(regions[:, 0].double()) @ x_vectors
        table = solved.rows(classes.unit.double()) @ s_vectors
        for strength in STRENGTHS:
            scores = F.normalize(x @ solved(strength).T, dim=1) @ table.T
            if scores.isfinite().all():
                yield [{"features": features, "rows": rows, "lambda": strength}], scores.to(regions)[None]

    def _by_kinds(self, features: str, rows: str) -> _Sylvester:
        solved = self._solved
        if solved is None or solved[0] != (features, rows):
            solved = self._solved = (features, rows), _Sylvester(features, rows, *self._training)
        return solved[1]

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores W x / ||W x||."""
        return {"linear": Branch(F.normalize(F.linear(self.features(regions[:, 0]), self.weight), dim=1))}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``, divided by the same ||W x||; there is no attention."""
        contributions = self.features.contributions(regions, self.weight)
        norm = contributions.sum(dim=2).norm(dim=1).clamp(min=1e-12)
        contributions = contributions / norm[:, None, None]
        return {"linear": Branch(contributions.sum(dim=2), None, contributions)}


class _Sylvester:
    """The equation under one preparation, with S S' and X X' diagonalized, so that each lambda is cheap.

    Directions in which S or X is zero leave W undetermined for some lambda; they get 0, the shortest solution.
    ``vectors`` are the eigenvectors of S S' ``(K, K)`` and X X' ``(C, C)``; a call returns W in these coordinates.
    """

    def __init__(self, features: str, rows: str, x: Tensor, labels: Tensor, unit: Tensor) -> None:
        self.features, self.rows = FeaturePreparation(), RowPreparation()
        self.features.fit(features, x, labels)
        self.rows.fit(rows, unit[torch.unique(labels)])
        x, s = self.features(x), self.rows(unit)[labels]
        x_values, x_vectors = torch.linalg.eigh(x.T @ x)
        s_values, s_vectors = torch.linalg.eigh(s.T @ s)
        self.vectors = s_vectors, x_vectors
        self._middle = s_vectors.T @ (s.T @ x) @ x_vectors
        for values, there in ((s_values, self._middle), (x_values, self._middle.T)):
            there[values <= len(values) * torch.finfo(values.dtype).eps * values[-1]] = 0
        self._s, self._x = s_values.clamp(min=0), x_values.clamp(min=0)

    def __call__(self, balance: float) -> Tensor:
        sums = self._s[:, None] + balance * self._x
        return torch.where(self._middle == 0, 0, (1 + balance) * self._middle / sums)
