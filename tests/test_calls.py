"""The library as a new user would call it: 42 calls written from intuition, by five people who know other libraries."""

from __future__ import annotations

import functools
import io
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import unseen as library


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def given(tiny_guide, tiny_backbone, tmp_path_factory):
    """What the five people hold: tables, arrays, images, a run and its model."""
    folder = tmp_path_factory.mktemp("calls")
    dataset = library.load_dataset(tiny_guide)
    table = dataset.table
    labels = [table.names[c] for c in dataset.labels]
    frame = pd.DataFrame({"path": [str(p) for p in dataset.paths()], "label": labels})
    attributes = pd.DataFrame(table.values, index=list(table.names), columns=list(table.attributes.names))
    classes = folder / "classes"
    for path, label in zip(dataset.paths(), labels, strict=True):
        (classes / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, classes / label / path.name)
    quick = {"draws": 1, "holdouts": 0, "backbone": tiny_backbone, "device": "cpu", "cache": folder / "cache"}
    run = library.fit("eszsl", frame, folder / "run", attributes=attributes, **quick)
    rng = np.random.default_rng(0)
    S, y = rng.random((5, 6)), np.repeat([0, 1, 2], 8)
    X = S[y] @ rng.normal(size=(6, 16)) + 0.05 * rng.normal(size=(24, 16))
    image = dataset.paths()[0]
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=image.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(
        folder=folder,
        guide=tiny_guide,
        frame=frame,
        attributes=attributes,
        names=list(table.names),
        classes=classes,
        run=run,
        quick=quick,
        model=library.load(run, device="cpu"),
        S=S,
        X=X,
        y=y,
        clf=library.ZeroShotClassifier().fit(X, y, attributes=S),
        image=image,
        pil=Image.open(image).convert("RGB"),
        pixels=np.asarray(Image.open(image).convert("RGB")),
        url=f"http://127.0.0.1:{server.server_address[1]}/{image.name}",
    )
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def hugging_face(given):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=given.names)})
    labels = [given.names.index(label) for label in given.frame["label"]]
    return datasets.Dataset.from_dict({"image": list(given.frame["path"]), "label": labels}, features=features)


def names(predictions):
    return [p.name for p in predictions]


def tensor(given):
    return torch.from_numpy(given.pixels.copy()).permute(2, 0, 1)


class TestScikitLearn:
    """X, y, S: what every researcher of the field has."""

    def test_fit_predict(self, given):
        assert (given.clf.predict(given.X) == given.y).mean() > 0.9  # 1, 2
        assert given.clf.predict_proba(given.X[:3]).sum(axis=1) == pytest.approx([1, 1, 1])  # 3
        assert given.clf.score(given.X, given.y) > 0.9  # 4

    def test_attributes_in_their_place(self, given):
        again = library.ZeroShotClassifier("eszsl").fit(given.X, given.y, given.S)  # 5
        np.testing.assert_array_equal(again.scores(given.X), given.clf.scores(given.X))

    def test_pipeline(self, given):
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        made = make_pipeline(StandardScaler(), library.ZeroShotClassifier(attributes=given.S))  # 6
        assert made.fit(given.X, given.y).score(given.X, given.y) > 0.9
        search = GridSearchCV(library.ZeroShotClassifier(attributes=given.S), {"method": ["eszsl", "sae"]}, cv=2)
        assert search.fit(given.X, given.y).best_params_["method"] in ("eszsl", "sae")  # 7

    def test_frames_and_a_new_class(self, given):
        named = [f"c{i}" for i in range(5)]
        S = pd.DataFrame(given.S, index=named, columns=list("abcdef"))
        made = library.ZeroShotClassifier().fit(pd.DataFrame(given.X), pd.Series(named)[given.y], attributes=S)
        made.add_class("zebra", S.iloc[0][::-1] * 0.5)  # 8
        np.testing.assert_allclose(made.class_table_.values[-1], S.iloc[0] * 0.5)
        assert list(made.classes_) == [*named, "zebra"]

    def test_load_knows_features_too(self, given, tmp_path):
        given.clf.save(tmp_path / "clf")
        loaded = library.load(tmp_path / "clf")  # 9
        np.testing.assert_array_equal(loaded.predict(given.X), given.clf.predict(given.X))


class TestPandas:
    """DataFrames in, DataFrames out."""

    def test_class_tables(self, given):
        table = library.ClassTable.from_frame(given.attributes)  # 10
        assert table.to_frame().drop(columns="seen").equals(given.attributes.rename_axis("class"))  # 11
        again = library.ClassTable.from_frame(given.attributes.reset_index(names="class"))  # 12
        assert again.names == table.names
        assert repr(table).startswith("<ClassTable: 12 seen and 0 unseen classes, 50 attributes: ")
        assert "\n" not in repr(table)

    def test_a_run_is_taken_where_its_folder_is(self, given):
        assert repr(given.run) == f"<Run: eszsl on {Path(given.run.config.dataset).name}, in {given.folder / 'run'}>"
        assert library.load(given.run).classes == library.Recognizer.load(str(given.run)).classes  # 13, 14
        assert library.evaluate(given.run, device="cpu")["protocol"] == "honest"  # 15

    def test_a_column_or_the_frame(self, given):
        found = given.model.predict(given.frame["path"][:3])  # 16
        assert given.model.predict(given.frame[:3]) == found  # 17
        assert list(found.to_frame()["image"]) == list(given.frame["path"][:3])  # 18

    def test_csv(self, given, tmp_path):
        found = given.model.predict(given.frame[:3])
        found.to_csv(tmp_path / "found.csv")  # 19
        assert list(pd.read_csv(tmp_path / "found.csv")["class"]) == names(found)


class TestHuggingFace:
    """datasets, pipelines, and the names of transformers."""

    def test_a_dataset_trains(self, given, hugging_face):
        made = library.make_dataset(hugging_face, given.attributes, cache=given.folder / "cache")  # 20
        assert (len(made.files), made.table.names) == (72, tuple(given.names))
        assert repr(made).startswith("<Dataset ")

    def test_a_column_a_dataset_a_row(self, given, hugging_face):
        few = hugging_face.select(range(3))
        expected = names(given.model.predict(given.frame["path"][:3]))
        assert names(given.model.predict(few["image"])) == expected  # 21
        assert names(given.model.predict(few)) == expected  # 22
        assert names(given.model.predict(few.to_iterable_dataset())) == expected
        assert names(given.model.predict(few[0])) == expected[:1]  # 23
        import datasets

        raw = few.cast_column("image", datasets.Image(decode=False))
        assert names(given.model.predict(raw)) == names(given.model.predict(list(raw))) == expected

    def test_map(self, given, hugging_face):
        few = hugging_face.select(range(3))
        mapped = few.map(lambda rows: {"species": given.model.predict(rows).classes}, batched=True)  # 24
        assert list(mapped["species"]) == names(given.model.predict(few))

    def test_names_of_transformers(self, given, tmp_path):
        given.model.save_pretrained(tmp_path / "saved")  # 25
        again = library.Recognizer.from_pretrained(tmp_path / "saved", device="cpu")
        assert again(str(given.image)) == given.model.predict(given.image)  # 26


class TestTorch:
    """Tensors, ImageFolder, DataLoader, modules."""

    def test_an_image_folder(self, given):
        from torchvision.datasets import ImageFolder

        folder = ImageFolder(given.classes)
        assert len(library.make_dataset(folder, given.attributes).files) == 72  # 27
        assert len(given.model.predict(folder)) == 72  # 28

    def test_tensors(self, given):
        from torchvision.transforms.functional import to_tensor

        (expected,) = names(given.model.predict(given.image))
        assert names(given.model.predict(tensor(given))) == [expected]  # 29
        assert names(given.model.predict(torch.stack([tensor(given)] * 2))) == [expected] * 2  # 30
        np.testing.assert_array_equal(given.model.scores(to_tensor(given.pil)), given.model.scores(given.pil))  # 31
        with pytest.raises(library.UnseenError, match=r"float pixels from -2\.\d+ to .* — pass pixels before norm"):
            given.model.predict(to_tensor(given.pil) * 4 - 2.5)

    def test_devices_and_scores(self, given):
        assert given.model.to(torch.device("cpu")).eval() is given.model  # 32
        assert given.model.scores(given.image).shape == (1, len(given.model.classes))  # 33

    def test_a_module_with_the_size_of_its_images(self, given, monkeypatch):
        asked = {}
        monkeypatch.setattr("unseen.training.run.fit", lambda config, folder, **_: asked.update(c=config, f=folder))
        given_spec = library.BackboneSpec("test_resnet", weights="random")
        library.fit("msdn", given.guide, backbone=given_spec, image_size=64, epochs=1, recipe={"lr": 1e-3})  # 34
        assert asked["c"].backbone.image_size == 64
        assert asked["c"].recipe == {"lr": "0.001", "epochs": "1"}
        assert asked["f"] == Path("runs/msdn-tiny")
        with pytest.raises(
            library.UnseenError, match=r'no argument "lr" — pass settings=\{\.\.\.\} for the method, recipe'
        ):
            library.fit("msdn", given.guide, lr=1)


class TestServing:
    """A model in somebody's service."""

    def test_paths_folders_patterns(self, given):
        assert given.model.predict(str(given.image)) == given.model.predict(given.image)  # 35
        assert len(given.model.predict(given.classes / given.names[0])) == 6  # 36
        assert len(given.model.predict(str(given.classes / "*" / "*.*"))) == 72  # 37

    def test_bytes_files_and_urls(self, given):
        data = given.image.read_bytes()
        with given.image.open("rb") as file:
            forms = [data, io.BytesIO(data), file, given.url]  # 38, 39
            assert len({tuple(given.model.scores(form)[0]) for form in forms}) == 1
        assert given.model.predict(given.url)[0].image == given.url

    def test_a_broken_one_among_them_is_told(self, given):
        told = []
        found = given.model.predict([b"nothing", given.url + "x", given.image], broken=told.append)
        assert (len(found), [error.where for error in told]) == (1, ["bytes", given.url + "x"])

    def test_pixels(self, given):
        grey, rgba = (np.asarray(given.pil.convert(mode)) for mode in ("L", "RGBA"))
        assert np.array_equal(given.model.scores(given.pil), given.model.scores(rgba))  # 40
        assert np.array_equal(given.model.scores(given.pil.convert("L")), given.model.scores(grey[None]))
        with pytest.raises(library.UnseenError, match=r"an array of int64 \(64, 64\) is not an image"):
            given.model.predict(grey.astype(int))

    def test_new_classes(self, given, tmp_path):
        model, row = library.load(given.run, device="cpu"), given.attributes.iloc[0]
        model.add_class("a", {row.index[0]: 1.0})  # 41
        for name, values in {
            "b": row,
            "c": row[::-1],
            "d": dict(row),
            "e": list(row),
            "f": torch.tensor(list(row)),
        }.items():
            model.add_class(name, attributes=values)
        model.add_class("g", model.table.to_frame().loc["b"])
        assert np.array_equal(model.table.values[-6:], np.tile(row, (6, 1)))
        assert library.load(model.save(tmp_path / "saved")).classes[-7:] == tuple("abcdefg")

    def test_an_answer(self, given):
        (found,) = given.model.predict(given.image)  # 42
        assert json.loads(json.dumps(found.as_dict()))["classes"][0]["confidence"] == found.confidence
        assert callable(library.export_onnx)


def test_what_is_no_dataset_is_one_line(given):
    with pytest.raises(library.UnseenError, match=r"DataFrame is not a dataset's name .* unseen\.make_dataset"):
        library.load_dataset(given.frame)
    with pytest.raises(library.UnseenError, match=r"a DataFrame without a column of images — .* \(label\)"):
        given.model.predict(given.frame[["label"]])
