"""Read support images for :mod:`unseen.model.support`: their features and origin."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unseen.features.reading import ImageInput
from unseen.ground.files import file_digest
from unseen.ground.images import EncodedImage
from unseen.model.support import SupportImage
from unseen.model.trained import TrainedModel
from unseen.recognizer.batches import inputs_of
from unseen.recognizer.given import images_of, path_of

BATCH = 32


def read_images(model: TrainedModel, images: Any) -> tuple[list[SupportImage], np.ndarray] | None:
    """Origins and pooled features float32 ``(n, C)`` of images; ``None`` for no images.

    Args:
        model: model that computes the features.
        images: in any form of :func:`unseen.recognizer.given.images_of`.

    Raises:
        DataError: an image cannot be read.
        UnseenError: training chose no rule for support images.
    """
    found: list[SupportImage] = []
    features: list[np.ndarray] = []
    added, stream = datetime.now(UTC).isoformat(timespec="microseconds"), images_of(images)
    while batch := list(islice(stream, BATCH)):
        model.space  # noqa: B018 - said before images are read
        features.append(model.pooled(inputs_of(model, *batch)).cpu().numpy())
        found += [_provenance(image, added) for image in batch]
    return (found, np.concatenate(features)) if found else None


def _provenance(image: ImageInput, added: str) -> SupportImage:
    if isinstance(image, Image.Image):
        digest = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
        return SupportImage("", digest, added)
    if isinstance(image, EncodedImage):
        return SupportImage(path_of(image), hashlib.sha256(image.read()).hexdigest(), added)
    return SupportImage(str(Path(image).absolute()), file_digest(Path(image)), added)
