"""A journal of finished work: one JSON line with checksum per piece, so that killed work can resume.

Only complete lines count: a crash tears at most the last one, and a changed line fails its checksum.
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
    """A record as a line."""
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def journal_record(line: bytes) -> dict[str, Any]:
    """Parse what :func:`journal_line` wrote; ValueError if it is torn or damaged."""
    text = line[9:].removesuffix(b"\n")
    if line != b"%08x %s\n" % (zlib.crc32(text), text):
        raise ValueError("the checksum does not match")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not a record")
    return record


def intact_records(path: Path) -> Iterator[dict[str, Any]]:
    """All records of a journal whose order does not matter; ignores torn or damaged lines."""
    with path.open("rb") as lines:
        for line in lines:
            with suppress(ValueError):
                yield journal_record(line)


class Journal:
    """A journal opened for reading and appending; OSError if it cannot be written.

    Args:
        path: path of the file; created if missing.
        sync_seconds: shortest time between two syncs to disk, as protection against power loss; 0 syncs at every
            append.
    """

    def __init__(self, path: Path, sync_seconds: float = 0.0) -> None:
        self.path = path
        self._file = path.open("r+b" if path.is_file() else "w+b")
        self._every = sync_seconds
        self._due = time.monotonic() + sync_seconds if sync_seconds else 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file; everything that counts has been flushed, or its failure reported."""
        with suppress(OSError):
            self._file.close()

    def records(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Records up to the first torn or damaged line, each with its end position."""
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
        """Truncate after a position."""
        self._file.seek(end)
        self._file.truncate()

    def append(self, *records: Mapping[str, Any]) -> None:
        """Append records; a torn last line is terminated first."""
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
