"""The command as a person uses it: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from unseen import cli
from unseen.cli import configuring
from unseen.data.catalogue import load_dataset
from unseen.errors import UnseenError
from unseen.methods import every_method, find_method
from unseen.training import plan
from unseen.training.config import RunConfig
from unseen.training.plan import default_backbone

BACKBONE = ["--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64"]
BACKBONE += ["--backbone-option", "output_stride=16"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tiny_guide, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "msdn"
    argv = ["unseen", "train", str(tiny_guide), "--method", "msdn", *BACKBONE, "--epochs", "3", "-o", str(folder)]
    argv += [
        "--preset",
        "cub",
        "--recipe",
        "lr=1e-3",
        "--seeds",
        "2",
        "--draws",
        "1",
        "--protocol",
        "both",
        "--cache",
        str(cache),
        "--device",
        "cpu",
    ]
    before, sys.argv = sys.argv, argv
    try:
        cli.main()
    finally:
        sys.argv = before
    return folder


def test_train_prints_one_table_that_says_everything(unseen, trained, tiny_guide, cache):
    arguments = [tiny_guide, *BACKBONE, "--preset", "cub", "--epochs", "3", "--draws", "1", "--recipe", "lr=1e-3"]
    arguments += ["-o", trained, "--cache", cache]
    status, out, _ = unseen(
        "train", *arguments, "--method", "msdn", "--seeds", "2", "--protocol", "both", "--device", "cpu", width=80
    )
    assert status == 0
    for words in ("tiny", "test_resnet, 64 px, random, frozen", "seeds: 0, 1", "honest", "paper", "AUSUC", "Guessing"):
        assert words in " ".join(out.split())
    assert "Unseen classes, among " in out
    assert max(len(line) for line in out.splitlines() if str(trained) not in line) <= 80  # also the verdict
    assert (trained / "report.html").is_file()


def test_help_says_the_default_number_of_draws():
    """ "5 for closed forms and anchored, 3 for other gradient methods and tuned, 1 for other end-to-end methods"."""
    for name in every_method():
        kind = find_method(name)
        five, one = kind.closed_form or name == "anchored", kind.end_to_end and name != "tuned"
        config = RunConfig(dataset="birds", method=name, backbone=default_backbone("birds"))
        assert config.draw_count == (5 if five else 1 if one else 3)


def test_train_json_is_the_results_file(unseen, trained, tiny_guide, cache):
    arguments = [tiny_guide, *BACKBONE, "--preset", "cub", "--epochs", "3", "--draws", "1", "--recipe", "lr=1e-3"]
    arguments += ["-o", trained, "--cache", cache]
    _, out, _ = unseen(
        "train", *arguments, "--method", "msdn", "--seeds", "2", "--protocol", "both", "--no-report", "--json"
    )
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
    _, text, _ = unseen("evaluate", trained, "--protocol", "paper", "--json", "--cache", cache, "--device", "cpu")
    paper = json.loads((trained / "results.json").read_text())["protocols"]["paper"]["seeds"]
    assert json.loads(text)["seeds"]["1"]["H"] == pytest.approx(paper["1"]["H"])
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
    (found,) = json.loads(text)["items"]
    assert [c["seen"] for c in found["classes"]] == [False, False]
    assert found["image"].endswith("001.jpg")


def test_parts_of_a_model_trained_end_to_end(unseen, tiny_guide, tmp_path, cache):
    small = ["--preset", "recommended", "--set", "width=32", "--set", "parts=4", "--set", "attention_width=8"]
    recipe = ["--recipe", "batches=2", "--recipe", "batch_size=4", "--epochs", "1", "--recipe", "flip=false"]
    where = ["-o", tmp_path / "run", "--cache", cache, "--device", "cpu"]
    status, out, err = unseen(
        "train", tiny_guide, "--method", "mgmrn", *BACKBONE, "--stage=-3,-2,-1", *small, *recipe, *where
    )
    assert status == 0, err
    assert "fine-tuned" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "fine-tuned" in page
    assert ", frozen" not in page
    recorded = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert recorded["method"]["recipe"]["flip"] is False
    assert recorded["backbone"]["stages"] == [-3, -2, -1]
    image = sorted((tiny_guide / "images").rglob("*.*g"))[0]
    arguments = ["explain", tmp_path / "run", image, "--parts", "-o", tmp_path / "parts.png", "--device", "cpu"]
    status, out, _ = unseen(*arguments, "--json")
    assert status == 0
    found = json.loads(out)
    assert [len(maps) for maps in found["parts"].values()] == [4, 4, 4]
    assert Path(found["figure"]).read_bytes().startswith(b"\x89PNG")
    assert f"figure:  {tmp_path / 'parts.png'}" in unseen(*arguments)[1]


def test_explain_writes_a_figure(unseen, trained, tiny_guide, tmp_path):
    image = next((tiny_guide / "images").rglob("*.jpg"))
    status, out, _ = unseen("explain", trained, image, "-o", tmp_path / "why.png", "--device", "cpu")
    assert status == 0
    assert "seen/unseen offset" in out
    assert Image.open(tmp_path / "why.png").size[0] > 800
    _, text, _ = unseen("explain", trained, image, "-o", tmp_path / "why.png", "--json", "--device", "cpu")
    found = json.loads(text)
    assert len(found["reasons"]) == 50
    assert len(found["reasons"][0]["heat"]) == 4  # the 4 x 4 grid
    assert (
        sum(r["against"] for r in found["reasons"]) + sum(t["against"] for t in found["terms"]) > 0
    )  # the best one leads


def test_figures_go_where_asked_with_their_numbers(unseen, trained, cache, tmp_path):
    common = ["figures", trained, "--cache", cache, "--device", "cpu", "--seed", "1"]
    options = ["--kind", "tsne", "--format", "svg", "--perplexity", "5", "--classes", "4", "-o", tmp_path / "figs"]
    status, out, _ = unseen(*common, *options)
    assert status == 0
    assert str(tmp_path / "figs" / "tsne.svg") in out
    _, text, _ = unseen(*common, *options, "--json")
    (found,) = json.loads(text)["figures"]
    assert sorted(p.name for p in (tmp_path / "figs").iterdir()) == ["tsne.csv", "tsne.json", "tsne.svg"]
    assert "4 classes, drawn with seed 0" in found["caption"]
    assert found["caption"].endswith("honest protocol, seed 1.")
    images = tmp_path / "mine"
    images.mkdir()
    Image.new("RGB", (64, 64)).save(images / "a.png")
    (images / "b.nef").write_bytes(b"II*")
    attention = ["--kind", "attention", "--format", "png", "-o", tmp_path / "more", "--image", images]
    status, _, err = unseen(*common, *attention)
    assert (status, "1 file ignored, .nef, a camera raw file" in err) == (0, True), err
    status, _, err = unseen(*common, "--kind", "umap")
    assert status == 2
    assert "one of tsne, attention, attributes" in err


def test_list(unseen):
    _, out, _ = unseen("list", "--json")
    assert {row["name"] for row in json.loads(out)["items"]} >= {"msdn", "eszsl", "global"}
    _, out, _ = unseen("list", "stages", "resnet101", "--json")
    assert {"stage": "final", "channels": "2048", "reduction": "1/32"} in json.loads(out)["items"]
    _, out, _ = unseen("list", "methods", "msdn")
    assert "golden numbers" in out


def test_every_command_has_help(unseen):
    _, out, _ = unseen("--help")
    for command in ("train", "evaluate", "predict", "explain", "figures", "list", "demo"):
        assert command in out
        status, text, _ = unseen(command, "--help")
        assert status == 0
        assert "--json" in text


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "fieldguide", "--method", "msd"], 'did you mean "msdn"'),
        (["train", "no-such-folder", "--method", "msdn"], "no such folder"),
        (["train", "{guide}", "--method", "msdn", "--backbone", "resnet10"], "did you mean"),
        (
            ["train", "{guide}", "--method", "msdn", "--backbone-weights", "x.safetensors"],
            "add --backbone with a timm model",
        ),
        (
            ["train", "{guide}", "--method", "msdn", "--backbone", "test_resnet", "--backbone-weights", "x.pth"],
            "no such weights",
        ),
        (["train", "{guide}", "--method", "msdn", "--set", "lambda_cal"], "NAME=VALUE"),
        (["train", "{guide}", "--method", "msdn", "--seeds", "0"], "a number of seeds"),
        (["train", "{guide}", "--method", "msdn", "--mean", "a,b"], "0.5 or 0.485"),
        (["train", "{guide}", "--method", "msdn", "--protocol", "best"], "honest, paper or both"),
        (["train", "{guide}", "--method", "msdn", "--store-dtype", "int8"], "float16, bfloat16, float32"),
        (["explain", "{guide}", "{guide}"], "unseen train"),
        (["explain", "{guide}", "{guide}/images.csv", "-o", "x.txt"], "use a file name that ends in .png"),
        (["train", "{guide}", "--method", "msdn", "--device", "tpu"], "use auto, cpu"),
        (["evaluate", "{guide}"], "unseen train"),
        (["predict", "{guide}", "x.jpg"], "no such file"),
        (["list", "everything"], "methods, datasets, layouts, experiments or stages"),
        (["figures", "{guide}"], "unseen train"),
    ],
)
def test_mistakes_are_one_line_and_status_2(unseen, tiny_guide, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    status, out, err = unseen(*(a.replace("{guide}", str(tiny_guide)) for a in arguments))
    assert status == 2
    assert not out
    assert err.startswith("error: ")
    assert hint in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_broken_image_is_named_and_the_others_predicted(unseen, trained, tiny_guide, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    good = next((tiny_guide / "images").rglob("*.jpg"))
    status, out, err = unseen("predict", trained, tmp_path / "broken.jpg", good, "--device", "cpu", "--json")
    assert status == 1  # some images failed; 2 is a wrong call
    assert "broken.jpg" in err
    broken, found = json.loads(out)["items"]
    assert "Pillow cannot read this image" in broken["error"]
    assert (found["image"], "error" in found) == (str(good), False)


def test_each_candidate_has_its_own_row(unseen, trained, tiny_guide):
    """A long name that wraps must not push the confidences to another class."""
    good = next((tiny_guide / "images").rglob("*.jpg"))
    _, text, _ = unseen("predict", trained, good, "--top", "3", "--device", "cpu", "--json")
    _, out, _ = unseen("predict", trained, good, "--top", "3", "--unknown", "off", "--device", "cpu", width=64)
    lines = [row for row in out.splitlines() if "%" in row]
    for candidate, line in zip(json.loads(text)["items"][0]["classes"], lines, strict=True):
        assert f"{100 * candidate['confidence']:.0f}%" in line
        assert candidate["name"].split()[0][:10] in line


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_stopping_says_so_and_the_same_command_goes_on(unseen, commands, tiny_guide, cache, tmp_path, signal_name):
    """The real console script, stopped in the middle: status 130 and one line, then the rest."""
    argv = ["train", str(tiny_guide), "--method", "msdn", *BACKBONE, "--recipe", "lr=1e-3"]
    argv += ["-o", str(tmp_path / "run"), "--cache", str(cache), "--device", "cpu", "--no-report"]
    argv += ["--epochs", "60", "--draws", "1", "--holdouts", "0"]
    lines = tmp_path / "run" / "seed-0" / "validation" / "metrics.jsonl"
    started = commands.start(tmp_path, *argv)
    started.until(lambda: lines.is_file() and lines.stat().st_size)
    started.send_signal(getattr(signal, signal_name))
    assert started.end() == 130, started.err
    assert re.search(r"stopped \(stopped (at|in the test after) step \d+ of \d+\); repeat the command", started.err)
    steps = lines.read_text()
    status, _, err = unseen(*argv)
    assert status == 0, err
    assert lines.read_text().startswith(steps)
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_stopping_before_there_is_a_run_says_so_too(unseen, tiny_guide, tmp_path, monkeypatch, signal_name):
    number = getattr(signal, signal_name)
    before = signal.getsignal(number)
    monkeypatch.setattr("unseen.cli.options.check_dataset", lambda _: os.kill(os.getpid(), number))
    status, out, err = unseen("train", tiny_guide, "-o", tmp_path / "run")
    assert (status, out, err) == (130, "", "stopped\n")
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(number) is before


def test_a_run_that_never_started_leaves_the_folder_free(unseen, tiny_guide, cache, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"x" * 100)
    common = [
        "train",
        tiny_guide,
        "--method",
        "eszsl",
        "--cache",
        cache,
        "--device",
        "cpu",
        "--no-report",
        "--draws",
        "1",
        "-o",
        tmp_path / "run",
    ]
    status, _, err = unseen(*common, "--backbone", "test_resnet", "--backbone-weights", bad, "--image-size", "64")
    assert status == 2, err
    status, _, err = unseen(*common, *BACKBONE)
    assert status == 0, err


def test_the_shipped_backbone_on_an_own_folder_that_is_read_once(unseen, tiny_guide, cache, tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(plan, "load_dataset", lambda name, **more: read.append(name) or load_dataset(name, **more))
    common = ["--cache", cache, "--device", "cpu", "--draws", "1", "-o", tmp_path / "run", "--json"]
    status, _, err = unseen("train", tiny_guide, "--method", "eszsl", "--backbone", "fieldguide", *common)
    assert status == 0, err
    assert (tmp_path / "run" / "report.html").is_file()
    assert read == [str(tiny_guide)]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["backbone"]["weights"].endswith("backbone.safetensors")


def test_more_looks_from_training_to_prediction(unseen, tiny_guide, cache, tmp_path):
    common = ["--cache", cache, "--device", "cpu", "--draws", "1", "-o", tmp_path / "run"]
    status, out, err = unseen("train", tiny_guide, "--method", "eszsl", *BACKBONE, "--zoom", "2", "--mirror", *common)
    assert status == 0, err
    assert "64 px, zoom 2, mirrored" in out + err
    assert "64 px, zoom 2, mirrored" in (tmp_path / "run" / "report.html").read_text()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert [manifest["backbone"][key] for key in ("zoom", "mirror", "regions")] == [2, True, "4x4"]
    status, out, err = unseen("save", tmp_path / "run", tmp_path / "saved")
    assert status == 0, err
    assert "images of 64 px, zoom 2, mirrored |" in (tmp_path / "saved" / "README.md").read_text()
    image = next((tiny_guide / "images").rglob("*.*"))
    status, out, err = unseen("predict", tmp_path / "saved", image, "--json")
    assert status == 0, err
    status, out, err = unseen("explain", tmp_path / "run", image, "-o", tmp_path / "heat.png")
    assert status == 0, err
    assert "zoom" not in err


def test_output_that_is_a_file_is_one_line(unseen, tiny_guide, cache, tmp_path):
    (tmp_path / "file").write_text("mine")
    status, _, err = unseen(
        "train", tiny_guide, "--method", "eszsl", *BACKBONE, "--cache", cache, "-o", tmp_path / "file"
    )
    assert status == 2
    assert "cannot create" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_usage_errors_are_short(unseen):
    status, _, err = unseen("train")
    assert status == 2
    assert "Missing argument" in err
    assert "Traceback" not in err


def test_seeds_and_pairs():
    assert configuring.parse_seeds("3") == (0, 1, 2)
    assert configuring.parse_seeds("214,") == (214,)
    assert configuring.parse_seeds("7,1") == (7, 1)
    assert configuring.pairs(["a=1", "b=x=y"], "--set") == {"a": "1", "b": "x=y"}
    texts = ("16", "0.5", "true", "same", "[24, 48]")
    assert [configuring.typed(t) for t in texts] == [16, 0.5, True, "same", [24, 48]]
    with pytest.raises(UnseenError):
        configuring.parse_seeds("-1")


def test_clip_by_names_from_a_relative_folder(unseen, tiny_pairs, tiny_guide, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_pairs["clip"].parent)
    options = ["--backbone", "hf:clip", "-o", tmp_path / "run", "--cache", cache, "--device", "cpu"]
    status, out, _ = unseen(
        "train", tiny_guide, "--method", "clip", *options, "--set", "templates=a photo of a {}, a bird."
    )
    assert status == 0
    assert f"hf:{tiny_pairs['clip']}" in re.sub(r"\s", "", out)
    monkeypatch.chdir(tmp_path)
    image = next((tiny_guide / "images").rglob("*.jpg"))
    status, out, _ = unseen("explain", tmp_path / "run", image, "--nearest", "0", "-o", tmp_path / "why.png")
    assert status == 0
    assert "the class's name" in out
    assert "other attributes" not in out  # none counts
    width, height = Image.open(tmp_path / "why.png").size
    assert width > 2 * height  # the image and one bar: there is nothing to draw heat maps of
    status, _, err = unseen(
        "train", tiny_guide, "--method", "clip", "--backbone", "test_resnet", "-o", tmp_path / "other"
    )
    assert (status, "hf:MODEL" in err) == (2, True)


@pytest.fixture
def here(monkeypatch):
    """Rows of a comparison in this process."""
    from unseen.experiments import compare, worker

    monkeypatch.setattr(compare, "run_worker", worker.work)


@pytest.mark.parametrize("width", [100, 400])
def test_compare_prints_one_table_and_writes_files(unseen, here, tiny_guide, cache, tmp_path, width):
    arguments = ["compare", "eszsl", "no cal=msdn:lambda_cal=0", tiny_guide, *BACKBONE, "--cache", cache]
    arguments += ["--seeds", "2", "--draws", "1", "--epochs", "2", "--recipe", "batch_size=8", "--device", "cpu"]
    arguments += ["-o", tmp_path / "out"]
    status, out, _ = unseen(*arguments, width=width)
    assert status == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    for row in found["rows"]:
        for protocol in ("honest", "paper"):
            assert f"{100 * row[protocol]['metrics']['T1']['mean']:.1f}" in out
    for words in ("eszsl", "no cal", "honest", "paper", "T1, honest: ", "compare.md"):
        assert words in out
    _, text, _ = unseen(*arguments, "--json")
    assert json.loads(text) == {"json_version": 1, **found}


def test_compare_ends_with_1_if_no_row_finishes_and_is_honest_without_test_images(
    unseen, tiny_guide, cache, tmp_path, monkeypatch
):
    from unseen.data import catalogue
    from unseen.experiments import compare, worker

    blind, asked, read = tmp_path / "blind", [], []
    shutil.copytree(tiny_guide, blind, ignore=shutil.ignore_patterns("parts.csv"))
    listed = pd.read_csv(blind / "images.csv")
    listed[listed["split"] != "test_unseen"].to_csv(blind / "images.csv", index=False)

    def fail(task):
        if task.what == "fit" and task.config.method == "eszsl":
            asked.append(task.config.protocols)
            raise worker.WorkerError("too little memory")
        worker.work(task)

    def load(name, **more):
        read.append(name)
        return load_dataset(name, **more)

    monkeypatch.setattr(compare, "run_worker", fail)
    monkeypatch.setattr(catalogue, "load_dataset", load)  # of the command
    monkeypatch.setattr(compare, "load_dataset", load)

    def run(data, *rows):
        where = ["--cache", cache, "--device", "cpu", "-o", tmp_path / f"out-{data.name}"]
        return unseen("compare", *rows, data, *BACKBONE, *where, "--draws", "1", "--holdouts", "0")

    status, _, err = run(tiny_guide, "eszsl")
    assert (status, asked, read) == (1, [("honest", "paper")], [str(tiny_guide)])
    assert "failed: eszsl: too little memory" in err
    status, _, _ = run(blind, "eszsl", "sae")  # one row is finished
    assert read == [str(tiny_guide), str(blind)]
    assert (status, asked[1:]) == (0, [("honest",)])
    found = json.loads((tmp_path / "out-blind" / "compare.json").read_text())
    assert (found["views"], [row["error"] for row in found["rows"]]) == (["honest"], ["too little memory", None])


def test_compare_refuses_before_any_work(unseen, here, tiny_guide, cache, tmp_path):
    for rows, words in (
        (["eszsl", "mdsn"], 'did you mean "msdn"'),
        (["eszsl", "msdn:lambda_cal=much"], 'msdn:lambda_cal=much: "much" has the wrong type'),
        (["eszsl:epochs=3"], 'no setting or recipe entry "epochs"'),
    ):
        status, _, err = unseen("compare", *rows, tiny_guide, *BACKBONE, "--cache", cache, "-o", tmp_path / "out")
        assert status == 2
        assert err.count("\n") == 1
        assert words in err or words.split(": ")[1] in err
    assert not (tmp_path / "out").exists()


def test_experiments_are_listed_and_ask_for_data(unseen, tiny_guide, tmp_path):
    _, text, _ = unseen("list", "experiments", "msdn", "--json")
    rows = {row["experiment"]: row for row in json.loads(text)["items"]}
    assert rows["msdn/cub"]["reported"] == "T1 76.1 U 68.7 S 67.5 H 68.1"
    assert rows["msdn/cub50"]["reported"] == "–"
    status, _, err = unseen("reproduce", "msdn/cub")
    assert status == 2
    assert "--data FOLDER" in err
    status, _, err = unseen("reproduce", "msdn/cub", "--data", tiny_guide, "--image-size", "64")
    assert (status, "need --backbone" in err) == (2, True)


def test_reproduce_shows_reported_and_measured(unseen, tiny_guide, cache, tmp_path):
    arguments = ["reproduce", "sae/cub", "--data", tiny_guide, *BACKBONE, "--cache", cache, "--device", "cpu"]
    status, out, _ = unseen(*arguments, "-o", tmp_path / "run", "--protocol", "honest")
    assert status == 0
    for words in (
        "reported",
        "33.3",
        "measured",
        "difference: data: 9 classes seen, 150 in CUB",
        "protocols: honest here",
    ):
        assert words in out
