"""CSV tables as text, with errors that name file, row and column.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.errors import DataError

YES = {"1", "1.0", "yes", "y", "true", "seen"}
NO = {"0", "0.0", "no", "n", "false", "unseen"}


def place(path: Path, row: int | None = None, column: str | None = None) -> str:
    """Name a cell the way a person finds it: ``classes.csv, row 7, column "size"``; ``row`` is 0-based data row."""
    text = str(path)
    if row is not None:
        text += f", row {row + 2}"
    if column is not None:
        text += f', column "{column}"'
    return text


def read_table(path: Path, required: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file as stripped text.

    Args:
        path: the file.
        required: columns it must have.

    Raises:
        DataError: the file is missing, empty, not UTF-8, malformed or ragged, or lacks or repeats a column.
    """
    if not path.is_file():
        raise DataError("no such file", where=path, mend=f"make it with columns {', '.join(required)}")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        raise DataError(
            f"byte {error.start} is not UTF-8", where=place(path, line - 1), mend='save it as "CSV UTF-8"'
        ) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=path, mend="make it readable") from None
    if "\0" in text:
        raise DataError("it holds NUL characters, as UTF-16 does", where=path, mend='save it as "CSV UTF-8"')
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True):
            rows.append([cell.strip() for cell in cells])  # noqa: PERF401 - the error below counts them
    except csv.Error as error:
        raise DataError(str(error), where=place(path, len(rows) - 1), mend="mend the quotes") from None
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError("the file is empty", where=path, mend=f"give it columns {', '.join(required)}")
    header, *body = rows
    for i, name in enumerate(header):
        if not name:
            raise DataError(f"column {i + 1} has no name", where=place(path, -1), mend="name or remove it")
        if header.count(name) > 1:
            raise DataError(f'column "{name}" appears twice', where=place(path, -1), mend="rename or remove one")
    missing = [name for name in required if name not in header]
    if missing:
        other = {";": "semicolons", "\t": "tabs"}
        hint = next((f" (the cells are separated by {o})" for s, o in other.items() if s in header[0]), "")
        raise DataError(
            f'no column "{missing[0]}"{hint}',
            where=place(path, -1),
            mend=f"columns needed: {', '.join(required)}, separated by commas",
        )
    for row, cells in enumerate(body):
        if not any(cells):
            raise DataError("the row is blank", where=place(path, row), mend="remove it")
        if len(cells) != len(header):
            raise DataError(
                f"{len(cells)} cells for {len(header)} columns",
                where=place(path, row),
                mend="give every row as many cells as the header, and put cells with commas in quotes",
            )
    return pd.DataFrame(body, columns=header, dtype=str)


def numbers(frame: pd.DataFrame, columns: Sequence[str], path: Path) -> np.ndarray:
    """Columns of a text table as float64 ``(rows, columns)``; every cell must hold a finite number."""
    values = np.empty((len(frame), len(columns)))
    for j, column in enumerate(columns):
        values[:, j] = pd.to_numeric(frame[column], errors="coerce")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, j = (int(i) for i in bad[0])
        cell = frame[columns[j]].iloc[row]
        what = "the cell is blank" if cell == "" else f'"{cell}" is not a finite number'
        more = f" (and {len(bad) - 1} more such cells)" if len(bad) > 1 else ""
        raise DataError(what + more, where=place(path, row, columns[j]), mend="write a number")
    return values


def flags(frame: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """A yes/no column as bool ``(rows,)``."""
    text = frame[column].str.lower()
    bad = np.flatnonzero(~text.isin(YES | NO))
    if len(bad):
        row = int(bad[0])
        value = frame[column].iloc[row]
        raise DataError(f'"{value}" is neither 1 nor 0', where=place(path, row, column), mend="1 or 0")
    return text.isin(YES).to_numpy()


def no_repeats(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Raise a :class:`DataError` on the first value of a column that stands there twice, or is blank."""
    blank = np.flatnonzero(frame[column] == "")
    if len(blank):
        raise DataError("the cell is blank", where=place(path, int(blank[0]), column), mend="fill it or remove the row")
    twice = np.flatnonzero(frame[column].duplicated())
    if len(twice):
        row = int(twice[0])
        value = frame[column].iloc[row]
        first = int(np.flatnonzero(frame[column] == value)[0])
        raise DataError(f'"{value}" stands in row {first + 2} already', where=place(path, row, column), mend="keep one")
