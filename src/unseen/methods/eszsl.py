"""ESZSL: embarrassingly simple zero-shot learning (Romera-Paredes and Torr, ICML 2015).

Closed form: V = (X'X + gamma I)^-1 X' Y S (S'S + lambda I)^-1 with X the pooled features (n, C), Y the one-vs-rest
labels in {-1, 1} (n, N seen), S the seen classes' unit attribute vectors (N seen, K). Class score x' V z_c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Card, ClassSpace, ClosedFormMethod, Preset, Settings
from unseen.methods.pooled import PooledLinear
from unseen.methods.registry import register_method

EXPONENTS = tuple(range(-3, 4))


@dataclass(frozen=True, kw_only=True)
class ESZSLSettings(Settings):
    """Settings of :class:`ESZSL`; none: gamma and lambda come from the grid 10^-3 ... 10^3 of the paper."""


@register_method
class ESZSL(PooledLinear, ClosedFormMethod):
    """See the module's docstring; ``weight`` is V' ``(K, C)``."""

    name = "eszsl"
    card = Card(
        title="ESZSL: embarrassingly simple zero-shot learning",
        paper="Romera-Paredes and Torr, ICML 2015",
        exact="the closed form, checked against a direct solution",
        ours="features are mean-pooled regions of unit length",
    )
    settings_class = ESZSLSettings
    presets: ClassVar = {"paper": Preset(ESZSLSettings(), None, "paper's grid")}

    def __init__(
        self, channels: int, vectors: Tensor, settings: ESZSLSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", torch.zeros(len(vectors), channels, dtype=vectors.dtype, device=vectors.device))

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Diagonalise X'X and S'S once, in float64, so that every grid point is two small products."""
        x = regions[:, 0].double()
        s = classes.unit[classes.seen].double()
        position = torch.cumsum(classes.seen, 0) - 1
        y = 2 * F.one_hot(position[labels], len(s)).double() - 1
        x_values, x_vectors = torch.linalg.eigh(x.T @ x)
        s_values, s_vectors = torch.linalg.eigh(s.T @ s)
        middle = x_vectors.T @ (x.T @ y @ s) @ s_vectors
        self._solution = (x_values.clamp(min=0), x_vectors, s_values.clamp(min=0), s_vectors, middle)

    def grid(self) -> list[dict[str, float]]:
        """All pairs gamma, lambda in 10^-3 ... 10^3."""
        return [{"gamma": 10.0**g, "lambda": 10.0**h} for g in EXPONENTS for h in EXPONENTS]

    def use(self, candidate: dict[str, float]) -> None:
        """Solve for one gamma and lambda."""
        x_values, x_vectors, s_values, s_vectors, middle = self._solution
        scaled = middle / (x_values + candidate["gamma"])[:, None] / (s_values + candidate["lambda"])
        self.weight.copy_((x_vectors @ scaled @ s_vectors.T).T)
