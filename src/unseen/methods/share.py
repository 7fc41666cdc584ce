"""Which images of a step's batch a forward sees, if several processes share the batch.

Everything that concerns a batch as a whole (random numbers, exchange between images) goes through this module, so that
several processes together do what a single one would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Some rows of a batch.

    Args:
        rows: rows of this process.
        count: number of images in the whole batch.
        whole: maps these rows of a tensor to all rows of the batch, without gradient.
    """

    rows: range
    count: int
    whole: Callable[[Tensor], Tensor]


_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Within this context, forwards see the rows of ``share``; ``None`` for whole batches."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def random_rows(like: Tensor) -> Tensor:
    """Uniform in (0, 1), of the shape of ``like``, as if drawn for the whole batch; at least float32."""
    share = _share.get()
    whole = uniform(batch_size(like), *like.shape[1:], like=like)
    return whole if share is None else whole[share.rows.start : share.rows.stop]


def uniform(*shape: int, like: Tensor) -> Tensor:
    """Uniform among the centres of 2^16 equal parts of [0, 1]; at least float32, on the device of ``like``.

    A draw of 64 bits gives four numbers, in a third of the time of four draws.
    """
    count = math.prod(shape)
    bits = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    steps = bits.view(torch.int16)[:count].view(shape)
    return steps.to(torch.promote_types(like.dtype, torch.float32)).add_(2**15 + 0.5).mul_(2**-16)


def exchange(rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``change`` to the whole batch, without gradient, and return these rows of the result."""
    share = _share.get()
    return change(rows) if share is None else change(share.whole(rows))[share.rows.start : share.rows.stop]


def batch_size(rows: Tensor) -> int:
    """Number of images in the whole batch."""
    share = _share.get()
    return len(rows) if share is None else share.count
