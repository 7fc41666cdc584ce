"""Run all benchmarks that need a GPU, in turn: `python -m benchmarks.gpu [NAME ...]`.

Each writes benchmarks/results/gpu/NAME.json and takes less than ten minutes. `--tests` first runs the tests that need a
GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_training import device_of
from benchmarks.measured import ROOT

SUITE: dict[str, tuple[str, str]] = {
    "gpu_training": ("", "--small"),
    "gpu_determinism": ("", "--small"),
    "mgmrn_step": ("--device cuda", "--device cpu --backbone resnet18 --size 64 --batch 2 --width 64 --repeats 1"),
    "extraction_rate": (
        "--device cuda --networks resnet101@448:4096 mobilenetv2_100@224:8192",
        "--networks mobilenetv2_100@64:16 --rounds 1",
    ),
}
"""Module of this package to its arguments on a GPU, and for ``--small``; each takes ``--output``."""
LIMIT = 600
"""Time limit of one benchmark in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    there = [name for name in SUITE if importlib.util.find_spec(f"benchmarks.{name}")]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run (default: {', '.join(there)})")
    parser.add_argument("--tests", action="store_true", help="first run the tests that need a GPU")
    parser.add_argument("--small", action="store_true", help="run with tiny shapes on the CPU, to try the code")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu", help="folder of the results"
    )
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in there]
    if unknown:
        parser.error(f"no measurement {unknown[0]}; one of {', '.join(there)}")
    device_of(options.small)
    commands: dict[str, list[str]] = {}
    for name in options.names or there:
        output = options.output / f"{name.removeprefix('gpu_')}.json"
        commands[name] = ["-m", f"benchmarks.{name}", *SUITE[name][options.small].split(), "--output", str(output)]
    if options.tests:
        commands = {"tests": ["-m", "pytest", "-m", "gpu", "-q", "tests"]} | commands
    failed = []
    for name, command in commands.items():
        print(f"\n# {name}", flush=True)
        try:
            if subprocess.run([sys.executable, *command], cwd=ROOT, timeout=LIMIT, check=False).returncode:
                failed.append(name)
        except subprocess.TimeoutExpired:
            failed.append(f"{name} (more than {LIMIT} s)")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
