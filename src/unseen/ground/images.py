"""Image files: opened, checked by their headers, upright and in 8-bit RGB; a broken one gives one line."""

from __future__ import annotations

import io
import math
import os
import stat
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from unseen.errors import DataError
from unseen.ground.words import pasted

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "QOI"),
    *("PSD", "HEIF"),
)
"""Supported formats, recognized by content: Pillow's, and HEIF if pillow-heif is installed.

Pillow's other formats may start programs (EPS) or need them, and icons are decoded before their size is known.
"""
VAGUE = ("DIB", "TGA")
"""Formats that any bytes may start like, so only their extensions identify them."""
DEPTHS = (8, 10, 12, 14, 16, 24)
"""Bit depths of gray in cameras, microscopes and scanners; :func:`eight_bit` uses the smallest that holds an image.
"""
ELONGATION = 50
"""Largest ratio between the sides of an image."""
_BAND = 256
_COLORS = {"RGB": 3, "RGBA": 3}
"""Modes of 16-bit colors, with their channels before transparency."""


class EncodedImage(ABC):
    """An encoded image that is not a file of its own."""

    @abstractmethod
    def __str__(self) -> str:
        """Its name in answers and errors."""

    @abstractmethod
    def read(self) -> bytes:
        """The encoded bytes, as in a file."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Suffix, as of a path."""
        return PurePosixPath(str(self)).parts

    def open(self, least: int | None = None) -> Image.Image:
        """The image, upright and in 8-bit RGB; arguments and errors as of :func:`open_image`."""
        return image_of_bytes(self.read(), self, least=least)


@dataclass(frozen=True)
class PackedImage(EncodedImage):
    """An image in an uncompressed archive, read on demand.

    Args:
        archive: path of the archive.
        name: path inside it.
        offset, size: position of its bytes.
    """

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        """Archive and name, like a file in a folder."""
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
        name: name of the image.
        data: encoded bytes.
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
    """Whether an image of a few bytes could take a gigabyte after resizing its short side."""
    return max(width, height) > ELONGATION * min(width, height)


@contextmanager
def opened_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image file and read its header, but no pixels.

    Raises:
        DataError: it holds no image of :data:`FORMATS`, or one of too many pixels, or the body of the context fails as
            broken images do; names the file.
    """
    with _unreadable(path):
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe or a device may never end
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
    """The formats of :data:`FORMATS` that can be read on this machine."""
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(path: str | os.PathLike[str], least: int | None = None) -> Image.Image:
    """The image in a file, upright and in 8-bit RGB.

    Args:
        path: the file.
        least: decode a JPEG at half, a quarter or an eighth of its size if its sides keep this many pixels, which is
            faster for large photos; by default in full.

    Raises:
        DataError: the file holds no image; names it.
    """
    with opened_image(path) as image:
        _reduce(image, least)
        return upright_rgb(image)


def _reduce(image: Image.Image, least: int | None) -> None:
    if least is not None and isinstance(image, ImageFile.ImageFile):
        image.draft(None, (least, least))  # None keeps the mode


def image_of_bytes(data: bytes, where: object, max_pixels: int | None = None, least: int | None = None) -> Image.Image:
    """Like :func:`open_image`, for an encoded image in memory that errors call ``where``.

    Args:
        data: encoded bytes.
        where: name in errors.
        max_pixels: refuse larger images by their header; by default Pillow's own limit applies.
        least: as in :func:`open_image`.
    """
    with _unreadable(where, data), Image.open(io.BytesIO(data), formats=formats()) as image:
        _check_size(image, max_pixels or Image.MAX_IMAGE_PIXELS or math.inf)
        _reduce(image, least)
        return _upright_rgb(image)


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the image in a file after its EXIF rotation; reads no pixels."""
    with opened_image(path) as image:
        # for a TIFF, Pillow itself returns the rotated size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8) and image.format != "TIFF"
        return (image.height, image.width) if turned else image.size


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image after its EXIF rotation, in 8-bit RGB; transparency becomes white."""
    with _unreadable(getattr(image, "filename", "image")):
        return _upright_rgb(image)


def _upright_rgb(image: Image.Image) -> Image.Image:
    low = _low_bytes(image)
    image = _upright(image)
    if low is not None:
        image, bits = _scaled(image, _upright(low))
        _say_bits(bits, "colors")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):  # 16-bit grays, which Pillow's own conversion clips at 255
        _say_bits(used_bits(image), "greys")
        return eight_bit(image).convert("RGB")
    if image.has_transparency_data:
        flat = Image.new("RGB", image.size)
        for top in range(0, image.height, _BAND):  # in bands, so that a large image is not in memory four times
            box = (0, top, image.width, min(top + _BAND, image.height))
            band = image.crop(box).convert("RGBA")
            white = Image.new("RGBA", band.size, "white")
            flat.paste(Image.alpha_composite(white, band).convert("RGB"), box)
        return flat
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image after its EXIF rotation; itself if it has none, of which Pillow would make a copy."""
    image.load()
    return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image


def _low_bytes(image: Image.Image) -> Image.Image | None:
    """The low bytes of 16-bit colors, whose high bytes Pillow decodes; ``None`` if the high bytes suffice.

    Read in the other byte order, the same file gives the low bytes.
    """
    if not isinstance(image, ImageFile.ImageFile) or not (tiles := _swapped(image.tile)):
        return None
    source = image.filename or image.fp  # the latter is a file in memory
    image.load()
    high = np.asarray(image)[..., : _COLORS[image.mode]]
    if not source or high.max() >= 1 << (DEPTHS[-3] - 8):  # all 16 bits are in use
        return None
    if not isinstance(source, str | bytes):
        source.seek(0)
    low = Image.open(source, formats=formats())
    assert isinstance(low, ImageFile.ImageFile)
    low.tile = tiles
    low.load()
    return low


def _swapped(tiles: list[ImageFile._Tile]) -> list[ImageFile._Tile]:
    """How to decode 16-bit colors in the other byte order; empty for other images."""
    swapped = []
    for tile in tiles:
        parts = (tile.args,) if isinstance(tile.args, str) else tuple(tile.args or ())
        at = next((i for i, part in enumerate(parts) if isinstance(part, str) and ";16" in part), None)
        if at is None or parts[at].split(";")[0] not in _COLORS:
            return []
        little = parts[at].endswith("L") or (parts[at].endswith("N") and sys.byteorder == "little")
        name = parts[at].split(";")[0] + (";16B" if little else ";16L")
        args = name if isinstance(tile.args, str) else (*parts[:at], name, *parts[at + 1 :])
        swapped.append(tile._replace(args=args))
    return swapped


def scaled_colors(image: Image.Image) -> tuple[Image.Image, int]:
    """An opened image with 16-bit colors scaled to 8 bits by the bits in use, and their number; otherwise 8."""
    low = _low_bytes(image)
    return (image, 8) if low is None else _scaled(image, low)


def _scaled(high: Image.Image, low: Image.Image) -> tuple[Image.Image, int]:
    """8-bit colors from high and low bytes, and the number of bits in use; transparency keeps its high byte."""
    count = _COLORS[high.mode]
    top, below = np.array(high), np.asarray(low)[..., :count]
    values = (top[..., :count].astype(np.uint16) << 8) | below
    bits = _depth(int(values.max()))
    top[..., :count] = values >> (bits - 8)
    return Image.fromarray(top, high.mode), bits


def _say_bits(bits: int, what: str) -> None:
    if bits != 16:
        warnings.warn(f"16-bit {what} that use {bits} bits are scaled to 8 bits", ImageWarning, stacklevel=1)


def used_bits(image: Image.Image) -> int:
    """Number of bits that the grays of an integer image use, one of :data:`DEPTHS`: a 12-bit camera uses 12 of 16."""
    return _depth(int(np.asarray(image).max()))


def _depth(largest: int) -> int:
    return next((bits for bits in DEPTHS if largest < 1 << bits), 32)


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grays, in any of Pillow's integer modes, as 8-bit ones, scaled by the bits in use."""
    bits = used_bits(image)
    return Image.fromarray((np.asarray(image) >> (bits - 8)).clip(0, 255).astype(np.uint8))


class ImageWarning(UserWarning):
    """Something about images that users should know."""


class NoImageError(DataError):
    """Data in none of the supported formats."""


class TooLargeError(DataError):
    """An image of too many pixels."""


@contextmanager
def _unreadable(where: object, data: bytes | None = None) -> Iterator[None]:
    """Turns Pillow's exceptions for bad files, which may be of any type, into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("no such image", where=where) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(f"too large: {_line(error)}", where=where, hint="save a smaller image") from None
    except UnidentifiedImageError:
        problem, hint = _unread(where, data)
        raise NoImageError(problem, where=where, hint=hint) from None
    except Exception as error:
        raise DataError(f"broken image: {_line(error)}", where=where, hint="replace or remove it") from None


LISTS = (".csv", ".tsv", ".txt")
"""Extensions of files that may list images."""


def _unread(where: object, data: bytes | None) -> tuple[str, str]:
    """Problem and hint for a file, or data, in an unsupported format."""
    head = None if data is None else data[:32]
    if data is None:
        with suppress(OSError), Path(str(where)).open("rb") as file:
            head = file.read(32)
    if head == b"":
        return "the file is empty", "replace or remove it"
    if Path(str(where)).suffix.lower() in LISTS:
        return "not an image", f"if it lists images: unseen predict RUN --list {pasted(str(where))}"
    problem, head = "Pillow cannot read this image", head or b""
    if head[4:8] == b"ftyp" and any(brand in head for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")):
        if "HEIF" in formats():
            return problem, "a damaged HEIF file: replace it, or export it as JPEG"
        return problem, "HEIF: pip install 'unseen[heif]', or export it as JPEG"
    return problem, "replace or remove it"


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
