"""Datasets by name or folder, and the place of computed data."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

from filelock import FileLock

from unseen.data.dataset import Dataset
from unseen.data.folder import load_folder
from unseen.data.saved import is_saved, load_saved, save_dataset
from unseen.errors import DataError
from unseen.ground.cache import cache_folder
from unseen.ground.progress import Progress, silent

FIELDGUIDE = "fieldguide"


def keep_dataset(dataset: Dataset, cache: Path | str | None = None) -> Path:
    """Store a dataset that is not a folder in the cache, by its fingerprint, so that a run can name it."""
    word = "".join(c if c.isalnum() or c in "-_" else "-" for c in dataset.name) or "dataset"
    place = hashlib.sha256(str(dataset.images).encode()).hexdigest()[:8]
    folder = cache_folder(cache).absolute() / "datasets" / f"{word}-{dataset.fingerprint}-{place}"
    return folder if is_saved(folder) else save_dataset(dataset, folder)


def load_dataset(name: Path | str, *, cache: Path | str | None = None, progress: Progress = silent) -> Dataset:
    """Load ``fieldguide`` (drawn on first use) or a dataset folder.

    Args:
        name: ``fieldguide``, or a folder as described in :mod:`unseen.data.folder`.
        cache: see :func:`unseen.ground.cache.cache_folder`.
        progress: progress callback for drawing.

    Raises:
        DataError: one line naming file, row and hint, on the first inconsistency.
    """
    if not isinstance(name, str | PathLike):
        hint = "pass a name or folder; unseen.make_dataset(images, attributes) takes tables and datasets"
        raise DataError(f"{type(name).__name__} is not a dataset's name or folder", hint=hint)
    if str(name) != FIELDGUIDE:
        return load_saved(name) if is_saved(name) else load_folder(name)
    from unseen.fieldguide.build import VERSION, build

    folder = cache_folder(cache) / "datasets" / f"fieldguide-v{VERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # only one of several processes draws
            if not folder.is_dir():
                build(folder, tick=lambda done, total: progress("drawing fieldguide", done, total))
    return load_folder(folder, FIELDGUIDE)
