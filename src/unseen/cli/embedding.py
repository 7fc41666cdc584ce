"""``unseen embed`` and ``unseen similar``: embeddings of images, and comparisons of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from unseen.data.finding import FoundImages
from unseen.errors import DataError, UnseenError
from unseen.ground.progress import quiet_libraries
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.recognizer import Recognizer
    from unseen.recognizer.embedding import Embeddings

ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, quoted patterns ('pics/**/*.jpg'), or - to read paths from standard input.",
        show_default=False,
    ),
]


def _embedded(recognizer: Recognizer, images: list[str]) -> tuple[Embeddings, int]:
    """Embeddings of the readable images, and the number of unreadable ones."""
    found, broken = FoundImages(images), 0

    def tell(error: DataError) -> None:
        nonlocal broken
        broken += 1
        err.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)

    with quiet_libraries():
        embeddings = recognizer.embed(list(found), broken=tell)
    for line in found.left_out.lines():
        err.print(f"note: {line}", highlight=False, soft_wrap=True)
    return embeddings, broken


@app.command()
def embed(
    run: RunArgument,
    images: ImagesArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write a .parquet or .npz file.", show_default=False)],
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write images as numbers: pooled features, standardized features, attribute scores.

    Exits with status 1 if some images cannot be read; they are left out.
    """
    from unseen.recognizer import Recognizer
    from unseen.recognizer.embedding import check_ending

    check_ending(output)
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
    embeddings, broken = _embedded(recognizer, images)
    embeddings.save(output)
    numbers = {"pooled": embeddings.pooled.shape[1], "attribute_scores": len(embeddings.attributes)}
    if embeddings.standardised is not None:
        numbers["standardised"] = embeddings.standardised.shape[1]
    if as_json:
        print_json({"output": str(output), "images": len(embeddings), "broken": broken, "numbers": numbers})
    else:
        named = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in numbers.items())
        out.print(f"{output}: {counted(len(embeddings), 'image')}, each {named}", highlight=False, soft_wrap=True)
    raise typer.Exit(FAILED if broken else 0)


@app.command()
def similar(
    run: RunArgument,
    images: ImagesArgument,
    to: Annotated[
        list[Path] | None,
        typer.Option(help="Find the images most similar to this one (repeatable).", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of images to show.", min=1)] = 10,
    at_least: Annotated[float, typer.Option(help="Lowest cosine of near duplicates.", min=0.0, max=1.0)] = 0.9,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find similar images; without --to, near duplicates and outliers.

    Exits with status 1 if some images cannot be read; they are left out.
    """
    from unseen.recognizer import Recognizer

    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
    embeddings, broken = _embedded(recognizer, images)
    if not len(embeddings):
        raise UnseenError("none of the images can be read", hint="pass other images")
    names = embeddings.images
    if to:
        asked = embeddings.seen_from_here(recognizer.embed(to))
        found = [
            {"to": str(query), "image": names[i], "cosine": cosine}
            for query, vector in zip(to, asked, strict=True)
            for i, cosine in embeddings.similar(vector, top)
        ]
        _show({"similar": found}, {"similar": f"most similar, of {counted(len(names), 'image')}"}, as_json)
    else:
        pairs = [{"image": names[i], "and": names[j], "cosine": c} for i, j, c in embeddings.duplicates(at_least)]
        odd = [{"image": names[i], "mean cosine to the nearest": c} for i, c in embeddings.outliers(top)]
        titles = {"duplicates": f"near duplicates, of {counted(len(names), 'image')}", "outliers": "outliers"}
        _show({"duplicates": pairs if as_json else pairs[:1000], "outliers": odd}, titles, as_json)
    raise typer.Exit(FAILED if broken else 0)


def _show(found: dict[str, list[dict[str, object]]], titles: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for name, rows in found.items():
        if not rows:
            out.print(f"{titles[name]}: none", highlight=False, soft_wrap=True)
            continue
        shown = [{k: f"{v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in rows]
        print_table(shown, {column: column for column in shown[0]}, titles[name])
