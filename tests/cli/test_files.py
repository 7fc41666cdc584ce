"""Options from files and the environment, and what a command says of its work."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import hints
from unseen.ground.files import read_json

SMALL = ["--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64"]
SMALL += ["--backbone-option", "output_stride=16"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_what_a_run_writes_can_be_fed_back(unseen, tiny_guide, tmp_path, cache):
    more = ["--set", "lambda_cal=0.3", "--epochs", "1", "--recipe", "lr=1e-3", "--protocol", "both", "--seeds", "3,"]
    more += ["--zoom", "2"]
    where = ["--cache", cache, "--device", "cpu", "--no-report"]
    status, _, err = unseen("train", tiny_guide, "-m", "global", *SMALL, *more, *where, "-o", tmp_path / "a")
    assert status == 0, err
    config = tmp_path / "a" / "config.json"
    status, _, err = unseen("train", "--config", config, *where, "-o", tmp_path / "b")
    assert status == 0, err
    again = read_json(tmp_path / "b" / "config.json")
    assert again == read_json(config)
    status, _, err = unseen("train", "--config", config, *where, "--seeds", "4,", "-o", tmp_path / "c")
    assert status == 0, err
    assert read_json(tmp_path / "c" / "config.json") == again | {"seeds": [4]}


def test_a_file_by_hand(unseen, tiny_guide, tmp_path, cache):
    (tmp_path / "run.yaml").write_text(
        f"dataset: {tiny_guide}\nmethod: eszsl\nbackbone: test_resnet\nbackbone-weights: random\nimage-size: 64\n"
        f"cache: {cache}\nset: {{}}\nreport: false\ndevice: cpu\noutput: {tmp_path / 'run'}\n"
    )
    status, _, err = unseen("train", "--config", tmp_path / "run.yaml")
    assert status == 0, err
    assert json.loads((tmp_path / "run/config.json").read_text())["method"] == "eszsl"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imagesize: 3", 'no option "imagesize" — did you mean "image_size"?'),
        ("- a", "not a mapping of options"),
        ("a: [", "not valid YAML"),
        ("image-size: much", "image-size"),
    ],
)
def test_a_file_that_is_wrong(unseen, tmp_path, text, words):
    (tmp_path / "run.yaml").write_text(text)
    status, _, err = unseen("train", "fieldguide", "--config", tmp_path / "run.yaml")
    assert status == 2
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", [name for name, options in hints.commands().items() if "--output" in options])
def test_no_command_writes_something_else_into_a_workbook(unseen, tiny_guide, tmp_path, monkeypatch, name):
    """A file .xlsx is a workbook; other commands refuse the name in one line, also those that write a folder."""
    if name in ("predict", "merge"):  # they write workbooks
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.csv").write_text("class,red\nRook,1\n")
    (tmp_path / "x.jpg").touch()
    arguments = {
        "describe": ["classes.csv", "--attributes", "classes.csv", "--endpoint", "http://localhost:9", "--model", "x"],
        "vectors": [tiny_guide, "--from", "glove"],
        "schema": [],
        "demo": [],
        "prepare": ["cub", "--root", tmp_path],
        "ablate": ["eszsl", "fieldguide"],
        "compare": ["eszsl", "fieldguide"],
        "train": ["fieldguide"],
        "reproduce": ["eszsl-fieldguide"],
    }.get(name, ["run", "x.jpg"])
    if name in ("export", "report", "figures"):
        arguments = arguments[:1]
    status, _, err = unseen(*name.split(), *arguments, "-o", "x.xlsx")
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("error: x.xlsx: "), err
    assert not (tmp_path / "x.xlsx").exists()


def test_options_from_the_environment(unseen, tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_DEVICE", "nonsense")
    monkeypatch.setenv("UNSEEN_CONFIG", str(tmp_path / "none.yaml"))
    status, _, err = unseen("list")
    assert (status, "none.yaml: No such file" in err) == (2, True)
    monkeypatch.delenv("UNSEEN_CONFIG")
    status, _, err = unseen("train", "fieldguide")
    assert (status, "nonsense" in err) == (2, True)


def test_every_option_has_a_variable_of_its_command(unseen, tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("seeds: 2,\nset: [lambda_cal=1]\n")
    told = {}
    monkeypatch.setattr(
        "unseen.training.run.fit", lambda config, *_, **__: told.update(config.to_json()) or sys.exit(0)
    )
    for name, value in {"SEEDS": "5,6", "SET": "lambda_cal=0.3 lambda_distill=0.5", "REPORT": "false"}.items():
        monkeypatch.setenv(f"UNSEEN_TRAIN_{name}", value)
    call = ["train", "fieldguide", "-m", "msdn", "--device", "cpu", "-o", tmp_path / "run"]
    unseen(*call, "--config", tmp_path / "run.yaml")
    assert (told["seeds"], told["settings"]) == ([5, 6], {"lambda_cal": "0.3", "lambda_distill": "0.5"})
    unseen(*call, "--seeds", "7,")
    assert told["seeds"] == [7]
    monkeypatch.setenv("UNSEEN_CLASSES_LIST_DEVICE", "unused")
    monkeypatch.setenv("UNSEEN_TRAIN_EPOCHS", "many")
    status, _, err = unseen(*call)
    assert (status, "--epochs" in err) == (2, True)


def test_quiet_and_verbose(tmp_path):
    """In a process of its own, since they are for the whole of it."""

    def call(*words):
        command = [sys.executable, "-m", "unseen", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = call("-q", "check", tmp_path / "none")
    assert (done.returncode, done.stderr) == (2, "")
    assert "no such folder" in done.stdout
    done = call("-q", "classes", "list", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    done = call("-v", "classes", "list", tmp_path / "none")
    assert "Traceback" in done.stderr
    assert "not a run folder" in done.stderr
    assert "--config" in call("check", "--help").stdout
