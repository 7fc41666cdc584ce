"""Shared by the ``unseen classes`` commands: the group, arguments, and the open model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.classes.changes import IMAGES
from unseen.cli.common import app, err, out, plain_text
from unseen.ground.progress import quiet_libraries

if TYPE_CHECKING:
    from unseen.model.support import Support
    from unseen.recognizer import Recognizer

commands = typer.Typer(
    name="classes",
    help="Change and compare the classes of a trained model; no retraining.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(commands)

ModelArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder of `unseen train`, or a saved model.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="Name of the class.", show_default=False)]


def support_of(run: Path) -> Support | None:
    """Images of classes; ``None`` if no class has any, without importing torch."""
    if not (run / IMAGES).is_file():
        return None
    from unseen.model.support import read_support

    return read_support(run)


def save_support(run: Path, support: Support) -> None:
    """Save the images of classes."""
    from unseen.model.support import keep_support

    keep_support(run, support)


def load(run: Path, seed: int | None) -> Recognizer:
    """Open the model on the CPU."""
    from unseen.recognizer import Recognizer

    with quiet_libraries():
        return Recognizer.load(run, seed=seed, device="cpu")


def say(text: str) -> None:
    """Print a line of the result."""
    out.print(text, highlight=False, soft_wrap=True, markup=False)


def warn(texts: list[str]) -> None:
    """Print notes to the standard error."""
    for text in texts:
        err.print(f"[yellow]note:[/] {plain_text(text)}", highlight=False, soft_wrap=True)


def image_files(given: list[Path]) -> list[Path]:
    """Expand folders to the images in them, with a note on other files."""
    from unseen.data.finding import FoundImages

    if not given:
        return []
    found = FoundImages(given)
    files = list(found)
    warn(found.left_out.lines())
    return [Path(file) for file in files]
