"""Pictures inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from unseen.explain.figures import thumbnail
from unseen.ground.images import open_picture


def data_uri(picture: Image.Image, quality: int = 86) -> str:
    """A picture as JPEG inside the page."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def square(path: Path, size: int = 88) -> str:
    """The middle of a picture file as a small square.

    Raises:
        DataError: it cannot be read.
    """
    picture = open_picture(path)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return data_uri(thumbnail(picture.crop((left, top, left + side, top + side)), size), 78)
