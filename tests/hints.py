"""Options that messages name."""

from __future__ import annotations

import re

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMAND = re.compile(r"unseen ((?:classes )?[a-z]+)")
TRAINING = re.compile(r"\btrain (a model )?with\b")


def commands() -> dict[str, set[str]]:
    """Every command, such as "classes add", and its options; "" has those before the command."""
    import typer

    from unseen.cli import app

    found: dict[str, set[str]] = {}

    def walk(command, name):
        if not name or not hasattr(command, "commands"):
            found[name] = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for word, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {word}".strip())

    walk(typer.main.get_command(app), "")
    found[""].add("--help")
    return found


def missing(text: str, command: str | None, known: dict[str, set[str]]) -> list[str]:
    """Options in a message that do not exist.

    They are those of the command named last before them ("unseen predict RUN --list FILE"), of ``train`` after "train
    with", else of the command that prints the message; of any if that is ``None``.
    """
    wrong = []
    for found in OPTION.finditer(text):
        before = re.sub(r"`[^`]*`", "", text[: found.start()])
        named = [call[1] for call in COMMAND.finditer(before) if call[1] in known]  # not "of unseen classes"
        asked = named[-1] if named else "train" if TRAINING.search(before) else command
        options = set().union(*known.values()) if asked is None else known.get(asked, set()) | known[""]
        if found[0] not in options:
            wrong.append(f"{asked or 'any command'} {found[0]}")
    return wrong
