"""Read CSV, TSV and Parquet as rows of text."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unseen.classes.spreadsheets.cells import as_text, fold, place
from unseen.errors import DataError
from unseen.ground.extras import require
from unseen.ground.words import counted

MOST_CELLS = 2_000_000
"""Limit for workbooks and Parquet files, in which a few bytes can claim any number of cells."""
MOST_UNPACKED = 2**27
"""Limit for the unpacked bytes of a workbook."""
MOST_ABOVE = 10
"""Largest number of rows, such as titles, among which the row of column names is looked for, to name it in an error."""
ALIASES = {"class": ("class", "label", "species"), "file": ("file", "filename", "image", "path", "photo", "picture")}
"""Accepted names of a required column, if no column has its own name."""

_SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r"\s*\"?sep=(.)\"?\s*?(?:\r\n|\r|\n)")


@dataclass
class Rows:
    """Rows of text in file order, the header first.

    Args:
        cells: the text.
        decimal: usual decimal sign of such a file; empty for workbooks.
        notes: what was left out.
        at: row number of each row in the file, if some are hidden.
        typed: columns with fractions that are numbers in the file, not text.
        scientific: row and column of numbers that are shown in scientific notation.
    """

    cells: list[list[str]]
    decimal: str = "."
    notes: list[str] = field(default_factory=list)
    at: list[int] | None = None
    typed: set[int] = field(default_factory=set)
    scientific: set[tuple[int, int]] = field(default_factory=set)


def text_rows(data: bytes, path: Path, required: Sequence[str], exact: bool) -> Rows:
    """Rows of a CSV or TSV file; the separator follows from the header."""
    try:
        text = decoded(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        raise DataError(
            f"byte {error.start} is not {error.encoding.upper()}",
            where=place(path, line - 1),
            hint='save it as "CSV UTF-8"',
        ) from None
    if "\0" in text:
        raise DataError("the file contains NUL characters, as in UTF-16", where=path, hint='save it as "CSV UTF-8"')
    said = _SEP_LINE.match(text)  # an instruction for Excel, which it does not show
    text = text[said.end() :] if said else text
    separator = said[1] if said else _separator(text, required, path.suffix.lower() == ".tsv")
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator):
            rows.append(cells if exact else [cell.strip() for cell in cells])  # noqa: PERF401 - the error counts them
    except csv.Error as error:
        raise DataError(str(error), where=place(path, len(rows) - 1), hint="fix the quotes") from None
    damaged = [] if exact or text.isascii() else _damaged(rows, path)
    return Rows(rows, decimal="," if separator == ";" else ".", notes=damaged)


def _damaged(rows: Sequence[Sequence[str]], path: Path) -> list[str]:
    """A note on letters that were lost when the file was saved in another encoding: K\ufffdln, or KÃ¶ln for Köln."""
    found = [(row, cell) for row, cells in enumerate(rows) for cell in cells if _is_damaged(cell)]
    if not found:
        return []
    where = place(Path(path.name), found[0][0] - 1)
    more = f" (and {len(found) - 1} more such cells)" if len(found) > 1 else ""
    return [f'{where}: "{found[0][1]}" has damaged letters{more}; save the original as "CSV UTF-8" again']


def _is_damaged(cell: str) -> bool:
    if cell.isascii() or "\ufffd" in cell:
        return not cell.isascii()
    try:
        return cell.encode("cp1252").decode() != cell
    except UnicodeError:
        return False


def decoded(data: bytes) -> str:
    """Decode a text file: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def _separator(text: str, required: Sequence[str], tabs: bool) -> str:
    """The separator that gives the header the required columns, or else the most columns.

    Tabs first if they are usual in such a file and there are any; commas in a tie.
    """
    if tabs and "\t" in text[: text.find("\n")]:
        return "\t"

    def fit(separator: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            return 0, 0
        cells = {fold(cell) for cell in header}
        return sum(not cells.isdisjoint({name, *ALIASES.get(name, ())}) for name in required), len(header)

    return max(_SEPARATORS, key=fit)


def parquet_rows(data: bytes, path: Path) -> Rows:
    """Rows of a Parquet file, within the limits of this module."""
    import pandas as pd

    require("pyarrow")
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(io.BytesIO(data))
        unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        # a valid file has about one byte per cell, and compresses ten to one at best
        if about.num_rows * about.num_columns > max(MOST_CELLS, len(data)) or unpacked > max(
            MOST_UNPACKED, 10 * len(data)
        ):
            problem = f"{counted(about.num_rows, 'row')} of {counted(about.num_columns, 'column')}, {unpacked:,} bytes"
            raise DataError(problem, where=path, hint=f"the limit is {MOST_CELLS:,} cells; save it as .csv")
        frame = pd.read_parquet(io.BytesIO(data))
    except DataError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        problem = " ".join(str(error).split())[:100]
        raise DataError(f"cannot read the Parquet file ({problem})", where=path, hint="save it again") from None
    columns = [list(map(as_text, frame[c])) for c in frame.columns]
    typed = {i for i, c in enumerate(frame.columns) if frame[c].dtype.kind == "f"}
    return Rows([[str(c).strip() for c in frame.columns], *map(list, zip(*columns, strict=True))], "", typed=typed)
