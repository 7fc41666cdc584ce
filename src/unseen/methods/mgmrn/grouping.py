"""Grouping units: assign the regions of a stage to P centers d_p, before the convolutions of a level."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEAST_MASS = 1e-6
"""Lower bound for the regions of a part, so that an empty part has a mean."""


class _Divided(torch.autograd.Function):
    """``x / P``, with zero gradients for parameters without effect."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, centres: Tensor, smoothing: Tensor) -> Tensor:
        ctx.save_for_backward(centres, smoothing)
        return x / len(centres)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        centres, smoothing = ctx.saved_tensors
        x = gradients[0] / len(centres) if ctx.needs_input_grad[0] else None
        return x, torch.zeros_like(centres), torch.zeros_like(smoothing)


class Grouping(nn.Module):
    """Base class of both units: the parameters of the release, so that its checkpoints fit either.

    Args:
        channels: C of the stage.
        parts: P.
    """

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(parts, channels))
        self.smoothing = nn.Parameter(torch.zeros(parts))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C, h, w)``."""
        raise NotImplementedError


class ReleasedGrouping(Grouping):
    """What the release computes: ``mean_p(assignment_p * x)``, which is ``x / P`` since assignments sum to one.

    The assignment is therefore skipped, and the gradient of its parameters is zero rather than ``None``: weight decay
    shrinks them as in the release.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C, h, w)``."""
        divided: Tensor = _Divided.apply(x, self.centres, self.smoothing)
        return divided


class PartGrouping(Grouping):
    """Ours: add to every region what its parts have beyond the image, so that centers and smoothing matter.

    With x_i the regions of an image, C channels::

        a_ip = softmax over p of -||x_i - d_p||^2 / (sqrt(C) sigmoid(smoothing_p))
        y_i  = x_i + sum_p a_ip (m_p - m)       m_p mean of the regions weighted with a_ip, m plain mean

    The root, which the release lacks, keeps the softmax from saturating at the widths of real backbones.
    """

    def assignment(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, P, h, w)``, which sums to one over parts."""
        squares = self.centres.square().sum(dim=1)[:, None, None]
        products = nn.functional.conv2d(x, self.centres[:, :, None, None])
        distances = (x.square().sum(dim=1, keepdim=True) - 2 * products + squares).clamp(min=0) / x.shape[1] ** 0.5
        result: Tensor = (-distances / self.smoothing.sigmoid()[:, None, None]).softmax(dim=1)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C, h, w)``."""
        assigned, regions = self.assignment(x).flatten(2), x.flatten(2)
        mass = assigned.sum(dim=2, keepdim=True).clamp(min=LEAST_MASS)
        means = regions @ (assigned / mass).transpose(1, 2)
        return x + ((means - regions.mean(dim=2, keepdim=True)) @ assigned).view_as(x)


GROUPINGS: dict[str, type[Grouping]] = {"released": ReleasedGrouping, "parts": PartGrouping}
"""Grouping units by setting."""
