"""Read tables as text, from CSV, TSV, XLSX and Parquet, with errors that name file, row and column.

Rows are numbered as in a spreadsheet: the header is row 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.classes.spreadsheets.cells import also, fold, place, spelled, tidy
from unseen.classes.spreadsheets.rows import ALIASES, MOST_ABOVE, Rows, parquet_rows, text_rows
from unseen.classes.spreadsheets.workbook import workbook_rows
from unseen.errors import DataError
from unseen.ground.words import counted

if TYPE_CHECKING:
    import pandas as pd  # slow to import, and not needed to use a model

MOST_COLUMNS = 20_000
SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")
OTHER_SUFFIXES = (".xls", ".ods", ".numbers", ".xlsm", ".xlsb", ".txt", ".feather")


def find_table(folder: Path, stem: str) -> Path | None:
    """The table ``stem`` of a folder in any of the formats; ``None`` if missing.

    Raises:
        DataError: there are two, or only one in an unsupported format.
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
        about: ``notes`` on what was left out; ``rows``, the row number of each row in the file, with 1 for the header;
            ``decimal``, the usual decimal sign of such a file, empty for workbooks; ``typed``, the columns with
            fractions that are numbers in the file, not text; ``scientific``, by column that has any, the rows with
            numbers that are shown in scientific notation.
    """

    about: dict[str, Any]


def read_table(
    path: Path,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    *,
    sheet: str | None = None,
    data: bytes | None = None,
) -> pd.DataFrame:
    """Read a table like :func:`read_columns`, normalized, as a data frame; ``attrs`` is :attr:`Cells.about`."""
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

    CSV may be separated by commas, semicolons or tabs, in UTF-8 or in UTF-16 with a byte order mark. Of a workbook, the
    visible sheet named like the file is read, or else the first visible one, without hidden or filtered-out rows and
    columns. Percent-formatted cells become ``80%``, dates ``2026-01-31``, true and false ``yes`` and ``no``; formulas
    give their stored value.

    Args:
        path: the file.
        required: columns that must exist; accepts :data:`ALIASES` and any case, and renames them.
        optional: further columns to rename to this case.
        sheet: sheet of a workbook; by default as above.
        data: content, if it is not in a file; ``path`` then gives the format and the name in errors.
        tidied: normalize names and cells, see :func:`tidy`; file names stay unchanged.
        exact: for a table that the program wrote: any number of columns, and spaces are not stripped.

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
        rows = workbook_rows(data, path, sheet)
    elif kind == ".parquet":
        rows = parquet_rows(data, path)
    else:
        rows = text_rows(data, path, required, exact)
    return _by_column(rows, path, required, optional, tidied, exact)


def _by_column(
    table: Rows, path: Path, required: Sequence[str], optional: Sequence[str], tidied: bool, exact: bool
) -> Cells:
    rows = table.cells
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError(
            "the file is empty", where=path, hint=f"start it with a row of column names: {', '.join(required)}"
        )
    header, *body = rows
    header = list(map(tidy, header)) if tidied else header
    width = max(_filled(cells) for cells in rows)
    del header[width:]
    if not header or not any(header):
        raise DataError("the first row is blank", where=place(path, -1), hint="put the column names there")
    if len(header) > MOST_COLUMNS and not exact:
        problem = f"{counted(len(header), 'column')}, more than {MOST_COLUMNS:,}"
        raise DataError(problem, where=place(path, -1), hint="use one row per class or image")
    if not exact:
        _check_first(header, body, path, required)
    empty = _unnamed(header, body, path, exact)
    header = _renamed(header, path, required, optional)
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f'no column "{missing[0]}"',
            where=place(path, -1),
            hint=f"columns needed: {', '.join(required)}; it has {', '.join(filter(None, header[:8]))}",
        )
    blank = [row for row, cells in enumerate(body) if not any(cells)]
    if blank:
        raise DataError("the row is blank" + also(blank), where=place(path, blank[0]), hint="remove it")
    again = [row for row, cells in enumerate(body) if not exact and len(header) > 1 and cells == rows[0]]
    if again:
        raise DataError("the column names again" + also(again), where=place(path, again[0]), hint="remove the row")
    for row, cells in enumerate(body):
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            raise DataError(
                f"{counted(len(cells), 'cell')} for {counted(len(header), 'column')}",
                where=place(path, row),
                hint="use as many cells as in the header, and quote cells that contain commas",
            )
    found = Cells({name: [cells[i] for cells in body] for i, name in enumerate(header) if i not in empty})
    for name in list(found) if tidied else ():
        if name != "file":  # names on disk stay as they are
            found[name] = list(map(tidy, found[name]))
    found.about = {
        "notes": table.notes,
        "rows": table.at[1:] if table.at else None,
        "decimal": table.decimal,
        "typed": {header[i] for i in table.typed if i < len(header)},
        # only columns that have some: a data frame copies what is about it with each of its columns
        "scientific": {header[i]: {r - 1 for r, c in table.scientific if c == i} for _, i in table.scientific},
    }
    return found


def _unnamed(header: Sequence[str], body: Sequence[Sequence[str]], path: Path, exact: bool) -> set[int]:
    """Positions of columns that are wholly blank; an error for one with cells but no name, or with another's name."""
    first: dict[str, str] = {}
    empty = set()
    for i, name in enumerate(header):
        if name and (key := name if exact else spelled(name)) in first:
            hint = "rename or remove one; if the names take two rows, join them into one"
            alike = f'columns "{first[key]}" and "{name}" differ only in case or spaces'
            problem = f'column "{name}" appears twice' if name == first[key] else alike
            raise DataError(problem, where=place(path, -1), hint=hint)
        first[name if exact else spelled(name)] = name
        row = next((row for row, cells in enumerate(body) if i < len(cells) and cells[i]), None)
        if not name and row is not None:
            what = f'column {i + 1} has no name, but row {row + 2} has "{body[row][i][:40]}" there'
            raise DataError(what, where=place(path, -1), hint="name the column, or clear it")
        if not name:
            empty.add(i)
    return empty


def _check_first(header: Sequence[str], body: Sequence[Sequence[str]], path: Path, required: Sequence[str]) -> None:
    """Raise an error if the column names are below a title or a first row of headings."""
    names = {fold(known) for name in required[:1] for known in (name, *ALIASES.get(name, ()))}
    if not names or not names.isdisjoint(map(fold, header)):
        return
    for row, cells in enumerate(body[:MOST_ABOVE]):
        filled = [cell for cell in cells if cell]
        if len(filled) > 1 and not names.isdisjoint(map(fold, filled)) and len(set(filled)) == len(filled):
            problem = f"the column names are in row {row + 2}, not in row 1"
            raise DataError(problem, where=path, hint="delete the rows above them")


def _filled(cells: list[str]) -> int:
    """Number of cells up to the last one that is not blank."""
    return next((len(cells) - i for i, cell in enumerate(reversed(cells)) if cell), 0)


def _renamed(header: list[str], path: Path, required: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The header with required columns under their own names."""
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
