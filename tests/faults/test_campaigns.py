"""The tests that fork, each file in a fresh process: a child of one that has trained a model cannot train another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(Path(__file__).parent.glob("campaign_*.py")), ids=lambda file: file.stem)
def test_in_a_fresh_process(file):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_commit_meanwhile_is_no_difference(tmp_path):
    """Results hold the commit that computed them; work under way ends with the same bytes but for that."""
    from faults.kill import contents, differences

    for folder, commit, seed in (("a", "1a2b3c4", 0), ("b", "5d6e7f8-dirty", 0), ("c", "1a2b3c4", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manifest.json").write_text(json.dumps({"git": commit, "seed": seed}))
        (tmp_path / folder / "report.html").write_text(f"<td>{commit}</td>")
    a, b, c = (contents(tmp_path / folder) for folder in "abc")
    assert differences(a, b) == []
    assert differences(a, c) == ["manifest.json other bytes"]
