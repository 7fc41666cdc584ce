"""The built-in dataset: drawn birds of invented species, and a backbone trained on other such birds."""

from pathlib import Path
from typing import Any

from unseen.fieldguide.attributes import ATTRIBUTES, GROUPS, PAIRS, PARTS, Appearance, Group, random_appearance
from unseen.fieldguide.build import build
from unseen.fieldguide.drawing import Box, Part, draw
from unseen.fieldguide.species import Species, invent

BACKBONE: dict[str, Any] = {
    "name": "test_resnet",
    "options": {"output_stride": 16, "channels": [24, 48, 64, 128], "stem_width": 8},
    "image_size": 128,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "weights": Path(__file__).with_name("backbone.safetensors"),
}
"""`timm.create_model` arguments of the backbone from `scripts/pretrain_fieldguide_backbone.py`, and its weights."""
WEIGHTS = "unseen:fieldguide/backbone.safetensors"
"""The weights by a name that outlives a move of the package, as a run keeps it."""

__all__ = [
    "ATTRIBUTES",
    "BACKBONE",
    "GROUPS",
    "PAIRS",
    "PARTS",
    "WEIGHTS",
    "Appearance",
    "Box",
    "Group",
    "Part",
    "Species",
    "build",
    "draw",
    "invent",
    "random_appearance",
]
