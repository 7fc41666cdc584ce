"""The command: where it listens, what it prints, how it stops."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

import unseen.serve
from unseen.cli.serving import is_public, listen
from unseen.errors import UnseenError


def test_the_next_free_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listen("127.0.0.1", port) as other:
            assert port < other.getsockname()[1] <= port + 50
            assert other.proto == socket.IPPROTO_TCP  # else answers are delayed


def test_wrong_addresses_are_one_line():
    for host in ("no-such-host.invalid", "203.0.113.7"):
        with pytest.raises(UnseenError, match=host):
            listen(host, 8000)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False),
        ("localhost", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.0.5", True),
    ],
)
def test_who_can_reach_it(host, public):
    assert is_public(host) is public


@pytest.fixture(scope="module")
def saved(recognizer, tmp_path_factory):
    return recognizer.save(tmp_path_factory.mktemp("saved") / "tiny")


def test_start_ask_stop(commands, saved, png, tmp_path):
    call = ["serve", saved, "--port", "8765", "--host", "0.0.0.0", "--save"]
    started = commands.start(tmp_path, *call, environment=os.environ | {"COLUMNS": "200"})
    try:
        started.until(lambda: "press Ctrl-C to stop" in started.out)
        url = next(word for word in started.out.split() if word.startswith("http"))
        answer = httpx.post(f"{url}api/predict", files={"images": ("a.png", png)}, timeout=60)
        assert len(answer.json()["predictions"][0]["classes"]) == 5
        assert httpx.get(url).text.startswith("<!doctype html>")
        httpx.post(f"{url}api/classes", json={"name": "kept", "like": "emu"}).raise_for_status()
        started.send_signal(signal.SIGINT)
        assert started.poll(30) == 0
    finally:
        started.kill()
    assert started.out.splitlines()[-1] == "stopped"
    assert "anyone who can reach this machine" in started.err
    assert "Traceback" not in started.err
    assert "\nkept," in (saved / "classes-in-use.csv").read_text()


def test_the_pages_table_has_the_columns_of_the_command_lines():
    from unseen.model.predictions import Extent, columns

    script = (Path(unseen.serve.__file__).parent / "static/page/words.js").read_text(encoding="utf-8")
    (header,) = re.findall(r'header = \[("image".*?)\];', script)
    (taxa,) = re.findall(r"taxa = about\.ranks\.length \? \[(.*?), \.\.\.about\.ranks", script)
    (weighed,) = re.findall(r"weighed = about\.prior \? \[(.*?)\]", script)
    parts = {
        "others": '"class_2", "confidence_2"',
        "taxa": f'{taxa}, "genus", "genus_confidence"',
        "weighed": weighed,
    }
    for name, written in parts.items():
        header = header.replace(f"...{name}", written)
    extent = Extent(2, ranks=("genus",), prior=True)
    assert header == ", ".join(f'"{name}"' for name in columns(extent))
    assert "flatMap((place) => [`class_${place}`, `confidence_${place}`])" in script
    assert "flatMap((rank) => [rank, `${rank}_confidence`])" in script
