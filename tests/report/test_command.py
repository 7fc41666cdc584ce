"""``unseen report``: what it writes, prints and refuses."""

from __future__ import annotations

import json
import sys

import pytest

import unseen as library
from pages import sound
from unseen import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Run ``unseen report``; gives status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unseen", "report", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as leave:
            status = leave.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def run(tiny_guide, tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    options = {"backbone": tiny_backbone, "cache": folder / "cache", "device": "cpu", "draws": 1}
    return library.fit("eszsl", tiny_guide, folder / "run", **options)


def test_report_is_written_again(run, command, tmp_path):
    common = ("--cache", run.folder.parent / "cache", "--device", "cpu")
    status, out, _ = command(run.folder, *common)
    assert status == 0
    assert out.strip() == str(run.folder / "report.html")
    first = (run.folder / "report.html").read_bytes()
    page = tmp_path / "colleague.html"
    status, out, _ = command(run.folder, *common, "-o", page, "--json")
    assert json.loads(out) == {"json_version": 1, "report": str(page)}
    assert page.read_bytes() == first  # the same run gives the same page
    status, _, _ = command(run.folder, *common, "-o", page, "--examples", 2)
    assert status == 0
    shown = [a for tag, a in sound(page).tags if tag == "article" and a["class"].startswith("card")]
    assert 2 <= len(shown) <= 4


def test_what_is_refused(run, command, tmp_path):
    status, _, err = command(run.folder, "-o", tmp_path / "page.pdf")
    assert status == 2
    assert "not an .html file" in err
    status, _, err = command(tmp_path)
    assert status == 2
    assert "not a run folder" in err
