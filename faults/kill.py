"""A command killed at random moments resumes and ends with the same bytes; no reader ever sees a partial file.

Extraction, training, comparison and batch prediction run undisturbed, then repeatedly with SIGKILL: at moments drawn
uniformly over the undisturbed time, and right before a write, rename or removal drawn uniformly from all of them. After
each trial every file is compared; during some trials another process reads all existing files.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from faults.attempts import Attempt, Moments, attempt, command, start, warm
from faults.campaign import Outcome, Report

BACKBONE = ["--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64"]
BACKBONE += ["--backbone-option", "output_stride=16", "--device", "cpu", "--workers", "0"]
TIMED = ("seconds", "peak_memory_mb", "git", "sha256 of the rest")
"""Keys of JSON that may differ between any two calls: times, memory, commit, and the checksum over them."""
SET_ASIDE = "usage.json"
LEFT_OVER = re.compile(r"^\..*\.tmp(\.lock)?$|\.partial$|\.unfinished")


@dataclass(frozen=True)
class Work:
    """A kind of work, with results in ``folder/name``.

    Args:
        name: name in the table.
        make: from that folder to the work of a child.

    """

    name: str
    make: Callable[[Path], Callable[[], object]]


@dataclass
class Tally:
    """Results of the trials of a kind of work."""

    trials: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    failures: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the campaign."""
    parser.add_argument("--times", type=int, default=25, help="kills of each kind of work")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--only", action="append", help="a kind of work (repeatable); default all")
    parser.add_argument("--trial", type=int, help="this trial alone, as a failure names it")


def run(options: argparse.Namespace, report: Report) -> Outcome:
    """The campaign."""
    warm()
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    rows, failures = [], []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        base = prepare(Path(folder))
        for number, work in enumerate(works(base)):
            if options.only and work.name not in options.only:
                continue
            row, tally = campaign(work, base, options.times, [options.seed, number], options.trial, report)
            rows.append(row)
            failures += tally.failures
    return Outcome({"Killed and repeated": rows}, failures, {"seed": options.seed})


def prepare(base: Path) -> Path:
    """Data, and a finished run to predict with."""
    from unseen.fieldguide import build

    build(base / "tiny", species=12, images=6, size=64, workers=1)
    shutil.copytree(base / "tiny", base / "seen")
    for name in _unseen_classes(base / "seen"):
        shutil.rmtree(base / "seen" / "images" / name)
    (base / "seen" / "images.csv").unlink(missing_ok=True)
    for table in ("parts.csv", "boxes.csv"):
        (base / "seen" / table).unlink(missing_ok=True)
    time.sleep(2.1)  # hashes of newer images are not cached
    done = attempt(train(base, "tiny", "eszsl", [], base / "model"))
    if done.status:
        raise RuntimeError(done.said)
    return base


def _unseen_classes(folder: Path) -> list[str]:
    from unseen.data.folder import load_folder

    table = load_folder(folder).table
    return [name for name, seen in zip(table.names, table.seen, strict=True) if not seen]


def train(base: Path, data: str, method: str, options: list[str], output: Path) -> Callable[[], None]:
    """``unseen train``; extraction included."""
    where = ["-o", output, "--cache", output.with_name("cache")]
    return command("train", base / data, "-m", method, *BACKBONE, *options, *where)


def works(base: Path) -> list[Work]:
    """The kinds of work."""

    def extraction(folder: Path) -> Callable[[], object]:
        def work() -> None:
            from unseen.backbones.backbone import Backbone
            from unseen.backbones.spec import BackboneSpec
            from unseen.data.folder import load_folder
            from unseen.features.extract import extract

            data = load_folder(base / "tiny")
            spec = BackboneSpec("test_resnet", weights="random", image_size=64, options={"output_stride": 16})
            extract(data.paths(), Backbone(spec), folder / "cache", names=data.files, batch_size=4)

        return work

    def predicting(ending: str) -> Callable[[Path], Callable[[], object]]:
        def make(folder: Path) -> Callable[[], object]:
            options = ["--batch-size", "8", "--device", "cpu"]
            return command("predict", base / "model", base / "tiny" / "images", "-o", folder / f"p.{ending}", *options)

        return make

    epochs = ["--epochs", "2"]
    both = [*epochs, "--protocol", "both"]
    rows = ["eszsl", "msdn", base / "tiny", *epochs, "--seeds", "1", *BACKBONE]
    return [
        Work("extraction", extraction),
        Work("training, both protocols", lambda f: train(base, "tiny", "msdnpp", both, f / "run")),
        Work("training, with class hold-outs", lambda f: train(base, "seen", "msdn", epochs, f / "run")),
        Work("comparison", lambda f: command("compare", *rows, "-o", f / "compare", "--cache", f / "cache")),
        Work("prediction to CSV", predicting("csv")),
        Work("prediction to Parquet", predicting("parquet")),
    ]


def campaign(
    work: Work, base: Path, times: int, seed: list[int], only: int | None, report: Report
) -> tuple[dict[str, Any], Tally]:
    """Trials of a work until ``times`` kills are done."""
    folder = base / "work"
    tally = Tally()
    first = _undisturbed(work, folder)
    expected = contents(folder)
    again = _undisturbed(work, folder)
    tally.failures += [f"{work.name}, not even disturbed: {line}" for line in differences(expected, contents(folder))]
    whole = Attempt(0, "", min(first.seconds, again.seconds), again.writes)
    began = time.monotonic()
    index = 0 if only is None else only
    while not tally.failures[20:] and (sum(tally.kills.values()) < times if only is None else index == only):
        trial(work, folder, whole, expected, [*seed, index], tally)
        index += 1
        if time.monotonic() - began > 30:
            began = time.monotonic()
            report(f"{work.name}: {sum(tally.kills.values())} kills, {len(tally.failures)} failures")
    shutil.rmtree(folder)
    row = {
        "work": work.name,
        "writes": whole.writes,
        "trials": tally.trials,
        "killed at a write": tally.kills["write"],
        "killed at a time": tally.kills["time"],
        "files compared": len(expected),
        "other bytes or leftovers": len(tally.failures),
        "read meanwhile": tally.readings,
    }
    return row, tally


def _undisturbed(work: Work, folder: Path) -> Attempt:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    done = attempt(work.make(folder))
    if done.status:
        raise RuntimeError(f"{work.name}: status {done.status}\n{done.said}")
    return done


def trial(work: Work, folder: Path, whole: Attempt, expected: dict[str, str], seed: list[int], tally: Tally) -> None:
    """Start from nothing, kill up to three times, repeat to the end, and compare."""
    rng = np.random.default_rng(seed)
    shutil.rmtree(folder)
    folder.mkdir()
    tally.trials += 1
    reader = Reader(folder) if seed[-1] % 5 == 0 else None
    drawn, last = [], None
    for _ in range(rng.integers(1, 4)):
        at_write, group = rng.random() < 0.5, bool(rng.random() < 0.7)
        if at_write:
            moments, seconds = Moments(int(rng.integers(1, whole.writes + 1))), None
        else:
            moments, seconds = Moments(), float(rng.uniform(0, whole.seconds))
        last = attempt(work.make(folder), moments=moments, seconds=seconds, whole_group=group)
        drawn.append(f"write {moments.fatal}" if at_write else f"{seconds:.3f} s{'' if group else ', parent alone'}")
        if last.status != -signal.SIGKILL:
            break
        tally.kills["write" if at_write else "time"] += 1
    if last is None or last.status == -signal.SIGKILL:
        last = attempt(work.make(folder))
    if last.status == 2 and "already exists" in last.said:  # killed after its end
        last = Attempt(0, last.said, last.seconds, last.writes)
    where = f"{work.name}, --seed {seed[0]} --trial {seed[-1]} (killed at {'; '.join(drawn)})"
    if last.status:
        tally.failures.append(f"{where}: ended with {last.status}: {last.said.strip()[-400:]}")
    else:
        tally.failures += [f"{where}: {line}" for line in differences(expected, contents(folder))]
    if reader is not None:
        readings, errors = reader.stop()
        tally.readings += readings
        tally.failures += [f"{where}, read meanwhile: {line}" for line in errors]


# existing files


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file, except for what differs between any two calls; reports leftovers and held locks.

    Ignored are times, peak memory and the commit of this checkout, which may change meanwhile, in JSON, tables and
    pages; files of TensorBoard, which hold the time of every entry in content and name; ``usage.json``, which holds
    only times; and lock files, which must be free.
    """
    found = {}
    times = _times(folder)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if LEFT_OVER.search(path.name):
            found[name] = "left over"
        elif path.name.endswith(".lock"):
            try:
                with FileLock(path).acquire(timeout=0):
                    pass
            except Timeout:
                found[name] = "locked"
        elif path.is_file() and "tensorboard" not in path.parts and path.name != SET_ASIDE:
            found[name] = hashlib.sha256(_plain(path, times)).hexdigest()
    return found


def _times(folder: Path) -> list[str]:
    from unseen.report.comparison import memory_cell, time_cell

    found = []
    for table in folder.rglob("compare.json"):
        for row in json.loads(table.read_text())["rows"]:
            if row["error"] is None:
                found += [time_cell(row["seconds"]), memory_cell(row)]
    commits = (json.loads(path.read_text()).get("git") for path in folder.rglob("manifest.json"))
    return found + sorted({commit for commit in commits if commit})


def _plain(path: Path, times: list[str]) -> bytes:
    if path.suffix in (".json", ".jsonl") and path.name != "journal.jsonl" and path.parent.name != "work":
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return json.dumps([_without_times(json.loads(line)) for line in lines]).encode()
    if path.name == "checkpoint.safetensors":
        from unseen.ground.tensors import load_tensors

        tensors, about = load_tensors(path)
        states = [(name, tensor.numpy().tobytes().hex()) for name, tensor in sorted(tensors.items())]
        return json.dumps([_without_times(json.loads(about["info"])), about["optimizer"], states]).encode()
    data = path.read_bytes()
    if path.name == "compare.csv":
        with path.open(newline="") as file:
            return json.dumps(
                [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]
            ).encode()
    if path.suffix in (".html", ".md", ".csv"):
        for text in times:  # as a separate word, not in another number or a digest
            data = re.sub(rb"(?<![\w.,])" + re.escape(text.encode()) + rb"(?!\w)", b"-", data)
        data = re.sub(rb"[\d.]+ s for the last call, peak memory [\d,]+ MB", b"-", data)
    return data


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMED}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line for every file that differs, is missing or superfluous."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            state = (
                "missing" if name not in found else "not there undisturbed" if name not in expected else "other bytes"
            )
            lines.append(f"{name} {found[name] if found.get(name) in ('left over', 'locked') else state}")
    return lines


# while reading


class Reader:
    """A process that repeatedly reads all files of a folder with the product's own readers."""

    def __init__(self, folder: Path) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._child = start(lambda: self._watch(folder), self._output.fileno())

    def stop(self) -> tuple[int, list[str]]:
        """Number of files read completely, and a line for each one that was not."""
        os.kill(self._child, signal.SIGTERM)
        os.waitpid(self._child, 0)
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        self._output.close()
        return (int(lines[-1]) if lines else 0), lines[:-1]

    @staticmethod
    def _watch(folder: Path) -> None:
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
        count, said = 0, set()
        while not stopped:
            try:
                paths = sorted(folder.rglob("*"))
            except FileNotFoundError:  # in a folder that has been removed meanwhile
                continue
            for path in paths:
                try:
                    count += read_whole(path)
                except Exception as error:
                    line = f"{path.relative_to(folder)}: {type(error).__name__}: {error}"
                    if path.exists() and line not in said:
                        said.add(line)
                        print(line.replace("\n", " "), flush=True)
            time.sleep(0.01)
        print(count, flush=True)


UNFINISHED = object()


def read_whole(path: Path) -> int:
    """Read a file like the product does, returning 1; 0 for files that are never read. Raises for a partial file."""
    from unseen.errors import StoreError
    from unseen.features.store import RegionStore
    from unseen.ground.files import read_json
    from unseen.ground.tensors import load_tensors
    from unseen.model.references import References
    from unseen.training.decisions import load_decisions

    if path.name.startswith(".") or ".partial" in path.parent.name:
        return 0

    def store(path: Path) -> object:
        try:
            RegionStore.open(path.parent).verify()
        except StoreError as error:
            if not error.problem.startswith(("unfinished", "no such file")):
                raise
            return UNFINISHED
        return None

    readers: dict[str, Callable[[Path], object]] = {
        "journal.jsonl": store,
        "p.csv": _whole_csv,
        "p.parquet": _whole_parquet,
        "-references.npz": References.load,
        ".json": read_json,
        ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
        ".safetensors": load_tensors,
        ".npz": load_decisions,
        ".html": _whole_page,
    }
    endings = [ending for ending in readers if ending[0] in "-." and path.name.endswith(ending)]
    reader = readers.get(path.name) or (readers[endings[0]] if endings else None)
    return int(reader is not None and reader(path) is not UNFINISHED)


def _whole_csv(path: Path) -> None:
    lines = path.read_text().splitlines()
    if len(lines) != 73 or not path.read_text().endswith("\n"):
        raise ValueError(f"{len(lines)} lines")


def _whole_parquet(path: Path) -> None:
    import pyarrow.parquet

    if len(pyarrow.parquet.read_table(path, use_threads=False)) != 72:
        raise ValueError("rows are missing")


def _whole_page(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("half a page")
