"""Mg-MRN: Multi-Granularity Mutual Refinement Network (arXiv 2511.08163).

Three stages c3, c4, c5 of a backbone become levels F1, F2, F3 of one size. Deep levels refine shallow ones, never the
reverse (sg stops the gradient), and the decoder of every level scores the attributes from its tokens::

    r1 = SCA1([sg(F2); sg(F3)]),  r2 = SCA2(sg(F3));  tokens T1 = [F1, r1], T2 = [F2, r2], T3 = [F3]
    S_c = sum over levels of tau * cos(psi^l, z_c)
    loss of a level = cross-entropy of tau * cos over seen classes + lambda_reg * MSE(unit psi^l, unit z_y)

The loss of a level thus reaches its own convolutions, refinement and decoder, and the backbone up to its own stage.

On frozen stages both schedules train the same weights, since the step of a level changes nothing that a later pass of
the batch reads. They differ only for the backbone, which every pass moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.base import Branch, Card, GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.mgmrn.decoder import Decoder
from unseen.methods.mgmrn.grouping import Grouping, PartGrouping
from unseen.methods.mgmrn.losses import semantic_cross_entropy, semantic_regression
from unseen.methods.mgmrn.refinement import Level, Refinement
from unseen.methods.mgmrn.settings import LEVELS, PRESETS, MgMRNSettings
from unseen.methods.registry import register_method
from unseen.methods.settings import Ablation, Preset

LEAST_CENTRE = 1e-5
"""Smallest initial value of the release's centers."""


@register_method
class MgMRN(GradientMethod):
    """See the module's docstring. Takes three stages ``(B, C, h, w)``, not regions.

    Returns :class:`~unseen.methods.base.Branch` objects by ``level1``, ``level2``, ``level3``, for the levels in use.
    Other levels, and refinements without a source, have no weights. Weights of convolutions and linear maps start
    uniform in +-1/sqrt(inputs), classifiers as N(0, 1), smoothing at 0. With ``initial=released`` the mixing
    convolution of a refinement starts uniform in +-sqrt(3/inputs) (Kaiming, a = 1) and the centers as N(0, 2/C)
    (Kaiming), raised to at least 1e-5; with ``plain``, ours, the convolution starts like any other and the centers as
    N(0, 1). The attribute vectors are fixed and used as they are.

    Args:
        channels: of c3, c4 and c5.
        vectors: ``(K, D)`` attribute vectors; the weights take their dtype.
        settings: settings of the method.
        generator: for initial weights.
    """

    name = "mgmrn"
    card = Card(
        title="Mg-MRN: Multi-Granularity Mutual Refinement Network",
        paper="arXiv 2511.08163",
        exact="levels, refinements, attribute and class scores and progressive SGD steps equal the authors' release "
        "with its stage widths corrected (golden numbers at small widths, 1e-9 in float64, losses in float32)",
        ours="`grouping=parts`, `schedule=joint`, `refinement=false`, single `levels`, presets `recommended` and "
        "`fieldguide`; stages that are not halved evenly; "
        "`initial=plain` and `batch_norm=frozen`",
    )
    end_to_end = True
    stages = len(LEVELS)
    settings_class = MgMRNSettings
    presets: ClassVar[dict[str, Preset]] = PRESETS
    ablations: ClassVar[Mapping[str, Ablation]] = {
        "released grouping": Ablation("regions over P, as released, in place of our parts", {"grouping": "released"}),
        "parts grouping": Ablation("our parts in place of the released grouping", {"grouping": "parts"}),
        "progressive": Ablation("one optimizer step per level instead of one for all", {"schedule": "progressive"}),
        "joint": Ablation("one optimizer step for all levels instead of one each", {"schedule": "joint"}),
        "released initial weights": Ablation("the release's initial weights in place of ours", {"initial": "released"}),
        "plain initial weights": Ablation("our initial weights in place of the release's", {"initial": "plain"}),
        "batch statistics": Ablation(
            "batch normalization with each batch's statistics, not those of the pre-training", {"batch_norm": "batch"}
        ),
        "frozen statistics": Ablation(
            "batch normalization with the statistics of the pre-training, not each batch's", {"batch_norm": "frozen"}
        ),
        "no refinement": Ablation("deep levels do not refine shallow ones", {"refinement": "false"}),
        "level 1 alone": Ablation("no levels 2 and 3", {"levels": "1"}),
        "level 2 alone": Ablation("no levels 1 and 3", {"levels": "2"}),
        "level 3 alone": Ablation("no levels 1 and 2", {"levels": "3"}),
    }
    settings: MgMRNSettings
    vectors: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        vectors: Tensor,
        settings: MgMRNSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(channels) != len(LEVELS):
            raise UnseenError(f"{len(channels)} stages", where="Mg-MRN", hint="pass three, shallow to deep")
        self.settings = settings
        (k, d), width = vectors.shape, settings.width
        with torch.device("meta"):  # skips initial weights that would be overwritten
            self.levels, self.refinements, self.decoders = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
            for m, c in zip(LEVELS, channels, strict=True):
                used, sources = m in settings.used, len(settings.refining(m))
                self.levels.append(Level(c, max(1, 3 - m), settings) if used else nn.Identity())
                self.decoders.append(Decoder(d, k, width, settings.attention_width) if used else nn.Identity())
                self.refinements.append(Refinement(sources, width) if used and sources else nn.Identity())
        self.to(vectors.dtype).to_empty(device=vectors.device)
        self.register_buffer("vectors", vectors.clone())
        self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = module.weight[0].numel() ** -0.5
                for parameter in module.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.GroupNorm):
                module.reset_parameters()
            elif isinstance(module, Grouping):
                if self.settings.initial == "released":
                    nn.init.kaiming_normal_(module.centres, generator=generator).clamp_(min=LEAST_CENTRE)
                else:
                    module.centres.normal_(generator=generator)
                module.smoothing.zero_()
            elif isinstance(module, Decoder):
                module.classifiers.normal_(generator=generator)
        if self.settings.initial == "released":
            for module in self.modules():
                if isinstance(module, Refinement):
                    nn.init.kaiming_uniform_(module.mix.weight, a=1, generator=generator)

    def passes(self) -> tuple[tuple[int, ...], ...]:
        """Levels of each pass over a batch: one each (``progressive``), or all in one (``joint``)."""
        used = self.settings.used
        return tuple((level,) for level in used) if self.settings.schedule == "progressive" else (used,)

    def features(self, stages: Sequence[Tensor], levels: Sequence[int] | None = None) -> dict[int, Tensor]:
        """Maps F ``(B, width, h, w)``, all of c5's size, of the levels and of those that refine them.

        The refining ones have no gradient.

        Args:
            stages: c3, c4, c5, each ``(B, C, h, w)``; only the size is read of stages shallower than the levels.
            levels: levels to compute; by default all in use.
        """
        levels = self.settings.used if levels is None else levels
        needed = {*levels}.union(*(self.settings.refining(level) for level in levels))
        sizes = [(s.shape[2], s.shape[3]) for s in stages]
        found = {}
        for level in sorted(needed):
            with torch.set_grad_enabled(torch.is_grad_enabled() and level in levels):
                found[level] = self.levels[level - 1](stages[level - 1], sizes[level:])
        return found

    def tokens(self, level: int, features: dict[int, Tensor]) -> list[Tensor]:
        """The maps whose positions are the tokens of a level: its own, and the refinement from deeper ones."""
        own, sources = [features[level]], self.settings.refining(level)
        if not sources:
            return own
        deeper = torch.cat([features[m].detach() for m in sources], dim=1)
        return [*own, self.refinements[level - 1](deeper)]

    def _decoder(self, level: int) -> Decoder:
        decoder = self.decoders[level - 1]
        assert isinstance(decoder, Decoder)
        return decoder

    def forward_pass(  # type: ignore[override]  # several stages instead of one
        self, stages: Sequence[Tensor], trained: tuple[int, ...]
    ) -> dict[str, Branch]:
        """:meth:`forward` for the levels of a pass."""
        found: dict[str, Branch] = self(stages, trained)
        return found

    def forward(  # type: ignore[override]
        self, stages: Sequence[Tensor], levels: Sequence[int] | None = None
    ) -> dict[str, Branch]:
        """Stages ``(B, C, h, w)`` to attribute scores of levels (default all), computing only what they need."""
        levels = self.settings.used if levels is None else levels
        features = self.features(stages, levels)
        return {f"level{m}": Branch(self._decoder(m)(self.vectors, self.tokens(m, features))) for m in levels}

    def parts(self, stages: Sequence[Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """Assignment ``(B, P, h, w)`` of each stage's positions to parts, by level; empty if ``released``."""
        groupings = {m: self.levels[m - 1].grouping for m in self.settings.used}
        return {f"level{m}": g.assignment(stages[m - 1]) for m, g in groupings.items() if isinstance(g, PartGrouping)}

    def maps(self, stages: Sequence[Tensor]) -> dict[str, Branch]:  # type: ignore[override]
        """Like :meth:`forward` for all levels, with attention and contributions ``(B, K, R)`` on c5's grid."""
        features = self.features(stages)
        return {f"level{m}": self._decoder(m).maps(self.vectors, self.tokens(m, features)) for m in self.settings.used}

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)``: ``tau`` times the sum of the levels' unit attribute scores."""
        units = [F.normalize(branch.attribute_scores, dim=1) for branch in branches.values()]
        return self.settings.tau * torch.stack(units).sum(dim=0)

    def fused_contributions(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K, R)`` contribution of each region to the fused scores; needs the branches of :meth:`maps`."""
        parts = []
        for branch in branches.values():
            assert branch.contributions is not None
            parts.append(branch.contributions / branch.attribute_scores.norm(dim=1).clamp(min=1e-12)[:, None, None])
        return self.settings.tau * torch.stack(parts).sum(dim=0)

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` unit class vectors."""
        return classes.unit

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy and regression of each given level; ``total`` is their weighted sum."""
        terms: dict[str, Tensor] = {}
        total: Any = 0.0
        for name, branch in branches.items():
            entropy = semantic_cross_entropy(branch.attribute_scores, labels, classes, self.settings.tau)
            regression = semantic_regression(branch.attribute_scores, labels, classes)
            terms |= {f"cross_entropy_{name}": entropy, f"regression_{name}": regression}
            total = total + entropy + self.settings.lambda_reg * regression
        return {"total": total, **terms}
