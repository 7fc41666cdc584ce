"""What `unseen.fit` makes of its arguments."""

from __future__ import annotations

from unseen.api import _backbone
from unseen.training.plan import default_backbone


def test_the_drawn_birds_backbone_has_a_name_in_python_too():
    assert _backbone("fieldguide", "my-folder", {}, "cpu") == default_backbone("fieldguide")
    assert _backbone(None, "fieldguide", {}, "cpu") == default_backbone("fieldguide")
    assert _backbone("resnet18", "fieldguide", {}, "cpu").name == "resnet18"


def test_the_default_backbone_is_the_devices():
    assert _backbone(None, "birds", {}, "cpu").name == "resnet50.tv_in1k"
    assert _backbone(None, "birds", {}, "cuda").name == "resnet101.tv_in1k"


def test_entries_of_the_backbone_are_its_specs():
    found = _backbone(None, "birds", {"image_size": 224, "crop": 0.875}, "cpu")
    assert (found.name, found.image_size, found.crop) == ("resnet50.tv_in1k", 224, 0.875)
    assert _backbone("resnet18", "birds", {"weights": "random"}, "cpu").weights == "random"
