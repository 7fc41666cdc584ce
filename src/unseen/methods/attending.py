"""Attention over score maps, pooled to attribute scores; nothing but the maps themselves needs memory of their size.

With maps of B images, R regions and K attributes each, A the softmax of logits l and s the scores::

    psi_k  = sum_r A_rk s_rk
    dL/ds  = A g,    dL/dl = A g s - A sum(A g s)      g = dL/dpsi; the sum runs over what A sums to one over

The forward pass writes A over the logits, which nothing else needs, so that the backward pass has no softmax; not in
bfloat16, where rounded attentions no longer sum to one. Both passes process the batch in pieces: small enough for the
cache, large enough that every thread has work and a small grid takes few operations. Maps in bfloat16 are converted to
float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 2**19
"""Map entries per thread in a piece of the batch: 2 MiB of float32."""


@dataclass(frozen=True)
class Look:
    """An attention on maps ``(B, R, M)``, of K columns each.

    Args:
        logits: map whose softmax is the attention.
        scores: map to pool.
        axis: axis over which the attention sums to one: 1 for regions, 2 for attributes.
    """

    logits: int
    scores: int
    axis: int


def attend(
    maps: Tensor, attributes: int, looks: Sequence[Look], others: Sequence[Tensor] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """Pool score maps by each look's attention, and by other attentions.

    Args:
        maps: ``(B, R, M)``; attentions replace their logits if they need a gradient.
        attributes: K.
        looks: the attentions.
        others: for each look another attention ``(B, R, K)``, without gradient; or an empty list.

    Returns:
        ``(B, K)`` for each look, and for each of ``others``; at least float32.
    """
    if torch.compiler.is_compiling():  # export and compilers accept only plain operators
        parts = maps.to(_accurate(maps)).split(attributes, dim=2)
        found = [(parts[x.logits].softmax(dim=x.axis) * parts[x.scores]).sum(dim=1) for x in looks]
        found += [(other * parts[x.scores]).sum(dim=1) for x, other in zip(looks, others, strict=False)]
    else:
        found = _Attend.apply(maps, attributes, tuple(looks), *others)
    return list(found[: len(looks)]), list(found[len(looks) :])


def _accurate(maps: Tensor) -> torch.dtype:
    return torch.promote_types(maps.dtype, torch.float32)


def _pieces(maps: Tensor) -> Iterator[slice]:
    """Slices of the batch; a single one on a GPU."""
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
        ctx.replaced = ctx.needs_input_grad[0] and maps.dtype == _accurate(maps)
        shape = len(maps), attributes
        found = [maps.new_empty(shape, dtype=_accurate(maps)) for _ in (*looks, *others)]
        for rows in _pieces(maps):
            parts = maps[rows].to(_accurate(maps)).split(attributes, dim=2)
            for i, look in enumerate(looks):
                attention = parts[look.logits].softmax(dim=look.axis)
                if ctx.replaced:
                    parts[look.logits].copy_(attention)
                torch.sum(attention.mul_(parts[look.scores]), dim=1, out=found[i][rows])
                if others:
                    torch.sum(others[i][rows] * parts[look.scores], dim=1, out=found[len(looks) + i][rows])
        ctx.save_for_backward(maps, *others)
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        maps, *others = ctx.saved_tensors
        of_maps, looks = torch.empty_like(maps), ctx.looks
        for rows in _pieces(maps):
            parts = maps[rows].to(_accurate(maps)).split(ctx.attributes, dim=2)
            to = of_maps[rows].split(ctx.attributes, dim=2)
            of_scores: dict[int, Tensor] = {}  # looks may share a score map
            for i, look in enumerate(looks):
                attention = parts[look.logits] if ctx.replaced else parts[look.logits].softmax(dim=look.axis)
                change = attention * gradients[i][rows, None]
                product = change * parts[look.scores]
                total = product.sum(dim=look.axis, keepdim=True)
                torch.addcmul(product, attention, total, value=-1, out=to[look.logits])
                if others:
                    change.addcmul_(others[i][rows], gradients[len(looks) + i][rows, None])
                of_scores[look.scores] = change.add_(of_scores[look.scores]) if look.scores in of_scores else change
            for part, value in of_scores.items():
                to[part].copy_(value)
        return of_maps, None, None, *(None for _ in others)
