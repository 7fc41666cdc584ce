"""Predictions as a file: the recogniser's own numbers, whole after any interruption, never a mixture."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.naming import label
from unseen.classes.table import ClassTable
from unseen.errors import DataError, RunError, UnseenError
from unseen.methods import create_method
from unseen.recognizer import Prediction, Recognizer
from unseen.recognizer.stream import Options, check_output, names_from, predict_to_file

OPTIONS = Options(top=3, batch_size=4)


@pytest.fixture(scope="module")
def recognizer(tiny_backbone, images):
    backbone, rng = Backbone(tiny_backbone), np.random.default_rng(0)
    attributes = Attributes(("has_bill_shape::hooked", "crown::red", "size::small"))
    names = ("a", "b, or so", "ç", "d")
    table = ClassTable(names, attributes, rng.random((4, 3)) + 0.1, np.array([1, 1, 0, 0], bool))
    method = create_method("global", channels=backbone.channels[0], vectors=torch.randn(3, 8))
    with torch.no_grad():
        method.weight.copy_(torch.randn(method.weight.shape, generator=torch.Generator().manual_seed(2)))
    made = Recognizer(backbone, method, table, gamma=0.3, temperature=0.5, device="cpu")
    found = made.predict(images, batch_size=4, broken=lambda error: None)
    made.threshold = float(np.median([p.best.confidence for p in found]))
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """18 images, of which number 5 is broken."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    files = [folder / f"{i:02d}.png" for i in range(18)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)).resize((70, 64)).save(file)
    files[5].write_bytes(b"no image")
    return files


@pytest.fixture(scope="module")
def expected(recognizer, images):
    return list(recognizer.outcomes(images, top=3, batch_size=4))


@pytest.fixture(scope="module")
def whole(recognizer, images, tmp_path_factory):
    """Every kind of file, written without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    for ending in ("csv", "json", "jsonl", "parquet", "xlsx"):
        predict_to_file(recognizer, images, folder / f"p.{ending}", OPTIONS)
    assert sorted(p.name for p in folder.iterdir()) == ["p.csv", "p.json", "p.jsonl", "p.parquet", "p.xlsx"]
    return folder


def test_csv_holds_the_predictions(recognizer, whole, images, expected):
    with (whole / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("image", "class", "best_class", "confidence", "seen", "class_2", "confidence_2", "class_3", "confidence_3"),
        *("attributes", "error"),
    ]
    assert [row["image"] for row in rows] == [str(p) for p in images]
    kinds = set()
    for row, outcome in zip(rows, expected, strict=True):
        if not isinstance(outcome, Prediction):
            assert {v for k, v in row.items() if k not in ("image", "error")} == {""}
            assert "Pillow cannot read this image" in row["error"]
            continue
        best = outcome.best
        assert row["class"] == (best.name if best.confidence >= recognizer.threshold else "unknown")
        kinds.add(row["class"] == "unknown")
        assert (row["best_class"], row["seen"]) == (best.name, str(int(best.seen)))
        for candidate, column in zip(outcome.candidates, ("confidence", "confidence_2", "confidence_3"), strict=True):
            assert float(row[column]) == pytest.approx(candidate.confidence, abs=6e-7)
        assert (row["class_2"], row["class_3"]) == tuple(c.name for c in outcome.candidates[1:])
        assert row["attributes"] == "; ".join(label(name) for name, _ in outcome.attributes)
        assert row["error"] == ""
    assert kinds == {True, False}


def test_the_other_kinds_hold_the_same(whole, images, expected):
    found = json.loads((whole / "p.json").read_text(encoding="utf-8"))
    assert [json.loads(line) for line in (whole / "p.jsonl").read_text(encoding="utf-8").splitlines()] == found
    for record, outcome, image in zip(found, expected, images, strict=True):
        if isinstance(outcome, Prediction):
            assert record == outcome.as_dict()
        else:
            assert (record["image"], record["classes"], record["known"]) == (str(image), [], False)
            assert "Pillow cannot read this image" in record["error"]
    frame = pd.read_parquet(whole / "p.parquet")
    table = pd.read_csv(whole / "p.csv")
    assert list(frame) == list(table)
    for column in frame:
        if frame[column].dtype == float:
            np.testing.assert_allclose(frame[column], table[column], atol=6e-7)
        elif column == "seen":
            assert [v if v is None else float(v) for v in frame[column]][:5] == list(table[column])[:5]
        else:
            assert list(frame[column].fillna("")) == list(table[column].fillna(""))


def test_a_workbook_holds_the_same_as_numbers_and_text(whole):
    frame, table = pd.read_excel(whole / "p.xlsx"), pd.read_csv(whole / "p.csv")
    numbers = [column for column in table if table[column].dtype == float and column != "seen"]
    assert numbers == ["confidence", "confidence_2", "confidence_3"]
    np.testing.assert_array_equal(frame[numbers], table[numbers])
    assert [None if pd.isna(v) else float(v) for v in frame["seen"]] == [
        None if pd.isna(v) else v for v in table["seen"]
    ]
    rest = [column for column in table if column not in (*numbers, "seen")]
    assert frame[rest].fillna("").to_numpy().tolist() == table[rest].fillna("").to_numpy().tolist()


def test_more_images_than_a_sheet_has_rows(recognizer, images, tmp_path, monkeypatch):
    monkeypatch.setattr("unseen.recognizer.stream.MOST_ROWS", 17)
    path = tmp_path / "p.xlsx"
    with pytest.raises(UnseenError, match=r"p\.xlsx: 18 images, more than the 17 rows .* use --output .*p\.csv"):
        predict_to_file(recognizer, images, path, OPTIONS, total=18)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnseenError, match=r"rename \S+p\.xlsx\.partial to \S+p\.csv\.partial, and repeat it with -o"):
        predict_to_file(recognizer, images, path, OPTIONS)  # a stream of unknown length
    (tmp_path / "p.xlsx.partial").rename(tmp_path / "p.csv.partial")
    monkeypatch.setattr(Recognizer, "outcomes", lambda self, stream, **options: [])
    assert predict_to_file(recognizer, images, tmp_path / "p.csv", OPTIONS).images >= 16


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_going_on_after_a_stop_gives_the_same_bytes(recognizer, images, whole, tmp_path, ending, monkeypatch):
    asked = []
    real = Recognizer.outcomes
    monkeypatch.setattr(
        Recognizer, "outcomes", lambda self, stream, **o: real(self, (asked.append(p) or p for p in stream), **o)
    )

    class Stopped:
        def __iter__(self):
            yield from images[:14]
            raise KeyboardInterrupt

    path = tmp_path / f"p.{ending}"
    with pytest.raises(KeyboardInterrupt):
        predict_to_file(recognizer, Stopped(), path, OPTIONS, workers=0)
    assert not path.exists()
    counts = predict_to_file(recognizer, images, path, OPTIONS)
    assert path.read_bytes() == (whole / path.name).read_bytes()
    assert asked == [*images[:14], *images[12:]]  # whole batches are not done again
    assert (counts.images, counts.broken) == (18, 1)
    assert counts.unknown == (whole / "p.jsonl").read_text().count('"known": false') - 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_cut_anywhere_goes_on(recognizer, images, whole, tmp_path):
    path = tmp_path / "p.csv"

    with pytest.raises(ZeroDivisionError):
        predict_to_file(recognizer, (p if p != images[17] else 1 / 0 for p in images), path, OPTIONS, workers=0)
    text = (tmp_path / "p.csv.partial" / "journal.jsonl").read_bytes()
    assert text.count(b"\n") == 17  # what it depends on, and four batches
    for end in (0, 3, text.index(b"\n"), text.index(b"\n") + 1, len(text) // 2, len(text) - 1, len(text)):
        for tail in (b"", b"\0\0\0"):
            if end == 0 and tail:
                continue
            (tmp_path / "p.csv.partial").mkdir(exist_ok=True)
            (tmp_path / "p.csv.partial" / "journal.jsonl").write_bytes(text[:end] + tail)
            predict_to_file(recognizer, images, path, OPTIONS)
            assert path.read_bytes() == (whole / "p.csv").read_bytes()
            path.unlink()


def test_a_changed_digit_in_the_journal_is_not_believed(recognizer, images, whole, tmp_path):
    class Stopped:
        def __iter__(self):
            yield from images[:9]
            raise KeyboardInterrupt

    path, journal = tmp_path / "p.csv", tmp_path / "p.csv.partial" / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict_to_file(recognizer, Stopped(), path, OPTIONS, workers=0)
    lines = journal.read_bytes().splitlines(keepends=True)
    place = lines[4].index(b'"confidence": 0.') + 17
    lines[4] = lines[4][:place] + (b"1" if lines[4][place : place + 1] != b"1" else b"2") + lines[4][place + 1 :]
    journal.write_bytes(b"".join(lines))
    predict_to_file(recognizer, images, path, OPTIONS)
    assert path.read_bytes() == (whole / "p.csv").read_bytes()


def test_killed_after_the_end_leaves_nothing_for_long(recognizer, images, tmp_path):
    path = tmp_path / "p.csv"
    predict_to_file(recognizer, images[:2], path, OPTIONS)
    (tmp_path / "p.csv.partial").mkdir()
    (tmp_path / "p.csv.partial" / ".lock").touch()
    with pytest.raises(UnseenError, match="already exists"):
        check_output(path)
    assert [p.name for p in tmp_path.iterdir()] == ["p.csv"]


def test_killed_between_the_file_and_the_journal(recognizer, images, whole, tmp_path, monkeypatch):
    from unseen.ground.files import is_left_over
    from unseen.recognizer import stream as predictions

    path = tmp_path / "p.csv"
    with monkeypatch.context() as patch:
        patch.setattr(predictions.Path, "unlink", lambda self, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_to_file(recognizer, images, path, OPTIONS)
    predict_to_file(recognizer, images, path, OPTIONS)
    assert path.read_bytes() == (whole / "p.csv").read_bytes()
    # the lock of a writer that was killed is removed by the next one
    assert [p for p in tmp_path.iterdir() if not is_left_over(p)] == [path]


def test_what_changed_is_said_and_only_a_restart_begins_anew(recognizer, images, whole, tmp_path):
    path = tmp_path / "p.csv"
    few = images[:8]

    def stopped():
        yield from few
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_to_file(recognizer, stopped(), path, OPTIONS, workers=0)
    before = (tmp_path / "p.csv.partial" / "journal.jsonl").read_bytes()

    def refused(words, options=OPTIONS, files=images):
        with pytest.raises(RunError, match=words) as found:
            predict_to_file(recognizer, files, path, options)
        assert "--restart" in str(found.value)

    refused("another options", Options(top=2, batch_size=4))
    refused("another options", Options(top=3, batch_size=5))
    refused("another class selection", Options(only=("a", "d"), batch_size=4))
    gamma, table = recognizer.gamma, recognizer.table
    try:
        recognizer.gamma = 0.4
        refused("another model — ")
        recognizer.rename_class("d", "e")
        refused("another model and another class table")
    finally:
        recognizer.gamma, recognizer.table = gamma, table
    weight = recognizer.method.weight.detach().clone()
    with torch.no_grad():
        recognizer.method.weight.add_(1e-3)
        refused("another model")
        recognizer.method.weight.copy_(weight)
    refused(r"the images have changed since the start, first .*00\.png", files=images[1:])
    refused(r"first .*07\.png", files=images[:7])
    moved = images[0].stat()
    os.utime(images[0], ns=(moved.st_atime_ns, moved.st_mtime_ns + 1))
    refused(r"first .*00\.png")
    os.utime(images[0], ns=(moved.st_atime_ns, moved.st_mtime_ns))
    assert (tmp_path / "p.csv.partial" / "journal.jsonl").read_bytes() == before
    predict_to_file(recognizer, images[::-1], path, OPTIONS, restart=True)
    assert [row["image"] for row in csv.DictReader(path.open(encoding="utf-8"))] == [str(p) for p in images[::-1]]


def test_a_file_that_is_there_is_not_replaced_unasked(recognizer, images, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("mine")
    with pytest.raises(UnseenError, match=r"p\.csv: already exists — .* --restart"):
        predict_to_file(recognizer, images[:2], path, OPTIONS)
    assert path.read_text() == "mine"
    predict_to_file(recognizer, images[:2], path, OPTIONS, restart=True)
    assert path.read_text().count("\n") == 3
    with pytest.raises(UnseenError, match=r"one of \.csv, \.xlsx, \.parquet"):
        check_output(tmp_path / "p.txt")
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(UnseenError, match="a folder"):
        check_output(tmp_path / "f.csv")


def test_a_second_process_is_refused(recognizer, images, tmp_path):
    (tmp_path / "p.csv.partial").mkdir()
    with (
        FileLock(tmp_path / "p.csv.partial" / ".lock"),
        pytest.raises(UnseenError, match=r"p\.csv: another process is writing this file"),
    ):
        predict_to_file(recognizer, images, tmp_path / "p.csv", OPTIONS)


def test_wrong_options_leave_nothing_behind(recognizer, images, tmp_path):
    for options in (Options(only=("x",)), Options(unknown="much"), Options(among="new")):
        with pytest.raises(UnseenError):
            predict_to_file(recognizer, images, tmp_path / "p.csv", options)
    assert not list(tmp_path.iterdir())


def test_names_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("a", "b, or so", "c", "list.txt")
    (tmp_path / "names.txt").write_text("\ufeffa\n\n b, or so \n", encoding="utf-8")
    (tmp_path / "table.csv").write_text('n,class\n1,"b, or so"\n2,c\n')
    (tmp_path / "bare.csv").write_text("a\nc\n")
    (tmp_path / "two.csv").write_text("a,b\nc,d\n")
    (tmp_path / "list.txt").write_text("a\n")
    assert names_from(["a, c", "b, or so"], names) == ("a", "c", "b, or so")
    assert names_from(["@names.txt"], names) == names_from(["names.txt"], names) == ("a", "b, or so")
    assert names_from(["table.csv"], names) == ("b, or so", "c")
    assert names_from(["bare.csv"], names) == ("a", "c")
    assert names_from(["list.txt"], names) == ("list.txt",)  # a class of that name
    assert names_from(["@list.txt"], names) == ("a",)
    assert names_from(["x"], names) == ("x",)  # which the recogniser refuses
    with pytest.raises(DataError, match=r'two\.csv: no class column — name it "class"'):
        names_from(["two.csv"], names)
    with pytest.raises(DataError, match=r"gone\.txt: No such file"):
        names_from(["@gone.txt"], names)
