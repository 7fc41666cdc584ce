"""A small model without training: random weights, six classes."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image

from unseen.recognizer import Recognizer

CLASSES = ("Ada's finch", "b/c", "<b>d</b>", "emu", "F\u00e4hre", "gull")
ATTRIBUTES = ("bill::hooked", "bill::flat", "crown::red", "crown::blue", "size::small")


@cache
def small_recognizer() -> Recognizer:
    """MSDN on a tiny network with 64-pixel input, always the same."""
    from unseen.backbones.backbone import Backbone
    from unseen.backbones.spec import BackboneSpec
    from unseen.classes.attributes import Attributes
    from unseen.classes.table import ClassTable
    from unseen.methods import create_method

    torch.set_num_threads(1)
    spec = BackboneSpec(name="test_resnet", weights="random", image_size=64, options={"output_stride": 16})
    backbone = Backbone(spec)
    values = np.random.default_rng(0).random((6, 5)).round(3) + 0.1
    table = ClassTable(CLASSES, Attributes(ATTRIBUTES), values, np.array([1, 1, 1, 0, 0, 0], bool))
    method = create_method(
        "msdn",
        channels=backbone.channels[0],
        vectors=torch.randn(5, 8, generator=torch.Generator().manual_seed(0)),
        seed=1,
    )
    made = Recognizer(backbone, method, table, gamma=0.3, temperature=0.7, device="cpu")
    made.predict([_blank()], workers=0)  # loaded with the first image
    return made


def _blank() -> Image.Image:
    return Image.new("RGB", (64, 64))
