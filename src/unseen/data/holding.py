"""Datasets from objects: tables of paths, ImageFolder, Hugging Face datasets."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset, split_by_name
from unseen.errors import DataError
from unseen.formats.xlsa17 import SPLITS
from unseen.ground.cache import cache_folder
from unseen.ground.files import write_with
from unseen.ground.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = ("file", "path", "image", "file_name", "filename", "filepath", "image_path", "url", "image_url")
CLASS_COLUMNS = ("class", "label", "class_name", "species", "category")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def make_dataset(
    images: Any,
    attributes: ClassTable | pd.DataFrame | Mapping[str, Any],
    *,
    root: Path | str | None = None,
    name: str | None = None,
    cache: Path | str | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Make a dataset from tables, an ImageFolder or a Hugging Face dataset.

    Args:
        images: a DataFrame with a column of paths or URLs (``file``, ``path``, ``image``, ...), one of class names
            (``class``, ``label``, ...) and optionally ``split``; pairs of path and class name; a torchvision
            ``ImageFolder``; or a Hugging Face ``datasets.Dataset`` with an image column and a label column.
        attributes: a class table, or a DataFrame indexed by class with one column per attribute (a mapping of class to
            a mapping of attribute to number). Classes without images are unseen.
        root: folder or URL that paths are relative to; by default the common folder of local paths. Files behind URLs
            (s3, hf, https and everything else that fsspec opens) are downloaded to the cache once.
        name: name of the dataset in tables.
        cache: see :func:`unseen.data.catalogue.cache_folder`.
        progress: progress callback for downloads.

    Raises:
        DataError: one line naming row, column or class, and the fix.
    """
    files, classes, split, folder, called = _listed(images, root, cache_folder(cache), progress)
    table = ClassTable.from_frame(attributes)
    positions = {c: i for i, c in enumerate(table.names)}
    for row, label in enumerate(classes):
        if label not in positions:
            hint = "add a row for it, or fix the spelling"
            raise DataError(f'class "{label}" has no attributes', where=f"images, row {row} ({files[row]})", hint=hint)
    labels = np.array([positions[c] for c in classes], dtype=np.int64)
    shown = labels if split is None else labels[np.asarray(split) != "test_unseen"]
    seen = np.bincount(shown, minlength=len(table)) > 0
    if isinstance(attributes, ClassTable) or "seen" in getattr(attributes, "columns", ()):
        seen = table.seen
    table = ClassTable(table.names, table.attributes, table.values, seen, table.validation, taxonomy=table.taxonomy)
    chosen = split_by_name(files, labels, seen) if split is None else np.array(split, dtype=object)
    return Dataset(name or called, folder, table, tuple(files), labels, chosen)


def _listed(
    images: Any, root: Path | str | None, cache: Path, progress: Progress
) -> tuple[list[str], list[str], Sequence[str] | None, Path, str]:
    """Files, class names, splits, the folder of the files, and a name."""
    if hasattr(images, "samples") and hasattr(images, "classes"):  # torchvision's ImageFolder
        files = [str(file) for file, _ in images.samples]
        classes = [str(images.classes[c]) for _, c in images.samples]
        return *_local(files, classes, root or images.root), None, *_placed(files, root or images.root)
    if hasattr(images, "features") and hasattr(images, "column_names"):  # Hugging Face
        return _hugging_face(images, cache, progress)
    split = None
    if hasattr(images, "columns"):
        files, classes = (_column(images, kind, names) for kind, names in _COLUMNS)
        split = _splits(images) if "split" in images.columns else None
    elif isinstance(images, Sequence | np.ndarray) and len(images) and all(len(pair) == 2 for pair in images):
        files, classes = [str(f) for f, _ in images], [str(c) for _, c in images]
    else:
        problem = f"{type(images).__name__} is not a table of images"
        hint = "pass a DataFrame, pairs of path and class, an ImageFolder or a Hugging Face dataset"
        raise DataError(problem, where="images", hint=hint)
    if not files:
        raise DataError("no images", where="images", hint="pass one row per image")
    if (root is not None and _URL.match(str(root))) or any(_URL.match(file) for file in files):
        below = "" if root is None else str(root).rstrip("/")
        urls = [file if _URL.match(file) else f"{below}/{file}" for file in files]
        folder = _fetched(urls, cache, progress)
        return [_local_name(url) for url in urls], classes, split, folder, PurePosixPath(below or urls[0]).name
    found, classes = _local(files, classes, root)
    return found, classes, split, *_placed(files, root)


_COLUMNS = (("paths", FILE_COLUMNS), ("class names", CLASS_COLUMNS))


def _column(frame: pd.DataFrame, kind: str, names: Sequence[str]) -> list[str]:
    found = [c for c in names if c in frame.columns]
    if not found:
        hint = f"name it {names[0]}; the columns are {', '.join(map(str, frame.columns))}"
        raise DataError(f"no column of {kind}", where="images", hint=hint)
    values = frame[found[0]]
    for row, empty in enumerate(values.isna()):
        if empty:
            where = f'images, row {row}, column "{found[0]}"'
            raise DataError("an empty cell", where=where, hint="fill it, or drop the row")
    return [str(value) for value in values]


def _splits(frame: pd.DataFrame) -> list[str]:
    found = [str(value) for value in frame["split"]]
    for row, value in enumerate(found):
        if value not in SPLITS:
            where = f'images, row {row}, column "split"'
            raise DataError(f'unknown split "{value}"', where=where, hint=f"use one of {', '.join(SPLITS)}")
    return found


def _placed(files: Sequence[str], root: Path | str | None) -> tuple[Path, str]:
    folder = _root(files, root)
    return folder, folder.name or "images"


def _root(files: Sequence[str], root: Path | str | None) -> Path:
    if root is not None:
        return Path(root).expanduser().absolute()
    folders = {Path(os.path.abspath(os.path.expanduser(file))).parent for file in files}
    return Path(os.path.commonpath(sorted(folders)))


def _local(files: Sequence[str], classes: list[str], root: Path | str | None) -> tuple[list[str], list[str]]:
    """Paths relative to the root; checks that all exist."""
    folder = _root(files, root)
    found: list[str] = []
    first: dict[str, int] = {}
    for row, file in enumerate(files):
        path = Path(file).expanduser()
        path = path if path.is_absolute() else (folder / path if root is not None else path.absolute())
        path = Path(os.path.normpath(path))
        where = f"images, row {row}"
        if not path.is_relative_to(folder):
            raise DataError(f'"{file}" lies outside {folder}', where=where, hint="pass a root= above all images")
        if not path.is_file():
            hint = "fix the path" if root is not None else "fix the path, or pass the folder as root="
            raise DataError(f'no image "{file}"', where=where, hint=hint)
        name = path.relative_to(folder).as_posix()
        if first.setdefault(name, row) != row:
            raise DataError(f'"{file}" is already the image of row {first[name]}', where=where, hint="keep one")
        found.append(name)
    return found, classes


def _local_name(url: str) -> str:
    """Name of a downloaded file in the cache: its own name, after a digest of its URL."""
    name = PurePosixPath(url.partition("://")[2].partition("?")[0])
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}/{name.name}"


def _fetched(urls: Sequence[str], cache: Path, progress: Progress) -> Path:
    """Download what is not in the cache yet; returns the folder for :func:`_local_name`."""
    import fsspec

    folder = cache / "fetched"
    for done, url in enumerate(urls):
        target = folder / _local_name(url)
        if not target.is_file():
            try:
                with fsspec.open(url, "rb") as file:
                    content = file.read()
            except Exception as error:
                said = " ".join(str(error).split()) or type(error).__name__
                hint = "see the message; s3 and other schemes need their fsspec package"
                raise DataError(f"cannot be fetched ({said})", where=url, hint=hint) from None
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, content)
        progress("fetching images", done + 1, len(urls))
    return folder


def _write(target: Path, content: bytes) -> None:
    def save(path: Path) -> None:
        path.write_bytes(content)

    write_with(target, save)


def _hugging_face(
    images: Any, cache: Path, progress: Progress
) -> tuple[list[str], list[str], Sequence[str] | None, Path, str]:
    """Store the images of a ``datasets.Dataset`` as files in the cache, by its fingerprint."""
    kinds = {name: type(feature).__name__ for name, feature in images.features.items()}
    pixels = next((name for name, kind in kinds.items() if kind == "Image"), None)
    labels = next((name for name, kind in kinds.items() if kind == "ClassLabel"), None)
    labels = labels or next((name for name in CLASS_COLUMNS if name in kinds), None)
    if pixels is None or labels is None:
        lacking = "image column" if pixels is None else "column of labels"
        columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise DataError(f"no {lacking}", where="dataset", hint=f"cast one of {columns}")
    import datasets

    raw = images.cast_column(pixels, datasets.Image(decode=False))
    feature = images.features[labels]
    folder = cache / "fetched" / f"hf-{images._fingerprint}"
    files, classes = [], []
    for row, entry in enumerate(raw):
        source, value = entry[pixels], entry[labels]
        content = source["bytes"] if source["bytes"] is not None else Path(source["path"]).read_bytes()
        suffix = Path(source["path"] or "").suffix or ".png"
        name = f"{row:07d}{suffix}"
        if not (folder / name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / name, content)
        files.append(name)
        classes.append(feature.int2str(value) if hasattr(feature, "int2str") else str(value))
        progress("writing images", row + 1, len(raw))
    return files, classes, None, folder, str(getattr(images.info, "dataset_name", None) or "dataset")
