"""Images named by files, folders, patterns and lists, one after another."""

from __future__ import annotations

import csv
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

from unseen.errors import DataError, UnseenError

ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2"),
    *(".ppm", ".pgm", ".tga"),
}
"""What a folder is searched for; a file that is named is taken whatever it is called."""
COLUMNS = ("image", "image", "file", "filename", "path")
"""What the column of images in a table may be called."""
STDIN = "-"


class FoundImages:
    """Images in a fixed order, found anew at each iteration; no list of them is held.

    Args:
        sources: files; folders, for the images below them, hidden ones apart; patterns such as ``pics/**/*.jpg``, for
            the files they match; ``-`` for paths on standard input, a line each.
        lists: text files with a path a line, or CSV and TSV tables with a column :data:`COLUMNS`. Relative paths are
            looked for in the current folder, then beside the list. A file that is missing is given all the same.

    Raises:
        UnseenError: when iterated: a source that is none of these, a folder without images, an unreadable list.
    """

    def __init__(self, sources: Sequence[Path | str], lists: Sequence[Path] = ()) -> None:
        self._sources, self._lists = [os.fspath(s) for s in sources], lists

    def __iter__(self) -> Iterator[Path]:
        for source in self._sources:
            yield from self._of(source)
        for path in self._lists:
            yield from _listed(path)

    def _of(self, source: str) -> Iterator[Path]:
        path = Path(source)
        if source == STDIN:
            self._stdin.seek(0)
            yield from (Path(line) for raw in self._stdin if (line := os.fsdecode(raw).strip("\r\n")))
        elif source and os.path.isdir(source):
            empty = True
            for image in _below(source):
                empty = False
                yield image
            if empty:
                raise UnseenError("no images in this folder", where=path, hint="give images, or their folder")
        elif os.path.isfile(source):
            yield path
        elif glob.has_magic(source):
            found = [path for path in sorted(map(Path, glob.iglob(source, recursive=True))) if os.path.isfile(path)]
            if not found:
                raise UnseenError("no file matches this pattern", where=source, hint="fix the pattern")
            yield from found
        else:
            raise UnseenError("no such file", where=path, hint="fix the path")

    @cached_property
    def _stdin(self) -> IO[bytes]:
        """What stands on standard input, which can be read once only."""
        kept = tempfile.SpooledTemporaryFile(max_size=2**24)  # noqa: SIM115 - it lives as long as this
        shutil.copyfileobj(sys.stdin.buffer, kept)
        return kept


def _below(folder: str) -> Iterator[Path]:
    """Images below a folder, those of a folder inside it where its name comes in order."""
    with os.scandir(folder) as entries:
        inside = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in inside:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in ENDINGS and os.path.isfile(entry.path):  # no error for loops
            yield Path(entry.path)


def _listed(path: Path) -> Iterator[Path]:
    def found(line: str) -> Path:
        beside = path.parent / line
        return beside if not os.path.exists(line) and os.path.isfile(beside) else Path(line)

    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            if path.suffix.lower() not in (".csv", ".tsv"):
                yield from (found(line.strip()) for line in lines if line.strip())
                return
            rows = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            columns = [c for c in rows.fieldnames or () if c.strip().lower() in COLUMNS]
            if not columns:
                raise DataError("no column of images", where=path, hint=f'call it "{COLUMNS[0]}"')
            yield from (found(cell) for row in rows if (cell := (row[columns[0]] or "").strip()))
    except FileNotFoundError:
        raise DataError("no such file", where=path, hint="fix the path") from None
    except csv.Error as error:
        raise DataError(str(error), where=path, hint="fix the table") from None


def find_images(sources: Sequence[Path | str]) -> list[Path]:
    """All of :class:`FoundImages`."""
    return list(FoundImages(sources))
