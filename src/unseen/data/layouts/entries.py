"""What every layout of images is read as: an image, a class, perhaps a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright image, from its upper left corner."""


@dataclass(frozen=True)
class Entry:
    """One image to be: a file or an address, or a box in one.

    Args:
        image: the file, or the address that it is fetched from.
        label: its class; empty of an observation that has none.
        where: the place in the export, for errors.
        box: what is cut out; ``None`` for the whole image.
        size: width and height that the box's numbers are of, where the export says it.
        part: ``train``, ``val`` or ``test``, where the export says it.
        creator, license: of the image, where the export says it.
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
"""What the parts of a split are called in exports."""


def part_of(name: str) -> str:
    """``train``, ``val`` or ``test`` of a folder's or a subset's name; empty where it is none."""
    return PARTS.get(name.lower(), "")


def around(points: Sequence[tuple[float, float]]) -> Corners:
    """The smallest upright box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(corners: Corners, degrees: float, about: tuple[float, float]) -> Corners:
    """The upright box around one that is turned clockwise about a point."""
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
