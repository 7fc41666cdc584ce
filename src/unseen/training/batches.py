"""Images in batches: in order, shared between processes, read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from unseen.ground.distributed import part
from unseen.training.steps import Features

K = TypeVar("K")
V = TypeVar("V")


def ahead(work: Callable[[K], V], keys: Iterable[K], features: Features) -> Generator[V]:
    """Yield ``work`` of every key in order; computes the next one in the background if features are read from disk."""
    if not getattr(features, "streams", False):
        yield from map(work, keys)
        return
    pending: deque[Future[V]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for key in keys:
            pending.append(pool.submit(work, key))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def batches(count: int, size: int = 64) -> Iterator[np.ndarray]:
    """Split the positions 0 ... count - 1 into runs of ``size``."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def own_batches(count: int, size: int = 64) -> tuple[list[np.ndarray], range]:
    """The batches that this process evaluates, and the positions in them; each position belongs to one process."""
    every = list(batches(count, size))
    mine = [every[i] for i in part(len(every))]
    return mine, range(mine[0][0], mine[-1][-1] + 1) if mine else range(0)
