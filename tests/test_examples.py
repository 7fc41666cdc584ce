"""Every example runs as it stands, in a process of its own, in less than 15 seconds on an idle core."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS = {"lightning_training.py": "lightning"}


def run(name, *arguments, folder):
    package = NEEDS.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "UNSEEN_CACHE": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch_training.py", "lightning_training.py"])
def test_a_loop_of_one_s_own_learns(name, tmp_path):
    said = run(name, folder=tmp_path)
    assert int(re.search(r"among these: (\d+)%", said)[1]) >= 75  # 25 by guessing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("features.py", r"accuracy on 4 unseen classes, among these: (7|8|9)\d%\nclasses: 13"),
        ("own_images.py", r"<15 predictions>[^$]*scores: \(2, 13\)"),
        ("import_boxes.py", r"'robin': 2, 'jay': 2, 'rook': 1, 'canary': 1"),
    ],
)
def test_an_example(name, says, tmp_path):
    assert re.search(says, run(name, folder=tmp_path))


def test_every_example_is_tested():
    here = {p.name for p in EXAMPLES.glob("*.py")}
    text = Path(__file__).read_text()
    assert len(here) == 6
    assert {name for name in here if name not in text} == set()  # tests/test_onnx_example.py tests onnx_predict.py
