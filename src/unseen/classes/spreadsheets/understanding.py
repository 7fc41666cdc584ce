"""What the columns of a person's spreadsheet hold, and the table as numbers; with everything that is wrong or doubtful.

Whether a table of plain numbers may be taken as it stands is our choice: see :func:`stands`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unseen.classes.spreadsheets.columns import (
    DATE,
    FLAGS,
    MARKS,
    NO_WORDS,
    PLAIN_FLAGS,
    SCALES,
    SYNONYMS,
    YES_WORDS,
    CellError,
    Column,
    Encoding,
    parts_of,
)
from unseen.classes.spreadsheets.numbers import (
    COMMA,
    POINT,
    Numbers,
    Sign,
    is_missing,
    measure,
    plain_number,
    read_numbers,
    settle,
)
from unseen.classes.spreadsheets.tables import fold, nearest, place, repeats, to_numbers
from unseen.classes.table import SEPARATOR, Attributes
from unseen.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SCALE_HINT = (
    "low<medium<high, yes/no, percent, share, number, 0..50, log, log 1..100, decimal point, decimal comma, "
    "categories, as is, or ignore"
)
ALIKE = 3.0
"""Columns share one range if the largest of their maxima is at most so many times the smallest."""
MANY, MOSTLY = 8, 0.7
"""So many columns, so large a share of them beyond 50, and none beyond 100: those are percentages."""
_ENDS = re.compile(r"([-+]?[\d.,]+)\.\.([-+]?[\d.,]+)")


@dataclass(frozen=True)
class Understood:
    """What became of a spreadsheet.

    Args:
        encoding: from cells to values.
        attributes: the K attributes; ``None`` if no column can be used.
        values: float64 ``(N, K)``; what is unknown has the mean of all classes, until :meth:`Encoding.filled`.
        known: bool ``(N, K)``.
        errors: all that is wrong, by row; cells in error are taken for blank.
        doubts: what may be misread, with the place and how to settle it.
        notes: what else is to be said.
    """

    encoding: Encoding
    attributes: Attributes | None
    values: np.ndarray
    known: np.ndarray
    errors: tuple[DataError, ...]
    doubts: tuple[DataError, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """A column on its way: its cells, and the numbers in them where it holds numbers."""

    column: Column
    cells: list[str]
    fixed: bool
    numbers: Numbers | None = None

    @property
    def plain(self) -> bool:
        """Whether its cells are bare numbers: no unit, no range, no deviation."""
        found = self.numbers
        return found is not None and not found.unit and not found.ranges


def understand(
    frame: pd.DataFrame,
    names: Sequence[str],
    path: Path,
    about: tuple[pd.DataFrame, Path] | None = None,
    missing: Iterable[str] = (),
) -> Understood:
    """Find out what the attribute columns hold and bring them to numbers.

    Args:
        frame: the table as text, N rows, as :func:`unseen.classes.spreadsheets.tables.read_table` gives it.
        names: its attribute columns.
        path: its file, for errors.
        about: ``attributes.csv`` as text, and its file: attribute (a column, or ``column::value``), and optionally
            group, part, scale, missing, description.
        missing: words for "not known" beside the known ones.
    """
    errors: list[DataError] = []
    doubts: list[DataError] = []
    words = tuple(dict.fromkeys(word.strip().casefold() for word in missing))
    own = _own_words(about, words)
    table = {name: list(frame[name]) for name in names}
    hints = _hints(about, table, own, errors)
    reads = [
        _Read(hints[name], cells, True) if name in hints else _guess(name, cells, own.get(name, words))
        for name, cells in table.items()
    ]
    reads = _decimals(reads, path, frame.attrs, errors, doubts)
    columns, notes = _settle(reads)
    columns = _with_no(columns, table)
    finished, blocks, wrong = [], [], []
    for coded, read in zip(columns, reads, strict=True):
        column = _without_codes(coded, read, path, doubts)
        block, problems = _read_column(column, read.cells)
        wrong += [(row, column.name, problem) for row, problem in problems]
        sound = np.isfinite(block).all(axis=1)
        mean = block[sound].mean(axis=0) if sound.any() else np.zeros(block.shape[1])
        blank = [] if column.kind == "marks" else [c for c in read.cells if column.is_blank(c)]
        finished.append(replace(column, fill=tuple(mean.tolist()), blanks=len(blank)))
        blocks.append(block)
    errors += _told(wrong, {name: i for i, name in enumerate(names)}, path)
    encoding = Encoding(tuple(finished))
    errors += _empty_rows(finished, table, path)
    attributes = _attributes(encoding, about, errors)
    values = np.hstack(blocks) if blocks else np.empty((len(frame), 0))
    known = np.isfinite(values)
    fill = np.array([value for column in finished for value in column.fill])
    values = np.where(known, values, fill)
    return Understood(encoding, attributes, values, known, tuple(errors), tuple(doubts), (*_notes(finished), *notes))


def _told(wrong: list[tuple[int, str, CellError]], order: Mapping[str, int], path: Path) -> list[DataError]:
    """An error a cell, by row; cells of a column with the same thing wrong are one error."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, name, problem in wrong:
        rows.setdefault((name, problem.what), []).append(row)
    found = []
    for row, name, problem in sorted(wrong, key=lambda one: (one[0], order[one[1]])):
        alike = rows[name, problem.what]
        if row == alike[0]:
            found.append(DataError(problem.what + also(alike), where=place(path, row, name), hint=problem.hint))
    return found


def also(rows: Sequence[int]) -> str:
    """Further data rows of the same thing, the first one apart: " (and rows 5, 7)"."""
    others = [str(row + 2) for row in rows[1:6]]
    more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
    return f" (and row{'s' if len(rows) > 2 else ''} {', '.join(others)}{more})" if others else ""


def _empty_rows(columns: Sequence[Column], table: Mapping[str, list[str]], path: Path) -> list[DataError]:
    used = [c for c in columns if c.kind not in ("ignored", "marks")]
    if not used or any(c.kind == "marks" for c in columns):
        return []
    empty = np.all([[c.is_blank(cell) for cell in table[c.name]] for c in used], axis=0)
    hint = "fill in its attributes, or remove the row"
    return [
        DataError("every attribute is blank", where=place(path, int(row)), hint=hint) for row in np.flatnonzero(empty)
    ]


def _notes(columns: Iterable[Column]) -> tuple[str, ...]:
    columns = list(columns)
    notes = [f'column "{c.name}" is ignored: {c.why}' for c in columns if c.why]
    filled = [c for c in columns if c.blanks and c.kind != "ignored"]
    if filled:
        most = ", ".join(f'"{c.name}" {c.blanks}' for c in sorted(filled, key=lambda c: -c.blanks)[:3])
        count = sum(c.blanks for c in filled)
        verb = "cell gets the column mean" if count == 1 else "cells get their column means"
        notes.append(f"{count} blank {verb} ({most}{', ...' if len(filled) > 3 else ''})")
    return tuple(notes)


def _read_column(column: Column, cells: list[str]) -> tuple[np.ndarray, list[tuple[int, CellError]]]:
    """Values ``(rows, attributes)``, NaN where a cell is blank or wrong; and what is wrong, by row."""
    block = np.full((len(cells), len(column.attributes)), np.nan)
    if column.kind == "as is" and column.decimal != COMMA:
        block[:, 0] = to_numbers(cells)
        block[~np.isfinite(block)] = np.nan
        if column.missing:
            block[[column.is_blank(cell) for cell in cells]] = np.nan
    wrong = []
    known: dict[str, list[float] | None] = {}
    for row, cell in enumerate(cells):
        if column.kind == "as is" and np.isfinite(block[row, 0]):
            continue
        try:
            if cell not in known:
                known[cell] = column.read(cell)
            values = known[cell]
            if values is not None:
                block[row] = values
        except CellError as error:
            wrong.append((row, error))
    return block, wrong


# what a column holds


def _guess(name: str, cells: list[str], missing: tuple[str, ...]) -> _Read:
    """What a column holds, by its cells alone; numbers are settled later, together with the other columns."""
    dash = any(cell.casefold() in MARKS for cell in cells)
    base = Column(name, "ignored", missing=missing, dash=dash)
    filled = [cell for cell in cells if not base.is_blank(cell)]
    words = [cell.casefold() for cell in filled]
    if not filled:
        return _Read(replace(base, why="all cells are blank"), cells, False)
    if set(words) <= MARKS and len(filled) < len(cells):
        return _Read(replace(base, kind="marks"), cells, False)
    flags = sum(word in YES_WORDS | NO_WORDS for word in words)
    if flags == len(words) and not set(words) <= {"1", "1.0", "0", "0.0"}:
        return _Read(replace(base, kind="yes/no"), cells, False)
    base = replace(base, dash=False)
    dates = sum(DATE.fullmatch(cell) is not None for cell in filled)
    if dates == len(filled):
        why = f"the cells are dates ({filled[0]}); if you entered numbers or ranges, format the column as text first"
        return _Read(replace(base, why=why), cells, False)
    numbers = read_numbers(cells, missing)
    numeric = len(filled) - len(numbers.wrong) + len(numbers.other_units)
    if 2 * (numeric + dates) >= len(filled) and numeric:
        return _Read(_numbers(name, numbers, missing), cells, False, numbers)
    known, steps = _scale(filled)
    if known < 1 and flags >= 0.6 * len(words) and len(set(words) & PLAIN_FLAGS) > 1:
        return _Read(replace(base, kind="yes/no"), cells, False)
    if steps:
        return _Read(replace(base, kind="scale", steps=steps), cells, False)
    return _Read(_categories(base, filled, rows=len(cells)), cells, False)


def _numbers(name: str, numbers: Numbers, missing: tuple[str, ...]) -> Column:
    """Numbers or percentages, with their ends and unit."""
    values = [value for value in numbers.values if np.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    shared = Column(
        name,
        "number",
        low=low,
        high=high,
        least=low,
        greatest=high,
        decimal=numbers.decimal,
        missing=missing,
    )
    if numbers.percent:
        return replace(shared, kind="percent", low=0.0, high=1.0)
    if not numbers.unit and values and ("%" in name or "percent" in name.casefold()) and 1 < high <= 100:
        return replace(shared, kind="percent", unit="%", low=0.0, high=1.0)
    return replace(shared, unit=numbers.unit)


def _scale(filled: list[str]) -> tuple[float, tuple[str, ...]]:
    """The smallest known scale that the words are of, slips of the pen apart, and which share of them it has."""
    best: tuple[float, tuple[str, ...]] = (0.0, ())
    words = [fold(cell) for cell in filled]
    for steps in SCALES:
        own = [w if w in steps else SYNONYMS.get(w, w) for w in words]
        known = sum(w in steps for w in own) / len(own)
        slips = all(w in steps or nearest(w, steps) for w in own)
        fits = known >= 0.6 and slips
        if len(set(own) & set(steps)) >= 2 and fits and (known, -len(steps)) > (best[0], -len(best[1])):
            best = (known, steps)
    return best


def _categories(base: Column, filled: list[str], rows: int = 0) -> Column:
    """Categories; or free text that is not used, if it is asked about with the number of ``rows``."""
    spelling: dict[str, str] = {}
    count: dict[str, int] = {}
    for cell in filled:
        for key, part in {fold(p): p for p in parts_of(cell)}.items():
            spelling.setdefault(key, part)
            count[key] = count.get(key, 0) + 1
    long = sum(map(len, filled)) > 40 * len(filled)
    if rows and max(count.values(), default=1) == 1 and (long or len(filled) >= max(8, 0.5 * rows)):
        why = 'no two rows share a value; to use it, set its scale to "categories" in the attributes sheet'
        return replace(base, kind="ignored", why=why)
    several = any(len(parts_of(cell)) > 1 for cell in filled)
    steps = tuple(spelling[key] for key in sorted(spelling))
    return replace(base, kind="categories", steps=steps, several=several)


# what the columns say together


def _decimals(
    reads: list[_Read], path: Path, about: Mapping[Any, Any], errors: list[DataError], doubts: list[DataError]
) -> list[_Read]:
    """Settle columns such as 1.200 and 3.450 by the table's others, then by how such a file is usually written."""
    unsettled = [read for read in reads if read.numbers is not None and read.numbers.unsettled]
    if not unsettled:
        return reads
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
        found.append(replace(read, column=_numbers(read.column.name, again, missing), numbers=again))
    return found


def stands(names: Sequence[str], values: np.ndarray) -> bool:
    """Whether columns of plain numbers may be compared as they stand.

    They may if they are the field's own (``group::value``), if they share one range (see :data:`ALIKE`), or if they
    look like percentages (see :data:`MANY`). Centimetres, kilograms and counts may not: each is scaled by itself.

    Args:
        names: of the columns.
        values: ``(N, K)``, NaN where unknown.
    """
    if all(SEPARATOR in name for name in names):
        return True
    size = np.where(np.isfinite(values), np.abs(values), 0).max(axis=0, initial=0)
    if looks_percent(values):
        return True
    size = size[size > 0]
    return not len(size) or bool(size.max() <= ALIKE * size.min())


def looks_percent(values: np.ndarray) -> bool:
    """Whether many columns ``(N, K)`` of plain numbers together look like percentages."""
    finite = values[np.isfinite(values)]
    if values.shape[1] < MANY or not len(finite) or finite.min() < 0 or not 50 < finite.max() <= 100:
        return False
    return bool((np.where(np.isfinite(values), values, 0).max(axis=0) > 50).mean() >= MOSTLY)


def _settle(reads: list[_Read]) -> tuple[list[Column], tuple[str, ...]]:
    """Numbers as they stand where all columns are numbers of one range, else each column in 0..1."""
    columns = [read.column for read in reads]
    loose = [read for read in reads if not read.fixed and read.numbers is not None]
    if not loose:
        return columns, ()
    only = len(loose) == sum(
        c.kind != "ignored" and not (r.fixed and c.kind == "as is") for c, r in zip(columns, reads, strict=True)
    )
    percents = [read for read in loose if read.column.kind == "percent"]
    plain = [read for read in loose if read.plain and read.column.kind == "number"]
    values = np.array([read.numbers.values for read in plain if read.numbers is not None], dtype=float).T
    if only and len(percents) == len(loose):
        as_is = {id(read): replace(read.column, kind="as is", unit="%") for read in percents}
        return [as_is.get(id(read), read.column) for read in reads], ()
    if only and len(plain) == len(loose) and stands([read.column.name for read in plain], values):
        as_is = {id(read): replace(read.column, kind="as is", low=0.0, high=1.0) for read in plain}
        return [as_is.get(id(read), read.column) for read in reads], ()
    percent = bool(plain) and looks_percent(values)
    notes: tuple[str, ...] = ()
    if percent:
        notes = (f"{len(plain)} columns of plain numbers within 0 to 100 are read as percentages",)
    elif only and len(plain) == len(loose) and len(plain) > 1:
        least, most = (f(plain, key=lambda read: read.column.greatest).column for f in (min, max))
        notes = (
            f'columns have different ranges ("{least.name}" up to {least.greatest:g}, "{most.name}" '
            f"up to {most.greatest:g}): each is scaled separately",
        )
    mine = {
        id(read): _own_range(read.column, percent, read.numbers is not None and read.numbers.whole) for read in plain
    }
    return [mine.get(id(read), read.column) for read in reads], notes


def _own_range(column: Column, percent: bool, whole: bool) -> Column:
    """A column of plain numbers in 0..1."""
    if percent:
        return replace(column, kind="percent", unit="%", low=0.0, high=1.0)
    if whole and {column.least, column.greatest} <= {0.0, 1.0}:
        return replace(column, kind="yes/no", low=0.0, high=1.0)
    if column.least >= 0 and column.greatest <= 1:
        return replace(column, kind="share", low=0.0, high=1.0)
    return column


def _with_no(columns: list[Column], table: Mapping[str, list[str]]) -> list[Column]:
    """Where a class would have no attribute at all, "no" becomes one beside "yes"."""
    if not any(c.kind in FLAGS for c in columns):
        return columns
    blocks = [_read_column(c, table[c.name])[0] for c in columns if c.kind != "ignored"]
    values = np.hstack(blocks)
    if (np.isfinite(values).all(axis=1) & ~values.any(axis=1)).any():
        return [replace(c, both=True) if c.kind in FLAGS else c for c in columns]
    return columns


def _without_codes(column: Column, read: _Read, path: Path, doubts: list[DataError]) -> Column:
    """The column with numbers that look like codes among its words for "not known"; asks about them."""
    numbers = read.numbers
    if read.fixed or numbers is None or not numbers.codes or column.kind == "ignored":
        return column
    found: dict[str, list[int]] = {}
    for row in numbers.codes:
        found.setdefault(read.cells[row], []).append(row)
    for code, rows in found.items():
        what = f'"{code}" is far from {column.least:g} to {column.greatest:g}; read as missing'
        hint = (
            f"confirm with `unseen check --missing={code}` (kept in missing.txt), or set the "
            'column\'s scale to "number"'
        )
        doubts.append(DataError(what + also(rows), where=place(path, rows[0], column.name), hint=hint))
    return replace(column, missing=(*column.missing, *(code.casefold() for code in found)))


# attributes.csv


def _own_words(about: tuple[pd.DataFrame, Path] | None, words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Words for "not known" of single columns, beside those of the table."""
    if about is None or "missing" not in about[0]:
        return {}
    return {
        name: (*words, *(word.casefold() for word in parts_of(text)))
        for name, text in zip(about[0]["attribute"], about[0]["missing"], strict=True)
        if text
    }


def _hints(
    about: tuple[pd.DataFrame, Path] | None,
    table: Mapping[str, list[str]],
    words: Mapping[str, tuple[str, ...]],
    errors: list[DataError],
) -> dict[str, Column]:
    """Columns whose scale the person has said."""
    if about is None or "scale" not in about[0]:
        return {}
    frame, path = about
    hints = {}
    for row, (name, text) in enumerate(zip(frame["attribute"], frame["scale"], strict=True)):
        if not text or (name not in table and name.split(SEPARATOR)[0] not in table):
            continue  # an unknown one is told of by _attributes
        try:
            if name not in table:
                raise CellError(f'"{name}" is a single value of a column', "set the scale of the whole column")
            hints[name] = parse_scale(name, text, table[name], words.get(name, ()))
        except CellError as error:
            errors.append(DataError(error.what, where=place(path, row, "scale"), hint=error.hint))
    return hints


def parse_scale(name: str, text: str, cells: Sequence[str], missing: tuple[str, ...] = ()) -> Column:
    """The column that the ``scale`` cell of ``attributes.csv`` describes.

    Args:
        name: the column.
        text: such as ``low<medium<high``, ``percent``, ``0..50`` or ``log``.
        cells: what is in it, for the ends of numbers and the values of categories.
        missing: its own words for "not known".

    Raises:
        CellError: no such scale.
    """
    dash = any(cell.casefold() in MARKS for cell in cells)
    base = Column(name, "ignored", missing=missing)
    if "<" in text:
        steps = tuple(step.strip() for step in text.split("<"))
        if not all(steps) or len({fold(step) for step in steps}) < len(steps):
            raise CellError(f'"{text}" is not an ordered list of words', "use, for example, low<medium<high")
        return replace(base, kind="scale", steps=steps)
    log = fold(text).split(" ")[0] == "log"
    ends = _ENDS.fullmatch(text.replace(" ", "").casefold().removeprefix("log"))
    word = fold(text)
    signs: dict[str, Sign] = {"decimal point": POINT, "decimal comma": COMMA}
    decimal = signs.get(word, "")
    read = read_numbers(cells, missing, decimal, codes=False)
    number = replace(_numbers(name, replace(read, percent=False), missing), kind="number", unit=read.unit)
    if number.unit == "%":
        number = replace(number, unit="")
    if ends or log:
        return _with_ends(number, text, [plain_number(end) for end in ends.groups()] if ends else None, log)
    if word in ("number", "numbers", "decimal point", "decimal comma"):
        return replace(number, low=number.least, high=number.greatest)
    if word in ("categories", "category"):
        return _categories(base, [cell for cell in cells if not is_missing(cell, missing)])
    if word in ("percent", "%"):
        return replace(number, kind="percent", unit="" if read.percent else "%", low=0.0, high=1.0)
    if word in ("ignore", "ignored"):
        return base
    if word == "yes/no":
        return replace(base, kind="yes/no", dash=dash)
    if word == "share":
        return replace(number, kind="share", unit="", low=0.0, high=1.0)
    if word == "as is":
        return replace(number, kind="as is", unit="", low=0.0, high=1.0)
    raise CellError(f'unknown scale "{text}"', f"use one of {SCALE_HINT}")


def _with_ends(number: Column, text: str, ends: list[float] | None, log: bool) -> Column:
    """A number with the ends that the person says, or on a log scale from its least to its greatest."""
    low, high = ends or (number.least, number.greatest)
    if ends and not low < high:
        raise CellError(f'"{text}" is an empty range', "put the smaller number first")
    if log and low <= 0:
        what = f'"{text}" starts at {low:g}' if ends else f"log scale with a smallest value of {low:g}"
        raise CellError(what, 'start above 0, as in "log 1..100", or use the scale "number"')
    return replace(number, low=low, high=high, log=log)


def _attributes(
    encoding: Encoding, about: tuple[pd.DataFrame, Path] | None, errors: list[DataError]
) -> Attributes | None:
    """The attributes with groups and parts; a table of plain numbers must be described whole or not at all."""
    names = encoding.names
    groups = {a: a.split(SEPARATOR)[0] if c.kind == "as is" else c.name for c in encoding.columns for a in c.attributes}
    parts = dict.fromkeys(names, "")
    if about is not None:
        frame, path = about
        errors += repeats(frame, "attribute", path)
        of = {c.name: c.attributes for c in encoding.columns} | {name: (name,) for name in names}
        rows = list(enumerate(frame["attribute"]))
        told = {name for _, name in rows}
        if encoding.as_it_stands:
            errors += [
                DataError(f'attribute "{name}" of the class table has no row', where=path, hint="add a row for it")
                for name in names
                if name not in told
            ]
        for row, name in sorted(rows, key=lambda found: len(of.get(found[1], ())), reverse=True):  # columns first
            if name and name not in of:
                near = nearest(name, list(of))
                hint = f'remove it, or did you mean "{near}"?' if near else "remove it"
                where = place(path, row, "attribute")
                errors.append(DataError(f'the class table has no column "{name}"', where=where, hint=hint))
            for attribute in of.get(name, ()):
                if "group" in frame and (frame["group"].iloc[row] or encoding.as_it_stands):
                    groups[attribute] = frame["group"].iloc[row]
                if "part" in frame and frame["part"].iloc[row]:
                    parts[attribute] = frame["part"].iloc[row]
    if not names:
        return None
    try:
        return Attributes(names, tuple(groups[n] for n in names), tuple(parts[n] for n in names))
    except DataError as error:
        errors.append(error)
        return None
