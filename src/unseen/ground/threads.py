"""Threads beside the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")


def plain_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Threads in which torch computes without threads of its own.

    After each operation, torch's threads wait for the next one by spinning, which takes a core from whoever needs it.

    Args:
        count: number of threads.
        name: prefix of their names.
    """
    pool, before, all_here = ThreadPoolExecutor(count, thread_name_prefix=name), torch.get_num_threads(), Barrier(count)

    def begin() -> None:
        torch.get_num_threads()  # the first call of a thread sets its number to the default
        torch.set_num_threads(1)
        all_here.wait()  # each thread takes one of these tasks

    for begun in [pool.submit(begin) for _ in range(count)]:
        begun.result()
    torch.set_num_threads(before)  # the default of new threads; each thread keeps its own number
    return pool


def side_by_side(work: Callable[[Task], Result], tasks: Sequence[Task], count: int) -> Iterator[Result]:
    """Results of tasks, in their order.

    Args:
        work: computes the result of a task.
        tasks: the tasks; the last ones begin first, so the longest should come last.
        count: number of tasks at a time, each in a thread in which torch and BLAS start no others. With 1, they are
            computed in the calling thread, with all of theirs.
    """
    if min(count, len(tasks)) < 2:
        yield from map(work, tasks)
        return
    with threadpool_limits(1, user_api="blas"):
        pool = plain_threads(min(count, len(tasks)), "side-by-side")
        try:
            futures = [pool.submit(work, task) for task in reversed(tasks)]
            while futures:
                yield futures.pop().result()
        finally:
            pool.shutdown(cancel_futures=True)
