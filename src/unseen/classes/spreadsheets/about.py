"""The table ``attributes.csv``: scales of columns, words for "not known", groups and parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unseen.classes.attributes import SEPARATOR, Attributes
from unseen.classes.spreadsheets.cells import fold, nearest, place
from unseen.classes.spreadsheets.columns import (
    CellError,
    Column,
    Encoding,
    parts_of,
)
from unseen.classes.spreadsheets.flags import dash_means_no, pair_of
from unseen.classes.spreadsheets.guessing import category_column, number_column
from unseen.classes.spreadsheets.numbers import (
    COMMA,
    POINT,
    Sign,
    is_missing,
    plain_number,
    read_numbers,
)
from unseen.classes.spreadsheets.values import repeats
from unseen.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SCALE_HINT = (
    "low<medium<high, yes/no, percent, share, number, 0..50, log, log 1..100, decimal point, decimal comma, "
    "categories, as is, rank, or ignore"
)
_ENDS = re.compile(r"([-+]?[\d.,]+)\.\.([-+]?[\d.,]+)")


def own_words(about: tuple[pd.DataFrame, Path] | None, words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Words for "not known" of single columns, including those of the table."""
    if about is None or "missing" not in about[0]:
        return {}
    return {
        name: (*words, *(word.casefold() for word in parts_of(text)))
        for name, text in zip(about[0]["attribute"], about[0]["missing"], strict=True)
        if text
    }


def stated_columns(
    about: tuple[pd.DataFrame, Path] | None,
    table: Mapping[str, list[str]],
    words: Mapping[str, tuple[str, ...]],
    errors: list[DataError],
) -> dict[str, Column]:
    """Columns whose scale the table states."""
    if about is None or "scale" not in about[0]:
        return {}
    frame, path = about
    hints = {}
    for row, (name, text) in enumerate(zip(frame["attribute"], frame["scale"], strict=True)):
        if not text or (name not in table and name.split(SEPARATOR)[0] not in table):
            continue  # attributes_of reports an unknown one
        try:
            if name not in table:
                raise CellError(f'"{name}" is a single value of a column', "set the scale of the whole column")
            hints[name] = parse_scale(name, text, table[name], words.get(name, ()))
        except CellError as error:
            errors.append(DataError(error.what, where=place(path, row, "scale"), hint=error.hint))
    return hints


def parse_scale(name: str, text: str, cells: Sequence[str], missing: tuple[str, ...] = ()) -> Column:
    """The column that a ``scale`` cell of ``attributes.csv`` describes.

    Args:
        name: name of the column.
        text: a scale such as ``low<medium<high``, ``percent``, ``0..50`` or ``log``.
        cells: cells of the column, for the range of numbers and the values of categories.
        missing: words of the column for "not known".

    Raises:
        CellError: no such scale.
    """
    dash = dash_means_no(cells)
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
    number = replace(number_column(name, replace(read, percent=False), missing), kind="number", unit=read.unit)
    if number.unit == "%":
        number = replace(number, unit="")
    if ends or log:
        return _with_ends(number, text, [plain_number(end) for end in ends.groups()] if ends else None, log)
    if word in ("number", "numbers", "decimal point", "decimal comma"):
        return replace(number, low=number.least, high=number.greatest)
    if word in ("categories", "category"):
        return category_column(base, [cell for cell in cells if not is_missing(cell, missing)])
    if word in ("percent", "%"):
        return replace(number, kind="percent", unit="" if read.percent else "%", low=0.0, high=1.0)
    if word in ("ignore", "ignored"):
        return base
    if word == "yes/no":
        return replace(base, kind="yes/no", dash=dash, steps=pair_of(c for c in cells if not is_missing(c, missing)))
    if word == "share":
        return replace(number, kind="share", unit="", low=0.0, high=1.0)
    if word == "as is":
        return replace(number, kind="as is", unit="", low=0.0, high=1.0)
    raise CellError(f'unknown scale "{text}"', f"use one of {SCALE_HINT}")


def _with_ends(number: Column, text: str, ends: list[float] | None, log: bool) -> Column:
    """A number column with the given range, or on a log scale from its smallest to its largest value."""
    low, high = ends or (number.least, number.greatest)
    if ends and not low < high:
        raise CellError(f'"{text}" is an empty range', "put the smaller number first")
    if log and low <= 0:
        what = f'"{text}" starts at {low:g}' if ends else f"log scale with a smallest value of {low:g}"
        raise CellError(what, 'start above 0, as in "log 1..100", or use the scale "number"')
    return replace(number, low=low, high=high, log=log)


def attributes_of(
    encoding: Encoding, about: tuple[pd.DataFrame, Path] | None, errors: list[DataError], ranks: Iterable[str] = ()
) -> Attributes | None:
    """The attributes with groups and parts; a table of plain numbers must be described completely or not at all.

    ``ranks`` are columns of the class table that may be described without being attributes.
    """
    names = encoding.names
    groups = {a: a.split(SEPARATOR)[0] if c.kind == "as is" else c.name for c in encoding.columns for a in c.attributes}
    parts = dict.fromkeys(names, "")
    if about is not None:
        frame, path = about
        errors += repeats(frame, "attribute", path)
        of = {c.name: c.attributes for c in encoding.columns} | {name: (name,) for name in names}
        of |= dict.fromkeys(ranks, ())
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
