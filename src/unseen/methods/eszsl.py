"""ESZSL: embarrassingly simple zero-shot learning (Romera-Paredes and Torr, ICML 2015).

Closed form: V = (X'X + gamma I)^-1 X' Y S (S'S + lambda I)^-1 with X the prepared features (n, C), Y the one-vs-rest
labels in {-1, 1} (n, N seen), S the seen classes' prepared attribute vectors (N seen, K). Class score x' V t_c.

As published, features and class vectors have unit length, gamma and lambda come from 10^-3 ... 10^3. In `recommended`
preparations are part of the grid, and gamma and lambda count in mean eigenvalues of X'X and S'S: the eigenvalues of
unit features are such that the absolute grid does not reach the best ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Candidate, Card, ClassSpace, ClosedFormMethod, Preset
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import FeaturePreparation, PreparedSettings, RowPreparation
from unseen.methods.registry import register_method

PAPER = tuple(10.0**e for e in range(-3, 4))
"""Gamma and lambda of the paper."""
GAMMAS = (10.0, 10**0.5, 1.0, 10**-0.5, 0.1)
LAMBDAS = (10.0, 1.0, 0.1, 0.01)
"""Ours, in mean eigenvalues."""


@dataclass(frozen=True, kw_only=True)
class ESZSLSettings(PreparedSettings):
    """Settings of :class:`ESZSL`.

    Args:
        features, rows: see :class:`PreparedSettings`.
        relative: gamma and lambda in mean eigenvalues of X'X and S'S; else the paper's grid.
    """

    relative: bool = True


@register_method
class ESZSL(PooledLinear, ClosedFormMethod):
    """See the module's docstring; ``weight`` is V' ``(K, C)``."""

    name = "eszsl"
    card = Card(
        title="ESZSL: embarrassingly simple zero-shot learning",
        paper="Romera-Paredes and Torr, ICML 2015",
        exact="the closed form, checked against a direct solution; the grid of the preset `paper`",
        ours="features are mean-pooled regions; in `recommended` their preparation, that of the class vectors, and the "
        "unit of gamma and lambda",
    )
    settings_class = ESZSLSettings
    presets: ClassVar = {
        "paper": Preset(ESZSLSettings(features="unit", rows="unit", relative=False), None, "paper's grid"),
        "recommended": Preset(
            ESZSLSettings(), None, "ours: preparations and relative grid, chosen on validation classes"
        ),
    }

    def __init__(
        self, channels: int, vectors: Tensor, settings: ESZSLSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self._kinds = settings.kinds
        self._gammas, self._lambdas = (GAMMAS, LAMBDAS) if settings.relative else (PAPER, PAPER)
        self.register_buffer("weight", torch.zeros(len(vectors), channels, dtype=vectors.dtype, device=vectors.device))

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Keep the training images; solutions are made by preparation, in float64, when they are asked for."""
        self._training = regions[:, 0].double(), labels, classes
        self._solved: dict[str, Features] = {}

    def grid(self) -> list[Candidate]:
        """Every preparation with every gamma and lambda."""
        return [
            {"features": features, "gamma": gamma, "rows": rows, "lambda": strength}
            for features, gamma, rows, strength in product(self._kinds[0], self._gammas, self._kinds[1], self._lambdas)
        ]

    def use(self, candidate: Candidate) -> None:
        """Solve for one candidate."""
        solved, right = self._by_features(candidate["features"]), self._by_rows(candidate["rows"])[1]
        self.features.fit(candidate["features"], self._training[0].to(self.weight), self._training[1])
        self.rows.fit(candidate["rows"], self._unit().to(self.weight))
        self.weight.copy_((solved.left(candidate["gamma"]) @ right(candidate["lambda"])).T)

    def sweep(self, regions: Tensor, classes: ClassSpace) -> Iterator[tuple[Candidate, Tensor]]:
        """As the base's: a factorisation a preparation and gamma, a small product a candidate."""
        unit, held_out = classes.unit.double(), regions[:, 0].double()
        prepared = {kind: self._by_rows(kind) for kind in self._kinds[1]}
        rights = {kind: (right, rows(unit).T) for kind, (rows, right) in prepared.items()}
        for features in self._kinds[0]:
            try:
                solved = self._by_features(features)
                lefts = {gamma: solved.left(gamma) for gamma in self._gammas}
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
                continue
            x = solved.preparation(held_out)
            for gamma, left in lefts.items():
                answers = x @ left
                for kind, (right, table) in rights.items():
                    for strength in self._lambdas:
                        scores = answers @ (right(strength) @ table)
                        if scores.isfinite().all():
                            found = {"features": features, "gamma": gamma, "rows": kind, "lambda": strength}
                            yield found, scores.to(regions)

    def _unit(self) -> Tensor:
        """Unit vectors of the classes trained on."""
        classes = self._training[2]
        return classes.unit[classes.seen].double()

    def _by_features(self, kind: str) -> Features:
        if kind not in self._solved:
            x, labels, classes = self._training
            position = torch.cumsum(classes.seen, 0) - 1
            y = 2 * F.one_hot(position[labels], int(classes.seen.sum())).double() - 1
            self._solved = {kind: Features(kind, x, labels, y, self.settings.relative)}  # one at a time in memory
        return self._solved[kind]

    def _by_rows(self, kind: str) -> tuple[RowPreparation, ClassVectors]:
        rows = RowPreparation()
        rows.fit(kind, self._unit())
        return rows, ClassVectors(rows(self._unit()), self.settings.relative)


class Features:
    """Features under one preparation: ``left(gamma)`` is (X'X + gamma I)^-1 X'Y, ``(C, N seen)``."""

    def __init__(self, kind: str, x: Tensor, labels: Tensor, y: Tensor, relative: bool) -> None:
        self.preparation = FeaturePreparation()
        self.preparation.fit(kind, x, labels)
        prepared = self.preparation(x)
        self._gram, self._target = prepared.T @ prepared, prepared.T @ y
        self._step = float(self._gram.diagonal().mean()) if relative else 1.0

    def left(self, gamma: float) -> Tensor:
        """``(C, N seen)`` for one gamma."""
        damped = self._gram.clone()
        damped.diagonal().add_(gamma * self._step)
        return torch.cholesky_solve(self._target, torch.linalg.cholesky(damped))


class ClassVectors:
    """Prepared class vectors S ``(N seen, K)``; a call with lambda gives S (S'S + lambda I)^-1, ``(N seen, K)``."""

    def __init__(self, s: Tensor, relative: bool) -> None:
        self._left, self._values, self._right = torch.linalg.svd(s, full_matrices=False)
        self._step = float(self._values.square().sum() / s.shape[1]) if relative else 1.0

    def __call__(self, strength: float) -> Tensor:
        """``(N seen, K)`` for one lambda."""
        result: Tensor = (self._left * (self._values / (self._values.square() + strength * self._step))) @ self._right
        return result
