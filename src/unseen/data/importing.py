"""Import features as a region store of a dataset folder: plain arrays, the field's HDF5, ``res101.mat``.

They come without the network, so methods can be trained and tested on them, but cannot predict new images.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from unseen.backbones.naming import IMPORTED
from unseen.classes.spreadsheets.tables import find_table
from unseen.data.dataset import Dataset
from unseen.data.folder import load_folder, read_classes, stop
from unseen.data.folder_images import FEATURES
from unseen.errors import DataError
from unseen.features.blank import Blanks
from unseen.features.store import RegionStore, write_store
from unseen.formats.arrays import SUFFIXES, ArrayFile
from unseen.formats.matlab import mat_shapes
from unseen.formats.region_hdf5 import SPLITS, Reader, RegionFile
from unseen.formats.res101 import ImageList, read_features
from unseen.formats.xlsa17 import Split, read_split
from unseen.ground.files import write_text, write_with
from unseen.ground.images import ImageWarning
from unseen.ground.words import counted

HINT = "import the features of this dataset"
UNKNOWN = "unknown origin"
LIST = "images.csv"
ATT_SPLITS = "att_splits.mat"


@dataclass(frozen=True, eq=False)
class Source:
    """Features in a file.

    Args:
        path: the file.
        labels: ``(M,)`` int64 positions in the class table, or class names; ``None`` if the file has none.
        files: M image names; empty if the file has none.
        parts: rows of the splits; empty if the file has none.
        grid, channels: shape of an image's features.
        count: M.
        reader: opens the features.
    """

    path: Path
    labels: np.ndarray | None
    files: tuple[str, ...]
    parts: dict[str, np.ndarray]
    grid: tuple[int, int]
    channels: int
    count: int
    reader: Callable[[], AbstractContextManager[Reader]]


def open_source(path: Path) -> Source:
    """Open a file of features: arrays (:mod:`unseen.formats.arrays`), region HDF5, or ``res101.mat``.

    Raises:
        DataError: the file is none of these, or damaged.
    """
    if path.suffix.lower() in SUFFIXES:
        made = ArrayFile.open(path)
        parts = {} if made.split is None else {s: np.flatnonzero(made.split == s) for s in SPLITS if s in made.split}
        return Source(path, made.labels, made.files, parts, made.grid, made.channels, made.shape[0], made.reader)
    if path.suffix == ".mat":
        images = ImageList.read(path)
        if not images.channels:
            raise DataError("no `features`", where=path, hint=f"the file has {', '.join(mat_shapes(path))}")
        return Source(
            path, images.labels, images.files, {}, (1, 1), images.channels, len(images), lambda: read_features(path)
        )
    found = RegionFile.open(path)
    return Source(path, found.labels, (), found.rows, found.grid, found.channels, found.count, found.reader)


def dataset_of(folder: Path, path: Path) -> Dataset:
    """The dataset that features belong to; needs no image files.

    If the folder has a class table, but neither images nor a table of them, ``images.csv`` is written from the labels
    in the file; an :class:`~unseen.ground.images.ImageWarning` says if some become test images because nothing gives
    the split. The classes and the split of a ``res101.mat`` are those of the ``att_splits.mat`` in the folder, or
    else beside the file.

    Args:
        folder: folder of the dataset.
        path: file of features.

    Raises:
        DataError: there is no class table, or nothing gives the class of each row.
    """
    wanted = not (folder / "images").is_dir() and find_table(folder, "images") is None and folder.is_dir()
    with undone_if_refused(folder):
        if folder.is_dir():
            (folder / FEATURES).mkdir(exist_ok=True)  # says that images may be missing
        if wanted:
            divided = _list_rows(folder, open_source(path), folder / LIST)
        found = load_folder(folder)
        if wanted and not divided:
            _say_split(found, path)
        return found


@contextmanager
def undone_if_refused(folder: Path) -> Iterator[None]:
    """If the block fails, remove ``images.csv`` and the folder of features, unless they were there or hold features.

    Otherwise the list of a refused file would be taken for that of the next one.
    """
    listed, features = folder / LIST, folder / FEATURES
    there, made = listed.exists(), features.exists()
    try:
        yield
    except BaseException:
        if not there:
            listed.unlink(missing_ok=True)
        if not made and features.is_dir() and not any(features.iterdir()):
            features.rmdir()
        raise


def _say_split(dataset: Dataset, path: Path) -> None:
    """Warn that images of seen classes become test images, since nothing gives the split."""
    held = len(dataset.indices("test_seen"))
    if held:
        total = held + len(dataset.indices("trainval"))
        warnings.warn(
            f"{path.name} has no split: of {counted(total, 'image')} of seen classes, {held:,} become test images, "
            "about a fifth of each class, by name; to choose them, add a column split to images.csv",
            ImageWarning,
            stacklevel=3,
        )


def _list_rows(folder: Path, source: Source, listed: Path) -> bool:
    """``images.csv`` for the rows of a file; whether something gives their split."""
    import pandas as pd

    if source.labels is None:
        problem = "no labels, and the folder has no table of images"
        raise DataError(problem, where=source.path, hint="add labels to the file, or images.csv with file and class")
    split = _split_of(folder, source)
    if split is not None and (split.named or split.path.parent == folder):
        names, numbered_by = split.names, split.path
    else:
        classes = read_classes(folder, stop)
        assert classes is not None
        names, numbered_by = classes.names, classes.path
    count = len(source.labels)
    rows = {"file": _names_below(source.files) or [f"row-{row:07d}" for row in range(count)]}
    if source.labels.dtype.kind == "U":
        rows["class"] = [str(name) for name in source.labels]
    else:
        outside = np.flatnonzero((source.labels < 0) | (source.labels >= len(names)))
        if len(outside):
            problem = (
                f"row {outside[0] + 1} is of class {source.labels[outside[0]]}, but there are "
                f"{counted(len(names), 'class')}"
            )
            raise DataError(problem, where=source.path, hint=f"labels are positions in {numbered_by.name}, from 0")
        rows["class"] = [names[c] for c in source.labels]
        _check_folders(source, rows["class"], numbered_by)
    if source.parts:
        parts = np.full(count, "trainval", dtype=object)
        for part, mine in source.parts.items():
            parts[mine] = part
        rows["split"] = list(parts)
    elif split is not None:
        if split.count != count:
            problem = f"a split of {counted(split.count, 'image')}; {source.path.name} has {count:,}"
            raise DataError(problem, where=split.path, hint="use the files of the same dataset")
        rows["split"] = list(split.parts())
    write_text(listed, pd.DataFrame(rows).to_csv(index=False))
    return "split" in rows


def _check_folders(source: Source, classes: list[str], numbered_by: Path) -> None:
    """Check labels against the folders of the images, where these are named like classes.

    A ``res101.mat`` without image names cannot be checked; an :class:`~unseen.ground.images.ImageWarning` says so.
    """
    if not source.files:
        if source.path.suffix == ".mat":
            warnings.warn(
                f"{source.path.name} has no image_files, so its labels cannot be checked; they are read as "
                f"positions in {numbered_by.name}, from 1: compare a few rows of images.csv with what you know",
                ImageWarning,
                stacklevel=5,
            )
        return
    folders, known = [PurePosixPath(file).parent.name for file in source.files], set(classes)
    if sum(name in known for name in folders) < len(folders) / 2:
        return
    pairs = zip(folders, classes, strict=True)
    wrong = [row for row, (name, own) in enumerate(pairs) if name != own and name in known]
    if wrong:
        row = wrong[0]
        problem = (
            f"{len(wrong):,} labels differ from the folder of the image: row {row + 1}, "
            f'"{folders[row]}/{PurePosixPath(source.files[row]).name}", is labeled "{classes[row]}"'
        )
        hint = f"labels must be positions in {numbered_by.name}, in the order of the images"
        raise DataError(problem, where=source.path, hint=hint)


def _split_of(folder: Path, source: Source) -> Split | None:
    """The ``att_splits.mat`` of features: the folder's own class table, or that beside a ``res101.mat``."""
    own = folder / ATT_SPLITS
    if find_table(folder, "classes") is None and own.is_file():
        return read_split(own)
    beside = _split_beside(source.path)
    if beside is not None and find_table(folder, "classes") is None:
        raise DataError("no class table", where=folder, hint=f"copy {beside.path} into it")
    return beside


def _split_beside(path: Path) -> Split | None:
    """The ``att_splits.mat`` beside a ``res101.mat``."""
    beside = path.with_name(ATT_SPLITS)
    return read_split(beside) if path.suffix == ".mat" and beside.is_file() else None


def _names_below(files: tuple[str, ...]) -> list[str]:
    """Image names without the folder that all share; an image named twice gets the number of its row."""
    if not files:
        return []
    paths = [PurePosixPath(file) for file in files]
    shared = len(PurePosixPath(os.path.commonpath([path.parent for path in paths])).parts) if _rooted(paths) else 0
    below = [PurePosixPath(*path.parts[shared:]) for path in paths]
    often = Counter(below)
    return [
        str(path if often[path] == 1 else path.with_name(f"{path.stem}-{row + 1}{path.suffix}"))
        for row, path in enumerate(below)
    ]


def _rooted(paths: list[PurePosixPath]) -> bool:
    return all(path.is_absolute() for path in paths)


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
    """Import features into a dataset folder, chunk by chunk.

    The rows of the file must be the images of the dataset: in its order, or in any order if the file names them all as
    the dataset does. Labels, image names and splits in the file are compared with the dataset. An
    :class:`~unseen.ground.images.ImageWarning` names images whose features are all zero.

    Args:
        path: see :func:`open_source`.
        dataset: dataset with its images in the row order of the Proposed Split, as ``unseen prepare`` writes them.
        folder: folder of the dataset.
        name: name of the features in ``--backbone features:NAME``.
        made_with: network, weights and image size, recorded with every result.
        dtype, chunk, tick: see :func:`unseen.features.store.write_store`.

    Raises:
        DataError: the file does not match the dataset, or all its rows are equal.
        StoreError: the disk is full, or numbers are too large for ``dtype``.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise DataError(
            f'"{name}" is not a valid name for features', where="--name", hint="use one word, such as res101"
        )
    source = open_source(path)
    order = _order(source, dataset)
    _check(source, dataset, order)
    stat = path.stat()
    facts = {"name": IMPORTED + name, "made_with": made_with, "file": path.name, "bytes": stat.st_size}
    with source.reader() as read:
        blanks = Blanks(read if order is None else _reordered(read, order), dataset.files, dtype, path)
        blanks.refuse_constant(chunk)
        store = write_store(
            folder / FEATURES / name,
            blanks,
            names=dataset.files,
            grid=source.grid,
            channels=source.channels,
            source=facts | {"modified": stat.st_mtime_ns},
            dtype=dtype,
            chunk=chunk,
            tick=tick,
        )
    blanks.warn()
    return store


def import_vectors(path: Path, dataset: Dataset, folder: Path) -> np.ndarray:
    """Write the word vectors ``w2v_att`` of a region HDF5 as ``attribute_vectors.npy`` of a dataset folder.

    Returns:
        float64 ``(K, D)``.

    Raises:
        DataError: the file has none, or for another number of attributes, or the dataset has other ones.
    """
    vectors = None if path.suffix == ".mat" else RegionFile.open(path).vectors
    count = len(dataset.table.attributes)
    if vectors is None or vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        there = "none" if vectors is None else f"an array of shape {vectors.shape}"
        raise DataError(
            f"expected word vectors of {counted(count, 'attribute')}, found {there}",
            where=path,
            hint="omit --word-vectors",
        )
    target = folder / "attribute_vectors.npy"
    if dataset.attribute_vectors is not None and not np.array_equal(dataset.attribute_vectors, vectors):
        raise DataError(
            "the dataset already has other word vectors", where=target, hint="remove it, or omit --word-vectors"
        )

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    write_with(target, save)
    return vectors


def imported_store(dataset: Dataset, folder: Path) -> RegionStore:
    """Imported features of a dataset; raises :class:`DataError` if they belong to other images."""
    store = RegionStore.open(folder)
    if store.names != list(dataset.files):
        raise DataError("these features belong to other images", where=folder, hint="import them again")
    return store


def _order(source: Source, dataset: Dataset) -> np.ndarray | None:
    """Row of each image of the dataset, if the file names them all in another order; else ``None``."""
    if not source.files or source.files == dataset.files or set(source.files) != set(dataset.files):
        return None
    rows = {file: row for row, file in enumerate(source.files)}
    return np.array([rows[file] for file in dataset.files])


def _reordered(read: Reader, order: np.ndarray) -> Reader:
    """Like ``read``, in the order of the dataset."""

    def reordered(start: int, stop: int) -> np.ndarray:
        return np.concatenate([read(int(row), int(row) + 1) for row in order[start:stop]])

    return reordered


def _check(source: Source, dataset: Dataset, order: np.ndarray | None) -> None:
    """Check that the rows of a file are the images of a dataset."""
    if source.count != len(dataset.files):
        problem = f"features of {counted(source.count, 'image')} for {len(dataset.files):,} of {dataset.name}"
        raise DataError(problem, where=source.path, hint=HINT)
    rows = np.arange(source.count) if order is None else order
    labels = dataset.labels
    if source.labels is not None:
        labels = source.labels[rows]
        positions = {name: c for c, name in enumerate(dataset.table.names)}
        split = _split_beside(source.path)
        if split is not None and split.named and positions.keys() == set(split.names):
            labels = np.array(split.names)[labels]  # the folder's table may have another order
        if labels.dtype.kind == "U":
            labels = np.array([positions.get(str(name), -1) for name in labels])
    wrong = np.flatnonzero(labels != dataset.labels)
    if len(wrong):
        row = int(wrong[0])
        problem = f"{len(wrong):,} labels differ, the first in row {row + 1} ({dataset.files[row]})"
        raise DataError(
            problem, where=source.path, hint="create the dataset with `unseen prepare`; rows must be in its order"
        )
    places = np.empty(source.count, dtype=int)
    places[rows] = np.arange(source.count)
    for part, mine in source.parts.items():
        if not np.array_equal(np.sort(places[mine]), dataset.indices(part)):
            raise DataError(f"{part}_loc differs from the dataset's {part}", where=source.path, hint=HINT)
    named = [] if order is not None else zip(source.files, dataset.files, strict=False)
    for row, (theirs, own) in enumerate(named):
        stem = Path(theirs).stem
        if not Path(own).stem.startswith(stem):  # objects cut out of an image are named by it and a number
            raise DataError(f'row {row + 1} is "{theirs}", not "{own}"', where=source.path, hint=HINT)
