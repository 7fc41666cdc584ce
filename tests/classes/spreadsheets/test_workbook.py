"""Workbooks hold what they were given."""

from __future__ import annotations

import io

import pytest

from unseen.classes.spreadsheets.workbook import write_workbook


def test_cells_keep_kind_and_text():
    openpyxl = pytest.importorskip("openpyxl")
    file = io.BytesIO()
    write_workbook(file, "found", ("=a", "b"), [["=1+1", 0.25], ["x\x00y", None], ["-3", True]])
    sheet = openpyxl.load_workbook(file).active
    assert sheet.title == "found"
    assert list(sheet.iter_rows(values_only=True)) == [("=a", "b"), ("=1+1", 0.25), ("xy", None), ("-3", True)]
    assert {sheet[place].data_type for place in ("A1", "A2", "A4")} == {"s"}
