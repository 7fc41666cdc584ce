"""The cache folder for drawn datasets, region stores and converted networks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(folder: Path | str | None = None) -> Path:
    """The cache folder: the argument, ``UNSEEN_CACHE``, or ``~/.cache/unseen``."""
    chosen = folder or os.environ.get("UNSEEN_CACHE") or Path.home() / ".cache" / "unseen"
    return Path(chosen).expanduser()
