"""Turn a spreadsheet of classes into numbers, and collect everything wrong or doubtful in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unseen.classes.attributes import Attributes
from unseen.classes.spreadsheets.about import attributes_of, own_words, stated_columns
from unseen.classes.spreadsheets.cells import also, place, unquoted
from unseen.classes.spreadsheets.columns import (
    CellError,
    Column,
    Encoding,
    read_column,
)
from unseen.classes.spreadsheets.doubtful import doubt_of_blanks, doubts_of_categories, doubts_of_numbers
from unseen.classes.spreadsheets.guessing import Read, guess
from unseen.classes.spreadsheets.together import settle_decimals, settle_ranges, with_no
from unseen.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Understood:
    """A spreadsheet that has been turned into numbers.

    Args:
        encoding: conversion of cells to values.
        attributes: the K attributes; ``None`` if no column can be used.
        values: float64 ``(N, K)``; unknown values are the mean of all classes, until :meth:`Encoding.filled`.
        known: bool ``(N, K)``.
        errors: all errors, by row; wrong cells count as blank.
        doubts: what may be misread, with the place and how to settle it.
        notes: further notes.
    """

    encoding: Encoding
    attributes: Attributes | None
    values: np.ndarray
    known: np.ndarray
    errors: tuple[DataError, ...]
    doubts: tuple[DataError, ...]
    notes: tuple[str, ...]


def understand(
    frame: pd.DataFrame,
    names: Sequence[str],
    path: Path,
    about: tuple[pd.DataFrame, Path] | None = None,
    missing: Iterable[str] = (),
    ranks: Iterable[str] = (),
) -> Understood:
    """Find out what the attribute columns hold, and turn them into numbers.

    Args:
        frame: table as text, N rows, from :func:`unseen.classes.spreadsheets.tables.read_table`.
        names: attribute columns.
        path: file of the table, for errors.
        about: ``attributes.csv`` as text, and its file: attribute (a column, or ``column::value``), and optionally
            group, part, scale, missing, description.
        missing: words for "not known" in addition to the known ones.
        ranks: columns that are ranks of the classes, which ``about`` may name.
    """
    errors: list[DataError] = []
    doubts: list[DataError] = []
    words = tuple(dict.fromkeys(word.strip().casefold() for word in missing))
    own = own_words(about, words)
    table = {name: list(map(unquoted, frame[name])) for name in names}
    hints = stated_columns(about, table, own, errors)
    reads = [
        Read(hints[name], cells, True) if name in hints else guess(name, cells, own.get(name, words))
        for name, cells in table.items()
    ]
    reads = settle_decimals(reads, path, frame.attrs, errors, doubts)
    columns, notes = settle_ranges(reads, path, doubts)
    columns = with_no(columns, table)
    finished, blocks, wrong = [], [], []
    for coded, read in zip(columns, reads, strict=True):
        column = _without_codes(coded, read, path, doubts)
        if column.kind == "categories" and column.name not in hints:
            doubts += doubts_of_categories(column, read.cells, path)
        elif column.kind != "ignored" and column.name not in hints:
            doubts += doubts_of_numbers(column, read.cells, path)
        block, problems = read_column(column, read.cells)
        wrong += [(row, column.name, problem) for row, problem in problems]
        sound = np.isfinite(block).all(axis=1)
        mean = block[sound].mean(axis=0) if sound.any() else np.zeros(block.shape[1])
        blank = [c for c in read.cells if column.is_blank(c) and (column.kind != "marks" or c.strip())]
        guessed = blank and not problems and column.kind != "ignored" and column.name not in hints
        if guessed and sound.any() and not np.ptp(block[sound], axis=0).any():
            doubts.append(doubt_of_blanks(column, read.cells, path))
        finished.append(replace(column, fill=tuple(mean.tolist()), blanks=len(blank)))
        blocks.append(block)
    errors += _told(wrong, {name: i for i, name in enumerate(names)}, path)
    encoding = Encoding(tuple(finished))
    errors += _empty_rows(finished, table, path)
    attributes = attributes_of(encoding, about, errors, ranks)
    values = np.hstack(blocks) if blocks else np.empty((len(frame), 0))
    known = np.isfinite(values)
    fill = np.array([value for column in finished for value in column.fill])
    values = np.where(known, values, fill)
    return Understood(encoding, attributes, values, known, tuple(errors), tuple(doubts), (*_notes(finished), *notes))


def _told(wrong: list[tuple[int, str, CellError]], order: Mapping[str, int], path: Path) -> list[DataError]:
    """One error per cell, by row; cells of a column with the same problem share one error."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, name, problem in wrong:
        rows.setdefault((name, problem.what), []).append(row)
    found = []
    for row, name, problem in sorted(wrong, key=lambda one: (one[0], order[one[1]])):
        alike = rows[name, problem.what]
        if row == alike[0]:
            found.append(DataError(problem.what + also(alike), where=place(path, row, name), hint=problem.hint))
    return found


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


def _without_codes(column: Column, read: Read, path: Path, doubts: list[DataError]) -> Column:
    """Add numbers that look like codes to the column's words for "not known", with a doubt for each."""
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
