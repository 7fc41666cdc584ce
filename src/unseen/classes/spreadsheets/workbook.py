"""Write a table as an XLSX workbook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any


def write_workbook(target: Path | IO[bytes], name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write one sheet; text stays text, even if it starts with ``=``.

    Args:
        target: path or binary file.
        name: of the sheet.
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
