"""Mg-MRN's settings, and what its release trains with."""

from __future__ import annotations

from dataclasses import dataclass

from unseen.errors import UnseenError
from unseen.methods.base import Preset, Settings, check_choice

GROUPS = 32
"""Groups of every group normalisation (release)."""
RELEASE = "settings of the authors' release (NingWang2049/Mg-MRN)"


@dataclass(frozen=True, kw_only=True)
class MgMRNSettings(Settings):
    """Settings of :class:`~unseen.methods.mgmrn.network.MgMRN`; defaults are the release's for CUB.

    Args:
        grouping: ``released`` (regions over P, so a no-op but for scale) or ``parts`` (ours).
        schedule: ``progressive`` (an optimiser step a level) or ``joint`` (one step on the sum of the losses).
        parts: P, centres of a grouping unit.
        width: channels of every level, a multiple of 32.
        attention_width: length of queries, keys and values.
        tau: scale of the cosines.
        lambda_reg: weight of the regression loss.
    """

    grouping: str = "released"
    schedule: str = "progressive"
    parts: int = 5
    width: int = 2048
    attention_width: int = 1024
    tau: float = 20.0
    lambda_reg: float = 0.1

    def __post_init__(self) -> None:
        check_choice(self, "grouping", ("released", "parts"))
        check_choice(self, "schedule", ("progressive", "joint"))
        if self.width < 1 or self.width % GROUPS:
            problem = f"{self.width} channels do not form the {GROUPS} groups of the normalisation"
            raise UnseenError(problem, where="setting width", mend=f"give a multiple of {GROUPS}")
        for name in ("parts", "attention_width"):
            if getattr(self, name) < 1:
                raise UnseenError(f"{getattr(self, name)}", where=f"setting {name}", mend="give 1 or more")
        if self.tau <= 0 or self.lambda_reg < 0:
            raise UnseenError(f"tau is {self.tau}, lambda_reg {self.lambda_reg}", mend="give tau > 0, lambda_reg >= 0")


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How the release trains network and backbone together: SGD on batches of ``ways`` classes x ``shots`` pictures.

    Args:
        lr: learning rate of the first epoch.
        lr_factor: what it is multiplied by after every ``lr_every`` epochs.
        ways, shots: classes of a batch, pictures of each.
        epochs, batches: batches an epoch.
        momentum, weight_decay: SGD's.
        resize, crop: short side that pictures are resized to in training, and side of the random crop (flipped or
            not); in testing resized to ``crop`` and cropped at the centre.
    """

    lr: float
    lr_factor: float
    ways: int
    shots: int = 2
    lr_every: int = 10
    epochs: int = 30
    batches: int = 300
    momentum: float = 0.9
    weight_decay: float = 1e-5
    resize: int = 512
    crop: int = 448


PRESETS = {
    "cub": Preset(MgMRNSettings(), None, RELEASE),
    "sun": Preset(MgMRNSettings(tau=25.0, lambda_reg=1.0), None, RELEASE),
    "awa2": Preset(MgMRNSettings(lambda_reg=1.0), None, RELEASE),
}
FINE_TUNING = {
    "cub": FineTuning(lr=5e-4, lr_factor=0.1, ways=8),
    "sun": FineTuning(lr=5e-4, lr_factor=0.5, ways=8),
    "awa2": FineTuning(lr=5e-5, lr_factor=0.5, ways=16),
}
"""The release's, by preset."""
