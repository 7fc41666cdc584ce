"""Which files below a folder are images: one rule for all; other files are counted and named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from unseen.ground.images import FORMATS, begins_like_an_image, formats, opened_image

JUNK = ("thumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin")
"""What operating systems and network storage create, such as thumbnails; like hidden files it is ignored."""
OTHER = {
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".raw"), "a camera raw file"),
    **dict.fromkeys((".svg", ".pdf", ".eps", ".ai"), "a vector graphic"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "a video"),
}
"""Extensions of unsupported formats that users may take for images; some of them start like a TIFF."""
HEIF = (".heic", ".heif", ".hif")
NAMED = 3


class LeftOut:
    """Files that are not used, by reason: their number, and the first of each by name."""

    def __init__(self) -> None:
        self._reasons: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, file: str, why: str) -> None:
        """Add a file."""
        self._counts[why] = self._counts.get(why, 0) + 1
        named = self._reasons.setdefault(why, [])
        if len(named) < NAMED:
            named.append(file)

    def __len__(self) -> int:
        return sum(self._counts.values())

    def lines(self) -> list[str]:
        """One line per reason."""
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
    """Extensions, in lower case, of the supported formats."""
    formats()
    return frozenset().union(*map(endings_of, (*FORMATS, "MPO")))


def endings_of(kind: str) -> frozenset[str]:
    """Extensions, in lower case, of one of Pillow's formats."""
    kinds = ("JPEG", "MPO") if kind in ("JPEG", "MPO") else (kind,)
    found = {ending for ending, name in Image.registered_extensions().items() if name in kinds}
    return frozenset(found | ({*HEIF} if kind == "HEIF" else set()))


def image_files(folder: str | os.PathLike[str], left: Tell = _ignore) -> Iterator[str]:
    """Paths of the images below a folder, in the order of their names; a folder's images come at its name.

    A file is an image if its extension is one of :func:`endings` (opening it then shows what is wrong with it), or if
    it opens as one. Linked folders are followed, except into a folder that contains them. Hidden files are skipped.

    Args:
        folder: folder to search.
        left: called with every other file and the reason.
    """
    yield from _below(os.fspath(folder), left, (os.path.realpath(folder),))


def _below(folder: str, left: Tell, above: tuple[str, ...]) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            inside = sorted((e for e in entries if not hidden(e.name)), key=lambda e: e.name)
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


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is never used."""
    return name.startswith((".", "~", "__MACOSX")) or name.lower() in JUNK


def why_none(path: str) -> str | None:
    """Reason why a file is not used as an image; ``None`` if it is."""
    ending = Path(path).suffix.lower()
    if ending in endings():
        return None
    if not os.path.isfile(path):
        return "a broken link" if os.path.islink(path) else "a pipe or a device"
    if ending in OTHER:
        return f"{ending}, {OTHER[ending]}: export it as JPEG or PNG"
    return None if _opens(path) else f"{ending or 'no ending'}, not an image format"


def _opens(path: str) -> bool:
    """Whether a file with another extension starts like an image and is one."""
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
