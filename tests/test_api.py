"""What `unseen.fit` makes of its arguments."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import huggingface_hub.constants
import pytest
from typer.testing import CliRunner

import unseen
from unseen.api import _backbone
from unseen.backbones.backbone import Backbone, BackboneSpec
from unseen.cli import app
from unseen.errors import UnseenError
from unseen.training.config import RunConfig
from unseen.training.plan import FROZEN, RESNET, default_backbone, kind_of_device

SMALL, BASE = (f"vit_{size}_patch14_reg4_dinov2.lvd142m" for size in ("small", "base"))


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "python.md"


@pytest.mark.parametrize("path", re.findall(r"^::: (unseen\.\S+)", PAGE.read_text(), re.MULTILINE))
def test_what_the_page_of_the_api_lists_is_in_the_package(path):
    home, name = path.rsplit(".", 1)
    assert getattr(unseen, name) is getattr(import_module(home), name)
    assert name in dir(unseen)


def chosen(given=None, dataset="birds", device="cpu", method="eszsl", **entries):
    return _backbone(given, dataset, entries, device, method)


def test_the_drawn_birds_backbone_has_a_name_in_python_too():
    assert chosen("fieldguide") == default_backbone("fieldguide")
    assert chosen(dataset="fieldguide") == default_backbone("fieldguide")
    assert chosen("resnet18", dataset="fieldguide").name == "resnet18"


def test_the_default_backbone_is_the_devices():
    assert chosen() == BackboneSpec(SMALL, image_size=224)
    assert chosen(device="cuda", method="msdn") == BackboneSpec(BASE, image_size=336)
    for dataset, method in (("data/cub", "msdn"), ("SUN", "eszsl"), ("birds", "mgmrn")):  # whose results are on ResNets
        assert chosen(dataset=dataset, method=method) == BackboneSpec("resnet50.tv_in1k", image_size=320)
        found = chosen(dataset=dataset, method=method, device="cuda")
        assert found == BackboneSpec("resnet101.tv_in1k", image_size=448)


def test_entries_of_the_backbone_are_its_specs():
    found = chosen(image_size=238, crop=0.875)
    assert (found.name, found.image_size, found.crop) == (SMALL, 238, 0.875)
    assert chosen("resnet18", weights="random").weights == "random"


def test_a_run_resumes_with_the_backbone_of_its_device(tmp_path):
    for name, kind in (("resnet50.tv_in1k", "cpu"), (SMALL, "cpu"), (BASE, "cuda")):
        config = RunConfig(method="eszsl", dataset="birds", backbone=BackboneSpec(name))
        (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
        assert kind_of_device("cpu", tmp_path) == kind
    assert kind_of_device("cpu", tmp_path / "new") == "cpu"


@pytest.mark.parametrize(
    "command", ["compare eszsl birds --protocol both", "ablate eszsl birds", "train birds --method eszsl"]
)
def test_a_comparison_reads_the_backbone_of_its_device_as_training_does(command, tmp_path, monkeypatch):
    from unseen.cli import options

    def read(*where):
        monkeypatch.setattr(options.RunOptions, "entries", lambda *a, **k: found.append(entries(*a, **k)) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            CliRunner().invoke(app, [*command.split(), "--device", "cpu", *where], catch_exceptions=False)
        return found.pop()["backbone"]

    entries, found = options.RunOptions.entries, []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    assert read() == FROZEN["cpu"]
    assert read("--backbone", "resnet18").name == "resnet18"
    inside = tmp_path / "done" / ("" if command.startswith("train") else "eszsl")
    inside.mkdir(parents=True)  # began on a GPU
    config = RunConfig(method="eszsl", dataset="birds", backbone=FROZEN["cuda"])
    (inside / "config.json").write_text(json.dumps(config.to_json()))
    assert read("--output", str(tmp_path / "done")) == FROZEN["cuda"]


@pytest.mark.parametrize("spec", [*FROZEN.values(), *RESNET.values()], ids=lambda spec: spec.name)
def test_defaults_fill_a_grid_of_regions(spec):
    patch = 14 if "patch14" in spec.name else 32
    made = Backbone(replace(spec, weights="random", options={"depth": 1} if patch == 14 else {}))
    assert made.grids == [(spec.image_size // patch,) * 2]
    assert spec.image_size % patch == 0


def test_a_default_without_a_network_is_one_line_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(UnseenError, match=r"cannot get pretrained weights: .*--backbone-weights FILE") as caught:
        Backbone(FROZEN["cpu"])
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
