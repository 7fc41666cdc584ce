"""Small images for the page, as JPEG."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from unseen.explain.figures import thumbnail
from unseen.model.support import SupportImage

PREVIEW = 900
THUMBNAIL = 160
"""Longest side of the thumbnails sent to the page."""


def jpeg(image: Image.Image, side: int) -> bytes:
    """The image as JPEG with this longest side."""
    buffer = io.BytesIO()
    thumbnail(image, side).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def data_uri(image: Image.Image, side: int) -> str:
    """The same as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image, side)).decode()


def on_disk(image: SupportImage) -> bool:
    """Whether a support image still lies where it was added from."""
    return Path(image.file).is_absolute() and Path(image.file).is_file()
