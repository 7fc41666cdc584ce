"""Run each case in its own process, with a time limit, a memory limit and a watch on its actions."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from faults.fuzz.canary import Watch
from faults.fuzz.target import Target, WrongResultError
from unseen.errors import UnseenError

GUARD_MB = 4096
"""Address space of a case beyond that of the warm process: allocation fails beyond it, so the machine survives."""
BATCH = 20
LONGEST_LINE = 1600
"""Largest length of an error, in characters, that a person still reads."""


@dataclass
class Result:
    """Result of a case: `outcome` is accepted, refused or failed; `why` is the error or what went wrong."""

    target: str
    seed: int
    index: int
    outcome: str
    why: str = ""
    said: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def again(self) -> str:
        """The command that repeats the case."""
        return f"python -m faults fuzz --target {shlex.quote(self.target)} --seed {self.seed} --case {self.index}"


def execute(
    target: Target, seed: int, index: int, folder: Path, watch: Watch, tell: Callable[[Result], None]
) -> Result:
    """Make a case, report it, and run it in this process, which should be forked."""
    result = Result(target.name, seed, index, "failed")
    case = target.make(Random(f"{target.name}/{seed}/{index}"), folder)
    result.said = case.said
    tell(result)
    os.chdir(folder)
    watch.begin(folder)
    before, began = _peak_mb(reset=True), time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(began + target.seconds) + 2, resource.RLIM_INFINITY))
    try:
        target.run(case, folder)
        result.outcome = "accepted"
    except UnseenError as error:
        result.outcome, result.why = "refused", str(error)
    except WrongResultError as error:
        result.why = f"wrong result: {error}"
    except BaseException as error:
        at = traceback.extract_tb(error.__traceback__)
        mine = [f for f in at if "/unseen/" in f.filename] or at
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in mine[:-4:-1])
        result.why = f"{type(error).__name__}: {str(error)[:300]} ({where})"
    result.seconds, result.megabytes = time.process_time() - began, max(0.0, _peak_mb() - before)
    if marks := watch.marks():
        result.outcome, result.why = "failed", f"did {', '.join(marks)}; {result.outcome}: {result.why[:300]}"
    elif result.outcome != "failed" and (wrong := _wrong(result, case.names, case.must, target)):
        result.outcome, result.why = "failed", f"{wrong}; {result.outcome}: {result.why[:300]}"
    return result


def _wrong(result: Result, names: tuple[str, ...], must: str | None, target: Target) -> str | None:
    if result.megabytes > target.megabytes:
        return f"took {result.megabytes:.0f} MB"
    if result.seconds > target.seconds:
        return f"took {result.seconds:.1f} s"
    if must and result.outcome != must:
        return f"should be {must}"
    if result.outcome == "accepted":
        return None
    line = result.why
    if not line.replace("\u200c", "").replace("\u200d", "").isprintable():
        return "error is not one printable line"
    if len(line) > LONGEST_LINE:
        return f"error of {len(line)} characters"
    if names and not any(name in line for name in names):
        return f"error names none of {', '.join(names)}"
    return None


def _peak_mb(reset: bool = False) -> float:
    """Peak memory of this process since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class _Child:
    """A process with its remaining cases, the first of which is running."""

    pid: int
    pipe: int
    target: Target
    todo: list[int]
    deadline: float
    said: str = ""
    text: bytes = b""


def campaign(
    cases: Iterable[tuple[Target, int]], seed: int, jobs: int = 2, keep: Path | None = None, batch: int = BATCH
) -> Iterator[Result]:
    """Run cases, `jobs` at a time, and yield the result of each as it ends.

    Args:
        cases: warm targets, with the number of a case.
        seed: seed of the campaign.
        jobs: number of concurrent processes.
        keep: folder for copies of failing cases.
        batch: number of cases that a process runs in turn; after a case that hangs or dies, another process continues.
    """
    batches: list[tuple[Target, list[int]]] = []
    for target, index in cases:
        if not batches or batches[-1][0] is not target or len(batches[-1][1]) >= batch:
            batches.append((target, []))
        batches[-1][1].append(index)
    batches.reverse()
    running: dict[int, _Child] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz") as made:
        folders = Path(made)
        try:
            while batches or running:
                while batches and len(running) < jobs:
                    child = _start(*batches.pop(), seed, folders)
                    running[child.pipe] = child
                for child, result in _heard(running, seed):
                    folder = _folder(folders, child.target, result.index)
                    if result.outcome == "failed" and keep is not None:
                        kept = keep / f"{result.target}-{seed}-{result.index}"
                        shutil.rmtree(kept, ignore_errors=True)
                        with suppress(OSError, RecursionError):  # pipes cannot be copied, nor deeply nested folders
                            shutil.copytree(folder, kept, symlinks=True, ignore_dangling_symlinks=True)
                    shutil.rmtree(folder, ignore_errors=True)
                    yield result
                    if child.pipe not in running and child.todo:
                        batches.append((child.target, child.todo))
        finally:  # stopped: no process remains
            for child in running.values():
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)


def _folder(folders: Path, target: Target, index: int) -> Path:
    return folders / f"{target.name}-{index}"


def _start(target: Target, indices: list[int], seed: int, folders: Path) -> _Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.setsid()
            _quiet()
            _guard()
            gc.freeze()
            watch = Watch(folders)
            for index in indices:
                _work(target, seed, index, _folder(folders, target, index), watch, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return _Child(pid, reading, target, indices, time.monotonic() + _patience(target))


def _patience(target: Target) -> float:
    """Seconds until a case counts as hanging; processor time has a stricter limit."""
    return 6 * target.seconds + 10


def _work(target: Target, seed: int, index: int, folder: Path, watch: Watch, writing: int) -> None:
    def tell(result: Result, done: bool = False) -> None:
        os.write(writing, json.dumps({"done": done, "result": asdict(result)}).encode() + b"\n")

    environment, here = dict(os.environ), Path.cwd()
    folder.mkdir()
    tempfile.tempdir = str(folder)
    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        result = execute(target, seed, index, folder, watch, tell)
    except BaseException:
        why = " ".join(traceback.format_exc().splitlines()[-4:])
        result = Result(target.name, seed, index, "failed", f"the case could not be made: {why}")
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)
    tell(result, done=True)


def _quiet() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115


def _guard() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GUARD_MB * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _heard(running: dict[int, _Child], seed: int) -> list[tuple[_Child, Result]]:
    """New results of the processes; removes a process that has ended or hangs from `running`."""
    ready, _, _ = select.select(list(running), [], [], 0.2)
    found = []
    for pipe in ready:
        child, piece = running[pipe], os.read(pipe, 1 << 16)
        *lines, child.text = (child.text + piece).split(b"\n")
        for line in lines:
            told = json.loads(line)
            result = Result(**told["result"])
            child.said, child.deadline = result.said, time.monotonic() + _patience(child.target)
            if told["done"]:
                child.todo, child.said = child.todo[1:], ""
                found.append((child, result))
        if not piece:
            found += _ended(running.pop(pipe), seed)
    for pipe, child in list(running.items()):
        if time.monotonic() > child.deadline:
            os.killpg(child.pid, signal.SIGKILL)
            found += _ended(running.pop(pipe), seed)
    return found


def _ended(child: _Child, seed: int) -> list[tuple[_Child, Result]]:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if not child.todo:
        return []
    result = Result(child.target.name, seed, child.todo[0], "failed", f"ended with status {status}", child.said)
    child.todo = child.todo[1:]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hung = number in (signal.SIGXCPU, signal.SIGKILL)
        result.why = f"hung: more than {child.target.seconds:g} s" if hung else f"died of {signal.Signals(number).name}"
    return [(child, result)]


def progress(results: Iterable[Result], total: int, report: Callable[[str], None]) -> Iterator[Result]:
    """Pass results on and report every failure and every thousandth case."""
    for number, result in enumerate(results, 1):
        if result.outcome == "failed":
            report(f"FAILED: {result.why} [{result.said}] again: {result.again}")
        if number % 1000 == 0:
            report(f"{number} of {total} cases")
        yield result
