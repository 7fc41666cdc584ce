"""Stopping by a signal, wherever it arrives."""

from __future__ import annotations

import signal
import time

import pytest

from unseen.ground.stopping import SIGNALS, at_once, stop_on_signal


class Signals:
    """Sends a signal to this process while it is finalized, where Python swallows exceptions."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def wait():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS)
class TestFinalizers:
    def test_at_once_is_soon_after_it(self, number):
        with at_once():
            sender = Signals(number)
            del sender
            with pytest.raises(KeyboardInterrupt):
                wait()

    def test_the_second_signal_is_not_lost(self, number):
        with stop_on_signal() as asked:
            signal.raise_signal(number)
            assert asked()
            sender = Signals(number)
            del sender
            with pytest.raises(KeyboardInterrupt):
                wait()


@pytest.mark.parametrize("number", SIGNALS)
def test_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with at_once(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
