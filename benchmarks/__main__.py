"""Every benchmark, one after another: `python -m benchmarks [NAME ...]`; `--docs` puts the tables into docs/."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.measured import ROOT, fill_docs

SUITE: dict[str, tuple[str, ...]] = {
    "steps": (),
    "epoch": (),
    "mgmrn_step": (),
    "finite_check": (),
    "extraction_rate": (),
    "engines": (),
    "start_up": (),
    "predict_speed": (),
    "growth": (),
    "many_classes": (),
    "reduction": ("--no-synthetic",),
    "fieldguide_levels": (),
    "aims": (),
}
"""Module of this package to its arguments; each takes ``--output``."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all of {', '.join(SUITE)} unless named")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--docs", action="store_true", help="run nothing: put the tables of the results into docs/")
    options = parser.parse_args()
    if options.docs:
        print("\n".join(f"{page}: written" for page in fill_docs(write=True)) or "docs/: nothing to do")
        return
    unknown = [name for name in options.names if name not in SUITE]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; one of {', '.join(SUITE)}")
    failed = []
    for name in options.names or SUITE:
        print(f"\n# {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *SUITE[name]]
        if subprocess.run([*command, "--output", options.output / f"{name}.json"], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
