"""Tuned: prototypes, and the last layers of the backbone trained towards them.

The start is :mod:`unseen.methods.kernel_prototypes`, chosen on validation classes and solved on the pre-trained
backbone: a preparation g(f) of pooled features, attribute rows u_k and the means M_c of the training classes. These
stay, and the last layers train on images, so that features fit them. With t_c the prepared class vector and cos the
cosine of g with a prototype::

    described  A_c = cos(g, sum_k t_ck u_k)
    mixed      S_c = cos(g, (1 - b s_c) r_c + b s_c M_c / |M|)      r_c: described, scaled as in prototypes; s_c: seen
    loss       CE(tau S, y) + lambda_described CE(tau A, y)         over the seen classes

S is the class score. The described term keeps features on what attributes predict, since unseen classes have nothing
else. After every epoch the tested model solves its prototypes anew, on the features of the trained backbone: its means,
its covariances and its regression from attributes, with hyperparameters chosen anew. If the best epoch doesn't beat the
start on validation classes by more than one standard error, the model is the start.

Fine-tuning on the seen classes is common practice in zero-shot learning (Xian et al., f-VAEGAN-D2, CVPR 2019); closed
forms as its target and as the tested classifier are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.errors import UnseenError
from unseen.methods.base import Branch, Candidate, Card, RefitMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.joint import JointSettings, total
from unseen.methods.kernel_prototypes import Prototypes, PrototypesSettings
from unseen.methods.pooled import PooledLinear, pool
from unseen.methods.registry import register_method
from unseen.methods.settings import Ablation, EndToEndRecipe, Preset


@dataclass(frozen=True, kw_only=True)
class TunedSettings(JointSettings):
    """Settings of :class:`Tuned`.

    Args:
        features, rows, earlier: see :class:`JointSettings`.
        lambda_described: weight of the cross-entropy of prototypes described by attributes alone.
        tau: factor of the cosines in the loss.
    """

    lambda_described: float = 1.0
    tau: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau < float("inf"):
            raise UnseenError(f"{self.tau}", where="setting tau", hint="give more than 0")
        if not 0 <= self.lambda_described < float("inf"):
            raise UnseenError(f"{self.lambda_described}", where="setting lambda_described", hint="give 0 or more")


@register_method
class Tuned(PooledLinear, RefitMethod):
    """See the module's docstring. Takes one map ``(B, C, h, w)``; nothing in this module trains.

    ``weight`` ``(K, C)`` holds the u_k.
    """

    name = "tuned"
    card = Card(
        title="Tuned: prototypes on a backbone whose last layers are trained towards them",
        paper="ours, after fine-tuning as in f-VAEGAN-D2 (CVPR 2019)",
        exact="before the first step it is `prototypes`; contributions of regions add up to attribute scores",
        ours="the method: the last layers of the backbone train towards prototypes, which are then solved anew",
    )
    end_to_end = True
    start_method = Prototypes
    draws = 3
    joins = True
    drawn_stage = "-2+final"
    settings_class = TunedSettings
    presets: ClassVar = {
        "recommended": Preset(
            TunedSettings(),
            EndToEndRecipe(
                epochs=4,
                batch_size=32,
                optimizer="adamw",
                lr=3e-4,
                weight_decay=0.01,
                momentum=0.0,
                warm_up=0.1,
                average=0.98,
                layers="last",
                views=4,
            ),
            "ours; the recipe was chosen on validation classes of cub50 and flo64",
        )
    }
    ablations: ClassVar = {
        "no described term": Ablation("without the cross-entropy of described prototypes", {"lambda_described": "0"}),
        "one view": Ablation("train on whole images, without mirroring and crops", {"views": "1"}),
        "all layers": Ablation("train the whole backbone", {"layers": "all", "views": "0"}),
        "no averaging": Ablation("the last step's weights, not their moving average", {"average": "0"}),
    }
    settings: TunedSettings

    def __init__(
        self,
        channels: int | Sequence[int],
        vectors: Tensor,
        settings: TunedSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels)
        self.settings, self._channels, self._vectors = settings, channels, vectors
        self.register_buffer("weight", vectors.new_zeros(len(vectors), total(channels)))

    @staticmethod
    def start_settings(settings: TunedSettings) -> PrototypesSettings:
        """Settings of `prototypes` with these preparations."""
        return PrototypesSettings(features=settings.features, rows=settings.rows, earlier=settings.earlier)

    @torch.no_grad()
    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace, candidate: Candidate) -> None:
        """Solve the prototypes on maps ``(B, C, h, w)`` of all training images."""
        pooled, labels = (torch.cat(parts) for parts in zip(*((self.solvable(m), y) for m, y in batches), strict=True))
        settings = self.start_settings(self.settings)
        solved = Prototypes(self._channels, self._vectors.to(pooled), settings).to(pooled.device)
        solved.fit(pooled, labels, classes)
        solved.use(candidate)
        self.features, self.rows, self.own, self.weight = solved.features, solved.rows, solved.own, solved.weight
        self.solved_on = pooled

    @staticmethod
    def solvable(regions: Tensor) -> Tensor:
        """``(B, 1, C)`` pooled features of maps ``(B, C, h, w)``."""
        return pool(_regions(regions))

    def forward(self, maps: Tensor) -> dict[str, Branch]:
        """One map ``(B, C, h, w)`` to attribute scores and prepared features."""
        return self.of_solvable(self.solvable(maps))

    def of_solvable(self, features: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores and prepared features."""
        return super().forward(features)

    def maps(self, maps: Tensor) -> dict[str, Branch]:
        """Contributions of every position of a map ``(B, C, h, w)``."""
        return super().maps(_regions(maps))

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` t_c without the own share, divided by the length of the prototype."""
        return self.of_unit_prototypes(classes)[0]

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors, or ``(N, K + C)`` with own images."""
        vectors, own = self.of_unit_prototypes(classes)
        return vectors if own is None else torch.cat([vectors, own], dim=1)

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy of the class scores and of described prototypes, over the seen classes."""

        def cross_entropy(scores: Tensor) -> Tensor:
            return F.cross_entropy((self.settings.tau * scores).masked_fill(~classes.seen, float("-inf")), labels)

        terms = {"cross_entropy": cross_entropy(self.class_scores(branches, classes))}
        if self.settings.lambda_described:
            t: Tensor = self.rows(classes.unit)
            described = (
                self.fused_attribute_scores(branches)
                @ (t / (t @ self.weight).norm(dim=1, keepdim=True).clamp(min=1e-12)).T
            )
            terms["described"] = cross_entropy(described)
        return {"total": terms["cross_entropy"] + self.settings.lambda_described * terms.get("described", 0), **terms}


def _regions(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)
