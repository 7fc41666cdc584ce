"""Images inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from unseen.explain.figures import thumbnail
from unseen.ground.images import open_image


def data_uri(image: Image.Image, quality: int = 86) -> str:
    """An image as JPEG inside the page."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def square(path: Path, size: int = 88) -> str:
    """The center of an image file as a small square.

    Raises:
        DataError: the image cannot be read.
    """
    image = open_image(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return data_uri(thumbnail(image.crop((left, top, left + side, top + side)), size), 78)
