"""Seconds of the parts of closed-form training on stored features, from loading the dataset to tested weights.

    python -m benchmarks.closed_form_time cub50:mobilenetv2 fieldguide --output results.json

``DATA:NETWORK`` as in :mod:`benchmarks.closed_forms`; features are extracted once and cached, outside the measurement.
``auto`` is its race of closed forms, without the trained method. ``all`` is what a run waits for after imports, without
its report; the parts add up to it, apart from what they leave out; ``processor`` is its processor time, which depends
less on other load. The best of the rounds, methods in turn.

With ``--command``, ``command`` is the wall clock of a whole ``unseen train`` on the same features, from its start to
the report, and ``its processor`` its processor time; ``auto`` has none, since it also trains.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.closed_forms import inputs_of
from benchmarks.measured import finish
from unseen.features.store import RegionStore
from unseen.ground.cache import cache_folder
from unseen.ground.files import write_json
from unseen.training import closed_form, outcomes, protocols
from unseen.training.plan import Plan

METHODS = ("eszsl", "prototypes", "auto")
PARTS: dict[str, tuple[Any, str]] = {
    "candidates on 5 draws": (closed_form.Validation, "draw"),
    "choice": (closed_form.Validation, "best"),
    "its scores": (closed_form.Validation, "scores"),
    "support images": (outcomes, "choose_support"),
    "vectors of images": (protocols, "held_out_vectors"),
    "final model": (closed_form, "finish"),
}


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the time of every part."""
    if len(seconds) == len(PARTS):
        yield
        return
    name = list(PARTS)[len(seconds)]
    where, function = PARTS[name]
    plain = getattr(where, function)
    seconds[name] = 0.0

    def measured(*args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*args, **more)
        finally:
            seconds[name] += time.perf_counter() - began

    with patch.object(where, function, measured), timed(seconds):
        yield


def one(job: str, method: str, cache: Path) -> dict[str, float]:
    """Seconds of the parts of one run."""
    seconds: dict[str, float] = {}
    given = inputs_of(job, 0, cache)
    config = replace(given.config, method=method, preset=None)
    with timed(seconds), tempfile.TemporaryDirectory() as folder:
        began, processor = time.perf_counter(), time.process_time()
        plan = Plan.of(config, cache)
        loaded = time.perf_counter() - began
        assert isinstance(given.store, RegionStore)
        inputs = replace(given, **vars(plan))
        protocols.run_seeds(inputs, [0], Path(folder), ("honest",))
        used = time.process_time() - processor
        return {"all": time.perf_counter() - began, "processor": used, "dataset": loaded, **seconds}


def command(job: str, method: str, cache: Path) -> dict[str, float]:
    """Seconds of a whole ``unseen train``."""
    config = replace(inputs_of(job, 0, cache).config, method=method, preset=None)

    def processor() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "asked.json", config.to_json())
        words = ["train", config.dataset, "--config", f"{folder}/asked.json", "--cache", str(cache.absolute())]
        before, began = processor(), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "unseen", *words, "--device", "cpu", "--output", f"{folder}/run"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return {"command": time.perf_counter() - began, "its processor": processor() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="DATA[:NETWORK]")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--command", action="store_true", help="also time the whole command")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, cache = time.monotonic(), cache_folder(options.cache)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for job in options.jobs:
        inputs_of(job, 0, cache)
        for _ in range(options.rounds):
            for method in options.methods:
                mine, best = one(job, method, cache), found.get((job, method))
                if options.command and method != "auto":
                    mine |= command(job, method, cache)
                found[job, method] = mine if best is None or mine["all"] < best["all"] else best
    rows = [
        {"data": job, "method": method, **{k: round(v, 1) for k, v in seconds.items()}}
        for (job, method), seconds in found.items()
    ]
    finish(options.output, {"Seconds": rows}, began=began, rounds=options.rounds)


if __name__ == "__main__":
    main()
