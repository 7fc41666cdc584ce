"""Settle what only all columns of a table together tell: decimal signs, a common range, and "no" beside "yes".

When a table of plain numbers may be used as it is, is our choice: see :func:`stands`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unseen.classes.attributes import SEPARATOR
from unseen.classes.spreadsheets.cells import also, place
from unseen.classes.spreadsheets.columns import (
    FLAGS,
    Column,
    read_column,
)
from unseen.classes.spreadsheets.guessing import Read, number_column
from unseen.classes.spreadsheets.numbers import (
    COMMA,
    POINT,
    Sign,
    measure,
    misplaced,
    read_numbers,
    settle,
    unmistakable,
)
from unseen.errors import DataError
from unseen.ground.words import counted

ALIKE = 3.0
"""Largest ratio between the maxima of columns that share one range."""
MANY, MOSTLY = 8, 0.7
"""Columns of plain numbers are percentages if at least this many, and this share of all, stay within 0 to 100, and this
share of them exceeds 50."""


def settle_decimals(
    reads: list[Read], path: Path, about: Mapping[Any, Any], errors: list[DataError], doubts: list[DataError]
) -> list[Read]:
    """Settle columns such as 1.200 and 3.450 by other columns, then by the usual notation of such a file."""
    unsettled = [read for read in reads if read.numbers is not None and read.numbers.unsettled]
    found = _settled(reads, path, about, errors, doubts) if unsettled else reads
    for read in found:
        if read.numbers is None or read.fixed or read.column.name in about.get("typed", ()):
            continue
        for row in misplaced(read.cells, read.numbers):
            ways = sorted({measure(read.cells[row], sign) or (0.0, "") for sign in (COMMA, POINT)})
            either = " or ".join(unmistakable(value, read.numbers.decimal) for value, _ in ways)
            values = [v for i, v in enumerate(read.numbers.values) if i != row and np.isfinite(v)]
            what = f'"{read.cells[row]}" can mean {either}; the other cells are {min(values):g} to {max(values):g}'
            where = place(path, row, read.column.name)
            errors.append(DataError(what, where=where, hint=f"write {either}, without a thousands separator"))
    return found


def _settled(
    reads: list[Read], path: Path, about: Mapping[Any, Any], errors: list[DataError], doubts: list[DataError]
) -> list[Read]:
    typed, usual = about.get("typed", ()), about.get("decimal", POINT)
    of_table = settle([r.cells for r in reads if r.numbers is not None and r.column.name not in typed])
    found = []
    for read in reads:
        numbers = read.numbers
        if numbers is None or not numbers.unsettled or read.fixed:
            found.append(read)
            continue
        decimal: Sign = of_table or usual or POINT
        missing = read.column.missing
        again = read_numbers(read.cells, missing, decimal)
        if not of_table:
            rows = [i for i, cell in enumerate(read.cells) if numbers.unsettled in cell]
            both = " or ".join(f"{(measure(numbers.unsettled, sign) or (0, ''))[0]:.10g}" for sign in (COMMA, POINT))
            what = f'"{read.cells[rows[0]]}" can mean {both}' if rows else f"{both}?"
            hint = (
                'set the column\'s scale to "decimal point" or "decimal comma" in the attributes sheet, '
                "or write it without"
            )
            where = place(path, rows[0] if rows else None, read.column.name)
            if usual:
                read_as = f"; read with a decimal {'point' if decimal == POINT else 'comma'}"
                doubts.append(DataError(what + also(rows) + read_as, where=where, hint=hint))
            else:
                errors.append(DataError(what + also(rows), where=where, hint=hint))
        found.append(replace(read, column=number_column(read.column.name, again, missing), numbers=again))
    return found


def stands(names: Sequence[str], values: np.ndarray) -> bool:
    """Whether columns of plain numbers can be compared as they are.

    True if they are in the field's own format (``group::value``), share one range (see :data:`ALIKE`), or look like
    percentages (see :data:`MANY`). Centimeters, kilograms and counts together are scaled separately.

    Args:
        names: column names.
        values: ``(N, K)``, NaN if unknown.
    """
    if all(SEPARATOR in name for name in names):
        return True
    size = np.where(np.isfinite(values), np.abs(values), 0).max(axis=0, initial=0)
    if looks_percent(values):
        return True
    size = size[size > 0]
    return not len(size) or bool(size.max() <= ALIKE * size.min())


def looks_percent(values: np.ndarray) -> bool:
    """Whether many columns ``(N, K)`` of plain numbers look like percentages together."""
    finite = values[np.isfinite(values)]
    if values.shape[1] < MANY or not len(finite) or finite.min() < 0 or not 50 < finite.max() <= 100:
        return False
    return bool((np.where(np.isfinite(values), values, 0).max(axis=0) > 50).mean() >= MOSTLY)


def _flags(reads: Sequence[Read], path: Path, doubts: list[DataError]) -> list[Read]:
    """Columns of 0 and 1 among percentages that mean no and yes: the percentages have decimals, and these have none.

    Among whole percentages, 1 may be 1%: such a column stays one of them, with a doubt.
    """
    zero_one = [r for r in reads if _is_flag(r.column, r.numbers is not None and r.numbers.whole)]
    found = [r for r in zero_one if r.column.greatest == 1]
    others = [r for r in reads if r not in zero_one and r.numbers is not None]
    if not found or not any(not r.numbers.whole for r in others if r.numbers is not None):
        for read in found:
            what = "only 0 and 1 among percentages; read as 0% and 1%"
            hint = 'if it means no and yes, write these words, or set its scale to "yes/no" in the attributes sheet'
            doubts.append(DataError(what, where=place(path, None, read.column.name), hint=hint))
        return []
    return found


def settle_ranges(reads: list[Read], path: Path, doubts: list[DataError]) -> tuple[list[Column], tuple[str, ...]]:
    """Keep numbers as they are if all columns are numbers of one range; otherwise scale each column to 0..1."""
    columns = [read.column for read in reads]
    loose = [read for read in reads if not read.fixed and read.numbers is not None]
    if not loose:
        return columns, ()
    only = len(loose) == sum(
        c.kind != "ignored" and not (r.fixed and c.kind == "as is") for c, r in zip(columns, reads, strict=True)
    )
    percents = [read for read in loose if read.column.kind == "percent"]
    plain = [read for read in loose if read.plain and read.column.kind == "number"]
    within = [read for read in plain if read.column.least >= 0 and read.column.greatest <= 100]
    percent = len(within) >= MOSTLY * len(plain) and bool(within) and looks_percent(_values(within))
    names = [read.column.name for read in plain]
    flags = _flags(within, path, doubts) if percent and not all(SEPARATOR in name for name in names) else []
    if only and len(percents) == len(loose):
        as_is = {id(read): replace(read.column, kind="as is", unit="%") for read in percents}
        return [as_is.get(id(read), read.column) for read in reads], ()
    if only and not flags and len(plain) == len(loose) and stands(names, _values(plain)):
        as_is = {id(read): replace(read.column, kind="as is", low=0.0, high=1.0) for read in plain}
        return [as_is.get(id(read), read.column) for read in reads], ()
    notes: tuple[str, ...] = ()
    shares = {id(read) for read in within if read not in flags} if percent else set()
    if percent:
        notes = (f"read as percentages: {counted(len(shares), 'column')} of plain numbers within 0 to 100",)
    elif only and len(plain) == len(loose) and len(plain) > 1:
        least, most = (f(plain, key=lambda read: read.column.greatest).column for f in (min, max))
        notes = (
            f'columns have different ranges ("{least.name}" up to {least.greatest:g}, "{most.name}" '
            f"up to {most.greatest:g}): each is scaled separately",
        )
    mine = {
        id(read): _own_range(read.column, id(read) in shares, read.numbers is not None and read.numbers.whole)
        for read in plain
    }
    return [mine.get(id(read), read.column) for read in reads], notes


def _own_range(column: Column, percent: bool, whole: bool) -> Column:
    """Scale a column of plain numbers to 0..1."""
    if percent:
        return replace(column, kind="percent", unit="%", low=0.0, high=1.0)
    if _is_flag(column, whole):
        return replace(column, kind="yes/no", low=0.0, high=1.0)
    if column.least >= 0 and column.greatest <= 1:
        return replace(column, kind="share", low=0.0, high=1.0)
    return column


def _is_flag(column: Column, whole: bool) -> bool:
    return whole and {column.least, column.greatest} <= {0.0, 1.0}


def _values(reads: Sequence[Read]) -> np.ndarray:
    """``(N, K)`` numbers of columns."""
    return np.array([read.numbers.values for read in reads if read.numbers is not None], dtype=float).T


def with_no(columns: list[Column], table: Mapping[str, list[str]]) -> list[Column]:
    """Make "no" an attribute beside "yes" if a class would otherwise have no attribute at all."""
    if not any(c.kind in FLAGS for c in columns):
        return columns
    blocks = [read_column(c, table[c.name])[0] for c in columns if c.kind != "ignored"]
    values = np.hstack(blocks)
    if (np.isfinite(values).all(axis=1) & ~values.any(axis=1)).any():
        return [replace(c, both=True) if c.kind in FLAGS else c for c in columns]
    return columns
