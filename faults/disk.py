"""A full or read-only disk: one line that names the place and a hint, no damage, and the command can be repeated.

Every command that writes runs on a small file system of its own (if one can be mounted) with the given space left, and
with every write from the n-th on refused. Then, with enough space, the same command must produce the bytes of an
undisturbed call.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.measured import ROOT

from faults.attempts import Attempt, Moments, attempt, command, warm
from faults.campaign import Outcome, Report
from faults.kill import BACKBONE, contents, differences, prepare

SIZE = 64 << 20
PAGE = 4096
REFUSED = ("open", "os.mkdir", "os.rename", "fsync", "os.truncate", "os.link")
"""Errors of a full disk; a read-only one also refuses removing."""


@dataclass(frozen=True)
class Writing:
    """A command that writes.

    Args:
        name: name of the command.
        make: from the folder on the small disk to the work of a child.
        place: creates what the folder must hold before.
    """

    name: str
    make: Callable[[Path], Callable[[], object]]
    place: Callable[[Path], object] = lambda folder: None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the campaign."""
    parser.add_argument("--levels", type=int, default=8, help="levels of room, and of refused writes, a command")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--only", action="append", help="a command (repeatable); default all")


def run(options: argparse.Namespace, report: Report) -> Outcome:
    """The campaign."""
    warm()
    found: dict[str, list[dict[str, Any]]] = {"Full disk": [], "Read-only folder": []}
    failures: list[str] = []
    told = 0
    with tempfile.TemporaryDirectory() as folder, small_disk() as disk:
        base = prepare(Path(folder))
        for writing in writings(base):
            if options.only and writing.name not in options.only:
                continue
            target = disk or base / "disk"
            first, whole, need = undisturbed(writing, target)
            rng = np.random.default_rng([options.seed, *writing.name.encode()])
            row: dict[str, Any] = {"command": f"unseen {writing.name}", "writes": first.writes}
            rooms = sorted({0, PAGE, *rng.integers(0, need // PAGE + 1, options.levels - 2) * PAGE}) if disk else []
            tries = [Level(room=int(room)) for room in rooms]
            writes = sorted({1, *rng.integers(1, first.writes + 1, options.levels - 1)})
            tries += [Level(write=int(n), error=errno.ENOSPC) for n in writes]
            found["Full disk"].append(row | tally(writing, target, whole, tries, failures))
            readonly = [Level(write=1, error=errno.EROFS)] + ([Level(room=-1)] if disk else [])
            found["Read-only folder"].append(row | tally(writing, target, whole, readonly, failures))
            clear(target)
            report("\n".join([writing.name, *failures[told:]]))
            told = len(failures)
        if not options.only:
            with read_only_sources(base) as sources:
                for name, work in sources.items():
                    done = attempt(work)
                    ok = done.status == 0
                    found["Read-only folder"].append({"command": name, "tries": 1, "finished": int(ok)})
                    failures += [] if ok else [f"{name}: status {done.status}: {done.said.strip()[-300:]}"]
    facts = {"mounted": disk is not None, "seed": options.seed}
    return Outcome(found, failures, facts)


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system of :data:`SIZE` bytes in memory, visible only to this process and its children; or ``None``."""
    with tempfile.TemporaryDirectory() as place:
        # util-linux's own way into a namespace is for commands only
        import ctypes

        CLONE_NEWNS = 0x20000
        libc = ctypes.CDLL(None, use_errno=True)
        if (
            libc.unshare(CLONE_NEWNS)
            or mount("--make-rprivate", "/")
            or mount("-t", "tmpfs", "-o", f"size={SIZE}", "none", place)
        ):
            yield None
            return
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=False)


def mount(*arguments: str) -> int:
    """Exit status of ``mount``."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode


@dataclass(frozen=True)
class Level:
    """How a command is refused: ``room`` bytes are left (-1: read-only), or every write from a number on fails."""

    room: int | None = None
    write: int = 0
    error: int = 0

    def __str__(self) -> str:
        if self.room is not None:
            return "read-only" if self.room < 0 else f"{self.room} bytes left"
        return f"{errno.errorcode[self.error]} from write {self.write} on"


def clear(target: Path) -> None:
    """Empty the disk."""
    for path in target.iterdir() if target.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    target.mkdir(exist_ok=True)


def undisturbed(writing: Writing, target: Path) -> tuple[Attempt, dict[str, str], int]:
    """The command with enough space: how it ended, what it left, and the bytes that it needed."""
    clear(target)
    writing.place(target)
    before = shutil.disk_usage(target).used
    done = attempt(writing.make(target))
    if done.status:
        raise RuntimeError(f"unseen {writing.name}: status {done.status}\n{done.said}")
    used = shutil.disk_usage(target).used - before
    return done, contents(target), max(used, PAGE)


def tally(
    writing: Writing, target: Path, whole: dict[str, str], levels: list[Level], failures: list[str]
) -> dict[str, int]:
    """Run a command at every level and then with enough space."""
    row = {"tries": len(levels), "refused in one line": 0, "finished": 0, "the same bytes after": 0}
    for level in levels:
        clear(target)
        writing.place(target)
        done = refused(writing, target, level)
        where = f"unseen {writing.name}, {level}"
        if done.status == 0:
            row["finished"] += 1
        elif problem := unfit(done, target):
            failures.append(f"{where}: {problem}: {done.said.strip()[-500:]}")
        else:
            row["refused in one line"] += 1
        after = attempt(writing.make(target))
        if after.status == 2 and done.status == 0 and "already" in after.said:
            after = Attempt(0, "", 0, 0)
        lines = [f"status {after.status}: {after.said.strip()[-300:]}"] if after.status else []
        lines += differences(whole, contents(target)) if not lines else []
        row["the same bytes after"] += not lines
        failures += [f"{where}, then with room: {line}" for line in lines[:5]]
    return row


def refused(writing: Writing, target: Path, level: Level) -> Attempt:
    """Run the command under a level's conditions, which end with it."""
    moments = Moments()
    filler = target / ".filler"
    if level.room is None:

        def refuse(event: str, path: str, count: int) -> None:
            hit = event in REFUSED or level.error == errno.EROFS
            if count >= level.write and hit and path.startswith(str(target)):
                raise OSError(level.error, os.strerror(level.error), path)

        moments.hook = refuse
    elif level.room < 0:
        mount("-o", "remount,ro", str(target))
    else:
        fill(filler, shutil.disk_usage(target).free - level.room)
    try:
        return attempt(writing.make(target), moments=moments)
    finally:
        if level.room is not None and level.room < 0:
            mount("-o", "remount,rw", str(target))
        filler.unlink(missing_ok=True)


def fill(path: Path, size: int) -> None:
    """A file that takes up the given space."""
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))


def unfit(done: Attempt, target: Path) -> str | None:
    """What is wrong with the way a command was refused."""
    said = re.sub(r"\s+", " ", done.said)
    if done.status != 2:
        return f"status {done.status} instead of 2"
    if "Traceback" in done.said:
        return "a traceback"
    errors = re.findall(r"error: (.*)", said)
    if len(errors) != 1:
        return f"{len(errors)} error lines"
    if str(target) not in errors[0]:
        return "the place is not named"
    return None if " — " in errors[0] else "no hint"


def writings(base: Path) -> list[Writing]:
    """Every command that writes."""
    image = next((base / "tiny" / "images").rglob("*.jpg"))
    model, images, cpu = base / "model", base / "tiny" / "images", ["--device", "cpu"]
    prepare_tiny = benchmark(base)

    def train(method: str, *options: str) -> Callable[[Path], Callable[[], object]]:
        where = lambda f: ["-o", f / "run", "--cache", f / "cache"]  # noqa: E731
        return lambda f: command("train", base / "tiny", "-m", method, *BACKBONE, *options, *where(f))

    def a_model(folder: Path) -> None:
        shutil.copytree(model, folder / "model")

    def a_dataset(folder: Path) -> None:
        shutil.copytree(base / "cub", folder / "cub", symlinks=True)

    new = ["--set", f"{_attribute(model)}=1"]
    cached = ["--cache", base / "cache", *cpu]
    return [
        Writing("init", lambda f: command("init", f / "mine", "--format", "csv")),
        Writing("prepare", lambda f: lambda: prepare_tiny(f / "cub")),
        Writing("import", lambda f: command("import", base / "x.hdf5", f / "cub", "--name", "x"), a_dataset),
        Writing("train", train("msdn", "--epochs", "1")),
        Writing("predict", lambda f: command("predict", model, images, "-o", f / "p.csv", "--batch-size", 8, *cpu)),
        Writing("explain", lambda f: command("explain", model, image, "-o", f / "why.png", *cpu)),
        Writing("report", lambda f: command("report", f / "model", *cached), a_model),
        Writing("figures", lambda f: command("figures", f / "model", "--format", "png", *cached), a_model),
        Writing("save", lambda f: command("save", model, f / "saved")),
        Writing("export", lambda f: command("export", model, "-o", f / "model.onnx", "--no-check")),
        Writing("classes add", lambda f: command("classes", "add", f / "model", "new bird", *new), a_model),
        Writing("classes show", lambda f: command("classes", "show", model, _class(model), "-o", f / "c.csv")),
    ]


def _attribute(model: Path) -> str:
    return (model / "classes.csv").read_text().splitlines()[0].split(",")[-1]


def _class(model: Path) -> str:
    return (model / "classes.csv").read_text().splitlines()[1].split(",")[0]


def benchmark(base: Path) -> Callable[[Path], None]:
    """A tiny release of CUB, prepared, and a file of its features; returns the command that prepares it again."""
    import h5py

    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_benchmarks import Tiny
    from unseen.data.folder import load_folder
    from unseen.errors import UnseenError
    from unseen.releases import prepare as make

    tiny = Tiny("cub", base / "release")
    make(tiny.write(), tiny.root, base / "cub")
    dataset = load_folder(base / "cub")
    with h5py.File(base / "x.hdf5", "w") as file:
        count = len(dataset.files)
        file["feature_map"] = np.random.default_rng(0).normal(size=(count, 7, 2, 2)).astype(np.float32)
        file["labels"] = dataset.labels
        for part in ("trainval", "test_seen", "test_unseen"):
            file[f"{part}_loc"] = dataset.indices(part)

    def again(folder: Path) -> None:
        try:
            make(tiny.write(), tiny.root, folder)
        except UnseenError as error:
            print(f"error: {error}")
            sys.exit(2)

    return again


@contextmanager
def read_only_sources(base: Path) -> Iterator[dict[str, Callable[[], object]]]:
    """What must work without write permission: dataset, model and a complete cache."""
    closed = {name: base / f"closed-{name}" for name in ("tiny", "cache", "model")}
    mounted: list[Path] = []
    try:
        for name, place in closed.items():
            place.mkdir()
            if mount("--bind", str(base / name), str(place)) or mount("-o", "remount,bind,ro", str(place)):
                yield {}
                return
            mounted.append(place)
        data, cache, model = closed.values()
        where = ["-o", base / "open", "--cache", cache]
        image = next((data / "images").rglob("*.jpg"))
        training = command("train", data, "-m", "eszsl", *BACKBONE, *where)
        yield {
            "train on a read-only folder with a read-only cache": training,
            "predict with a read-only model": command("predict", model, image, "--device", "cpu"),
        }
    finally:
        for place in mounted:
            subprocess.run(["umount", "-l", place], check=False)
