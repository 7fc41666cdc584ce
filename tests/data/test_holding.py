"""What people hold as datasets: tables of paths, ImageFolder, Hugging Face, URLs; kept, loaded and trained on."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.classes.table import ClassTable
from unseen.data.catalogue import keep_dataset, load_dataset
from unseen.data.saved import load_saved, save_dataset
from unseen.errors import DataError, UnseenError


@pytest.fixture(scope="module")
def guide(tiny_guide):
    return load_dataset(tiny_guide)


@pytest.fixture(scope="module")
def images(guide):
    """Absolute paths and class names."""
    names = [guide.table.names[c] for c in guide.labels]
    return pd.DataFrame({"path": [str(p) for p in guide.paths()], "label": names, "split": guide.split})


@pytest.fixture(scope="module")
def attributes(guide):
    return guide.table.to_frame().drop(columns="seen")


def equal(one, other):
    assert one.table.names == other.table.names
    assert one.table.attributes.names == other.table.attributes.names
    np.testing.assert_array_equal(one.table.values, other.table.values)
    np.testing.assert_array_equal(one.table.seen, other.table.seen)
    assert [str(p) for p in one.paths()] == [str(p) for p in other.paths()]
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.split, other.split)


def test_a_table_goes_to_a_frame_and_back(guide):
    frame = guide.table.to_frame()
    assert frame.index.name == "class"
    again = ClassTable.from_frame(frame)
    assert (again.names, again.attributes.names) == (guide.table.names, guide.table.attributes.names)
    np.testing.assert_array_equal(again.values, guide.table.values)
    np.testing.assert_array_equal(again.seen, guide.table.seen)
    assert ClassTable.from_frame(frame.reset_index()).names == again.names
    assert ClassTable.from_frame({"ant": {"legs": 6, "wings": 0}, "owl": {"legs": 2, "wings": 2}}).values.tolist() == [
        [6.0, 0.0],
        [2.0, 2.0],
    ]
    assert ClassTable.from_frame(again) is again


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pd.DataFrame({"legs": [6, "six"]}, index=["ant", "bee"]),
            'class "bee", column "legs": "six" is not a number',
        ),
        (
            pd.DataFrame({"legs": [6, np.nan]}, index=["ant", "bee"]),
            'class "bee", column "legs": "nan" is not a number',
        ),
        (pd.DataFrame({"legs": [6, 6]}, index=["ant", "ant"]), 'class "ant" already exists'),
        (pd.DataFrame(index=["ant", "bee"]), "no attributes"),
        ([[1, 2]], "list is not a class table — pass a DataFrame indexed by class"),
    ],
)
def test_a_frame_that_is_no_table_is_one_line(frame, message):
    with pytest.raises(DataError, match=message):
        ClassTable.from_frame(frame)


def test_paths_and_classes_are_the_folder(guide, images, attributes):
    made = unseen.make_dataset(images, attributes, root=guide.images)
    equal(made, guide)
    relative = images.assign(path=guide.files)
    equal(unseen.make_dataset(relative, attributes, root=guide.images), guide)
    pairs = list(zip(images["path"], images["label"], strict=True))
    made = unseen.make_dataset(pairs, attributes)
    assert sorted(p.name for p in made.paths()) == sorted(p.name for p in guide.paths())
    assert {"trainval", "test_seen"} == set(made.split)  # every class has images: all are seen
    unseen_classes = set(np.array(guide.table.names)[~guide.table.seen])
    some = images[~images["label"].isin(unseen_classes)].drop(columns="split")
    made = unseen.make_dataset(some, attributes)
    np.testing.assert_array_equal(made.table.seen, guide.table.seen)


def test_a_kept_dataset_is_the_same(guide, images, attributes, tmp_path):
    made = unseen.make_dataset(images, attributes, root=guide.images, name="my birds")
    folder = keep_dataset(made, tmp_path)
    assert folder == keep_dataset(made, tmp_path)
    again = load_dataset(folder)
    equal(again, made)
    assert (again.fingerprint, again.name) == (made.fingerprint, "my birds")
    whole = save_dataset(guide, tmp_path / "whole")
    equal(load_saved(whole), guide)
    pd.testing.assert_frame_equal(load_saved(whole).part_positions, guide.part_positions)
    (folder / "saved-dataset.json").write_text('{"format": 1, "name": "x", "images": 3}')
    with pytest.raises(DataError, match=r"saved-dataset.json, images: is not a valid string \(3\)"):
        load_dataset(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").touch()
    with pytest.raises(DataError, match="not empty and contains no saved dataset"):
        save_dataset(guide, tmp_path / "other")


def test_a_folder_of_torchvision(guide, attributes):
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(guide.images)
    made = unseen.make_dataset(folder, attributes)
    assert len(made.files) == len(folder)
    assert [made.table.names[c] for c in made.labels] == [folder.classes[c] for c in folder.targets]
    assert [str(p) for p in made.paths()] == [file for file, _ in folder.samples]


def test_a_dataset_of_hugging_face(guide, images, attributes, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs unseen[huggingface]")
    names = list(guide.table.names)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": list(images["path"]), "label": [names.index(c) for c in images["label"]]}
    held = datasets.Dataset.from_dict(rows, features=features)
    made = unseen.make_dataset(held, attributes, cache=tmp_path)
    np.testing.assert_array_equal(made.labels, guide.labels)
    assert made.paths()[3].read_bytes() == guide.paths()[3].read_bytes()
    with pytest.raises(DataError, match=r"no image column — cast one of label \(ClassLabel\)"):
        unseen.make_dataset(held.remove_columns("image"), attributes, cache=tmp_path)


def test_urls_are_fetched_once(guide, images, attributes, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for file, path in zip(guide.files, guide.paths(), strict=True):
        memory.pipe(f"/birds/{file}", path.read_bytes())
    relative = images.assign(path=guide.files)
    made = unseen.make_dataset(relative, attributes, root="memory://birds", cache=tmp_path)
    assert made.name == "birds"
    np.testing.assert_array_equal(made.labels, guide.labels)
    assert made.paths()[5].read_bytes() == guide.paths()[5].read_bytes()
    memory.rm("/birds", recursive=True)
    again = unseen.make_dataset(relative, attributes, root="memory://birds", cache=tmp_path)
    assert again.fingerprint == made.fingerprint
    shutil.rmtree(tmp_path / "fetched")
    with pytest.raises(DataError, match=r"memory://birds/.*: cannot be fetched"):
        unseen.make_dataset(relative, attributes, root="memory://birds", cache=tmp_path)


def test_fit_takes_them(guide, images, attributes, tiny_guide, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "device": "cpu", "cache": tmp_path / "cache", "draws": 1}
    folder = unseen.fit("eszsl", tiny_guide, tmp_path / "folder", **options)
    held = unseen.fit("eszsl", guide, tmp_path / "object", **options)
    table = unseen.fit("eszsl", images, tmp_path / "table", attributes=attributes, root=guide.images, **options)
    numbers = [run.results["protocols"]["honest"]["metrics"] for run in (folder, held, table)]
    assert numbers[0] == numbers[1] == numbers[2]
    assert unseen.evaluate(table, device="cpu", cache=tmp_path / "cache")["protocol"] == "honest"
    # the same call again is the same run
    assert unseen.fit("eszsl", guide, tmp_path / "object", **options).results == held.results


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.rename(columns={"path": "where"}),
            "no column of paths — name it file; the columns are where, label",
        ),
        (lambda f: f.rename(columns={"label": "kind"}), "no column of class names — name it class"),
        (lambda f: f.assign(label=[None, *f["label"][1:]]), 'row 0, column "label": an empty cell'),
        (lambda f: f.assign(split="train"), 'row 0, column "split": unknown split "train" — use one of trainval'),
        (lambda f: f.assign(label="Dodo"), r'row 0 \(.*\): class "Dodo" has no attributes'),
        (lambda f: f.assign(path=["/nowhere/a.png", *f["path"][1:]]), 'row 0: no image "/nowhere/a.png"'),
        (lambda f: pd.concat([f, f[:1]]), "is already the image of row 0 — keep one"),
        (lambda f: f[:0], "no images"),
        (lambda f: 3, "int is not a table of images"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(images, attributes, change, message):
    with pytest.raises(DataError, match=message) as caught:
        unseen.make_dataset(change(images), attributes)
    assert "\n" not in str(caught.value)


def test_a_root_that_is_not_above_and_a_folder_with_attributes(images, attributes, tiny_guide, tmp_path):
    with pytest.raises(DataError, match=r"lies outside .* — pass a root= above all images"):
        unseen.make_dataset(images, attributes, root=tmp_path)
    with pytest.raises(UnseenError, match="a dataset folder has its own class table"):
        unseen.fit("eszsl", tiny_guide, tmp_path / "run", attributes=attributes)
    with pytest.raises(UnseenError, match="images as DataFrame without attributes of their classes"):
        unseen.fit("eszsl", images, tmp_path / "run")
