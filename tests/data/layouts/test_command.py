"""``unseen import`` of exports, as a person uses it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from unseen import cli
from unseen.data.layouts import LAYOUTS, sheets

spec = importlib.util.spec_from_file_location("samples", Path(__file__).with_name("samples.py"))
samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(samples)


@pytest.fixture
def unseen(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unseen", *map(str, arguments)])
        monkeypatch.setattr(cli.out, "_width", 200)
        status = 0
        try:
            cli.main()
        except SystemExit as leave:
            status = leave.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_boxes_then_a_table(unseen, tmp_path):
    status, out, _ = unseen("import", samples.coco(tmp_path / "export"), tmp_path / "birds", "--margin", "0.2")
    assert status == 0
    assert "read as coco" in out
    assert "2 images of 2 classes" in out
    assert f"unseen init {tmp_path / 'birds'}" in out
    (tmp_path / "t.csv").write_text("species,wing\nrook,5\ncrow,6\n")
    status, out, _ = unseen("import", tmp_path / "t.csv", tmp_path / "birds")
    assert (status, out.splitlines()[-1]) == (0, f"next: unseen check {tmp_path / 'birds'}")


def test_only_and_left_out(unseen, tmp_path):
    source = samples.inaturalist(tmp_path / "export")
    (tmp_path / "export/photos/crow/medium.jpg").unlink()
    status, out, err = unseen("import", source, tmp_path / "birds", "--label", "common_name")
    assert status == 0
    assert "ignored: " in err
    assert "1 image of 1 class" in out
    status, _, err = unseen("import", source, tmp_path / "other", "--only", "Jay")
    assert (status, "no image with a class" in err) == (2, True)


def test_a_link_to_a_sheet(unseen, tmp_path, monkeypatch):
    def fetch(address, target):
        assert address.endswith("/export?format=csv&gid=5")
        target.write_text("class,big\nrook,yes\n")
        return target

    monkeypatch.setattr(sheets, "fetch_table", fetch)
    status, _, _ = unseen("import", "https://docs.google.com/spreadsheets/d/abc/edit#gid=5", tmp_path / "birds")
    assert status == 0
    assert (tmp_path / "birds/classes.csv").read_text() == "class,big\nrook,yes\n"


def test_layouts_are_listed(unseen):
    status, out, _ = unseen("list", "layouts", "--json")
    assert status == 0
    assert all(f'"{name}"' in out for name in LAYOUTS)
