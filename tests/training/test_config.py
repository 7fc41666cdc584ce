"""The configuration of a run takes what Python callers hold, and keeps it as JSON that any folder can read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import save_file

import unseen
from unseen.backbones.backbone import Backbone
from unseen.errors import UnseenError
from unseen.training.config import RunConfig
from unseen.training.folder import Run


def config(**entries):
    backbone = entries.pop("backbone", unseen.BackboneSpec("test_resnet", weights="random", image_size=64))
    return RunConfig(method="ale", dataset="x", backbone=backbone, **entries)


def test_numbers_of_numpy_are_kept_as_numbers():
    numbers = {"split_seed": 2, "draws": 3, "accumulate": 4, "holdouts": 5}
    made = config(seeds=np.arange(2), **{name: np.int64(value) for name, value in numbers.items()})
    assert made == config(seeds=(0, 1), **numbers)
    assert RunConfig.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert json.dumps(config(time=np.float32(0)).to_json()) == json.dumps(config().to_json())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"draws": 3.0}, "draws is 3.0 — use a whole number, 0 or more"),
        ({"accumulate": None}, "accumulate is None — use a whole number, 1 or more"),
        ({"holdouts": np.int64(-1)}, "holdouts is .*-1.* — use a whole number, 0 or more"),
        ({"protocols": ("both",)}, 'unknown protocol "both" — use "honest", "paper", or both in a list'),
    ],
)
def test_wrong_entries_are_one_line(entries, message):
    with pytest.raises(UnseenError, match=message):
        config(**entries)


def test_files_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    spec = unseen.BackboneSpec("test_resnet", weights="w.safetensors", image_size=64)
    made = config(backbone=spec, vectors="text:model")
    assert (made.backbone.weights, made.vectors) == (str(tmp_path / "w.safetensors"), f"text:{tmp_path / 'model'}")
    assert config(backbone=unseen.BackboneSpec("hf:model")).backbone.name == f"hf:{tmp_path / 'model'}"
    assert config(backbone=unseen.BackboneSpec("hf:some/id"), vectors="sentence:some/id").vectors == "sentence:some/id"
    inside = "unseen:fieldguide/backbone.safetensors"
    for kept in ("random", "pretrained", inside):
        assert config(backbone=unseen.BackboneSpec("test_resnet", weights=kept)).backbone.weights == kept


def test_a_run_in_the_home_folder_with_weights_beside_the_script(tiny_guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    random = unseen.BackboneSpec("test_resnet", weights="random", image_size=64)
    save_file(Backbone(random).network.state_dict(), "w.safetensors")
    quick = {"draws": 1, "holdouts": 0, "device": "cpu", "cache": tmp_path / "cache", "image_size": 64}
    run = unseen.fit("eszsl", tiny_guide, "~/run", backbone="test_resnet", weights="w.safetensors", **quick)
    assert run.folder == tmp_path / "home" / "run"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = unseen.load("~/run", device="cpu")
    model.save("~/saved")
    image = unseen.load_dataset(tiny_guide).paths()[0]
    again = unseen.load("~/saved", device="cpu").predict([image])[0]
    assert again.best.confidence == model.predict([image])[0].best.confidence
    assert Run("~/run").results == run.results
    assert not (tmp_path / "elsewhere" / "~").exists()
