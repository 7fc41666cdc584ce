"""Safe access to datasets of foreign HDF5 files: plain ones inside the file, with limited size."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from unseen.errors import DataError
from unseen.ground.extras import require

MOST = 25_000_000
"""Largest number of elements of a variable that is read whole: labels, rows, names, class attributes."""
HINT = "create or download the file again"


def member(file: Any, name: str, path: Path, kinds: Collection[str], most: int | None = MOST) -> Any:
    """A dataset by its name, checked before any of it is read.

    Args:
        file: an open ``h5py.File``.
        name: name of the dataset.
        path: path of the file, for errors.
        kinds: allowed numpy kinds of its elements; ``O`` for references.
        most: largest number of elements; ``None`` if it is read in pieces.

    Raises:
        DataError: it is something else, is in another file, or is too large.
    """
    require("h5py")
    import h5py

    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise DataError(f"`{name}` is stored in another file", where=path, hint="copy it into this one")
    item = file.get(name)
    if item is not None and item.file.filename != file.filename:  # through an existing group
        raise DataError(f"`{name}` is stored in another file", where=path, hint="copy it into this one")
    if not isinstance(item, h5py.Dataset):
        raise DataError(f"`{name}` is not an array", where=path, hint=HINT)
    return plain(item, path, kinds, most)


def plain(item: Any, path: Path, kinds: Collection[str], most: int | None = MOST) -> Any:
    """The same for a dataset that has been found already."""
    name = (item.name or "?").lstrip("/")
    if item.external or item.is_virtual:
        raise DataError(f"`{name}` is stored in another file", where=path, hint="copy it into this one")
    if item.shape is None or item.dtype.kind not in kinds:
        raise DataError(f"`{name}` is {item.dtype} of shape {item.shape}", where=path, hint=HINT)
    if most is not None and math.prod(item.shape) > most:
        raise DataError(f"`{name}` has {math.prod(item.shape):,} elements, more than {most:,}", where=path, hint=HINT)
    return item
