"""Import timm and torchvision without torch's compiler (:mod:`unseen.ground.compiler`)."""

from __future__ import annotations

from unseen.ground.compiler import import_uncompiled

import_uncompiled("timm", "torchvision.transforms.v2.functional")

import timm  # noqa: E402
from torchvision.transforms.v2 import InterpolationMode  # noqa: E402
from torchvision.transforms.v2 import functional as transforms  # noqa: E402

__all__ = ["InterpolationMode", "timm", "transforms"]
