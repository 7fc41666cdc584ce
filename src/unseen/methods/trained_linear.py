"""Linear methods on prepared features, trained by gradients; preparations are chosen before the first step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.eszsl import GAMMAS, LAMBDAS, ClassVectors, Features
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import PreparedSettings, RowPreparation

FOLDS = 3


class TrainedLinear(PooledLinear, GradientMethod):
    """A :class:`PooledLinear` trained by gradients; its settings are :class:`PreparedSettings`."""

    @torch.no_grad()
    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Fit the preparations: those of the settings, or :func:`best_preparation`."""
        regions, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        x = regions[:, 0].to(self.weight.dtype)
        features, rows = best_preparation(self.settings, x, labels, classes.unit)
        self.features.fit(features, x, labels)
        self.rows.fit(rows, classes.unit[torch.unique(labels)])


@torch.no_grad()
def best_preparation(settings: PreparedSettings, x: Tensor, labels: Tensor, unit: Tensor) -> tuple[str, str]:
    """Choose the preparations with which ESZSL recognizes left-out training classes best.

    Each of :data:`FOLDS` parts of the training classes is left out in turn, and its images are classified among its
    classes. Uses no images or classes outside the training data.

    Args:
        settings: the preparations to choose from.
        x: ``(n, C)`` pooled unit features of the training images.
        labels: ``(n,)`` class labels.
        unit: ``(N, K)`` unit vectors of all classes.

    Returns:
        Names of the preparations of features and of class vectors; the first in a tie.
    """
    every_features, every_rows = settings.kinds
    if len(every_features) == len(every_rows) == 1:
        return every_features[0], every_rows[0]
    x, unit = x.double(), unit.double()
    present, position = torch.unique(labels, return_inverse=True)
    order = torch.randperm(len(present), generator=torch.Generator().manual_seed(0)).to(labels.device)
    folds = min(FOLDS, len(present) // 2)
    total: dict[tuple[str, str], dict[tuple[float, float], float]] = {}
    for fold in range(folds):
        held = torch.zeros(len(present), dtype=torch.bool, device=labels.device)
        held[order[fold::folds]] = True
        mine = held[position]
        target = (torch.cumsum(held, 0) - 1)[position[mine]]
        members = F.one_hot(target).double()
        y = 2 * F.one_hot((torch.cumsum(~held, 0) - 1)[position[~mine]]).double() - 1
        sums = {rows: _answers_to_classes(rows, unit[present[~held]], unit[present[held]]) for rows in every_rows}
        for features in every_features:
            solved = Features(features, x[~mine], labels[~mine], y, relative=True)
            held_out = solved.preparation(x[mine])
            for gamma in GAMMAS[::2]:
                answers = held_out @ solved.left(gamma)
                for rows in every_rows:
                    for strength, weights in zip(LAMBDAS, sums[rows], strict=True):
                        named = (answers @ weights).argmax(dim=1) == target
                        accuracy = float((members.T @ named.double() / members.sum(dim=0)).mean())
                        found = total.setdefault((features, rows), {})
                        found[gamma, strength] = found.get((gamma, strength), 0.0) + accuracy
    return max(total, key=lambda kinds: max(total[kinds].values())) if total else (every_features[0], every_rows[0])


def _answers_to_classes(rows: str, trained: Tensor, held: Tensor) -> list[Tensor]:
    """For each of :data:`LAMBDAS` the weights ``(n, H)`` of the answers for n training classes in H class scores."""
    preparation = RowPreparation()
    preparation.fit(rows, trained)
    right, table = ClassVectors(preparation(trained), relative=True), preparation(held)
    return [right(strength) @ table.T for strength in LAMBDAS]
