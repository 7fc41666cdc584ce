"""The tests that fork, each file in a fresh process: a child of one that has trained a model cannot train another."""

from __future__ import annotations

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
