"""``unseen classes images``: the support images of classes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.classes.changes import IMAGES, changing, table_in_use
from unseen.cli.classes.group import ModelArgument, commands, image_files, load, say, support_of, warn
from unseen.cli.common import JsonFlag, SeedOption, print_json, print_table
from unseen.errors import UnseenError
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.model.support import ClassImages


@commands.command()
def images(
    run: ModelArgument,
    name: Annotated[
        str | None, typer.Argument(help="Name of the class [default: list all classes with images].")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILES...", help="Images of the class: files or folders.")
    ] = None,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove these images (path, name or SHA-256), or all without FILES."),
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last addition.")] = False,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add support images to a class, or list them; no training.

    Two or three images already help. Training chooses their weight on validation classes.
    """
    from unseen.model.support import keep_support, read_support

    if name is None or not (files or remove or undo):
        _list_images(run, name, as_json)
        return
    if undo and (files or remove):
        raise UnseenError("--undo takes no files", hint="unseen classes images RUN CLASS --undo")
    with changing(run) as table:
        name = table.names[table.index(name)]
        support = read_support(run)
        before, again = support[name], 0
        if undo:
            support = support.undone(name)
        elif remove:
            support = support.removed(name, [str(f) for f in files] if files else None)
        else:
            recognizer = load(run, seed)
            again = len(recognizer.add_images(name, image_files(files or [])))
            support = recognizer.support
        keep_support(run, support)
    now = support[name]
    if as_json:
        print_json({"class": name, **_of_class(now), "known": again, "file": str(run / IMAGES)})
        return
    difference = len(now.images) - len(before.images)
    verb = "added" if difference >= 0 else "removed"
    say(f"{name}: {abs(difference)} {verb}, {counted(len(now.images), 'image')} in all, kept in {run / IMAGES}")
    if again:
        warn([f"{again} of them {'was' if again == 1 else 'were'} there already, by content"])


def _list_images(run: Path, name: str | None, as_json: bool) -> None:
    """Print the origin of the images of one class, or of all classes."""
    from unseen.model.support import Support

    table, support = table_in_use(run), support_of(run) or Support()
    names = [n for n in table.names if support[n].images] if name is None else [table.names[table.index(name)]]
    if as_json:
        print_json({"classes": {n: _of_class(support[n]) for n in names}})
        return
    rows = [
        {
            "class": n,
            "image": image.file or "(pixels)",
            "added": image.added[:16].replace("T", " "),
            "SHA-256": image.sha256[:12],
        }
        for n in names
        for image in support[n].images
    ]
    if rows:
        print_table(rows, {column: column for column in rows[0]})
    say(f"{counted(len(rows), 'image')} of {counted(sum(bool(support[n].images) for n in names), 'class')}")


def _of_class(found: ClassImages) -> dict[str, Any]:
    return {"attributes": found.attributes, "images": [asdict(image) for image in found.images]}
