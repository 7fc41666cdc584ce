"""What class scores decide: the best classes with their confidence, and the best seen and the best unseen class.

Class scores come in blocks of classes, so that any number of classes is ranked in bounded memory. B images, N classes.
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
        confidence: float64 ``(B, k)`` softmax over all classes in question.
    """

    index: np.ndarray
    score: np.ndarray
    confidence: np.ndarray


def calibrated(scores: Tensor, seen: np.ndarray, gamma: float, temperature: float = 1.0) -> Tensor:
    """(S - gamma seen) / T, whose order ranks classes and whose softmax is the confidence.

    Args:
        scores: ``(B, N)`` raw class scores.
        seen: bool ``(N,)``.
        gamma: calibration offset.
        temperature: T.
    """
    return (scores - gamma * torch.from_numpy(seen.copy()).to(scores)) / temperature


def best_classes(
    blocks: Iterable[tuple[Tensor, Tensor]], seen: np.ndarray, count: int, *, gamma: float, temperature: float
) -> Best:
    """The best classes of each image; of equal ones the first.

    Args:
        blocks: rising positions ``(n,)`` and float64 raw scores ``(B, n)`` of the classes in question; at least one.
        seen: bool ``(N,)`` of all classes.
        count: k; fewer where fewer classes are in question.
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
        raise UnseenError("the scores of an image are not finite", hint="restore the model's files, or train again")
    return Best(index.cpu().numpy(), score.cpu().numpy(), confidence.cpu().numpy())


def _leading(values: Tensor, count: int) -> Tensor:
    """``(B, k)`` columns of the largest of ``values`` ``(B, n)``, largest first, of equal ones the first."""
    if values.shape[1] <= 2 * count:
        return values.sort(dim=1, descending=True, stable=True).indices[:, :count]
    found = values.topk(count + 1, dim=1)
    order = found.indices[:, :count].sort(dim=1).values
    order = order.gather(1, values.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    tied = found.values[:, count - 1] == found.values[:, count]  # topk does not say which of them it takes
    if tied.any():
        order[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return order


def columns_by_kind(seen: Tensor) -> list[Tensor]:
    """Columns of the seen and of the unseen classes among ``(n,)``."""
    return [torch.nonzero(seen == kind).flatten() for kind in (True, False)]


def best_of_kinds(blocks: Iterable[Tensor], kinds: Iterable[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """Best seen and best unseen class ``(2, B)`` and their scores; of equal ones the first.

    Args:
        blocks: class scores ``(B, n)``, at least one block; NaN wins over every number.
        kinds: :func:`columns_by_kind` of each block; a kind without a class has -1 and -inf.
    """
    start, best, top = 0, None, None
    for scores, columns in zip(blocks, kinds, strict=True):
        if best is None or top is None:
            best = scores.new_full((2, len(scores)), -1, dtype=torch.int64)
            top = scores.new_full((2, len(scores)), float("-inf"))
        for kind, own in enumerate(columns):
            if len(own):
                value, at = scores[:, own].max(dim=1)
                better = (value > top[kind]) | value.isnan() | (best[kind] < 0)
                best[kind] = torch.where(better, own[at] + start, best[kind])
                top[kind] = torch.where(better, value, top[kind])
        start += scores.shape[1]
    assert best is not None
    assert top is not None
    return best, top
