"""Pages whose code runs as it stands: files are written, Python is executed in order, commands are called."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unseen
from unseen.evaluation.registry import REGISTRY as METRICS
from unseen.methods import METHODS, registry

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["how-to/add-method.md", "how-to/add-metric.md", "how-to/add-dataset.md", "how-to/features.md"]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_code_runs(page, tiny_guide, tmp_path, monkeypatch):
    shutil.copytree(tiny_guide, tmp_path / "birds")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
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
                    _call(line, tmp_path)
    finally:
        for known, old in kept:
            known.clear()
            known.update(old)
        sys.modules.pop("ridge", None)


def _call(line: str, folder: Path) -> None:
    program, *words = shlex.split(line)
    assert program == "unseen"
    source = str(Path(unseen.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), source])}
    call = [sys.executable, "-m", "unseen.cli", *words]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
