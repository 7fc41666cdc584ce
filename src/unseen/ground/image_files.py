"""Which files below a folder are images, told by one rule everywhere; what is left out is counted and named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from unseen.ground.images import FORMATS, begins_like_an_image, formats, opened_image

JUNK = ("thumbs.db", "desktop.ini")
"""What systems put beside images; like hidden files it is nobody's image."""
OTHER = {
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".raw"), "a camera raw file"),
    **dict.fromkeys((".svg", ".pdf", ".eps", ".ai"), "a vector graphic"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "a video"),
}
"""Endings of what a person may take for images and is not read, though some of it begins like a TIFF."""
HEIF = (".heic", ".heif", ".hif")
NAMED = 3


class LeftOut:
    """Files that are not taken, by reason: how many, and the first of each by name."""

    def __init__(self) -> None:
        self._reasons: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, file: str, why: str) -> None:
        """Add one."""
        self._counts[why] = self._counts.get(why, 0) + 1
        named = self._reasons.setdefault(why, [])
        if len(named) < NAMED:
            named.append(file)

    def __len__(self) -> int:
        return sum(self._counts.values())

    def lines(self) -> list[str]:
        """A line for each reason."""
        return [
            f"{self._counts[why]:,} {'file' if self._counts[why] == 1 else 'files'} ignored, {why}: "
            + ", ".join(named)
            + (", ..." if self._counts[why] > len(named) else "")
            for why, named in self._reasons.items()
        ]


Tell = Callable[[str, str], object]


def _ignore(file: str, why: str) -> None:
    pass


@cache
def endings() -> frozenset[str]:
    """Endings, in lower case, of the formats that are read."""
    formats()
    return frozenset().union(*map(endings_of, (*FORMATS, "MPO")))


def endings_of(kind: str) -> frozenset[str]:
    """Endings, in lower case, that files of one of Pillow's formats have."""
    kinds = ("JPEG", "MPO") if kind in ("JPEG", "MPO") else (kind,)
    found = {ending for ending, name in Image.registered_extensions().items() if name in kinds}
    return frozenset(found | ({*HEIF} if kind == "HEIF" else set()))


def image_files(folder: str | os.PathLike[str], left: Tell = _ignore) -> Iterator[str]:
    """Paths of the images below a folder, in the order of their names, those of a folder where its name comes.

    An image is what has an ending of :func:`endings`, which to open says what is wrong with it, or whatever else opens
    as one. Linked folders are followed, but
    not into a folder that they lie in. Hidden files are passed over.

    Args:
        folder: where to look.
        left: told of every other file and why it is none.
    """
    yield from _below(os.fspath(folder), left, (os.path.realpath(folder),))


def _below(folder: str, left: Tell, above: tuple[str, ...]) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            inside = sorted((e for e in entries if not _hidden(e.name)), key=lambda e: e.name)
    except OSError as error:
        left(folder, f"an unreadable folder ({error.strerror})")
        return
    for entry in inside:
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
        if is_folder:
            linked = entry.is_symlink()
            real = os.path.realpath(entry.path) if linked else str(Path(above[-1], entry.name))
            if linked and real in above:
                left(entry.path, "a link to its own parent folder")
            else:
                yield from _below(entry.path, left, (*above, real))
        elif (why := why_none(entry.path)) is None:
            yield entry.path
        else:
            left(entry.path, why)


def _hidden(name: str) -> bool:
    return name.startswith((".", "~", "__MACOSX")) or name.lower() in JUNK


def why_none(path: str) -> str | None:
    """Why a file is not taken for an image; ``None`` where it is one."""
    ending = Path(path).suffix.lower()
    if ending in endings():
        return None
    if not os.path.isfile(path):
        return "a broken link" if os.path.islink(path) else "a pipe or a device"
    if ending in OTHER:
        return f"{ending}, {OTHER[ending]}: export it as JPEG or PNG"
    return None if _opens(path) else f"{ending or 'no ending'}, not an image format"


def _opens(path: str) -> bool:
    """Whether a file of another ending begins like an image and is one."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    if not begins_like_an_image(head):
        return False
    try:
        with opened_image(path):
            return True
    except Exception:
        return False
