"""Attention over score maps, pooled to attribute scores, without anything kept of the maps' size but the maps.

With maps of B images, R regions and K attributes each, A the softmax of logits l and s the scores::

    psi_k  = sum_r A_rk s_rk
    dL/ds  = A g,    dL/dl = A g s - A sum(A g s)      g = dL/dpsi; the sum runs over what A sums to one over

The backward pass computes A again from the logits, which costs less than reading it from memory, and writes its
gradient where the product with the regions reads it. Both passes go through the batch in pieces that stay in a core's
cache. Maps in bfloat16 are attended to in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 2**17
"""Numbers of the maps per thread in a piece of the batch: half a mebibyte of float32."""


@dataclass(frozen=True)
class Look:
    """One attention on maps ``(B, R, M)`` of K columns each.

    Args:
        logits: which of the maps its attention is the softmax of.
        scores: which of the maps it pools.
        axis: what the attention sums to one over: 1 for regions, 2 for attributes.
    """

    logits: int
    scores: int
    axis: int


def attend(
    maps: Tensor, attributes: int, looks: Sequence[Look], others: Sequence[Tensor] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """What each look pools, and what it would with another attention.

    Args:
        maps: ``(B, R, M)``.
        attributes: K.
        looks: the attentions.
        others: of each look an attention ``(B, R, K)`` through which no gradient flows, or none at all.

    Returns:
        ``(B, K)`` of each look, and of each of ``others``; float32 at least.
    """
    if torch.compiler.is_compiling():  # export and compilers want operators alone
        parts = maps.to(_accurate(maps)).split(attributes, dim=2)
        found = [(parts[x.logits].softmax(dim=x.axis) * parts[x.scores]).sum(dim=1) for x in looks]
        found += [(other * parts[x.scores]).sum(dim=1) for x, other in zip(looks, others, strict=False)]
    else:
        found = _Attend.apply(maps, attributes, tuple(looks), *others)
    return list(found[: len(looks)]), list(found[len(looks) :])


def _accurate(maps: Tensor) -> torch.dtype:
    return torch.promote_types(maps.dtype, torch.float32)


def _pieces(maps: Tensor) -> Iterator[slice]:
    """Runs of images; on a GPU all in one."""
    size = len(maps)
    if maps.device.type == "cpu":
        size = PIECE * torch.get_num_threads() // max(maps[:1].numel(), 1)
    size = max(size, 1)
    for start in range(0, len(maps), size):
        yield slice(start, start + size)


class _Attend(torch.autograd.Function):
    """See the module's docstring."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, attributes: int, looks: tuple[Look, ...], *others: Tensor) -> Any:
        ctx.attributes, ctx.looks = attributes, looks
        ctx.save_for_backward(maps, *others)
        shape = len(maps), attributes
        found = [maps.new_empty(shape, dtype=_accurate(maps)) for _ in (*looks, *others)]
        for rows in _pieces(maps):
            parts = maps[rows].to(_accurate(maps)).split(attributes, dim=2)
            for i, look in enumerate(looks):
                attention = parts[look.logits].softmax(dim=look.axis)
                torch.sum(attention.mul_(parts[look.scores]), dim=1, out=found[i][rows])
                if others:
                    torch.sum(others[i][rows] * parts[look.scores], dim=1, out=found[len(looks) + i][rows])
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        maps, *others = ctx.saved_tensors
        of_maps, looks = torch.empty_like(maps), ctx.looks
        for rows in _pieces(maps):
            parts = maps[rows].to(_accurate(maps)).split(ctx.attributes, dim=2)
            to = of_maps[rows].split(ctx.attributes, dim=2)
            of_scores: dict[int, Tensor] = {}  # looks may share scores
            for i, look in enumerate(looks):
                attention = parts[look.logits].softmax(dim=look.axis)
                change = attention * gradients[i][rows, None]
                product = change * parts[look.scores]
                to[look.logits].copy_(product.sub_(attention.mul_(product.sum(dim=look.axis, keepdim=True))))
                if others:
                    change.add_(others[i][rows] * gradients[len(looks) + i][rows, None])
                of_scores[look.scores] = change.add_(of_scores[look.scores]) if look.scores in of_scores else change
            for part, value in of_scores.items():
                to[part].copy_(value)
        return of_maps, None, None, *(None for _ in others)
