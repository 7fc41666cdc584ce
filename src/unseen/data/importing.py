"""Features that others made, as a region store in a dataset folder: the field's HDF5 and ``res101.mat``.

They come without the network, so that a method can be trained and tested on them, but no new image be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unseen.backbones.backbone import IMPORTED
from unseen.data.dataset import Dataset
from unseen.data.folder import FEATURES
from unseen.errors import DataError
from unseen.features.store import RegionStore, write_store
from unseen.formats.matlab import mat_shapes
from unseen.formats.region_hdf5 import Reader, RegionFile
from unseen.formats.res101 import ImageList, read_features
from unseen.ground.files import write_with

HINT = "import the features of this dataset"
UNKNOWN = "origin not stated"


@dataclass(frozen=True, eq=False)
class Source:
    """Features in a file.

    Args:
        path: the file.
        labels: int64 ``(M,)``.
        files: M image names; empty where the file has none.
        parts: rows of the splits; empty where the file has none.
        grid, channels: shape of an image's features.
        reader: opens them.
    """

    path: Path
    labels: np.ndarray
    files: tuple[str, ...]
    parts: dict[str, np.ndarray]
    grid: tuple[int, int]
    channels: int
    reader: Callable[[], AbstractContextManager[Reader]]


def open_source(path: Path) -> Source:
    """A file of features: region HDF5, or ``res101.mat`` of MATLAB 5 or 7.3.

    Raises:
        DataError: it is neither, or damaged.
    """
    if path.suffix == ".mat":
        images = ImageList.read(path)
        if not images.channels:
            raise DataError("no `features`", where=path, hint=f"it has {', '.join(mat_shapes(path))}")
        return Source(path, images.labels, images.files, {}, (1, 1), images.channels, lambda: read_features(path))
    found = RegionFile.open(path)
    return Source(path, found.labels, (), found.rows, found.grid, found.channels, found.reader)


def import_features(
    path: Path,
    dataset: Dataset,
    folder: Path,
    name: str,
    *,
    made_with: str = UNKNOWN,
    dtype: str = "float16",
    chunk: int = 32,
    tick: Callable[[int, int], None] | None = None,
) -> RegionStore:
    """Import features into a dataset folder, a chunk at a time.

    The rows of the file must be the images of the dataset in their order: the labels of all of them are compared and,
    where the file has them, image names and splits.

    Args:
        path: see :func:`open_source`.
        dataset: the data, its images in the order of the Proposed Split's rows as ``unseen prepare`` writes them.
        folder: the dataset's folder.
        name: what the features are called in ``--backbone features:NAME``.
        made_with: network, weights and image size, for the record of every result.
        dtype, chunk, tick: see :func:`unseen.features.store.write_store`.

    Raises:
        DataError: the file does not fit the dataset.
        StoreError: no room, or numbers too large for ``dtype``.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise DataError(f'"{name}" is no name for features', where="--name", hint="a word, such as res101")
    source = open_source(path)
    _check(source, dataset)
    stat = path.stat()
    facts = {"name": IMPORTED + name, "made_with": made_with, "file": path.name, "bytes": stat.st_size}
    with source.reader() as read:
        return write_store(
            folder / FEATURES / name,
            read,
            names=dataset.files,
            grid=source.grid,
            channels=source.channels,
            source=facts | {"modified": stat.st_mtime_ns},
            dtype=dtype,
            chunk=chunk,
            tick=tick,
        )


def import_vectors(path: Path, dataset: Dataset, folder: Path) -> np.ndarray:
    """Write the word vectors ``w2v_att`` of a region HDF5 as ``attribute_vectors.npy`` of a dataset folder.

    Returns:
        float64 ``(K, D)``.

    Raises:
        DataError: it has none, or of another number of attributes, or the dataset has other ones.
    """
    vectors = None if path.suffix == ".mat" else RegionFile.open(path).vectors
    count = len(dataset.table.attributes)
    if vectors is None or vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        there = "none" if vectors is None else f"an array of shape {vectors.shape}"
        raise DataError(
            f"no word vectors of {count} attributes, but {there}", where=path, hint="leave out --word-vectors"
        )
    target = folder / "attribute_vectors.npy"
    if dataset.attribute_vectors is not None and not np.array_equal(dataset.attribute_vectors, vectors):
        raise DataError(
            "the dataset has other word vectors", where=target, hint="remove it, or leave out --word-vectors"
        )

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    write_with(target, save)
    return vectors


def imported_store(dataset: Dataset, folder: Path) -> RegionStore:
    """Imported features of a dataset; :class:`DataError` if they are of other images."""
    store = RegionStore.open(folder)
    if store.names != list(dataset.files):
        raise DataError("these features are of other images", where=folder, hint="import them again")
    return store


def _check(source: Source, dataset: Dataset) -> None:
    """The rows of a file are the images of a dataset."""
    if len(source.labels) != len(dataset.files):
        problem = f"features of {len(source.labels):,} images for {len(dataset.files):,} of {dataset.name}"
        raise DataError(problem, where=source.path, hint=HINT)
    wrong = np.flatnonzero(source.labels != dataset.labels)
    if len(wrong):
        row = int(wrong[0])
        problem = f"{len(wrong):,} labels differ, the first in row {row + 1} ({dataset.files[row]})"
        raise DataError(
            problem, where=source.path, hint="make the dataset with `unseen prepare`; rows must be in its order"
        )
    for part, rows in source.parts.items():
        if not np.array_equal(np.sort(rows), dataset.indices(part)):
            raise DataError(f"{part}_loc is not the dataset's {part}", where=source.path, hint=HINT)
    for row, (theirs, mine) in enumerate(zip(source.files, dataset.files, strict=False)):
        stem = Path(theirs).stem
        if not Path(mine).stem.startswith(stem):  # objects cut out of an image are called by it and a number
            raise DataError(f'row {row + 1} is "{theirs}", not "{mine}"', where=source.path, hint=HINT)
