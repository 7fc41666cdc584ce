"""Every option that a message names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import unseen
from hints import OPTION, commands, missing

SOURCE = Path(unseen.__file__).parent
FOREIGN = ("--init--", "--upgrade", "--error-unmatch", "--always", "--dirty", "--rwrap")
"""Options of pip, git and pandas, and a name that only looks like one."""


def texts(path: Path) -> list[str]:
    """The strings of a module, with f-strings whole, but without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in said:
            found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inner | said):
            found.append(node.value)
    return found


def test_options_in_messages_exist():
    known, wrong, count = commands(), [], 0
    for path in SOURCE.rglob("*.py"):
        for text in texts(path):
            own = re.sub("|".join(FOREIGN), "", text)
            count += len(OPTION.findall(own))
            wrong += [f"{path.name}: {text!r}: {found}" for found in missing(own, None, known)]
    assert wrong == []
    assert count > 300


@pytest.mark.parametrize(
    ("text", "command", "wrong"),
    [
        ("choose another --output", "train", []),
        ("choose another --output", "save", ["save --output"]),
        ("pass --dtype", None, ["any command --dtype"]),
        ("unseen predict RUN --list x.txt", "review", []),
        ("unseen classes edit RUN --seed 1", None, ["classes edit --seed"]),
        ("train with --backbone x --restart", "predict", ["train --restart"]),
        ("no images of unseen classes; pass --holdouts 3", "train", []),
        ("--verbose tells more", "stores", []),
    ],
)
def test_a_missing_option_is_found(text, command, wrong):
    assert missing(text, command, commands()) == wrong
