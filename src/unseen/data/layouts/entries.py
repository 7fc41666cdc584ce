"""Entries: the common form of all layouts of images: an image, a class, and possibly a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright image, from its upper left corner."""


@dataclass(frozen=True)
class Entry:
    """One image to import: a file or URL, or a box in one.

    Args:
        image: the file, or the URL to download.
        label: class; empty for an observation without one.
        where: place in the export, for errors.
        box: region to cut out; ``None`` for the whole image.
        size: image width and height that the box refers to, if the export gives it.
        part: ``train``, ``val`` or ``test``, if the export gives it.
        creator, license: of the image, if the export gives it.
    """

    image: Path | str
    label: str
    where: str
    box: Corners | None = None
    size: tuple[float, float] | None = None
    part: str = ""
    creator: str = ""
    license: str = ""


PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names that exports give to the parts of a split."""


def part_of(name: str) -> str:
    """``train``, ``val`` or ``test`` from the name of a folder or subset; empty if it is neither."""
    return PARTS.get(name.lower(), "")


def around(points: Sequence[tuple[float, float]]) -> Corners:
    """The smallest upright box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(corners: Corners, degrees: float, about: tuple[float, float]) -> Corners:
    """The upright box around a box that is rotated clockwise around a point."""
    left, top, right, bottom = corners
    if not degrees:
        return corners
    angle = math.radians(degrees)
    cos, sin, (x0, y0) = math.cos(angle), math.sin(angle), about
    return around(
        [
            (x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos)
            for x in (left, right)
            for y in (top, bottom)
        ]
    )
