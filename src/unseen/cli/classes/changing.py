"""``unseen classes add``, ``edit``, ``remove``, ``rename`` and ``reset``: change the classes without retraining."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.classes.changes import (
    IN_USE,
    Described,
    beyond_range,
    changing,
    check_model,
    keep_table,
    left_unknown,
    read_described,
    read_encoding,
    read_settings,
    taxa_in,
    trained_table,
    unit_doubt,
    values_of,
)
from unseen.classes.changes import reset as go_back
from unseen.classes.nearness import Near
from unseen.classes.nearness import closest as closest_classes
from unseen.classes.taxonomy import PREFIX
from unseen.cli.classes.group import (
    ModelArgument,
    commands,
    image_files,
    load,
    save_support,
    say,
    support_of,
    warn,
)
from unseen.cli.common import JsonFlag, SeedOption, print_json
from unseen.errors import UnseenError
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.classes.table import ClassTable

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--attributes",
        help="Table of attribute values: columns `attribute` and `value` for one class; or one row "
        "per class, one column per attribute.",
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="ATTRIBUTE=VALUE", help="Set one attribute's value (repeatable).")
]
ImagesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="FILE...",
        help="Images of the class (files or folders), used beside its attributes or instead of them.",
        show_default=False,
    ),
]
RankOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rank",
        metavar="RANK=TAXON",
        help="Set the taxon of a rank, such as family=Ardeidae (repeatable); coarser ranks follow from other classes.",
    ),
]
LikeOption = Annotated[str | None, typer.Option(help="Start from the values of this class.")]


def _described(
    name: str | None, file: Path | None, settings: list[str] | None, ranks: list[str] | None
) -> list[Described]:
    """Classes to add or edit, from the command line and from a file."""
    cells, found = read_settings(settings or []), [] if file is None else read_described(file)
    cells |= {f"{PREFIX}{rank}": taxon for rank, taxon in read_settings(ranks or [], "--rank").items()}
    if any(d.name is not None for d in found) and name is not None:
        named = [d for d in found if d.name == name]
        if not named:
            names = ", ".join(str(d.name) for d in found[:5])
            raise UnseenError(
                f'no row for "{name}"', where=file, hint=f"the file has {names}; omit the name to use all rows"
            )
        found = named
    if not found:
        found = [Described(None, {}, "--set")]
    if len(found) > 1 and cells:
        option = "--set" if settings else "--rank"
        raise UnseenError(f"{option} applies to one class only", hint="name one class, or put the values in the file")
    if any(d.name is None for d in found) and name is None:
        raise UnseenError("the class has no name", hint='unseen classes add RUN "NAME" --attributes FILE')
    return [Described(d.name or name, {**d.cells, **cells}, d.where, d.notes) for d in found]


def _doubts(table: ClassTable, name: str) -> tuple[list[str], list[Near]]:
    """Warnings about one class, and its nearest classes."""
    near = closest_classes(table, name, 3)
    lines = [
        f'"{name}" is nearly equal to "{n.name}" (cosine {n.cosine:.3f}, differing in '
        f"{counted(n.differing, 'attribute')}); see `unseen classes separate`"
        for n in near
        if n.nearly_equal
    ]
    others = table.without(name)
    doubt = unit_doubt(table.values[table.index(name)], others) if len(others) else None
    return lines + ([f'"{name}": {doubt}; check the unit'] if doubt else []), near


def _changed(run: Path, table: ClassTable, names: list[str], verb: str, lines: list[str], as_json: bool) -> None:
    """Print what was done to some classes, with warnings and nearest classes."""
    nearest: dict[str, list[dict[str, Any]]] = {}
    support = support_of(run)
    for name in names:
        bare = support is not None and not support[name].attributes
        more, near = ([], []) if bare else _doubts(table, name)
        lines += more
        nearest[name] = [asdict(n) for n in near]
    if as_json:
        print_json(
            {
                verb: names,
                "classes": len(table),
                "nearest": nearest,
                "notes": lines,
                "file": str(run / IN_USE),
            }
        )
        return
    for name in names:
        beside = ", ".join(n["name"] for n in nearest[name])
        say(f"{verb}: {name}{f'   nearest in the table: {beside}' if beside else ''}")
    say(f"{counted(len(table), 'class')} in use, saved in {run / IN_USE}")
    warn(lines)


def _new_ranks(before: ClassTable, after: ClassTable) -> list[str]:
    """A note about ranks for which training chose no threshold."""
    known, now = (() if table.taxonomy is None else table.taxonomy.ranks for table in (before, after))
    new = [rank for rank in now if rank not in known]
    if not new:
        return []
    return [f"no threshold for {', '.join(new)}: coarser answers follow that of classes until you train again"]


@commands.command()
def add(
    run: ModelArgument,
    name: Annotated[
        str | None,
        typer.Argument(help="Name of the new class [default: add every row of the table].", show_default=False),
    ] = None,
    attributes: FileOption = None,
    settings: SetOption = None,
    like: LikeOption = None,
    ranks: RankOption = None,
    images: ImagesOption = None,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add classes from attributes, images or both, without training.

    An attribute without a value gets the mean of the training classes, or the value of the class given by --like.
    """
    described = _described(name, attributes, settings, ranks)
    if images and len(described) > 1:
        raise UnseenError("--images applies to one class only", hint="name one class")
    bare = bool(images) and attributes is None and not settings and like is None
    lines: list[str] = []
    check_model(run)
    with changing(run) as current:
        table, trained, encoding = current, trained_table(run), read_encoding(run)
        recognizer = load(run, seed) if images else None
        start = None if like is None else current.values[current.index(like)]
        for one in described:
            assert one.name is not None
            lines += one.notes
            cells, taxa = taxa_in(one.cells, table, encoding)
            values = None if bare else values_of(cells, current, encoding, start=start, where=one.where)
            doubt = None if bare or start is not None else left_unknown(cells, current, encoding)
            lines += [f'"{one.name}": {doubt}'] if doubt else []
            lines += [] if bare else beyond_range(one.name, cells, encoding)
            position = table.back_from(trained, one.name)
            if position >= 0:
                lines.append(f'"{one.name}" has training images, so it is a seen class again')
            if recognizer is not None:
                given = image_files(images or [])
                recognizer.add_class(one.name, values, trained=position, images=given, taxa=taxa)
                table = recognizer.table
            elif values is not None:
                table = table.with_class(one.name, values, seen=position >= 0, trained=position, taxa=taxa)
        keep_table(run, table)
        if recognizer is not None:
            save_support(run, recognizer.support)
    lines += _new_ranks(current, table)
    _changed(run, table, [str(d.name) for d in described], "added", lines, as_json)


@commands.command()
def edit(
    run: ModelArgument,
    name: Annotated[
        str | None,
        typer.Argument(help="Name of the class [default: edit every class in the table].", show_default=False),
    ] = None,
    attributes: FileOption = None,
    settings: SetOption = None,
    like: LikeOption = None,
    ranks: RankOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Change attribute values and ranks of classes.

    The other attributes keep their values, or get those of the class given by --like.
    """
    if attributes is None and not settings and like is None and not ranks:
        raise UnseenError("nothing to change", hint="pass --attributes, --set, --rank or --like")
    described = _described(name, attributes, settings, ranks)
    lines: list[str] = []
    check_model(run)
    with changing(run) as current:
        table, encoding, support = current, read_encoding(run), support_of(run)
        for one in described:
            assert one.name is not None
            lines += one.notes
            start = current.values[current.index(one.name if like is None else like)]
            cells, taxa = taxa_in(one.cells, table, encoding)
            if taxa:
                table = table.with_taxa(one.name, taxa)
            if taxa and not cells and like is None:
                continue
            values = values_of(cells, current, encoding, start=start, where=one.where)
            lines += beyond_range(one.name, cells, encoding)
            table = table.with_values(one.name, values)
            support = support and support.described(table.names[table.index(one.name)])
        keep_table(run, table)
        if support is not None:
            save_support(run, support)
    _changed(run, table, [str(d.name) for d in described], "edited", [*lines, *_new_ranks(current, table)], as_json)


@commands.command()
def remove(
    run: ModelArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Classes.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Remove classes."""
    with changing(run) as current:
        table, support, removed = current, support_of(run), []
        for asked in names:
            removed.append(name := table.names[table.index(asked)])
            table, support = table.without(name), support and support.without(name)
        if not len(table):
            raise UnseenError("this would remove every class", where=run, hint="keep at least one class")
        keep_table(run, table)
        if support is not None:
            save_support(run, support)
    if as_json:
        print_json({"removed": removed, "classes": len(table), "file": str(run / IN_USE)})
        return
    say(f"removed: {', '.join(removed)}\n{counted(len(table), 'class')} in use, saved in {run / IN_USE}")


@commands.command()
def rename(
    run: ModelArgument,
    old: Annotated[str, typer.Argument(help="Current name.", show_default=False)],
    new: Annotated[str, typer.Argument(help="New name.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Rename a class."""
    with changing(run) as current:
        old = current.names[current.index(old)]
        table = current.renamed(old, new)
        keep_table(run, table)
        if (support := support_of(run)) is not None:
            save_support(run, support.renamed(old, new))
    if as_json:
        print_json({"renamed": {old: new}, "classes": len(table), "file": str(run / IN_USE)})
        return
    say(f"renamed: {old} is now {new}; saved in {run / IN_USE}")


@commands.command()
def reset(run: ModelArgument, as_json: JsonFlag = False) -> None:
    """Restore the classes of the training."""
    with changing(run):
        changed = go_back(run)
    if as_json:
        print_json({"reset": changed, "classes": len(trained_table(run))})
        return
    classes = counted(len(trained_table(run)), "class")
    say(f"{'restored' if changed else 'no changes to undo:'} the {classes} of the training")
