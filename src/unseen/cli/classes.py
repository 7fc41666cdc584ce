"""``unseen classes``: change the classes of a trained model without retraining, and get advice on them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.classes.changes import (
    IMAGES,
    IN_USE,
    Described,
    changes_since,
    changing,
    check_model,
    keep_table,
    left_unknown,
    read_described,
    read_encoding,
    read_settings,
    table_in_use,
    trained_table,
    unit_doubt,
    values_of,
)
from unseen.classes.changes import reset as go_back
from unseen.classes.expectations import Expectation, expectations
from unseen.classes.nearness import Near
from unseen.classes.nearness import closest as closest_classes
from unseen.cli.common import JsonFlag, app, err, out, plain_text, print_json, print_table
from unseen.errors import UnseenError
from unseen.ground.files import write_text
from unseen.ground.progress import quiet_libraries

if TYPE_CHECKING:
    from unseen.classes.table import ClassTable
    from unseen.model.support import ClassImages, Support
    from unseen.recognizer import Recognizer
    from unseen.recognizer.advice import Divider

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
LikeOption = Annotated[str | None, typer.Option(help="Start from the values of this class.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the model to use [default: the first].")]


def _support(run: Path) -> Support | None:
    """Images of classes; ``None``, and no import of torch, where no class has any."""
    if not (run / IMAGES).is_file():
        return None
    from unseen.model.support import read_support

    return read_support(run)


def _keep_support(run: Path, support: Support) -> None:
    from unseen.model.support import keep_support

    keep_support(run, support)


def _load(run: Path, seed: int | None) -> Recognizer:
    from unseen.recognizer import Recognizer

    with quiet_libraries():
        return Recognizer.load(run, seed=seed, device="cpu")


def _say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True, markup=False)


def _warn(texts: list[str]) -> None:
    for text in texts:
        err.print(f"[yellow]note:[/] {plain_text(text)}", highlight=False, soft_wrap=True)


def _described(name: str | None, file: Path | None, settings: list[str] | None) -> list[Described]:
    """Classes to add or edit, as written on the command line and in a file."""
    cells, found = read_settings(settings or []), [] if file is None else read_described(file)
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
        raise UnseenError("--set applies to one class only", hint="name one class, or put the values in the file")
    if any(d.name is None for d in found) and name is None:
        raise UnseenError("the class has no name", hint='unseen classes add RUN "NAME" --attributes FILE')
    return [Described(d.name or name, {**d.cells, **cells}, d.where) for d in found]


def _doubts(table: ClassTable, name: str) -> tuple[list[str], list[Near]]:
    """What to warn of about one class, and its nearest classes."""
    near = closest_classes(table, name, 3)
    lines = [
        f'"{name}" is nearly equal to "{n.name}" (cosine {n.cosine:.3f}, {n.differing} attributes '
        "differ); see `unseen classes separate`"
        for n in near
        if n.nearly_equal
    ]
    others = table.without(name)
    doubt = unit_doubt(table.values[table.index(name)], others) if len(others) else None
    return lines + ([f'"{name}": {doubt}; check the unit'] if doubt else []), near


def _changed(run: Path, table: ClassTable, names: list[str], verb: str, lines: list[str], as_json: bool) -> None:
    """Say what was done to some classes, with warnings and nearest classes."""
    nearest: dict[str, list[dict[str, Any]]] = {}
    support = _support(run)
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
        beside = ", ".join(f"{n['name']} ({n['cosine']:.2f})" for n in nearest[name])
        _say(f"{verb}: {name}{f'   nearest: {beside}' if beside else ''}")
    _say(f"{len(table)} classes in use, saved in {run / IN_USE}")
    _warn(lines)


@commands.command("list")
def list_classes(run: ModelArgument, as_json: JsonFlag = False) -> None:
    """List the classes, and their changes since the training."""
    table, trained = table_in_use(run), trained_table(run)
    states, expected = changes_since(table, trained), {e.name: e for e in expectations(table, trained)}
    removed = [name for name in trained.names if name not in table.names]
    support = _support(run)
    counts = {name: 0 if support is None else len(support[name].images) for name in table.names}
    bare = {name for name in table.names if support is not None and not support[name].attributes}
    rows: list[dict[str, Any]] = [
        {
            "class": name,
            "seen": bool(seen),
            "change": state,
            "images": counts[name],
            "expectation": None if name in bare else _expectation(expected.get(name)),
        }
        for name, seen, state in zip(table.names, table.seen, states, strict=True)
    ]
    if as_json:
        print_json({"classes": rows, "removed": removed})
        return
    columns = {"class": "class", "": "", **({"change": "change"} if any(states) else {})}
    if any(counts.values()):
        columns["images"] = "images"
    if any(r["expectation"] for r in rows):
        columns["expectation"] = "expectation"
    print_table(
        [
            {
                "class": r["class"],
                "": "seen" if r["seen"] else "unseen",
                "change": r["change"],
                "images": f"{r['images']}{', no attributes' if r['class'] in bare else ''}",
                "expectation": r["expectation"] or "",
            }
            for r in rows
        ],
        columns,
    )
    _say(f"{len(table)} classes: {int(table.seen.sum())} seen, {int((~table.seen).sum())} unseen")
    if removed:
        _say(f"removed: {', '.join(removed)}")


def _expectation(found: Expectation | None) -> str | None:
    """What the table says of an unseen class; ``None`` of a seen one."""
    return None if found is None else found.text


@commands.command()
def show(
    run: ModelArgument,
    name: NameArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all values to this CSV, for `add` and `edit`.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the nonzero attribute values of a class."""
    import pandas as pd

    table = table_in_use(run)
    values = table.values[table.index(name)]
    pairs = [(a, float(v)) for a, v in zip(table.attributes.names, values, strict=True)]
    if output is not None:
        write_text(output, pd.DataFrame(pairs, columns=["attribute", "value"]).to_csv(index=False))
    if as_json:
        print_json({"class": name, "seen": bool(table.seen[table.index(name)]), "attributes": dict(pairs)})
        return
    print_table(
        [{"attribute": a, "value": f"{v:g}"} for a, v in pairs if v], {"attribute": "attribute", "value": "value"}
    )
    if output is not None:
        _say(f"all {len(pairs)} values: {output}")


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
    images: ImagesOption = None,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add classes from attributes, images or both, without training.

    An attribute without a value gets the mean of the training classes, or the value of the class given by --like.
    """
    described = _described(name, attributes, settings)
    if images and len(described) > 1:
        raise UnseenError("--images applies to one class only", hint="name one class")
    bare = bool(images) and attributes is None and not settings and like is None
    lines: list[str] = []
    check_model(run)
    with changing(run) as current:
        table, trained, encoding = current, trained_table(run), read_encoding(run)
        recognizer = _load(run, seed) if images else None
        start = None if like is None else current.values[current.index(like)]
        for one in described:
            assert one.name is not None
            values = None if bare else values_of(one.cells, current, encoding, start=start, where=one.where)
            doubt = None if bare or start is not None else left_unknown(one.cells, current, encoding)
            lines += [f'"{one.name}": {doubt}'] if doubt else []
            position = table.back_from(trained, one.name)
            if position >= 0:
                lines.append(f'"{one.name}" has training images, so it is a seen class again')
            if recognizer is not None:
                recognizer.add_class(one.name, values, trained=position, images=_files(images or []))
                table = recognizer.table
            elif values is not None:
                table = table.with_class(one.name, values, seen=position >= 0, trained=position)
        keep_table(run, table)
        if recognizer is not None:
            _keep_support(run, recognizer.support)
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
    as_json: JsonFlag = False,
) -> None:
    """Change attribute values of classes.

    The other attributes keep their values, or get those of the class given by --like.
    """
    if attributes is None and not settings and like is None:
        raise UnseenError("nothing to change", hint="pass --attributes, --set or --like")
    described = _described(name, attributes, settings)
    check_model(run)
    with changing(run) as current:
        table, encoding, support = current, read_encoding(run), _support(run)
        for one in described:
            assert one.name is not None
            start = current.values[current.index(one.name if like is None else like)]
            values = values_of(one.cells, current, encoding, start=start, where=one.where)
            table = table.with_values(one.name, values)
            support = support and support.described(table.names[table.index(one.name)])
        keep_table(run, table)
        if support is not None:
            _keep_support(run, support)
    _changed(run, table, [str(d.name) for d in described], "edited", [], as_json)


@commands.command()
def remove(
    run: ModelArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Classes.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Remove classes."""
    with changing(run) as current:
        table, support = current, _support(run)
        for asked in names:
            name = table.names[table.index(asked)]
            table, support = table.without(name), support and support.without(name)
        if not len(table):
            raise UnseenError("this would remove every class", where=run, hint="keep at least one class")
        keep_table(run, table)
        if support is not None:
            _keep_support(run, support)
    if as_json:
        print_json({"removed": names, "classes": len(table), "file": str(run / IN_USE)})
        return
    _say(f"removed: {', '.join(names)}\n{len(table)} classes in use, saved in {run / IN_USE}")


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
        if (support := _support(run)) is not None:
            _keep_support(run, support.renamed(old, new))
    if as_json:
        print_json({"renamed": {old: new}, "classes": len(table), "file": str(run / IN_USE)})
        return
    _say(f"renamed: {old} is now {new}; saved in {run / IN_USE}")


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
            recognizer = _load(run, seed)
            again = len(recognizer.add_images(name, _files(files or [])))
            support = recognizer.support
        keep_support(run, support)
    now = support[name]
    if as_json:
        print_json({"class": name, **_of_class(now), "known": again, "file": str(run / IMAGES)})
        return
    difference = len(now.images) - len(before.images)
    verb = "added" if difference >= 0 else "removed"
    _say(f"{name}: {abs(difference)} {verb}, {len(now.images)} images in all, kept in {run / IMAGES}")
    if again:
        _warn([f"{again} of them {'was' if again == 1 else 'were'} there already, by content"])


def _list_images(run: Path, name: str | None, as_json: bool) -> None:
    """Where images of one class, or of all, came from."""
    from unseen.model.support import Support

    table, support = table_in_use(run), _support(run) or Support()
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
    _say(f"{len(rows)} images of {sum(bool(support[n].images) for n in names)} classes")


def _of_class(found: ClassImages) -> dict[str, Any]:
    return {"attributes": found.attributes, "images": [asdict(image) for image in found.images]}


def _files(given: list[Path]) -> list[Path]:
    """Files, and the images in folders."""
    from unseen.data.finding import FoundImages

    if not given:
        return []
    found = FoundImages(given)
    files = list(found)
    _warn(found.left_out.lines())
    return [Path(file) for file in files]


@commands.command()
def reset(run: ModelArgument, as_json: JsonFlag = False) -> None:
    """Restore the classes of the training."""
    with changing(run):
        changed = go_back(run)
    if as_json:
        print_json({"reset": changed, "classes": len(trained_table(run))})
        return
    _say(f"{'restored' if changed else 'no changes to undo:'} the {len(trained_table(run))} classes of the training")


@commands.command()
def closest(
    run: ModelArgument,
    name: Annotated[
        str | None, typer.Argument(help="Class to compare with all others [default: the closest pairs of all classes].")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of rows.", min=1)] = 10,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the classes closest to one class by their attributes, or the closest pairs of all classes."""
    from unseen.recognizer.advice import closest, closest_pairs

    recognizer = _load(run, seed)
    if name is not None:
        near = closest(recognizer, name, top)
        if as_json:
            print_json({"class": name, "nearest": [asdict(n) for n in near]})
            return
        print_table(
            [
                {
                    "class": n.name,
                    "": "seen" if n.seen else "unseen",
                    "cosine": f"{n.cosine:.3f}",
                    "attributes that differ": str(n.differing),
                    "note": "nearly equal" if n.nearly_equal else "",
                }
                for n in near
            ],
            title=f"nearest to {plain_text(name)}",
        )
        return
    pairs, confused = closest_pairs(recognizer, top), _confusions(run)[:top]
    if as_json:
        print_json({"pairs": [asdict(p) for p in pairs], "confused": confused})
        return
    print_table(
        [
            {
                "class": p.first,
                "and": p.second,
                "cosine": f"{p.cosine:.3f}",
                "attributes that differ": str(p.differing),
            }
            for p in pairs
        ],
        title="nearest by attributes",
    )
    if confused:
        print_table(
            [
                {"unseen class": c["class"], "mistaken for": c["taken_for"], "share": f"{100 * c['share']:.0f}%"}
                for c in confused
            ],
            title="most often confused on the test images (classes of the training)",
        )


def _confusions(run: Path) -> list[dict[str, Any]]:
    """The measured confusions of a run; none of a saved model."""
    from unseen.training.folder import Run

    if not (run / "config.json").is_file():
        return []
    opened = Run(run)
    found: list[dict[str, Any]] = opened.results["protocols"][opened.protocol].get("confusions", [])
    return found


@commands.command()
def separate(
    run: ModelArgument,
    first: Annotated[str, typer.Argument(help="A class.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Class that it is confused with.", show_default=False)],
    top: Annotated[int, typer.Option(help="Number of attributes.", min=1)] = 5,
    seed: SeedOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the attributes that separate two classes.

    Also suggests attributes that the model recognizes well but that have equal values for both classes.
    """
    from unseen.classes.naming import label
    from unseen.recognizer.advice import separate

    recognizer = _load(run, seed)
    found = separate(recognizer, first, second, top)
    if as_json:
        print_json(asdict(found))
        return

    def rows(dividers: tuple[Divider, ...], leads: bool) -> list[dict[str, str]]:
        return [
            {
                "attribute": label(d.attribute),
                first: f"{d.first_value:g}",
                second: f"{d.second_value:g}",
                **({"lead": "?" if d.lead is None else f"{d.lead:+.3f}"} if leads else {}),
                "AUROC": "?" if d.auroc is None else f"{100 * d.auroc:.0f}%",
            }
            for d in dividers
        ]

    columns = ["attribute", first, second, "lead", "AUROC"]
    _say(f"{first} and {second}: cosine {found.cosine:.3f}")
    if found.today:
        print_table(rows(found.today, True), {c: c for c in columns}, title="attributes that separate them")
    else:
        _say("their attribute values are equal")
    if found.refine:
        shown = {c: c for c in columns if c != "lead"}
        print_table(rows(found.refine, False), shown, title="described alike, recognized well: refine these values")
        best = found.refine[0]
        _say(f"suggestion: check whether {first} and {second} differ in “{label(best.attribute)}”.")
    if recognizer.references is None:
        _warn(["no AUROC: the run has no attribute scores of its training images"])
