"""Baseline on global features: mean-pooled regions, one linear map to attributes, MSDN's losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.methods.base import Branch, Card
from unseen.methods.class_space import ClassSpace
from unseen.methods.losses import seen_margin, self_calibration
from unseen.methods.preparation import PreparedSettings
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, Recipe
from unseen.methods.trained_linear import TrainedLinear


@dataclass(frozen=True, kw_only=True)
class GlobalSettings(PreparedSettings):
    """Settings of :class:`GlobalLinear`.

    Args:
        features, rows: see :class:`PreparedSettings`; ``auto`` chooses them on left-out training classes.
        lambda_cal: weight of the self-calibration loss.
        margin: seen/unseen offset, as in MSDN.
    """

    lambda_cal: float = 0.1
    margin: float = 1.0


@register_method
class GlobalLinear(TrainedLinear):
    """psi = W f with f the mean-pooled unit feature; class score <psi, z_c> + b_c."""

    name = "global"
    card = Card(
        title="Global features, one linear map",
        paper="baseline row of MSDN's ablation (CVPR 2022)",
        exact="-",
        ours="all of it: the paper gives no settings; losses and recipe are MSDN's without distillation",
    )
    settings_class = GlobalSettings
    presets: ClassVar = {
        "default": Preset(
            GlobalSettings(features="unit", rows="unit"),
            Recipe(lr=1e-3),
            "ours: MSDN's recipe with ten times its learning rate",
        ),
        "recommended": Preset(
            GlobalSettings(), Recipe(lr=1e-3), "ours: preparations chosen on left-out training classes"
        ),
    }

    def __init__(
        self, channels: int, vectors: Tensor, settings: GlobalSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(torch.zeros(len(vectors), channels, dtype=vectors.dtype, device=vectors.device))

    @property
    def static_step(self) -> bool:
        """Always true."""
        return True

    def class_offsets(self, classes: ClassSpace) -> Tensor:
        """``(N,)`` margin."""
        return seen_margin(self.settings.margin, classes)

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy over all classes plus self-calibration."""
        scores = self.fused_attribute_scores(branches) @ self.class_vectors(classes).T
        terms = {"cross_entropy": F.cross_entropy(scores, labels)}
        total = terms["cross_entropy"]
        if self.settings.lambda_cal and len(classes.unseen_indices):
            terms["self_calibration"] = self_calibration(scores + self.class_offsets(classes), classes.unseen_indices)
            total = total + self.settings.lambda_cal * terms["self_calibration"]
        return {"total": total, **terms}
