"""Preparation of features and class vectors for linear methods.

With f the mean-pooled unit feature of an image and z_c the unit attribute vector of a class::

    g(f)  = unit(((sign(f) |f|^p normalized to unit length) - mu) / sigma  L)
    t_c   = unit((z_c - m) / d)

``mu``, ``sigma``, ``L`` are statistics of the training images, ``m`` and ``d`` of the training classes:

=============== ====== ======== ========= ==========================================================================
features        p      mu       sigma     L
=============== ====== ======== ========= ==========================================================================
``unit``        1      0        1         -
``centred``     1      mean     1         -
``standardised`` 1     mean     std       -
``root``        1/2    mean     std       -        signed square root (Perronnin, Sanchez and Mensink, ECCV 2010)
``whitened``    1/2    mean     1         L L' = inverse of the within-class covariance, shrunk towards a multiple of
                                          the identity: linear discriminant analysis (Friedman, JASA 1989)
=============== ====== ======== ========= ==========================================================================

Class rows are ``unit`` (m = 0, d = 1), ``centred`` (m = mean) or ``zscored`` (m = mean, d = std). Preparations are
hyperparameters and are chosen on validation classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.ground.systems import gram, inverse_factor
from unseen.methods.settings import Settings

AUTO = "auto"
"""To choose on validation classes."""
FEATURES = ("unit", "centred", "standardised", "root", "whitened")
ROWS = ("unit", "centred", "zscored")
SHRINKAGE = 0.6
"""Weight of the identity in the within-class covariance of ``whitened``."""
LEAST_DEVIATION = 1e-6
LEAST_ROOTED = 1e-9
"""Smallest feature whose root has a gradient."""


@dataclass(frozen=True, kw_only=True)
class PreparedSettings(Settings):
    """Settings of a method with prepared inputs.

    Args:
        features: preparation of features (:data:`FEATURES`), or ``auto`` to choose it on validation classes.
        rows: preparation of class vectors (:data:`ROWS`), or ``auto``.
    """

    features: str = AUTO
    rows: str = AUTO

    def __post_init__(self) -> None:
        for name, known in (("features", FEATURES), ("rows", ROWS)):
            value = getattr(self, name)
            if value not in (AUTO, *known):
                hint = f"use one of {', '.join((AUTO, *known))}"
                raise UnseenError(f'"{value}" is not a valid preparation', where=f"setting {name}", hint=hint)

    @property
    def kinds(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Candidate preparations, of features and of class vectors."""
        return (
            FEATURES if self.features == AUTO else (self.features,),
            ROWS if self.rows == AUTO else (self.rows,),
        )


class FittedBuffers(nn.Module):
    """Buffers that are empty until fitted; they take the shapes of loaded ones."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if buffer is not None and isinstance(stored, Tensor) and stored.ndim == buffer.ndim:
                setattr(self, name, torch.zeros(stored.shape, dtype=stored.dtype, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FeaturePreparation(FittedBuffers):
    """Maps pooled features to prepared ones; see the module's docstring. Starts as ``unit``, with empty buffers.

    Buffers: ``root``, of length 1 if p is 1/2, else empty (a shape, so that a traced graph has one form); ``mean`` mu
    and ``scale`` sigma ``(C,)``, ``whitening`` L ``(C, C)``.
    """

    root: Tensor
    mean: Tensor
    scale: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("root", torch.zeros(0))
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("scale", torch.zeros(0))
        self.register_buffer("whitening", torch.zeros(0, 0))

    @torch.no_grad()
    def fit(self, kind: str, features: Tensor, labels: Tensor) -> None:
        """Fit the statistics to training images; computes in float64.

        Args:
            kind: one of :data:`FEATURES`.
            features: ``(n, C)`` pooled unit features; the buffers take their dtype and device.
            labels: ``(n,)`` class labels.
        """
        rooted = kind in ("root", "whitened")
        x, like = features.double(), features
        x = _rooted(x) if rooted else x
        self.root = like.new_zeros(1 if rooted else 0)
        self.mean, self.scale, self.whitening = like.new_zeros(0), like.new_zeros(0), like.new_zeros(0, 0)
        if kind != "unit":
            self.mean = x.mean(dim=0).to(like)
        if kind in ("standardised", "root"):
            self.scale = x.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION).to(like)
        if kind == "whitened":
            self.whitening = whitening(x, labels).to(like)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C)`` pooled unit features to ``(B, C)`` prepared ones of unit length."""
        if not len(self.mean):
            return features
        return _unit(self._moved(features))

    def _moved(self, features: Tensor) -> Tensor:
        moved = (_rooted(features) if len(self.root) else features) - self.mean
        if len(self.scale):
            moved = moved / self.scale if moved.requires_grad else moved.div_(self.scale)
        return moved @ self.whitening if len(self.whitening) else moved

    def contributions(self, regions: Tensor, weight: Tensor) -> Tensor:
        """Contribution of each region to ``forward(pooled) @ weight.T``: ``(B, R, C)`` and ``(K, C)`` to ``(B, K, R)``.

        Exact: the mean is a sum, a root divides it channel by channel, and the rest is linear apart from two lengths.
        Terms that belong to no region, such as the mean over the training images, are split equally.
        """
        share = region_shares(regions)
        if not len(self.mean):
            return (share @ weight.T).transpose(1, 2)
        pooled = F.normalize(regions.mean(dim=1), dim=-1)
        if len(self.root):
            divided = pooled.abs().clamp(min=1e-12).rsqrt()
            share = share * (divided / (pooled * divided).norm(dim=-1, keepdim=True).clamp(min=1e-12))[:, None, :]
        length = self._moved(pooled).norm(dim=-1).clamp(min=1e-12)
        turned = weight @ self.whitening.T if len(self.whitening) else weight
        turned = turned / self.scale if len(self.scale) else turned
        centre = turned @ self.mean / regions.shape[1]
        result: Tensor = ((share @ turned.T).transpose(1, 2) - centre[:, None]) / length[:, None, None]
        return result


class RowPreparation(FittedBuffers):
    """Maps class vectors to prepared ones; see the module's docstring. Starts as ``unit``, with empty buffers.

    Buffers: ``centre`` m and ``spread`` d, ``(K,)``.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(0))
        self.register_buffer("spread", torch.zeros(0))

    @torch.no_grad()
    def fit(self, kind: str, rows: Tensor) -> None:
        """Fit the statistics to the training classes.

        Args:
            kind: one of :data:`ROWS`.
            rows: ``(n, K)`` unit vectors of the training classes.
        """
        z = rows.double()
        self.centre, self.spread = rows.new_zeros(0), rows.new_zeros(0)
        if kind != "unit":
            self.centre = z.mean(dim=0).to(rows)
        if kind == "zscored":
            deviation = z.std(dim=0, correction=0)
            self.spread = deviation.clamp(min=1e-3 * float(deviation.mean()) + 1e-12).to(rows)

    def forward(self, rows: Tensor) -> Tensor:
        """``(N, K)`` unit vectors to prepared ones of unit length; each row depends on its own class only."""
        if not len(self.centre):
            return rows
        moved = rows - self.centre
        return F.normalize(moved / self.spread if len(self.spread) else moved, dim=1)


def region_shares(regions: Tensor) -> Tensor:
    """``(B, R, C)`` contribution of each region to the mean-pooled unit feature, f_r / (R |mean f|)."""
    norm = regions.mean(dim=1).norm(dim=-1).clamp(min=1e-12) * regions.shape[1]
    result: Tensor = regions / norm[:, None, None]
    return result


def whitening(features: Tensor, labels: Tensor) -> Tensor:
    """``(C, C)`` upper triangular matrix that maps the shrunk within-class covariance to the identity.

    Args:
        features: ``(n, C)``, float64.
        labels: ``(n,)``.
    """
    present, position = torch.unique(labels, return_inverse=True)
    members = F.one_hot(position, len(present)).to(features)
    within = features - (members @ ((members.T @ features) / members.sum(dim=0)[:, None]))
    covariance = gram(within) / len(features)
    level = covariance.diagonal().mean().clamp(min=1e-12)
    covariance = (1 - SHRINKAGE) * covariance
    covariance.diagonal().add_(SHRINKAGE * level)
    return inverse_factor(covariance).T.contiguous()


def _rooted(features: Tensor) -> Tensor:
    """Signed square roots, scaled to unit length. The gradient, infinite at 0, leaves out the smallest features."""
    size = features.abs()
    if features.requires_grad:
        small = size < LEAST_ROOTED
        roots = torch.where(small, size.detach().sqrt(), torch.where(small, 1.0, size).sqrt())
    else:
        roots = size.sqrt_()
    return _unit(features.sign() * roots)


def _unit(rows: Tensor) -> Tensor:
    """Rows of unit length; in place where no gradient is asked for."""
    lengths = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return rows / lengths if rows.requires_grad else rows.div_(lengths)
