"""Imported features: the same numbers, row by row, in bounded memory, and only of the dataset's own images."""

from __future__ import annotations

import json
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest
import torch

from tiny_benchmarks import CLASSES, EACH, ORDER, Tiny, save
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.data.folder import load_folder
from unseen.data.importing import dataset_of, import_features, import_vectors, imported_store
from unseen.errors import DataError, StoreError, UnseenError
from unseen.ground.images import ImageWarning
from unseen.releases import prepare
from unseen.training.config import RunConfig
from unseen.training.run import fit

COUNT = CLASSES * EACH


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A prepared dataset folder and its source."""
    root = tmp_path_factory.mktemp("birds")
    tiny = Tiny("cub", root / "root")
    prepare(tiny.write(), tiny.root, root / "cub")
    return root / "cub", tiny


def regions(path, folder, first=0, **changes):
    dataset = load_folder(folder)
    content = {
        "feature_map": np.random.default_rng(0).normal(size=(COUNT, 7, 2, 2)).astype(np.float32),
        "labels": dataset.labels + first,
        **{f"{part}_loc": dataset.indices(part) + first for part in ("trainval", "test_seen", "test_unseen")},
    } | changes
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return content["feature_map"]


@pytest.mark.parametrize("first", [0, 1])
def test_regions_are_those_of_the_file(birds, tmp_path, first):
    folder, _ = birds
    features = regions(tmp_path / "x.hdf5", folder, first)
    store = import_features(
        tmp_path / "x.hdf5", load_folder(folder), folder, f"regions{first}", dtype="float32", chunk=3
    )
    assert store.grid() == (2, 2)
    assert store.names == list(load_folder(folder).files)
    read = store.read([5, 0])
    assert (read[0, 3].numpy() == features[5, :, 1, 1]).all()
    assert (read[1, 1].numpy() == features[0, :, 0, 1]).all()
    store.verify()


def test_pooled_features_are_one_region(birds):
    folder, tiny = birds
    path = tiny.root / "xlsa17/data/CUB/res101.mat"
    store = import_features(path, load_folder(folder), folder, "pooled", dtype="float32")
    assert store.read(range(COUNT))[:, 0].numpy() == pytest.approx(tiny.images["features"].T, rel=1e-6)


def test_an_import_that_stopped_goes_on(birds, tmp_path):
    folder, _ = birds
    regions(tmp_path / "x.hdf5", folder)

    def stop(done, total):
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_features(tmp_path / "x.hdf5", load_folder(folder), folder, "stopped", chunk=4, tick=stop)
    told = []
    import_features(
        tmp_path / "x.hdf5", load_folder(folder), folder, "stopped", chunk=4, tick=lambda d, t: told.append(d)
    )
    assert told[0] == 16
    store = imported_store(load_folder(folder), folder / "features" / "stopped")
    store.verify()


def test_no_more_than_a_chunk_is_held(birds, tmp_path):
    folder, _ = birds
    shape = (COUNT, 64, 14, 14)
    regions(
        tmp_path / "x.hdf5",
        folder,
        feature_map=np.ones(shape, np.float32) * np.arange(COUNT, dtype=np.float32)[:, None, None, None],
    )
    dataset = load_folder(folder)
    tracemalloc.start()
    import_features(tmp_path / "x.hdf5", dataset, folder, "lean", chunk=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    chunk = 2 * 64 * 14 * 14 * 4
    assert peak < 4 * chunk + 500_000
    assert peak < np.prod(shape) * 4 / 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": np.zeros(COUNT, int)}, "35 labels differ, the first in row 6"),
        ({"trainval_loc": np.arange(24)}, "trainval_loc differs from the dataset's trainval"),
        (
            {"feature_map": np.zeros((3, 7, 2, 2), np.float32), "labels": np.zeros(3, int)},
            "rows from 0 to 39 for 3 images",
        ),
    ],
)
def test_features_of_something_else_are_refused(birds, tmp_path, changes, problem):
    folder, _ = birds
    regions(tmp_path / "x.hdf5", folder, **changes)
    with pytest.raises(DataError, match=problem):
        import_features(tmp_path / "x.hdf5", load_folder(folder), folder, "wrong")
    assert not (folder / "features" / "wrong").exists()


def test_numbers_that_do_not_fit_are_said(birds, tmp_path):
    folder, _ = birds
    regions(tmp_path / "x.hdf5", folder, feature_map=np.full((COUNT, 7, 2, 2), 1e6, np.float32))
    with pytest.raises(StoreError, match=r"feature values up to 1e\+06 overflow float16"):
        import_features(tmp_path / "x.hdf5", load_folder(folder), folder, "large")
    with pytest.raises(DataError, match=r'"\.\./x" is not a valid name'):
        import_features(tmp_path / "x.hdf5", load_folder(folder), folder, "../x")


@pytest.mark.parametrize(("number", "said"), [(np.nan, "nan"), (-np.inf, "inf")])
def test_a_feature_that_is_no_number_is_said_with_its_row_and_image(birds, tmp_path, number, said):
    folder, _ = birds
    dataset, maps = load_folder(folder), np.ones((COUNT, 7, 2, 2), np.float32)
    maps[9, 3, 1, 0] = number
    regions(tmp_path / "x.hdf5", folder, feature_map=maps)
    with pytest.raises(StoreError) as caught:
        import_features(tmp_path / "x.hdf5", dataset, folder, "holed")
    assert str(caught.value) == f"row 10 ({dataset.files[9]}): a feature value is {said} — fix its source"


def spec(folder, name):
    return BackboneSpec(name=f"features:{name}", weights=str(folder / "features" / name))


@pytest.mark.parametrize("method", ["eszsl", "msdn"])
def test_a_method_trains_and_tests_on_them(birds, tmp_path, method):
    folder, tiny = birds
    path = tiny.root / "xlsa17/data/CUB/res101.mat"
    import_features(path, load_folder(folder), folder, "trained", made_with="ResNet-101, 224 px")
    recipe = {} if method == "eszsl" else {"epochs": "1"}
    config = RunConfig(
        method=method, dataset=str(folder), backbone=spec(folder, "trained"), recipe=recipe, vectors="random", draws=1
    )
    run = fit(config, tmp_path / "run", device="cpu")
    backbone = run.manifest["backbone"]
    assert backbone["name"] == "features:trained"
    assert backbone["weights"] == "ResNet-101, 224 px"
    assert backbone["regions"] == "1x1"
    assert run.manifest["splits"]["validation_source"] == "given validation classes"
    assert run.results["protocols"]["honest"]["metrics"]["T1"]["mean"] is not None


@pytest.mark.parametrize("table", ["published", "own"])
def test_the_two_files_of_the_proposed_split_are_a_dataset(birds, tmp_path, table):
    """Rows get the class and the part that att_splits.mat gives them, in whatever order the folder's own table is."""
    prepared, tiny = birds
    source = tiny.root / "xlsa17/data/CUB/res101.mat"
    folder = tmp_path / "mini"
    folder.mkdir()
    with pytest.raises(DataError, match=r"mini: no class table — copy .*att_splits\.mat into it"):
        dataset_of(folder, source)
    wanted = load_folder(prepared)
    if table == "published":
        shutil.copy(source.with_name("att_splits.mat"), folder)
    else:
        rows = (prepared / "classes.csv").read_text().splitlines()
        (folder / "classes.csv").write_text("\n".join([rows[0], *rows[:0:-1]]))
    dataset = dataset_of(folder, source)
    import_features(source, dataset, folder, "res101")
    assert [dataset.table.names[c] for c in dataset.labels] == [wanted.table.names[c] for c in wanted.labels]
    for part in ("trainval", "test_seen", "test_unseen"):
        assert (dataset.indices(part) == wanted.indices(part)).all()
    assert dataset.files == wanted.files


def test_what_needs_the_network_says_so(birds, tmp_path):
    folder, tiny = birds
    import_features(tiny.root / "xlsa17/data/CUB/res101.mat", load_folder(folder), folder, "blind")
    with pytest.raises(UnseenError, match="the model cannot read images"):
        Backbone(spec(folder, "blind"))
    with pytest.raises(UnseenError, match="no such file — import them with `unseen import`"):
        spec(folder, "absent").fingerprint()
    with pytest.raises(UnseenError, match="features:blind: has one stage; mgmrn needs 3 — use a timm model"):
        RunConfig(method="mgmrn", dataset=str(folder), backbone=spec(folder, "blind"))
    with pytest.raises(UnseenError, match="no feature name"):
        BackboneSpec(name="features:")


def test_animals_without_images(tmp_path):
    """AWA1: its photographs are not public; the folder holds the release's features instead."""
    tiny = Tiny("awa1", tmp_path / "root", v73=True)
    outcome = prepare(tiny.write(), tiny.root, tmp_path / "awa1")
    assert outcome.problems == []
    dataset = load_folder(tmp_path / "awa1")
    assert not (tmp_path / "awa1" / "images").exists()
    store = imported_store(dataset, tmp_path / "awa1/features/res101")
    assert store.dtype == torch.float16
    assert store.read([7])[0, 0].float().numpy() == pytest.approx(tiny.images["features"][:, 7], rel=1e-3)
    again = prepare(tiny.benchmark, tiny.root, tmp_path / "awa1")  # replaced in place
    assert again.dataset.fingerprint == dataset.fingerprint
    assert json.loads((tmp_path / "awa1/prepared.json").read_text())["benchmark"] == "AWA1"


@pytest.mark.parametrize("name", ["cub", "sun", "awa2", "apy", "flo"])
def test_every_benchmark_does_without_images(tmp_path, name):
    tiny = Tiny(name, tmp_path / "root")
    tiny.write()
    for folder in ("CUB_200_2011/images", "images", "Animals_with_Attributes2/JPEGImages", "VOCdevkit", "jpg"):
        shutil.rmtree(tmp_path / "root" / folder, ignore_errors=True)
    shutil.rmtree(tmp_path / "root/ayahoo_test_images", ignore_errors=True)
    assert not prepare(tiny.benchmark, tiny.root, tmp_path / "no").ready
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out", features_only=True)
    assert outcome.problems == []
    dataset = load_folder(tmp_path / "out")
    assert len(set(dataset.files)) == COUNT
    store = imported_store(dataset, tmp_path / "out/features/res101")
    assert store.read([3])[0, 0].float().numpy() == pytest.approx(tiny.images["features"][:, 3], rel=1e-3)


def test_word_vectors_of_a_region_file(tmp_path):
    tiny = Tiny("awa1", tmp_path / "root")  # it comes without
    prepare(tiny.write(), tiny.root, tmp_path / "out")
    vectors = np.random.default_rng(0).normal(size=(tiny.attributes, 9))
    regions(tmp_path / "x.hdf5", tmp_path / "out", w2v_att=vectors)
    import_vectors(tmp_path / "x.hdf5", load_folder(tmp_path / "out"), tmp_path / "out")
    assert (load_folder(tmp_path / "out").attribute_vectors == vectors).all()
    regions(tmp_path / "x.hdf5", tmp_path / "out", w2v_att=vectors + 1)
    with pytest.raises(DataError, match="the dataset already has other word vectors"):
        import_vectors(tmp_path / "x.hdf5", load_folder(tmp_path / "out"), tmp_path / "out")
    regions(tmp_path / "x.hdf5", tmp_path / "out")
    with pytest.raises(DataError, match="expected word vectors of 6 attributes, found none"):
        import_vectors(tmp_path / "x.hdf5", load_folder(tmp_path / "out"), tmp_path / "out")


def test_the_command_trains_on_them(birds, tmp_path, unseen):
    folder, tiny = birds
    path = tiny.root / "xlsa17/data/CUB/res101.mat"
    import_features(path, load_folder(folder), folder, "told", made_with="ResNet-101, 224 px")
    options = (
        "--method",
        "eszsl",
        "--backbone",
        "features:told",
        "--vectors",
        "random",
        "--device",
        "cpu",
        "--draws",
        "1",
    )
    status, out, err = unseen("train", folder, *options, "-o", tmp_path / "run")
    assert status == 0
    assert "eszsl (recommended) on features:told, honest protocol" in err
    assert "None" not in out + err
    assert "unseen predict" not in out  # there is no network to look at an image with


def spoiled(tiny, path, **changes):
    """The release's own res101.mat with other variables; ``None`` removes one."""
    content = {k: v for k, v in (tiny.images | changes).items() if v is not None}
    save(path, content)
    return path


def test_labels_in_another_order_than_the_table_are_refused(birds, tmp_path):
    """Images that name their class in their path show labels by the official numbers, and files in another order."""
    prepared, tiny = birds
    (folder := tmp_path / "mini").mkdir()
    shutil.copy(tiny.root / "xlsa17/data/CUB/att_splits.mat", folder)
    official = np.repeat(np.array(ORDER) + 1.0, EACH)[:, None]
    for name, changes, count in (
        ("official", {"labels": official}, sum(EACH for c, o in enumerate(ORDER) if c != o)),
        ("rolled", {"image_files": np.roll(tiny.images["image_files"], 1, axis=0)}, CLASSES),
    ):
        source = spoiled(tiny, tmp_path / f"{name}.mat", **changes)
        with pytest.raises(DataError, match=f"{name}.mat: {count} labels differ from the folder of the image: row"):
            dataset_of(folder, source)
        assert [path.name for path in folder.iterdir()] == ["att_splits.mat"]
    with pytest.warns(
        ImageWarning,
        match="no image_files, so its labels cannot be checked; .* from 1: compare a few rows of images.csv",
    ):
        dataset = dataset_of(folder, spoiled(tiny, tmp_path / "bare.mat", image_files=None))
    assert [dataset.table.names[c] for c in dataset.labels] == [
        load_folder(prepared).table.names[c] for c in np.repeat(range(CLASSES), EACH)
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_files": None}, "res101.mat: no `image_files`, so nothing shows what its labels mean"),
        ({"features": None}, "res101.mat: no `features`, which replace the images"),
        ({"features": np.full((12, COUNT), np.nan)}, "a feature value is nan"),
    ],
)
def test_a_benchmark_without_images_needs_names_and_features(tmp_path, changes, problem):
    tiny = Tiny("cub", tmp_path / "root")
    tiny.write()
    spoiled(tiny, tiny.root / "xlsa17/data/CUB/res101.mat", **changes)
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out", features_only=True)
    assert [problem in said for said in outcome.problems] == [True]
    assert not outcome.ready


def test_features_in_place_of_images_are_named_by_check_and_train(tmp_path, unseen):
    tiny = Tiny("cub", tmp_path / "root")
    tiny.write()
    assert prepare(tiny.benchmark, tiny.root, tmp_path / "out", features_only=True).ready
    status, out, _ = unseen("check", tmp_path / "out")
    assert status == 0
    assert f"unseen train {tmp_path / 'out'} --backbone features:res101" in out
    assert "unreadable folder" not in out
    status, _, err = unseen("train", tmp_path / "out", "--method", "eszsl", "-o", tmp_path / "run")
    assert status == 2
    assert "the folder has no images, so no network can read them — pass --backbone features:res101" in err
