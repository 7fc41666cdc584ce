"""A prediction in JSON and as a row, and a new field of it in one place."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.methods import create_method
from unseen.model import predictions
from unseen.model.predictions import FIELDS, Candidate, Extent, Field, Prediction, columns
from unseen.recognizer import Recognizer
from unseen.recognizer.stream import predict_to_file

FOUND = Prediction(
    "a/b.jpg",
    (Candidate("finch", True, 0.5, 2.0), Candidate("gull", False, 0.25, 1.5), Candidate("emu", True, 0.125, 1.0)),
    (("crown::red", 0.75), ("size::small", 0.25)),
    known=False,
)


def test_json_and_back():
    record = FOUND.as_dict()
    assert list(record) == ["image", "known", "classes", "attributes"]
    assert record["classes"][1] == {"name": "gull", "seen": False, "confidence": 0.25, "score": 1.5}
    assert Prediction.from_dict(json.loads(json.dumps(record))) == FOUND


def test_a_row():
    assert FOUND.row(Extent(3)) == {
        "image": "a/b.jpg",
        "class": "unknown",
        "best_class": "finch",
        "confidence": 0.5,
        "seen": True,
        "class_2": "gull",
        "confidence_2": 0.25,
        "class_3": "emu",
        "confidence_3": 0.125,
        "attributes": "crown: red; size: small",
        "error": None,
    }
    assert list(FOUND.row(Extent(3))) == list(columns(Extent(3)))
    assert {name: kind for name, kind in columns(Extent(2)).items() if kind is not str} == {
        "confidence": float,
        "seen": bool,
        "confidence_2": float,
    }
    few, many = FOUND.row(Extent(2)), FOUND.row(Extent(4))
    assert "class_3" not in few
    assert many["class_4"] is None


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    backbone = Backbone(tiny_backbone)
    attributes = Attributes(("crown::red", "size::small", "wing::long"))
    table = ClassTable(("a", "b", "c"), attributes, np.random.default_rng(0).random((3, 3)), np.array([1, 1, 0], bool))
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    return Recognizer(backbone, method, table, device="cpu")


@pytest.fixture
def with_lead(monkeypatch):
    def lead(p):
        return p.candidates[0].confidence - p.candidates[1].confidence

    added = Field("lead", "of the best class over the second", float, json=lead, cell=lead)
    monkeypatch.setattr(predictions, "FIELDS", (*FIELDS[:-1], added, FIELDS[-1]))


def test_a_new_field_is_everywhere(recognizer, with_lead, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(image)
    first, second = recognizer.predict(image)[0].candidates[:2]
    lead = first.confidence - second.confidence
    for ending in ("csv", "parquet", "json", "jsonl"):
        predict_to_file(recognizer, [image], tmp_path / f"p.{ending}")
    (row,) = csv.DictReader((tmp_path / "p.csv").open())
    assert float(row["lead"]) == pytest.approx(lead, abs=1e-6)
    table = pq.read_table(tmp_path / "p.parquet")
    assert str(table.schema.field("lead").type) == "double"
    assert table["lead"].to_pylist() == [lead]
    assert json.loads((tmp_path / "p.json").read_text())[0]["lead"] == lead
    assert json.loads((tmp_path / "p.jsonl").read_text())["lead"] == lead
    assert recognizer.look(image).prediction().as_dict()["lead"] == lead


def test_a_new_field_is_served(recognizer, with_lead, tmp_path):
    pytest.importorskip("fastapi", reason="needs unseen[app]")
    from unseen.serve import schema
    from unseen.serve.service import Service
    from unseen.serve.settings import Settings
    from unseen.serve.uploads import Upload

    image = tmp_path / "image.png"
    Image.new("RGB", (80, 80), "red").save(image)
    found = Service(recognizer, Settings()).predict(Upload("image.png", image.read_bytes()), schema.Choice())
    first, second = found.classes[:2]
    assert found.model_dump(mode="json")["lead"] == first.confidence - second.confidence
