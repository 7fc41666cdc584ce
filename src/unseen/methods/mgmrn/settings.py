"""Mg-MRN's settings, and the training recipe of its release."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unseen.errors import UnseenError
from unseen.methods.settings import EndToEndRecipe, Preset, Settings, check_choice

GROUPS = 32
"""Number of groups of every group normalization (release)."""
LEVELS = (1, 2, 3)
"""Levels by number, for stages c3, c4, c5."""
RELEASE = "settings of the authors' release (NingWang2049/Mg-MRN)"


@dataclass(frozen=True, kw_only=True)
class MgMRNSettings(Settings):
    """Settings of :class:`~unseen.methods.mgmrn.network.MgMRN`; defaults are the release's for CUB.

    Args:
        grouping: ``released`` (regions over P, a no-op apart from scale) or ``parts`` (ours).
        schedule: ``progressive`` (one optimizer step per level) or ``joint`` (one step on the sum of the losses).
        refinement: whether deep levels refine shallow ones.
        levels: ``all``, or the number of one level to train and test alone, without refinement.
        parts: P, number of centers of a grouping unit.
        width: channels of every level, a multiple of 32.
        attention_width: length of queries, keys and values.
        tau: scale of the cosines.
        lambda_reg: weight of the regression loss.
        initial: distributions of the initial weights: ``released``, or ``plain`` (ours), which differs in the mixing
            convolution of refinements and in the centers; see :class:`~unseen.methods.mgmrn.network.MgMRN`.
    """

    grouping: str = "released"
    schedule: str = "progressive"
    refinement: bool = True
    levels: str = "all"
    parts: int = 5
    width: int = 2048
    attention_width: int = 1024
    tau: float = 20.0
    lambda_reg: float = 0.1
    initial: str = "released"

    def __post_init__(self) -> None:
        check_choice(self, "grouping", ("released", "parts"))
        check_choice(self, "schedule", ("progressive", "joint"))
        check_choice(self, "initial", ("released", "plain"))
        check_choice(self, "levels", ("all", *map(str, LEVELS)))
        if self.width < 1 or self.width % GROUPS:
            problem = f"{self.width} channels is not a multiple of the {GROUPS} normalization groups"
            raise UnseenError(problem, where="setting width", hint=f"use a multiple of {GROUPS}")
        for name in ("parts", "attention_width"):
            if getattr(self, name) < 1:
                raise UnseenError(f"{getattr(self, name)}", where=f"setting {name}", hint="use 1 or more")
        if self.tau <= 0 or self.lambda_reg < 0:
            raise UnseenError(
                f"tau is {self.tau}, lambda_reg {self.lambda_reg}", hint="use tau > 0 and lambda_reg >= 0"
            )

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the levels in use."""
        return LEVELS if self.levels == "all" else (int(self.levels),)

    def refining(self, level: int) -> tuple[int, ...]:
        """Numbers of the deeper levels that refine a level."""
        return tuple(m for m in self.used if m > level) if self.refinement else ()


def _released(lr: float, lr_factor: float, ways: int) -> EndToEndRecipe:
    """The release's recipe: SGD on batches of ``ways`` x 2 images, resized to 8/7 of the input size and cropped.

    The release asks its scheduler for the next rate at the start of each epoch, so the lower rate already holds in
    epochs 10, 20 and 30.
    """
    return EndToEndRecipe(
        epochs=30,
        batches=300,
        sampler="classes",
        batch_size=2 * ways,
        shots=2,
        optimizer="sgd",
        lr=lr,
        lr_factor=lr_factor,
        lr_every=10,
        lr_early=1,
        momentum=0.9,
        weight_decay=1e-5,
        batch_norm="batch",
    )


_OURS = "ours, for small networks on a CPU; not the authors'"
_SMALL = MgMRNSettings(grouping="parts", schedule="joint", width=256, attention_width=256, initial="plain")
_ADAMW = replace(
    _released(3e-4, 0.1, 8), optimizer="adamw", epochs=8, batches=100, lr_every=6, lr_early=0, batch_norm="frozen"
)

PRESETS = {
    "cub": Preset(MgMRNSettings(), _released(5e-4, 0.1, 8), RELEASE),
    "sun": Preset(MgMRNSettings(tau=25.0, lambda_reg=1.0), _released(5e-4, 0.5, 8), RELEASE),
    "awa2": Preset(MgMRNSettings(lambda_reg=1.0), _released(5e-5, 0.5, 16), RELEASE),
    "recommended": Preset(_SMALL, _ADAMW, _OURS),
    "fieldguide": Preset(
        replace(_SMALL, width=128, attention_width=128),
        replace(_ADAMW, lr=1e-3, epochs=4, batches=60, lr_every=3),
        _OURS,
    ),
}
