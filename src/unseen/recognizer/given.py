"""Images in all forms: paths, folders, patterns, URLs, arrays, tensors, bytes, open files and tables."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unseen.data.finding import FoundImages
from unseen.data.holding import FILE_COLUMNS
from unseen.data.tars import TAR, tar_images
from unseen.errors import DataError, UnseenError
from unseen.features.reading import ImageInput
from unseen.ground.images import EncodedImage, ImageWarning, open_image, upright_rgb

FORMS = (
    "a path, folder, tar archive, pattern or URL, a PIL image, an array or tensor (H, W, 3) or (3, H, W), bytes, "
    "or a file"
)


@dataclass(frozen=True)
class HeldImage(EncodedImage):
    """An encoded image in memory.

    Args:
        data: its bytes.
        path: name in predictions; ``""`` for none.
    """

    data: bytes
    path: str = ""

    def __str__(self) -> str:
        """Name in errors."""
        return self.path or "bytes"

    def read(self) -> bytes:
        """Its bytes."""
        return self.data


@dataclass(frozen=True)
class FetchedImage(EncodedImage):
    """An image behind a URL of any scheme that fsspec opens; read on demand."""

    address: str

    def __str__(self) -> str:
        """The URL."""
        return self.address

    def read(self) -> bytes:
        """Its bytes; raises :class:`DataError` if they cannot be read."""
        import fsspec

        try:
            with fsspec.open(self.address, "rb") as file:
                data: bytes = file.read()
        except Exception as error:  # every file system has its own exceptions
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(said, where=self.address, hint="check the address") from None
        return data


def path_of(image: Any) -> str:
    """The path or URL of an image; ``""`` for pixels."""
    if isinstance(image, HeldImage):
        return image.path
    return str(image) if isinstance(image, str | Path | EncodedImage) else ""


def images_of(given: Any) -> Iterator[ImageInput]:
    """Yield the images of one input or of an iterable of inputs.

    Args:
        given: :data:`FORMS`; a batch ``(B, ...)`` of arrays; a DataFrame, a Hugging Face dataset or a mapping with a
            column of images or paths (:data:`~unseen.data.holding.FILE_COLUMNS`); a torchvision ``ImageFolder``; or an
            iterable of these such as a column, in which every path is a single image. Float pixels range from 0 to 1.

    Skips files of a folder that are not images, with an :class:`~unseen.ground.images.ImageWarning`.

    Raises:
        DataError: a URL that cannot be read.
        UnseenError: a folder or pattern without images, or anything else; the message lists the accepted forms.
    """
    if isinstance(given, str | Path) and "://" not in str(given):
        yield from _of_path(given)
    elif isinstance(given, np.ndarray | Tensor):
        yield from map(from_one, given) if given.ndim in (1, 4) else [from_one(given)]
    elif hasattr(given, "samples") and hasattr(given, "classes"):  # torchvision's ImageFolder
        yield from (Path(file) for file, _ in given.samples)
    elif _is_table(given):
        yield from _of_table(given)
    elif isinstance(given, Iterable) and not isinstance(given, _ONE) and not hasattr(given, "read"):
        yield from map(from_one, given)
    else:
        yield from_one(given)


def _of_path(given: str | Path) -> Iterator[ImageInput]:
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


def _is_table(given: Any) -> bool:
    """Whether it is a table, a row of one, or a Hugging Face dataset."""
    return (isinstance(given, Mapping) and not _is_encoded(given)) or any(hasattr(given, name) for name in _COLUMNS)


def _is_encoded(given: Mapping[Any, Any]) -> bool:
    """Whether it is an undecoded image of Hugging Face's datasets."""
    return given.keys() == {"bytes", "path"}


def _of_table(given: Any) -> Iterator[ImageInput]:
    column = _image_column(given)
    if hasattr(given, "column_names") and not hasattr(given, "__getitem__"):  # a Hugging Face stream
        yield from (from_one(row[column]) for row in given)
    else:
        yield from images_of(given[column])


def _image_column(given: Any) -> Any:
    """The column with images, or else with paths."""
    features = getattr(given, "features", None) or {}
    for name, feature in features.items():
        if type(feature).__name__ == "Image":
            return name
    names = list(given if isinstance(given, Mapping) else getattr(given, _COLUMNS[not hasattr(given, "columns")]))
    known = [name for name in FILE_COLUMNS if name in names]
    if not known:
        columns = ", ".join(map(str, names)) or "none"
        problem = f"a {type(given).__name__} without a column of images"
        raise UnseenError(problem, hint=f"name it {FILE_COLUMNS[0]} or image, or pass one of its columns ({columns})")
    if isinstance(given, Mapping):
        return next((name for name in known if not isinstance(given[name], str)), known[0])
    return known[0]


def from_one(given: Any) -> ImageInput:
    """One image; raises as :func:`images_of`."""
    if isinstance(given, str):
        return FetchedImage(given) if "://" in given else given
    if isinstance(given, Path | Image.Image | EncodedImage):
        return given
    if isinstance(given, bytes | bytearray | memoryview):
        return HeldImage(bytes(given))
    if hasattr(given, "read"):
        name = getattr(given, "name", "")
        return HeldImage(given.read(), name if isinstance(name, str) else "")
    if isinstance(given, np.ndarray | Tensor):
        return _pixels(given.detach().cpu().numpy() if isinstance(given, Tensor) else given)
    if isinstance(given, Mapping):
        if not _is_encoded(given):
            return from_one(given[_image_column(given)])
        return HeldImage(given["bytes"], given["path"] or "") if given["bytes"] is not None else str(given["path"])
    raise UnseenError(f"{type(given).__name__} is not an image", hint=f"pass {FORMS}")


def upright_of(image: Any) -> Image.Image:
    """One image, upright and RGB; raises as :func:`images_of`."""
    image = from_one(image)
    if isinstance(image, EncodedImage):
        return image.open()
    return upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)


def _pixels(array: np.ndarray) -> Image.Image:
    """Gray, RGB or RGBA pixels as an image; channels last, or else first."""
    found = array[..., None] if array.ndim == 2 else array
    axis = next((axis for axis in (-1, 0) if found.ndim == 3 and found.shape[axis] in (1, 3, 4)), None)
    if axis is None or not found.size or (array.dtype != np.uint8 and array.dtype.kind != "f"):
        problem = f"an array of {array.dtype} {array.shape} is not an image"
        raise UnseenError(problem, hint="pass uint8 of shape (H, W, 3) or (3, H, W), 0 to 255")
    if array.dtype != np.uint8:
        low, high = float(found.min()), float(found.max())
        if not (low >= 0 and high <= 1):
            problem = f"float pixels from {low:.4g} to {high:.4g}, not 0 to 1"
            raise UnseenError(problem, hint="pass pixels before normalization, as uint8 or as floats from 0 to 1")
        found = np.rint(found * 255).astype(np.uint8)
    rows = np.moveaxis(found, axis, -1)
    return Image.fromarray(np.ascontiguousarray(rows[..., 0] if rows.shape[-1] == 1 else rows))


_COLUMNS = ("columns", "column_names")
"""Column names of a table of pandas, polars or Hugging Face's datasets."""
_ONE = (str, bytes, bytearray, memoryview, Image.Image)
