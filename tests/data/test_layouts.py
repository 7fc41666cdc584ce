"""Folders and lists as people have them: split folders, paths written in other ways, one error for one cause."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from unseen.data.checks import check_folder
from unseen.data.folder import load_folder
from unseen.errors import DataError

CLASSES = "class,big,red,furry\nbear,1,0,1\nfox,0,1,1\nelk,1,1,0\nlynx,0,0,1\n"
NAMES = ("bear", "fox", "elk", "lynx")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "own"
    root.mkdir()
    (root / "classes.csv").write_text(CLASSES)
    return root


def put(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


@pytest.mark.parametrize("below", ["", "images/"])
@pytest.mark.parametrize(("train", "val", "test"), [("train", "val", "test"), ("Training", "valid", "Testing")])
def test_split_folders_are_the_split(root, below, train, val, test):
    put(root, *(f"{below}{train}/{name}/{i}.jpg" for name in NAMES[:3] for i in range(4)))
    put(root, *(f"{below}{val}/{name}/9.jpg" for name in NAMES[:3]))
    put(root, *(f"{below}{test}/{name}/{i}.jpg" for name in NAMES for i in (5, 6)))
    data = load_folder(root)
    assert data.describe() | {"trainval": 15, "test_seen": 6, "test_unseen": 2} == data.describe()
    for file, split, label in zip(data.files, data.split, data.labels, strict=True):
        wanted = ("test_unseen" if label == 3 else "test_seen") if file.startswith(test) else "trainval"
        assert split == wanted, file
    assert f"images are split by their folders: {', '.join(sorted((train, val, test)))}" in data.warnings
    assert "images in val/ are used for training: validation holds out whole classes" in data.warnings
    assert [f.what for f in check_folder(root).findings if "split by" in f.what]


def test_a_class_may_be_called_train(root):
    (root / "classes.csv").write_text(CLASSES.replace("bear", "train"))
    put(root, *(f"images/{name}/x/{i}.jpg" for name in ("train", "fox", "elk") for i in range(4)))
    assert len(load_folder(root).indices("trainval")) == 12 - len(load_folder(root).indices("test_seen"))
    assert not any("split by" in w for w in load_folder(root).warnings)


@pytest.mark.parametrize("column", ["label", "class"])
def test_metadata_of_hugging_face(root, column):
    put(root, *(f"images/{i:04d}.png" for i in range(6)))
    rows = "".join(f"{i:04d}.png,{NAMES[i % 3]},text\n" for i in range(6))
    (root / "images/metadata.csv").write_text(f"file_name,{column},caption\n{rows}")
    data = load_folder(root)
    assert data.files == tuple(f"{i:04d}.png" for i in range(6))
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    (root / "images/metadata.csv").write_text(f"file_name,{column}\n{rows.replace('fox', 'wolf').replace(',text', '')}")
    with pytest.raises(DataError, match=r'metadata\.csv, row 3, column "class": class "wolf" is not in classes\.csv'):
        load_folder(root)


WAYS = {
    "plain": "{0}/{1}",
    "dot": "./{0}/{1}",
    "above": "images/{0}/{1}",
    "dot above": "./images/{0}/{1}",
    "windows": "{0}\\{1}",
    "windows above": ".\\images\\{0}\\{1}",
    "absolute": "{root}/images/{0}/{1}",
    "mixed": "images\\{0}/{1}",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("from_row", [0, 3])
def test_paths_however_they_are_written(root, way, from_row):
    """Also where only later rows are written so."""
    put(root, *(f"images/{name}/{i}.jpg" for name in NAMES[:3] for i in range(2)))
    rows = [(name, f"{i}.jpg") for name in NAMES[:3] for i in range(2)]
    lines = [
        WAYS[way if n >= from_row else "plain"].format(name, file, root=root) + f",{name}"
        for n, (name, file) in enumerate(rows)
    ]
    (root / "images.csv").write_text("file,class\n" + "\n".join(lines) + "\n")
    assert load_folder(root).files == tuple(f"{name}/{file}" for name, file in rows)


@pytest.mark.parametrize("written", ["NFC", "NFD", "zero"])
@pytest.mark.parametrize("there", ["NFC", "NFD"])
def test_equal_looking_names_are_equal(root, written, there):
    name = "Flußkräuter é"
    put(root, *(f"images/{n}/{unicodedata.normalize(there, name)}.jpg" for n in NAMES[:3]))
    text = name[:4] + "\u200b" + name[4:] if written == "zero" else unicodedata.normalize(written, name)
    (root / "images.csv").write_text("file,class\n" + "".join(f"{n}/{text}.jpg,{n}\n" for n in NAMES[:3]))
    assert load_folder(root).files == tuple(f"{n}/{unicodedata.normalize(there, name)}.jpg" for n in NAMES[:3])


def tables(root):
    return [e for e in check_folder(root).of("error") if e.kind == "errors that stop training"]


def test_one_cause_is_one_error(root):
    put(root, *(f"images/{name}/{i}.jpg" for name in NAMES[:3] for i in range(20)))
    rows = [f"{name}/{i}.jpg,{name}" for name in NAMES[:3] for i in range(20)]
    (root / "images.csv").write_text("file,class\n" + "\n".join(rows).replace(",fox", ",wolf") + "\n")
    errors = tables(root)
    assert 'class "wolf" is not in classes.csv (and in 19 further rows)' in [e.what for e in errors]
    assert len(errors) == 2  # and fox has no image
    (root / "images.csv").write_text("file,class\n" + "\n".join(f"photos/{row}" for row in rows) + "\n")
    (error,) = tables(root)
    assert error.what == f'none of the 60 images is in {root}/images, the first "photos/bear/0.jpg"'
    assert error.hint == f'use paths below {root}/images, such as "bear/0.jpg"'
    with pytest.raises(DataError, match="none of the 60 images"):
        load_folder(root)
    (root / "images.csv").write_text("file,class\n" + "\n".join(rows) + "\ngone.jpg,fox\nlost.jpg,elk\n")
    assert [e.what for e in tables(root)] == [
        f'no image "{name}" in {root}/images' for name in ("gone.jpg", "lost.jpg")
    ]


def test_no_way_of_writing_leads_out(root):
    put(root, *(f"images/{name}/{i}.jpg" for name in NAMES[:3] for i in range(2)))
    (root.parent / "secret.jpg").touch()
    for file in ("../../secret.jpg", "images/../../secret.jpg", str(root.parent / "secret.jpg")):
        rows = [f"{name}/{i}.jpg,{name}" for name in NAMES[:3] for i in range(2)]
        (root / "images.csv").write_text("file,class\n" + "\n".join([*rows, f"{file},fox"]) + "\n")
        with pytest.raises(DataError, match=r"lies outside|no image"):
            load_folder(root)
    assert Path(root.parent / "secret.jpg").exists()
