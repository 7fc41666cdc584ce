"""SHA-256 of image files, cached between runs."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from unseen.errors import DataError, UnseenError
from unseen.ground.files import read_json, write_json

_RACY_NS = 2 * 10**9  # a file this new can change again without a change of its time


def content_hashes(files: Sequence[Path], cache: Path) -> list[str]:
    """SHA-256 of every file's content, cached by path, size and modification times."""
    known: dict[str, list[Any]] = {}
    with suppress(UnseenError):
        known = read_json(cache)
    if not isinstance(known, dict):
        known = {}
    now = time.time_ns()
    fresh: dict[str, list[Any]] = {}

    def digest(file: Path) -> str:
        try:
            stat, key = file.stat(), os.path.abspath(file)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = known.get(key)
            if entry is not None and entry[:3] == state:
                result: str = entry[3]
                return result
            with file.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=file) from None
        if max(stat.st_mtime_ns, stat.st_ctime_ns) < now - _RACY_NS:
            fresh[key] = [*state, found]
        return found

    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(digest, files))
    if fresh:
        with suppress(UnseenError):  # continue without a cache that cannot be written
            write_json(cache, dict(sorted((known | fresh).items())), sealed=True)
    return hashes
