"""Workbooks hold what they were given."""

from __future__ import annotations

import io

import pytest

from unseen.classes.spreadsheets.tables import read_table
from unseen.classes.spreadsheets.workbook import write_workbook
from unseen.errors import DataError


def test_cells_keep_kind_and_text():
    openpyxl = pytest.importorskip("openpyxl")
    file = io.BytesIO()
    write_workbook(file, "found", ("=a", "b"), [["=1+1", 0.25], ["x\x00y", None], ["-3", True]])
    sheet = openpyxl.load_workbook(file).active
    assert sheet.title == "found"
    assert list(sheet.iter_rows(values_only=True)) == [("=a", "b"), ("=1+1", 0.25), ("xy", None), ("-3", True)]
    assert {sheet[place].data_type for place in ("A1", "A2", "A4")} == {"s"}


def test_merged_headings_above_the_column_names_are_told_apart(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["Codes of plant 2"],
        ["", "Look", "", "Size"],
        ["class", "color", "shape", "mm"],
        ["a", "red", "round", 2],
    ):
        sheet.append(row)
    sheet.merge_cells("A1:D1")
    sheet.merge_cells("B2:C2")
    book.save(tmp_path / "classes.xlsx")
    hint = "if row 3 has the column names, delete rows 1 to 2, so that they come first"
    with pytest.raises(DataError, match=f"cells A1:D1, B2:C2 of sheet .* are merged — {hint}"):
        read_table(tmp_path / "classes.xlsx", ["class"])
