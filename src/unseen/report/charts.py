"""Charts as geometry that the templates of the page draw in SVG, with text as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 46
"""Size and margins of the drawing area, in units of the SVG's view box."""

MOST_POINTS = 240
"""Largest number of points of a line; more are indistinguishable at this size."""

LOOKS = ("main", "second", "faint", "ideal")
"""Styles of lines, distinguished by dashes and width as well as by color."""


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A limited number of points of a line, evenly spaced, with both ends; drops points that are not numbers."""
    whole = np.isfinite(x) & np.isfinite(y)
    x, y = x[whole], y[whole]
    if len(x) <= most:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
    return x[kept], y[kept]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, roughly ``about`` of them."""
    span = max(high - low, 1e-12)
    size = 10 ** math.floor(math.log10(span / about))
    step = min((m * size for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(span / s - about))
    first = math.ceil(low / step - 1e-9)
    count = math.floor((high - first * step) / step + 1e-9) + 1
    return [round((first + i) * step, 10) for i in range(count)]


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Args:
        label: quantity with its unit.
        low, high: ends.
        percent: whether values are fractions shown as percent.
    """

    label: str
    low: float
    high: float
    percent: bool = False

    def write(self, value: float) -> str:
        """Text of a tick."""
        return f"{100 * value:.4g}%" if self.percent else f"{value:g}"

    def share(self, value: float) -> float:
        """Position of a value, from 0 at the low end to 1 at the high end."""
        return (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)


@dataclass(frozen=True)
class Line:
    """A line through points, in the axes' units.

    Args:
        x, y: of its points.
        name: in the legend; empty for none.
        look: one of :data:`LOOKS`.
    """

    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    look: str = "main"


@dataclass(frozen=True)
class Mark:
    """A point to look at, with its text beside it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A point with a stem.

    Args:
        x, y: position.
        foot: start of its stem, in the vertical axis's unit.
        weight: area, as a share of the largest dot's.
        said: tooltip.
    """

    x: float
    y: float
    foot: float
    weight: float
    said: str

    @property
    def radius(self) -> float:
        """Position in units of the view box."""
        return round(3 + 7 * math.sqrt(self.weight), 1)


@dataclass(frozen=True)
class Chart:
    """Everything that a template needs to draw one chart.

    Args:
        name: unique name in the page, for its labels.
        title: title.
        says: description in words, for readers who do not see it.
        x, y: axes.
        lines, dots, marks: elements; later ones are on top.
    """

    name: str
    title: str
    says: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    marks: Sequence[Mark] = ()
    box: tuple[int, int] = field(default=(WIDTH, HEIGHT), init=False)

    def across(self, value: float) -> float:
        """Position of a horizontal value in the view box."""
        return round(LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT), 1)

    def up(self, value: float) -> float:
        """Position of a vertical value in the view box."""
        return round(HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, line: Line) -> str:
        """A line as an SVG path."""
        x, y = thinned(np.asarray(line.x, float), np.asarray(line.y, float))
        return "M" + " L".join(f"{self.across(a)},{self.up(b)}" for a, b in zip(x, y, strict=True))

    def ticks_x(self) -> list[tuple[float, str]]:
        """Positions and texts along the horizontal axis."""
        return [(self.across(v), self.x.write(v)) for v in ticks(self.x.low, self.x.high)]

    def ticks_y(self) -> list[tuple[float, str]]:
        """Positions and texts along the vertical axis."""
        return [(self.up(v), self.y.write(v)) for v in ticks(self.y.low, self.y.high)]

    def drawn_marks(self) -> list[tuple[float, float, str, str, float, float]]:
        """For each mark: position, text, the end of the text at the mark, and the text's position."""
        found = []
        for mark in self.marks:
            x, y = self.across(mark.x), self.up(mark.y)
            side, shift = ("start", 9) if x < (LEFT + WIDTH - RIGHT) / 2 else ("end", -9)
            found.append((x, y, mark.text, side, x + shift, y + 20 if y < HEIGHT / 2 else y - 10))
        return found
