"""Decisions from class scores: the best classes with their confidence, and the best seen and unseen class.

Class scores come in blocks of classes, so any number of classes is ranked in bounded memory. B images, N classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unseen.errors import UnseenError


@dataclass(frozen=True)
class Best:
    """The first classes of B images, best first.

    Args:
        index: int64 ``(B, k)`` positions of the classes.
        score: float64 ``(B, k)`` raw class scores.
        confidence: float64 ``(B, k)`` softmax over all candidate classes.
    """

    index: np.ndarray
    score: np.ndarray
    confidence: np.ndarray


def calibrated(scores: Tensor, seen: np.ndarray, gamma: float, temperature: float = 1.0) -> Tensor:
    """(S - gamma seen) / T, whose order ranks classes and whose softmax is the confidence.

    Args:
        scores: ``(B, N)`` raw class scores.
        seen: bool ``(N,)``, or multiples of gamma to subtract, float64 ``(N,)``.
        gamma: calibration offset.
        temperature: T.
    """
    return (scores - gamma * torch.from_numpy(seen.copy()).to(scores)) / temperature


def best_classes(
    blocks: Iterable[tuple[Tensor, Tensor]], seen: np.ndarray, count: int, *, gamma: float, temperature: float
) -> Best:
    """The best classes of each image; the first one wins ties.

    Args:
        blocks: increasing positions ``(n,)`` and float64 raw scores ``(B, n)`` of the candidate classes; at least one.
        seen: ``(N,)`` for all classes, as in :func:`calibrated`.
        count: number of classes k, or fewer if there are fewer candidates.
        gamma, temperature: see :func:`calibrated`.

    Raises:
        UnseenError: a score is not finite, as with damaged weights.
    """
    found: tuple[Tensor, Tensor, Tensor] | None = None
    highest = total = torch.empty(0)
    for columns, raw in blocks:
        lowered = calibrated(raw, seen[columns.cpu().numpy()], gamma, temperature)
        order = _leading(lowered, count)
        part = columns[order], raw.gather(1, order), lowered.gather(1, order)
        top = part[2][:, :1]
        if found is None:
            found, highest, total = part, top, (lowered - top).exp().sum(dim=1, keepdim=True)
            continue
        index, score, shifted = (torch.cat(two, dim=1) for two in zip(found, part, strict=True))
        order = shifted.sort(dim=1, descending=True, stable=True).indices[:, :count]
        found = index.gather(1, order), score.gather(1, order), shifted.gather(1, order)
        higher = torch.maximum(highest, top)
        total = total * (highest - higher).exp() + (lowered - higher).exp().sum(dim=1, keepdim=True)
        highest = higher
    assert found is not None
    index, score, shifted = found
    confidence = (shifted - highest).exp() / total
    if not confidence.isfinite().all():
        raise UnseenError(
            "the class scores of an image are not finite", hint="restore the model's files, or train again"
        )
    return Best(index.cpu().numpy(), score.cpu().numpy(), confidence.cpu().numpy())


def _leading(values: Tensor, count: int) -> Tensor:
    """``(B, k)`` columns of the largest of ``values`` ``(B, n)``, largest first; the first one wins ties."""
    if values.shape[1] <= 2 * count or values.is_cuda:  # sorting is fast on a GPU, and needs no wait
        return values.sort(dim=1, descending=True, stable=True).indices[:, :count]
    found = values.topk(count + 1, dim=1)
    order = found.indices[:, :count].sort(dim=1).values
    order = order.gather(1, values.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    tied = found.values[:, count - 1] == found.values[:, count]  # topk does not specify which one it returns
    if tied.any():
        order[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return order


def columns_by_kind(seen: Tensor) -> list[Tensor]:
    """Columns of the seen and of the unseen classes among ``(n,)``."""
    return [torch.nonzero(seen == kind).flatten() for kind in (True, False)]


def best_of_kinds(blocks: Iterable[Tensor], kinds: Iterable[Sequence[Tensor]], count: int = 1) -> tuple[Tensor, Tensor]:
    """Positions ``(B, 2, count)`` of the best seen and the best unseen classes and their scores, best first.

    The first one wins ties; padded with -1 and -inf.

    Args:
        blocks: class scores ``(B, n)``, at least one block; NaN wins over every number.
        kinds: :func:`columns_by_kind` of each block.
        count: number of classes of each kind.
    """
    start, rows = 0, torch.empty(0, 0)
    found: list[tuple[Tensor, Tensor] | None] = [None, None]
    for scores, columns in zip(blocks, kinds, strict=True):
        rows = scores[:, :0]
        for kind, own in enumerate(columns):
            if len(own):
                part = scores[:, own]
                order = part.max(dim=1, keepdim=True).indices if count == 1 else _leading(part, count)
                found[kind] = _merged(found[kind], (own[order] + start, part.gather(1, order)), count)
        start += scores.shape[1]
    empty = rows.new_empty(len(rows), 0, dtype=torch.int64), rows
    both = [pair or empty for pair in found]
    best = torch.stack([_filled(index, count, -1) for index, _ in both], dim=1)
    return best, torch.stack([_filled(score, count, float("-inf")) for _, score in both], dim=1)


def _merged(found: tuple[Tensor, Tensor] | None, more: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Merge two rankings (positions and scores); all positions of the second follow those of the first."""
    if found is None:
        return more
    index, score = (torch.cat(two, dim=1) for two in zip(found, more, strict=True))
    order = score.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return index.gather(1, order), score.gather(1, order)


def _filled(values: Tensor, count: int, fill: float) -> Tensor:
    return torch.cat([values, values.new_full((len(values), count - values.shape[1]), fill)], dim=1)
