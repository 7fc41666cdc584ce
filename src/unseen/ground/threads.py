"""Threads beside the main one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


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
