"""Needed files of a benchmark, their official pages, and their state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unseen.errors import DataError


@dataclass(frozen=True)
class Download:
    """A file to download.

    Args:
        file: file name.
        url: URL of the file.
        page: official page that links to it.
        unpack: how to unpack it; empty if it is used as it is.
        size: bytes, if known.
        about: size as given on the page, if bytes are unknown.
        checksum: ``md5:...`` or ``sha256:...``, if published.
        source: source of size and checksum.
    """

    file: str
    url: str
    page: str
    unpack: str = ""
    size: int | None = None
    about: str = ""
    checksum: str = ""
    source: str = ""

    @property
    def size_text(self) -> str:
        """Readable size for a table."""
        return f"{self.size:,} bytes" if self.size is not None else self.about or "size not known"


@dataclass(frozen=True)
class Need:
    """A file or folder below the root.

    Args:
        name: name for readers.
        what: purpose.
        paths: possible places, the recommended one first; folders end with ``/``.
        download: download that contains it.
        required: whether the dataset needs it.
        editions: (bytes, sha256) of editions that this project has tested; others are noted.
    """

    name: str
    what: str
    paths: tuple[str, ...]
    download: Download
    required: bool = True
    editions: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class State:
    """State of a needed file.

    Args:
        need: the needed file.
        path: where it was found; ``None`` if it was not.
        state: found, missing, packed (its archive is there), wrong size, or checksum differs.
        next: what to do; empty for nothing.
        note: remark on a file that is fine.
    """

    need: Need
    path: Path | None
    state: str
    next: str = ""
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether the file can be read."""
        return self.path is not None

    def to_json(self) -> dict[str, Any]:
        """The state for ``--json``."""
        download = self.need.download
        return {
            "name": self.need.name,
            "what": self.need.what,
            "required": self.need.required,
            "path": None if self.path is None else str(self.path),
            "place": self.need.paths[0],
            "state": self.state,
            "next": self.next,
            "note": self.note,
            "download": download.file,
            "page": download.page,
            "url": download.url,
            "size": download.size,
            "about": download.about,
            "checksum": download.checksum,
            "source": download.source,
        }


def look(need: Need, root: Path, verify: bool = False) -> State:
    """Look for a needed file below the root.

    Args:
        need: the needed file.
        root: folder of downloads.
        verify: also compute checksums of archives and files.
    """
    download = need.download
    archive = root / download.file
    fetch = f"download {download.file} from {download.page} into {root}"
    if download.unpack:
        fetch += f", then: cd {root} && {download.unpack}"
    damaged = _damage(archive, download, verify) if archive.is_file() else ""
    for place in need.paths:
        path = root / place
        if not (path.is_dir() if place.endswith("/") else path.is_file()):
            continue
        if damaged:
            return State(need, path, damaged, f"the download is damaged; {fetch}")
        return State(need, path, "found", note=_edition(need, path) if verify else "")
    if damaged:
        return State(need, None, damaged, f"the download is damaged; {fetch}")
    if archive.is_file():
        return State(need, None, "packed", f"cd {root} && {download.unpack}")
    return State(need, None, "missing", fetch)


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise DataError(error.strerror or str(error), where=path, hint="change its permissions") from None


def _damage(archive: Path, download: Download, verify: bool) -> str:
    if download.size is not None and archive.stat().st_size != download.size:
        return "wrong size"
    algorithm, _, wanted = download.checksum.partition(":")
    if verify and wanted and digest(archive, algorithm) != wanted:
        return "checksum differs"
    return ""


def _edition(need: Need, path: Path) -> str:
    if not need.editions:
        return ""
    known = (path.stat().st_size, digest(path)) in need.editions
    return (
        "an edition that this version was tested with" if known else "not an edition that this version was tested with"
    )
