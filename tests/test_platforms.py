"""What only some systems have is asked for before it is used, so that others can use the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import unseen

MODULES = {"curses", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "winreg"}
NAMES = {
    "os": {
        "chown", "fork", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo", "nice",
        "posix_fadvise", "posix_fallocate", "pread", "preadv", "pwrite", "pwritev",
        "sched_getaffinity", "sched_setaffinity", "sendfile",
        "setsid", "statvfs", "sync", "uname", "wait4",
    },
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm", "setitimer"},
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
}  # fmt: skip
"""Of the standard library, what Windows or macOS lacks."""


def unguarded(source: str) -> list[str]:
    """Uses outside a branch that asks for the name or the platform, with their lines."""
    found = []

    def walk(node: ast.AST, asked: str) -> None:
        if isinstance(node, ast.If | ast.IfExp | ast.BoolOp):
            asked += ast.unparse(node.test if not isinstance(node, ast.BoolOp) else node)
        if isinstance(getattr(node, "body", None), list):  # what left before, on another platform
            left = [n for n in node.body if isinstance(n, ast.If) and isinstance(n.body[-1], ast.Return | ast.Raise)]
            asked += "".join(ast.unparse(n.test) for n in left)
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            only = NAMES.get(node.module or "", set())
            names = [node.module] if node.module in MODULES else [a.name for a in node.names if a.name in only]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [node.attr] if node.attr in NAMES.get(node.value.id, ()) else []
        found.extend(f"{node.lineno}: {n}" for n in names if "sys.platform" not in asked and repr(n) not in asked)
        for child in ast.iter_child_nodes(node):
            walk(child, asked)

    walk(ast.parse(source), "")
    return found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import fcntl", ["1: fcntl"]),
        ("def f():\n    import resource", ["2: resource"]),
        ("def f():\n    if sys.platform == 'win32':\n        return 0\n    import resource", []),
        ("from os import preadv", ["1: preadv"]),
        ("os.preadv(1, [], 0)", ["1: preadv"]),
        ("n = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1", []),
        ("n = len(os.sched_getaffinity(0)) if hasattr(os, 'preadv') else 1", ["1: sched_getaffinity"]),
        ("x = hasattr(signal, 'SIGKILL') and status == -signal.SIGKILL", []),
    ],
)
def test_the_check_sees_them(source, lines):
    assert unguarded(source) == lines


def test_nothing_is_used_unasked():
    folder = Path(unseen.__file__).parent
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 150
    assert {str(f.relative_to(folder)): u for f in files if (u := unguarded(f.read_text(encoding="utf-8")))} == {}
