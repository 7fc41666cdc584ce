"""The ``unseen`` command: parse, call the library, print."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.models import CommandInfo

from unseen.cli import (
    classes,
    common,
    comparing,
    describing,
    embedding,
    explaining,
    figures,
    listing,
    own,
    pointing,
    predicting,
    preparing,
    reporting,
    reproducing,
    reviewing,
    schemas,
    serving,
    sharing,
    stores,
    training,
    vectors,
)
from unseen.cli.common import Command, app, err, main, out
from unseen.cli.files import with_config
from unseen.ground.progress import silence_bars
from unseen.version import __version__

__all__ = [
    "app",
    "classes",
    "comparing",
    "describing",
    "embedding",
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
    "reviewing",
    "schemas",
    "serving",
    "sharing",
    "stores",
    "training",
    "vectors",
]

PANELS = {
    "Your images": "init describe check train predict merge review similar explain serve report classes",
    "Share": "save push export embed schema",
    "Research": "demo prepare import vectors evaluate compare ablate reproduce figures pointing stores list",
}


def _arrange() -> None:
    """Sort the commands by use under headings, and make each a :class:`Command`."""
    places = {name: (panel, i) for panel, names in PANELS.items() for i, name in enumerate(names.split())}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        group.rich_help_panel = places[str(group.typer_instance.info.name)][0]
        for command in group.typer_instance.registered_commands:
            _complete(command)
    for command in app.registered_commands:
        command.rich_help_panel = places[_name(command)][0]
        _complete(command)
    app.registered_commands.sort(key=lambda c: (list(PANELS).index(places[_name(c)][0]), places[_name(c)][1]))


def _complete(command: CommandInfo) -> None:
    """Add what every command has."""
    assert command.callback is not None
    command.name, command.cls, command.callback = _name(command), Command, with_config(command.callback)


def _name(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


_arrange()


def _version(value: bool) -> None:
    if value:
        out.print(f"unseen {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")] = False,
    loud: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print the log messages of libraries, and a traceback with an error."),
    ] = False,
) -> None:
    """Recognize classes without training images, from a table of their attributes.

    Options can also come from a file (--config) or from environment variables: UNSEEN_DEVICE, UNSEEN_ENGINE,
    UNSEEN_CACHE, UNSEEN_CONFIG, and UNSEEN_COMMAND_OPTION such as UNSEEN_PREDICT_TOP.
    """
    if quiet:
        err.quiet = True
        silence_bars()
    if loud:
        import logging

        common.verbose = True
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
