"""ESZSL: embarrassingly simple zero-shot learning (Romera-Paredes and Torr, ICML 2015).

Closed form: V = (X'X + gamma I)^-1 X' Y S (S'S + lambda I)^-1 with X the prepared features (n, C), Y the one-vs-rest
labels in {-1, 1} (n, N seen), S the prepared attribute vectors of the seen classes (N seen, K). The class score is x' V
t_c.

As published, features and class vectors have unit length, and gamma and lambda come from 10^-3 ... 10^3. In
`recommended` the grid includes preparations, and gamma and lambda count in mean eigenvalues of the *centered* Gram
matrices of C features and of N seen class vectors: without centering these consist almost only of the mean, which no
such grid can overcome. A seen class's own one-vs-rest answer may share in its score (:mod:`unseen.methods.own`); V is
then divided by the mean length of the seen classes' weights over these answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Candidate, Card, ClosedFormMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.joint import JointSettings, new_preparation, total
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import RowPreparation
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset

PAPER = tuple(10.0**e for e in range(-3, 4))
"""Gamma and lambda in the paper."""
GAMMAS = tuple(10.0 ** (e / 2) for e in (4, 3, 2, 1, 0, -1, -2))
LAMBDAS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Our grid, in mean eigenvalues of the centered Gram matrices."""
SHARES = (0.0, 0.5)
"""Shares of a seen class's own images."""


@dataclass(frozen=True, kw_only=True)
class ESZSLSettings(JointSettings):
    """Settings of :class:`ESZSL`.

    Args:
        features, rows, earlier: see :class:`JointSettings`.
        relative: whether gamma and lambda count in mean eigenvalues; otherwise the paper's grid is used.
        own: whether a seen class's own images may share in its score.
    """

    relative: bool = True
    own: bool = True


@register_method
class ESZSL(PooledLinear, ClosedFormMethod):
    """See the module's docstring; ``weight`` is V' ``(K, C)``."""

    name = "eszsl"
    card = Card(
        title="ESZSL: embarrassingly simple zero-shot learning",
        paper="Romera-Paredes and Torr, ICML 2015",
        exact="the closed form, checked against a direct solution; the grid of the preset `paper`",
        ours="features are mean-pooled regions; in `recommended` their preparation, that of the class vectors, the "
        "unit of gamma and lambda, and the share of own images",
    )
    settings_class = ESZSLSettings
    joins = True
    presets: ClassVar = {
        "paper": Preset(ESZSLSettings(features="unit", rows="unit", relative=False, own=False), None, "paper's grid"),
        "recommended": Preset(
            ESZSLSettings(), None, "ours: preparations and relative grid, chosen on validation classes"
        ),
    }

    def __init__(
        self,
        channels: int | Sequence[int],
        vectors: Tensor,
        settings: ESZSLSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels)
        self.settings, self._channels = settings, channels
        self._kinds = settings.kinds_of(channels)
        self._gammas: tuple[float, ...]
        self._lambdas: tuple[float, ...]
        self._gammas, self._lambdas = (GAMMAS, LAMBDAS) if settings.relative else (PAPER, PAPER)
        self._shares: list[Candidate] = [{"own": share} for share in SHARES] if settings.own else [{}]
        self.register_buffer("weight", vectors.new_zeros(len(vectors), total(channels)))

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Store the training images; solutions are computed on demand, by preparation, in float64."""
        self._training = regions[:, 0].double(), labels, classes
        self._solved: dict[str, Features] = {}

    def grid(self) -> list[Candidate]:
        """Every preparation with every gamma and lambda."""
        return [
            {"features": features, "gamma": gamma, "rows": rows, "lambda": strength, **own}
            for features, gamma, rows, strength, own in product(
                self._kinds[0], self._gammas, self._kinds[1], self._lambdas, self._shares
            )
        ]

    def use(self, candidate: Candidate) -> None:
        """Solve for one candidate."""
        solved, (rows, right) = self._by_features(candidate["features"]), self._by_rows(candidate["rows"])
        left, weights, share = solved.left(candidate["gamma"]), right(candidate["lambda"]), candidate.get("own", 0.0)
        self.features.fit(candidate["features"], self._training[0].to(self.weight), self._training[1])
        self.rows.fit(candidate["rows"], self._unit().to(self.weight))
        length = _mean_length(rows(self._unit()) @ weights.T) if share else 1.0
        self.weight.copy_((left @ weights).T / length)
        self.own.fit(share, left.T, solved.preparation(self._training[0]), self.weight)

    def sweep(self, regions: Tensor, classes: ClassSpace) -> Iterator[tuple[Candidate, Tensor]]:
        """As in the base class, with a factorization per preparation and gamma, and a small product per candidate."""
        unit, held_out = classes.unit.double(), regions[:, 0].double()
        prepared = {kind: self._by_rows(kind) for kind in self._kinds[1]}
        rights = {kind: (right, rows(unit), rows(self._unit())) for kind, (rows, right) in prepared.items()}
        own = one_hot(classes, int(self._training[2].seen.sum())).to(unit)
        for features in self._kinds[0]:
            try:
                solved = self._by_features(features)
                lefts = {gamma: solved.left(gamma) for gamma in self._gammas}
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
                continue
            x = solved.preparation(held_out)
            for gamma, left in lefts.items():
                answers = x @ left
                for kind, (right, table, trained) in rights.items():
                    for strength in self._lambdas:
                        weights = right(strength).T
                        plain, mine = answers @ (table @ weights).T, answers @ own.T
                        for share in self._shares:
                            scores = plain
                            if share.get("own"):
                                length = _mean_length(trained @ weights)
                                scores = plain / length * (1 - share["own"] * own.sum(dim=1)) + share["own"] * mine
                            if scores.isfinite().all():
                                found = {"features": features, "gamma": gamma, "rows": kind, "lambda": strength}
                                yield found | share, scores.to(regions)

    def _unit(self) -> Tensor:
        """Unit vectors of the classes trained on."""
        classes = self._training[2]
        return classes.unit[classes.seen].double()

    def _by_features(self, kind: str) -> Features:
        if kind not in self._solved:
            x, labels, classes = self._training
            position = torch.cumsum(classes.seen, 0) - 1
            y = 2 * F.one_hot(position[labels], int(classes.seen.sum())).double() - 1
            self._solved = {
                kind: Features(kind, x, labels, y, self.settings.relative, self._channels)
            }  # keeps one at a time in memory
        return self._solved[kind]

    def _by_rows(self, kind: str) -> tuple[RowPreparation, ClassVectors]:
        rows = RowPreparation()
        rows.fit(kind, self._unit())
        return rows, ClassVectors(rows(self._unit()), self.settings.relative)


class Features:
    """Features under one preparation: ``left(gamma)`` is (X'X + gamma I)^-1 X'Y, ``(C, N seen)``."""

    def __init__(
        self, kind: str, x: Tensor, labels: Tensor, y: Tensor, relative: bool, channels: int | Sequence[int] = 0
    ) -> None:
        self.preparation = new_preparation(channels)
        self.preparation.fit(kind, x, labels)
        prepared = self.preparation(x)
        self._gram, self._target = prepared.T @ prepared, prepared.T @ y
        self._step = centred_level(prepared, prepared.shape[1]) if relative else 1.0

    def left(self, gamma: float) -> Tensor:
        """``(C, N seen)`` for one gamma."""
        damped = self._gram.clone()
        damped.diagonal().add_(gamma * self._step)
        return torch.cholesky_solve(self._target, torch.linalg.cholesky(damped))


class ClassVectors:
    """Prepared class vectors S ``(N seen, K)``; calling it returns S (S'S + lambda I)^-1, ``(N seen, K)``."""

    def __init__(self, s: Tensor, relative: bool) -> None:
        self._left, self._values, self._right = torch.linalg.svd(s, full_matrices=False)
        self._step = centred_level(s, len(s)) if relative else 1.0

    def __call__(self, strength: float) -> Tensor:
        """``(N seen, K)`` for one lambda."""
        result: Tensor = (self._left * (self._values / (self._values.square() + strength * self._step))) @ self._right
        return result


def centred_level(rows: Tensor, count: int) -> float:
    """Sum of the eigenvalues of the centered Gram matrix of some rows, divided by ``count``."""
    return max(float((rows - rows.mean(dim=0)).square().sum()) / count, 1e-12)


def one_hot(classes: ClassSpace, count: int) -> Tensor:
    """``(N, count)``: 1 where a class is the class trained on."""
    result: Tensor = F.one_hot(classes.trained + 1, count + 1)[:, 1:]
    return result


def _mean_length(weights: Tensor) -> Tensor:
    result: Tensor = weights.norm(dim=1).mean().clamp(min=1e-12)
    return result
