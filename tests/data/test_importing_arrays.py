"""Features as plain arrays: four formats, with and without names, into a folder that holds no image."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from unseen import ZeroShotClassifier, fit
from unseen.data.folder import load_folder
from unseen.data.importing import _names_below, dataset_of, import_features
from unseen.errors import DataError
from unseen.formats.arrays import ArrayFile
from unseen.ground.images import ImageWarning

CLASSES, EACH, K, C = 8, 6, 5, 7
NAMES = [f"species {chr(97 + c)}" for c in range(CLASSES)]
RNG = np.random.default_rng(2)
VALUES = RNG.random((CLASSES, K)).round(3)
LABELS = np.repeat(np.arange(CLASSES), EACH)
X = (VALUES[LABELS] @ RNG.normal(size=(K, C)) + 0.1 * RNG.normal(size=(len(LABELS), C))).astype(np.float32)
FILES = np.array([f"{NAMES[c]}/{i}.jpg" for i, c in enumerate(LABELS)])
SPLIT = np.array(["test_unseen" if c >= 6 else ["trainval", "test_seen"][i % EACH == 5] for i, c in enumerate(LABELS)])


@pytest.fixture
def folder(tmp_path):
    """A table of classes, and nothing else."""
    made = tmp_path / "species"
    made.mkdir()
    frame = pd.DataFrame(VALUES, columns=[f"a{k}" for k in range(K)])
    frame.insert(0, "class", NAMES)
    frame.to_csv(made / "classes.csv", index=False)
    return made


def write(path, features=X, **columns):
    kind = path.suffix
    if kind == ".npy":
        np.save(path, features)
    elif kind == ".npz":
        np.savez(path, features=features, **columns)
    elif kind == ".safetensors":
        texts = {k: json.dumps(v.tolist()) for k, v in columns.items() if v.dtype.kind == "U"}
        numbers = {k: v for k, v in columns.items() if v.dtype.kind != "U"}
        save_file({"features": features, **numbers}, path, metadata=texts)
    else:
        pd.DataFrame({**columns, "features": list(features.reshape(len(features), -1))}).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["npz", "safetensors", "parquet"])
@pytest.mark.parametrize("labels", ["names", "positions"])
def test_a_table_of_classes_and_a_file_are_a_dataset(folder, tmp_path, kind, labels):
    named = np.array(NAMES)[LABELS] if labels == "names" else LABELS
    path = write(tmp_path / f"x.{kind}", labels=named, files=FILES, split=SPLIT)
    dataset = dataset_of(folder, path)
    store = import_features(path, dataset, folder, "mine", dtype="float32")
    np.testing.assert_array_equal(store.read(range(len(X)))[:, 0].numpy(), X)
    again = load_folder(folder)
    assert again.files == tuple(FILES)
    np.testing.assert_array_equal(again.labels, LABELS)
    np.testing.assert_array_equal(again.split, SPLIT)
    assert again.table.seen.tolist() == [True] * 6 + [False] * 2
    assert sorted(p.name for p in folder.iterdir()) == ["classes.csv", "features", "images.csv"]


def test_a_run_on_them(folder, tmp_path):
    path = write(tmp_path / "x.npz", labels=np.array(NAMES)[LABELS], split=SPLIT)
    import_features(path, dataset_of(folder, path), folder, "mine", dtype="float32")
    run = fit("eszsl", folder, tmp_path / "run", backbone="features:mine", device="cpu")
    assert run.results["protocols"]["honest"]["metrics"]["T1"]["mean"] >= 0.5
    made = ZeroShotClassifier.load(run.folder, device="cpu")
    held = SPLIT == "test_seen"
    assert (made.predict(X[held], among="seen") == np.array(NAMES)[LABELS[held]]).mean() > 0.5


def test_images_become_test_images_only_if_that_is_said(folder, tmp_path, unseen):
    path = write(tmp_path / "x.npz", labels=LABELS, files=FILES)
    with pytest.warns(ImageWarning) as told:
        dataset = dataset_of(folder, path)
    held = int((dataset.split == "test_seen").sum())
    assert held == sum(int(hashlib.sha256(f.encode()).hexdigest()[:16], 16) / 2**64 < 0.2 for f in FILES)
    assert [str(w.message) for w in told] == [
        f"x.npz has no split: of 48 images of seen classes, {held} become test images, about a fifth of each class, "
        "by name; to choose them, add a column split to images.csv"
    ]
    (folder / "images.csv").unlink()
    status, _, err = unseen("import", path, folder)
    assert (status, f"note: x.npz has no split: of 48 images of seen classes, {held} become" in err) == (0, True), err
    (folder / "images.csv").unlink()
    status, _, err = unseen("import", write(tmp_path / "y.npz", labels=LABELS, split=SPLIT), folder)
    assert (status, "no split" in err) == (0, False), err


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("/data/birds/oak/1.jpg", "/data/birds/ash/1.jpg"), ["oak/1.jpg", "ash/1.jpg"]),
        (("/data/oak/1.jpg", "/data/oak/2.jpg"), ["1.jpg", "2.jpg"]),
        (("/a/1.jpg", "/b/1.jpg"), ["a/1.jpg", "b/1.jpg"]),
        (("/data/oak/1.jpg", "/data/oak/2.jpg", "/data/oak/1.jpg"), ["1-1.jpg", "2.jpg", "1-3.jpg"]),
        (("oak/1.jpg", "oak/1.jpg", "ash/1.jpg"), ["oak/1-1.jpg", "oak/1-2.jpg", "ash/1.jpg"]),
        (("oak/1.jpg", "oak/2.jpg"), ["oak/1.jpg", "oak/2.jpg"]),  # relative paths are those below images/
        (("/data/oak/1.jpg", "oak/2.jpg"), ["/data/oak/1.jpg", "oak/2.jpg"]),
        ((), []),
    ],
)
def test_names_of_images_below_the_folder_they_share(files, expected):
    assert _names_below(files) == expected


def test_rows_in_another_order_are_found_by_their_names(folder, tmp_path):
    path = write(tmp_path / "x.npz", labels=LABELS, files=FILES)
    import_features(path, dataset_of(folder, path), folder, "first", dtype="float32")
    order = RNG.permutation(len(X))
    other = write(tmp_path / "y.npz", features=X[order], labels=LABELS[order], files=FILES[order])
    store = import_features(other, dataset_of(folder, other), folder, "second", dtype="float32")
    np.testing.assert_array_equal(store.read(range(len(X)))[:, 0].numpy(), X)
    alone = write(tmp_path / "z.npy")  # nothing but numbers: in the dataset's order
    store = import_features(alone, dataset_of(folder, alone), folder, "third", dtype="float32")
    np.testing.assert_array_equal(store.read([3, 1])[:, 0].numpy(), X[[3, 1]])


@pytest.mark.parametrize(
    ("shape", "grid"), [((4, 6), (1, 1)), ((4, 9, 6), (3, 3)), ((4, 8, 6), (1, 8)), ((4, 6, 2, 3), (2, 3))]
)
@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_shapes(tmp_path, shape, grid, kind):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    file = ArrayFile.open(write(tmp_path / f"x.{kind}", features=values))
    assert (file.grid, file.channels) == (grid, 6)
    with file.reader() as read:
        block = read(1, 3)
    expected = values[1:3].reshape(2, 6, -1).transpose(0, 2, 1) if len(shape) == 4 else values[1:3].reshape(2, -1, 6)
    np.testing.assert_array_equal(block, expected)


def test_columns_of_numbers_are_channels(tmp_path):
    frame = pd.DataFrame(X, columns=[f"f{c}" for c in range(C)]).assign(file=FILES, label=LABELS)
    frame.to_parquet(tmp_path / "x.parquet")
    file = ArrayFile.open(tmp_path / "x.parquet")
    assert (file.shape, file.files) == ((len(X), C), tuple(FILES))
    with file.reader() as read:
        np.testing.assert_array_equal(read(0, 3)[:, 0], X[:3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"files": FILES}, "no labels, and the folder has no table of images"),
        (
            {"labels": LABELS + 1},
            "row 43 is of class 8, but there are 8 classes — labels are positions in classes.csv, from 0",
        ),
        ({"labels": LABELS[1:]}, r"`labels` has shape \(47,\) for 48 rows"),
        ({"labels": LABELS.astype(float)}, "labels are float64 — use class names, or positions from 0"),
        ({"labels": LABELS, "files": FILES[[0, *range(47)]]}, '"species a/0.jpg" appears twice'),
        ({"labels": LABELS, "split": np.full(len(X), "train")}, 'unknown split "train" — use one of trainval'),
        ({"labels": np.array(["dodo"] * len(X))}, 'class "dodo" is not in classes.csv'),
        ({"features": X[0]}, r"`features` is float32 of shape \(7,\)"),
        ({"features": np.array([{}] * 3)}, "contains pickled objects; unseen does not load pickles"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(folder, tmp_path, content, message):
    np.savez(tmp_path / "x.npz", **({"features": X} | content))
    with pytest.raises(DataError, match=message) as caught:
        dataset_of(folder, tmp_path / "x.npz")
    assert "\n" not in str(caught.value)
    assert [p.name for p in folder.iterdir()] == ["classes.csv"]


def test_refused_values_leave_nothing_for_the_next_file(folder, tmp_path, unseen):
    equal, mixed = tmp_path / "equal.npz", np.random.default_rng(0).permutation(len(X))
    np.savez(equal, features=np.ones_like(X), labels=LABELS)
    status, _, err = unseen("import", equal, folder)
    assert status == 2
    assert "48 images are equal" in err
    assert [p.name for p in folder.iterdir()] == ["classes.csv"]
    np.savez(tmp_path / "x.npz", features=X[mixed], labels=LABELS[mixed])
    assert unseen("import", tmp_path / "x.npz", folder)[0] == 0
    assert np.array_equal(load_folder(folder).labels, LABELS[mixed])


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors", "parquet"])
def test_damage_is_one_line(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(b"PK\x03\x04 nothing of the sort" * 9)
    with pytest.raises(DataError, match=f"not a readable .{kind} file"):
        ArrayFile.open(path)
    with pytest.raises(DataError, match="no such file"):
        ArrayFile.open(tmp_path / f"none.{kind}")


def test_rows_that_are_not_the_dataset_s_are_refused(folder, tmp_path):
    path = write(tmp_path / "x.npz", labels=LABELS, files=FILES)
    dataset = dataset_of(folder, path)
    shifted = write(tmp_path / "y.npz", labels=np.roll(LABELS, 1))
    with pytest.raises(DataError, match=r"8 labels differ, the first in row 1 \(species a/0.jpg\)"):
        import_features(shifted, dataset, folder, "y")
    short = write(tmp_path / "z.npy", features=X[1:])
    with pytest.raises(DataError, match="features of 47 images for 48"):
        import_features(short, dataset, folder, "z")


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors", "parquet"])
def test_rows_of_zeros_are_named(folder, tmp_path, kind):
    dataset = dataset_of(folder, write(tmp_path / "x.npz", labels=LABELS, files=FILES))
    features = X.copy()
    features[[2, 7, 20, 45]] = 0
    path = write(tmp_path / f"y.{kind}", features)
    said = (
        r"y\.\w+: the features of 4 of 48 images are all zero \(species a/2\.jpg, species b/7\.jpg, species d/20\.jpg "
        r"and 1 more\), so nothing can be recognized from them; extract them again"
    )
    with pytest.warns(ImageWarning, match=said):
        import_features(path, dataset, folder, "some", dtype="float32", chunk=5)
    with pytest.raises(DataError, match=rf"y\.{kind}: the features of all 48 images are all zero — extract them again"):
        import_features(write(path, X * 0), dataset, folder, "none", chunk=5)
    with pytest.raises(DataError, match=r"the features of all 48 images are equal — extract them again"):
        import_features(write(path, X * 0 + 3), dataset, folder, "same", chunk=5)
    assert sorted(p.name for p in (folder / "features").iterdir() if p.is_dir()) == ["some"]


def test_numbers_that_round_to_zero_are_said_with_the_option(folder, tmp_path, unseen):
    features = X.copy()
    features[3] = 1e-9
    path = write(tmp_path / "x.npz", features, labels=LABELS, files=FILES)
    status, _, err = unseen("import", path, folder)
    assert status == 0
    said = (
        "the features of 1 of 48 images are zero as float16 (species a/3.jpg), so nothing can be recognized from them"
    )
    assert f"{said}; pass --store-dtype bfloat16 or float32" in err
    write(path, features * 1e-9, labels=LABELS, files=FILES)
    status, _, err = unseen("import", path, folder, "--name", "tiny")
    assert status == 2
    assert "all 48 images are zero as float16 — pass --store-dtype bfloat16 or float32" in err
    status, _, err = unseen("import", path, folder, "--name", "tiny", "--store-dtype", "float32")
    assert (status, err.count("zero")) == (0, 0)
    status, _, err = unseen("import", path, folder, "--name", "odd", "--store-dtype", "int8")
    assert status == 2
    assert 'store dtype: unknown type "int8" — use one of float16, bfloat16, float32' in err


def test_the_command(unseen, folder, tmp_path):
    path = write(tmp_path / "x.npz", labels=LABELS, split=SPLIT)
    status, out, err = unseen("import", path, folder)
    assert status == 0, err
    assert "48 images, 1x1 regions of 7 channels" in out
    assert "--backbone features:x" in out
