"""Datasets by name or folder, and where computed things are kept."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from unseen.data.dataset import Dataset
from unseen.data.folder import load_folder
from unseen.ground.progress import Progress, silent

FIELDGUIDE = "fieldguide"


def cache_folder(folder: Path | str | None = None) -> Path:
    """Where drawn datasets and region stores go: the argument, ``UNSEEN_CACHE``, or ``~/.cache/unseen``."""
    chosen = folder or os.environ.get("UNSEEN_CACHE") or Path.home() / ".cache" / "unseen"
    return Path(chosen).expanduser()


def load_dataset(name: Path | str, *, cache: Path | str | None = None, progress: Progress = silent) -> Dataset:
    """Load ``fieldguide`` (drawn on first use) or a dataset folder.

    Args:
        name: ``fieldguide``, or a folder as :mod:`unseen.data.folder` describes it.
        cache: see :func:`cache_folder`.
        progress: of drawing.

    Raises:
        DataError: one line naming file, row and hint, on the first inconsistency.
    """
    if str(name) != FIELDGUIDE:
        return load_folder(name)
    from unseen.fieldguide.build import VERSION, build

    folder = cache_folder(cache) / "datasets" / f"fieldguide-v{VERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # of several processes one draws
            if not folder.is_dir():
                build(folder, tick=lambda done, total: progress("drawing fieldguide", done, total))
    return load_folder(folder, FIELDGUIDE)
