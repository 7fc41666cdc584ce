"""A hub that does not answer costs seconds, and what is cached is used."""

from __future__ import annotations

import socket
import time

import pytest
from huggingface_hub import constants

from unseen.ground import hub


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    asked = hub._answers
    asked.cache_clear()
    yield monkeypatch
    asked.cache_clear()


def test_a_hub_that_refuses_or_is_silent_is_offline_in_seconds(online):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    online.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    assert hub.look_for_hub() is False
    assert constants.HF_HUB_OFFLINE is True
    online.setattr(constants, "HF_HUB_OFFLINE", False)
    online.setattr(constants, "ENDPOINT", "https://silent.invalid")
    online.setattr(hub, "SECONDS", 0.5)

    def silent(*address):
        time.sleep(3)
        raise OSError

    online.setattr(hub.socket, "create_connection", silent)
    started = time.monotonic()
    assert hub.look_for_hub() is False
    assert time.monotonic() - started < 2.5


def test_a_hub_that_answers_is_asked(online):
    with socket.create_server(("127.0.0.1", 0)) as server:
        online.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.look_for_hub() is True
        online.setenv("https_proxy", f"127.0.0.1:{server.getsockname()[1]}")
        online.setattr(constants, "ENDPOINT", "https://hub.invalid")
        assert hub.look_for_hub() is True  # by way of the proxy
    assert constants.HF_HUB_OFFLINE is False


def test_whoever_is_offline_by_choice_is_not_asked(online):
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    online.setattr(hub, "_answers", lambda _: pytest.fail("asked"))
    assert hub.look_for_hub() is False


def test_the_limit_is_under_five_seconds():
    assert hub.SECONDS < 5
