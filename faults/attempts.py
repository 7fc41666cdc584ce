"""Commands as forked children of a process that has imported everything, to run, kill and repeat them quickly.

A child can be killed at a given write: the n-th time that it is about to open a file for writing, rename, remove,
create or truncate something, or sync it to disk. Random times alone would nearly always hit the long stretches between
writes.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WRITES = ("os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir", "os.chmod", "os.link")
IGNORED = ("/dev/", "/proc/", "/sys/")
TIMEOUT = 300.0
OURS = (
    *("cli", "fieldguide", "releases", "experiments.compare", "explain.gallery", "export", "recognizer"),
    *("report.page", "recognizer.stream", "training.run"),
)
MODULES = (*(f"unseen.{name}" for name in OURS), "pyarrow.parquet")


@dataclass(frozen=True)
class Attempt:
    """How a child ended.

    Args:
        status: its exit status, or minus the signal that ended it.
        said: standard output and error.
        seconds: duration.
        writes: number of writes.
        stopped_in: seconds from the signal to its end.
    """

    status: int
    said: str
    seconds: float
    writes: int
    stopped_in: float | None = None


class Moments:
    """Counts writes of a child and its own children, and kills all of them at one of these writes."""

    def __init__(self, fatal: int = 0) -> None:
        self.fatal = fatal
        self._shared = mmap.mmap(-1, 8)
        self.hook: Callable[[str, str, int], None] = lambda event, path, count: None
        """Called with event, path and count; may raise what the system would."""

    @property
    def count(self) -> int:
        """Number of writes so far."""
        return int(struct.unpack("q", self._shared[:8])[0])

    def watch(self) -> None:
        """Count from here on in this process; cannot be undone."""
        sys.addaudithook(self._heard)
        sync = os.fsync

        def fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            self._came("fsync", str(Path(f"/proc/self/fd/{number}").readlink()))
            sync(file)

        vars(os)["fsync"] = fsync

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else any(c in mode for c in "wa+x")
            if not writes or (isinstance(path, str) and path.startswith(IGNORED)):
                return
        elif event not in WRITES:
            return
        self._came(event, arguments[0])

    def _came(self, event: str, path: object) -> None:
        count = self.count + 1
        self._shared[:8] = struct.pack("q", count)
        self.hook(event, os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "", count)
        if count == self.fatal:
            os.killpg(0, signal.SIGKILL)


def warm() -> None:
    """Import what commands need, in one thread: a child of a process with threads would wait for them forever."""
    import torch

    torch.set_num_threads(1)
    for module in MODULES:
        importlib.import_module(module)


class Running:
    """A child that runs ``work``; arguments as in :func:`attempt`."""

    def __init__(
        self,
        work: Callable[[], object],
        moments: Moments | None = None,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self._moments = found = moments or Moments()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._began = time.monotonic()

        def watched() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler of the campaign
            before()
            found.watch()
            work()

        self._child = start(watched, self._said.fileno())

    def end(
        self,
        seconds: float | None = None,
        number: int = signal.SIGKILL,
        whole_group: bool = True,
        timeout: float = TIMEOUT,
    ) -> Attempt:
        """Wait for its end; send a signal ``seconds`` after its start."""
        sent = None
        while True:
            done, state = os.waitpid(self._child, os.WNOHANG)
            if done:
                break
            now = time.monotonic()
            if seconds is not None and sent is None and now - self._began >= seconds:
                self._signal(number, whole_group)
                sent = now
            if now - self._began > timeout:
                os.killpg(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
                return Attempt(124, "hangs", now - self._began, self._moments.count)
            time.sleep(0.002)
        now = time.monotonic()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        self._said.close()
        status = os.waitstatus_to_exitcode(state)
        return Attempt(status, said, now - self._began, self._moments.count, None if sent is None else now - sent)

    def _signal(self, number: int, whole_group: bool) -> None:
        try:
            (os.killpg if whole_group else os.kill)(self._child, number)
        except ProcessLookupError:  # so early that it has no group of its own yet
            os.kill(self._child, number)


def attempt(
    work: Callable[[], object],
    *,
    moments: Moments | None = None,
    before: Callable[[], object] = lambda: None,
    seconds: float | None = None,
    number: int = signal.SIGKILL,
    whole_group: bool = True,
    timeout: float = TIMEOUT,
) -> Attempt:
    """Run ``work`` in a child and wait for it.

    Args:
        work: function such as :func:`command`.
        moments: counter of writes, which may kill.
        before: called first in the child.
        seconds: time after which the child gets signal ``number``.
        number: number of the signal.
        whole_group: whether the child's children get the signal too.
        timeout: time after which it counts as hanging and is killed.
    """
    return Running(work, moments, before).end(seconds, number, whole_group, timeout)


def start(work: Callable[[], object], output: int) -> int:
    """Fork a child that runs ``work`` in its own process group and exits."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        work()
        status = 0
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def command(*arguments: object) -> Callable[[], None]:
    """Run ``unseen ARGUMENTS``."""

    def work() -> None:
        from rich.console import Console

        from unseen import cli
        from unseen.cli import common

        common.out, common.err = Console(), Console(stderr=True)
        for path, module in list(sys.modules.items()):  # each has imported them by name
            for name in ("out", "err"):
                if f"{path}.".startswith("unseen.cli.") and hasattr(module, name):
                    setattr(module, name, getattr(common, name))
        sys.argv = ["unseen", *map(str, arguments)]
        fork_workers()
        cli.main()

    return work


def fork_workers() -> None:
    """Run the rows of a comparison as forked processes too."""
    from unseen.experiments import worker

    vars(worker)["subprocess"] = SimpleNamespace(Popen=_Forked, PIPE=-1)


class _Forked:
    """The part of ``subprocess.Popen`` that starting a worker uses."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        from unseen.experiments import worker

        own_in, self._in = os.pipe()
        out, own_out = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.close(self._in)
                os.close(out)
                os.dup2(own_in, 0)
                os.dup2(own_out, 1)
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.argv = ["worker", command[-1]]
                worker.main()
                status = 0
            except SystemExit as leave:
                status = leave.code if isinstance(leave.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(own_in)
        os.close(own_out)
        self.stdout = os.fdopen(out, "rb")

    def __enter__(self) -> _Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        os.close(self._in)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)
