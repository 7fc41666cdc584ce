"""What a review comes to: tables and folders."""

from __future__ import annotations

import csv

import pytest

from review_tools import made_up
from unseen.errors import UnseenError
from unseen.review import Review, Verdict, export_review
from unseen.review.export import COLUMNS

ANSWERS = [("b/c", 0.9), ("Raven", 0.4), (None, 0.2), "truncated", ("=Jay", 0.6)]


@pytest.fixture
def review(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(5):
        (images / f"{i}.jpg").write_bytes(b"%d" % i)
    with Review(made_up(tmp_path / "review", ANSWERS, image=str(images / "{}.jpg"))) as review:
        review.decide([0], Verdict("b/c"))
        review.decide([1], Verdict("Rook"))
        yield review


def test_csv_has_verdicts_and_answers(review, tmp_path):
    with export_review(review, tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [r["class"] for r in rows] == ["b/c", "Rook", "unknown", "", "=Jay"]
    assert [r["reviewed"] for r in rows] == ["1", "1", "0", "0", "0"]
    assert [r["right"] for r in rows] == ["1", "0", "", "", ""]
    assert [r["answer"] for r in rows] == ["b/c", "Raven", "unknown", "", "=Jay"]
    assert rows[2]["best_class"] == "Rook"
    assert (rows[1]["confidence"], rows[1]["seen"], rows[1]["attributes"]) == ("0.4", "0", "bill: long")
    assert rows[3]["error"] == "truncated"


def test_xlsx_holds_text_as_text(review, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    sheet = openpyxl.load_workbook(export_review(review, tmp_path / "out.xlsx")).active
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0] == COLUMNS
    assert [r[1] for r in rows[1:]] == ["b/c", "Rook", "unknown", None, "=Jay"]
    assert sheet["B6"].data_type == "s"
    assert rows[2][2:4] == (True, False)


def test_folders_by_class(review, tmp_path):
    folder = export_review(review, tmp_path / "sorted")
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.jpg")}
    assert files == {"b_c/0.jpg": b"0", "Rook/1.jpg": b"1", "unknown/2.jpg": b"2", "=Jay/4.jpg": b"4"}


def test_names_that_meet_on_disk_are_kept_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_text(folder)
    where = made_up(tmp_path / "r", [("b/c", 0.9), ("B?C", 0.9)], classes=("b/c", "B?C"), image=str(tmp_path / "{}"))
    text = (where / "predictions.jsonl").read_text()
    text = text.replace(str(tmp_path / "0"), str(tmp_path / "a/x.jpg"))
    (where / "predictions.jsonl").write_text(text.replace(str(tmp_path / "1"), str(tmp_path / "b/x.jpg")))
    with Review(where) as review:
        export_review(review, tmp_path / "apart")
        assert {f.name for f in (tmp_path / "apart").iterdir()} == {"b_c", "B_C-2"}
        review.decide([1], Verdict("b/c"))
        export_review(review, tmp_path / "together")
        assert {f.name: f.read_text() for f in (tmp_path / "together/b_c").iterdir()} == {"x.jpg": "a", "x-2.jpg": "b"}


@pytest.mark.parametrize("name", ["out.json", "out.csv.zip"])
def test_other_files_are_refused(review, tmp_path, name):
    with pytest.raises(UnseenError, match="unsupported file format for a review"):
        export_review(review, tmp_path / name)


def test_a_full_folder_and_a_missing_image_are_said(review, tmp_path):
    with pytest.raises(UnseenError, match="not empty"):
        export_review(review, tmp_path / "images")
    (tmp_path / "images/2.jpg").unlink()
    with pytest.raises(UnseenError, match=r"2\.jpg: No such file"):
        export_review(review, tmp_path / "sorted")
