"""Accuracy against images a class, from the command line to the files."""

from __future__ import annotations

import json

import pytest

from unseen.cli import app
from unseen.errors import RunError, UnseenError
from unseen.evaluation.mixtures import KINDS
from unseen.experiments.batches import cells
from unseen.experiments.shots import measure_shots, parse_shots
from unseen.model.support import space_beside


def test_shots_of_a_comparison(tiny_guide, tmp_path, capsys, monkeypatch):
    from unseen.cli import comparing
    from unseen.experiments import compare, worker

    monkeypatch.setattr(compare, "run_worker", worker.work)  # in this process

    command = ["compare", "eszsl", str(tiny_guide), "--backbone", "test_resnet", "--backbone-weights", "random"]
    command += ["--image-size", "64", "--protocol", "honest", "--seeds", "1", "--cache", str(tmp_path / "cache")]
    command += [
        "--draws",
        "1",
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "out"),
        "--shots",
        "0,1,2",
        "--together",
        "--json",
    ]
    app(command, standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert {row["batch"] for row in map(cells, told["together"]["rows"])} == set(KINDS)
    assert "transductive" in (tmp_path / "out" / "together.md").read_text()
    found = told["shots"]
    assert [row["shots"] for row in found["rows"]] == [0, 1, 2]
    none, *some = found["rows"]
    assert none["both"] == none["attributes"]
    assert "images" not in none
    assert none["gain"]["better"]["T1"]["mean"] == 0
    for row in some:
        assert row["attributes"] == none["attributes"]  # the same images are named
        assert 0 <= row["images"]["T1"]["mean"] <= 1
    for ending in ("json", "csv", "md", "png", "svg"):
        assert (tmp_path / "out" / f"shots.{ending}").stat().st_size > 100
    comparing._print_shots(found, tmp_path / "out")
    assert "images a class" in capsys.readouterr().out
    space_beside(tmp_path / "out" / "eszsl" / "seed-0" / "honest.safetensors").unlink()
    with pytest.raises(RunError, match="no rule for support images"):
        measure_shots([("eszsl", tmp_path / "out" / "eszsl")], tmp_path / "again", (1,), cache=tmp_path / "cache")


def test_numbers_of_images():
    assert parse_shots("5,0,1,1") == (0, 1, 5)
    for text in ("", "a", "-1", "1,2000"):
        with pytest.raises(UnseenError, match="is not a list of numbers of images"):
            parse_shots(text)
