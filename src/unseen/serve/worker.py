"""One thread that does all the work, and a bounded number of requests that wait for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from unseen.serve.settings import Refusal

T = TypeVar("T")


class Worker:
    """A thread that owns the model, with a bounded number of places for requests.

    A request holds a place from before its body is read until its answer is sent, so the places also bound the memory
    for uploads.

    Args:
        places: number of requests at one time.

    Attributes:
        taken: number of places in use.
        stopping: set once the server is stopping.
        before: called in the thread before every piece of work.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self.stopping = asyncio.Event()
        self.before: Callable[[], None] = lambda: None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recognizer")
        self._seconds = 0.1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            Refusal: 429, all places are taken.
        """
        if self.taken >= self.places:
            wait = max(1, math.ceil(self.taken * self._seconds))
            raise Refusal(
                429, f"{self.taken} requests are already waiting", "try again later", {"Retry-After": str(wait)}
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def do(self, work: Callable[[], T]) -> T:
        """Run a function in the thread, in turn.

        Raises:
            Refusal: 503, the server is stopping.
        """
        if self.stopping.is_set():
            raise stopping()

        def timed() -> T:
            start = time.perf_counter()
            try:
                self.before()
                return work()
            finally:
                self._seconds += 0.1 * (time.perf_counter() - start - self._seconds)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, timed)
        except asyncio.CancelledError:
            if self.stopping.is_set():
                raise stopping() from None
            raise

    def stop(self) -> None:
        """Let running work finish, reject waiting requests; returns at once."""
        self.stopping.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """The same, and wait for running work."""
        self.stop()
        self._thread.shutdown()


def stopping() -> Refusal:
    """The answer to a request once the server is stopping."""
    return Refusal(503, "the server is stopping", "try again later", {"Connection": "close"})
