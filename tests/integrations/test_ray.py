"""Ray Data on this machine: two workers end with the rows of a single process."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import UnseenError
from unseen.integrations import ray as on_ray
from unseen.methods import create_method
from unseen.recognizer import Recognizer
from unseen.recognizer.stream import Options, predict_to_file


@pytest.fixture(scope="module")
def place(tiny_backbone, tmp_path_factory):
    """A saved model, and 22 images of which one is broken."""
    root, rng = tmp_path_factory.mktemp("ray"), np.random.default_rng(1)
    backbone = Backbone(tiny_backbone)
    table = ClassTable(("a", "b", "c"), Attributes(("x", "y")), rng.random((3, 2)) + 0.1, np.array([1, 1, 0], bool))
    method = create_method("global", channels=backbone.channels[0], vectors=torch.randn(2, 8))
    made = Recognizer(backbone, method, table, temperature=0.5, threshold=0.34, device="cpu").save(root / "model")
    files = [root / f"{i:02d}.png" for i in range(22)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)).save(file)
    files[9].write_bytes(b"no image")
    return made, files


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="pip install 'unseen[ray]' to test Ray Data")
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27, configure_logging=False
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def test_two_workers_end_with_the_rows_of_one_process(place, cluster, tmp_path):
    model, files = place
    torch.set_num_threads(1)
    predict_to_file(Recognizer.load(model, device="cpu"), files, tmp_path / "one.parquet", Options(batch_size=5))
    expected = pd.read_parquet(tmp_path / "one.parquet")
    found = on_ray.predict(files, model, workers=2, cpus=0.9, batch_size=5, device="cpu").to_pandas()
    found = found.sort_values(on_ray.POSITION, ignore_index=True)
    assert found.pop(on_ray.POSITION).tolist() == list(range(22))
    assert list(found.columns) == list(expected.columns)
    whole = expected["error"].isna()
    for name in expected.columns:
        if name == "error":
            assert (found["error"] == "").tolist() == whole.tolist()
        else:
            assert found.loc[whole, name].tolist() == expected.loc[whole, name].tolist(), name


def test_the_predictor_alone(place):
    model, files = place
    predictor = on_ray.Predictor(model, column="path", device="cpu", top=2)
    found = predictor({"path": np.array([str(f) for f in files[8:11]], dtype=object), "id": np.arange(3)})
    assert found["id"].tolist() == [0, 1, 2]
    assert [bool(e) for e in found["error"]] == [False, True, False]
    pixels = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files[:4]])
    predictor.column = "image"
    found = predictor({"image": pixels})  # as ray.data.read_images gives them
    assert list(found["class"]) == predictor.recognizer.predict(files[:4]).classes
    predictor.column = "path"
    with pytest.raises(UnseenError, match='no column "path" — it has image'):
        predictor({"image": np.array([])})


def test_without_ray(monkeypatch, place):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(UnseenError, match=r"ray, which is not installed — pip install 'unseen\[ray\]'"):
        on_ray.predict(["a.png"], place[0])
