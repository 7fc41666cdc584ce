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

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.ground.systems import gram, solved
from unseen.methods.base import Candidate, Card, ClosedFormMethod, SweepPart, solution_blocks
from unseen.methods.class_space import ClassSpace
from unseen.methods.joint import JointPreparation, JointSettings, new_preparation, total
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import FeaturePreparation, RowPreparation
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset

PAPER = tuple(10.0**e for e in range(-3, 4))
"""Gamma and lambda in the paper."""
GAMMAS = tuple(10.0 ** (e / 2) for e in (4, 3, 2, 1, 0, -1, -2))
LAMBDAS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Our grid, in mean eigenvalues of the centered Gram matrices."""
SHARES = (0.0, 0.5)
"""Shares of a seen class's own images."""
SMALL = 1 << 25
"""Bytes of solutions that may be kept for later."""


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
        x, position = regions[:, 0].double(), torch.cumsum(classes.seen, 0) - 1
        y = 2 * F.one_hot(position[labels], int(classes.seen.sum())).double() - 1
        self._training = classes
        self.solutions = Solutions(x, labels, y, self.settings.relative, self._channels)

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
        features, (rows, right) = self.solutions(candidate["features"]), self._by_rows(candidate["rows"])
        left, weights, share = features.left(candidate["gamma"]), right(candidate["lambda"]), candidate.get("own", 0.0)
        self.features = features.preparation_like(self.weight)
        self.rows.fit(candidate["rows"], self._unit().to(self.weight))
        length = _mean_length(rows(self._unit()) @ weights.T) if share else 1.0
        self.weight.copy_((left @ weights).T / length)
        self.own.fit(share, left.T, features.typical[None], self.weight)

    def settle(self) -> bool:
        """As in the base class."""
        return self.solutions.settle()

    @property
    def whitened(self) -> FeaturePreparation | None:
        """As in the base class."""
        return self.solutions.whitened

    def sweep_parts(self, regions: Tensor, classes: ClassSpace) -> Sequence[SweepPart]:
        """As in the base class, one for each preparation: a factorization per gamma, and one product for all else."""
        ends = self._ends(classes)
        return [self._part(kind, *ends, regions) for kind in self._kinds[0]]

    def _part(self, kind: str, ends: list[Candidate], sums: Tensor, regions: Tensor) -> SweepPart:
        try:
            features = self.solutions(kind)
            lefts = {gamma: features.left(gamma) for gamma in self._gammas}
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
            return
        features.release()
        x = features.preparation(regions[:, 0].double())
        for gamma, left in lefts.items():
            candidates = [{"features": kind, "gamma": gamma, **end} for end in ends]
            yield from solution_blocks(candidates, x @ left, sums, regions)

    def _ends(self, classes: ClassSpace) -> tuple[list[Candidate], Tensor]:
        """What a candidate has beside features and gamma, and for each ``(N, N seen)`` weights of the answers."""
        unit, ends, sums = classes.unit.double(), [], []
        own = one_hot(classes, int(self._training.seen.sum())).to(unit)
        for kind in self._kinds[1]:
            rows, right = self._by_rows(kind)
            table, trained = rows(unit), rows(self._unit())
            for strength in self._lambdas:
                weights = right(strength).T
                for share in self._shares:
                    found = table @ weights
                    if share.get("own"):
                        found = found / _mean_length(trained @ weights) * (1 - share["own"] * own.sum(dim=1))[:, None]
                        found = found + share["own"] * own
                    ends.append({"rows": kind, "lambda": strength, **share})
                    sums.append(found)
        return ends, torch.stack(sums)

    def _unit(self) -> Tensor:
        """Unit vectors of the classes trained on."""
        return self._training.unit[self._training.seen].double()

    def _by_rows(self, kind: str) -> tuple[RowPreparation, ClassVectors]:
        rows = RowPreparation()
        rows.fit(kind, self._unit())
        return rows, ClassVectors(rows(self._unit()), self.settings.relative)


class Solutions:
    """:class:`Features` of training images by preparation.

    Args:
        x, labels, y, relative, channels: see :class:`Features`.
    """

    def __init__(self, x: Tensor, labels: Tensor, y: Tensor, relative: bool, channels: int | Sequence[int]) -> None:
        self._made = x, labels, y, relative, channels
        self._kept: dict[str, Features] = {}

    def equals(self, other: Solutions) -> bool:
        """Whether the other's solutions are the same."""
        (x, labels, y, *rest), (x2, labels2, y2, *rest2) = self._made, other._made
        return rest == rest2 and all(map(torch.equal, (x, labels, y), (x2, labels2, y2)))

    def __call__(self, kind: str) -> Features:
        """Solutions for one preparation."""
        if kind not in self._kept:
            self._kept[kind] = Features(kind, *self._made)
        return self._kept[kind]

    def settle(self) -> bool:
        """Free the training images; whether what is left is small (:data:`SMALL`)."""
        x, labels, y, relative, channels = self._made
        self._made = x[:0].clone(), labels, y, relative, channels
        return sum(features.settle() for features in self._kept.values()) <= SMALL

    @property
    def whitened(self) -> FeaturePreparation | None:
        """The preparation ``whitened``, if it was asked for and the features are of one map."""
        found = self._kept["whitened"].preparation if "whitened" in self._kept else None
        return found if isinstance(found, FeaturePreparation) else None


class Features:
    """Features under one preparation: ``left(gamma)`` is (X'X + gamma I)^-1 X'Y, ``(C, N seen)``.

    With fewer images than channels this is X'(XX' + gamma I)^-1 Y, the smaller system.

    Attributes:
        preparation: fitted, in float64.
        typical: ``(C,)`` mean prepared feature.
        means: ``(N seen, C)`` means of the classes; 0 for a class without images.

    Args:
        kind: the preparation.
        x: ``(n, C)`` pooled features, float64.
        labels: ``(n,)``.
        y: ``(n, N seen)``: 1 for an image's class, else -1.
        relative: whether gamma counts in mean eigenvalues.
        channels: of each map.
    """

    def __init__(
        self, kind: str, x: Tensor, labels: Tensor, y: Tensor, relative: bool, channels: int | Sequence[int] = 0
    ) -> None:
        self.preparation = new_preparation(channels)
        self.preparation.fit(kind, x, labels)
        self._x, self._y = x, y
        prepared = self._prepared = self.preparation(x)
        self._gram: Tensor | None = None
        self._target, total = prepared.T @ y, prepared.sum(dim=0)
        self.typical = total / len(x)
        self.means = (self._target.T + total) / (1 + y).sum(dim=0).clamp(min=1)[:, None]
        self._step = centred_level(prepared, prepared.shape[1]) if relative else 1.0
        self._lefts: dict[float, Tensor] = {}

    def left(self, gamma: float) -> Tensor:
        """``(C, N seen)`` for one gamma."""
        if gamma not in self._lefts:
            x = self.preparation(self._x) if self._prepared is None else self._prepared
            self._prepared, dual = x, len(x) < x.shape[1]
            self._gram = gram(x.T if dual else x) if self._gram is None else self._gram
            found = solved(self._gram, gamma * self._step, self._y if dual else self._target)
            self._lefts[gamma] = (found.T @ x).T.contiguous() if dual else found
        return self._lefts[gamma]

    def release(self) -> None:
        """Free what only further gammas need; it is computed again if one is asked for."""
        self._gram = self._prepared = None

    def settle(self) -> int:
        """Free the training images: no further gamma can be asked for. Returns the bytes of what is left."""
        self.release()
        self._x = self._y = self._x[:0].clone()
        # copied, since a thread's own heap keeps the memory of all that it allocated before what stays
        self.preparation, self._lefts = deepcopy((self.preparation, self._lefts))
        self._target, self.means, self.typical = (t.clone() for t in (self._target, self.means, self.typical))
        left = [*self.preparation.buffers(), self._target, self.means, *self._lefts.values()]
        return sum(tensor.nbytes for tensor in left)

    def preparation_like(self, like: Tensor) -> FeaturePreparation | JointPreparation:
        """A copy of the preparation with the dtype and device of a tensor."""
        return deepcopy(self.preparation).to(like)


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
