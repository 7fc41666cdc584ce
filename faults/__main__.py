"""Run every campaign in turn, or one with its options: `python -m faults [NAME [OPTIONS]]`.

Results go to faults/results/NAME.json; `python -m benchmarks --docs` writes their tables into the docs. The exit status
is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time

from benchmarks.measured import ROOT, finish

CAMPAIGNS: tuple[str, ...] = ("kill", "disk", "corruption", "together", "fuzz", "load", "determinism")
PARTS = ("case", "target", "only")
"""Options that run a part of a campaign; its result does not replace that of the whole."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.splitlines()[0])
    names = parser.add_subparsers(dest="name", metavar="NAME")
    modules = {name: importlib.import_module(f"faults.{name}") for name in CAMPAIGNS}
    for name, module in modules.items():
        module.add_arguments(names.add_parser(name, help=(module.__doc__ or "").splitlines()[0]))
    options = parser.parse_args()
    os.environ.setdefault("UNSEEN_ENGINE", "torch")  # a forked process cannot use the threads of another engine
    failed = []
    for name in [options.name] if options.name else modules:
        given = options if options.name else parser.parse_args([name])
        print(f"\n# {name}", flush=True)
        began = time.monotonic()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no child remains
        found = modules[name].run(given, lambda line: print(line, file=sys.stderr, flush=True))
        part = any(getattr(given, name, None) is not None for name in PARTS)
        output = None if part else ROOT / "faults" / "results" / f"{name}.json"
        finish(output, found.tables, began=began, failures=found.failures, **found.facts)
        for failure in found.failures:
            print(f"FAILED: {failure}")
        if found.failures:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
