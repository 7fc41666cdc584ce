"""Packages of extras, imported where they are needed; a missing one is one line with the command that installs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from unseen.errors import UnseenError


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'unseen[{extra}]'"


def needed(module: str, extra: str, what: str = "") -> Any:
    """A module of an extra.

    Args:
        module: its name.
        extra: of ``pyproject.toml``, which installs it.
        what: needs it, in a few words; default the module itself is named alone.

    Raises:
        UnseenError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = (error.name or module).split(".")[0]
        subject = f"{what} needs {name}, which" if what else name
        raise UnseenError(f"{subject} is not installed", hint=install(extra)) from None
