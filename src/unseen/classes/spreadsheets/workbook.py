"""XLSX workbooks: read one sheet as rows of text, as a person sees it, and write a table."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from unseen.classes.spreadsheets.cells import as_text, fold, place
from unseen.classes.spreadsheets.rows import ALIASES, MOST_ABOVE, MOST_CELLS, MOST_UNPACKED, Rows
from unseen.errors import DataError

_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s[^>]*?ref\s*=\s*[\"']([^\"']*)")
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[[^\]]*\]')
_PADDED = re.compile("00+")
_DIGITS = re.compile(r"\d[.,]\d")


def has_sheet(path: Path, sheet: str) -> bool:
    """Whether a workbook has a sheet of that name, in any case."""
    if path.suffix.lower() != ".xlsx" or not path.is_file():
        return False
    return any(name.lower() == sheet for name in _open_workbook(path, path, read_only=True).sheetnames)


def _open_workbook(source: Path | IO[bytes], path: Path, **options: bool) -> Any:
    import warnings

    import openpyxl

    try:
        _check_unpacked(source, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions that openpyxl does not know
            return openpyxl.load_workbook(source, **options)
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        problem = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"cannot read the workbook ({problem})", where=path, hint="save it again") from None


def _check_unpacked(source: Path | IO[bytes], path: Path) -> None:
    """Raise an error before unpacking a workbook that is too large or would fill the memory."""
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
    """The visible sheet named ``sheet``, or like the file, or else the first visible one."""
    tables = [book[name] for name in book.sheetnames if hasattr(book[name], "iter_rows")]
    if not tables:
        raise DataError("the workbook has no table", where=path, hint="put the table in the first sheet")
    named = [t for t in tables if t.title.lower() == (sheet or path.stem).lower()]
    filled = [t for t in tables if any(any(row) for row in t.iter_rows(max_row=MOST_ABOVE, values_only=True))]
    seen = [t for t in filled or tables if t.sheet_state == "visible"]
    return next(t for t in [*(n for n in named if n in seen), *seen[: not sheet], *named, *seen, *tables])


def workbook_rows(data: bytes, path: Path, sheet: str | None) -> Rows:
    """Rows of a sheet, without hidden ones; raises for merged cells, errors and formulas without a value."""
    found = _pick_sheet(_open_workbook(io.BytesIO(data), path, data_only=True), path, sheet)
    merged = [r for r in found.merged_cells.ranges if r.size["rows"] * r.size["columns"] > 1]
    if merged:
        ordered = [str(r) for r in sorted(merged, key=lambda r: (r.min_row, r.min_col))]
        cells = ", ".join(ordered[:6]) + (f" and {len(ordered) - 6} more" if len(ordered) > 6 else "")
        problem, hint = f'cells {cells} of sheet "{found.title}" are merged', _headings(found, merged)
        raise DataError(problem, where=path, hint=hint or "unmerge them and fill every cell")
    height, width = found.max_row, found.max_column
    if height * width > MOST_CELLS:  # cells with a color, perhaps
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


def _headings(sheet: Any, merged: Sequence[Any]) -> str:
    """A hint if the merged cells are a title and headings above the row of column names; else empty."""
    last = max(r.max_row for r in merged)
    above = [fold(str(cell.value)) for row in sheet.iter_rows(max_row=last) for cell in row if cell.value is not None]
    names = sum(cell.value is not None for cell in sheet[last + 1])
    if any(r.size["rows"] > 1 for r in merged) or last >= MOST_ABOVE or names < 2 or {*above} & {*ALIASES["class"]}:
        return ""
    rows = "row 1" if last == 1 else f"rows 1 to {last}"
    return f"if row {last + 1} has the column names, delete {rows}, so that they come first"


def _shown(rows: list[list[str]], sheet: Any, path: Path, asked: str | None) -> Rows:
    """The visible rows and columns of a sheet, with a note on the others."""
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
    for i in typed:  # numbers stored beside numbers as text must not decide the decimal sign
        kind = [sheet.cell(r + 1, columns[i] + 1).data_type for r in keep]
        if any(k == "s" and _DIGITS.search(row[i]) for k, row in zip(kind[1:], cells[1:], strict=True)):
            for k, row in zip(kind[1:], cells[1:], strict=True):
                row[i] = _without_sign(row[i]) if k == "n" else row[i]
    scientific = {
        (k, i)
        for k, row in enumerate(cells)
        for i, cell in enumerate(row)
        if cell.isdigit() and _scientific(sheet, keep[k] + 1, columns[i] + 1)
    }
    return Rows(cells, "", notes, [r + 1 for r in keep] if away else None, typed, scientific)


def _scientific(sheet: Any, row: int, column: int) -> bool:
    """Whether a cell holds a number that is shown in scientific notation."""
    cell = sheet.cell(row, column)
    return cell.data_type == "n" and cell.value is not None and "E+" in (cell.number_format or "")


def _without_sign(cell: str) -> str:
    """A number without a decimal sign: 1.25 becomes 125e-2."""
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
        if _PADDED.fullmatch(shown) and float(cell.value).is_integer() and cell.value >= 0:  # 0012
            return as_text(cell.value).zfill(len(shown))
        if "%" in _LITERAL.sub("", shown):
            return f"{as_text(float(f'{100 * cell.value:.12g}'))}%"
        if said and shown.rstrip().endswith(('"', said)):  # 0.0" mm": a unit, or a percent sign that does not multiply
            return f"{as_text(cell.value)} {said}".replace(" %", "%")
    return as_text(cell.value)


def write_workbook(target: Path | IO[bytes], name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write one sheet; text stays text, even if it starts with ``=``.

    Args:
        target: path or binary file.
        name: name of the sheet.
        columns: the header.
        rows: cells: text, numbers, booleans or ``None``.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet(name)

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        made = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value))
        made.data_type = "s"
        return made

    sheet.append([cell(column) for column in columns])
    for row in rows:
        sheet.append([cell(value) for value in row])
    book.save(target)
