"""Levels and their refinement: convolutions on one backbone stage, and gates that pass deep levels to shallow ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from unseen.methods.mgmrn.grouping import GROUPINGS
from unseen.methods.mgmrn.settings import GROUPS, MgMRNSettings


class Level(nn.Module):
    """One stage to ``width`` channels at the last stage's size: grouping, then conv3x3 - GroupNorm - ReLU blocks.

    Bilinear resizing to the next stage's size, corners aligned, follows every block but the only block of the last
    stage. Where each stage has half the size of the one before, this is the release's factor 0.5.

    Args:
        channels: channels of the stage.
        blocks: number of blocks.
        settings: settings of the method.
    """

    def __init__(self, channels: int, blocks: int, settings: MgMRNSettings) -> None:
        super().__init__()
        width = settings.width
        self.grouping = GROUPINGS[settings.grouping](channels, settings.parts)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width if i else channels, width, 3, padding=1, bias=False) for i in range(blocks)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(blocks))

    def forward(self, x: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """``(B, C, h, w)`` to ``(B, width, h', w')``.

        Args:
            x: map of the stage.
            sizes: ``(h, w)`` of the later stages.
        """
        x = self.grouping(x)
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.relu(norm(convolution(x)))
            if i < len(sizes) and x.shape[2:] != sizes[i]:
                x = F.interpolate(x, size=sizes[i], mode="bilinear", align_corners=True)
        return x


class Refinement(nn.Module):
    """Spatial-channel attention (SCA): ``Y * channel gate * spatial gate`` with ``Y = conv1x1(X)``.

    Args:
        sources: number of levels that X stacks.
        width: channels of each source, and of the result.
    """

    def __init__(self, sources: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(sources * width, width, 1, bias=False)
        self.channel = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.spatial = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, sources * width, h, w)`` to ``(B, width, h, w)``; the spatial gate has one map per channel."""
        y: Tensor = self.mix(x)
        channel: Tensor = self.channel(y.mean(dim=(2, 3))).sigmoid()
        result: Tensor = y * channel[:, :, None, None] * self.spatial(y).sigmoid()
        return result
