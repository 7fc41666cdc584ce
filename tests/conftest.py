"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from forking import Commands
from places import DATA

os.environ.setdefault("UNSEEN_ENGINE", "torch")  # exact numbers are torch's; tests of engines name theirs
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job's, which commands would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the test processes run side by side, a core each
logging.getLogger("torch.__trace").propagate = True  # else pytest listens, and torch describes every step of an export


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run in ``make slow``, so that ``make test`` stays under 20 minutes on two cores."""
    if not os.environ.get("UNSEEN_SLOW"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: make slow"))
    # its fixtures take a minute: begun last, one worker would wait for the other
    items.sort(key=lambda item: item.path.name != "test_distributed.py")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs; the test is skipped where it is absent."""
    if not (DATA / "cub50").is_dir():
        pytest.skip(f"no real data at {DATA} (set UNSEEN_DATA)")
    return DATA


@pytest.fixture(scope="session")
def tiny_guide(tmp_path_factory) -> Path:
    """A dataset folder of 12 drawn species x 6 images at 64 px."""
    from unseen.fieldguide import build

    folder = tmp_path_factory.mktemp("data") / "tiny"
    build(folder, species=12, images=6, size=64, workers=1)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone():
    """A small network with seeded random weights at 64 px: 4 x 4 regions."""
    from unseen.backbones.spec import BackboneSpec

    return BackboneSpec(name="test_resnet", weights="random", image_size=64, options={"output_stride": 16})


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory) -> dict[str, Path]:
    """Folders of a tiny CLIP and a tiny SigLIP model; the test is skipped where the extra is not installed."""
    pytest.importorskip("transformers", reason="needs unseen[clip]")
    pytest.importorskip("sentencepiece", reason="needs unseen[clip]")
    import tiny_clip

    folder = tmp_path_factory.mktemp("pairs")
    return {kind: tiny_clip.make(folder / kind, kind) for kind in tiny_clip.KINDS}


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Run commands in processes of their own, which share the import of third-party packages."""
    with Commands() as made:
        yield made


@pytest.fixture
def unseen(monkeypatch, capsys):
    """Run a command; gives status, standard output and standard error. The options that its messages name exist."""
    import hints
    from unseen import cli

    known = hints.commands()

    def run(*arguments, width=200):
        monkeypatch.setattr(sys, "argv", ["unseen", *map(str, arguments)])
        monkeypatch.setattr(cli.out, "_width", width)
        status = 0
        try:
            cli.main()
        except SystemExit as leave:
            status = leave.code or 0
        captured = capsys.readouterr()
        words = [" ".join(map(str, arguments[:count])) for count in (2, 1)]
        command = next((name for name in words if name in known), None)
        assert [wrong for line in captured.err.splitlines() for wrong in hints.missing(line, command, known)] == []
        return status, captured.out, captured.err

    return run
