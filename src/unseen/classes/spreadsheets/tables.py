"""Tables as text, from CSV, TSV, XLSX and Parquet, with errors that name file, row and column.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import math
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from unseen.errors import DataError
from unseen.ground.extras import require

if TYPE_CHECKING:
    import pandas as pd  # which takes long to import, and a model needs none to be used


class Columns(Protocol):
    """A table of text, by column: a dictionary of lists, or a data frame."""

    def __getitem__(self, name: str, /) -> Any:
        """The column's cells in order."""


MOST_COLUMNS = 20_000
MOST_CELLS = 2_000_000
"""Of a workbook or a Parquet file, where a few bytes can say that there are any number."""
MOST_UNPACKED = 2**27
"""Bytes of a workbook's parts."""
YES = {"1", "1.0", "yes", "y", "true", "seen"}
NO = {"0", "0.0", "no", "n", "false", "unseen"}
SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")
OTHER_SUFFIXES = (".xls", ".ods", ".numbers", ".xlsm", ".xlsb", ".txt", ".feather")
ALIASES = {"class": ("class", "label", "species"), "file": ("file", "filename", "image", "path", "photo", "picture")}
"""What a needed column may be called where no column has its own name."""

_SEPARATORS = (",", ";", "\t")
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s[^>]*?ref\s*=\s*[\"']([^\"']*)")
_SEP_LINE = re.compile(r"\s*\"?sep=(.)\"?\s*?(?:\r\n|\r|\n)")
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[[^\]]*\]')
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f"))
"""Characters that nobody sees; those that join letters (in Persian, in emoji) stay."""
_THREE = re.compile(r"-?\d{1,3}\.\d{3}")
_DIGITS = re.compile(r"\d[.,]\d")


def place(path: Path, row: int | None = None, column: str | None = None) -> str:
    """Name a cell the way a person finds it: ``classes.csv, row 7, column "size"``; ``row`` is 0-based data row."""
    text = str(path)
    if row is not None:
        text += f", row {row + 2}"
    if column is not None:
        text += f', column "{column}"'
    return text


def tidy(text: str) -> str:
    """A name or cell in one Unicode form (NFC), with plain spaces and without invisible characters."""
    if text.isascii():
        return text.strip()
    plain = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in plain).strip()


def fold(text: str) -> str:
    """A name without what people write in different ways: case, spaces, underscores, hyphens, Unicode forms."""
    plain = unicodedata.normalize("NFKC", tidy(text)).casefold()
    return " ".join(re.sub(r"[\s_\-‐–]+", " ", plain).split())


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that ``name`` is probably a misspelling of."""
    folded = {fold(n): n for n in names}
    near = get_close_matches(fold(name), folded, 1, cutoff=0.65)
    return folded[near[0]] if near else None


def find_table(folder: Path, stem: str) -> Path | None:
    """The table ``stem`` of a folder in any of the formats; ``None`` where there is none.

    Raises:
        DataError: there are two, or only one in a format that is not read.
    """
    if not folder.is_dir():
        return None
    named = sorted(p for p in folder.iterdir() if p.stem.lower() == stem and p.is_file())
    found = [p for p in named if p.suffix.lower() in SUFFIXES]
    if len(found) > 1:
        names = " and ".join(p.name for p in found)
        raise DataError(f"{names} both exist", where=folder, hint="keep one")
    other = [p for p in named if p.suffix.lower() in OTHER_SUFFIXES]
    if not found and other:
        raise DataError("unsupported format", where=other[0], hint='save it as .xlsx, or as "CSV UTF-8"')
    return found[0] if found else None


class Cells(dict[str, list[str]]):
    """A table as text, by column.

    Attributes:
        about: ``notes``, what was left out; ``rows``, where each row stands in the file, the header being row 1;
            ``decimal``, the decimal sign that such a file usually has, empty for workbooks; ``typed``, the columns with
            fractions that are numbers in the file, not text.
    """

    about: dict[str, Any]


@dataclass
class _Rows:
    """Rows of text as they stand in a file, the header first."""

    cells: list[list[str]]
    decimal: str = "."
    notes: list[str] = field(default_factory=list)
    at: list[int] | None = None
    typed: set[int] = field(default_factory=set)


def read_table(
    path: Path,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    *,
    sheet: str | None = None,
    data: bytes | None = None,
) -> pd.DataFrame:
    """A person's table as :func:`read_columns` reads it, tidied, as a data frame; ``attrs`` are :attr:`Cells.about`."""
    import pandas as pd

    columns = read_columns(path, required, optional, sheet=sheet, data=data, tidied=True)
    frame = pd.DataFrame(columns, dtype=str)
    frame.attrs.update(columns.about)
    return frame


def read_columns(
    path: Path,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    *,
    sheet: str | None = None,
    data: bytes | None = None,
    tidied: bool = False,
    exact: bool = False,
) -> Cells:
    """Read a table as stripped text, by column.

    CSV may be separated by commas, semicolons or tabs, in UTF-8 or with the mark of UTF-16. Of a workbook the visible
    sheet called like the file is read, or else the first visible one, without hidden or filtered-out rows and columns.
    Percent-formatted cells become ``80%``, dates ``2026-01-31``, true and false ``yes`` and ``no``; a formula's last
    value is taken.

    Args:
        path: the file.
        required: columns it must have; :data:`ALIASES` and other cases are accepted and renamed.
        optional: further columns that are renamed to this case.
        sheet: of a workbook; default as above.
        data: the file's content where it is no file; ``path`` then gives the format and the name in errors.
        tidied: bring names and cells to one Unicode form, see :func:`tidy`; files' names are left alone.
        exact: a table that the program wrote: any number of columns, and not even spaces are stripped.

    Raises:
        DataError: the file is missing, empty, not UTF-8, malformed or ragged, or lacks or repeats a column.
    """
    if data is None:
        if not path.is_file():
            raise DataError("no such file", where=path, hint=f"create it with columns {', '.join(required)}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(error.strerror or str(error), where=path, hint="change its permissions") from None
    kind = path.suffix.lower()
    if kind == ".xlsx":
        rows = _workbook_rows(data, path, sheet)
    elif kind == ".parquet":
        rows = _parquet_rows(data, path)
    else:
        rows = _text_rows(data, path, required, exact)
    return _by_column(rows, path, required, optional, tidied, exact)


def has_sheet(path: Path, sheet: str) -> bool:
    """Whether a workbook has a sheet of that name, in any case."""
    if path.suffix.lower() != ".xlsx" or not path.is_file():
        return False
    return any(name.lower() == sheet for name in _open_workbook(path, path, read_only=True).sheetnames)


def _by_column(
    table: _Rows, path: Path, required: Sequence[str], optional: Sequence[str], tidied: bool, exact: bool
) -> Cells:
    rows = table.cells
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError("the file is empty", where=path, hint=f"add the columns {', '.join(required)}")
    header, *body = rows
    header = list(map(tidy, header)) if tidied else header
    width = max(_filled(cells) for cells in rows)
    del header[width:]
    if not header or not any(header):
        raise DataError("the first row is blank", where=place(path, -1), hint="put the column names there")
    if len(header) > MOST_COLUMNS and not exact:
        problem = f"{len(header):,} columns, more than {MOST_COLUMNS:,}"
        raise DataError(problem, where=place(path, -1), hint="use one row per class or image")
    count = Counter(header)
    for i, name in enumerate(header):
        if not name:
            raise DataError(f"column {i + 1} has no name", where=place(path, -1), hint="name it or remove it")
        if count[name] > 1:
            raise DataError(f'column "{name}" appears twice', where=place(path, -1), hint="rename or remove one")
    header = _renamed(header, path, required, optional)
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f'no column "{missing[0]}"',
            where=place(path, -1),
            hint=f"columns needed: {', '.join(required)}; it has {', '.join(header[:8])}",
        )
    for row, cells in enumerate(body):
        if not any(cells):
            raise DataError("the row is blank", where=place(path, row), hint="remove it")
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            raise DataError(
                f"{len(cells)} cells for {len(header)} columns",
                where=place(path, row),
                hint="use as many cells as in the header, and quote cells that contain commas",
            )
    found = Cells({name: [cells[i] for cells in body] for i, name in enumerate(header)})
    for name in header if tidied else ():
        if name != "file":  # whose names on the disk are what they are
            found[name] = list(map(tidy, found[name]))
    found.about = {
        "notes": table.notes,
        "rows": table.at[1:] if table.at else None,
        "decimal": table.decimal,
        "typed": {header[i] for i in table.typed if i < len(header)},
    }
    return found


def _filled(cells: list[str]) -> int:
    """Cells up to the last that is not blank."""
    return next((len(cells) - i for i, cell in enumerate(reversed(cells)) if cell), 0)


def _renamed(header: list[str], path: Path, required: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The header with needed columns under their own names."""
    for name in (*required, *optional):
        if name in header:
            continue
        known = ALIASES.get(name, (name,)) if name in required else (name,)
        alike = [h for h in header if fold(h) == name] or [h for h in header if fold(h) in known]
        if len(alike) > 1:
            both = " and ".join(f'"{h}"' for h in alike)
            raise DataError(
                f'several columns could be "{name}": {both}',
                where=place(path, -1),
                hint=f'rename one of them to "{name}"',
            )
        header = [name if h in alike else h for h in header]
    return header


def _text_rows(data: bytes, path: Path, required: Sequence[str], exact: bool) -> _Rows:
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
    said = _SEP_LINE.match(text)  # what Excel takes for an instruction, and does not show
    text = text[said.end() :] if said else text
    separator = said[1] if said else "\t" if path.suffix.lower() == ".tsv" else _separator(text, required)
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator):
            rows.append(cells if exact else [cell.strip() for cell in cells])  # noqa: PERF401 - the error counts them
    except csv.Error as error:
        raise DataError(str(error), where=place(path, len(rows) - 1), hint="fix the quotes") from None
    return _Rows(rows, decimal="," if separator == ";" else ".")


def decoded(data: bytes) -> str:
    """A text file's content: UTF-8, or UTF-16 that begins with its mark.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def _separator(text: str, required: Sequence[str]) -> str:
    """The separator with which the header has the needed columns, or else the most columns; commas on a tie."""

    def fit(separator: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            return 0, 0
        cells = {fold(cell) for cell in header}
        return sum(not cells.isdisjoint({name, *ALIASES.get(name, ())}) for name in required), len(header)

    return max(_SEPARATORS, key=fit)


def _open_workbook(source: Path | IO[bytes], path: Path, **options: bool) -> Any:
    import warnings

    import openpyxl

    try:
        _check_unpacked(source, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions that openpyxl does not know
            return openpyxl.load_workbook(source, **options)
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        problem = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"cannot read the workbook ({problem})", where=path, hint="save it again") from None


def _check_unpacked(source: Path | IO[bytes], path: Path) -> None:
    """Before a workbook is unpacked: is it a table, and not a few bytes that would fill the memory?"""
    from openpyxl.utils.cell import range_boundaries

    with zipfile.ZipFile(source) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > MOST_UNPACKED:
            problem = f"{size:,} bytes unpacked, more than {MOST_UNPACKED:,}"
            raise DataError(problem, where=path, hint='save it as "CSV UTF-8"')
        for name in archive.namelist():
            if "worksheets/" not in name or not name.endswith(".xml"):
                continue
            for merged in _MERGED.findall(archive.read(name)):
                left, top, right, bottom = (int(n or 0) for n in range_boundaries(merged.decode("latin-1")))
                if (right - left + 1) * (bottom - top + 1) > MOST_CELLS:
                    problem = f"cells {merged.decode('latin-1')} of {name} are merged"
                    raise DataError(problem, where=path, hint="unmerge them and fill every cell")
    if not isinstance(source, Path):
        source.seek(0)


def _pick_sheet(book: Any, path: Path, sheet: str | None) -> Any:
    """The visible sheet called ``sheet``, or like the file, or else the first visible one."""
    tables = [book[name] for name in book.sheetnames if hasattr(book[name], "iter_rows")]
    if not tables:
        raise DataError("the workbook has no table", where=path, hint="put the table in the first sheet")
    named = [t for t in tables if t.title.lower() == (sheet or path.stem).lower()]
    seen = [t for t in tables if t.sheet_state == "visible"]
    return next(t for t in [*(n for n in named if n in seen), *seen[: not sheet], *named, *seen, *tables])


def _workbook_rows(data: bytes, path: Path, sheet: str | None) -> _Rows:
    found = _pick_sheet(_open_workbook(io.BytesIO(data), path, data_only=True), path, sheet)
    merged = next((r for r in found.merged_cells.ranges if r.size["rows"] * r.size["columns"] > 1), None)
    if merged is not None:
        raise DataError(
            f'cells {merged} of sheet "{found.title}" are merged', where=path, hint="unmerge them and fill every cell"
        )
    height, width = found.max_row, found.max_column
    if height * width > MOST_CELLS:  # of cells with a colour, perhaps
        formulas = _pick_sheet(_open_workbook(io.BytesIO(data), path), path, sheet)
        filled = [(c.row, c.column) for s in (found, formulas) for c in s._cells.values() if c.value is not None]
        height, width = (max(places, default=1) for places in (zip(*filled, strict=True) if filled else ((), ())))
    if height * width > MOST_CELLS:
        problem = f'sheet "{found.title}" extends to row {height:,}, column {width:,}'
        raise DataError(problem, where=path, hint="delete cells far from the table")
    rows: list[list[str]] = []
    blank: list[tuple[int, int]] = []
    for r, cells in enumerate(found.iter_rows(max_row=height, max_col=width)):
        rows.append([_cell_text(cell, path) for cell in cells])
        blank += [(r, c) for c, cell in enumerate(cells) if cell.value is None]
    if blank:  # a formula that no spreadsheet program has computed reads as blank
        formulas = _pick_sheet(_open_workbook(io.BytesIO(data), path), path, sheet)
        for r, c in blank:
            cell = formulas.cell(r + 1, c + 1)
            if cell.data_type == "f":
                raise DataError(
                    f"the formula in {cell.coordinate} has no stored value",
                    where=place(path, r - 1, rows[0][c] if r else None),
                    hint="open and save the file in a spreadsheet program, or enter the value",
                )
    return _shown(rows, found, path, sheet)


def _shown(rows: list[list[str]], sheet: Any, path: Path, asked: str | None) -> _Rows:
    """What a person sees of a sheet, and a note of the rest."""
    away = {r - 1 for r, row in sheet.row_dimensions.items() if row.hidden and 1 < r <= len(rows)}
    away = {r for r in away if any(rows[r])}
    gone: set[int] = set()
    for column in sheet.column_dimensions.values():
        if column.hidden:
            gone |= set(range((column.min or 1) - 1, min(column.max or 1, len(rows[0]) if rows else 0)))
    gone = {c for c in gone if any(row[c] for row in rows)}
    notes = []
    parts = [(away, "row"), (gone, "column")]
    left = " and ".join(f"{len(n)} hidden {what}{'s' * (len(n) > 1)}" for n, what in parts if n)
    if left:
        notes.append(f'sheet "{sheet.title}": {left} ignored; unhide them to include them')
    sheets = [name for name in sheet.parent.sheetnames if hasattr(sheet.parent[name], "iter_rows")]
    others = [name for name in sheets if name not in (sheet.title, "attributes", "help")]
    if others and not asked:
        hidden = [name for name in others if sheet.parent[name].sheet_state != "visible"]
        rest = ", ".join(f'"{name}"' + (" (hidden)" if name in hidden else "") for name in others[:4])
        notes.append(f'sheet "{sheet.title}" is used; ignored: {rest}')
    keep = [r for r in range(len(rows)) if r not in away]
    columns = [c for c in range(len(rows[0]) if rows else 0) if c not in gone]
    typed = {
        i
        for i, c in enumerate(columns)
        for row in sheet.iter_rows(min_row=2, max_row=len(rows), min_col=c + 1, max_col=c + 1)
        if isinstance(row[0].value, float) and not row[0].value.is_integer()
    }
    cells = [[rows[r][c] for c in columns] for r in keep]
    for i in typed:  # numbers beside numbers as text, whose decimal sign they must not decide
        kind = [sheet.cell(r + 1, columns[i] + 1).data_type for r in keep]
        if any(k == "s" and _DIGITS.search(row[i]) for k, row in zip(kind[1:], cells[1:], strict=True)):
            for k, row in zip(kind[1:], cells[1:], strict=True):
                row[i] = _without_sign(row[i]) if k == "n" else row[i]
    return _Rows(cells, "", notes, [r + 1 for r in keep] if away else None, typed)


def _without_sign(cell: str) -> str:
    """A number without a decimal sign: 1.25 is 125e-2."""
    number, percent = cell.removesuffix("%"), "%" * cell.endswith("%")
    try:
        sign, digits, exponent = Decimal(number).as_tuple()
    except ArithmeticError:
        return cell
    return f"{'-' * sign}{''.join(map(str, digits))}e{exponent}{percent}"


def _cell_text(cell: Any, path: Path) -> str:
    if cell.data_type == "e":
        if cell.value in ("#N/A", "#NULL!"):
            return ""
        raise DataError(f"{cell.value} in {cell.coordinate}", where=path, hint="fix the formula, or clear the cell")
    if isinstance(cell.value, int | float) and not isinstance(cell.value, bool):
        shown = (cell.number_format or "").split(";")[0]
        said = "".join(quoted or escaped for quoted, escaped in _LITERAL.findall(shown)).strip()
        if "%" in _LITERAL.sub("", shown):
            return f"{as_text(float(f'{100 * cell.value:.12g}'))}%"
        if said and shown.rstrip().endswith(('"', said)):  # 0.0" mm": a unit, or a percent sign that does not multiply
            return f"{as_text(cell.value)} {said}".replace(" %", "%")
    return as_text(cell.value)


def as_text(value: object) -> str:
    """A value of any kind as a cell of text: nothing is blank, 3.0 is 3, lists are joined by semicolons.

    1.234 is written 1.2340, which nobody takes for a thousand.
    """
    if value is None or type(value).__name__ in ("NaTType", "NAType"):  # of pandas
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if np.isnan(value) or float(value).is_integer():
            return "" if np.isnan(value) else str(int(value))
        return exact_text(float(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return "; ".join(as_text(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value))
    return str(value).strip()


def exact_text(value: float) -> str:
    """A number that reads as itself, to the bit and under every rule: 1.234, a thousand to some, is 1.2340."""
    text = repr(value)
    return f"{text}0" if _THREE.fullmatch(text) else text


def _parquet_rows(data: bytes, path: Path) -> _Rows:
    import pandas as pd

    require("pyarrow")
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(io.BytesIO(data))
        unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        # a sound file has a byte a cell or so, and packs ten to one at best
        if about.num_rows * about.num_columns > max(MOST_CELLS, len(data)) or unpacked > max(
            MOST_UNPACKED, 10 * len(data)
        ):
            problem = f"{about.num_rows:,} rows of {about.num_columns:,} columns, {unpacked:,} bytes"
            raise DataError(problem, where=path, hint=f"the limit is {MOST_CELLS:,} cells; save it as .csv")
        frame = pd.read_parquet(io.BytesIO(data))
    except DataError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        problem = " ".join(str(error).split())[:100]
        raise DataError(f"cannot read the Parquet file ({problem})", where=path, hint="save it again") from None
    columns = [list(map(as_text, frame[c])) for c in frame.columns]
    typed = {i for i, c in enumerate(frame.columns) if frame[c].dtype.kind == "f"}
    return _Rows([[str(c).strip() for c in frame.columns], *map(list, zip(*columns, strict=True))], "", typed=typed)


def to_numbers(cells: Iterable[str]) -> np.ndarray:
    """Cells as float64, NaN for anything but a number as pandas reads it."""
    return np.array([_number(cell) for cell in cells], dtype=float)


def _number(cell: str) -> float:
    try:
        return float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        return math.nan


def _strict(cells: list[str]) -> np.ndarray:
    """As :func:`to_numbers`; a column that is not as programs write it may have decimal commas or spaces."""
    from unseen.classes.spreadsheets.numbers import read_numbers

    values = to_numbers(cells)
    if np.isfinite(values).all() or "" in cells:
        return values
    found = read_numbers(cells, codes=False)
    sound = not (found.unit or found.unsettled or found.ranges or found.wrong)
    return np.array(found.values) if sound else values


def numbers(columns: Columns, names: Sequence[str], path: Path) -> np.ndarray:
    """Columns of a text table as float64 ``(rows, columns)``; every cell must hold a finite number."""
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
    """What is wrong with a yes/no column."""
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


def repeats(columns: Columns, name: str, path: Path) -> list[DataError]:
    """What is wrong with a column whose values must be there, and each once."""
    found = [
        DataError("the cell is blank", where=place(path, row, name), hint="fill it, or remove the row")
        for row, value in enumerate(columns[name])
        if value == ""
    ]
    first: dict[str, int] = {}
    for row, value in enumerate(columns[name]):
        if value and first.setdefault(value, row) != row:
            problem = f'"{value}" already appears in row {first[value] + 2}'
            found.append(DataError(problem, where=place(path, row, name), hint="keep one"))
    return found


def no_repeats(columns: Columns, name: str, path: Path) -> None:
    """Raise the first of :func:`repeats`."""
    for error in repeats(columns, name, path):
        raise error
