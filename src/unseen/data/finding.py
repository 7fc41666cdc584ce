"""Images given by files, folders, patterns and lists, one after another."""

from __future__ import annotations

import codecs
import csv
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO

from unseen.errors import DataError, UnseenError
from unseen.ground.image_files import LeftOut, image_files
from unseen.ground.images import HeldImage, begins_like_an_image

COLUMNS = ("image", "picture", "file", "filename", "path")
"""Possible names of the image column of a table."""
STDIN = "-"


class FoundImages:
    """Images in a fixed order, searched again at each iteration; keeps no list of them.

    Args:
        sources: files, with any name; folders, for the images below them
            (:func:`unseen.ground.image_files.image_files`); patterns such as ``pics/**/*.jpg``, for the files they
            match; ``-`` for paths on standard input, one per line; see :meth:`piped_image`.
        lists: text files with one path per line, or CSV and TSV tables with a column :data:`COLUMNS`. Relative paths
            are resolved against the current folder, then against the folder of the list. Missing files are still
            yielded.

    Attributes:
        left_out: files of folders that are not images, from the last iteration.

    Raises:
        UnseenError: when iterated: an invalid source, a folder without images, or an unreadable list.
    """

    def __init__(self, sources: Sequence[Path | str], lists: Sequence[Path] = ()) -> None:
        self._sources, self._lists = [os.fspath(s) for s in sources], lists
        self.left_out = LeftOut()

    def __iter__(self) -> Iterator[Path]:
        self.left_out = LeftOut()
        for source in self._sources:
            yield from self._of(source)
        for path in self._lists:
            yield from _listed(path)

    def _of(self, source: str) -> Iterator[Path]:
        path = Path(source)
        if source == STDIN:
            self._stdin.seek(0)
            yield from (_named(line) for raw in self._stdin if (line := os.fsdecode(raw).strip("\r\n")))
        elif source and os.path.isdir(source):
            empty = True
            for image in image_files(source, self.left_out):
                empty = False
                yield Path(image)
            if empty:
                said = "; ".join(["no images in this folder", *self.left_out.lines()])
                raise UnseenError(said, where=path, hint="pass images, or their folder")
        elif os.path.isfile(source):
            yield path
        elif glob.has_magic(source):
            found = [path for path in sorted(map(Path, glob.iglob(source, recursive=True))) if os.path.isfile(path)]
            if not found:
                raise UnseenError("no file matches this pattern", where=source, hint="fix the pattern")
            yield from found
        else:
            raise UnseenError("no such file", where=path, hint="fix the path")

    def piped_image(self) -> HeldImage | None:
        """The image whose bytes are on standard input, if ``-`` is the only source and not a list of paths."""
        if self._sources != [STDIN] or self._lists:
            return None
        self._stdin.seek(0)
        if not begins_like_an_image(self._stdin.read(16)):
            return None
        self._stdin.seek(0)
        return HeldImage(STDIN, self._stdin.read())

    @cached_property
    def _stdin(self) -> IO[bytes]:
        """Content of standard input, which can be read only once."""
        kept = tempfile.SpooledTemporaryFile(max_size=2**24)  # noqa: SIM115 - it lives as long as this
        shutil.copyfileobj(sys.stdin.buffer, kept)
        return kept


def _named(line: str, folder: Path | None = None) -> Path:
    """A file named by a line, perhaps in quotes or with backslashes: in the current folder, or else in another."""
    for name in dict.fromkeys((line, line.replace("\\", "/"), line.strip("\"'"))):
        for place in [Path(name)] if folder is None else [Path(name), folder / name]:
            if os.path.isfile(place):
                return place
    return Path(line)


def _listed(path: Path) -> Iterator[Path]:
    def found(line: str) -> Path:
        return _named(line, path.parent)

    try:
        with path.open(encoding=_encoding(path), errors="surrogateescape", newline="") as lines:
            if path.suffix.lower() not in (".csv", ".tsv"):
                yield from (found(line.strip()) for line in lines if line.strip())
                return
            header = next(lines, "")
            if header.lower().startswith("sep="):  # Excel's own
                header = next(lines, "")
            rows = csv.DictReader(chain([header], lines), delimiter=max("\t;,", key=header.count))
            named_so = {c.strip().lower(): c for c in rows.fieldnames or ()}
            columns = [named_so[name] for name in COLUMNS if name in named_so]
            if not columns:
                named = ", ".join(c for c in rows.fieldnames or () if c) or "an empty first row"
                hint = f'name it "{COLUMNS[0]}"; the columns are {named}'
                raise DataError("no image column", where=path, hint=hint)
            yield from (found(cell) for row in rows if (cell := (row[columns[0]] or "").strip()))
    except FileNotFoundError:
        raise DataError("no such file", where=path, hint="fix the path") from None
    except csv.Error as error:
        raise DataError(str(error), where=path, hint="fix the table") from None
    except UnicodeDecodeError as error:  # only UTF-16 has no place for stray bytes
        raise DataError(f"not {error.encoding} text", where=path, hint="save it again as UTF-8") from None


def _encoding(path: Path) -> str:
    """Decode UTF-16, such as "Unicode text" from Windows, or UTF-8."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le"
    return "utf-16-be" if head[::2].count(0) > len(head) // 4 else "utf-8-sig"


def find_images(sources: Sequence[Path | str]) -> list[Path]:
    """All of :class:`FoundImages`."""
    return list(FoundImages(sources))
