"""Tuned: prototypes, and the last layers of the backbone trained towards them.

The start is :mod:`unseen.methods.kernel_prototypes` with fixed hyperparameters, solved on the pre-trained backbone: a
preparation g(f) of pooled features, attribute rows u_k and the means M_c of the training classes. These stay, and the
backbone trains, end to end on images, so that its features fit them. With t_c the prepared class vector and cos the
cosine of g with a prototype::

    described  A_c = cos(g, sum_k t_ck u_k)
    mixed      S_c = cos(g, (1 - b s_c) r_c + b s_c M_c / |M|)      r_c: described, scaled as in prototypes; s_c: seen
    loss       CE(tau S, y) + lambda_described CE(tau A, y)         over the seen classes

S is the class score. The described term keeps features on what attributes predict, since unseen classes have nothing
else. After every epoch the tested model solves its prototypes anew, on the features of the trained backbone: its means,
its covariances and its regression from attributes.

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
from unseen.methods.base import Branch, Candidate, Card, GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.kernel_prototypes import Prototypes, PrototypesSettings
from unseen.methods.pooled import PooledLinear, pool
from unseen.methods.preparation import FEATURES, ROWS
from unseen.methods.registry import register_method
from unseen.methods.settings import Ablation, EndToEndRecipe, Preset, Settings, check_choice


@dataclass(frozen=True, kw_only=True)
class TunedSettings(Settings):
    """Settings of :class:`Tuned`.

    Args:
        features, rows: preparations (:mod:`unseen.methods.preparation`).
        earlier: share of the earlier one of joined maps (:mod:`unseen.methods.joint`).
        ridge: rho of the prototypes.
        own: share b of a seen class's own images.
        lambda_described: weight of the cross-entropy of prototypes described by attributes alone.
        tau: factor of the cosines in the loss.
        refit: whether the tested prototypes are solved anew on the trained features; else they are those of the start.
    """

    features: str = "whitened"
    rows: str = "centred"
    earlier: float = 0.25
    ridge: float = 0.3
    own: float = 0.5
    lambda_described: float = 1.0
    tau: float = 20.0
    refit: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "features", FEATURES)
        check_choice(self, "rows", ROWS)
        for name in ("earlier", "own"):
            if not 0 <= getattr(self, name) < 1:
                raise UnseenError(f"{getattr(self, name)}", where=f"setting {name}", hint="give 0 or more, below 1")
        for name in ("ridge", "tau"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UnseenError(f"{getattr(self, name)}", where=f"setting {name}", hint="give more than 0")
        if not 0 <= self.lambda_described < float("inf"):
            raise UnseenError(f"{self.lambda_described}", where="setting lambda_described", hint="give 0 or more")


@register_method
class Tuned(PooledLinear, GradientMethod):
    """See the module's docstring. Takes one map ``(B, C, h, w)``; nothing in this module trains.

    ``weight`` ``(K, C)`` holds the u_k.
    """

    name = "tuned"
    card = Card(
        title="Tuned: prototypes on a backbone whose last layers are trained towards them",
        paper="ours, after fine-tuning as in f-VAEGAN-D2 (CVPR 2019)",
        exact="before the first step it is `prototypes` of the same hyperparameters; contributions of regions add up "
        "to attribute scores",
        ours="the method: the last layers of the backbone train towards prototypes, which are then solved anew",
    )
    end_to_end = True
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
                lr_factor=0.5,
                lr_every=1,
                average=0.9,
                layers="last",
            ),
            "ours, from exploratory runs; not chosen on validation classes",
        )
    }
    ablations: ClassVar = {
        "described alone": Ablation("no share of own images", {"own": "0"}),
        "no described term": Ablation("without the cross-entropy of described prototypes", {"lambda_described": "0"}),
        "first prototypes": Ablation("test with the prototypes of the start", {"refit": "false"}),
        "all layers": Ablation("train the whole backbone", {"layers": "all"}),
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
        count = channels if isinstance(channels, int) else sum(channels)
        self.register_buffer("weight", vectors.new_zeros(len(vectors), count))

    def _candidate(self) -> Candidate:
        """The hyperparameters of the prototypes."""
        settings = self.settings
        earlier = 0.0 if isinstance(self._channels, int) else settings.earlier
        features = settings.features + (f"+{earlier}" if earlier else "")
        kernel: Candidate = {"kernel": "linear", "ridge": settings.ridge, "share": 0.0}
        return {"features": features, "rows": settings.rows, **kernel, "own": settings.own}

    @torch.no_grad()
    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Solve the prototypes on maps ``(B, C, h, w)`` of all training images."""
        pooled, labels = (torch.cat(parts) for parts in zip(*((_pooled(m), y) for m, y in batches), strict=True))
        solved = Prototypes(self._channels, self._vectors.to(pooled), PrototypesSettings()).to(pooled.device)
        solved.fit(pooled, labels, classes)
        solved.use(self._candidate())
        self.features, self.rows, self.own, self.weight = solved.features, solved.rows, solved.own, solved.weight

    @property
    def refits(self) -> bool:  # type: ignore[override]
        """As the setting says."""
        return self.settings.refit

    def refit(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Solve the prototypes on the features of the trained backbone."""
        self.start(batches, classes)

    def forward(self, maps: Tensor) -> dict[str, Branch]:
        """One map ``(B, C, h, w)`` to attribute scores and prepared features."""
        return super().forward(_pooled(maps))

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


def _pooled(maps: Tensor) -> Tensor:
    return pool(_regions(maps))
