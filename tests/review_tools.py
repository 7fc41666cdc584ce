"""What tests of reviews share: a small model, images, and reviews made up without a model."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image

NAMES = ("Rook", "Crow, hooded", "b/c", "Raven", "=Jay")


def model(tiny_backbone, **options):
    """A recognizer of 5 classes."""
    from unseen.backbones.backbone import Backbone
    from unseen.classes.attributes import Attributes
    from unseen.classes.table import ClassTable
    from unseen.methods import create_method
    from unseen.recognizer import Recognizer

    backbone, rng = Backbone(tiny_backbone), np.random.default_rng(0)
    attributes = Attributes(("bill::long", "crown::black", "size::small"))
    table = ClassTable(NAMES, attributes, rng.random((5, 3)) + 0.1, np.array([1, 1, 0, 0, 1], bool))
    method = create_method("global", channels=backbone.channels[0], vectors=torch.randn(3, 8))
    with torch.no_grad():
        method.weight.copy_(torch.randn(method.weight.shape, generator=torch.Generator().manual_seed(2)))
    return Recognizer(backbone, method, table, device="cpu", **{"temperature": 2.0, "threshold": 0.0, **options})


def draw_images(folder, count=6):
    rng = np.random.default_rng(1)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)).resize((70, 64)).save(folder / f"{i}.jpg")
    return sorted(folder.iterdir())


def made_up(folder, answers, *, classes=NAMES, image="images/{}.jpg"):
    """A review's folder with these answers: (class or None for unknown, confidence), or an error's text."""
    folder.mkdir(parents=True)
    lines = []
    for i, answer in enumerate(answers):
        if isinstance(answer, str):
            record = {"image": image.format(i), "known": False, "classes": [], "attributes": [], "error": answer}
        else:
            name, confidence = answer
            best = name or classes[0]
            other = next(c for c in classes if c != best)
            found = [{"name": best, "seen": classes.index(best) < 2, "confidence": confidence, "score": 1.0}]
            found.append({"name": other, "seen": True, "confidence": (1 - confidence) / 2, "score": 0.5})
            about = [{"attribute": "bill::long", "evidence": 0.5}]
            record = {"image": image.format(i), "known": name is not None, "classes": found, "attributes": about}
        lines.append(json.dumps(record) + "\n")
    (folder / "predictions.jsonl").write_text("".join(lines))
    (folder / "review.json").write_text(
        json.dumps({"classes": list(classes), "origins": {c: c for c in classes}, "of": {}})
    )
    return folder
