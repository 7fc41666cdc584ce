"""``unseen explain``: why an image is predicted as a class, as figure, table and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.classes.changes import read_settings
from unseen.cli.common import (
    FAILED,
    DeviceOption,
    EngineOption,
    JsonFlag,
    RunArgument,
    SeedOption,
    app,
    err,
    out,
    plain_text,
    print_json,
    print_table,
)
from unseen.errors import UnseenError
from unseen.ground.progress import quiet_libraries
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.recognizer import Explanation, PartMaps, Recognizer


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-4 else f"{value:+.3f}"


def _say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True, markup=False)


def _corrections(cells: dict[str, str], recognizer: Recognizer) -> dict[str, float]:
    """Attribute to value: numbers in the table's unit or, for columns of a spreadsheet, cells as written there."""
    found: dict[str, float] = {}
    for name, cell in cells.items():
        if recognizer.encoding is not None:
            found |= recognizer.encoding.reading(name, cell)
            continue
        recognizer.table.attributes.index(name)
        try:
            found[name] = float(cell)
        except ValueError:
            raise UnseenError(f'"{cell}" is not a number', where=f"--correct {name}", hint="use a number") from None
    return found


def _targets(files: list[Path], output: Path | None, several: bool, ending: str) -> list[Path]:
    """The figure of each image; several images in one folder get numbers where names repeat."""
    from unseen.explain.figures import ENDINGS

    if not several:
        path = output or Path(f"{files[0].stem}-{ending}.png")
        path = path / f"{files[0].stem}-{ending}.png" if path.is_dir() else path
        if path.suffix.lower().lstrip(".") not in ENDINGS:
            raise UnseenError(
                "not a figure format",
                where=path,
                hint=f"use a file name that ends in {', '.join(f'.{e}' for e in ENDINGS)}",
            )
        return [path]
    folder = output or Path("explained")
    if folder.suffix.lower().lstrip(".") in ENDINGS or folder.is_file():
        raise UnseenError("several images need a folder, not one file", where=folder, hint="pass a folder to -o")
    found: list[Path] = []
    for file in files:
        path, number = folder / f"{file.stem}-{ending}.png", 2
        while path in found:
            path, number = folder / f"{file.stem}-{number}-{ending}.png", number + 1
        found.append(path)
    return found


def _show_parts(found: PartMaps, path: Path, as_json: bool) -> dict[str, Any]:
    from unseen.explain.parts import parts_figure

    parts_figure(found, path)
    if not as_json:
        _say(f"figure:  {path}")
    shares = {level: maps.round(5).tolist() for level, maps in found.maps.items()}
    return {"parts": shares, "crop": list(found.crop), "figure": str(path)}


def _show(found: Explanation, top: int, path: Path, threshold: float | None) -> None:
    """Tables of one explanation."""
    from unseen.classes.naming import label
    from unseen.explain.figures import account, said
    from unseen.explain.sheet import class_label

    target, rival = found.target, found.rival
    if found.before:
        print_table(
            [
                {
                    "model": f"{class_label(a.name)} {100 * a.confidence:.0f}%",
                    "corrected": f"{class_label(b.name)} {100 * b.confidence:.0f}%",
                }
                for a, b in zip(found.before, found.prediction.candidates, strict=True)
            ],
            {"model": "model", "corrected": "corrected"},
            title=", ".join(f"{label(name)} = {value:g}" for name, value in found.corrections.items()),
        )
    shown, rest = account(found, top)
    print_table(
        [
            {
                "attribute": name,
                "part": where,
                f"for {target.name}": _signed(evidence),
                f"against {rival.name}": _signed(against),
            }
            for name, where, evidence, against in (
                *(
                    (said(r), r.part or r.group.removeprefix("has_").replace("_", " "), r.evidence, r.against)
                    for r in shown
                ),
                *((name, "", evidence, against) for name, evidence, against in rest),
            )
        ],
        title=f"{target.name}: {100 * target.confidence:.0f}%   {rival.name}: {100 * rival.confidence:.0f}%",
    )
    unknown = (
        []
        if found.prediction.known or threshold is None
        else [f"unknown: no class reaches {100 * threshold:.0f}% confidence"]
    )
    for line in found.coarser or unknown:
        _say(f"answer:  {line}")
    for near in found.nearest[:3]:
        _say(f"similar: {near.file} ({class_label(near.name)}, {near.similarity:.2f})")
    _say(f"image:   {found.prediction.image}\nfigure:  {path}")


def _missing(recognizer: Recognizer, shown: int) -> str | None:
    """A note why no training images are shown, if some were requested."""
    if not shown:
        return None
    if recognizer.references is None:
        return "no nearest training images: this model stores no training scores"
    if recognizer.images is None:
        return "nearest training images are listed by name: their folder is missing"
    return None


@app.command()
def explain(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", show_default=False)],
    target: Annotated[
        str | None, typer.Option("--class", help="Class to explain [default: the predicted class].")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Class to compare with [default: the runner-up].")] = None,
    correct: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ATTRIBUTE=VALUE",
            help="Correct an attribute: its true value, in the class table's unit (repeatable).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Figure to write: .png, .jpg, .pdf or .svg [default: IMAGE-why.png]; a folder for "
            "several images [default: explained].",
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of attributes to show.", min=1)] = 6,
    nearest: Annotated[int, typer.Option(help="Number of nearest training images to show.", min=0, max=12)] = 6,
    all_attributes: Annotated[
        Path | None, typer.Option(help="Also write a heat map of every attribute to this folder.")
    ] = None,
    among: Annotated[str, typer.Option(help="Candidate classes: all, seen or unseen.")] = "all",
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Show the attention of each learned part instead (mgmrn with grouping=parts)."),
    ] = False,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Explain a prediction: evidence per attribute, heat maps, and similar training images."""
    from unseen.data.finding import FoundImages
    from unseen.explain.figures import attribute_maps, explanation_figure, neighbours
    from unseen.recognizer import Recognizer

    found_images = FoundImages(images)
    files, cells = list(found_images), read_settings(correct or [], "--correct")
    several = len(files) > 1 or images[0].is_dir()
    paths = _targets(files, output, several, "parts" if parts else "why")
    made, broken = [], False
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
        corrections = _corrections(cells, recognizer)
        note = None if parts else _missing(recognizer, nearest)
        for file, path in zip(files, paths, strict=True):
            if parts:
                made.append(_show_parts(recognizer.parts(file), path, as_json))
                continue
            try:
                found = recognizer.explain(
                    file, target=target, rival=against, among=among, corrections=corrections, nearest=nearest
                )
            except UnseenError as error:
                if not several or str(file) not in str(error):
                    raise
                err.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)
                broken = True
                continue
            nearby = neighbours(found, recognizer.images)
            if any(image is None for _, image in nearby) and recognizer.images is not None:
                note = f"some training images are missing from {recognizer.images}"
            explanation_figure(found, path, top, nearby)
            if all_attributes is not None:
                folder = all_attributes / path.stem.removesuffix("-why") if several else all_attributes
                attribute_maps(found, folder)
            if not as_json:
                _show(found, top, path, recognizer.threshold)
            made.append({**found.as_dict(), "figure": str(path)})
    for line in found_images.left_out.lines():
        err.print(f"[yellow]note:[/] {plain_text(line)}", highlight=False, soft_wrap=True)
    if note:
        err.print(f"[yellow]note:[/] {plain_text(note)}", highlight=False, soft_wrap=True)
    if as_json:
        print_json(made if several else made[0])
    elif all_attributes is not None:
        _say(f"heat maps of {counted(len(recognizer.table.attributes), 'attribute')}: {all_attributes}")
    raise typer.Exit(FAILED if broken else 0)
