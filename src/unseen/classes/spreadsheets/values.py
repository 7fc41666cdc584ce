"""Columns of a table as numbers, flags and unique names, with errors for invalid cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unseen.classes.spreadsheets.cells import place, spelled
from unseen.errors import DataError


class Columns(Protocol):
    """A table of text, by column: a dictionary of lists, or a data frame."""

    def __getitem__(self, name: str, /) -> Any:
        """Cells of the column, in order."""


YES = {"1", "1.0", "yes", "y", "true", "seen"}
NO = {"0", "0.0", "no", "n", "false", "unseen"}


def to_numbers(cells: Iterable[str]) -> np.ndarray:
    """Cells as float64; NaN for anything that pandas does not read as a number."""
    return np.array([_number(cell) for cell in cells], dtype=float)


def _number(cell: str) -> float:
    try:
        return float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        return math.nan


def _strict(cells: list[str]) -> np.ndarray:
    """Like :func:`to_numbers`; a column that no program wrote may have decimal commas or spaces."""
    from unseen.classes.spreadsheets.numbers import read_numbers

    values = to_numbers(cells)
    if np.isfinite(values).all() or "" in cells:
        return values
    found = read_numbers(cells, codes=False)
    sound = not (found.unit or found.unsettled or found.ranges or found.wrong)
    return np.array(found.values) if sound else values


def numbers(columns: Columns, names: Sequence[str], path: Path) -> np.ndarray:
    """Columns of a text table as float64 ``(rows, columns)``; every cell must be a finite number."""
    values = np.stack([_strict(list(columns[name])) for name in names], axis=1)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, j = (int(i) for i in bad[0])
        cell = list(columns[names[j]])[row]
        what = "the cell is blank" if cell == "" else f'"{cell}" is not a finite number'
        more = f" (and {len(bad) - 1} more such cells)" if len(bad) > 1 else ""
        raise DataError(what + more, where=place(path, row, names[j]), hint="enter a number")
    return values


def bad_flags(columns: Columns, name: str, path: Path) -> list[DataError]:
    """Errors of a yes/no column."""
    return [
        DataError(
            f'"{cell}" is not 1 or 0',
            where=place(path, row, name),
            hint=f'use 1 or 0; "{name}" is a reserved column name; rename the column if it is an attribute',
        )
        for row, cell in enumerate(columns[name])
        if cell.lower() not in YES | NO
    ]


def flags(columns: Columns, name: str, path: Path) -> np.ndarray:
    """A yes/no column as bool ``(rows,)``; raises the first of :func:`bad_flags`."""
    for error in bad_flags(columns, name, path):
        raise error
    return np.array([cell.lower() in YES for cell in columns[name]], dtype=bool)


def repeats(columns: Columns, name: str, path: Path, *, exact: bool = False) -> list[DataError]:
    """Errors of a column whose values must be present and unique.

    Args:
        columns: the table.
        name: its column.
        path: its file, for errors.
        exact: whether names may differ only in case or spaces, as those of files.
    """
    found = [
        DataError("the cell is blank", where=place(path, row, name), hint="fill it, or remove the row (of units, say)")
        for row, value in enumerate(columns[name])
        if value == ""
    ]
    cells, first = list(columns[name]), dict[str, int]()
    for row, value in enumerate(cells):
        if not value or (other := first.setdefault(value if exact else spelled(value), row)) == row:
            continue
        problem, hint = f'"{value}" already appears in row {other + 2}', "keep one"
        if cells[other] != value:
            problem = f'"{value}" and "{cells[other]}" in row {other + 2} differ only in case or spaces'
            hint = "keep one, or rename one"
        found.append(DataError(problem, where=place(path, row, name), hint=hint))
    return found


def no_repeats(columns: Columns, name: str, path: Path, *, exact: bool = False) -> None:
    """Raise the first of :func:`repeats`."""
    for error in repeats(columns, name, path, exact=exact):
        raise error
