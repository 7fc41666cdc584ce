"""Cases in processes of their own, each with a time limit, a memory bound and a watch on what it does."""

from __future__ import annotations

import json
import os
import resource
import select
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
"""Address space that a case may take on top of the warm process: beyond it allocation fails, and the machine lives."""
LONGEST_LINE = 1000
"""Characters of an error that a person still reads."""


@dataclass
class Result:
    """What came of a case: `outcome` is accepted, refused or failed; `why` is the error's line or what went wrong."""

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
        """The command that repeats it."""
        return f"python -m faults fuzz --target {self.target} --seed {self.seed} --case {self.index}"


def execute(target: Target, seed: int, index: int, folder: Path, tell: Callable[[Result], None]) -> Result:
    """Make a case, tell of it, and run it in this process, which should be a forked one."""
    result = Result(target.name, seed, index, "failed")
    case = target.make(Random(f"{target.name}/{seed}/{index}"), folder)
    result.said = case.said
    tell(result)
    os.chdir(folder)
    watch = Watch(folder)
    before, began = _peak_mb(), time.process_time()
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
    if result.outcome != "failed":
        wrong = _wrong(result, case.names, case.must, target, watch)
        if wrong:
            result.outcome, result.why = "failed", f"{wrong}; {result.outcome}: {result.why[:300]}"
    elif marks := watch.marks():
        result.why += f"; did {', '.join(marks)}"
    return result


def _wrong(result: Result, names: tuple[str, ...], must: str | None, target: Target, watch: Watch) -> str | None:
    if marks := watch.marks():
        return f"did {', '.join(marks)}"
    if result.megabytes > target.megabytes:
        return f"took {result.megabytes:.0f} MB"
    if result.seconds > target.seconds:
        return f"took {result.seconds:.1f} s"
    if must and result.outcome != must:
        return f"should be {must}"
    if result.outcome == "accepted":
        return None
    line = result.why
    if not line.isprintable():
        return "error is not one printable line"
    if len(line) > LONGEST_LINE:
        return f"error of {len(line)} characters"
    if names and not any(name in line for name in names):
        return f"error names none of {', '.join(names)}"
    return None


def _peak_mb() -> float:
    """Most memory this process ever held (a fork begins anew, with what it shares)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class _Child:
    pid: int
    pipe: int
    index: int
    target: Target
    deadline: float
    folder: Path
    text: bytes = b""


def campaign(
    cases: Iterable[tuple[Target, int]], seed: int, jobs: int = 2, keep: Path | None = None, base: Path | None = None
) -> Iterator[Result]:
    """Run cases, `jobs` at a time, and yield what came of each as it ends.

    Args:
        cases: targets, warmed, with the number of a case.
        seed: of the campaign.
        jobs: processes at a time.
        keep: folders of failing cases are copied here.
        base: where case folders are made.
    """
    todo, running = iter(cases), {}  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=base) as folders:
        more = True
        while more or running:
            while more and len(running) < jobs:
                given = next(todo, None)
                if given is None:
                    more = False
                    break
                child = _start(*given, seed, Path(folders))
                running[child.pipe] = child
            for child in _ended(running):
                result = _collect(child, seed)
                if result.outcome == "failed" and keep is not None:
                    kept = keep / f"{result.target}-{seed}-{result.index}"
                    shutil.rmtree(kept, ignore_errors=True)
                    with suppress(shutil.Error):  # pipes stay behind
                        shutil.copytree(child.folder, kept, symlinks=True, ignore_dangling_symlinks=True)
                shutil.rmtree(child.folder, ignore_errors=True)
                yield result


def _start(target: Target, index: int, seed: int, folders: Path) -> _Child:
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}-{index}-", dir=folders))
    reading, writing = os.pipe()
    limit = 6 * target.seconds + 10  # processor time is what is judged; this is for one that waits
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        status = 1
        try:
            os.setsid()
            _quiet()
            _guard()

            def tell(result: Result) -> None:
                os.write(writing, json.dumps(asdict(result)).encode() + b"\n")

            tell(execute(target, seed, index, folder, tell))
            status = 0
        except BaseException:
            lines = traceback.format_exc().splitlines()
            tell(Result(target.name, seed, index, "failed", f"the case could not be made: {' '.join(lines[-4:])}"))
        finally:
            os._exit(status)
    os.close(writing)
    return _Child(pid, reading, index, target, time.monotonic() + limit, folder)


def _quiet() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115


def _guard() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GUARD_MB * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _ended(running: dict[int, _Child]) -> list[_Child]:
    ready, _, _ = select.select(list(running), [], [], 0.2)
    ended = []
    for pipe in ready:
        found = os.read(pipe, 1 << 16)
        running[pipe].text += found
        if not found:
            ended.append(running.pop(pipe))
    for pipe, child in list(running.items()):
        if time.monotonic() > child.deadline:
            os.killpg(child.pid, signal.SIGKILL)
            ended.append(running.pop(pipe))
    return ended


def _collect(child: _Child, seed: int) -> Result:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    lines = child.text.splitlines()
    result = Result(**json.loads(lines[-1])) if lines else Result(child.target.name, seed, child.index, "failed")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hung = number in (signal.SIGXCPU, signal.SIGKILL)
        result.why = f"hung: more than {child.target.seconds:g} s" if hung else f"died of {signal.Signals(number).name}"
    return result


def progress(results: Iterable[Result], total: int, report: Callable[[str], None]) -> Iterator[Result]:
    """Pass results on and say a line every thousand."""
    for number, result in enumerate(results, 1):
        if number % 1000 == 0:
            report(f"{number} of {total} cases")
        yield result
