"""Every command with nothing but its arguments, in a process of its own, from a folder that holds none of its inputs.

Default paths (device, output, cache) are what tests of options leave out. A new command fails until it has a case.
"""

from __future__ import annotations

import os
import signal
import textwrap
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from PIL import Image

from forking import Commands, Started
from unseen.cli import app
from unseen.data.folder import load_folder

METHOD = """
    from typing import ClassVar

    from unseen.methods.base import Ablation
    from unseen.methods.eszsl import ESZSL


    class Quick(ESZSL):
        name = "quick"
        presets: ClassVar = {"paper": ESZSL.presets["paper"]}
        ablations: ClassVar = {"centred": Ablation("rows centred", {"rows": "centred"})}
"""
EXPERIMENT = """
    method: eszsl
    dataset: fieldguide
    preset: paper
    sources: {}
    settings: {}
    recipe: {}
    protocols: [honest]
    seeds: [0]
    reported: []
    notes: []
    measured: []
"""


@dataclass
class Place:
    """What the commands are given, and the folder that they are called in."""

    root: Path
    commands: Commands
    environment: dict[str, str]

    def start(self, *arguments: object) -> Started:
        return self.commands.start(self.root / "here", *arguments, environment=self.environment)

    def call(self, *arguments: object, status: int = 0) -> str:
        started = self.start(*arguments)
        found, out, err = started.end(), started.out, started.err
        assert "Traceback" not in err, err
        assert found == status, err
        return out + err


@dataclass(frozen=True)
class Case:
    """A call, what it says, what it leaves in the folder that it is called in, and its status."""

    call: str
    says: str = ""
    leaves: str = ""
    status: int = 0


@pytest.fixture(scope="module")
def place(tmp_path_factory, commands):
    from unseen.fieldguide.build import VERSION, build

    root = tmp_path_factory.mktemp("defaults")
    birds = root / "cache" / "datasets" / f"fieldguide-v{VERSION}"  # where every command looks for the built-in birds
    birds.parent.mkdir(parents=True)
    build(birds, species=12, images=6, size=64, workers=1)
    for name in ("here", "downloads", "code"):
        (root / name).mkdir()
    (root / "birds").symlink_to(birds)
    (root / "code" / "quick_method.py").write_text(textwrap.dedent(METHOD))
    (root / "own.yaml").write_text(textwrap.dedent(EXPERIMENT))
    Image.open(next((birds / "images").rglob("*.jpg"))).save(root / "bird.png")
    dataset = load_folder(birds)
    with h5py.File(root / "maps.hdf5", "w") as file:
        file["feature_map"] = np.random.default_rng(0).normal(size=(len(dataset.files), 7, 2, 2)).astype(np.float32)
        file["labels"] = dataset.labels
        for part in ("trainval", "test_seen", "test_unseen"):
            file[f"{part}_loc"] = dataset.indices(part)
    (root / "names.txt").write_text("Rook\nJay\n")
    (root / "word.vec").write_text("red 1 0\n")
    environment = {name: value for name, value in os.environ.items() if name != "UNSEEN_ENGINE"} | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(root / "code")]),
        "UNSEEN_CACHE": str(root / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    place = Place(root, commands, environment)
    place.call("train", "fieldguide", "--method", "eszsl", "--draws", "1", "--no-report", "--output", root / "run")
    name = sorted(p.name for p in (birds / "images").iterdir())[0]
    place.call("predict", root / "run", *[birds / "images" / name] * 2, "-o", root / "parts", "--shard", "0/1")
    return place


CASES = {
    "init": Case("{root}/fresh", "unseen check"),
    "check": Case("{root}/birds", "ready to train"),
    "describe": Case("{root}/names.txt", "nothing was sent"),
    "train": Case("fieldguide", "Race on validation classes", "runs/auto-fieldguide/report.html"),
    "predict": Case("{root}/run {root}/bird.png", "bird.png"),
    "merge": Case("{root}/parts -o {root}/all.csv", "12 images"),
    "similar": Case("{root}/run {root}/birds/images", "outliers"),
    "explain": Case("{root}/run {root}/bird.png", "bird", "bird-why.png"),
    "report": Case("{root}/run", "report.html"),
    "save": Case("{root}/run {root}/saved", "weights.safetensors"),
    "push": Case("{root}/run somebody/birds", "error: ", status=2),
    "export": Case("{root}/run -o {root}/birds.onnx", "birds.onnx"),
    "embed": Case("{root}/run {root}/bird.png -o {root}/here/bird.parquet", "1 image", "bird.parquet"),
    "demo": Case("", "Open the report", "runs/demo/report.html"),
    "prepare": Case("awa2 --root {root}/downloads", "not ready", status=2),
    "import": Case("{root}/maps.hdf5 {root}/birds", "72 images, 2x2 regions of 7 channels"),
    "vectors": Case("{root}/run --from {root}/word.vec", "error: ", status=2),
    "evaluate": Case("{root}/run", "AUSUC"),
    "compare": Case("quick_method:Quick fieldguide", "quick", "runs/compare-fieldguide/compare.md"),
    "ablate": Case("quick_method:Quick fieldguide", "centred"),
    "reproduce": Case("{root}/own.yaml", "eszsl on drawn birds", "runs/reproduce"),
    "figures": Case("{root}/run", "tsne"),
    "pointing": Case("{root}/run", "part"),
    "stores": Case("", "whole"),
    "list": Case("", "msdn"),
    "schema": Case("predict", "confidence"),
    "classes list": Case("{root}/run", "{name}"),
    "classes show": Case("{root}/run {name}", "value"),
    "classes add": Case("{root}/run Newcomer --like {name}", "Newcomer"),
    "classes images": Case("{root}/run {name} {root}/bird.png", "1 added"),
    "classes edit": Case("{root}/run {edited} --like {name}", "{edited}"),
    "classes rename": Case("{root}/run {renamed} Oldtimer", "Oldtimer"),
    "classes remove": Case("{root}/run {removed}", "{removed}"),
    "classes reset": Case("{root}/run", ""),
    "classes closest": Case("{root}/run", ""),
    "classes separate": Case("{root}/run {name} {other}", ""),
}


def commands(command, path=()):
    below = getattr(command, "commands", None)
    if not below:
        return [" ".join(path)]
    return [name for sub, inside in below.items() for name in commands(inside, (*path, sub))]


EVERY = commands(typer.main.get_command(app))
LISTENING = {"serve": ["{root}/run"], "review": ["{root}/run", "{root}/birds/images"]}


@pytest.mark.parametrize("command", [name for name in EVERY if name not in LISTENING])
def test_a_command_with_its_defaults(place, command):
    case = CASES[command]
    names = load_folder(place.root / "birds").table.names
    fill = {"root": place.root, **dict(zip(("name", "other", "edited", "renamed", "removed"), names, strict=False))}
    arguments = [word.format(**fill) for word in case.call.split()]
    said = place.call(*command.split(), *arguments, status=case.status)
    assert case.says.format(**fill) in said
    assert (place.root / "here" / case.leaves).exists()


def test_every_case_is_of_a_command():
    assert {*CASES, *LISTENING} == set(EVERY)


@pytest.mark.parametrize("name", LISTENING)
def test_what_serves_with_its_defaults(place, name):
    pytest.importorskip("fastapi", reason="needs unseen[app]")
    started = place.start(name, *(word.format(root=place.root) for word in LISTENING[name]))
    started.until(lambda: "http://127.0.0.1:" in started.out)
    started.send_signal(signal.SIGINT)
    assert started.end() in (0, 130), started.err  # 130 before the server is up
    assert "http://127.0.0.1:" in started.out
    assert "Traceback" not in started.out + started.err


def test_numbers_that_are_none_are_one_line(unseen, place):
    for option in ("nan", "inf"):
        status, _, err = unseen("evaluate", place.root / "run", "--gamma", option)
        assert (status, err.strip()) == (
            2,
            f"error: --gamma: {option} is not a finite number — pass a number such as 0.5",
        )
