"""Image files: opened, judged by their headers, upright and in 8-bit RGB; what is broken is named in a line."""

from __future__ import annotations

import io
import math
import os
import stat
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from unseen.errors import DataError

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "QOI"),
    *("PSD", "HEIF"),
)
"""Formats that are read, told by the content: Pillow's, and HEIF where pillow-heif is installed.

Of Pillow's others some start programs (EPS) or need them, and icons are decoded before their size can be judged.
"""
VAGUE = ("DIB", "TGA")
"""Formats that any bytes may begin like: their endings alone tell them."""
DEPTHS = (8, 10, 12, 14, 16, 24)
"""Bits that cameras, microscopes and scanners use of a grey; :func:`eight_bit` scales by the fewest that hold an image.
"""
ELONGATION = 50
"""How many times longer than the other a side of an image may be."""
_BAND = 256
_COLOURS = {"RGB": 3, "RGBA": 3}
"""Of the modes of 16-bit colours, the channels before transparency."""


class EncodedImage(ABC):
    """An image that is no file of its own, encoded as one."""

    @abstractmethod
    def __str__(self) -> str:
        """What answers and errors call it."""

    @abstractmethod
    def read(self) -> bytes:
        """Its bytes, as in a file."""

    @property
    def parts(self) -> tuple[str, ...]:
        """As of a path."""
        return PurePosixPath(str(self)).parts

    def open(self) -> Image.Image:
        """The image, upright and in 8-bit RGB; raises as :func:`open_image`."""
        return image_of_bytes(self.read(), self)


@dataclass(frozen=True)
class PackedImage(EncodedImage):
    """An image in an uncompressed archive, read when it is due.

    Args:
        archive: the archive's path.
        name: inside it.
        offset, size: of its bytes.
    """

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        """Archive and name, as of a file in a folder."""
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Its bytes."""
        try:
            with Path(self.archive).open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise DataError(error.strerror or str(error), where=self, hint="make the archive readable") from None


@dataclass(frozen=True)
class HeldImage(EncodedImage):
    """An image in memory, such as one from standard input.

    Args:
        name: what it is called.
        data: its bytes.
    """

    name: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        """Its name."""
        return self.name

    def read(self) -> bytes:
        """Its bytes."""
        return self.data


def begins_like_an_image(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of one of :func:`formats`."""
    return any((accept := Image.OPEN[name][1]) and accept(head) for name in formats() if name not in VAGUE)


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
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # to open a pipe or a device may never end
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise DataError(kind, where=path, hint="pass an image file")
        with Image.open(path, formats=formats()) as image:
            _check_size(image, Image.MAX_IMAGE_PIXELS or math.inf)
            yield image


def _check_size(image: Image.Image, limit: float) -> None:
    """Refuse an image of too many pixels by its header."""
    if image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")


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


def image_of_bytes(data: bytes, where: object, max_pixels: int | None = None) -> Image.Image:
    """As :func:`open_image`, of an encoded image in memory that errors call ``where``.

    Args:
        data: the file.
        where: what errors call it.
        max_pixels: refuse larger images by their header; by default Pillow's own limit holds.
    """
    with _unreadable(where, data), Image.open(io.BytesIO(data), formats=formats()) as image:
        _check_size(image, max_pixels or Image.MAX_IMAGE_PIXELS or math.inf)
        return _upright_rgb(image)


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the image in a file once it is turned as its EXIF orientation says; no pixel is read."""
    with opened_image(path) as image:
        # of a TIFF, Pillow gives the turned size itself
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8) and image.format != "TIFF"
        return (image.height, image.width) if turned else image.size


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, in 8-bit RGB; what is transparent becomes white."""
    with _unreadable(getattr(image, "filename", "image")):
        return _upright_rgb(image)


def _upright_rgb(image: Image.Image) -> Image.Image:
    low = _low_bytes(image)
    image = ImageOps.exif_transpose(image)
    if low is not None:
        image, bits = _scaled(image, ImageOps.exif_transpose(low))
        _say_bits(bits, "colours")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):  # 16-bit greys, which Pillow's own conversion clips at 255
        _say_bits(used_bits(image), "greys")
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


def _low_bytes(image: Image.Image) -> Image.Image | None:
    """The low bytes of 16-bit colours, which Pillow decodes to their high bytes; ``None`` where these say enough.

    Read in the other byte order, the same file gives the low bytes.
    """
    if not isinstance(image, ImageFile.ImageFile) or not (tiles := _swapped(image.tile)):
        return None
    source = image.filename or image.fp  # the latter is a file in memory
    image.load()
    high = np.asarray(image)[..., : _COLOURS[image.mode]]
    if not source or high.max() >= 1 << (DEPTHS[-3] - 8):  # all 16 bits are used
        return None
    if not isinstance(source, str | bytes):
        source.seek(0)
    low = Image.open(source, formats=formats())
    assert isinstance(low, ImageFile.ImageFile)
    low.tile = tiles
    low.load()
    return low


def _swapped(tiles: list[ImageFile._Tile]) -> list[ImageFile._Tile]:
    """What to decode of 16-bit colours in the other byte order; empty for other images."""
    swapped = []
    for tile in tiles:
        parts = (tile.args,) if isinstance(tile.args, str) else tuple(tile.args or ())
        at = next((i for i, part in enumerate(parts) if isinstance(part, str) and ";16" in part), None)
        if at is None or parts[at].split(";")[0] not in _COLOURS:
            return []
        little = parts[at].endswith("L") or (parts[at].endswith("N") and sys.byteorder == "little")
        name = parts[at].split(";")[0] + (";16B" if little else ";16L")
        args = name if isinstance(tile.args, str) else (*parts[:at], name, *parts[at + 1 :])
        swapped.append(tile._replace(args=args))
    return swapped


def scaled_colours(image: Image.Image) -> tuple[Image.Image, int]:
    """An opened image, with 16-bit colours scaled to 8 bits by the bits that are used, and their number; else 8."""
    low = _low_bytes(image)
    return (image, 8) if low is None else _scaled(image, low)


def _scaled(high: Image.Image, low: Image.Image) -> tuple[Image.Image, int]:
    """8-bit colours of high and low bytes, and how many bits are used; transparency keeps its high byte."""
    count = _COLOURS[high.mode]
    top, below = np.array(high), np.asarray(low)[..., :count]
    values = (top[..., :count].astype(np.uint16) << 8) | below
    bits = _depth(int(values.max()))
    top[..., :count] = values >> (bits - 8)
    return Image.fromarray(top, high.mode), bits


def _say_bits(bits: int, what: str) -> None:
    if bits != 16:
        warnings.warn(f"16-bit {what} that use {bits} bits are scaled to 8 bits", ImageWarning, stacklevel=1)


def used_bits(image: Image.Image) -> int:
    """How many bits the greys of an integer image use, one of :data:`DEPTHS`: a 12-bit camera's are 12 of 16."""
    return _depth(int(np.asarray(image).max()))


def _depth(largest: int) -> int:
    return next((bits for bits in DEPTHS if largest < 1 << bits), 32)


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit greys, in whichever of Pillow's integer modes, as 8-bit ones, scaled by the bits that are used."""
    bits = used_bits(image)
    return Image.fromarray((np.asarray(image) >> (bits - 8)).clip(0, 255).astype(np.uint8))


class ImageWarning(UserWarning):
    """Something about images that a person should know."""


class NoImageError(DataError):
    """Data of none of the formats that are read."""


class TooLargeError(DataError):
    """An image of too many pixels."""


@contextmanager
def _unreadable(where: object, data: bytes | None = None) -> Iterator[None]:
    """Turns what Pillow raises on bad files, which may be anything, into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("no such image", where=where) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(f"too large: {_line(error)}", where=where, hint="save a smaller image") from None
    except UnidentifiedImageError:
        raise NoImageError("Pillow cannot read this image", where=where, hint=_unread(where, data)) from None
    except Exception as error:
        raise DataError(f"broken image: {_line(error)}", where=where, hint="replace or remove it") from None


def _unread(where: object, data: bytes | None) -> str:
    """What helps with a file, or data, of no format that is read."""
    head = (data or b"")[:32]
    if data is None:
        try:
            with Path(str(where)).open("rb") as file:
                head = file.read(32)
        except OSError:
            pass
    if head[4:8] == b"ftyp" and any(brand in head for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")):
        return "HEIF: pip install 'unseen[heif]', or export it as JPEG"
    return "replace or remove it"


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
