"""A journal of finished work: a JSON line a piece with its checksum, so that work that was killed is resumed.

A line counts once it is whole: a crash tears the last one at most, and one that was changed is not believed.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def journal_line(record: Mapping[str, Any]) -> bytes:
    """A record as its line."""
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def journal_record(line: bytes) -> dict[str, Any]:
    """What :func:`journal_line` wrote; ValueError where it is torn or damaged."""
    text = line[9:].removesuffix(b"\n")
    if line != b"%08x %s\n" % (zlib.crc32(text), text):
        raise ValueError("the checksum does not match")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not a record")
    return record


def intact_records(path: Path) -> Iterator[dict[str, Any]]:
    """Every record of a journal whose order does not matter; lines that are torn or damaged count for nothing."""
    with path.open("rb") as lines:
        for line in lines:
            with suppress(ValueError):
                yield journal_record(line)


class Journal:
    """A journal opened for reading and appending; OSError where it cannot be written.

    Args:
        path: made where there is none.
        sync_seconds: least time between two waits for the disk, against loss of power; 0 waits at every append.
    """

    def __init__(self, path: Path, sync_seconds: float = 0.0) -> None:
        self.path = path
        self._file = path.open("r+b" if path.is_file() else "w+b")
        self._every = sync_seconds
        self._due = time.monotonic() + sync_seconds if sync_seconds else 0.0

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it; all that counts has been flushed, or could not be and was said."""
        with suppress(OSError):
            self._file.close()

    def records(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Records from the first to the one before a torn or damaged line, each with the position where it ends."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            try:
                record = journal_record(line)
            except ValueError:
                return
            end += len(line)
            yield record, end

    def cut(self, end: int) -> None:
        """Forget what stands after a position."""
        self._file.seek(end)
        self._file.truncate()

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records after the last line; a torn one is ended first."""
        end = self._file.seek(0, os.SEEK_END)
        if end:
            self._file.seek(end - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")
        self._file.write(b"".join(map(journal_line, records)))
        self._file.flush()
        if not self._every or time.monotonic() >= self._due:
            os.fsync(self._file.fileno())
            self._due = time.monotonic() + self._every if self._every else 0.0
