"""Payloads that would leave a mark if anything ran them, and the hook that sees what Python is asked to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

MARK = "UNSEEN_FUZZ_CANARY"
CODE = f"import os; os.environ['{MARK}'] = '1'; open('{MARK}', 'w').close()"
"""Python code that leaves the mark; cases run with their folder as the working directory."""
SHELL = f"touch {MARK}"

_NEVER = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile", "os.kill",
    "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "pickle.find_class", "ctypes.dlopen",
    "marshal.loads", "code.__new__", "urllib.Request", "webbrowser.open", "pty.spawn", "ftplib.connect",
}  # fmt: skip
_DRIVERS = ("libnvidia", "libcuda")  # torch asks whether there is a GPU
_OUTSIDE = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}


class Watch:
    """Forbidden events, seen by an audit hook. A hook cannot be removed, so use it only in a forked process."""

    def __init__(self, folder: Path) -> None:
        self.begin(folder)
        self.active = False
        sys.addaudithook(self._hook)

    def begin(self, folder: Path) -> None:
        """Watch the next case."""
        self.folder = os.path.realpath(folder)
        self.seen: list[str] = []
        self.active = True

    def marks(self) -> list[str]:
        """What was seen since, and what was left behind; ends the watch."""
        self.active = False
        left = [MARK] if MARK in os.environ or any(Path(self.folder).rglob(MARK)) else []
        return [*dict.fromkeys(self.seen), *left]

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _NEVER:
            if not self._imported() and not str(given[0]).startswith(_DRIVERS):
                self.seen.append(f"{event} {str(given)[:120]}")
        elif event == "exec":
            if MARK in repr(getattr(given[0], "co_consts", given[0])):
                self.seen.append("ran a file's text")
        elif event == "open":
            path, mode, flags = given
            writes = (mode and set(mode) & set("wax+")) or (flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if writes and not self._inside(path):
                self.seen.append(f"open for writing {path!s}")
        elif event in _OUTSIDE and not all(self._inside(p) for p in given if isinstance(p, str | bytes | os.PathLike)):
            self.seen.append(f"{event} {given}")

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        text = os.fsdecode(path)
        if text in {"/dev/null", "/dev/tty"} or text.startswith("/proc/self/") or "__pycache__" in text:
            return True
        return os.path.realpath(text).startswith((self.folder + os.sep, self.folder))

    def _imported(self) -> bool:
        """Whether a module is just being imported (which loads bytecode and libraries of its own)."""
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            frame = frame.f_back  # type: ignore[assignment]
        return False
