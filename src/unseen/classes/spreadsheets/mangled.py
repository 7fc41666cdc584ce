"""Names that a spreadsheet program has changed: MAY-1 to a date, 1E5 to 100000, 0012 to 12."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from unseen.classes.spreadsheets.cells import also, fold, place
from unseen.errors import DataError

_SCIENTIFIC = re.compile(r"\d(?:[.,]\d+)?E[+-]\d+", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?(?:E[+-]?\d+)?", re.IGNORECASE)
_MONTHS = ["jan", "feb", "mar mär mrz", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"]
_MONTH = {name: i for i, names in enumerate(_MONTHS, 1) for name in names.split()}
_DATE = re.compile(rf"\d{{4}}-\d\d-\d\d|\d{{1,2}}(?:-|\. ?)(?:{'|'.join(_MONTH)})\.?", re.IGNORECASE)
"""A date of a workbook, and what a spreadsheet program writes for it in a CSV file: 1-May, 01. Mai."""


def doubts_of_names(names: Sequence[str], scientific: Container[int], path: Path) -> list[DataError]:
    """What a spreadsheet program may have changed in a column of names.

    Args:
        names: the cells of the column ``class``, as text.
        scientific: rows with a number that the workbook shows in scientific notation, such as 1.00E+05.
        path: file of the table.
    """
    dates = [row for row, name in enumerate(names) if _DATE.fullmatch(name)]
    numbers = [row for row, name in enumerate(names) if row in scientific or _SCIENTIFIC.fullmatch(name)]
    found = [
        (dates, "a date", "MAY-1 or 3-4 into dates"),
        (numbers, "a number in scientific notation", "1E5 into numbers"),
    ]
    return [
        DataError(
            f'"{names[rows[0]]}" is {what}{also(rows)}: spreadsheet programs turn names such as {turned}',
            where=place(path, rows[0], "class"),
            hint="if this is such a name, format the column as text and enter the name again",
        )
        for rows, what, turned in found
        if rows
    ]


def restored(name: str, names: Sequence[str]) -> str | None:
    """How to reconcile a name with the one of ``names`` that differs from it as a spreadsheet program changes names."""
    for other in names:
        if other == name:
            continue
        if other.isdigit() and name.isdigit() and other.lstrip("0") == name.lstrip("0"):
            code, made, why = max(name, other, key=len), min(name, other, key=len), "drop leading zeros"
        elif _NUMBER.fullmatch(name) and _NUMBER.fullmatch(other) and _value(name) == _value(other):
            code, made = sorted((name, other), key=lambda n: (_SCIENTIFIC.fullmatch(n) is not None, n.isdigit()))
            if code == f"{made}.0":  # 1.0 is 1 as programs write it
                code, made = made, code
            why = "turn it into a number"
        elif bool(_DATE.fullmatch(name)) != bool(_DATE.fullmatch(other)) and _parts(name) & _parts(other):
            code, made = (other, name) if _DATE.fullmatch(name) else (name, other)
            why = "turn it into a date"
        else:
            continue
        return f'write "{code}" instead of "{made}": spreadsheet programs {why} unless the column is formatted as text'
    return None


def _value(name: str) -> float:
    return float(name.replace(",", "."))


def _parts(name: str) -> set[tuple[int, int]]:
    """Pairs of numbers, in order of size, that a date may stand for: day and month, or month and year."""
    words = [w.strip(".") for w in re.split(r"[-./ ]+", fold(name)) if w.strip(".")]
    found = [int(w) if w.isdigit() else _MONTH.get(w[:3], 0) for w in words]
    if len(found) == 3:  # 2026-05-01: the program adds the year, or the first day of the month
        year, month, day = found
        return {_ordered(month, day), *((_ordered(month, year), _ordered(month, year % 100)) if day == 1 else ())}
    return {_ordered(*found)} if len(found) == 2 and all(found) else set()


def _ordered(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)
