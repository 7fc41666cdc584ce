"""Preparation of joined maps: each map by itself, and a share of the inner products to the earlier ones.

With f the pooled features of the last map, e_1 ... e_n those of the earlier ones and g a preparation of
:mod:`unseen.methods.preparation`, fitted to each by itself::

    joined  g(e_1) sqrt(s/n), ..., g(e_n) sqrt(s/n), g(f) sqrt(1 - s)        unit length, as each g has

The inner product of two joined features is the average of those of the maps, with share s to the earlier ones. A linear
method on joined features is thus the sum of one for each map, and s = 0 leaves the last map alone. s is a
hyperparameter, part of the name of a preparation: ``whitened+0.25``. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.preparation import AUTO, FeaturePreparation, PreparedSettings

SHARES = (0.25, 0.5)
"""Candidates of s other than 0."""


@dataclass(frozen=True, kw_only=True)
class JointSettings(PreparedSettings):
    """Settings of a method that tells joined maps apart.

    Args:
        features, rows: see :class:`PreparedSettings`.
        earlier: share s, or ``auto`` to choose it on validation classes; without joined maps it has no effect.
    """

    earlier: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.earlier != AUTO:
            try:
                fits = 0 <= float(self.earlier) < 1
            except ValueError:
                fits = False
            if not fits:
                hint = "use auto, or a number of 0 or more and less than 1"
                raise UnseenError(f"{self.earlier}", where="setting earlier", hint=hint)

    def kinds_of(self, channels: int | Sequence[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Candidate preparations, of features of so many channels and of class vectors."""
        features, rows = self.kinds
        if isinstance(channels, int):
            return features, rows
        shares = (0.0, *SHARES) if self.earlier == AUTO else (float(self.earlier),)
        return tuple(kind + (f"+{s}" if s else "") for kind in features for s in shares), rows


def total(channels: int | Sequence[int]) -> int:
    """C, of all maps together."""
    return channels if isinstance(channels, int) else sum(channels)


def new_preparation(channels: int | Sequence[int]) -> FeaturePreparation | JointPreparation:
    """An unfitted preparation of features of so many channels; of several numbers, for joined maps."""
    return FeaturePreparation() if isinstance(channels, int) else JointPreparation(channels)


class JointPreparation(nn.Module):
    """As :class:`FeaturePreparation`; see the module's docstring. Buffer ``factors`` ``(P,)``: the square roots.

    Args:
        channels: of each map, the last one last.
    """

    factors: Tensor

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self._channels = list(channels)
        self.maps = nn.ModuleList(FeaturePreparation() for _ in channels)
        self.register_buffer("factors", torch.tensor([0.0] * (len(channels) - 1) + [1.0]))

    def fit(self, kind: str, features: Tensor, labels: Tensor) -> None:
        """Fit to training images, as :meth:`FeaturePreparation.fit`."""
        name, _, text = kind.partition("+")
        share, earlier = float(text or 0), len(self._channels) - 1
        self.factors = features.new_tensor([share / earlier] * earlier + [1 - share]).sqrt()
        for preparation, part in zip(self.maps, self._split(features), strict=True):
            assert isinstance(preparation, FeaturePreparation)
            preparation.fit(
                name if share or preparation is self.maps[-1] else "unit", F.normalize(part, dim=-1), labels
            )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C)`` pooled features to ``(B, C)`` prepared ones of unit length."""
        parts = zip(self.maps, self._split(features), self.factors, strict=True)
        return torch.cat([prepared(F.normalize(part, dim=-1)) * factor for prepared, part, factor in parts], dim=-1)

    def contributions(self, regions: Tensor, weight: Tensor) -> Tensor:
        """As :meth:`FeaturePreparation.contributions`: the sum over maps."""
        found = []
        for one, part, rows, factor in zip(
            self.maps, self._split(regions), self._split(weight), self.factors, strict=True
        ):
            assert isinstance(one, FeaturePreparation)
            found.append(one.contributions(part, rows) * factor)
        return torch.stack(found).sum(dim=0)

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = features.split(self._channels, dim=-1)
        return found
