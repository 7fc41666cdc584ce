"""The published JSON Schema is that of the code, and what commands print is of it; the shell's completion of values."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unseen import cli
from unseen.cli import completing, schemas
from unseen.cli.common import JSON_VERSION
from unseen.data.layouts import LAYOUTS
from unseen.integrations.trackers import TRACKERS
from unseen.methods import METHODS

PUBLISHED = Path(__file__).parents[2] / "docs/reference/json-schema.json"


def test_the_published_schema_is_today_s():
    """Write it anew with: unseen schema -o docs/reference/json-schema.json."""
    assert json.loads(PUBLISHED.read_text()) == schemas.schema()
    assert schemas.schema()["json_version"] == JSON_VERSION == 1


def test_what_commands_print_is_of_the_schema(tiny_guide, tmp_path, monkeypatch, capsys):
    def printed(*words):
        monkeypatch.setattr(sys, "argv", ["unseen", *map(str, words), "--json"])
        with contextlib.suppress(SystemExit):
            cli.main()
        return json.loads(capsys.readouterr().out)

    where = ["--cache", tmp_path / "cache", "--device", "cpu"]
    small = ["--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64"]
    run, image = tmp_path / "run", sorted((tiny_guide / "images").rglob("*.jpg"))[0]
    calls = {
        "train": ["train", tiny_guide, "-m", "eszsl", "-o", run, "--no-report", "--draws", "1", *where, *small],
        "evaluate": ["evaluate", run, *where],
        "predict": ["predict", run, image, "--device", "cpu"],
        "predict --output": ["predict", run, image, "--device", "cpu", "-o", tmp_path / "found.csv"],
        "explain": ["explain", run, image, "--device", "cpu", "-o", tmp_path / "why.png"],
        "check": ["check", tiny_guide],
        "list": ["list", "methods"],
    }
    models = schemas.models()
    for name, words in calls.items():
        found = printed(*words)
        models[name].model_validate_json(json.dumps(found), strict=True)
        assert found["json_version"] == 1


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("runs/first", "runs/second", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/first/config.json").touch()
    (tmp_path / "runs/second/recognizer.json").touch()
    (tmp_path / "datasets/birds").mkdir(parents=True)
    (tmp_path / "datasets/birds/classes.xlsx").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_values_are_completed(here):
    assert completing.runs("r") == ["runs/first", "runs/second", "runs/"]
    assert completing.datasets("") == ["fieldguide", "datasets/birds", "datasets/", "elsewhere/", "runs/"]
    assert completing.datasets("f") == ["fieldguide"]
    assert set(completing.method_names()) == set(METHODS)
    assert completing.methods("msdnp") == ["msdnpp"]
    assert "resnet101.tv_in1k" in completing.backbones("resnet1")
    assert set(completing.layouts("")) - {"traits-long"} == set(LAYOUTS) - {"traits-long"}
    assert set(completing.NAMED["tracker"]) == set(TRACKERS)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("unseen train --method esz", "eszsl"),
        ("unseen predict runs/s", "runs/second"),
        ("unseen train x --tra", "--track"),
    ],
)
def test_as_bash_asks(here, words, found):
    source = str(Path(cli.__file__).parents[2])
    asked = {"_UNSEEN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv = ['unseen']; from unseen.cli import app; app(prog_name='unseen')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked | {"PYTHONPATH": source}, capture_output=True, text=True
    )
    assert found in done.stdout.split(), done.stderr
    heavy = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env=os.environ | asked | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    assert "| torch" not in heavy.stderr
