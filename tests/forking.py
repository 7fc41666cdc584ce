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
import subprocess
import sys
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "lightning_fabric", "pandas", "matplotlib.pyplot", "sklearn", "onnxruntime")
LIMIT = 300
"""Seconds of a call."""


class Commands:
    """Runs ``python -m unseen`` with the environment given; a context manager."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Commands:
        if hasattr(os, "fork"):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.server = subprocess.Popen([sys.executable, __file__], env=self.environment, **pipes)
        return self

    def __exit__(self, *error: object) -> None:
        if self.server is not None:
            self.server.communicate()

    def call(self, folder: Path, *arguments: str) -> tuple[int | None, str, str]:
        """Status, output and errors of a command called in a folder; no status where it had to be ended."""
        if self.server is None:
            command, options = (
                [sys.executable, "-m", "unseen", *arguments],
                {"cwd": folder, "env": self.environment},
            )
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, **options)
            return done.returncode, done.stdout, done.stderr
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        out, err = (folder.parent / name for name in ("stdout", "stderr"))
        print(json.dumps([str(folder), str(out), str(err), *arguments]), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline()), out.read_text(), err.read_text()


def run(folder: str, out: str, err: str, *arguments: str) -> None:
    """Be the command."""
    for file, stream in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if stream else os.O_RDONLY), stream)
    os.chdir(folder)
    sys.path[0], sys.argv[1:] = folder, arguments
    runpy.run_module("unseen", run_name="__main__", alter_sys=True)


def serve() -> None:
    """Answer every call on standard input with its status."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # an extra that is not installed
    for line in sys.stdin:
        process = multiprocessing.get_context("fork").Process(target=run, args=json.loads(line))
        process.start()
        process.join(LIMIT)
        print(json.dumps(process.exitcode), flush=True)
        process.kill()


if __name__ == "__main__":
    serve()
