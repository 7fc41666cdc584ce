"""The command as a person uses it: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from unseen import cli
from unseen.errors import UnseenError

BACKBONE = ["--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64"]
BACKBONE += ["--backbone-option", "output_stride=16"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def unseen(monkeypatch, capsys):
    """Run a command; gives status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unseen", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        status = 0
        try:
            cli.main()
        except SystemExit as leave:
            status = leave.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tiny_guide, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "msdn"
    argv = ["unseen", "train", "msdn", str(tiny_guide), *BACKBONE, "--epochs", "3", "-o", str(folder)]
    argv += ["--recipe", "lr=1e-3", "--seeds", "2", "--protocol", "both", "--cache", str(cache), "--device", "cpu"]
    before, sys.argv = sys.argv, argv
    try:
        cli.main()
    finally:
        sys.argv = before
    return folder


def test_train_prints_one_table_that_says_everything(unseen, trained, tiny_guide, cache):
    arguments = [tiny_guide, *BACKBONE, "--epochs", "3", "--recipe", "lr=1e-3", "-o", trained, "--cache", cache]
    status, out, _ = unseen("train", "msdn", *arguments, "--seeds", "2", "--protocol", "both", "--device", "cpu")
    assert status == 0
    for words in ("tiny", "test_resnet 64px random, frozen", "2 (0, 1)", "honest", "paper", "AUSUC", "chance"):
        assert words in out
    assert (trained / "report.html").is_file()


def test_train_json_is_the_results_file(unseen, trained, tiny_guide, cache):
    arguments = [tiny_guide, *BACKBONE, "--epochs", "3", "--recipe", "lr=1e-3", "-o", trained, "--cache", cache]
    _, out, _ = unseen("train", "msdn", *arguments, "--seeds", "2", "--protocol", "both", "--no-report", "--json")
    printed = json.loads(out)
    assert printed["protocols"] == json.loads((trained / "results.json").read_text())["protocols"]


def test_evaluate(unseen, trained, cache):
    status, out, _ = unseen("evaluate", trained, "--per-class", "--cache", cache, "--device", "cpu")
    assert status == 0
    assert "among unseen" in out
    _, text, _ = unseen("evaluate", trained, "--json", "--cache", cache, "--device", "cpu")
    found = json.loads(text)
    stored = json.loads((trained / "results.json").read_text())["protocols"]["honest"]["seeds"]
    for seed in ("0", "1"):
        assert found["seeds"][seed]["H"] == pytest.approx(stored[seed]["H"])
    # with gamma far above any score nothing is taken for seen
    _, text, _ = unseen("evaluate", trained, "--gamma", "1e6", "--json", "--cache", cache, "--device", "cpu")
    found = json.loads(text)["seeds"]["0"]
    assert (found["S"], found["U"]) == (0, found["T1"])


def test_predict_files_and_folders(unseen, trained, tiny_guide):
    folder = sorted((tiny_guide / "images").iterdir())[0]
    status, out, _ = unseen("predict", trained, folder, "--device", "cpu")
    assert status == 0
    assert "001.jpg" in out
    assert "006.jpg" in out
    _, text, _ = unseen("predict", trained, folder / "001.jpg", "--among", "unseen", "--top", "2", "--json")
    (found,) = json.loads(text)
    assert [c["seen"] for c in found["classes"]] == [False, False]
    assert found["picture"].endswith("001.jpg")


def test_explain_writes_a_figure(unseen, trained, tiny_guide, tmp_path):
    picture = next((tiny_guide / "images").rglob("*.jpg"))
    status, out, _ = unseen("explain", trained, picture, "-o", tmp_path / "why.png", "--device", "cpu")
    assert status == 0
    assert "seen/unseen offset" in out
    assert Image.open(tmp_path / "why.png").size[0] > 800
    _, text, _ = unseen("explain", trained, picture, "-o", tmp_path / "why.png", "--json", "--device", "cpu")
    found = json.loads(text)
    assert len(found["reasons"]) == 50
    assert len(found["reasons"][0]["heat"]) == 4  # the 4 x 4 grid
    assert sum(r["against"] for r in found["reasons"]) + found["lead_offset"] > 0  # the best one leads


def test_list(unseen):
    _, out, _ = unseen("list", "--json")
    assert {row["name"] for row in json.loads(out)} >= {"msdn", "eszsl", "global"}
    _, out, _ = unseen("list", "stages", "resnet101", "--json")
    assert {"stage": "final", "channels": "2048", "reduction": "1/32"} in json.loads(out)
    _, out, _ = unseen("list", "methods", "msdn")
    assert "golden numbers" in out


def test_every_command_has_help(unseen):
    _, out, _ = unseen("--help")
    for command in ("train", "evaluate", "predict", "explain", "list", "demo"):
        assert command in out
        status, text, _ = unseen(command, "--help")
        assert status == 0
        assert "--json" in text


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["train", "msd", "fieldguide"], 'did you mean "msdn"'),
        (["train", "msdn", "no-such-folder"], "no such folder"),
        (["train", "msdn", "{guide}", "--backbone", "resnet10"], "did you mean"),
        (["train", "msdn", "{guide}", "--backbone-weights", "x.safetensors"], "name the timm model too"),
        (["train", "msdn", "{guide}", "--backbone", "test_resnet", "--backbone-weights", "x.pth"], "no such weights"),
        (["train", "msdn", "{guide}", "--set", "lambda_cal"], "NAME=VALUE"),
        (["train", "msdn", "{guide}", "--seeds", "0"], "a number of seeds"),
        (["train", "msdn", "{guide}", "--mean", "a,b"], "0.5 or 0.485"),
        (["train", "msdn", "{guide}", "--protocol", "best"], "honest or paper"),
        (["train", "msdn", "{guide}", "--device", "tpu"], "auto or cpu"),
        (["evaluate", "{guide}"], "unseen train"),
        (["predict", "{guide}", "x.jpg"], "no such file"),
        (["list", "everything"], "methods, datasets or stages"),
    ],
)
def test_mistakes_are_one_line_and_status_2(unseen, tiny_guide, tmp_path, monkeypatch, arguments, mend):
    monkeypatch.chdir(tmp_path)
    status, out, err = unseen(*(a.replace("{guide}", str(tiny_guide)) for a in arguments))
    assert status == 2
    assert not out
    assert err.startswith("error: ")
    assert mend in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_broken_picture_is_named(unseen, trained, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    status, _, err = unseen("predict", trained, tmp_path / "broken.jpg", "--device", "cpu")
    assert status == 2
    assert "broken.jpg" in err


def test_usage_errors_are_short(unseen):
    status, _, err = unseen("train")
    assert status == 2
    assert "Missing argument" in err
    assert "Traceback" not in err


def test_seeds_and_pairs():
    assert cli._seeds("3") == (0, 1, 2)
    assert cli._seeds("214,") == (214,)
    assert cli._seeds("7,1") == (7, 1)
    assert cli._pairs(["a=1", "b=x=y"], "--set") == {"a": "1", "b": "x=y"}
    assert [cli._typed(t) for t in ("16", "0.5", "true", "same")] == [16, 0.5, True, "same"]
    with pytest.raises(UnseenError):
        cli._seeds("-1")
