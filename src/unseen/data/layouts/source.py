"""The source of an import, opened once: a file, folder or zip archive; and the images that it names."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.etree import ElementTree

from unseen.errors import DataError
from unseen.ground.extras import needed

HEAD = 2**16
"""Number of bytes by which a file's layout is recognized."""
LARGEST = 2**31
"""Largest annotation file, in bytes, that is read as a whole."""


@dataclass(frozen=True, eq=False)
class Source:
    """A file, a folder or a zip archive.

    Args:
        path: path of the source.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise DataError("no such file or folder", where=self.path, hint="fix the path")

    @cached_property
    def archive(self) -> zipfile.ZipFile | None:
        """The archive if the source is a zip; workbooks do not count."""
        if self.path.is_dir() or self.path.suffix.lower() == ".xlsx" or not zipfile.is_zipfile(self.path):
            return None
        return zipfile.ZipFile(self.path)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Relative paths of its files, without images; for a single file only its name."""
        if self.archive is not None:
            return tuple(sorted(i.filename for i in self.archive.infolist() if not i.is_dir()))
        if not self.path.is_dir():
            return (self.path.name,)
        return tuple(sorted(p.relative_to(self.path).as_posix() for p in _tables(self.path)))

    def named(self, *names: str) -> list[str]:
        """Its files with one of these names, or with this ending if a name starts with a dot."""
        wanted = tuple(name.lower() for name in names)
        return [
            file
            for file in self.files
            if (name := PurePosixPath(file).name.lower()) in wanted
            or any(ending.startswith(".") and name.endswith(ending) for ending in wanted)
        ]

    def place(self, file: str) -> str:
        """Name of one of its files in errors."""
        return str(self.path if self.archive is None and not self.path.is_dir() else self.path / file)

    @contextmanager
    def open(self, file: str) -> Iterator[IO[bytes]]:
        """Open one of its files."""
        try:
            if self.archive is not None:
                with self.archive.open(file) as opened:
                    yield opened
            else:
                with (self.path / file if self.path.is_dir() else self.path).open("rb") as opened:
                    yield opened
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
            hint = "fetch or export it again"
            raise DataError(str(getattr(error, "strerror", None) or error), where=self.place(file), hint=hint) from None

    def head(self, file: str) -> bytes:
        """First bytes of one of its files."""
        with self.open(file) as opened:
            return opened.read(HEAD)

    def read(self, file: str) -> bytes:
        """Whole content of one of its files."""
        with self.open(file) as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise DataError("more than 2 GiB", where=self.place(file), hint="export it in parts")
        return data

    def header(self, file: str) -> list[str]:
        """Cells of the first line of a text table, with any separator; empty if it is not text."""
        try:
            line = self.head(file).decode("utf-8-sig", errors="strict" if self.archive else "ignore").splitlines()[0]
        except (UnicodeDecodeError, IndexError):
            return []
        separator = max("\t,;", key=line.count)
        return [cell.strip().strip('"') for cell in line.split(separator)]

    def load_xml(self, file: str, hint: str) -> ElementTree.Element:
        """Parse one of its files as XML."""
        parse = needed("defusedxml.ElementTree", "XML").fromstring
        try:
            root: ElementTree.Element = parse(self.read(file))
        except (ElementTree.ParseError, ValueError) as error:  # from entities, which no export has
            raise DataError(f"not valid XML ({error})", where=self.place(file), hint=hint) from None
        return root

    @cached_property
    def json(self) -> Any:
        """Content if it is a JSON file; else ``None``."""
        return self.load_json(self.files[0]) if self.is_json else None

    @property
    def is_json(self) -> bool:
        """Whether it is one file that starts like JSON."""
        if self.path.is_dir() or self.archive is not None:
            return False
        return self.head(self.path.name).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")

    def load_json(self, file: str) -> Any:
        """Parse one of its files as JSON."""
        try:
            return json.loads(self.read(file))
        except (ValueError, RecursionError) as error:
            raise DataError(f"not valid JSON ({error})", where=self.place(file), hint="export it again") from None


def _tables(folder: Path) -> Iterator[Path]:
    """Files below a folder that may be annotations or tables; skips folders of images."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".json", ".csv", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".parquet", ".xlsx"):
            yield path


@dataclass(frozen=True, eq=False)
class Images:
    """Finds the images that an export names.

    Args:
        source: the export; its zip may contain them.
        folder: another folder to search.
        kept: folder for images unpacked from an archive.
    """

    source: Source
    folder: Path | None
    kept: Path
    _by_name: dict[str, list[Path]] = field(default_factory=dict)

    def find(self, name: str, beside: str = "", where: str = "") -> Path:
        """The file of an image.

        Args:
            name: path in the export; its last parts may suffice.
            beside: folder of the annotations inside the export.
            where: place of the entry, for errors.

        Raises:
            DataError: there is none, or there are several with that name.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        if self.source.archive is not None and (found := self._packed(wanted, beside)) is not None:
            return found
        for root in self._roots(beside):
            for inside in (wanted, PurePosixPath("images") / wanted, PurePosixPath(wanted.name)):
                if not inside.is_absolute() and ".." not in inside.parts and (root / inside).is_file():
                    return root / inside
        if not self._by_name:
            for root in self._roots(""):
                for path in root.rglob("*"):
                    if path.is_file():
                        self._by_name.setdefault(path.name, []).append(path)
        found_all = sorted(set(self._by_name.get(wanted.name, [])))
        if len(found_all) == 1:
            return found_all[0]
        if found_all:
            problem = f'{len(found_all)} images are named "{wanted.name}"'
            raise DataError(problem, where=where, hint=f"{found_all[0]} and {found_all[1]}; keep one")
        looked = ", ".join(str(root) for root in self._roots(""))
        raise DataError(f'no image "{name}" in {looked}', where=where, hint="pass the image folder: --images FOLDER")

    def _roots(self, beside: str) -> list[Path]:
        own = self.source.path if self.source.path.is_dir() else self.source.path.parent
        given = [] if self.folder is None else [self.folder]
        return given or [own / beside, own] if beside else given or [own]

    def _packed(self, wanted: PurePosixPath, beside: str) -> Path | None:
        files = self.source.files
        exact = f"{beside}/{wanted}".lstrip("/")
        inside = [exact] if exact in files else [f for f in files if PurePosixPath("/" + f).name == wanted.name]
        if len(inside) != 1:
            return None
        target = self.kept / inside[0].replace("/", "_")
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.source.read(inside[0]))
        return target
