"""MSDN: Mutually Semantic Distillation Network (Chen et al., CVPR 2022, arXiv 2203.03137).

Two attention sub-nets, attribute->visual (A2V) and visual->attribute (V2A), score every attribute and teach each other
by distilling their class scores. With f_r a region, a_k an attribute vector:

    A2V: s_kr = a_k' W1 f_r,   A_kr  = softmax over r of a_k' W2 f_r,    psi_k  = sum_r A_kr s_kr
    V2A: s'_rk = f_r' W11 a_k, A'_rk = softmax over k of a_k' W21 f_r,   psi'_k = sum_r A'_rk s'_rk
    class score S_c = <psi, z_c> + b_c with margin b_c = +1 for unseen, -1 for seen classes

One matrix product of the regions with stacked weights gives all four bilinear maps, so a training step on frozen
features costs two products of that size, and nothing else grows with R.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.attending import Look, attend
from unseen.methods.base import Branch, Card, GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.losses import cubed_distance, jensen_shannon, posterior_distance, seen_margin, self_calibration
from unseen.methods.prototypes import PrototypeHead
from unseen.methods.registry import register_method
from unseen.methods.settings import Ablation, Preset, Recipe, Settings, check_choice


@dataclass(frozen=True, kw_only=True)
class MSDNSettings(Settings):
    """Settings of :class:`MSDN`; defaults are the release's for CUB.

    Args:
        subnets: ``both``, or one alone (ablation).
        distillation: ``released`` (cubed score distance + JSD), ``paper`` (posterior distance + JSD; as far as we know,
            see the docs) or ``none``.
        lambda_cal: weight of the self-calibration loss.
        lambda_dis: weight of the distillation loss.
        fusion: weights of A2V and V2A class scores at test.
        renormalize_vectors: normalize attribute vectors in every forward, as the release does on AWA2.
        clip_negative: first set negative class attributes to 0, as the release does on AWA2.
        margin: the seen/unseen offset b.
        head: ``released``, or ``prototypes`` (ours, see :mod:`unseen.methods.prototypes`): class scores in feature
            space, from a closed-form start; both sub-nets share one score map, and cross-entropy is over the seen
            classes.
        tau: scale of the class scores of ``prototypes``.
        attribute_dropout: share of attributes that each step drops from the cross-entropy of ``prototypes``.
    """

    subnets: str = "both"
    distillation: str = "released"
    lambda_cal: float = 0.1
    lambda_dis: float = 1e-3
    fusion: tuple[float, float] = (0.9, 0.1)
    renormalize_vectors: bool = False
    clip_negative: bool = False
    margin: float = 1.0
    head: str = "released"
    tau: float = 20.0
    attribute_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self, "head", ("released", "prototypes"))
        if self.tau <= 0:
            raise UnseenError(f"{self.tau}", where="setting tau", hint="use more than 0")
        if not 0 <= self.attribute_dropout < 1:
            problem = f"{self.attribute_dropout}"
            raise UnseenError(
                problem, where="setting attribute_dropout", hint="use a fraction, 0 or more and less than 1"
            )
        check_choice(self, "subnets", ("both", "a2v", "v2a"))
        check_choice(self, "distillation", ("released", "paper", "none"))
        if self.subnets == "both" and not any(self.fusion):
            raise UnseenError(
                "both sub-nets have weight 0", where="setting fusion", hint="set at least one of the two to more than 0"
            )


RECOMMENDED = MSDNSettings(lambda_cal=0.0, margin=0.0, head="prototypes", attribute_dropout=0.3)
RECOMMENDED_RECIPE = Recipe(
    epochs=15, batch_size=50, optimizer="adamw", lr=1e-3, weight_decay=0.1, momentum=0.0, average=0.98
)
OURS = "ours, chosen on validation classes of fieldguide, CUB's first 50 classes and 64-pixel flowers; see the docs"
AXIS = {"a2v": 1, "v2a": 2}
"""Axis over which the attention of each sub-net sums to one, in maps ``(B, R, K)``: A2V regions, V2A attributes."""
RELEASE = "settings of the authors' release (shiming-chen/MSDN)"
_RECIPE = Recipe(epochs=30, batch_size=50, optimizer="rmsprop", lr=1e-4, weight_decay=1e-4, momentum=0.9)


def folds(regions: int, channels: int, attributes: int, dim: int, trains: bool) -> bool:
    """Whether to fold vectors into the weights (K rows per map) instead of multiplying hidden maps (D rows).

    Counts the multiplications of one map, forward and, if it ``trains``, backward; regions need no gradient. Hidden
    maps also have to be written and read, so they must save at least a tenth.
    """
    large, small = (2, 3) if trains else (1, 1)
    folded = large * regions * channels * attributes + small * attributes * dim * channels
    hidden = large * regions * channels * dim + small * regions * dim * attributes
    return folded <= 1.1 * hidden


def named(term: str, names: Iterable[str], values: Tensor) -> dict[str, Tensor]:
    """A loss term of each sub-net, from values ``(M,)``."""
    return {f"{term}_{name}": value for name, value in zip(names, values, strict=True)}


@register_method
class MSDN(GradientMethod):
    """See the module's docstring.

    Parameters: ``vectors`` (K, D), initialized to unit rows and trained; ``a2v_score`` W1, ``a2v_attention`` W2 and
    ``v2a_attention`` W21 (D, C), ``v2a_score`` W11 (C, D). W1 starts as N(0, 1), the others at 0 (release). With
    ``head=prototypes`` the rows of ``prototypes`` replace a_k' W1 and a_k' W11'; those of V2A are multiplied by K/R, so
    that both sub-nets start with the same scores.
    """

    name = "msdn"
    card = Card(
        title="MSDN: Mutually Semantic Distillation Network",
        paper="Chen et al., CVPR 2022, arXiv 2203.03137",
        exact="outputs, losses, gradients and optimizer steps equal the authors' release (golden numbers, 1e-9 in "
        "float64; recorded losses are float32)",
        ours="the `paper` distillation is from memory of the paper, the release's term is the default; the preset "
        "`recommended` with `head=prototypes`, the default for data other than CUB, SUN and AWA2",
    )
    settings_class = MSDNSettings
    presets: ClassVar = {
        "cub": Preset(MSDNSettings(), _RECIPE, RELEASE),
        "sun": Preset(
            MSDNSettings(lambda_cal=1e-4, lambda_dis=1e-2, fusion=(0.7, 0.3)),
            replace(_RECIPE, epochs=70, sampler="classes"),
            RELEASE,
        ),
        "awa2": Preset(
            MSDNSettings(
                lambda_cal=0.12, lambda_dis=1e-7, fusion=(1.0, 0.0), renormalize_vectors=True, clip_negative=True
            ),
            replace(_RECIPE, epochs=50, batch_size=40, step_images=50, sampler="classes", momentum=0.0),
            RELEASE,
        ),
        "recommended": Preset(RECOMMENDED, RECOMMENDED_RECIPE, OURS),
    }
    ablations: ClassVar = {
        "a2v alone": Ablation("attribute→visual sub-net alone", {"subnets": "a2v"}),
        "v2a alone": Ablation("visual→attribute sub-net alone", {"subnets": "v2a"}),
        "no distillation": Ablation("both sub-nets, but neither teaches the other", {"distillation": "none"}),
        "paper distillation": Ablation(
            "distillation of posteriors, as we remember the paper", {"distillation": "paper"}
        ),
        "no calibration": Ablation("without the self-calibration loss", {"lambda_cal": "0"}),
        "no margin": Ablation("without the seen/unseen margin", {"margin": "0"}),
        "cross-entropy alone": Ablation(
            "neither distillation nor self-calibration", {"distillation": "none", "lambda_cal": "0"}
        ),
        "no prototypes": Ablation(
            "score maps and class scores of the release, from a random start, otherwise as trained here",
            {"head": "released"},
        ),
        "no attribute dropout": Ablation("every step with all attributes", {"attribute_dropout": "0"}),
        "no averaging": Ablation("the last step's weights, not their moving average", {"average": "0"}),
        "start alone": Ablation("no step moves a weight: the start as it is", {"lr": "0", "epochs": "1"}),
        "global features": Ablation("mean-pooled features and one linear map instead of attention", method="global"),
    }

    def __init__(
        self, channels: int, vectors: Tensor, settings: MSDNSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        dim = vectors.shape[1]
        like: dict[str, Any] = {"dtype": vectors.dtype, "device": vectors.device}
        self.vectors = nn.Parameter(F.normalize(vectors, dim=1))
        self.prototypes: PrototypeHead | None = None
        if settings.head == "prototypes":
            self.prototypes = PrototypeHead(channels, vectors, settings.tau, settings.clip_negative)
        released = self.prototypes is None
        if settings.subnets != "v2a" and released:
            self.a2v_score = nn.Parameter(torch.randn(dim, channels, generator=generator, **like))
        if settings.subnets != "v2a":
            self.a2v_attention = nn.Parameter(torch.zeros(dim, channels, **like))
        if settings.subnets != "a2v" and released:
            self.v2a_score = nn.Parameter(torch.zeros(channels, dim, **like))
        if settings.subnets != "a2v":
            self.v2a_attention = nn.Parameter(torch.zeros(dim, channels, **like))

    @staticmethod
    def prepare(regions: Tensor) -> Tensor:
        """Scale every region to unit length over channels."""
        return F.normalize(regions, dim=-1)

    @property
    def static_step(self) -> bool:
        """Always true."""
        return True

    def _active(self) -> list[str]:
        """Sub-nets to compute: all in training, otherwise those with a fusion weight."""
        if self.training and self.settings.subnets == "both":
            return ["a2v", "v2a"]
        return self._fused()

    def _fused(self) -> list[str]:
        if self.settings.subnets != "both":
            return [self.settings.subnets]
        return [name for name, weight in zip(("a2v", "v2a"), self.settings.fusion, strict=True) if weight != 0]

    def _maps(self, regions: Tensor, active: list[str]) -> tuple[Tensor, list[Look]]:
        """Score maps and attention logits ``(B, R, M K)`` from one product, and each sub-net's look at them."""
        vectors = F.normalize(self.vectors, dim=1) if self.settings.renormalize_vectors else self.vectors
        (k, d), (b, r, c) = vectors.shape, regions.shape
        flat = regions.reshape(b * r, c)
        attention = [self.a2v_attention if name == "a2v" else self.v2a_attention for name in active]
        if self.prototypes is not None:
            weight, bias = self.prototypes.affine()
            # for unit regions, apart from sigma: attention learns at the same rate in every channel
            logits = [vectors @ w / self.prototypes.scale for w in attention]
            bias = torch.cat([bias, bias.new_zeros(k * len(active))])
            maps = F.linear(flat, torch.cat([weight, *logits]), bias)
            looks = [Look(logits=1 + i, scores=0, axis=AXIS[name]) for i, name in enumerate(active)]
            return maps.view(b, r, -1), looks
        weights = [self.a2v_score if name == "a2v" else self.v2a_score.T for name in active] + attention
        if folds(b * r, c, k, d, torch.is_grad_enabled()):
            maps = F.linear(flat, torch.cat([vectors @ w for w in weights]))
        else:
            hidden = F.linear(flat, torch.cat(weights)).view(b * r, len(weights), d)
            maps = F.linear(hidden, vectors)
        looks = [Look(logits=len(active) + i, scores=i, axis=AXIS[name]) for i, name in enumerate(active)]
        return maps.view(b, r, -1), looks

    def _score_map(self, regions: Tensor, name: str, order: Tensor) -> Tensor:
        """Score map ``(B, R, K)`` of a sub-net on regions with their channels in another order ``(C,)``."""
        if self.prototypes is not None:
            return F.linear(regions, *self.prototypes.affine(order))
        vectors = F.normalize(self.vectors, dim=1) if self.settings.renormalize_vectors else self.vectors
        weight = self.a2v_score if name == "a2v" else self.v2a_score.T
        return F.linear(regions, vectors @ weight[:, order.argsort()])

    def _factor(self, name: str, regions: int) -> float:
        """Factor of a sub-net's score map in the pooled scores."""
        return len(self.vectors) / regions if self.prototypes is not None and name == "v2a" else 1.0

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Compute the closed-form start of ``head=prototypes``."""
        if self.prototypes is not None:
            self.prototypes.fit(batches, classes)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Unit regions ``(B, R, C)`` to the attribute scores of each sub-net in use."""
        active = self._active()
        maps, looks = self._maps(regions, active)
        pooled, _ = attend(maps, len(self.vectors), looks)
        return {
            name: Branch(psi * self._factor(name, regions.shape[1])) for name, psi in zip(active, pooled, strict=True)
        }

    def counted(self, branches: dict[str, Branch]) -> list[str]:
        """The sub-nets with a fusion weight."""
        return [name for name in branches if name in self._fused()]

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Attention and region contributions of both sub-nets on raw regions ``(B, R, C)``."""
        active = ["a2v", "v2a"] if self.settings.subnets == "both" else [self.settings.subnets]
        maps, looks = self._maps(self.prepare(regions), active)
        parts = maps.split(len(self.vectors), dim=2)
        found = {}
        for name, look in zip(active, looks, strict=True):
            attention = parts[look.logits].softmax(dim=look.axis)
            contributions = (attention * parts[look.scores] * self._factor(name, regions.shape[1])).transpose(1, 2)
            found[name] = Branch(contributions.sum(dim=2), attention.transpose(1, 2), contributions)
        return found

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)``: a1 psi + a2 psi', or the scores of the only sub-net."""
        if self.settings.subnets != "both":
            return branches[self.settings.subnets].attribute_scores
        parts = [
            weight * branches[name].attribute_scores
            for name, weight in zip(("a2v", "v2a"), self.settings.fusion, strict=True)
            if weight != 0
        ]
        return torch.stack(parts).sum(dim=0)

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """Unit class vectors, with negatives set to 0 first if the settings say so; or those of the prototypes."""
        if self.prototypes is not None:
            return self.prototypes.class_vectors(classes)
        return classes.unit_nonnegative if self.settings.clip_negative else classes.unit

    def class_offsets(self, classes: ClassSpace) -> Tensor:
        """``(N,)`` the sub-nets' margins, fused."""
        weight = sum(self.settings.fusion) if self.settings.subnets == "both" else 1.0
        return weight * seen_margin(self.settings.margin, classes)

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy and self-calibration of each sub-net, and distillation between them.

        Self-calibration uses the *attributes* of unseen classes in training, never their images.
        """
        psi = torch.stack([branch.attribute_scores for branch in branches.values()])
        plain = psi @ self._trained_vectors(classes).T
        scores = plain + seen_margin(self.settings.margin, classes)
        terms = named("cross_entropy", branches, self._cross_entropy(plain, labels, classes))
        terms |= self._calibration(branches, scores, classes)
        if self._distils(branches):
            terms["distillation"] = self._distillation(*scores)
        return self._weighted(terms)

    def _calibration(self, names: Iterable[str], scores: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Self-calibration of each sub-net's class scores ``(M, B, N)``, with the margin."""
        if not self.settings.lambda_cal or not len(classes.unseen_indices):
            return {}
        return named("self_calibration", names, self_calibration(scores, classes.unseen_indices))

    def _trained_vectors(self, classes: ClassSpace) -> Tensor:
        """Class vectors of a step, without the dropped attributes."""
        share = self.settings.attribute_dropout
        if self.prototypes is None or not share or not self.training:
            return self.class_vectors(classes)
        kept = torch.rand(len(self.vectors), dtype=classes.vectors.dtype, device=self.vectors.device) >= share
        return self.prototypes.class_vectors(classes, kept.to(classes.vectors.dtype) / (1 - share))

    def _cross_entropy(self, scores: Tensor, labels: Tensor, classes: ClassSpace) -> Tensor:
        """Cross-entropy of scores ``(..., B, N)`` over all classes (release), or over the seen ones (prototypes)."""
        if self.prototypes is not None:
            scores = scores.masked_fill(~classes.seen, float("-inf"))
        labels = labels.expand(scores.shape[:-1])
        losses = F.cross_entropy(scores.flatten(0, -2), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(dim=-1)

    def _distils(self, branches: dict[str, Branch]) -> bool:
        return self.settings.distillation != "none" and self.settings.lambda_dis > 0 and len(branches) == 2

    def _distillation(self, a2v: Tensor, v2a: Tensor) -> Tensor:
        distance = cubed_distance if self.settings.distillation == "released" else posterior_distance
        return distance(a2v, v2a) + jensen_shannon(a2v, v2a)

    def _weights(self) -> dict[str, float]:
        """Weight of each kind of term in the loss."""
        settings = self.settings
        return {"cross_entropy": 1.0, "self_calibration": settings.lambda_cal, "distillation": settings.lambda_dis}

    def _weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the weighted sum of the terms as ``total``."""
        weights = self._weights()
        total = sum(weights[name.removesuffix("_a2v").removesuffix("_v2a")] * term for name, term in terms.items())
        assert isinstance(total, Tensor)
        return {"total": total, **terms}
