"""Exports of annotations and observations: what is cut out, fetched and listed, and one line for what is wrong."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unseen.data.layouts import LAYOUTS, find_layout
from unseen.data.layouts.entries import Entry, turned
from unseen.data.layouts.importing import Options, corners, import_export
from unseen.data.layouts.source import Source
from unseen.errors import DataError, UnseenError

spec = importlib.util.spec_from_file_location("samples", Path(__file__).with_name("samples.py"))
samples = importlib.util.module_from_spec(spec)
spec.loader.exec_module(samples)


@pytest.mark.parametrize("name", samples.BOXED)
def test_boxes_are_cut_out(name, tmp_path):
    source = samples.BOXED[name](tmp_path / "export")
    layout = samples.LAYOUT_OF.get(name, name.split(" ")[0])
    assert find_layout(Source(source)).name == layout
    found = import_export(source, tmp_path / "birds", Options(margin=0))
    assert found.layout.name == layout
    assert set(found.images) == {"rook", "crow"}
    table = pd.read_csv(tmp_path / "birds/images.csv")
    assert len(table) == sum(found.images.values())
    for file, label, box in zip(table["file"], table["class"], table["box"], strict=True):
        left, top, right, bottom = samples.BOXES[label]
        with Image.open(tmp_path / "birds/images" / file) as image:
            assert image.size == (right - left, bottom - top)
            np.testing.assert_allclose(np.asarray(image).mean((0, 1)), samples.COLOURS[label], atol=6)
        if name != "roboflow yolo":
            assert [float(v) for v in box.split()] == [left, top, right, bottom]
        assert file.startswith(f"{label}/")
    assert not [p for p in (tmp_path / "birds").iterdir() if p.name.startswith(".")]


def test_splits_of_an_export_are_the_dataset_s(tmp_path):
    import_export(samples.roboflow_coco(tmp_path / "export"), tmp_path / "birds")
    table = pd.read_csv(tmp_path / "birds/images.csv")
    found = set(zip(table["class"], table["split"], strict=True))
    assert found == {("rook", "trainval"), ("rook", "test_seen"), ("crow", "test_unseen")}
    assert "part" not in table


def test_margin_and_edges(tmp_path):
    entry = Entry("x", "rook", "here", (10, 20, 30, 60), (100, 100))
    assert corners(entry, (100, 100), 0.0) == (10, 20, 30, 60)
    assert corners(entry, (100, 100), 0.1) == (8, 16, 32, 64)
    assert corners(entry, (200, 200), 0.0) == (20, 40, 60, 120)  # annotated at half the size
    assert corners(Entry("x", "a", "", (-5, 90, 20, 120), None), (100, 100), 0.5) == (0, 75, 33, 100)
    for box, size, text in (
        ((10, 20, 30, 60), (100, 200), r"boxes are of 100 x 200 pixels, the image is 100 x 100"),
        ((10, 20, 10, 60), None, "without area"),
        ((110, 20, 130, 60), None, "without area"),
        ((10, 20, 15, 60), None, "a box of 5 x 40 pixels"),
    ):
        with pytest.raises(DataError, match=text):
            corners(Entry("x", "a", "here", box, size), (100, 100), 0.0)
    with pytest.raises(DataError, match="is not a margin"):
        Options(margin=5)
    np.testing.assert_allclose(turned((0, 0, 2, 1), 90, (0, 0)), (-1, 0, 0, 2), atol=1e-12)
    np.testing.assert_allclose(turned((0, 0, 2, 2), 45, (1, 1)), (1 - 2**0.5, 1 - 2**0.5, 1 + 2**0.5, 1 + 2**0.5))


@pytest.mark.parametrize("name", ["gbif", "inaturalist"])
def test_observations_are_fetched(name, tmp_path):
    root = tmp_path / "export"
    root.mkdir()
    source = getattr(samples, name)(root)
    found = import_export(source, tmp_path / "birds")
    assert found.layout.name == {"gbif": "darwin-core"}.get(name, name)
    assert found.notes == (("1 image without a class ignored (try another --label)",) * (name == "gbif"))
    table = pd.read_csv(tmp_path / "birds/images.csv", keep_default_na=False)
    assert table["class"].tolist() == ["Corvus frugilegus", "Corvus corone"]
    assert table["creator"].tolist() == (["B. Seer", ""] if name == "gbif" else ["Al F.", "bo"])
    wanted = ["http://creativecommons.org/licenses/by/4.0/", "CC0_1_0"] if name == "gbif" else ["CC-BY-NC", ""]
    assert table["license"].tolist() == wanted
    for file, colour in zip(table["file"], samples.COLOURS.values(), strict=True):
        with Image.open(tmp_path / "birds/images" / file) as image:
            np.testing.assert_allclose(np.asarray(image).mean((0, 1)), colour, atol=6)
    other = "scientificName" if name == "gbif" else "common_name"
    again = import_export(source, tmp_path / "other", Options(label=other, most=1))
    assert set(again.images) >= ({"Corvus corone L."} if name == "gbif" else {"Rook", "Carrion Crow"})
    assert set(import_export(source, tmp_path / "one", Options(only=("Corvus corone",))).images) == {"Corvus corone"}


def test_what_cannot_be_fetched_is_told_and_a_repetition_resumes(tmp_path):
    root = tmp_path / "export"
    source = samples.inaturalist(root)
    (root / "photos/crow/medium.jpg").rename(root / "photos/crow/gone.jpg")
    told = []
    found = import_export(source, tmp_path / "birds", left_out=told.append)
    assert found.images == {"Corvus frugilegus": 1}
    assert found.notes == ("1 of 2 ignored",)
    (line,) = map(str, told)
    assert "cannot be fetched" in line
    assert str(root / "photos/crow/medium.jpg") in line
    # stopped half-way: what is there is not fetched again, another source is refused
    begun = tmp_path / "half"
    stopped = RuntimeError("stopped")

    def stop(*about):
        raise stopped

    with pytest.raises(RuntimeError):
        import_export(source, begun, progress=stop)
    (done,) = (begun / "images").rglob("*.jpg")
    stamp = done.stat().st_mtime_ns
    with pytest.raises(DataError, match="another source or other options"):
        import_export(source, begun, Options(most=1))
    (root / "photos/crow/gone.jpg").rename(root / "photos/crow/medium.jpg")
    assert sum(import_export(source, begun).images.values()) == 2
    assert done.stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match=r"images\.csv: already exists"):
        import_export(source, begun)


def changed(value, path, new):
    value = json.loads(json.dumps(value))
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return value


@pytest.mark.parametrize(
    ("path", "new", "text"),
    [
        (("annotations", 0, "category_id"), 99, r"instances\.json, annotations\.0: no such category_id: 99"),
        (("annotations", 0, "image_id"), 8, r"annotations\.0: no such image_id: 8"),
        (("annotations", 1, "bbox"), [1, 2, 3], r"annotations\.1: a bbox of 3 numbers"),
        (("annotations", 1, "bbox"), "1 2 3 4", r"instances\.json, annotations\.1\.bbox"),
        (("images", 0, "file_name"), "gone.png", r'annotations\.0: no image "gone\.png" in .*--images'),
        (("categories", 1, "name"), " ", r"annotations\.0: a class without a name"),
    ],
)
def test_damaged_coco(path, new, text, tmp_path):
    samples.scene(tmp_path / "export/scene.png")
    (tmp_path / "export/instances.json").write_text(json.dumps(changed(samples.coco_value(), path, new)))
    with pytest.raises(DataError, match=text) as found:
        import_export(tmp_path / "export/instances.json", tmp_path / "birds")
    assert "\n" not in str(found.value)


WRONG = {
    "cvat": ("cvat", 'xtl="10.00"', 'xtl="ten"', r'image "scene\.png": box: no number'),
    "cvat xml": ("cvat", "</annotations>", "", "not valid XML"),
    "via": ("via", '"species": "crow"', '"species": ""', r'region 1: a region without "species"'),
    "via csv": ("via_csv", '""width""', '""wdth""', r"row 2: a rect has missing numbers"),
    "label studio": (
        "label_studio",
        '"rectanglelabels": ["rook"]',
        '"rectanglelabels": ["a", "b"]',
        "2 labels for one",
    ),
    "roboflow csv": ("roboflow_csv", ",90,", ",ninety,", r"_annotations\.csv, row 3: not numbers"),
    "yolo": ("roboflow_yolo", "0 0.5", "7 0.5", r"scene\.txt, line 2: class 7 of 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_on_what_is_wrong(case, tmp_path):
    name, old, new, text = WRONG[case]
    if name == "cvat":
        samples.scene(tmp_path / "export/scene.png")
        source = tmp_path / "export/annotations.xml"
        source.write_text(samples.CVAT)
    else:
        source = getattr(samples, name)(tmp_path / "export")
    endings = (".json", ".csv", ".xml", ".txt")
    files = [source] if source.is_file() else [p for p in source.rglob("*") if p.suffix in endings]
    assert any(old in f.read_text() for f in files)
    for file in files:
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=text) as found:
        import_export(source, tmp_path / "birds")
    assert "\n" not in str(found.value)


def test_what_is_of_no_layout(tmp_path):
    (tmp_path / "notes.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"notes\.json: unknown layout"):
        import_export(tmp_path / "notes.json", tmp_path / "birds")
    with pytest.raises(UnseenError, match='unknown layout "voc"'):
        import_export(tmp_path / "notes.json", tmp_path / "birds", layout="voc")
    with pytest.raises(DataError, match="no such file"):
        import_export(tmp_path / "gone.json", tmp_path / "birds")
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="no addresses of images — download it as"):
        import_export(samples.gbif_simple(tmp_path / "x"), tmp_path / "birds")


def test_every_layout_has_a_sample(tmp_path):
    made = {samples.LAYOUT_OF.get(n, n.split(" ")[0]) for n in samples.BOXED}
    assert made | {"darwin-core", "inaturalist", "traits", "traits-long"} == set(LAYOUTS)
