"""Bilinear compatibility learned by ranking: ALE, DeViSE and SJE.

f(x, c) = x' W z_c with x the pooled feature and z_c the unit attribute vector. For an image of class y, every wrong
seen class c costs a hinge h_c = max(0, margin + f(x, c) - f(x, y)). The methods differ in how they combine the hinges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.base import Branch, Card
from unseen.methods.class_space import ClassSpace
from unseen.methods.preparation import PreparedSettings
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, Recipe
from unseen.methods.trained_linear import TrainedLinear


def hinges(scores: Tensor, labels: Tensor, margin: float) -> Tensor:
    """``(B, N)`` max(0, margin + s_c - s_y) for every wrong class, 0 for the right one, from scores ``(B, N)``."""
    own = scores.gather(1, labels[:, None])
    right = F.one_hot(labels, scores.shape[1]).bool()
    return F.relu(margin + scores - own).masked_fill(right, 0)


def weighted_rank_loss(violations: Tensor) -> Tensor:
    """ALE: mean over images of (1 + 1/2 + ... + 1/r) / r * sum_c h_c, with r the number of classes with h_c > 0.

    The weight counts as a constant in the gradient; the loss jumps where r changes.

    Args:
        violations: ``(B, N)`` hinges.
    """
    rank = (violations > 0).sum(dim=1)
    counts = torch.arange(1, violations.shape[1] + 1, device=violations.device, dtype=violations.dtype)
    weights = counts.reciprocal().cumsum(0) / counts
    return (weights[(rank - 1).clamp(min=0)] * violations.sum(dim=1)).mean()


def summed_loss(violations: Tensor) -> Tensor:
    """DeViSE: mean over images of sum_c h_c, from hinges ``(B, N)``."""
    return violations.sum(dim=1).mean()


def largest_loss(violations: Tensor) -> Tensor:
    """SJE: mean over images of max_c h_c, from hinges ``(B, N)``; tied classes share the gradient."""
    return violations.amax(dim=1).mean()


@dataclass(frozen=True, kw_only=True)
class CompatibilitySettings(PreparedSettings):
    """Settings of :class:`Compatibility`.

    Args:
        features, rows: see :class:`PreparedSettings`; ``auto`` chooses them on left-out training classes.
        margin: required lead of the right class's score.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin <= 0:
            raise UnseenError(f"margin is {self.margin}", hint="use more than 0")


def _preset(margin: float) -> dict[str, Preset]:
    """Scale the learning rate with the margin: AdamW's path from 0 then differs only in the scale of W."""
    recipe = Recipe(epochs=30, batch_size=50, optimizer="adamw", lr=margin / 100, weight_decay=1e-4)
    source = "paper's margin; recipe ours, chosen on validation classes of fieldguide and of 50 classes of CUB"
    unit = CompatibilitySettings(margin=margin, features="unit", rows="unit")
    prepared = "ours: preparations chosen on left-out training classes"
    return {
        "default": Preset(unit, recipe, source),
        "recommended": Preset(CompatibilitySettings(margin=margin), recipe, prepared),
    }


class Compatibility(TrainedLinear):
    """Base class of the three; see the module's docstring. ``weight`` is W' ``(K, C)`` and starts at 0."""

    settings_class = CompatibilitySettings

    def __init__(
        self, channels: int, vectors: Tensor, settings: CompatibilitySettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(vectors.new_zeros(len(vectors), channels))

    @staticmethod
    def rank_loss(violations: Tensor) -> Tensor:
        """The method's loss from the hinges ``(B, N seen)``."""
        raise NotImplementedError

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """The rank loss over the seen classes."""
        scores = self.fused_attribute_scores(branches) @ self.class_vectors(classes)[classes.seen].T
        position = torch.cumsum(classes.seen, 0) - 1
        return {"total": self.rank_loss(hinges(scores, position[labels], self.settings.margin))}


@register_method
class ALE(Compatibility):
    """Attribute label embedding."""

    name = "ale"
    card = Card(
        title="ALE: attribute label embedding",
        paper="Akata, Perronnin, Harchaoui and Schmid, CVPR 2013; TPAMI 2016 (arXiv 1503.08677)",
        exact="the weighted approximate ranking loss with the rank counted over all seen classes, checked against its "
        "formula in loops",
        ours="no sampling of wrong classes (the authors estimate the rank by it); features are mean-pooled regions of "
        "unit length; start at 0, optimizer and recipe",
    )
    presets: ClassVar = _preset(1.0)
    rank_loss = staticmethod(weighted_rank_loss)


@register_method
class DeViSE(Compatibility):
    """Deep visual-semantic embedding, with attributes."""

    name = "devise"
    card = Card(
        title="DeViSE: deep visual-semantic embedding",
        paper="Frome et al., NeurIPS 2013",
        exact="the hinge rank loss summed over all wrong seen classes, with margin 0.1, checked against its formula in "
        "loops",
        ours="classes are embedded by their attributes instead of word vectors of their names; the network stays "
        "frozen; features are mean-pooled regions of unit length; start at 0, optimizer and recipe",
    )
    presets: ClassVar = _preset(0.1)
    rank_loss = staticmethod(summed_loss)


@register_method
class SJE(Compatibility):
    """Structured joint embedding, with attributes alone."""

    name = "sje"
    card = Card(
        title="SJE: structured joint embedding",
        paper="Akata, Reed, Walter, Lee and Schiele, CVPR 2015 (arXiv 1409.8403)",
        exact="the largest margin violation among the seen classes, checked against its formula in loops",
        ours="one output embedding, the attributes; mini-batches; features are mean-pooled regions of unit length; "
        "start at 0, optimizer and recipe",
    )
    presets: ClassVar = _preset(1.0)
    rank_loss = staticmethod(largest_loss)
