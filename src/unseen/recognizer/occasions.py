"""Place and month of each image, for a prior: from a table of the images, or the date in the image file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unseen.classes.prior import ANY, Prior, month_of
from unseen.classes.spreadsheets.cells import fold
from unseen.classes.spreadsheets.tables import read_table
from unseen.classes.table import ClassTable
from unseen.data.finding import COLUMNS
from unseen.errors import DataError, UnseenError
from unseen.ground.images import EncodedImage
from unseen.ground.words import counted

EXIF = "exif"
"""Month value that means: take it from each image."""
_TAKEN, _CHANGED, _IFD = 36867, 306, 0x8769
"""Exif tags: time taken, time the file was changed, and the part with the former."""


def exif_month(image: Any) -> int | None:
    """Month in which an image was taken, from its Exif data; ``None`` if missing."""
    try:
        if isinstance(image, Image.Image):
            return _month(image)
        with Image.open(BytesIO(image.read()) if isinstance(image, EncodedImage) else image) as opened:
            return _month(opened)
    except Exception:  # reading its pixels reports an unreadable image
        return None


def _month(image: Image.Image) -> int | None:
    found = image.getexif()
    text = found.get_ifd(_IFD).get(_TAKEN) or found.get(_CHANGED)
    return month_of(str(text)) if text else None


@dataclass
class Occasions:
    """Prior weights for each image: called with an image, returns the :class:`~unseen.classes.prior.Prior` for it.

    If the place or month of an image is unknown, the prior sums over it; :attr:`unplaced` and :attr:`undated` count
    such images.

    Args:
        prior: prior with the place and month chosen that are the same for all images.
        table: image path as listed, to its place and month; ``None`` if unknown.
        exif: take months from the images.
    """

    prior: Prior
    table: Mapping[str, tuple[str | None, int | None]] = field(default_factory=dict)
    exif: bool = False
    unplaced: int = 0
    undated: int = 0

    def __call__(self, image: Any) -> Prior:
        """The prior for an image."""
        where, month = self.table.get(str(image), self.table.get(Path(str(image)).name, (None, None)))
        if month is None and self.exif:
            month = exif_month(image)
        found = self.prior
        if found.places and where is not None:
            found = found.at(place=where)
        if found.months and month is not None:
            known = month in found.months
            found = found.at(month=month if known else ANY)
            self.undated += not known
        if found.places and not found.place:
            self.unplaced += 1
            found = found.at(place=ANY)
        if found.months and not found.month:
            self.undated += 1
            found = found.at(month=ANY)
        return found

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines the weights, except the images."""
        rows = [self.prior.fingerprint, self.exif, sorted((k, str(v)) for k, v in self.table.items())]
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def notes(self, table: ClassTable) -> list[str]:
        """Notes on classes and images about which the prior does not know enough."""
        return self.prior.notes(table) + [
            f"{counted(count, 'image')} without a known {what}: the prior sums over all"
            for count, what in ((self.unplaced, "place"), (self.undated, "month"))
            if count
        ]


def listed(paths: Sequence[Path]) -> dict[str, tuple[str | None, int | None]]:
    """Place and month of images from tables with a column of images and ``place``, ``month`` or ``date``.

    Raises:
        DataError: a cell that is not a month, with its row.
    """
    found: dict[str, tuple[str | None, int | None]] = {}
    for path in paths:
        if path.suffix.lower() not in (".csv", ".tsv"):
            continue
        frame = read_table(path)
        folded = {fold(str(name)): str(name) for name in frame.columns}
        image = next((folded[name] for name in COLUMNS if name in folded), None)
        when = next((folded[name] for name in ("month", "date") if name in folded), None)
        if image is None or ("place" not in folded and when is None):
            continue
        for row in range(len(frame)):
            text = "" if when is None else str(frame[when].iloc[row])
            month = month_of(text) if text else None
            if text and month is None:
                where = f'{path}, row {row + 2}, column "{when}"'
                raise DataError(f'"{text}" is not a month', where=where, hint="use 1 to 12, May, or 2026-05-17")
            at = str(frame[folded["place"]].iloc[row]) if "place" in folded else ""
            name = str(frame[image].iloc[row])
            for key in (name, str(path.parent / name)):
                found[key] = at or None, month
    return found


def read_prior(
    path: Path, place: str | None = None, month: str | None = None, lists: Sequence[Path] = ()
) -> Prior | Occasions:
    """The prior for all images, or for each image if a table of images or their dates tell more.

    Args:
        path: as in :meth:`Prior.read`.
        place, month: as in :meth:`Prior.at`; the month may be ``exif``.
        lists: tables of images, see :func:`listed`; their values take precedence.

    Raises:
        UnseenError: the prior depends on a place or month that nothing provides.
    """
    exif = month is not None and month.casefold() == EXIF
    found = Prior.read(path).at(place, None if exif else month)
    if exif and not found.months:
        raise UnseenError("the prior has no months", where=path, hint="omit the month")
    table = listed(lists)
    placed = any(where is not None for where, _ in table.values())
    dated = exif or any(when is not None for _, when in table.values())
    if not (placed or dated):
        found.check()
        return found
    open_place = found.places and not found.place
    open_month = found.months and not found.month
    checked = found.at(place=ANY if open_place and placed else None, month=ANY if open_month and dated else None)
    checked.check()
    return Occasions(found, table, exif)


def weigher(prior: Prior | Callable[[Any], Prior], table: ClassTable) -> Callable[[Any], np.ndarray]:
    """Prior weights ``(N,)`` of all classes for an image; computes each place and month once.

    A class that the prior names by a former name has the weights of that name.

    Raises:
        UnseenError: raised at once if a prior for all images is invalid, see :meth:`Prior.weights`.
    """
    if isinstance(prior, Prior):
        always = prior.named_now(table).weights(table.names)
        return lambda image: always
    if not callable(prior):
        raise UnseenError(
            f"{type(prior).__name__} is not a prior", hint="pass Prior.read(FILE), or a function of an image"
        )
    known: dict[tuple[int, str, int | str], tuple[Prior, np.ndarray]] = {}

    def weights(image: Any) -> np.ndarray:
        found = prior(image)
        key = id(found.entries), found.place, found.month
        if key not in known:
            known[key] = found, found.named_now(table).weights(table.names)
        return known[key][1]

    return weights
