"""Files of a saved folder, and the patterns of their names on the hub."""

from __future__ import annotations

import re

from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.towers import TEXTS
from unseen.classes.changes import ENCODING, IMAGES

FORMAT = 1
FACTS = "recognizer.json"
CLASSIFIER = "classifier.json"
"""The same for a classifier of features (:mod:`unseen.integrations.sklearn`)."""
WEIGHTS = "weights.safetensors"
BACKBONE = "backbone.safetensors"
TOWER = "backbone"
REFERENCES = "weights-references.npz"
SPACE = "weights-images.safetensors"
CARD = "README.md"
FILES = (
    *(FACTS, WEIGHTS, "classes.csv", "attributes.csv", IMAGES, SPACE, ENCODING),
    *(REFERENCES, TEXTS, BACKBONE, REDUCTION, CARD),
)
PATTERNS = (*FILES, *(f"{TOWER}/*.{kind}" for kind in ("json", "safetensors", "model", "txt")))
"""Files to download from the hub, and to replace there in an upload."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LARGEST = 1_000_000
AGAIN = "save it again"
