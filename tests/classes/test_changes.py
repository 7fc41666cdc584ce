"""Classes changed after training: what is read, where it is kept, and that the training's own file stays."""

from __future__ import annotations

import datetime

import numpy as np
import openpyxl
import pandas as pd
import pytest
from filelock import FileLock

from unseen.classes import changes as class_changes
from unseen.classes.attributes import Attributes, write_attributes
from unseen.classes.changes import (
    IN_USE,
    LOCK,
    beyond_range,
    changing,
    keep_table,
    left_unknown,
    read_described,
    read_settings,
    reset,
    table_in_use,
    trained_table,
    unit_doubt,
    values_of,
)
from unseen.classes.spreadsheets.columns import Column, Encoding
from unseen.classes.table import ClassTable
from unseen.errors import DataError, RunError, UnseenError

ATTRIBUTES = Attributes(("color::red", "color::blue", "size"))
TABLE = ClassTable(
    ("a", "b", "c"), ATTRIBUTES, np.array([[100.0, 0, 30], [0, 100, 1 / 3], [50, 50, 0]]), np.array([1, 1, 0], bool)
)


@pytest.fixture
def folder(tmp_path):
    TABLE.to_csv(tmp_path / "classes.csv")
    write_attributes(tmp_path / "attributes.csv", ATTRIBUTES)
    return tmp_path


class Words:
    """Encodes one column of colours and one of sizes."""

    def encode(self, row):
        unknown = set(row) - {"Color", "size", *ATTRIBUTES.names}
        if unknown:
            raise DataError(f'no column "{unknown.pop()}"')
        colours = [c.strip() for c in str(row.get("Color", "")).split(";")]
        sizes = {"small": 10.0, "large": 90.0, "": 55.0}
        return np.array([100.0 * ("red" in colours), 100.0 * ("blue" in colours), sizes[str(row.get("size", ""))]])


def test_changes_are_kept_beside_and_can_be_taken_back(folder):
    before = (folder / "classes.csv").read_bytes()
    with changing(folder) as table:
        keep_table(folder, table.without("a").with_class("d", {"size": 0.1 + 0.2}))
    assert (folder / "classes.csv").read_bytes() == before
    found = table_in_use(folder)
    assert found.names == ("b", "c", "d")
    assert found.values[2].tolist() == [0, 100, 0.1 + 0.2]  # to the bit, beside the mean of the seen class left
    assert trained_table(folder).names == ("a", "b", "c")
    assert reset(folder)
    assert not reset(folder)
    assert table_in_use(folder).names == ("a", "b", "c")


def test_other_attributes_and_no_model_are_said(folder, tmp_path_factory):
    (folder / IN_USE).write_text("class,seen,size\na,1,1\n")
    with pytest.raises(RunError, match=r"its attributes differ from those of classes.csv — run `unseen classes reset"):
        table_in_use(folder)
    with pytest.raises(RunError, match="not a run folder"), changing(tmp_path_factory.mktemp("empty")):
        pass


def test_two_processes_take_turns(folder, monkeypatch):
    monkeypatch.setattr(class_changes, "WAIT", 0.05)
    with FileLock(folder / LOCK), pytest.raises(RunError, match="another process"), changing(folder):
        pass
    with changing(folder) as table:
        assert table.names == ("a", "b", "c")


def test_both_kinds_of_tables(tmp_path):
    (tmp_path / "one.csv").write_text("attribute,value\ncolor::red,80\nsize,5\n")
    (one,) = read_described(tmp_path / "one.csv")
    assert (one.name, dict(one.cells)) == (None, {"color::red": "80", "size": "5"})
    (tmp_path / "many.csv").write_text("class,seen,size\nx,0,5\ny,1,6\n")
    many = read_described(tmp_path / "many.csv")
    assert [(d.name, dict(d.cells)) for d in many] == [("x", {"size": "5"}), ("y", {"size": "6"})]
    assert many[1].where == f"{tmp_path / 'many.csv'}, row 3"


@pytest.mark.parametrize("header", ["species", "Label", "CLASS"])
def test_the_column_of_names_may_be_called_as_in_training(tmp_path, header):
    (tmp_path / "x.csv").write_text(f"{header},size\nx,5\ny,6\n")
    assert [(d.name, dict(d.cells)) for d in read_described(tmp_path / "x.csv")] == [
        ("x", {"size": "5"}),
        ("y", {"size": "6"}),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("bird,size\nwren,5\ngull,6\n", 'rename the column "bird" to "class"'),
        ("trait,value\nsize,5\ncolor::red,6\n", 'rename the column "trait" to "attribute"'),
    ],
)
def test_which_column_to_rename(tmp_path, text, hint):
    """The hint of training, for files and for what the page sends."""
    (tmp_path / "x.csv").write_text(text)
    message = f'no columns "attribute" and "value", and no column "class" — {hint}\\? It holds words'
    for data in (None, text.encode()):
        with pytest.raises(DataError, match=message):
            read_described(tmp_path / "x.csv" if data is None else tmp_path / "upload.csv", data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,value\nx,1\n", 'no columns "attribute" and "value", and no column "class"'),
        ("attribute,value\n", "no rows below the header"),
        ("attribute,value\nsize,1\nsize,2\n", "already appears in row 2"),
        ("class,size\nx,1\nx,2\n", "already appears in row 2"),
        ("class,size\nx y,1\nX  y,2\n", '"X  y" and "x y" in row 2 differ only in case or spaces'),
        ("class,seen\nx,1\n", "no attribute columns"),
    ],
)
def test_tables_that_describe_no_class(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_described(tmp_path / "x.csv")


def test_values_from_numbers():
    assert values_of({"size": "5", "color::blue": 1e2}, TABLE).tolist() == [50, 100, 5]  # the mean of a and b
    assert values_of({"Size": "100%", "COLOR::Red": "0,5"}, TABLE).tolist() == [0.5, 50, 100]
    assert values_of({"size": "n.d.", "color::red": "1"}, TABLE).tolist() == [1, 50, pytest.approx((30 + 1 / 3) / 2)]
    assert values_of({"size": "1.234"}, TABLE).tolist() == [50, 50, 1.234]  # as programs write it
    with pytest.raises(DataError, match='"1,850" is not a finite number — use a number without a thousands'):
        values_of({"size": "1,850"}, TABLE)
    assert left_unknown({"size": "5"}, TABLE) == (
        "1 of 3 attributes given; the others get the mean of the training classes"
    )
    assert left_unknown(dict.fromkeys(ATTRIBUTES.names, 1), TABLE) is None
    assert values_of({"size": "5"}, TABLE, start=TABLE.values[0]).tolist() == [100, 0, 5]
    with pytest.raises(DataError, match=r'here: attribute "size": "large" is not a finite number'):
        values_of({"size": "large"}, TABLE, where="here")
    with pytest.raises(DataError, match="has no attribute values"):
        values_of({"size": ""}, TABLE)
    with pytest.raises(DataError, match="inf"):
        values_of({"size": "inf"}, TABLE)
    with pytest.raises(DataError, match="did you mean color::red"):
        values_of({"colour::red": "1"}, TABLE)


def test_values_from_a_spreadsheets_words():
    assert values_of({"Color": "red; blue", "size": "small"}, TABLE, Words()).tolist() == [100, 100, 10]
    assert values_of({"Color": "red"}, TABLE, Words()).tolist() == [100, 0, 55]  # unknown, as the encoding has it
    # with a start only the columns given change
    assert values_of({"Color": "blue"}, TABLE, Words(), start=TABLE.values[0]).tolist() == [0, 100, 30]
    assert values_of({"size": "large"}, TABLE, Words(), start=TABLE.values[0]).tolist() == [100, 0, 90]
    assert values_of({}, TABLE, Words(), start=TABLE.values[0]).tolist() == [100, 0, 30]
    with pytest.raises(DataError, match='no column "weight"'):
        values_of({"weight": "1"}, TABLE, Words())


def test_settings_divide_at_the_last_equals_sign():
    assert read_settings(["color::red=80", " a=b = 1 "]) == {"color::red": "80", "a=b": "1"}
    for text in ("color::red", "=1", "size="):
        with pytest.raises(UnseenError, match="is not ATTRIBUTE=VALUE"):
            read_settings([text])


def test_numbers_beyond_the_range_of_the_table_are_noted():
    encoding = Encoding(
        (Column("Depth", "number", low=0.5, high=2.25, unit="mm", decimal=","), Column("wide", "yes/no"))
    )
    assert beyond_range("x", {"depth": "2,5 mm", "wide": "yes", "y": "9"}, encoding) == [
        '"x": Depth 2,5 mm is beyond the range of the table, 0,5 mm to 2,25 mm, and counts as its end'
    ]
    assert beyond_range("x", {"Depth": "0,5 mm"}, encoding) == beyond_range("x", {"Depth": "?"}, encoding) == []
    assert beyond_range("x", {"Depth": "9"}, None) == []


def test_another_unit_is_noticed():
    assert unit_doubt(np.array([0.8, 0.2, 0]), TABLE) == "the largest value is 0.8; the other classes have 50 to 100"
    assert unit_doubt(np.array([8000.0, 0, 0]), TABLE) is not None
    assert unit_doubt(np.array([80.0, 0, 0]), TABLE) is None


def test_numbers_of_a_workbook_fit_a_column_with_decimal_commas(tmp_path):
    """A number that a file stores has no decimal sign; 3.125 must not become 3125 or an error."""
    encoding = Encoding((Column("wing", "number", low=0, high=10, greatest=10, decimal=",", fill=(0.5, 0.5)),))
    table = ClassTable(("a",), Attributes(("wing::low", "wing::high")), np.array([[1.0, 0]]), np.array([True]))
    frame = pd.DataFrame({"class": ["x", "y"], "wing": [3.125, 7.5]})
    frame.to_excel(tmp_path / "new.xlsx", index=False)
    frame.to_parquet(tmp_path / "new.parquet")
    pd.DataFrame({"attribute": ["wing"], "value": [3.125]}).to_excel(tmp_path / "one.xlsx", index=False)
    for name, wanted in (("new.xlsx", [0.3125, 0.75]), ("new.parquet", [0.3125, 0.75]), ("one.xlsx", [0.3125])):
        found = read_described(tmp_path / name)
        assert [values_of(one.cells, table, encoding)[1] for one in found] == wanted
    beyond = Column("wing", "number", low=0, high=3, decimal=",").beyond(3.125)
    assert beyond == "wing 3,1250 is beyond the range of the table, 0 to 3, and counts as its end"


def test_what_a_workbook_of_classes_leaves_out_and_has_changed_is_noted(tmp_path):
    book = openpyxl.Workbook()
    for row in (["class", "x"], ["a", 1], ["b", 2], [datetime.datetime(2026, 5, 1), 3]):
        book.active.append(row)
    book.active.row_dimensions[2].hidden = True
    book.create_sheet("More").append(["class", "x"])
    book.save(tmp_path / "new.xlsx")
    first, second = read_described(tmp_path / "new.xlsx")
    assert (first.name, first.where, second.where) == (
        "b",
        f"{tmp_path / 'new.xlsx'}, row 3",
        f"{tmp_path / 'new.xlsx'}, row 4",
    )
    assert first.notes[:2] == (
        'sheet "Sheet": 1 hidden row ignored; unhide them to include them',
        'sheet "Sheet" is used; ignored: "More"',
    )
    assert '"2026-05-01" is a date' in first.notes[2]
    assert (len(first.notes), second.notes) == (3, ())
