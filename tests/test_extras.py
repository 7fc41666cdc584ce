"""The core without any extra: training and predicting work, and what needs an extra says so in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from unseen.ground.extras import EXTRA_OF

ROOT = Path(__file__).parents[1]
CORE = {"httpx"}  # huggingface_hub brings it
SCRIPT = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # a None makes the import fail
from unseen import cli
found = []
for words in json.loads(sys.argv[2]):
    sys.argv, status = ["unseen", *words], 0
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as leave:
            status = leave.code or 0
    found.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place(tiny_guide, tmp_path_factory):
    root = tmp_path_factory.mktemp("lean")
    (root / "birds").symlink_to(tiny_guide)
    Image.new("RGB", (64, 64), "red").save(root / "bird.png")
    return root


def call(place, *calls):
    """Status, standard output and standard error of each call, in one process without any extra."""
    blocked = json.dumps([name for name in EXTRA_OF if name not in CORE])
    source = str(ROOT / "src")
    environment = os.environ | {"PYTHONPATH": source, "UNSEEN_CACHE": str(place / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-c", SCRIPT, blocked, json.dumps([c.split() for c in calls])]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LACKING = {
    "explain run bird.png": "figures",
    "predict run bird.png -o found.parquet": "tables",
    "import features.hdf5 birds": "benchmarks",
    "import export.xml other": "tables",
    "train birds -m global --track tensorboard -o two": "tracking",
    "export run -o model.onnx": "export",
    "serve run": "app",
    "predict run bird.png --engine openvino": "openvino",
    "train birds -m clip --backbone hf:openai/clip-vit-base-patch32 -o four": "clip",
}


@pytest.mark.slow
def test_the_core_trains_and_predicts_and_names_each_extra(place):
    (place / "features.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (place / "export.xml").write_text("<annotations><version>1.1</version></annotations>")
    calls = (
        "train birds -m eszsl -o run --backbone fieldguide",
        "predict run bird.png --json",
        "predict run bird.png -o found.csv",
        "init fresh",
        "check birds",
        "save run saved",
    )
    found = call(place, *calls, *LACKING)
    for words, (status, _, err) in zip(calls, found, strict=False):
        assert status == 0, (words, err)
    assert "unseen[figures]" in found[0][2]  # of the report page, in a note
    assert json.loads(found[1][1])["items"][0]["classes"]
    for (words, extra), (status, _, err) in zip(LACKING.items(), found[len(calls) :], strict=True):
        assert status == 2, words
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert f"pip install 'unseen[{extra}]'" in line, words
        assert "Traceback" not in err


def test_the_classifier_names_its_extra():
    code = "import sys; sys.modules['sklearn'] = None; import unseen; unseen.ZeroShotClassifier"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (
        "unseen.ZeroShotClassifier needs sklearn, which is not installed — pip install 'unseen[sklearn]'" in done.stderr
    )


def test_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert set(EXTRA_OF.values()) <= set(extras)
    names = {"sklearn": "scikit-learn", "multipart": "python-multipart", "pillow_heif": "pillow-heif"}
    names |= {"mlflow": "mlflow-skinny", "open_clip": "open_clip_torch"}
    core = {re.split(r"[<>=\[]", d)[0] for d in project["project"]["dependencies"]}
    for module, extra in EXTRA_OF.items():
        listed = {re.split(r"[<>=\[]", d)[0] for d in extras[extra]}
        assert names.get(module, module) in listed, module
        assert names.get(module, module) not in core, module
    # CPU-only: both from the same index, or torchvision's operators do not load
    cpu = {re.split(r"[<>=\[]", d)[0] for d in extras["cpu"]}
    (index,) = project["tool"]["uv"]["index"]
    assert index["url"] == "https://download.pytorch.org/whl/cpu"
    for package in ("torch", "torchvision"):
        assert package in cpu
        assert project["tool"]["uv"]["sources"][package] == [{"index": index["name"], "extra": "cpu"}]
