"""Prototypes: regress what a class looks like from its attributes, and assign images to the nearest by cosine.

With t_c the prepared attribute vector of a class, M (N seen, C) the mean prepared features of the training classes and
k a kernel, kernel ridge regression gives every class a prototype. ESZSL's solution V may share in it::

    q_c = k(t_c, T) (k(T, T) + rho m I)^-1 M            T: rows of the training classes, m: mean eigenvalue of the
                                                         centred k(T, T)
    r_c = (1 - a) q_c / |q| + a V t_c / |V t|            |.|: root mean square length over the training classes
    p_c = (1 - b s_c) r_c + b s_c M_c / |M|              s_c: 1 for a class with images, else 0
    class score  S_c = cos(g, p_c)                       g: prepared pooled feature

k is linear, or exp(-|t - t'|^2 / (w d)) with d the median squared distance between training classes. Preparations,
kernel, w, rho, the shares a and b, and ESZSL's gamma and lambda are all chosen on validation classes.

Regressing features from attributes, rather than the reverse, avoids hubs (Shigeto et al., ECML-PKDD 2015; Zhang, Xiang
and Gong, CVPR 2017). Changpinyo, Chao and Sha regress class means with support vector regression (EXEM, ICCV 2017).
With whitened features the cosine is that of linear discriminant analysis. The grid and the shares, of ESZSL and of a
seen class's own images (:mod:`unseen.methods.own`), are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import SWEEP_BLOCK, Branch, Candidate, Card, ClosedFormMethod, SweepPart, finite
from unseen.methods.class_space import ClassSpace
from unseen.methods.eszsl import ClassVectors, Solutions, one_hot
from unseen.methods.joint import JointSettings, total
from unseen.methods.own import present_rows
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import FeaturePreparation, FittedBuffers, RowPreparation
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, check_choice

KERNELS = ("linear", "rbf")
RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Rho, in mean eigenvalues of the centered kernel matrix."""
WIDTHS = (4.0, 2.0, 1.0)
"""w of the RBF kernel, in median squared distances."""
SHARES = (0.25, 0.5)
"""Share a of ESZSL, other than 0."""
GAMMAS, LAMBDAS = (10.0, 10**0.5), (0.3,)
"""ESZSL's gamma and lambda, in mean eigenvalues of the centered Gram matrices."""
OWNS, OWNS_SHARED = (0.0, 0.25, 0.5, 0.75), (0.0, 0.5)
"""Share b of own images, without and with ESZSL."""


@dataclass(frozen=True, kw_only=True)
class PrototypesSettings(JointSettings):
    """Settings of :class:`Prototypes`.

    Args:
        features, rows, earlier: see :class:`JointSettings`.
        kernel: ``linear``, ``rbf``, or ``auto`` for both in the grid. Class scores are sums over attributes with
            ``linear`` only.
        eszsl: whether ESZSL's solution may share in the prototypes.
        own: whether a seen class's own images may share in its prototype.
    """

    kernel: str = "linear"
    eszsl: bool = True
    own: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "kernel", ("auto", *KERNELS))


@register_method
class Prototypes(PooledLinear, ClosedFormMethod):
    """See the module's docstring.

    ``weight`` ``(K, C)`` holds the rows u_k of the linear prototypes, which give the attribute scores. ``kernel`` holds
    the RBF kernel's prototypes and is empty for the linear kernel.
    """

    name = "prototypes"
    card = Card(
        title="Prototypes by kernel ridge regression, with a share of ESZSL",
        paper="after Shigeto et al. (ECML-PKDD 2015), Changpinyo et al. (ICCV 2017) and ESZSL (ICML 2015)",
        exact="-",
        ours="the combination: class means regressed from attributes in prepared features, cosine, ESZSL's share",
    )
    settings_class = PrototypesSettings
    joins = True
    presets: ClassVar = {
        "recommended": Preset(PrototypesSettings(), None, "ours: everything chosen on validation classes"),
        "rbf": Preset(PrototypesSettings(kernel="rbf"), None, "ours: no sum over attributes"),
    }

    def __init__(
        self,
        channels: int | Sequence[int],
        vectors: Tensor,
        settings: PrototypesSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels)
        self.settings, self._channels = settings, channels
        self._kinds = settings.kinds_of(channels)
        self.register_buffer("weight", vectors.new_zeros(len(vectors), total(channels)))
        self.kernel = _RBFPrototypes()

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Store the training images; solutions are computed on demand, by preparation, in float64."""
        x = regions[:, 0].double()
        present, position = torch.unique(labels, return_inverse=True)
        y = 2 * F.one_hot(position, len(present)).double() - 1
        self._unit = classes.unit[present].double()
        self._place = present, classes.seen
        self.solutions = Solutions(x, labels, y, True, self._channels)

    def grid(self) -> list[Candidate]:
        """Every preparation, kernel and penalty, some of them with ESZSL's share; each with every own share."""
        return [
            {"features": features, "rows": rows, **kernel, **share, "own": own}
            for features, rows in product(*self._kinds)
            for kernel, share in self._solutions()
            for own in self._owns(share)
        ]

    def _owns(self, share: Candidate) -> tuple[float, ...]:
        every = OWNS_SHARED if share["share"] else OWNS
        return every if self.settings.own else every[:1]

    def _solutions(self) -> list[tuple[Candidate, Candidate]]:
        kernels = KERNELS if self.settings.kernel == "auto" else (self.settings.kernel,)
        every: list[Candidate] = []
        if "linear" in kernels:
            every += [{"kernel": "linear", "ridge": ridge} for ridge in RIDGES]
        if "rbf" in kernels:
            every += [{"kernel": "rbf", "ridge": r, "width": w} for w, r in product(WIDTHS, RIDGES)]
        shares: list[Candidate] = [{"share": 0.0}]
        if self.settings.eszsl:
            shares += [{"share": a, "gamma": g, "lambda": s} for a, g, s in product(SHARES, GAMMAS, LAMBDAS)]
        return list(product(every, shares))

    def use(self, candidate: Candidate) -> None:
        """Solve for one candidate."""
        solved, rows = self.solutions(candidate["features"]), _Rows(candidate["rows"], self._unit)
        self.features = solved.preparation_like(self.weight)
        self.rows.fit(candidate["rows"], self._unit.to(self.weight))
        share, dual, own = candidate["share"], rows.duals(candidate), candidate.get("own", 0.0)
        regressed = dual @ solved.means
        length = _rms(rows.kernel(candidate, rows.trained) @ regressed)
        linear = self.weight.new_zeros(self.weight.shape).double()
        if share:
            found = (solved.left(candidate["gamma"]) @ rows.right(candidate["lambda"])).T
            linear = found * (share / _rms(rows.trained @ found))
        if candidate["kernel"] == "linear":
            linear = linear + rows.trained.T @ regressed * ((1 - share) / length)
            self.kernel = _RBFPrototypes()
        else:
            kernel = self.kernel
            kernel.anchors, kernel.linear = (
                rows.trained.to(self.weight).contiguous(),
                linear.to(self.weight).contiguous(),
            )
            kernel.duals = (regressed * ((1 - share) / length)).to(self.weight).contiguous()
            kernel.width = self.weight.new_tensor(candidate["width"] * rows.median)
            plain = {"kernel": "linear", "ridge": candidate["ridge"]}
            linear = rows.trained.T @ rows.duals(plain) @ solved.means
        self.weight.copy_(linear)
        means = present_rows(solved.means / _rms(solved.means), *self._place)
        self.own.fit(own, means, solved.typical[None], self.weight)

    def settle(self) -> bool:
        """As in the base class."""
        return self.solutions.settle()

    @property
    def whitened(self) -> FeaturePreparation | None:
        """As in the base class."""
        return self.solutions.whitened

    def sweep_parts(self, regions: Tensor, classes: ClassSpace) -> Sequence[SweepPart]:
        """As in the base class, one for each preparation of features.

        All its candidates work on products of images with N seen class means.
        """
        unit = classes.unit.double()
        own = one_hot(classes, int(self._place[1].sum()))[:, self._place[1][self._place[0]].cumsum(0) - 1]
        kept = {kind: _Rows(kind, self._unit) for kind in self._kinds[1]}
        return [self._part(features, kept, own.to(unit), unit, regions) for features in self._kinds[0]]

    def _part(self, features: str, kept: dict[str, _Rows], own: Tensor, unit: Tensor, regions: Tensor) -> SweepPart:
        try:
            solved = self.solutions(features)
            lefts = {gamma: solved.left(gamma) for gamma in GAMMAS} if self.settings.eszsl else {}
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
            return
        solved.release()
        basis = torch.cat([solved.means.T, *lefts.values()], dim=1)  # every prototype is a sum of its columns
        x, inner = solved.preparation(regions[:, 0].double()) @ basis, basis.T @ basis
        means = F.pad(own / _rms(solved.means), (0, basis.shape[1] - own.shape[1]))  # M_c / |M| as sums
        for kind, rows in kept.items():
            sums = _Sums(rows, rows.preparation(unit), inner, tuple(lefts))
            solutions = self._solutions()
            size = max(1, SWEEP_BLOCK // (len(unit) * max(len(x), basis.shape[1]) * len(OWNS)))
            for start in range(0, len(solutions), size):
                mine = solutions[start : start + size]
                weights = torch.stack([sums.weights(kernel, share) for kernel, share in mine])
                places = [(i, b) for i, (_, share) in enumerate(mine) for b in self._owns(share)]
                named = [{"features": features, "rows": kind, **mine[i][0], **mine[i][1], "own": b} for i, b in places]
                mixed = _with_own(weights, places, means, inner, own.sum(dim=1))
                used = [sums.blocks(mine[i][1]) for i, _ in places]
                named, scores = finite(named, _scores(x, mixed, used, own.shape[1]))
                if named:
                    yield named, scores.to(regions).transpose(1, 2)

    @property
    def by_attributes(self) -> bool:
        """Whether the kernel is linear."""
        return not len(self.kernel.anchors)

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)``: t_c without the own share, divided by the length of the prototype."""
        if not self.by_attributes:
            result: Tensor = self.rows(classes.unit)
            return result
        return self.of_unit_prototypes(classes)[0]

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """As in the base class; with the RBF kernel ``(B, C)`` g."""
        embedding = branches["linear"].embedding
        assert embedding is not None
        return super().query(branches) if self.by_attributes else embedding

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors, or ``(N, K + C)`` with own images; with the RBF kernel ``(N, C)`` prototypes."""
        if not self.by_attributes:
            prototypes: Tensor = self.kernel(self.rows(classes.unit))
            if len(self.own):
                prototypes = prototypes * self.own.left(classes) + self.own.of(classes)
            return F.normalize(prototypes, dim=1)
        vectors, own = self.of_unit_prototypes(classes)
        return vectors if own is None else torch.cat([vectors, own], dim=1)


class _RBFPrototypes(FittedBuffers):
    """Prototypes of the RBF kernel, plus a linear part.

    Buffers: ``anchors`` ``(N seen, K)``, ``duals`` ``(N seen, C)``, ``linear`` ``(K, C)``, ``width`` ``()``.
    """

    anchors: Tensor
    duals: Tensor
    linear: Tensor
    width: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("anchors", "duals", "linear"):
            self.register_buffer(name, torch.zeros(0, 0))
        self.register_buffer("width", torch.ones(()))

    def forward(self, rows: Tensor) -> Tensor:
        """Prepared class vectors ``(N, K)`` to prototypes ``(N, C)``."""
        return _rbf(rows, self.anchors, self.width) @ self.duals + rows @ self.linear


class _Rows:
    """Class vectors under one preparation, ``trained`` ``(N seen, K)``, and the systems solved with them."""

    def __init__(self, kind: str, unit: Tensor) -> None:
        self.preparation = RowPreparation()
        self.preparation.fit(kind, unit)
        self.trained = self.preparation(unit)
        self.right = ClassVectors(self.trained, relative=True)
        distances = torch.cdist(self.trained, self.trained).square()
        apart = distances[~torch.eye(len(distances), dtype=torch.bool, device=distances.device)]
        self.median = float(apart.median()) if len(apart) else 1.0
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def kernel(self, candidate: Candidate, rows: Tensor) -> Tensor:
        """``(N, N seen)`` kernel between some rows and the trained ones."""
        if candidate["kernel"] == "linear":
            result: Tensor = rows @ self.trained.T
            return result
        return _rbf(rows, self.trained, rows.new_tensor(candidate["width"] * self.median))

    def duals(self, candidate: Candidate) -> Tensor:
        """``(N seen, N seen)``: (k(T, T) + rho m I)^-1."""
        key = tuple(candidate.get(name) for name in ("kernel", "width", "ridge"))
        if key not in self._kept:
            gram = self.kernel(candidate, self.trained)
            level = (gram.trace() - gram.sum() / len(gram)) / len(gram)
            penalty = candidate["ridge"] * level.clamp(min=1e-12)
            self._kept[key] = torch.linalg.inv(gram + penalty * torch.eye(len(gram), dtype=gram.dtype).to(gram))
        return self._kept[key]

    def weights(self, candidate: Candidate, rows: Tensor) -> Tensor:
        """``(N, N seen)`` regression of some rows, as weights of the class means."""
        return self.kernel(candidate, rows) @ self.duals(candidate)


class _Sums:
    """Prototypes of a table's classes as weights of basis vectors: class means, then ESZSL's answers for each gamma."""

    def __init__(self, rows: _Rows, table: Tensor, inner: Tensor, gammas: tuple[float, ...]) -> None:
        self._rows, self._table, self._inner, self._gammas = rows, table, inner, gammas
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def weights(self, kernel: Candidate, share: Candidate) -> Tensor:
        """``(N, basis)`` of (1 - a) q / |q| + a V t / |V t|."""
        key, rows, a = tuple(kernel.values()), self._rows, share["share"]
        if key not in self._kept:
            self._keep(key, 0, rows.weights(kernel, self._table), rows.weights(kernel, rows.trained))
        if not a:
            return self._kept[key]
        other = ("eszsl", share["gamma"], share["lambda"])
        if other not in self._kept:
            right = rows.right(share["lambda"]).T
            block = 1 + self._gammas.index(share["gamma"])
            self._keep(other, block, self._table @ right, rows.trained @ right)
        mixed: Tensor = (1 - a) * self._kept[key] + a * self._kept[other]
        return mixed

    def blocks(self, share: Candidate) -> tuple[int, ...]:
        """The blocks of the basis that the prototypes of a share are made of: class means, and answers for a gamma."""
        return (0, 1 + self._gammas.index(share["gamma"])) if share["share"] else (0,)

    def _keep(self, key: tuple[object, ...], block: int, table: Tensor, trained: Tensor) -> None:
        """Divide by the root mean square length of the training classes' results."""
        n = trained.shape[1]
        mine = self._inner[block * n : (block + 1) * n, block * n : (block + 1) * n]
        scaled = table / (trained @ mine * trained).sum(dim=1).mean().clamp(min=1e-24).sqrt()
        self._kept[key] = F.pad(scaled, (block * n, (len(self._gammas) - block) * n))


def _scores(answers: Tensor, weights: Tensor, used: Sequence[tuple[int, ...]], size: int) -> Tensor:
    """``(n, N, M)`` products of weights ``(n, N, basis)`` and answers ``(M, basis)``, on the blocks that are not 0.

    Args:
        answers, weights: factors.
        used: for each of n weights, the blocks of ``size`` columns that are not 0.
        size: columns of a block.
    """
    found = weights.new_empty(*weights.shape[:2], len(answers))
    for blocks in dict.fromkeys(used):
        mine = torch.tensor([i for i, own in enumerate(used) if own == blocks], device=weights.device)
        columns = torch.cat([torch.arange(b * size, (b + 1) * size, device=weights.device) for b in blocks])
        part = weights[mine][:, :, columns]
        found[mine] = (part.flatten(0, 1) @ answers[:, columns].T).unflatten(0, part.shape[:2])
    return found


def _with_own(
    weights: Tensor, places: list[tuple[int, float]], means: Tensor, inner: Tensor, present: Tensor
) -> Tensor:
    """``(n, N, basis)`` prototypes with own shares, as weights of basis vectors, divided by their lengths.

    Args:
        weights: ``(s, N, basis)`` prototypes without own shares.
        places: position in ``weights`` and own share b of each of n candidates.
        means: ``(N, basis)`` own prototypes.
        inner: ``(basis, basis)`` inner products of the basis vectors.
        present: ``(N,)`` 1 for a class with images, else 0.
    """
    index = torch.tensor([i for i, _ in places], device=weights.device)
    b = weights.new_tensor([b for _, b in places])[:, None]
    turned, left = means @ inner, 1 - b * present
    squares, mixed, owns = (
        ((weights @ inner) * weights).sum(dim=2),
        (turned * weights).sum(dim=2),
        (turned * means).sum(1),
    )
    lengths = (left.square() * squares[index] + 2 * b * left * mixed[index] + b * b * owns).clamp(min=0).sqrt()
    lengths = lengths.clamp(min=1e-12)
    result: Tensor = weights[index] * (left / lengths)[:, :, None] + means * (b / lengths)[:, :, None]
    return result


def _rbf(rows: Tensor, anchors: Tensor, width: Tensor) -> Tensor:
    squares = rows.square().sum(dim=1)[:, None] + anchors.square().sum(dim=1) - 2 * rows @ anchors.T
    return (-squares.clamp(min=0) / width.clamp(min=1e-12)).exp()


def _rms(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
