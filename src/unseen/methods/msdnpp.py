"""MSDN++: Mutually Causal Semantic Distillation Network (IJCV, arXiv 2603.17412), as we interpret it.

No code is public. According to the abstract, both attention sub-nets of MSDN become *causal*: an intervention on the
attention asks what the prediction would be without it, and the effect trains the attention; the two teach each other by
semantic distillation. The rest is our interpretation, after counterfactual attention learning (CAL: Rao et al., ICCV
2021) and the causal visual-semantic correlation of the same group (CVsC: Chen et al., ACM MM 2024). With A the
attention of a sub-net, psi its attribute scores, S its class scores without the margin, and Abar an intervention::

    psibar, Sbar = attribute and class scores with A replaced by Abar
    L_causal = cross-entropy of softmax(S - Sbar)                                   CAL, CVsC
    L_semantic = mean over images and attributes of |z - (psi - psibar)|            CVsC
    total = lambda_score * cross-entropy(S) + lambda_causal * L_causal + lambda_semantic * L_semantic + the rest of MSDN

summed over the sub-nets. In L_semantic, z are the attributes of the images' classes; every attribute is standardized
over the batch, psi and psibar together. Inference is that of MSDN.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unseen.errors import UnseenError
from unseen.methods.attending import Look, attend
from unseen.methods.base import Branch, Card
from unseen.methods.class_space import ClassSpace
from unseen.methods.losses import seen_margin
from unseen.methods.msdn import MSDN, MSDNSettings, named
from unseen.methods.registry import register_method
from unseen.methods.settings import Ablation, Preset, check_choice
from unseen.methods.share import batch_size, exchange, random_rows

PERMUTED = {
    "permuted": ("batch", "attributes", "channels"),
    "permuted_batch": ("batch",),
    "permuted_attributes": ("attributes",),
    "permuted_channels": ("channels",),
}
"""Axes over which each intervention permutes the attended features ``(B, K, C)``."""
INTERVENTIONS = ("random", "uniform", "reversed", "shuffled", *PERMUTED)
FOLLOWED = ("reversed", *PERMUTED)
"""Interventions that can pass a gradient."""
LEAST_VARIANCE = 1e-5
"""Added to variances, as in batch normalization."""


@dataclass(frozen=True, kw_only=True)
class MSDNPPSettings(MSDNSettings):
    """Settings of :class:`MSDNPP`: those of MSDN, plus the causal term.

    Args:
        intervention: Abar. ``random``: U(0, 2)/R for A2V and U(0, 2)/K for V2A, drawn every step; ``uniform``: 1/R and
            1/K; ``reversed``: softmax of minus the attention logits; ``shuffled``: attention of another image of the
            batch; ``permuted``: the attended features sum_r A_kr f_r of all images and attributes, permuted over the
            batch, over attributes and over channels, drawn every step (CVsC); ``permuted_batch``,
            ``permuted_attributes``, ``permuted_channels``: permuted over one of them only.
        counterfactual_gradient: whether a gradient passes through Abar to the attention (CVsC), for ``reversed`` and
            the permuted ones; it always passes through the score map.
        lambda_causal: weight of the causal loss, on class scores.
        lambda_semantic: weight of the semantic loss, on attribute scores (CVsC).
        lambda_score: weight of the cross-entropy on S (CAL: 1/3); 0 leaves only that on the effect.
        distil_effects: distil the effects instead of the class scores.
    """

    intervention: str = "random"
    counterfactual_gradient: bool = False
    lambda_causal: float = 1.0
    lambda_semantic: float = 0.0
    lambda_score: float = 1.0
    distil_effects: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "intervention", INTERVENTIONS)
        for name in ("lambda_causal", "lambda_semantic", "lambda_score"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UnseenError(
                    f"{getattr(self, name)} is not a valid weight", where=f"setting {name}", hint="use 0 or more"
                )
        if not self.lambda_score and not self.lambda_causal:
            problem = "no cross-entropy term remains"
            raise UnseenError(problem, where="setting lambda_score", hint="set it or lambda_causal to more than 0")
        if self.counterfactual_gradient and self.intervention not in FOLLOWED:
            problem = f'no gradient passes through "{self.intervention}"'
            hint = f"use intervention {', '.join(FOLLOWED)}"
            raise UnseenError(problem, where="setting counterfactual_gradient", hint=hint)


def intervene(kind: str, logits: Tensor, axis: int) -> Tensor:
    """Counterfactual attention of one sub-net, without gradient.

    Args:
        kind: one of :data:`INTERVENTIONS`, except the permuted ones, which change the attended features instead.
        logits: attention logits ``(B, R, K)``.
        axis: axis over which the attention sums to one.
    """
    with torch.no_grad():
        if kind == "random":
            return random_rows(logits).mul_(2 / logits.shape[axis])
        if kind == "uniform":
            return logits.new_tensor(1 / logits.shape[axis]).expand_as(logits)
        if kind == "reversed":
            return (-logits).softmax(dim=axis)
        assert kind == "shuffled"
        # a shift by at least one: no image keeps its own
        shift = int(torch.randint(1, max(batch_size(logits), 2), ()))
        return exchange(logits.softmax(dim=axis), lambda whole: whole.roll(shift, dims=0))


def standardised(values: Tensor) -> Tensor:
    """Columns standardized to mean 0 and variance 1 over the rows."""
    centred = values - values.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + LEAST_VARIANCE).sqrt()


def semantic_loss(scores: Tensor, counterfactual: Tensor, labels: Tensor, classes: ClassSpace) -> Tensor:
    """``mean |z - (psi - psibar)|``, with every attribute standardized over the batch (CVsC).

    Args:
        scores: attribute scores psi ``(B, K)``.
        counterfactual: psibar ``(B, K)``, standardized together with psi.
        labels: ``(B,)``.
        classes: class vectors, divided by the largest value of a seen class.
    """
    both = standardised(torch.cat([scores, counterfactual]))
    largest = classes.vectors[classes.seen].abs().max().clamp(min=1e-12)
    truth = standardised(classes.vectors[labels] / largest)
    return (truth - both[: len(scores)] + both[len(scores) :]).abs().mean()


def _upgraded(name: str, preset: Preset) -> Preset:
    """MSDN's settings for a dataset, plus the causal term."""
    inherited: dict[str, Any] = {f.name: getattr(preset.settings, f.name) for f in fields(preset.settings)}
    weight, chosen = 1.0, "weight 1 as in counterfactual attention learning (Rao et al., ICCV 2021)"
    if name == "recommended":
        weight, chosen = 0.01, "ours, chosen on validation classes"
    source = f"MSDN: {preset.source}; causal term: {chosen}; the paper's is not known to us"
    return replace(preset, settings=MSDNPPSettings(**inherited, lambda_causal=weight), source=source)


@register_method
class MSDNPP(MSDN):
    """See the module's docstring; the parameters are those of MSDN."""

    name = "msdnpp"
    card = Card(
        title="MSDN++: Mutually Causal Semantic Distillation Network",
        paper="IJCV, arXiv 2603.17412",
        exact="nothing can be: no code is public, and we know only the abstract; without the causal term it is MSDN",
        ours="the reading: effect, `random` and weights after counterfactual attention learning (Rao et al., "
        "ICCV 2021); `permuted`, its gradient and the semantic effect after CVsC (Chen et al., ACM MM 2024); the "
        "other interventions and `distil_effects`",
    )
    settings_class = MSDNPPSettings
    presets: ClassVar = {name: _upgraded(name, preset) for name, preset in MSDN.presets.items()}
    ablations: ClassVar = {
        "no causal term": Ablation("without the causal loss: MSDN", {"lambda_causal": "0"}),
        **{
            f"{kind} intervention": Ablation(f"counterfactual attention: {kind}", {"intervention": kind})
            for kind in INTERVENTIONS
            if kind != MSDNPPSettings().intervention
        },
        "reversed, with gradient": Ablation(
            "counterfactual attention: reversed, and trained through",
            {"intervention": "reversed", "counterfactual_gradient": "true"},
        ),
        "permuted, with gradient": Ablation(
            "attended features permuted, and trained through",
            {"intervention": "permuted", "counterfactual_gradient": "true"},
        ),
        "causal weight 0.01": Ablation("the causal loss a hundredth of the others", {"lambda_causal": "0.01"}),
        "causal weight 1": Ablation("the causal loss as large as the cross-entropy", {"lambda_causal": "1"}),
        "semantic effect": Ablation("a second effect, on the attribute scores (CVsC)", {"lambda_semantic": "1"}),
        "CVsC's reading": Ablation(
            "both effects, attended features permuted, with gradient; weights 1 are ours",
            {
                "intervention": "permuted",
                "counterfactual_gradient": "true",
                "lambda_causal": "1",
                "lambda_semantic": "1",
            },
        ),
        "CAL's weighing": Ablation(
            "cross-entropy of the effect 1, of the class scores 1/3",
            {"lambda_causal": "1", "lambda_score": "0.3333333333333333"},
        ),
        "effect only": Ablation(
            "cross-entropy on the effect instead of on the class scores", {"lambda_score": "0", "lambda_causal": "1"}
        ),
        "effects distilled": Ablation("the sub-nets distil effects, not class scores", {"distil_effects": "true"}),
        **MSDN.ablations,
    }

    @property
    def static_step(self) -> bool:
        """False for interventions that draw on the CPU: the shift of ``shuffled``, and permutations."""
        return self.settings.intervention not in ("shuffled", *PERMUTED) or not self._uses_effects()

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Unit regions ``(B, R, C)`` to attribute scores and, in training, counterfactual ones."""
        if not self.training or not self._uses_effects():
            return super().forward(regions)
        active, k, r = self._active(), len(self.vectors), regions.shape[1]
        maps, looks = self._maps(regions, active)
        kind, parts = self.settings.intervention, maps.split(k, dim=2)
        if kind in PERMUTED or self.settings.counterfactual_gradient:
            pooled, _ = attend(maps.clone(), k, looks)  # the maps are still needed
            others = [self._followed(regions, maps, name, look) for name, look in zip(active, looks, strict=True)]
        else:
            pooled, others = attend(maps, k, looks, [intervene(kind, parts[x.logits], x.axis) for x in looks])
        found = {}
        for name, psi, other in zip(active, pooled, others, strict=True):
            factor = self._factor(name, r)
            found[name] = Branch(psi * factor, counterfactual=other * factor)
        return found

    def _followed(self, regions: Tensor, maps: Tensor, name: str, look: Look) -> Tensor:
        """Counterfactual attribute scores ``(B, K)`` of one of :data:`FOLLOWED`, before the batch is permuted."""
        kind, k = self.settings.intervention, len(self.vectors)
        parts = maps.to(torch.promote_types(maps.dtype, torch.float32)).split(k, dim=2)
        logits, scores = parts[look.logits], parts[look.scores]
        if not self.settings.counterfactual_gradient:
            logits = logits.detach()
        if kind == "reversed":
            result: Tensor = ((-logits).softmax(dim=look.axis) * scores).sum(dim=1)
            return result
        attention = logits.softmax(dim=look.axis)
        if "attributes" in PERMUTED[kind]:
            attention = attention[:, :, torch.randperm(k).to(maps.device)]
        if "channels" in PERMUTED[kind]:
            order = torch.randperm(regions.shape[2]).to(maps.device)
            scores = self._score_map(regions, name, order).to(attention.dtype)
        result = (attention * scores).sum(dim=1)
        return result

    def _counterfactual(self, branch: Branch) -> Tensor:
        """``(B, K)`` of the whole batch, since a permuted intervention exchanges scores between images."""
        found = branch.counterfactual
        assert found is not None
        if "batch" in PERMUTED.get(self.settings.intervention, ()):
            return found[torch.randperm(len(found)).to(found.device)]
        return found

    def _uses_effects(self) -> bool:
        settings = self.settings
        result: bool = settings.lambda_causal > 0 or settings.lambda_semantic > 0 or settings.distil_effects
        return result

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """MSDN's terms plus ``causal`` and ``semantic`` of each sub-net."""
        if not self._uses_effects():
            return super().loss(branches, labels, classes)
        settings = self.settings
        psi = torch.stack([branch.attribute_scores for branch in branches.values()])
        others = torch.stack([self._counterfactual(branch) for branch in branches.values()])
        both = torch.stack([psi, psi - others]) @ self._trained_vectors(classes).T
        plain, effects = both.unbind()
        scores = plain + seen_margin(self.settings.margin, classes)
        entropy, causal = self._cross_entropy(both, labels, classes)
        terms = named("cross_entropy", branches, entropy) | self._calibration(branches, scores, classes)
        if settings.lambda_causal:
            terms |= named("causal", branches, causal)
        if settings.lambda_semantic:
            for name, own, other in zip(branches, psi, others, strict=True):
                terms[f"semantic_{name}"] = semantic_loss(own, other, labels, classes)
        if self._distils(branches):
            terms["distillation"] = self._distillation(*(effects if settings.distil_effects else scores))
        return self._weighted(terms)

    def _weights(self) -> dict[str, float]:
        settings = self.settings
        own = {"causal": settings.lambda_causal, "semantic": settings.lambda_semantic}
        return {**super()._weights(), "cross_entropy": settings.lambda_score, **own}
