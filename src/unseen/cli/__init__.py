"""The ``unseen`` command: parse, call the library, print."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.models import CommandInfo

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
    stores,
    training,
    vectors,
)
from unseen.cli.common import Command, app, err, main, out
from unseen.version import __version__

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
    "stores",
    "training",
    "vectors",
]

PANELS = {
    "Your images": "init check train predict explain serve report classes",
    "Share": "save push export",
    "Research": "demo prepare import vectors evaluate compare ablate reproduce figures pointing stores list",
}


def _arrange() -> None:
    """The commands in the order of use, under headings, each a :class:`Command`."""
    places = {name: (panel, i) for panel, names in PANELS.items() for i, name in enumerate(names.split())}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        group.rich_help_panel = places[str(group.typer_instance.info.name)][0]
        for command in group.typer_instance.registered_commands:
            command.cls = Command
    for command in app.registered_commands:
        command.rich_help_panel, command.cls = places[_name(command)][0], Command
    app.registered_commands.sort(key=lambda c: (list(PANELS).index(places[_name(c)][0]), places[_name(c)][1]))


def _name(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


_arrange()


def _version(value: bool) -> None:
    if value:
        out.print(f"unseen {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version.")] = False,
) -> None:
    """Recognise classes nobody has photographed, from a table of their attributes."""
