"""Tables of the page as workbooks."""

from __future__ import annotations

import io

from unseen.classes.spreadsheets.workbook import write_workbook
from unseen.serve import schema
from unseen.serve.settings import Refusal


def workbook_of(table: schema.Table) -> bytes:
    """A table as XLSX."""
    if any(len(row) != len(table.columns) for row in table.rows):
        raise Refusal(422, "a row and the header differ in length", "send one cell per column in every row")
    file = io.BytesIO()
    write_workbook(file, "predictions", table.columns, table.rows)
    return file.getvalue()
