"""Numbers in messages: with their nouns (``1 image``, ``2 images``), sizes of images, and paths in commands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

ENDINGS = ("s", "x", "ch", "sh")


def counted(number: int | str, noun: str, plural: str | None = None) -> str:
    """A number with its noun, which gets an "s", or "es" after a hiss; pass any other ``plural``."""
    number = int(number)
    return f"{number:,} {noun if number == 1 else plural or noun + ('es' if noun.endswith(ENDINGS) else 's')}"


def size_text(size: int | None, zoom: int, mirror: bool) -> str:
    """Side of a network's input, and further looks: "224 px, zoom 2, mirrored"; empty for imported features."""
    return "" if size is None else ", ".join([f"{size} px", *looks_text(zoom, mirror)])


def looks_text(zoom: int, mirror: bool) -> list[str]:
    """Looks at an image other than the first."""
    return [*([f"zoom {zoom}"] if zoom > 1 else []), *(["mirrored"] if mirror else [])]


def pasted(path: Path | str) -> str:
    """A path as an argument of a command that a message prints, quoted if the shell needs it."""
    text = str(path)
    if os.name == "nt":
        return f'"{text}"' if " " in text else text
    return shlex.quote(text)
