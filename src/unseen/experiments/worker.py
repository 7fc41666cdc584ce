"""One run in its own process, which isolates its memory and failures.

``python -m unseen.experiments.worker REQUEST``: see :func:`run_worker`. It stops, with a checkpoint, when the process
that started it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from unseen.errors import UnseenError
from unseen.ground.distributed import launched
from unseen.ground.files import read_json, write_json
from unseen.ground.stopping import SIGNALS, interrupt
from unseen.training.config import RunConfig

USAGE = "usage.json"
"""File in a run folder: seconds over all calls, and the highest peak memory of any."""
STOPPED = 130


@dataclass(frozen=True)
class Task:
    """A task for a worker.

    Args:
        what: ``extract`` the regions, ``fit``, or only ``validate``.
        config: configuration of the run.
        folder: folder of the run.
        cache, device, workers, engine: see :func:`unseen.training.run.fit`.
    """

    what: str
    config: RunConfig
    folder: Path
    cache: Path
    device: str
    workers: int
    engine: str | None

    def to_json(self) -> str:
        """The request for the worker's command line."""
        return json.dumps(
            {
                **vars(self),
                "config": self.config.to_json(),
                "folder": str(self.folder),
                "cache": str(self.cache),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read what :meth:`to_json` wrote."""
        found = json.loads(text)
        paths = {name: Path(found[name]) for name in ("folder", "cache")}
        return cls(**{**found, **paths, "config": RunConfig.from_json(found["config"])})


class WorkerError(UnseenError):
    """The worker ended without finishing its task."""


def run_worker(task: Task) -> None:
    """Do a task in its own process and wait for it.

    Forwards SIGINT and SIGTERM to it, and raises ``KeyboardInterrupt`` once it has ended. Its progress goes to this
    process's standard error.

    Raises:
        UnseenError: torchrun started this process, and would have to start the worker too.
        WorkerError: the worker failed, with its own message.
        KeyboardInterrupt: stopped on request; finished work is kept.
    """
    if launched():
        problem = "each row runs in its own process, so torchrun cannot be used here"
        raise UnseenError(problem, hint="run without torchrun, or train each row with torchrun and `unseen train`")
    command = [sys.executable, "-m", "unseen.experiments.worker", task.to_json()]
    # in its own session: a terminal's Ctrl-C reaches it once, from here
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with contextlib.ExitStack() as stack:
        with _held_back():
            started = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": _search_path()}, **pipes)
            process = stack.enter_context(started)
            asked = stack.enter_context(_handing_on(process))
        assert process.stdout is not None
        text = process.stdout.read().decode(errors="replace")
        status = process.wait()
    if asked:
        raise KeyboardInterrupt
    if status == STOPPED:
        raise WorkerError("stopped by a signal", hint="repeat the command to resume")
    if status:
        cause = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        if hasattr(signal, "SIGKILL") and status == -signal.SIGKILL:
            cause += "; the system does so when memory runs out"
        raise WorkerError(text.strip() or cause)


def _search_path() -> str:
    """Module search path of this process, so that a worker also finds the user's methods and backbones."""
    return os.pathsep.join(dict.fromkeys(os.path.abspath(folder) for folder in sys.path))


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back; a process started here does so until its imports are done, see :func:`main`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _handing_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Forward SIGINT and SIGTERM; the list holds those received."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        process.send_signal(number)

    before = {s: signal.signal(s, handle) for s in SIGNALS}
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def work(task: Task) -> None:
    """Do the task in this process."""
    from unseen.ground.progress import bars, quiet_libraries
    from unseen.training.manifest import peak_memory_mb
    from unseen.training.plan import Plan
    from unseen.training.run import fit

    with quiet_libraries(), bars() as progress:
        if task.what == "extract":
            plan = Plan.of(task.config, task.cache, progress)
            plan.extract(task.cache, task.device, task.workers, progress, engine=task.engine)
            return
        started = time.monotonic()
        try:
            fit(
                task.config,
                task.folder,
                cache=task.cache,
                device=task.device,
                workers=task.workers,
                engine=task.engine,
                progress=progress,
                validation_only=task.what == "validate",
            )
        finally:
            if (task.folder / "config.json").is_file():  # otherwise the folder is not a run's yet, and must stay empty
                before = read_usage(task.folder)
                usage = {
                    "seconds": round(before["seconds"] + time.monotonic() - started, 1),
                    "peak_memory_mb": max(before["peak_memory_mb"], peak_memory_mb()),
                }
                write_json(task.folder / USAGE, usage)


def read_usage(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of the calls so far."""
    path = folder / USAGE
    found: dict[str, Any] = read_json(path) if path.is_file() else {"seconds": 0.0, "peak_memory_mb": 0}
    return found


def _watch_parent() -> None:
    """Stop when the parent, which holds standard input, ends; unbuffered, since a lock would disturb the exit."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Main function of the worker: status 0, 130 if stopped, or 1 with one line on standard output."""
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=_watch_parent, daemon=True).start()
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work(Task.from_json(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except UnseenError as error:
        sys.stdout.write(str(error))
        sys.exit(1)
    except Exception as error:
        sys.stdout.write(f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise


if __name__ == "__main__":
    main()
