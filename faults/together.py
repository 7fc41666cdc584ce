"""Two commands on one folder, SIGTERM from a scheduler, and a clock that goes back: nothing is lost or mixed up."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faults.attempts import Attempt, Running, attempt, command, warm
from faults.campaign import Outcome, Report
from faults.kill import Work, contents, differences, prepare, train, works

STOPPED = (130, -signal.SIGTERM)
"""Status of a command that was stopped; the second one if its long work had not started."""
SLOW = 10.0
"""Limit in seconds from SIGTERM to the end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the campaign."""
    parser.add_argument("--times", type=int, default=5, help="of each pair and of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--only", action="append", help="pairs, stops or clock (repeatable); default all")


def run(options: argparse.Namespace, report: Report) -> Outcome:
    """The campaign."""
    warm()
    failures: list[str] = []
    tables: dict[str, list[dict[str, Any]]] = {}
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        base = prepare(Path(folder))
        chosen = options.only or ("pairs", "stops", "clock")
        if "pairs" in chosen:
            tables["Two at once"] = pairs(base, options.times, options.seed, failures, report)
        if "stops" in chosen:
            tables["SIGTERM"] = stops(base, options.times, options.seed, failures, report)
        if "clock" in chosen:
            tables["Clock"] = clocks(base, failures, report)
    return Outcome(tables, failures, {"seed": options.seed})


def fresh(folder: Path) -> None:
    """Empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def until_done(make: Callable[[], object]) -> Attempt:
    """Repeat a command, as a user does who was told to wait or to resume."""
    for _ in range(5):
        done = attempt(make)
        if done.status == 0 or "already exists" in done.said:
            return Attempt(0, done.said, done.seconds, done.writes)
    return done


# two at once


def pairs(base: Path, times: int, seed: int, failures: list[str], report: Report) -> list[dict[str, Any]]:
    """Two processes on one folder, the second starting a random time after the first."""
    folder = base / "work"
    kinds = {work.name: work for work in works(base)}
    predict = command("predict", folder / "run", base / "tiny" / "images", "-o", folder / "p.csv", "--device", "cpu")

    def closed(folder: Path) -> Callable[[], object]:
        return train(base, "tiny", "eszsl", [], folder / "run")

    same = {
        "train and train": Work("", closed),
        "extraction and extraction": kinds["extraction"],
        "compare and compare": kinds["comparison"],
        "predict and predict, one output": kinds["prediction to CSV"],
    }
    rows = []
    for name, work in same.items():
        rows.append(_pair(name, work.make(folder), work.make(folder), [], folder, times, seed, failures))
        report(str(rows[-1]))
    start = [closed(folder)]
    rows.append(_pair("train and predict of that run", closed(folder), predict, start, folder, times, seed, failures))
    values = f"{(base / 'model/classes.csv').read_text().splitlines()[0].split(',')[-1]}=1"
    one, two = (command("classes", "add", folder / "model", f"new {i}", "--set", values) for i in (1, 2))
    copying: list[Callable[[], object]] = [lambda: shutil.copytree(base / "model", folder / "model")]
    rows.append(_pair("classes add and classes add", one, two, copying, folder, times, seed, failures))
    report(str(rows[-1]))
    return rows


def _pair(
    name: str,
    first: Callable[[], object],
    second: Callable[[], object],
    before: list[Callable[[], object]],
    folder: Path,
    times: int,
    seed: int,
    failures: list[str],
) -> dict[str, Any]:
    fresh(folder)
    for work in (*before, first, second):
        done = attempt(work)
        if done.status and "already exists" not in done.said:
            raise RuntimeError(f"{name}: {done.said}")
    expected, took = contents(folder), max(done.seconds, 0.3)
    row: dict[str, Any] = {
        "at once": name,
        "times": times,
        "both finished": 0,
        "one refused in one line": 0,
        "the same bytes": 0,
    }
    for index in range(times):
        rng = np.random.default_rng([seed, index, *name.encode()])
        fresh(folder)
        for work in before:
            attempt(work)
        delay = float(rng.uniform(0, took))
        one = Running(first)
        time.sleep(delay)
        two = Running(second)
        ends = [one.end(), two.end()]
        where = f"{name}, {delay:.3f} s after each other"
        wrong = [done for done in ends if done.status not in (0, 2) or "Traceback" in done.said]
        failures += [f"{where}: status {done.status}: {done.said.strip()[-400:]}" for done in wrong]
        row["both finished"] += all(done.status == 0 for done in ends)
        row["one refused in one line"] += any(done.status == 2 and "error:" in done.said for done in ends)
        for work, done in zip((first, second), ends, strict=True):
            if done.status:
                until_done(work)
        lines = differences(expected, contents(folder))
        row["the same bytes"] += not lines
        failures += [f"{where}: {line}" for line in lines[:5]]
    return row


# SIGTERM


def stops(base: Path, times: int, seed: int, failures: list[str], report: Report) -> list[dict[str, Any]]:
    """SIGTERM at random moments; then the same command to its end."""
    folder = base / "work"
    rows = []
    for number, work in enumerate(works(base)):
        if work.name == "extraction":  # part of a training, not a command of its own
            continue
        fresh(folder)
        done = attempt(work.make(folder))
        if done.status:
            raise RuntimeError(done.said)
        expected = contents(folder)
        waits, same, stopped = [], 0, 0
        for index in range(times):
            rng = np.random.default_rng([seed, number, index])
            fresh(folder)
            moment, tree = float(rng.uniform(0, done.seconds)), bool(rng.random() < 0.5)
            ended = attempt(work.make(folder), seconds=moment, number=signal.SIGTERM, whole_group=tree)
            where = f"{work.name}, SIGTERM {'to all ' if tree else ''}after {moment:.3f} s"
            if ended.stopped_in is not None and ended.status:
                stopped += 1
                waits.append(ended.stopped_in)
                if ended.status not in STOPPED or "Traceback" in ended.said or ended.stopped_in > SLOW:
                    tail = ended.said.strip()[-400:]
                    failures.append(f"{where}: status {ended.status} after {ended.stopped_in:.1f} s: {tail}")
            until_done(work.make(folder))
            lines = differences(expected, contents(folder))
            same += not lines
            failures += [f"{where}: {line}" for line in lines[:5]]
        row = {"work": work.name, "times": times, "stopped": stopped, "the same bytes after": same}
        rows.append(row | {"longest wait, s": round(max(waits, default=0.0), 2)})
        report(str(rows[-1]))
    rows.append(_serving(base, failures))
    return rows


def _serving(base: Path, failures: list[str]) -> dict[str, Any]:
    ended = attempt(
        command("serve", base / "model", "--port", 8765, "--device", "cpu"), seconds=8, number=signal.SIGTERM
    )
    if ended.status != -signal.SIGTERM or "Traceback" in ended.said or ended.stopped_in is None:
        failures.append(f"serve: status {ended.status}: {ended.said.strip()[-400:]}")
    wait = round(ended.stopped_in or 0.0, 2)
    return {"work": "serving (ends by the signal)", "times": 1, "stopped": 1, "longest wait, s": wait}


# clock


def clocks(base: Path, failures: list[str], report: Report) -> list[dict[str, Any]]:
    """Every kind of work under a clock that jumps, and images with times from the future and the past."""
    folder = base / "work"
    rows = []
    for work in works(base):
        fresh(folder)
        attempt(work.make(folder))
        expected = contents(folder)
        row: dict[str, Any] = {"work": work.name, "clocks": 0, "the same bytes": 0}
        for name, jump in {"back by a day": -86400.0, "on by a year": 3.2e7, "back and forth": 0.0}.items():
            fresh(folder)
            done = attempt(work.make(folder), before=partial(_jumping, jump))
            row["clocks"] += 1
            lines = [] if done.status == 0 else [f"status {done.status}: {done.said.strip()[-300:]}"]
            lines += differences(expected, contents(folder))
            row["the same bytes"] += not lines
            failures += [f"{work.name}, clock {name}: {line}" for line in lines[:5]]
        rows.append(row)
        report(str(row))
    rows.append(_changed_images(base, failures))
    return rows


def _jumping(jump: float) -> None:
    """From its fifth reading on, the clock is later by this; 0: an hour more or less at every other reading."""
    real, real_ns, readings = time.time, time.time_ns, [0]

    def by() -> float:
        readings[0] += 1
        return (jump or 3600.0 * (-1) ** readings[0]) if readings[0] > 5 else 0.0

    time.time = lambda: real() + by()
    time.time_ns = lambda: real_ns() + round(by() * 1e9)


def _changed_images(base: Path, failures: list[str]) -> dict[str, Any]:
    """A changed image is detected even with the same size and time as before."""
    from unseen.features.hashes import content_hashes

    folder = base / "images"
    folder.mkdir()
    image, cache, seen, count = folder / "a.jpg", folder / "hashes.json", set(), 0
    now = time.time_ns()
    for content in range(6):
        for shift in (0, -(10**18), 10**17, -5 * 10**9):
            image.write_bytes(bytes([content]) * 1000 + shift.to_bytes(9, "big", signed=True))
            os.utime(image, ns=(now + shift, now + shift))
            seen.add(content_hashes([image], cache)[0])
            count += 1
    if len(seen) != count:
        failures.append(f"{count} contents of an image gave {len(seen)} digests")
    return {"work": "hashes of an image changed under its times", "clocks": count, "the same bytes": len(seen)}
