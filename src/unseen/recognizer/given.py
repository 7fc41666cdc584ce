"""Images as people hold them: paths, folders, patterns, addresses, arrays, tensors, bytes and open files."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unseen.data.finding import FoundImages
from unseen.data.tars import TAR, tar_images
from unseen.errors import DataError, UnseenError
from unseen.features.reading import ImageInput
from unseen.ground.images import EncodedImage, ImageWarning, image_of_bytes, open_image, upright_rgb

FORMS = (
    "a path, folder, tar archive, pattern or URL, a PIL image, a uint8 array or tensor (H, W, 3) or (3, H, W), bytes, "
    "or a file"
)


def images_of(given: Any) -> Iterator[ImageInput]:
    """The images of one thing, or of an iterable of things, one at a time.

    Args:
        given: :data:`FORMS`, a batch ``(B, ...)`` of arrays, or an iterable of these such as a DataFrame's column; in
            an iterable every path is one image's.

    Files of a folder that are no images are left out with an :class:`~unseen.ground.images.ImageWarning`.

    Raises:
        DataError: bytes that are no image, or an address that cannot be read.
        UnseenError: a folder or pattern without images, or anything else; one line that says what is taken.
    """
    if isinstance(given, str | Path) and "://" not in str(given):
        path = Path(given)
        if path.suffix.lower() == TAR and path.is_file():
            yield from tar_images(path)
            return
        expands = path.is_dir() or (glob.has_magic(str(given)) and not path.exists())
        if not expands:
            yield given
            return
        found = FoundImages([given])
        images = list(found)
        for line in found.left_out.lines():
            warnings.warn(line, ImageWarning, stacklevel=2)
        yield from images
    elif isinstance(given, Iterable) and not isinstance(given, _ONE) and not hasattr(given, "read"):
        if isinstance(given, Mapping) or hasattr(given, "columns"):
            raise UnseenError(f"a {type(given).__name__} is not a column of images", hint="pass one of its columns")
        for one in given:
            yield one if isinstance(one, Path | Image.Image | EncodedImage) else from_one(one)
    elif isinstance(given, np.ndarray | Tensor) and given.ndim != 3:
        for one in given:
            yield from_one(one)
    else:
        yield from_one(given)


def from_one(given: Any) -> ImageInput:
    """One image; raises as :func:`images_of`."""
    if isinstance(given, str):
        return _fetched(given) if "://" in given else given
    if isinstance(given, Path | Image.Image | EncodedImage):
        return given
    if isinstance(given, bytes | bytearray | memoryview):
        return image_of_bytes(bytes(given), "bytes")
    if hasattr(given, "read"):
        return image_of_bytes(given.read(), str(getattr(given, "name", "file")))
    if isinstance(given, np.ndarray | Tensor):
        return _pixels(given.detach().cpu().numpy() if isinstance(given, Tensor) else given)
    raise UnseenError(f"{type(given).__name__} is not an image", hint=f"pass {FORMS}")


def upright_of(image: Any) -> Image.Image:
    """One image, upright and RGB; raises as :func:`images_of`."""
    image = from_one(image)
    if isinstance(image, EncodedImage):
        return image.open()
    return upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)


def path_of(image: Any) -> str:
    """The path of an image; ``""`` for pixels or bytes."""
    return str(image) if isinstance(image, str | Path | EncodedImage) else ""


def _fetched(address: str) -> Image.Image:
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            data = file.read()
    except Exception as error:  # every file system has its own
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(said, where=address, hint="check the address") from None
    return image_of_bytes(data, address)


def _pixels(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or 3 not in (array.shape[-1], array.shape[0]):
        problem = f"an array of {array.dtype} {array.shape} is not an image"
        raise UnseenError(problem, hint="pass uint8 of shape (H, W, 3) or (3, H, W), 0 to 255")
    rows = array if array.shape[-1] == 3 else np.moveaxis(array, 0, -1)
    return Image.fromarray(np.ascontiguousarray(rows))


_ONE = (str, bytes, bytearray, memoryview, Image.Image, np.ndarray, Tensor)
