"""Pages whose code runs as it stands: files are written, Python is executed in order, commands are called."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import unseen
from forking import Commands
from unseen.evaluation.registry import REGISTRY as METRICS
from unseen.methods import METHODS, registry
from unseen.training.config import RunConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["how-to/add-method.md", "how-to/add-metric.md", "how-to/add-dataset.md", "how-to/features.md"]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_code_runs(page, commands, tiny_guide, tmp_path, monkeypatch):
    shutil.copytree(tiny_guide, tmp_path / "birds")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(RunConfig, "draw_count", 1)  # the code is what is tested
    monkeypatch.setattr(RunConfig, "holdout_count", 0)
    kept = [(known, dict(known)) for known in (METHODS, registry._GIVEN, METRICS)]
    blocks = BLOCK.findall((DOCS / page).read_text())
    assert any(kind == "python" for kind, _, _ in blocks)
    names: dict[str, object] = {"__name__": "page"}
    try:
        for kind, title, code in blocks:
            if title:
                (tmp_path / title).write_text(code)
            elif kind == "python":
                exec(compile(code, page, "exec"), names)
            elif kind == "sh":
                for line in code.splitlines():
                    _call(commands, line, tmp_path)
    finally:
        for known, old in kept:
            known.clear()
            known.update(old)
        sys.modules.pop("ridge", None)


def _call(commands: Commands, line: str, folder: Path) -> None:
    program, *words = shlex.split(line)
    assert program == "unseen"
    source = str(Path(unseen.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), source])}
    status, _, err = commands.call(folder, *words, environment=environment)
    assert status == 0, err


COMMAND = re.compile(r"^(?:.*--no-python |.*\| |\$ )?(unseen [a-z].*)$")


def commands_of(page: Path) -> list[str]:
    """Every call of the command line on a page, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = [code for kind, code in re.findall(r"^ *```(sh|bash|console)\n(.*?)^ *```$", text, re.M | re.S)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [found[1] for line in lines if (found := COMMAND.match(line.strip()))]
    return calls + re.findall(r"`(unseen [a-z]+[^`\n]*)`", text)


def test_commands_and_options_exist():
    """No option of a page has been renamed or removed since."""
    import typer

    import unseen.cli.common

    root = typer.main.get_command(unseen.cli.common.app)
    wrong, count = [], 0
    for page in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:
        for call in commands_of(page):
            words = shlex.split(re.split(r" # |[|;]", call)[0], comments=True)[1:]
            command, options = root, {"-h", "--help"}
            while words and words[0] in getattr(command, "commands", ()):
                command = command.commands[words.pop(0)]
            options |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            asked = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            if command is root or asked - options:
                wrong.append((page.name, call))
            count += 1
    assert wrong == []
    assert count > 300


def test_the_recipe_for_spark(tiny_backbone, tmp_path, monkeypatch):
    """The function alone: pyspark is a stand-in that hands it back."""
    import types

    import numpy as np
    import pandas as pd
    import torch
    from PIL import Image

    from unseen.backbones.backbone import Backbone
    from unseen.classes.attributes import Attributes
    from unseen.classes.table import ClassTable
    from unseen.methods import create_method
    from unseen.recognizer import Recognizer

    backbone = Backbone(tiny_backbone)
    table = ClassTable(("a", "b"), Attributes(("x", "y")), np.eye(2) + 0.1, np.array([1, 0], bool))
    method = create_method("global", channels=backbone.channels[0], vectors=torch.randn(2, 8))
    model = Recognizer(backbone, method, table, device="cpu").save(tmp_path / "model")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    functions = types.SimpleNamespace(pandas_udf=lambda schema: lambda function: function)
    for name in ("pyspark", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "pyspark.sql.functions", functions)
    blocks = BLOCK.findall((DOCS / "how-to/many-machines.md").read_text())
    (code,) = [code for _, title, code in blocks if title == "spark_predict.py"]
    names: dict[str, object] = {}
    exec(compile(code.replace("/shared/model", str(model)), "page", "exec"), names)
    (found,) = names["recognize"](iter([pd.Series([str(tmp_path / "a.png"), str(tmp_path / "gone.png")])]))
    assert found["class"].tolist()[0] == unseen.load(model, device="cpu").predict(tmp_path / "a.png")[0].name
    assert found["class"].isna().tolist() == [False, True]
