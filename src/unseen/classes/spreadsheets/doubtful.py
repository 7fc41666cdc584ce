"""Columns of words that were read as categories, and may be meant otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unseen.classes.spreadsheets.cells import fold, place
from unseen.classes.spreadsheets.columns import Column, parts_of
from unseen.classes.spreadsheets.scales import SCALES, step_of
from unseen.errors import DataError
from unseen.ground.words import counted

_JOINED = re.compile(r"\s*[/&+]\s*|\s+(?:and|und|et|y|e|or|oder|ou|o)\s+", re.IGNORECASE)
_AMOUNT = re.compile(
    r"[<>≤≥]=?\s*\d.*|\d+\s*/\s*\d+|[½¼¾⅓⅔]|\d.*|(?:under|over|below|above|up to)\s+\d.*", re.IGNORECASE
)

_SCALE = "give the scale, lowest first, in the attributes sheet (such as none<low<high)"


def doubts_of_categories(column: Column, cells: Sequence[str], path: Path) -> list[DataError]:
    """Why a column whose cells were read as categories may be meant as ordered words, numbers, or several values."""
    found = (_ordered(column.steps) or _amounts(column.steps), _joined(column.steps))
    rows = [next((row for row, cell in enumerate(cells) if _holds(cell, value)), None) for value in column.steps]
    first = dict(zip(column.steps, rows, strict=True))
    return [
        DataError(one[1], where=place(path, first[one[0]], column.name), hint=one[2])
        for one in found
        if one is not None
    ]


def _holds(cell: str, value: str) -> bool:
    return any(fold(part) == fold(value) for part in parts_of(cell))


def _ordered(steps: Sequence[str]) -> tuple[str, str, str] | None:
    """Words of a known order beside others, or of several orders: the first that does not fit."""
    if len(steps) < 3:
        return None
    fits = {scale: [s for s in steps if step_of(s, scale) is not None] for scale in SCALES}
    scale, known = max(fits.items(), key=lambda one: (len({step_of(s, one[0]) for s in one[1]}), -len(one[0])))
    if len({step_of(s, scale) for s in known}) < 2 or len(known) == len(steps):
        return None
    other = [s for s in steps if s not in known]
    placed = [s for s in other if any(step_of(s, scale) is not None for scale in SCALES)]
    if len(known) + len(placed) < 0.6 * len(steps):
        return None
    words = _quoted(sorted(known, key=lambda s: step_of(s, scale) or 0)[:2])
    what = f'"{other[0]}" is not one of {" < ".join(scale)}, but {words} are: the column is read as words without order'
    return other[0], what, f"if they have an order, {_SCALE}"


def _amounts(steps: Sequence[str]) -> tuple[str, str, str] | None:
    """Amounts that are not numbers: <5, 1/2."""
    amounts = [s for s in steps if _AMOUNT.fullmatch(s)]
    if len(amounts) < 3 or len(amounts) < len(steps):
        return None
    odd = next((s for s in amounts if not s[0].isdigit()), amounts[0])
    what = f'"{odd}" is not read as a number: the column is read as {counted(len(steps), "word")} without order'
    return odd, what, f"enter numbers or ranges, or {_SCALE}"


def _joined(steps: Sequence[str]) -> tuple[str, str, str] | None:
    """A value that consists of other values of the column: "red and blue"."""
    known = {fold(s) for s in steps}
    for value in steps:
        parts = [part for part in _JOINED.split(value) if part]
        if len(parts) > 1 and all(fold(part) in known - {fold(value)} for part in parts):
            what = f'"{value}" is read as a value of its own, beside {_quoted(parts)}'
            return value, what, f'if it means both, write "{"; ".join(parts)}"'
    return None


def _quoted(words: Sequence[str]) -> str:
    return " and ".join(f'"{word}"' for word in words)
