"""Commands in processes of their own that share the slow import of third-party packages.

Run as a script, it imports those packages once, then forks for every call that it reads. Each fork imports ``unseen``
anew, with nothing changed in it. This is not :mod:`faults.attempts`, whose children share the imported package and
count and interrupt writes.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "lightning_fabric", "pandas", "matplotlib.pyplot", "sklearn", "onnxruntime")
LIMIT = 300
"""Seconds of a call."""
SOURCE = str(Path(__file__).parents[1] / "src")


@dataclass
class Started:
    """A command that runs; ``folder`` is where its output goes."""

    commands: Commands
    folder: Path
    process: subprocess.Popen[bytes] | int

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        pid = self.process if isinstance(self.process, int) else self.process.pid
        os.kill(pid, number)

    def poll(self, seconds: float = 0) -> int | None:
        """Its status, minus the signal that ended it; ``None`` if it still runs after so many seconds."""
        if isinstance(self.process, int):
            return self.commands.ask(wait=self.process, seconds=seconds)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def until(self, ready: Any, seconds: float = 120) -> None:
        """Wait until something is true or the command has ended."""
        end = time.monotonic() + seconds
        while not ready() and time.monotonic() < end and self.poll(0.02) is None:
            pass

    def kill(self) -> None:
        """End it without warning, if it still runs."""
        if self.poll() is None:
            self.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
            self.poll(LIMIT)

    def end(self) -> int | None:
        """Wait until it ends; its status, or ``None`` where it took too long."""
        status = self.poll(LIMIT)
        self.kill()
        return status


class Commands:
    """Runs ``python -m unseen`` in a folder; a context manager."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._outputs = tempfile.TemporaryDirectory(prefix="unseen-commands-")

    def __enter__(self) -> Commands:
        if hasattr(os, "fork"):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            environment = os.environ | {"PYTHONPATH": SOURCE, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            self._server = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)
        return self

    def __exit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.communicate()
        self._outputs.cleanup()

    def ask(self, **request: Any) -> Any:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        folder: Path,
        *arguments: object,
        environment: dict[str, str] | None = None,
        given: bytes = b"",
        safe_path: bool = False,
    ) -> Started:
        """Start a command.

        Args:
            folder: current folder of the command.
            arguments: its words.
            environment: all its variables; this process's by default.
            given: its standard input.
            safe_path: as with ``python -P``.
        """
        output = Path(tempfile.mkdtemp(dir=self._outputs.name))
        for name, content in (("in", given), ("out", b""), ("err", b"")):
            (output / name).write_bytes(content)
        words, variables = list(map(str, arguments)), dict(os.environ if environment is None else environment)
        if self._server is not None:
            process = self.ask(
                folder=str(folder), output=str(output), words=words, variables=variables, safe_path=safe_path
            )
            return Started(self, output, process)
        command = [sys.executable, *(["-P"] if safe_path else []), "-m", "unseen", *words]
        with (
            (output / "in").open("rb") as stdin,
            (output / "out").open("wb") as out,
            (output / "err").open("wb") as err,
        ):
            streams = {"stdin": stdin, "stdout": out, "stderr": err}
            return Started(self, output, subprocess.Popen(command, cwd=folder, env=variables, **streams))

    def call(self, folder: Path, *arguments: object, **options: Any) -> tuple[int | None, str, str]:
        """Status, output and errors of a command, see :meth:`start`."""
        started = self.start(folder, *arguments, **options)
        return started.end(), started.out, started.err


def run(folder: str, output: str, words: list[str], variables: dict[str, str], safe_path: bool) -> None:
    """Be the command."""
    for name, stream in (("in", 0), ("out", 1), ("err", 2)):
        os.dup2(os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC if stream else os.O_RDONLY), stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # multiprocessing has put another there
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    added = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = dict.fromkeys([*([] if safe_path else [folder]), *map(os.path.abspath, added)])
    sys.argv[1:] = words
    runpy.run_module("unseen", run_name="__main__", alter_sys=True)


def serve() -> None:
    """Answer every request on standard input: start a command, or wait for one."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # an extra that is not installed
    running = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            process = running[request["wait"]]
            process.join(request["seconds"])
            print(json.dumps(process.exitcode), flush=True)
            continue
        process = multiprocessing.get_context("fork").Process(target=run, kwargs=request)
        process.start()
        running[process.pid] = process
        print(json.dumps(process.pid), flush=True)
    for process in running.values():
        process.kill()


if __name__ == "__main__":
    serve()
