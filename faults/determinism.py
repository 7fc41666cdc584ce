"""The same seed gives the same bytes: with other numbers of readers, other hash seeds, and from disk.

    python -m faults determinism [--methods msdnpp mgmrn] [--species 12]

For each method one run is the reference, with no readers and everything in memory. Every other run starts without
features and cache, with 1 or 4 readers, another PYTHONHASHSEED, or everything read from disk, and must produce the same
files, except for times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measured import ROOT

from faults.campaign import Outcome, Report
from faults.kill import contents, differences

METHODS = ("eszsl", "global", "msdn", "msdnpp", "mgmrn")
VARIANTS: dict[str, tuple[tuple[str, ...], str]] = {
    "the same again": (("--workers", "0"), "0"),
    "1 reader": (("--workers", "1"), "1"),
    "4 readers": (("--workers", "4"), "2"),
    "4 readers, from disk": (("--workers", "4", "--memory", "0"), "3"),
}
"""Options of ``unseen train`` and the hash seed."""
SMALL = {"mgmrn": ("--stage=-3,-2,-1", "--recipe", "batch_size=8", "--recipe", "shots=2")}
"""Options that a method needs on a small network."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--species", type=int, default=12, help="of the drawn dataset")
    parser.add_argument("--seed", type=int, default=0)


def train(method: str, dataset: Path, folder: Path, cache: Path, options: tuple[str, ...], hash_seed: str) -> None:
    """One run in a process of its own."""
    small = ("--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64")
    shared = () if method == "eszsl" else ("--epochs", "2")
    command = [sys.executable, "-m", "unseen", "train", str(dataset), "--method", method, *small, *shared]
    command += ["--device", "cpu", "--output", str(folder), "--cache", str(cache), "--no-report"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")}
    command += [*SMALL.get(method, ()), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[3:])}: {done.stderr.strip().splitlines()[-1]}")


def run(options: argparse.Namespace, report: Report) -> Outcome:
    from unseen.fieldguide import build

    rows, failures = [], []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        build(home / "tiny", species=options.species, images=6, size=64, workers=1)
        for method in options.methods:
            pattern: dict[str, str] = {}
            row: dict[str, Any] = {"method": method}
            for name, (given, hash_seed) in {"": ((), "0"), **VARIANTS}.items():
                folder = home / f"{method}-{name or 'pattern'}"
                train(method, home / "tiny", folder, home / f"cache-{folder.name}", given, hash_seed)
                found = contents(folder)
                if not name:
                    pattern, row["files"] = found, len(found)
                    continue
                differ = differences(pattern, found)
                row[name] = "equal" if not differ else f"{len(differ)} differ"
                failures += [f"{method}, {name}: {line}" for line in differ]
                report(f"{method}, {name}: {row[name]}")
            rows.append(row)
    return Outcome({"The same bytes": rows}, failures)
