"""What is imported, opened once: a file, a folder or a zip archive; and where the images lie that it names."""

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
"""Bytes by which a file's layout is told."""
LARGEST = 2**31
"""Bytes of an annotation file that is read as a whole."""


@dataclass(frozen=True, eq=False)
class Source:
    """A file, a folder or a zip archive.

    Args:
        path: where it lies.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise DataError("no such file or folder", where=self.path, hint="fix the path")

    @cached_property
    def archive(self) -> zipfile.ZipFile | None:
        """The archive, where it is a zip; a workbook is none."""
        if self.path.is_dir() or self.path.suffix.lower() == ".xlsx" or not zipfile.is_zipfile(self.path):
            return None
        return zipfile.ZipFile(self.path)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Paths of its files, relative to it; of a file only its name. Those of images are left out."""
        if self.archive is not None:
            return tuple(sorted(i.filename for i in self.archive.infolist() if not i.is_dir()))
        if not self.path.is_dir():
            return (self.path.name,)
        return tuple(sorted(p.relative_to(self.path).as_posix() for p in _tables(self.path)))

    def named(self, *names: str) -> list[str]:
        """Those of its files that are called so, or end so where a name begins with a dot."""
        wanted = tuple(name.lower() for name in names)
        return [
            file
            for file in self.files
            if (name := PurePosixPath(file).name.lower()) in wanted
            or any(ending.startswith(".") and name.endswith(ending) for ending in wanted)
        ]

    def place(self, file: str) -> str:
        """What errors call one of its files."""
        return str(self.path if self.archive is None and not self.path.is_dir() else self.path / file)

    @contextmanager
    def open(self, file: str) -> Iterator[IO[bytes]]:
        """One of its files."""
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
        """The first bytes of one of its files."""
        with self.open(file) as opened:
            return opened.read(HEAD)

    def read(self, file: str) -> bytes:
        """The whole of one of its files."""
        with self.open(file) as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise DataError("more than 2 GiB", where=self.place(file), hint="export it in parts")
        return data

    def header(self, file: str) -> list[str]:
        """The cells of a text table's first line, however they are separated; empty where it is no text."""
        try:
            line = self.head(file).decode("utf-8-sig", errors="strict" if self.archive else "ignore").splitlines()[0]
        except (UnicodeDecodeError, IndexError):
            return []
        separator = max("\t,;", key=line.count)
        return [cell.strip().strip('"') for cell in line.split(separator)]

    def load_xml(self, file: str, hint: str) -> ElementTree.Element:
        """One of its files as XML."""
        parse = needed("defusedxml.ElementTree", "XML").fromstring
        try:
            root: ElementTree.Element = parse(self.read(file))
        except (ElementTree.ParseError, ValueError) as error:  # the latter of entities, which no export has
            raise DataError(f"not valid XML ({error})", where=self.place(file), hint=hint) from None
        return root

    @cached_property
    def json(self) -> Any:
        """Its content, where it is a JSON file; else ``None``."""
        return self.load_json(self.files[0]) if self.is_json else None

    @property
    def is_json(self) -> bool:
        """Whether it is one file that begins like JSON."""
        if self.path.is_dir() or self.archive is not None:
            return False
        return self.head(self.path.name).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")

    def load_json(self, file: str) -> Any:
        """One of its files as JSON."""
        try:
            return json.loads(self.read(file))
        except (ValueError, RecursionError) as error:
            raise DataError(f"not valid JSON ({error})", where=self.place(file), hint="export it again") from None


def _tables(folder: Path) -> Iterator[Path]:
    """Files below a folder that may be annotations or tables; folders of images are passed through."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".json", ".csv", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".parquet", ".xlsx"):
            yield path


@dataclass(frozen=True, eq=False)
class Images:
    """Finds the images that an export names.

    Args:
        source: the export; its zip may hold them.
        folder: where else they lie.
        kept: where those of an archive are unpacked.
    """

    source: Source
    folder: Path | None
    kept: Path
    _by_name: dict[str, list[Path]] = field(default_factory=dict)

    def find(self, name: str, beside: str = "", where: str = "") -> Path:
        """The file of an image.

        Args:
            name: as the export has it: a path, of which the last parts may do.
            beside: the folder of the annotations, inside the export.
            where: the place of the entry, for errors.

        Raises:
            DataError: there is none, or there are several of that name.
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
