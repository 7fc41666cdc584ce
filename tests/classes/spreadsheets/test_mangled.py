"""Names of classes that a spreadsheet program has changed."""

import datetime
from pathlib import Path

import openpyxl
import pytest

from unseen.classes.spreadsheets.mangled import doubts_of_names, restored
from unseen.data.folder import read_classes


@pytest.mark.parametrize(
    ("name", "other", "code"),
    [
        ("0012", "12", "0012"),
        ("12", "0012", "0012"),
        ("1E5", "100000", "1E5"),
        ("1E5", "1,00E+05", "1E5"),
        ("1.00E+05", "1E5", "1E5"),
        ("MAY-1", "2026-05-01", "MAY-1"),
        ("3-4", "2026-03-04", "3-4"),
        ("2026-04-03", "3-4", "3-4"),
        ("MAY-1", "01. Mai", "MAY-1"),
        ("DEC-2", "2-Dec", "DEC-2"),
        ("MAY-99", "1999-05-01", "MAY-99"),
        ("1/2", "1-Feb", "1/2"),
        ("1", "1.0", "1"),
    ],
)
def test_a_name_and_what_a_spreadsheet_program_makes_of_it(name, other, code):
    hint = restored(name, ["oak", other])
    assert hint is not None
    assert f'write "{code}" instead of "{other if code == name else name}": spreadsheet programs ' in hint


@pytest.mark.parametrize(
    ("name", "other"),
    [("0012", "120"), ("MAY-1", "2026-06-01"), ("MAY-1", "JUN-1"), ("A1", "1"), ("12", "21"), ("A", "A")],
)
def test_names_that_no_spreadsheet_program_confuses(name, other):
    assert restored(name, [other]) is None


def test_codes_that_only_look_like_dates_and_numbers_are_no_doubt():
    assert not doubts_of_names(["MAY-1", "1E5", "0012", "3-4", "DEC 2", "12"], set(), Path("classes.csv"))
    (dates, numbers) = doubts_of_names(["A", "2-Jun", "01. Mai", "1.00E+05"], set(), Path("classes.csv"))
    assert str(dates).startswith('classes.csv, row 3, column "class": "2-Jun" is a date (and row 4): ')
    assert str(numbers).startswith(
        'classes.csv, row 5, column "class": "1.00E+05" is a number in scientific notation: '
    )


def test_a_workbook_shows_which_names_are_changed_and_keeps_displayed_zeros(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    cells = [(14, "0000"), (1e6, "0.00E+00"), (datetime.datetime(2026, 6, 2), "d-mmm"), (1000, "General")]
    sheet.append(["class", "lobed", "spiny"])
    for row, (value, shown) in enumerate(cells, 2):
        sheet.append([value, "yes" if row % 2 else "no", "yes" if row > 3 else "no"])
        sheet.cell(row, 1).number_format = shown
    book.save(tmp_path / "classes.xlsx")
    errors = []
    found = read_classes(tmp_path, errors.extend)
    assert found.names == ("0014", "1000000", "2026-06-02", "1000")
    assert [str(doubt).split('"class": ')[1].split(":")[0] for doubt in found.doubts] == [
        '"2026-06-02" is a date',
        '"1000000" is a number in scientific notation',
    ]
