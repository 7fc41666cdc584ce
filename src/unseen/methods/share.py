"""Which images of a step's batch a forward sees, where several processes share the batch.

Whatever concerns a batch as a whole (random numbers, an exchange between its images) goes through here, so that the
processes together do what one alone would do.
"""

from __future__ import annotations

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
        rows: those that this process has.
        count: images in the whole batch.
        whole: these rows of a tensor, without gradient, to those of the whole batch.
    """

    rows: range
    count: int
    whole: Callable[[Tensor], Tensor]


_share: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Within it, forwards see the rows of ``share``; None for whole batches."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def random_rows(like: Tensor) -> Tensor:
    """Uniform in [0, 1), of the shape of ``like``, as if drawn for the whole batch."""
    share = _share.get()
    if share is None:
        return torch.rand_like(like)
    whole = torch.rand(share.count, *like.shape[1:], dtype=like.dtype, device=like.device)
    return whole[share.rows.start : share.rows.stop]


def exchange(rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """``change`` of the whole batch, without gradient, of which these rows are returned."""
    share = _share.get()
    return change(rows) if share is None else change(share.whole(rows))[share.rows.start : share.rows.stop]


def batch_size(rows: Tensor) -> int:
    """Images in the whole batch."""
    share = _share.get()
    return len(rows) if share is None else share.count
