"""Class scores in feature space, from a closed-form start: the head of MSDN's recipe `recommended`. Ours.

With f_r a unit region, mu and sigma the mean and deviation of every channel of the mean-pooled regions over training
images, and z_c the unit attribute vector of a class::

    g_r = (f_r - mu) / (sigma rho)                 rho: mean length of (mean over r of f_r - mu) / sigma
    t_c = unit(z_c - mean of z over the training classes)
    prototype        p_c = sum over k of t_ck u_k                   what the class should look like
    attribute score  psi_k = tau / l  sum over r of A_kr <u_k, g_r>   A: attention, l: mean |p_c| at the start
    class score      S_c = <psi, t_c> l / |p_c|                     with uniform A: tau cos(g, p_c) |g|

The rows u_k start as the ridge regression of the training classes' mean features on their t_c. Classifying in feature
space instead of attribute space counteracts hubs, as in deep embedding models and ridge regression from attributes to
features (Shigeto et al., ECML-PKDD 2015; Zhang et al., CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.methods.class_space import ClassSpace

RIDGES = tuple(10 ** (exponent / 2) for exponent in range(-5, 3))
"""Candidates for the weight of the ridge penalty."""
FOLDS, DRAWS = 3, 3
LEAST_DEVIATION = 1e-6


class PrototypeHead(nn.Module):
    """See the module's docstring.

    ``rows`` u_k ``(K, C)`` are trained; ``mean`` mu, ``scale`` sigma rho ``(C,)``, ``centre`` ``(K,)`` (mean class
    vector) and ``length`` l are fixed by :meth:`fit`; l only scales attribute scores and class vectors to readable
    values.

    Args:
        channels: C.
        vectors: ``(K, D)``; provide K, dtype and device.
        tau: scale of the class scores.
        nonnegative: first set negative entries of class vectors to 0.
    """

    mean: Tensor
    scale: Tensor
    centre: Tensor
    length: Tensor

    def __init__(self, channels: int, vectors: Tensor, tau: float, nonnegative: bool = False) -> None:
        super().__init__()
        self.tau = tau
        self.nonnegative = nonnegative
        self.rows = nn.Parameter(vectors.new_zeros(len(vectors), channels))
        self.register_buffer("mean", vectors.new_zeros(channels))
        self.register_buffer("scale", vectors.new_ones(channels))
        self.register_buffer("centre", vectors.new_zeros(len(vectors)))
        self.register_buffer("length", vectors.new_ones(()))

    def affine(self, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weight ``(K, C)`` and bias ``(K,)`` that map a unit region f_r to ``tau / l <u_k, g_r>``.

        Args:
            order: permutation ``(C,)`` of the channels of g_r.
        """
        rows = self.rows if order is None else self.rows[:, order.argsort()]
        weight = rows * (self.tau / self.length) / self.scale
        return weight, -weight @ self.mean

    def centred(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` the t_c."""
        return F.normalize(self._unit(classes) - self.centre, dim=1)

    def _unit(self, classes: ClassSpace) -> Tensor:
        return classes.unit_nonnegative if self.nonnegative else classes.unit

    def class_vectors(self, classes: ClassSpace, kept: Tensor | None = None) -> Tensor:
        """``(N, K)``: ``l t_c / |p_c|``, without the attributes for which ``kept`` ``(K,)`` is 0."""
        t = self.centred(classes) if kept is None else self.centred(classes) * kept
        result: Tensor = t * (self.length / (t @ self.rows).norm(dim=1, keepdim=True).clamp(min=1e-12))
        return result

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> float:
        """Compute the closed-form start from all training images, in float64.

        Args:
            batches: unit regions ``(B, R, C)`` and labels ``(B,)``.
            classes: classes of the stage.

        Returns:
            The ridge penalty that :func:`choose_ridge` chose.
        """
        pooled, labels = (torch.cat(parts) for parts in zip(*((r.mean(dim=1), y) for r, y in batches), strict=True))
        x, present = pooled.double(), torch.unique(labels)
        self.mean.copy_(x.mean(dim=0))
        deviation = x.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION)
        standard = (x - x.mean(dim=0)) / deviation
        self.scale.copy_(deviation * standard.norm(dim=1).mean())
        self.centre.copy_(self._unit(classes)[present].mean(dim=0))
        t = self.centred(classes).double()[present]
        features, position = F.normalize(standard, dim=1), torch.searchsorted(present, labels)
        means = class_means(features, position, len(present))
        penalty = choose_ridge(t, means, features, position)
        rows = t.T @ ridge(t, means, penalty)
        self.rows.copy_(rows)
        self.length.copy_((t @ rows).norm(dim=1).mean())
        return penalty


def class_means(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """``(count, C)`` mean of the features ``(n, C)`` of each class."""
    members = F.one_hot(labels, count).to(features.dtype)
    return members.T @ features / members.sum(dim=0)[:, None]


def ridge(attributes: Tensor, means: Tensor, penalty: float) -> Tensor:
    """``(n, C)`` dual weights B; ``attributes.T @ B`` is the ridge regression of ``means`` on attributes."""
    gram = attributes @ attributes.T
    ridge = penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    result: Tensor = torch.linalg.solve(gram + ridge, means)
    return result


def choose_ridge(attributes: Tensor, means: Tensor, features: Tensor, labels: Tensor) -> float:
    """Choose the penalty that recognizes left-out training classes best, in 3 times 3 folds of classes.

    The prototype of every left-out class is regressed from the other classes, and its images are classified among the
    left-out classes by cosine. Uses no image or class outside the training data.

    Args:
        attributes: ``(n, K)`` of the training classes.
        means: ``(n, C)`` their mean features.
        features: ``(m, C)`` unit features of training images.
        labels: ``(m,)`` positions among the n classes.

    Returns:
        The value of :data:`RIDGES` with the best mean per-class accuracy; the largest in a tie.
    """
    count = len(attributes)
    accuracy = torch.zeros(len(RIDGES), dtype=torch.float64)
    for draw in range(DRAWS):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(draw)).to(attributes.device)
        for fold in range(min(FOLDS, count)):
            held = torch.zeros(count, dtype=torch.bool, device=attributes.device)
            held[order[fold :: min(FOLDS, count)]] = True
            if held.all():
                continue
            mine = held[labels]
            target = (torch.cumsum(held, 0) - 1)[labels[mine]]
            for i, penalty in enumerate(RIDGES):
                prototypes = attributes[held] @ attributes[~held].T @ ridge(attributes[~held], means[~held], penalty)
                right = (features[mine] @ F.normalize(prototypes, dim=1).T).argmax(dim=1) == target
                accuracy[i] += class_means(right.double()[:, None], target, int(held.sum())).mean().cpu()
    best = torch.nonzero(accuracy >= accuracy.max() - 1e-12).flatten()
    return RIDGES[int(best[-1])]
