"""Thousands of generated bad inputs: each is accepted and handled correctly, or refused in one line."""

from __future__ import annotations

import argparse
import importlib
import inspect
import tempfile
from collections import Counter
from pathlib import Path

from faults.campaign import Outcome, Report
from faults.fuzz.runner import Result, campaign, progress
from faults.fuzz.target import Target

MODULES: tuple[str, ...] = (
    "tables",
    "folders",
    "arrays",
    "splits",
    "words",
    "experiments",
    "models",
    "options",
    "images",
    "requests",
)
"""Modules of this package; each holds one or more targets."""


def targets() -> dict[str, type[Target]]:
    """Every target by name."""
    found = {}
    for module in MODULES:
        for _, value in inspect.getmembers(importlib.import_module(f"faults.fuzz.{module}"), inspect.isclass):
            if issubclass(value, Target) and "name" in vars(value):
                found[value.name] = value
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", action="append", help="only this kind of input (again for more)")
    parser.add_argument("--cases", type=int, default=10_000, help="in all, spread over the targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this one case of the one target again")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()) / "unseen-fuzz", help="for folders of failing cases"
    )


def run(options: argparse.Namespace, report: Report) -> Outcome:
    known = targets()
    names = options.target or list(known)
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no target {unknown[0]}; the columns are {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="fuzz-warm") as shared:
        chosen = [known[name]() for name in names]
        for target in chosen:
            (folder := Path(shared) / target.name).mkdir()
            target.warm(folder)
        if options.case is not None:
            cases = [(target, options.case) for target in chosen]
        else:
            total = sum(t.weight for t in chosen)
            cases = [(t, i) for t in chosen for i in range(max(1, round(options.cases * t.weight / total)))]
        results = list(progress(campaign(cases, options.seed, options.jobs, options.keep), len(cases), report))
    if options.case is not None:
        for result in results:
            report(f"{result.said}\n{result.outcome}: {result.why}\n{result.seconds:.2f} s, {result.megabytes:.0f} MB")
            if result.outcome == "failed":
                report(f"its folder: {options.keep}/{result.target}-{result.seed}-{result.index}")
    failures = [f"{r.why} [{r.said}] again: {r.again}" for r in results if r.outcome == "failed"]
    return Outcome({"Generated inputs": [_row(t, results) for t in chosen]}, failures, {"seed": options.seed})


def _row(target: Target, results: list[Result]) -> dict[str, object]:
    mine = [r for r in results if r.target == target.name]
    outcomes = Counter(r.outcome for r in mine)
    return {
        "input": target.name,
        "cases": len(mine),
        "accepted": outcomes["accepted"],
        "refused": outcomes["refused"],
        "failures": outcomes["failed"],
        "slowest s": round(max((r.seconds for r in mine), default=0), 2),
        "most memory MB": round(max((r.megabytes for r in mine), default=0)),
    }
