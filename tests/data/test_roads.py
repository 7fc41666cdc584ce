"""Every check on every road that data come by: each cell is tried here, or argued away in words.

Roads: a folder of a person's own (``load_folder`` and ``check``), a benchmark with its images (``prepare``), one
without (``prepare --features-only``), features of others (``import``), and arrays (``Dataset``, which the API builds).
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tiny_benchmarks import CLASSES, EACH, Tiny, cells
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset
from unseen.data.folder import load_folder
from unseen.data.importing import import_features
from unseen.errors import DataError, UnseenError
from unseen.releases import prepare
from unseen.releases.images import Images

ROADS = ("folder", "prepare", "features-only", "import", "arrays")
ARGUED = {
    ("labels contradict file names", "folder"): "folders are the labels; a table overrules names that mean anything",
    ("labels contradict file names", "arrays"): "names of arrays are the caller's and need not say a class",
    ("an image is missing", "features-only"): "there are no images",
    ("an image is missing", "import"): "the dataset was loaded before, which looks",
    ("an image is missing", "arrays"): "images may be elsewhere; they are opened when features are extracted",
    ("features that are no numbers", "folder"): "they are computed from images, and checked when computed",
    ("features that are no numbers", "prepare"): "none are taken",
    ("features that are no numbers", "arrays"): "a Dataset holds none",
    ("all seen classes alike", "import"): "the class table is the dataset's, checked when loaded",
    ("an unseen class is trained on", "import"): "the split is the dataset's; a file's own is compared with it",
}


def own(tmp_path, labels=None, attributes="bear,1,0\nfox,0,1\nelk,1,1\nlynx,0.5,0\n", split=None):
    names = ("bear", "fox", "elk", "lynx")
    labels = labels or [c for c in range(4) for _ in range(3)]
    split = split or ["test_unseen" if c == 3 else "trainval" for c in labels]
    root = tmp_path / "own"
    rows = []
    for i, (c, s) in enumerate(zip(labels, split, strict=True)):
        file = root / f"images/{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        rows.append(f"{i}.jpg,{names[c]},{s}")
    (root / "classes.csv").write_text("class,big,red\n" + attributes)
    (root / "attributes.csv").write_text("attribute,scale\nbig,as is\nred,as is\n")
    (root / "images.csv").write_text("file,class,split\n" + "\n".join(rows) + "\n")
    return root


def arrays(values=None, split=None, labels=None):
    labels = np.repeat(np.arange(4), 3) if labels is None else labels
    values = np.eye(4, 3) + 0.1 if values is None else values
    table = ClassTable(("a", "b", "c", "d"), Attributes(("x", "y", "z")), values, np.arange(4) < 3)
    files = tuple(f"{i}.jpg" for i in range(len(labels)))
    split = np.where(labels == 3, "test_unseen", "trainval").astype(object) if split is None else split
    return Dataset("arrays", ".", table, files, labels, split)


def prepared(tmp_path, spoil=lambda tiny: None, **options):
    tiny = Tiny("awa2", tmp_path / "root")
    spoil(tiny)
    outcome = prepare(tiny.write(), tiny.root, tmp_path / "out", **options)
    if outcome.problems or outcome.lacking:
        raise DataError("; ".join([*outcome.problems, *(f"lacks {s.need.name}" for s in outcome.lacking)]))
    return tiny


def imported(tmp_path, **changes):
    tiny = prepared(tmp_path)
    dataset = load_folder(tmp_path / "out")
    features = np.random.default_rng(0).random((CLASSES * EACH, 7, 2, 2), np.float32)
    content = {"feature_map": features, "labels": dataset.labels}
    content |= {f"{p}_loc": dataset.indices(p) for p in ("trainval", "test_seen", "test_unseen")}
    for name, change in changes.items():
        content[name] = change(content[name], dataset)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name, value in content.items():
            file[name] = value
    import_features(tmp_path / "x.hdf5", dataset, tmp_path / "out", "x")
    return tiny


def swap_names(tiny):
    """Labels stay and the names of the images move on by one class."""
    tiny.images["image_files"] = cells([f"/BS/work/{p}" for p in np.roll(tiny.places, EACH)])


def alike(tiny):
    for name in ("att", "original_att"):
        tiny.split[name] = np.ones_like(tiny.split[name])
    tiny.values = np.ones_like(tiny.values)


def overlap(tiny):
    """An unseen class's image is trained on."""
    rows = tiny.split
    first = rows["test_unseen_loc"][:1]
    rows["trainval_loc"] = np.concatenate([rows["trainval_loc"], first])
    rows["test_unseen_loc"] = rows["test_unseen_loc"][1:]


def broken(tiny):
    tiny.images["features"][0, 0] = np.nan


def lost(tmp_path):
    tiny = Tiny("awa2", tmp_path / "root")
    benchmark = tiny.write()
    folder = next(p for p in (tmp_path / "root").rglob("JPEGImages"))
    (folder / Images.below(folder).files[0]).unlink()
    outcome = prepare(benchmark, tiny.root, tmp_path / "out")
    raise DataError("; ".join(outcome.problems) or "nothing")


def gone(tmp_path):
    root = own(tmp_path)
    (root / "images/4.jpg").unlink()
    load_folder(root)


SAME = "bear,1,1\nfox,2,2\nelk,3,3\nlynx,0.5,0\n"
CHECKS = {
    "labels contradict file names": {
        "prepare": (lambda t: prepared(t, swap_names), r"labels differ from the class of the image"),
        "features-only": (
            lambda t: prepared(t, swap_names, features_only=True),
            r"labels differ from the class of the",
        ),
        "import": (lambda t: imported(t, labels=lambda found, _: np.roll(found, EACH)), r"labels differ"),
    },
    "all seen classes alike": {
        "folder": (lambda t: load_folder(own(t, attributes=SAME)), r"the 3 seen classes all have the same attributes"),
        "prepare": (lambda t: prepared(t, alike), r"same attributes|match another class better"),
        "features-only": (lambda t: prepared(t, alike, features_only=True), r"same attributes|match another"),
        "arrays": (lambda t: arrays(np.ones((4, 3))), r"the 3 seen classes all have the same attributes"),
    },
    "an unseen class is trained on": {
        "folder": (
            lambda t: load_folder(own(t, split=[*["trainval"] * 9, "trainval", *["test_unseen"] * 2])),
            r"trainval",
        ),
        "prepare": (lambda t: prepared(t, overlap), r"images in|both in training"),
        "features-only": (lambda t: prepared(t, overlap, features_only=True), r"images in|both in training"),
        "arrays": (
            lambda t: arrays(split=np.array([*["trainval"] * 10, *["test_unseen"] * 2], dtype=object)),
            r'an image of the unseen class "d" has split trainval',
        ),
    },
    "labels of no class": {
        "folder": (lambda t: load_folder(own(t, attributes="bear,1,0\nfox,0,1\nelk,1,1\n")), r'class "lynx" is not in'),
        "prepare": (lambda t: prepared(t, lambda x: x.images.update(labels=x.images["labels"] + 1)), r"label"),
        "features-only": (
            lambda t: prepared(t, lambda x: x.images.update(labels=x.images["labels"] + 1), features_only=True),
            r"label",
        ),
        "import": (lambda t: imported(t, labels=lambda found, _: found + 5), r"label"),
        "arrays": (lambda t: arrays(labels=np.array([*range(4), 4])), r"label 4 for 4 classes"),
    },
    "an image is missing": {
        "folder": (gone, r'no image "4.jpg"'),
        "prepare": (lost, r"1 of 24 images are missing|images are missing"),
    },
    "a split of other images": {
        "folder": (lambda t: load_folder(own(t, split=["train", *["trainval"] * 11])), r'unknown split "train"'),
        "prepare": (lambda t: prepared(t, lambda x: x.split.update(test_unseen_loc=x.split["trainval_loc"])), r"."),
        "features-only": (
            lambda t: prepared(
                t, lambda x: x.split.update(test_unseen_loc=x.split["trainval_loc"]), features_only=True
            ),
            r".",
        ),
        "import": (
            lambda t: imported(t, test_seen_loc=lambda f, d: d.indices("trainval")),
            r"differs from the dataset's|loc",
        ),
        "arrays": (lambda t: arrays(split=np.array(["x"] * 12, dtype=object)), r'unknown split "x"'),
    },
    "features that are no numbers": {
        "features-only": (lambda t: prepared(t, broken, features_only=True), r"a feature value is nan"),
        "import": (
            lambda t: imported(
                t, feature_map=lambda f, _: np.where(np.arange(len(f))[:, None, None, None] == 3, np.nan, f)
            ),
            r"a feature value is nan",
        ),
    },
}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_check_on_a_road(tmp_path, check, road):
    if (check, road) in ARGUED:
        assert road not in CHECKS[check]
        pytest.skip(ARGUED[check, road])
    call, words = CHECKS[check][road]
    with pytest.raises(UnseenError, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_roads_are_open(tmp_path):
    """Without a fault every road goes through."""
    for i, road in enumerate((lambda t: load_folder(own(t)), prepared, imported, lambda t: arrays())):
        (tmp_path / str(i)).mkdir()
        road(tmp_path / str(i))
    (tmp_path / "only").mkdir()
    prepared(tmp_path / "only", features_only=True)
