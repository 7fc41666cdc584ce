"""Anchored: attention and finer attribute rows on a validated closed form; validation decides how much they count.

The start is :mod:`unseen.methods.auto`, the closed form that validation classes prefer. It is frozen: attribute scores
psi_k = <u_k, g> of the prepared pooled feature g. Preparation splits g exactly into regions, g = sum_r h_r, so c_kr =
<u_k, h_r> sums to psi_k over regions. Three parts are trained on top::

    A2V       A_kr  = softmax over r of R h_r' W q_k      a_k  = R sum_r A_kr c_kr         q_k: u_k to unit length
    V2A       A'_rk = softmax over k of R h_r' W' q_k     a'_k = K sum_r A'_rk c_kr
    residual  d_k = <D_k, g>

    attribute score  psi_k + v ((a_k + a'_k) / 2 - psi_k) + w d_k
    class score      what the start makes of it: a sum over attributes, and own images

Only W, W' and D are trained. They act on the ``width`` strongest directions of the u_k and start at 0, where both
attentions are uniform and the scores are those of the start. Weight decay pulls them back to 0. With S the class scores
of a sub-net (A2V, V2A, or start and residual) and Sbar the scores under a random attention
(:func:`unseen.methods.msdnpp.intervene`)::

    total = sum over sub-nets of CE(S) + lambda_causal CE(S - Sbar) of A2V and V2A + lambda_dis JSD(S of A2V, of V2A)

over the seen classes; every step drops a share of the attributes. The epoch and the shares v and w are chosen on the
same draws of validation classes as the start, with 0 as a candidate; see :mod:`unseen.training.anchored`.

Two-way attention and distillation come from MSDN, the causal term from MSDN++. The anchor, the exact shares and the
rule are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.attending import Look, attend
from unseen.methods.auto import CHOICES, Auto, AutoSettings
from unseen.methods.base import AnchoredMethod, Branch, Candidate, Card
from unseen.methods.class_space import ClassSpace
from unseen.methods.joint import JointSettings
from unseen.methods.losses import jensen_shannon
from unseen.methods.msdnpp import intervene
from unseen.methods.pooled import PooledLinear, pool
from unseen.methods.preparation import AUTO, FittedBuffers
from unseen.methods.registry import register_method
from unseen.methods.settings import Ablation, Preset, Recipe, check_choice

SUBNETS = {"a2v": 1, "v2a": 2}
"""Axis over which the attention of each sub-net sums to one, in maps ``(B, R, K)``."""
PARTS = {"attention": (0.25, 0.5, 1.0), "residual": (0.5,)}
"""The trained parts, each with the candidates of its share."""
RESIDUAL_STEP = 0.1
"""Scale of D relative to its parameters; it slows D down relative to the attention."""
LEAST = 1e-6
"""Directions of the u_k weaker than this share of the strongest are left out."""


@dataclass(frozen=True, kw_only=True)
class AnchoredSettings(JointSettings):
    """Settings of :class:`Anchored`.

    Args:
        features, rows, earlier: preparation of the start, see :class:`JointSettings`.
        start: closed form to start from, ``eszsl`` or ``prototypes``, or ``auto`` to choose it on validation classes.
        attention: share v, or ``auto`` to choose it on validation classes.
        residual: share w, or ``auto``.
        subnets: ``both``, ``a2v`` or ``v2a``.
        width: number of directions of the u_k to train on.
        lambda_causal: weight of the causal term.
        lambda_dis: weight of the distillation.
        attribute_dropout: share of attributes that each step drops.
        tau: scale of class scores in the losses.
    """

    start: str = AUTO
    attention: str = AUTO
    residual: str = AUTO
    subnets: str = "both"
    width: int = 64
    lambda_causal: float = 1.0
    lambda_dis: float = 1.0
    attribute_dropout: float = 0.3
    tau: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "subnets", ("both", *SUBNETS))
        check_choice(self, "start", CHOICES)
        if self.width < 1:
            raise UnseenError(f"{self.width}", where="setting width", hint="give 1 or more")
        for name in ("lambda_causal", "lambda_dis"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UnseenError(
                    f"{getattr(self, name)} is not a weight", where=f"setting {name}", hint="use 0 or more"
                )
        if not 0 <= self.attribute_dropout < 1:
            problem = f"{self.attribute_dropout}"
            raise UnseenError(problem, where="setting attribute_dropout", hint="give a share, 0 or more and below 1")
        if not self.tau > 0:
            raise UnseenError(f"{self.tau}", where="setting tau", hint="give more than 0")
        self.fixed_shares()

    def fixed_shares(self) -> dict[str, float]:
        """Shares fixed by the settings, by part.

        Raises:
            UnseenError: a value is not a valid share.
        """
        found = {}
        for name in PARTS:
            text = getattr(self, name)
            try:
                share = 0.0 if text == AUTO else float(text)
            except ValueError:
                share = -1.0
            if not 0 <= share <= 1:
                raise UnseenError(f"{text}", where=f"setting {name}", hint="use auto, or a number from 0 to 1")
            if text != AUTO:
                found[name] = share
        return found


class _Directions(FittedBuffers):
    """The u_k as coordinates in r orthonormal directions, strongest first, and the shares.

    Buffers: ``basis`` ``(r, C)`` orthonormal, ``rows`` ``(K, r)``; ``attention`` v and ``residual`` w are empty for 0,
    so that a traced graph of the start alone contains nothing else.
    """

    basis: Tensor
    rows: Tensor
    attention: Tensor
    residual: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(0, 0))
        self.register_buffer("rows", torch.zeros(0, 0))
        for name in PARTS:
            self.register_buffer(name, torch.zeros(0))

    @torch.no_grad()
    def fit(self, weight: Tensor) -> None:
        """Decompose ``weight`` ``(K, C)``."""
        left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
        kept = values > LEAST * values[0].clamp(min=1e-12)
        self.basis = right[kept].to(weight).contiguous()
        self.rows = (left[:, kept] * values[kept]).to(weight).contiguous()


@register_method
class Anchored(AnchoredMethod):
    """See the module's docstring; ``closed`` is the start, ``a2v`` W, ``v2a`` W', ``residual`` D over its scale."""

    name = "anchored"
    card = Card(
        title="Anchored: attention on top of a validated closed form",
        paper="after MSDN (CVPR 2022) and MSDN++ (IJCV, arXiv 2603.17412); start: `auto`",
        exact="with shares of 0 it is `auto` bit for bit; contributions of regions add up to attribute scores",
        ours="the anchor: attention starts at uniform on frozen closed-form rows, and its share is chosen on "
        "validation classes by a one-standard-error rule; the residual",
    )
    settings_class = AnchoredSettings
    start_method = Auto
    joins = True
    drawn_stage = "-2+final"
    trained_parts: ClassVar = PARTS
    presets: ClassVar = {
        "recommended": Preset(
            AnchoredSettings(),
            Recipe(
                epochs=4,
                batch_size=50,
                batches=20,
                optimizer="adamw",
                lr=2e-2,
                weight_decay=0.01,
                momentum=0.0,
                average=0.95,
            ),
            "ours, chosen on validation classes of fieldguide",
        )
    }
    ablations: ClassVar = {
        "from prototypes": Ablation("always from prototypes", {"start": "prototypes"}),
        "from eszsl": Ablation("always from ESZSL", {"start": "eszsl"}),
        "last map alone": Ablation("without the earlier map", {"earlier": "0"}),
        "start alone": Ablation("the closed form alone", {"attention": "0", "residual": "0"}),
        "no attention": Ablation("residual alone", {"attention": "0"}),
        "no residual": Ablation("attention alone", {"residual": "0"}),
        "a2v alone": Ablation("attribute→visual attention alone", {"subnets": "a2v"}),
        "v2a alone": Ablation("visual→attribute attention alone", {"subnets": "v2a"}),
        "no causal term": Ablation("without the causal term", {"lambda_causal": "0"}),
        "no distillation": Ablation("neither sub-net teaches the other", {"lambda_dis": "0"}),
        "no attribute dropout": Ablation("every step with all attributes", {"attribute_dropout": "0"}),
        "no averaging": Ablation("the last step's weights, not their moving average", {"average": "0"}),
        "attention 1": Ablation("attention instead of the start, whatever validation says", {"attention": "1"}),
    }

    def __init__(
        self,
        channels: int | Sequence[int],
        vectors: Tensor,
        settings: AnchoredSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.closed = Auto(channels, vectors, self.start_settings(settings), generator)
        self.directions = _Directions()
        fixed = settings.fixed_shares()
        self.trains = tuple(name for name in PARTS if fixed.get(name) != 0)
        for name in SUBNETS:
            matrix = nn.Parameter(vectors.new_zeros(settings.width, settings.width))
            setattr(
                self, name, matrix.requires_grad_("attention" in self.trains and settings.subnets in (name, "both"))
            )
        self.residual = nn.Parameter(vectors.new_zeros(len(vectors), settings.width))
        self.residual.requires_grad_("residual" in self.trains)

    @staticmethod
    def start_settings(settings: AnchoredSettings) -> AutoSettings:
        """Settings of `auto` with these preparations and methods."""
        prepared = {name: getattr(settings, name) for name in ("features", "rows", "earlier")}
        return AutoSettings(**prepared, methods=settings.start)

    @property
    def linear(self) -> PooledLinear:
        """The closed form that the start has chosen."""
        return self.closed.best

    @staticmethod
    def fixed_shares(settings: AnchoredSettings) -> dict[str, float]:
        """Shares that the settings fix, without those that are ``auto``."""
        return settings.fixed_shares()

    @staticmethod
    def prepare(regions: Tensor) -> Tensor:
        """Return the regions unchanged; the start pools them."""
        return regions

    @property
    def static_step(self) -> bool:
        """Always true."""
        return True

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace, candidate: Candidate) -> None:
        """Solve the closed form on all training images, and find its directions."""
        pooled, labels = (torch.cat(parts) for parts in zip(*((pool(r), y) for r, y in batches), strict=True))
        self.closed.fit(pooled, labels, classes)
        self.closed.use(candidate)
        self.directions.fit(self.linear.weight)

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Set v and w; 0 removes a part."""
        for name in PARTS:
            share = shares.get(name, 0.0)
            like = self.linear.weight
            setattr(self.directions, name, like.new_tensor([share]) if share else like.new_zeros(0))

    def _has(self, part: str) -> bool:
        """Whether to compute a part: in training every trained part, otherwise those with a share."""
        return part in self.trains if self.training else len(getattr(self.directions, part)) > 0

    def _attentions(self) -> list[str]:
        return [name for name in SUBNETS if self.settings.subnets in (name, "both")] if self._has("attention") else []

    def _residual_rows(self) -> Tensor:
        """``(K, r)`` the D_k."""
        count = self.directions.rows.shape[1]
        width = min(self.settings.width, count)
        return F.pad(RESIDUAL_STEP * self.residual[:, :width], (0, count - width))

    def _regions(self, regions: Tensor) -> Tensor:
        """``(B, R, r)`` the h_r in these directions."""
        return self.linear.features.contributions(regions, self.directions.basis).transpose(1, 2)

    def _maps(self, h: Tensor, active: list[str]) -> tuple[Tensor, list[Look]]:
        """Contributions c and attention logits, ``(B, R, M K)``."""
        width = min(self.settings.width, h.shape[2])
        queries = F.normalize(self.directions.rows[:, :width], dim=1)
        weights = [queries @ getattr(self, name)[:width, :width].T * h.shape[1] for name in active]
        padded = [F.pad(w, (0, h.shape[2] - width)) for w in weights]
        maps = F.linear(h, torch.cat([self.directions.rows, *padded]))
        return maps, [Look(logits=1 + i, scores=0, axis=SUBNETS[name]) for i, name in enumerate(active)]

    def _factor(self, name: str, regions: int) -> int:
        """Divisor that gives a uniform attention."""
        return regions if name == "a2v" else len(self.linear.weight)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Compute the start and the sub-nets that count, or all in training, from raw regions ``(B, R, C)``."""
        active, k = self._attentions(), len(self.linear.weight)
        branches = self.closed.forward(pool(regions))
        if self._has("residual"):
            g = branches["linear"].embedding
            assert g is not None
            branches["residual"] = Branch(F.linear(g @ self.directions.basis.T, self._residual_rows()))
        if not active:
            return branches
        maps, looks = self._maps(self._regions(regions), active)
        others: list[Tensor] = []
        if self.training and self.settings.lambda_causal:
            others = [intervene("random", maps.split(k, dim=2)[look.logits], look.axis) for look in looks]
        pooled, counterfactual = attend(maps, k, looks, others)
        for i, (name, psi) in enumerate(zip(active, pooled, strict=True)):
            factor = self._factor(name, regions.shape[1])
            branches[name] = Branch(psi * factor, counterfactual=counterfactual[i] * factor if others else None)
        return branches

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Attention and contributions of every raw region ``(B, R, C)`` to the start and the sub-nets that count."""
        active, branches = self._attentions(), self.closed.maps(regions)
        if not active and not self._has("residual"):
            return branches
        h = self._regions(regions)
        if self._has("residual"):
            found = F.linear(h, self._residual_rows()).transpose(1, 2)
            branches["residual"] = Branch(found.sum(dim=2), None, found)
        maps, looks = self._maps(h, active)
        parts = maps.split(len(self.linear.weight), dim=2)
        for name, look in zip(active, looks, strict=True):
            attention = parts[look.logits].softmax(dim=look.axis)
            found = (attention * parts[0] * self._factor(name, regions.shape[1])).transpose(1, 2)
            branches[name] = Branch(found.sum(dim=2), attention.transpose(1, 2), found)
        return branches

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` scores of the start and the sub-nets, weighted by their shares."""
        fused = start = branches["linear"].attribute_scores
        attentions = [branch.attribute_scores for name, branch in branches.items() if name in SUBNETS]
        if attentions:
            fused = fused + self.directions.attention * (torch.stack(attentions).mean(dim=0) - start)
        if "residual" in branches:
            fused = fused + self.directions.residual * branches["residual"].attribute_scores
        return fused

    @property
    def by_attributes(self) -> bool:
        """As in the start."""
        return self.closed.by_attributes

    @property
    def own_query(self) -> Tensor | None:
        """As in the start."""
        return self.closed.own_query

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """The query of the start, with fused attribute scores instead of its own."""
        start = self.closed.query(branches)
        if len(branches) == 1:
            return start
        fused = self.fused_attribute_scores(branches)
        return torch.cat([fused, start[:, fused.shape[1] :]], dim=1)

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """As in the start."""
        return self.closed.class_vectors(classes)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """As in the start."""
        return self.closed.class_embeddings(classes)

    def class_offsets(self, classes: ClassSpace) -> Tensor | None:
        """As in the start."""
        return self.closed.class_offsets(classes)

    def _table(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` t_c / |p_c|; in training without the attributes that the step drops."""
        t: Tensor = self.linear.rows(classes.unit)
        share = self.settings.attribute_dropout
        if share and self.training:
            t = t * (torch.rand_like(t[0]) >= share) / (1 - share)
        result: Tensor = t / (t @ self.directions.rows).norm(dim=1, keepdim=True).clamp(min=1e-12)
        return result

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy of each sub-net, causal terms and distillation of the attentions, over the seen classes."""
        settings, z = self.settings, self._table(classes) * self.settings.tau

        def cross_entropy(scores: Tensor) -> Tensor:
            return F.cross_entropy(scores.masked_fill(~classes.seen, float("-inf")), labels)

        scores = {name: branch.attribute_scores @ z.T for name, branch in branches.items()}
        start = scores.pop("linear")
        if "residual" in scores:
            scores["residual"] = start + scores["residual"]
        terms = {f"cross_entropy_{name}": cross_entropy(s) for name, s in scores.items()}
        total = torch.stack(list(terms.values())).sum()
        for name, plain in scores.items():
            if (other := branches[name].counterfactual) is not None:
                terms[f"causal_{name}"] = cross_entropy(plain - other @ z.T)
                total = total + settings.lambda_causal * terms[f"causal_{name}"]
        if settings.lambda_dis and all(name in scores for name in SUBNETS):
            terms["distillation"] = jensen_shannon(*(scores[name][:, classes.seen] for name in SUBNETS))
            total = total + settings.lambda_dis * terms["distillation"]
        return {"total": total, **terms}
