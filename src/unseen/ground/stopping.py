"""Stop a process with SIGINT, as from a terminal, or SIGTERM, as from a scheduler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOON = 0.05
"""Seconds after which a signal that arrived in a finalizer is sent again."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """Signal handler: raise ``KeyboardInterrupt``; in a finalizer, where Python swallows exceptions, soon after it."""
    inner = frame
    while inner is not None:
        if inner.f_code.co_name == "__del__":
            again = threading.Timer(SOON, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        inner = inner.f_back
    raise KeyboardInterrupt


@contextmanager
def at_once() -> Iterator[None]:
    """Within this context both raise ``KeyboardInterrupt``; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag to poll; outside the main thread it is never set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            interrupt(number, frame)
        asked.set()

    before = {s: signal.signal(s, handle) for s in SIGNALS}
    try:
        yield asked.is_set
    finally:
        for number, old in before.items():
            signal.signal(number, old)
