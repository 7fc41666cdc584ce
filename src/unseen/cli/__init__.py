"""The ``unseen`` command: parse, call the library, print."""

from __future__ import annotations

from typing import Annotated

import typer

from unseen import __version__
from unseen.cli import (
    classes,
    comparing,
    explaining,
    figures,
    listing,
    own,
    pointing,
    predicting,
    preparing,
    reporting,
    reproducing,
    serving,
    sharing,
    training,
    vectors,
)
from unseen.cli.common import app, err, main, out

__all__ = [
    "app",
    "classes",
    "comparing",
    "err",
    "explaining",
    "figures",
    "listing",
    "main",
    "out",
    "own",
    "pointing",
    "predicting",
    "preparing",
    "reporting",
    "reproducing",
    "serving",
    "sharing",
    "training",
    "vectors",
]


def _version(value: bool) -> None:
    if value:
        out.print(f"unseen {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version.")] = False,
) -> None:
    """Recognise classes nobody has photographed, from a table of their attributes."""
