"""What `unseen.fit` makes of its arguments."""

from __future__ import annotations

from unseen.api import _backbone
from unseen.training.plan import default_backbone


def test_the_drawn_birds_backbone_has_a_name_in_python_too():
    assert _backbone("fieldguide", "my-folder") == default_backbone("fieldguide")
    assert _backbone(None, "fieldguide") == default_backbone("fieldguide")
    assert _backbone("resnet18", "fieldguide").name == "resnet18"
