"""Image files: opened, judged by their headers, upright and in 8-bit RGB; what is broken is named in a line."""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unseen.errors import DataError

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "SGI", "QOI"),
    *("PSD", "HEIF"),
)
"""Formats that are read, told by the content: Pillow's, and HEIF where pillow-heif is installed.

Of Pillow's others some start programs (EPS) or need them.
"""
DEPTHS = (8, 10, 12, 14, 16, 24)
"""Bits that cameras, microscopes and scanners use of a grey; :func:`eight_bit` scales by the fewest that hold an image.
"""
ELONGATION = 50
"""How many times longer than the other a side of an image may be."""
_BAND = 256


def is_elongated(width: int, height: int) -> bool:
    """Whether an image, a few bytes perhaps, would be a gigabyte once its short side is resized."""
    return max(width, height) > ELONGATION * min(width, height)


@contextmanager
def opened_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file whose header is read, and no pixel yet.

    Raises:
        DataError: it holds no image of :data:`FORMATS`, or one of too many pixels, or what is done with it fails as
            broken images do; it names the file.
    """
    with _unreadable(path):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # to open a pipe or a device may never end
            kind = "a folder" if stat.S_ISDIR(mode) else "no file, but a pipe or a device"
            raise DataError(kind, where=path, hint="name an image's file")
        with Image.open(path, formats=formats()) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image


@cache
def formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that can be read here."""
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The image in a file, upright and in 8-bit RGB; DataError names a file that holds none."""
    with opened_image(path) as image:
        return upright_rgb(image)


def image_of_bytes(data: bytes, where: object) -> Image.Image:
    """As :func:`open_image`, of an encoded image in memory that errors call ``where``."""
    with _unreadable(where), Image.open(io.BytesIO(data), formats=formats()) as image:
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        return upright_rgb(image)


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the image in a file once it is turned as its EXIF orientation says; no pixel is read."""
    with opened_image(path) as image:
        # of a TIFF, Pillow gives the turned size itself
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8) and image.format != "TIFF"
        return (image.height, image.width) if turned else image.size


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, in 8-bit RGB; what is transparent becomes white."""
    with _unreadable(getattr(image, "filename", "image")):
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("floating-point pixels have no fixed range")
        if image.mode.startswith("I"):  # 16-bit greys, which Pillow's own conversion clips at 255
            if (bits := used_bits(image)) != 16:
                warnings.warn(f"16-bit greys that use {bits} bits are scaled by these", ImageWarning, stacklevel=1)
            return eight_bit(image).convert("RGB")
        if image.has_transparency_data:
            flat = Image.new("RGB", image.size)
            for top in range(0, image.height, _BAND):  # in bands, so that a large image is not held four times
                box = (0, top, image.width, min(top + _BAND, image.height))
                band = image.crop(box).convert("RGBA")
                white = Image.new("RGBA", band.size, "white")
                flat.paste(Image.alpha_composite(white, band).convert("RGB"), box)
            return flat
        return image.convert("RGB")


def used_bits(image: Image.Image) -> int:
    """How many bits the greys of an integer image use, one of :data:`DEPTHS`: a 12-bit camera's are 12 of 16."""
    largest = int(np.asarray(image).max())
    return next((bits for bits in DEPTHS if largest < 1 << bits), 32)


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit greys, in whichever of Pillow's integer modes, as 8-bit ones, scaled by the bits that are used."""
    bits = used_bits(image)
    return Image.fromarray((np.asarray(image) >> (bits - 8)).clip(0, 255).astype(np.uint8))


class ImageWarning(UserWarning):
    """Something about an image's pixels that a person should know, said once."""


@contextmanager
def _unreadable(where: object) -> Iterator[None]:
    """Turns what Pillow raises on bad files, which may be anything, into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("no such image", where=where) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too large: {_line(error)}", where=where, hint="save it smaller") from None
    except UnidentifiedImageError:
        raise DataError("not an image that Pillow can read", where=where, hint=_unread(where)) from None
    except Exception as error:
        raise DataError(f"broken image: {_line(error)}", where=where, hint="replace or remove it") from None


def _unread(where: object) -> str:
    """What helps with a file of no format that is read."""
    try:
        with open(str(where), "rb") as file:
            head = file.read(32)
    except OSError:
        head = b""
    if head[4:8] == b"ftyp" and any(brand in head for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")):
        return "HEIF: pip install 'unseen[heif]', or export it as JPEG"
    return "replace or remove it"


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
