"""Tables of four formats are the same text; what cannot be read is one line with file, row and column."""

from __future__ import annotations

import datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from unseen.classes.spreadsheets.cells import as_text, fold, nearest
from unseen.classes.spreadsheets.tables import find_table, read_columns, read_table
from unseen.classes.spreadsheets.values import numbers
from unseen.errors import DataError

ROWS = [["class", "size", "share"], ["ant", "small", "80%"], ["bee", "large, red", "5%"]]


def workbook(path, rows, sheet="Sheet1", **more):
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    for name, content in more.items():
        other = book.create_sheet(name)
        for row in content:
            other.append(row)
    return book, lambda: book.save(path)


def refused(path, text, **options):
    with pytest.raises(DataError) as caught:
        read_table(path, ["class"], **options)
    message = str(caught.value)
    assert text in message, message
    assert caught.value.hint
    assert "\n" not in message


@pytest.fixture(params=[".csv", ";.csv", "\t.csv", ".tsv", ".xlsx", ".parquet"])
def same(request, tmp_path):
    suffix = request.param
    path = tmp_path / f"classes{suffix[-4:] if suffix[0] != '.' else suffix}"
    frame = pd.DataFrame(ROWS[1:], columns=ROWS[0])
    if path.suffix == ".xlsx":
        workbook(path, [ROWS[0], ["ant", "small", 0.8], ["bee", "large, red", 0.05]])[1]()
        book = openpyxl.load_workbook(path)
        for cell in book.active["C"][1:]:
            cell.number_format = "0%"
        book.save(path)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep={";": ";", "\t": "\t"}.get(suffix[0], "\t" if suffix == ".tsv" else ","))
    return path


def test_every_format_gives_the_same_text(same):
    frame = read_table(same, ["class"])
    assert [list(frame.columns), *frame.to_numpy().tolist()] == ROWS


def test_decimal_commas_stay_text(tmp_path):
    (tmp_path / "a.csv").write_text("class;x;y\nant;0,5;12,5%\nbee;-1,25;red, 1,5\n")
    assert read_table(tmp_path / "a.csv", ["class"]).to_numpy().tolist() == [
        ["ant", "0,5", "12,5%"],
        ["bee", "-1,25", "red, 1,5"],
    ]
    assert numbers({"x": ["0,5", "-1,25", "1.200,0"]}, ["x"], tmp_path)[:, 0].tolist() == [0.5, -1.25, 1200]
    with pytest.raises(DataError, match='"1,850" is not a finite number'):
        numbers({"x": ["1,850", "2,000"]}, ["x"], tmp_path)


def test_cells_of_a_workbook(tmp_path):
    path = tmp_path / "classes.xlsx"
    day = datetime.datetime(2026, 1, 2)
    workbook(path, [["class", "n", "yes", "when"], [7, 3.0, True, day], [" b ", 0.1, None, None], [None, None]])[1]()
    assert read_table(path, ["class"]).to_numpy().tolist() == [["7", "3", "yes", "2026-01-02"], ["b", "0.1", "", ""]]


def test_the_sheet_called_like_the_file(tmp_path):
    path = tmp_path / "classes.xlsx"
    workbook(path, [["note"], ["hello"]], Classes=[["class"], ["ant"]], attributes=[["attribute"], ["size"]])[1]()
    assert read_table(path, ["class"])["class"].tolist() == ["ant"]
    assert read_table(path, ["attribute"], sheet="attributes")["attribute"].tolist() == ["size"]


def test_what_a_workbook_must_not_have(tmp_path):
    path = tmp_path / "classes.xlsx"
    book, save = workbook(path, [["class", "x"], ["ant", "=1+1"]])
    save()
    refused(path, 'row 2, column "x": the formula in B2 has no stored value')
    book.active["B2"] = 1
    book.active["A3"] = "bee"
    book.active.merge_cells("B2:B3")
    save()
    book.active.merge_cells("D1:E1")
    save()
    refused(path, 'cells D1:E1, B2:B3 of sheet "Sheet1" are merged')  # all at once
    with pytest.raises(DataError, match="are merged — unmerge them and fill every cell"):
        read_table(path, ["class"])
    book.active.unmerge_cells("B2:B3")
    book.active.unmerge_cells("D1:E1")
    book.active["B3"] = "#DIV/0!"
    save()
    refused(path, "#DIV/0! in B3")
    book.active["B3"] = "#N/A"  # not available
    save()
    assert read_table(path, ["class"])["x"].tolist() == ["1", ""]
    path.write_bytes(b"PK\x03\x04 not a workbook")
    refused(path, "cannot read the workbook")


def test_a_damaged_parquet_file(tmp_path):
    (tmp_path / "classes.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path / "classes.parquet", "cannot read the Parquet file")


def test_lists_and_blanks_of_parquet(tmp_path):
    path = tmp_path / "classes.parquet"
    pd.DataFrame(
        {"class": ["a", "b"], "color": [["red", "blue"], None], "n": [1.0, None], "f": [True, False]}
    ).to_parquet(path)
    assert read_table(path).to_numpy().tolist() == [["a", "red; blue", "1", "yes"], ["b", "", "", "no"]]


def test_needed_columns_by_other_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("FileName,Species,SPLIT\n1.jpg,ant,trainval\n")
    assert list(read_table(path, ["file", "class"], ["split"]).columns) == ["file", "class", "split"]
    path.write_text("image,path,class\n1,2,3\n")
    with pytest.raises(DataError, match='several columns could be "file": "image" and "path"'):
        read_table(path, ["file", "class"])
    path.write_text("file,species,class\n1,2,3\n")
    assert list(read_table(path, ["file", "class"]).columns) == ["file", "species", "class"]


def test_trailing_blank_columns_are_dropped(tmp_path):
    (tmp_path / "a.csv").write_text("class,x,,\nant,1,,\nbee,2\n")
    assert read_table(tmp_path / "a.csv", ["class"]).to_numpy().tolist() == [["ant", "1"], ["bee", "2"]]
    (tmp_path / "a.csv").write_text("class,x,,\nant,1,,3\n")
    refused(tmp_path / "a.csv", 'row 1: column 4 has no name, but row 2 has "3" there')
    (tmp_path / "a.csv").write_text("class,,x\nant,,1\nbee,,2\n")  # a spacer
    assert read_table(tmp_path / "a.csv", ["class"]).to_numpy().tolist() == [["ant", "1"], ["bee", "2"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Trees,,\n,,\nclass,x,y\nant,1,2\n",
            "the column names are in row 3, not in row 1 — delete the rows above them",
        ),
        (",leaf,fruit\nspecies,cm,color\nant,1,red\n", "the column names are in row 2, not in row 1"),
        (
            "class,leaf,leaf\n,cm,form\nant,1,red\n",
            'column "leaf" appears twice — rename or remove one; if the names take',
        ),
        ("class,x\nant,1\n,\nbee,2\n,\ncat,3\n", "row 3: the row is blank (and row 5) — remove it"),
        ("name,x\nant,1\n", 'no column "class" — columns needed: class; it has name, x'),
        ("", "the file is empty — start it with a row of column names: class"),
    ],
)
def test_tables_for_people_are_refused_with_the_row(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    refused(tmp_path / "a.csv", said)


def test_find_table(tmp_path):
    assert find_table(tmp_path, "classes") is None
    (tmp_path / "classes.ods").touch()
    with pytest.raises(DataError, match=r"classes\.ods: unsupported format — save it as \.xlsx"):
        find_table(tmp_path, "classes")
    (tmp_path / "Classes.xlsx").touch()
    assert find_table(tmp_path, "classes") == tmp_path / "Classes.xlsx"
    (tmp_path / "classes.csv").touch()
    with pytest.raises(DataError, match=r"Classes\.xlsx and classes\.csv both exist"):
        find_table(tmp_path, "classes")


def test_small_words():
    assert fold("Red_Fox ") == fold("red  fox") == fold("Red-fox") == "red fox"
    assert fold("K\u00f6hler") == fold("Ko\u0308hler")
    assert nearest("hgih", ["low", "high"]) == "high"
    assert nearest("purple", ["low", "high"]) is None
    assert [as_text(v) for v in (None, float("nan"), 3.0, 2, True, ["a", 1], " x ")] == [
        "", "", "3", "2", "yes", "a; 1", "x",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "tsv", "xlsx", "parquet"])
def test_a_table_in_memory_is_read_as_its_file(tmp_path, kind):
    frame, path = pd.DataFrame({"class": ["ant", "bee"], "size": ["1", "2"]}), tmp_path / f"a.{kind}"
    if kind == "xlsx":
        frame.to_excel(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    pd.testing.assert_frame_equal(read_table(Path(f"upload.{kind}"), data=path.read_bytes()), read_table(path))
    with pytest.raises(DataError, match=f"upload.{kind}"):
        read_table(Path(f"upload.{kind}"), data=b"\xff\0")


def test_what_is_said_of_a_table_does_not_grow_with_its_columns(tmp_path):
    """A data frame copies it with each of its columns: reading would take time quadratic in their number."""
    about = []
    for count in (1, 500):
        path = tmp_path / f"{count}.csv"
        path.write_text("\n".join(["class" + "".join(f",a{i}" for i in range(count)), "ant" + ",1" * count]))
        about.append(read_table(path, ["class"]).attrs)
    assert about[0] == about[1]
    book, save = workbook(tmp_path / "t.xlsx", [["class", "size"], ["ant", 1e6], ["bee", 2]])
    book.active.cell(2, 2).number_format = "0.00E+00"
    save()
    assert read_table(tmp_path / "t.xlsx", ["class"]).attrs["scientific"] == {"size": {0}}


@pytest.mark.parametrize(("name", "separator"), [("c.tsv", ","), ("c.tsv", ";"), ("c.tsv", "\t"), ("c.csv", "|")])
def test_separators_that_the_ending_does_not_say(tmp_path, name, separator):
    (tmp_path / name).write_text("class,x\na,1\nb,2\n".replace(",", separator))
    assert dict(read_columns(tmp_path / name, ["class"])) == {"class": ["a", "b"], "x": ["1", "2"]}


def test_column_names_that_come_again_are_an_error(tmp_path):
    (tmp_path / "c.csv").write_text("class,x\na,red\nclass,x\nb,blue\n")
    with pytest.raises(DataError, match=r"row 3: the column names again — remove the row"):
        read_columns(tmp_path / "c.csv", ["class"])


@pytest.mark.parametrize("text", ["K\ufffdln", "KÃ¶ln"])
def test_damaged_letters_are_noted(tmp_path, text):
    (tmp_path / "c.csv").write_text(f"class,x\na,{text}\nb,Köln\n", encoding="utf-8")
    (note,) = read_columns(tmp_path / "c.csv", ["class"]).about["notes"]
    assert note == f'c.csv, row 2: "{text}" has damaged letters; save the original as "CSV UTF-8" again'
    (tmp_path / "c.csv").write_text("class,x\na,Köln\nb,Ã\nc,日本 €\n", encoding="utf-8")
    assert read_columns(tmp_path / "c.csv", ["class"]).about["notes"] == []


def test_a_blank_first_sheet_is_not_the_table(tmp_path):
    book = openpyxl.Workbook()
    table = book.create_sheet("Birds")
    for row in (["class", "x"], ["a", 1]):
        table.append(row)
    book.save(tmp_path / "c.xlsx")
    assert dict(read_columns(tmp_path / "c.xlsx", ["class"])) == {"class": ["a"], "x": ["1"]}
