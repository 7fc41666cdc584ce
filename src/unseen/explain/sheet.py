"""A figure together with its numbers: written as images, CSV and JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.errors import UnseenError
from unseen.ground.extras import require
from unseen.ground.files import write_json, write_text, write_with

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
FOR, AGAINST, MUTED = "#2a7f62", "#b5533c", "#8a8f94"
"""Colors for evidence in favor, against, and for everything else."""


@contextmanager
def style() -> Iterator[None]:
    """Style of all sheets; text in PDF stays text, and equal figures give equal bytes."""
    require("matplotlib")
    import matplotlib

    look: dict[Any, Any] = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "unseen",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(look):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with a size in inches, without a window."""
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def class_label(name: str) -> str:
    """A readable class name: ``001.Black_footed_Albatross`` becomes ``Black footed Albatross``."""
    head, dot, tail = name.partition(".")
    return (tail if dot and head.isdigit() and tail else name).replace("_", " ")


def shorten(text: str, most: int = 40) -> str:
    """A label with a limited number of characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True, eq=False)
class Sheet:
    """A drawn figure and its data.

    Args:
        name: name of its files without extension.
        caption: description and origin, printed below it.
        figure: the figure without the caption.
        numbers: one row per point, bar or map cell.
        summary: further numbers and all choices, as JSON types.
        dpi: pixels per inch of the PNG, and of images inside the other formats.
    """

    name: str
    caption: str
    figure: Figure
    numbers: pd.DataFrame
    summary: Mapping[str, Any]
    dpi: int = 150

    def save(self, folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
        """Write the figure in every format, ``NAME.csv`` and ``NAME.json``; returns their paths."""
        width = self.figure.get_size_inches()[0]
        wrapped = "\n".join(textwrap.wrap(self.caption, int(15.5 * width), break_on_hyphens=False))
        self.figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=8, color="#444444", linespacing=1.4)
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")  # lay out once, so that every format shows the same
        paths = []
        for form in formats:
            paths.append(folder / f"{self.name}.{form}")
            with style():
                write_with(paths[-1], self._writer(form))
        write_text(folder / f"{self.name}.csv", self.numbers.to_csv(index=False))
        write_json(folder / f"{self.name}.json", {"caption": self.caption, **self.summary})
        return [*paths, folder / f"{self.name}.csv", folder / f"{self.name}.json"]

    def _writer(self, form: str) -> Callable[[Path], None]:
        unstamped = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

        def write(temporary: Path) -> None:
            self.figure.savefig(temporary, format=form, dpi=self.dpi, metadata=unstamped[form])

        return write


def check_formats(formats: Sequence[str]) -> None:
    """Raise an :class:`UnseenError` if a figure cannot be written in one of these formats."""
    for form in formats:
        if form not in FORMATS:
            raise UnseenError(f'unknown figure format "{form}"', hint=f"use one of {', '.join(FORMATS)}")
    if not formats:
        raise UnseenError("no figure format", hint=f"use one of {', '.join(FORMATS)}")
