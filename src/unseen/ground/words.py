"""Numbers with their nouns in messages: ``1 image``, ``2 images``."""

from __future__ import annotations

ENDINGS = ("s", "x", "ch", "sh")


def counted(number: int | str, noun: str, plural: str | None = None) -> str:
    """A number with its noun, which gets an "s", or "es" after a hiss; pass any other ``plural``."""
    number = int(number)
    return f"{number:,} {noun if number == 1 else plural or noun + ('es' if noun.endswith(ENDINGS) else 's')}"
