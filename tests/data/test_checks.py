"""Every kind of trouble is found at once, with its place; sound folders give none."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from unseen.data.checks import check_folder
from unseen.data.checks.copies import ALIKE
from unseen.data.checks.images import scan_image, thumbnail
from unseen.ground.images import open_image

NAMES = ("oak", "ash", "elm", "lime", "yew")
TABLE = """class,lobed,bark,leaf,height m
oak,yes,brown; green,large,30
ash,no,grey,medium,25
elm,yes,brown,small,20
lime,no,green; grey,large,10
yew,yes,grey,small,12
"""


def image(seed, size=96):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Four classes of ten images and one without; nothing is wrong with it."""
    root = tmp_path / "trees"
    for c, name in enumerate(NAMES[:4]):
        (root / "images" / name).mkdir(parents=True)
        for i in range(10):
            image([c, i]).save(root / "images" / name / f"{i}.jpg", quality=90)
    (root / "classes.csv").write_text(TABLE)
    return root


def found(folder, level=None):
    return [(f.kind, f.where, f.what) for f in check_folder(folder).findings if level in (None, f.level)]


def edit(folder, old, new):
    text = (folder / "classes.csv").read_text()
    assert old in text
    (folder / "classes.csv").write_text(text.replace(old, new))


def test_a_sound_folder(folder):
    steps = []
    result = check_folder(
        folder, workers=1, progress=lambda task, done, total, note="": steps.append((task, done, total))
    )
    assert result.findings == []
    assert result.ready
    assert result.classes == {"table": "classes.csv", "seen": list(NAMES[:4]), "unseen": ["yew"]}
    assert result.images["trainval"] + result.images["test_seen"] == 40
    assert result.as_dict()["columns"]["height m"] == "numbers, 10 to 30"
    assert ("checking images", 40, 40) in steps


def test_all_errors_at_once(folder):
    edit(folder, "ash,no", "ash,perhaps")
    edit(folder, "lime,no,green; grey,large,10", "lime,no,green; grey,lagre,ten")
    (folder / "images/elm").rename(folder / "images/elmm")
    (folder / "images/oak/0.jpg").write_bytes(b"")
    errors = found(folder, "error")
    assert [(where, what) for _, where, what in errors] == [
        ('classes.csv, row 3, column "lobed"', '"perhaps" is not yes or no'),
        ('classes.csv, row 5, column "leaf"', '"lagre" is not one of small < medium < large'),
        ('classes.csv, row 5, column "height m"', '"ten" is not a finite number'),
        ("images/elmm", "no class has this name in classes.csv"),
        ("images/oak/0.jpg", "the file is empty"),
    ]


def test_broken_and_odd_images(folder):
    images = folder / "images/oak"
    whole = (images / "1.jpg").read_bytes()
    (images / "0.jpg").write_bytes(b"")
    (images / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "2.jpg").write_text("<html>not found</html>")
    png = (folder / "images/ash/0.jpg").with_suffix(".png")
    image(99).save(png)
    png.rename(folder / "images/ash/0.jpg")
    image(98, size=40).save(folder / "images/ash/1.jpg")
    image(97).convert("CMYK").save(folder / "images/ash/2.jpg")
    image(96).save(folder / "images/ash/3.gif", save_all=True, append_images=[image(95)])
    Image.fromarray(np.full((80, 80), 7.0, np.float32)).save(folder / "images/ash/4.tif")
    Image.fromarray(np.random.default_rng(5).integers(0, 65535, (80, 80)).astype(np.uint16)).save(
        folder / "images/ash/5.png"
    )
    (folder / "images/ash/IMG.HEIC").touch()
    (folder / "images/ash/IMG.CR2").touch()
    result = {(f.level, f.where.removeprefix("images/"), f.what) for f in check_folder(folder).findings}
    assert {
        ("error", "oak/0.jpg", "the file is empty"),
        ("error", "oak/2.jpg", "Pillow cannot read this image"),
        ("error", "ash/4.tif", "broken image: floating-point pixels have no fixed range"),
        ("note", "ash/0.jpg", "a PNG image named .jpg"),
        ("warning", "ash/1.jpg", "40 x 40 pixels"),
        ("note", "ash/2.jpg", "converted from CMYK to RGB"),
        ("note", "ash/3.gif", "2 frames; the first is used"),
        ("note", "ash/5.png", "16-bit grayscale with 16 bits in use, scaled to 8 bits"),
        ("error", "ash/IMG.HEIC", "the file is empty"),
        ("warning", "ash/IMG.CR2", ".cr2, a camera raw file: export it as JPEG or PNG"),
    } <= result
    truncated = [what for level, where, what in result if where == "oak/1.jpg"]
    assert len(truncated) == 1
    assert truncated[0].startswith("broken image: image file is truncated")


@pytest.mark.parametrize("listed", [False, True])
def test_a_file_that_is_taken_for_an_image_is_named_once(folder, listed):
    (folder / "images/ash/IMG.CR2").write_bytes(b"II*")
    (folder / "images/ash/notes.txt").write_text("wet")
    if listed:
        rows = [f"{path.relative_to(folder / 'images')},{path.parent.name}" for path in folder.rglob("*.jpg")]
        (folder / "images.csv").write_text("file,class\n" + "\n".join(rows))
    ignored = [f for f in check_folder(folder).findings if "ignored" in f.what or ".cr2" in f.what]
    ignored.sort(key=lambda f: f.level, reverse=True)
    assert [f.level for f in ignored] == ["warning", "note"], ignored
    assert ".cr2, a camera raw file" in ignored[0].what
    assert "notes.txt" in ignored[1].what


def test_copies_and_leaks(folder):
    split = "file,class,split\n" + "".join(
        f"{name}/{i}.jpg,{name},{'test_seen' if i > 7 else 'trainval'}\n" for name in NAMES[:4] for i in range(10)
    )
    images = folder / "images"
    shutil.copy(images / "oak/0.jpg", images / "oak/1.jpg")
    shutil.copy(images / "oak/2.jpg", images / "oak/9.jpg")
    shutil.copy(images / "ash/0.jpg", images / "elm/0.jpg")
    Image.open(images / "ash/3.jpg").resize((70, 70)).save(images / "ash/8.jpg", quality=60)
    Image.open(images / "lime/3.jpg").save(images / "elm/4.jpg", quality=40)
    Image.open(images / "lime/1.jpg").save(images / "lime/2.jpg", quality=40)
    (folder / "images.csv").write_text(split)
    assert found(folder) == [
        ("a copy", "images/oak/1.jpg", 'a copy of "oak/0.jpg"'),
        ("a copy in training and test (a leak)", "images/oak/9.jpg", 'a copy of "oak/2.jpg"'),
        ("a copy with another class", "images/elm/0.jpg", 'a copy of "ash/0.jpg", in classes "ash" and "elm"'),
        (
            "nearly a copy with another class",
            "images/lime/3.jpg",
            'nearly the same image as "elm/4.jpg", in classes "elm" and "lime"',
        ),
        ("nearly a copy in training and test (a leak)", "images/ash/8.jpg", 'nearly the same image as "ash/3.jpg"'),
        ("nearly a copy", "images/lime/2.jpg", 'nearly the same image as "lime/1.jpg"'),
    ]  # fmt: skip


def test_thumbnails_are_correlations():
    a, b = image(1), image(2)
    same = thumbnail(a) @ thumbnail(a.resize((50, 50), Image.Resampling.BOX))
    assert same > ALIKE > abs(thumbnail(a) @ thumbnail(b))
    small = [np.asarray(p.resize((12, 12), Image.Resampling.BOX), dtype=float).ravel() for p in (a, b)]
    assert thumbnail(a).astype(float) @ thumbnail(b).astype(float) == pytest.approx(np.corrcoef(small)[0, 1], abs=2e-3)
    assert thumbnail(Image.new("RGB", (80, 80), "white")) is None


def test_attributes_that_tell_nothing(folder):
    (folder / "classes.csv").write_text(
        "class,lobed,lobed too,bark,always,only yew,leaf,oaken\n"
        "oak,yes,no,brown,yes,no,large,yes\nash,no,yes,grey,yes,no,medium,no\nelm,yes,no,grey,yes,no,small,no\n"
        "lime,no,yes,brown,yes,no,small,no\nyew,no,yes,grey,yes,yes,medium,no\n"
    )
    assert found(folder) == [
        ("constant attributes", 'attribute "always"', "the same in every class"),
        (
            "attributes that cannot be learned",
            'attribute "only yew"',
            "the same in every class with images, so it cannot be learned",
        ),
        ("attributes of one class", 'attribute "oaken"', 'only one class with images has it: "oak"'),
        (
            "what to expect of unseen classes",
            'class "yew"',
            "low accuracy expected: only yew occurs in no class with images",
        ),
        (
            "redundant attributes",
            'attributes "lobed" and "lobed too"',
            "they are opposites in every class",
        ),
        ("classes that are nearly alike", 'classes "ash" and "yew"', 'they differ in "only yew" alone'),
    ]  # fmt: skip


def test_attributes_that_occur_together_are_told_once_for_all_of_them(folder):
    (folder / "classes.csv").write_text(
        "class,a,b,c,d,e,f,size,bark\n"
        "oak,yes,yes,no,yes,yes,yes,large,brown\nash,no,no,yes,no,no,no,small,grey\n"
        "elm,yes,yes,no,yes,yes,yes,large,red\nlime,no,no,yes,no,no,no,small,red\nyew,no,no,yes,no,no,no,small,grey\n"
    )
    told = [(f.where, f.what, f.hint) for f in check_folder(folder).findings if f.kind == "redundant attributes"]
    assert told == [
        (
            'attributes "a", "b", "d", "e" and 3 more',
            "they always occur together, or are opposites, in every class",
            "keep one of them, or add classes",
        )
    ]  # the others are f, size::large and c, of which a class has one where it does not have the other


def test_twins_and_names(folder):
    edit(
        folder, "yew,yes,grey,small,12", "ash_,no,grey,medium,25\nlimme,yes,brown,large,11\nEXAMPLE x,yes,red,small,12"
    )
    shutil.rmtree(folder / "images/ash")
    kinds = found(folder)
    assert (
        "indistinguishable classes",
        'classes "ash" and "ash_"',
        "the same attributes: the model cannot separate them",
    ) in kinds
    assert (
        "similar class names",
        'classes.csv, row 6, column "class"',
        '"ash_" is spelled nearly like "ash" in row 3',
    ) in kinds
    assert ("example rows", "classes.csv, row 8", '"EXAMPLE x" is an example row of the template') in kinds


def test_names_that_differ_only_in_case_or_spaces_are_an_error(folder):
    edit(folder, "yew,yes,grey,small,12", "ASH,no,grey,small,12")
    where, what = 'classes.csv, row 6, column "class"', '"ASH" and "ash" in row 3 differ only in case or spaces'
    assert found(folder, "error") == [("errors that stop training", where, what)]


def test_rows_that_are_no_classes(folder):
    """A row of totals would silently be an unseen class that images can be named."""
    edit(folder, "yew,yes,grey,small,12", "yew,yes,grey,small,12\nTotal:,yes,,,25")
    place = 'classes.csv, row 7, column "class"'
    what = '"Total:" has the name of a total or a unit, and counts as an unseen class'
    assert ("rows that may be no class", place, what) in found(folder, "warning")


def test_a_row_of_units_is_one_error(folder):
    edit(folder, "oak,yes", ",yes/no,,small to large,cm\noak,yes")
    assert found(folder, "error") == [
        ("errors that stop training", 'classes.csv, row 2, column "class"', "the cell is blank")
    ]


@pytest.mark.parametrize("corner", ["class", "attribute"])
def test_classes_in_columns(folder, corner):
    rows = [line.split(",") for line in TABLE.splitlines()]
    rows[0][0] = corner
    (folder / "classes.csv").write_text("\n".join(",".join(cells) for cells in zip(*rows, strict=True)))
    errors = found(folder, "error")
    assert errors == [
        ("errors that stop training", "classes.csv", "the classes are in columns; each class needs a row")
    ]


def test_cells_that_look_wrong(folder):
    edit(folder, "height m", "id")
    edit(folder, "oak,yes,brown; green,large,30", "oak,yes,brown; green,large,1")
    edit(folder, "medium,25", "medium,2")
    edit(folder, "elm,yes,brown,small,20", "elm,,brwon,,3")
    edit(folder, "large,10", "large,4")
    edit(folder, "small,12", "small,5")
    kinds = found(folder)
    assert ("row numbers", 'classes.csv, column "id"', "it numbers the rows") in kinds
    assert (
        "similar values",
        'classes.csv, row 4, column "bark"',
        '"brwon" appears once, and "brown" is spelled nearly alike',
    ) not in kinds
    edit(folder, "ash,no,grey", "ash,no,brown")
    kinds = found(folder)
    assert (
        "similar values",
        'classes.csv, row 4, column "bark"',
        '"brwon" appears once, and "brown" is spelled nearly alike',
    ) in kinds
    edit(folder, "elm,,brwon,,3", "elm,,,,3")
    assert ("mostly blank", "classes.csv, row 4", "3 of 4 attributes are blank") in found(folder)


def test_a_number_far_from_all_others_is_told(folder):
    said = "is far from the others, 10 to 30, which become almost equal"
    misread = "cells that may be misread"
    assert not any(said in what for *_, what in found(folder))
    edit(folder, "medium,25", "medium,45020")
    assert [(kind, what) for kind, _, what in found(folder) if said in what] == [(misread, f'"45020" {said}')]


def test_few_images_and_no_unseen_classes(folder):
    for i in range(1, 10):
        (folder / f"images/oak/{i}.jpg").unlink()
    edit(folder, "yew,yes,grey,small,12\n", "")
    kinds = [kind for kind, *_ in found(folder)]
    assert kinds[:2] == ["classes with few images", "no unseen classes"]
    assert ("classes with few images", 'class "oak"', "only 1 image for training") in found(folder)


@pytest.mark.parametrize(
    ("ruin", "where", "text"),
    [
        (lambda f: (f / "classes.csv").unlink(), "classes.csv", "no such file"),
        (lambda f: (f / "classes.csv").rename(f / "classes.ods"), "classes.ods", "unsupported format"),
        (lambda f: shutil.copy(f / "classes.csv", f / "classes.tsv"), "", "classes.csv and classes.tsv both exist"),
        (shutil.rmtree, "", "no such folder"),
        (lambda f: shutil.rmtree(f / "images"), "", "no folder in images/ has the name of a class"),
        (lambda f: (f / "images.csv").write_text("file\n1.jpg\n"), "images.csv, row 1", 'no column "class"'),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_read(folder, ruin, where, text):
    ruin(folder)
    result = check_folder(folder)
    assert not result.ready
    assert (result.of("error")[0].where, result.of("error")[0].what) == (where, text)


def test_a_broken_second_frame_does_not_count(tmp_path):
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    for frame in frames:
        frame.putpixel((3, 3), (0, 255, 0))
    frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
    data = bytearray((tmp_path / "x.tif").read_bytes())
    # the second frame's bits a sample, all three of which stand elsewhere in the file
    second = [i for i in range(len(data) - 5) if data[i : i + 6] == b"\x08\x00\x08\x00\x08\x00"][-1]
    data[second : second + 6] = b"\x07\x00\x09\x00\x0b\x00"
    (tmp_path / "x.tif").write_bytes(data)
    scan = scan_image(tmp_path / "x.tif")
    assert open_image(tmp_path / "x.tif").size == (40, 30)
    assert [found for found in scan.found if found[0] == "error"] == []
