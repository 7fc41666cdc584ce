"""Columns that may be meant otherwise than they were read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unseen.classes.spreadsheets.cells import also, fold, place
from unseen.classes.spreadsheets.columns import Column, parts_of
from unseen.classes.spreadsheets.numbers import is_number, is_percent, measure
from unseen.classes.spreadsheets.scales import SCALES, step_of
from unseen.errors import DataError
from unseen.ground.words import counted

_JOINED = re.compile(r"\s*[/&+\n]\s*|\s+(?:and|und|et|y|e|or|oder|ou|o)\s+", re.IGNORECASE)
_AMOUNT = re.compile(
    r"[<>≤≥]=?\s*\d.*|\d+\s*/\s*\d+|[½¼¾⅓⅔]|(?:#\s?)?\d.*|(?:under|over|below|above|up to)\s+\d.*",
    re.IGNORECASE,
)

_ZERO = re.compile(r"0\d+")
_BRACKETS = re.compile(r"\(\s*[\d.,]+\s*\)")
_RANKED = re.compile(r"x*[sml]|v?i{0,3}|i[vx]|[-+±0]|\(\+\)|\++|-+", re.IGNORECASE)
"""Sizes S, M, L, Roman numbers, and signs."""

_SCALE = "give the scale, lowest first, in the attributes sheet (such as none<low<high)"


def doubts_of_categories(column: Column, cells: Sequence[str], path: Path) -> list[DataError]:
    """Why a column whose cells were read as categories may be meant as ordered words, numbers, or several values."""
    found = (_ordered(column.steps) or _amounts(column.steps), _together(column.steps))
    rows = [next((row for row, cell in enumerate(cells) if _holds(cell, value)), None) for value in column.steps]
    first = dict(zip(column.steps, rows, strict=True))
    return [
        DataError(one[1], where=place(path, first[one[0]], column.name), hint=one[2])
        for one in found
        if one is not None
    ]


def doubts_of_numbers(column: Column, cells: Sequence[str], path: Path) -> list[DataError]:
    """Why cells that were read as numbers may be meant otherwise: codes such as 007, (5) for -5, shares under a %."""
    found: list[tuple[list[int], str, str]] = []
    if column.kind in ("number", "as is"):
        zeros = [row for row, cell in enumerate(cells) if _ZERO.fullmatch(cell)]
        hint = 'if these are codes, set the column\'s scale to "categories" in the attributes sheet'
        found.append((zeros, "is read as a number, without its zeros", hint))
        turned = [row for row, cell in enumerate(cells) if _BRACKETS.fullmatch(cell) and is_number(cell)]
        found.append((turned, "is read as a positive number", "if the brackets mean minus, write a minus sign"))
    if column.kind == "share" and column.greatest > 0 and is_percent(column.name):
        shares = [row for row, cell in enumerate(cells) if (measure(cell, column.decimal) or (0,))[0] > 0]
        signed = any("%" in cell for cell in cells)
        hint = "write 50% or 0.5%, with percent signs"
        found.append(([] if signed else shares, "in a column of percentages is read as a fraction: 0.5 is 50%", hint))
    return [
        DataError(f'"{cells[rows[0]]}" {what}{also(rows)}', where=place(path, rows[0], column.name), hint=hint)
        for rows, what, hint in found
        if rows
    ]


def doubt_of_blanks(column: Column, cells: Sequence[str], path: Path) -> DataError:
    """A column that tells nothing, because a blank cell is not known and all other cells are alike."""
    rows = [row for row, cell in enumerate(cells) if column.is_blank(cell)]
    only = next(cell for cell in cells if not column.is_blank(cell))
    blank = f'"{cells[rows[0]]}"' if cells[rows[0]] else "a blank cell"
    what = f'{blank} is not known, and all other cells are "{only}": every class gets this value{also(rows)}'
    hint = "if it has a meaning, write it, such as yes and no" if column.kind != "number" else "fill in the cells"
    return DataError(what, where=place(path, rows[0], column.name), hint=hint)


def _holds(cell: str, value: str) -> bool:
    return any(fold(part) == fold(value) for part in parts_of(cell))


def _ordered(steps: Sequence[str]) -> tuple[str, str, str] | None:
    """Words of a known order beside others, or of several orders: the first that does not fit."""
    if len(steps) < 3:
        return None
    fits = {scale: [s for s in steps if step_of(s, scale) is not None] for scale in SCALES}
    scale, known = max(fits.items(), key=lambda one: (len({step_of(s, one[0]) for s in one[1]}), -len(one[0])))
    if all(map(_RANKED.fullmatch, steps)):
        what = f"{_quoted(steps[:3])} are read as words without order"
        return steps[0], what, f"if they have an order, {_SCALE}"
    if len({step_of(s, scale) for s in known}) < 2:
        return None
    if len(known) == len(steps):  # else the column would be a scale
        what = f"some cells have several of {' < '.join(scale)}: the column is read as words without order"
        return steps[0], what, f"use one word, or a new one with its place in the scale: {_SCALE}"
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
    odd = next((s for s in amounts if not is_number(s)), amounts[0])
    what = f'"{odd}" is not read as a number: the column is read as {counted(len(steps), "word")} without order'
    return odd, what, f"enter numbers or ranges, or {_SCALE}"


def _together(steps: Sequence[str]) -> tuple[str, str, str] | None:
    """A value that consists of other values of the column: "red and blue"."""
    found = joined(steps)
    if not found:
        return None
    value, parts = found
    known = {fold(step) for step in steps}
    alone = [part for part in parts if fold(part) in known]
    what = f'"{value}" is read as a value of its own' + (f", beside {_quoted(alone)}" if alone else "")
    return value, what, f'if it means both, write "{"; ".join(parts)}"'


def joined(cells: Sequence[str]) -> tuple[str, list[str]] | None:
    """The first cell that consists of other cells, or of parts of them, and its parts; else ``None``."""
    split = {cell: [part for part in _JOINED.split(cell) if part and not is_number(part)] for cell in cells}
    count = Counter(part for parts in split.values() for part in {*map(fold, parts)})
    for cell, parts in split.items():
        if len(parts) > 1 and all(count[fold(part)] > 1 for part in parts):
            return cell, parts
    return None


def _quoted(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(f'"{word}"' for word in words[:-1]), f'"{words[-1]}"')))
