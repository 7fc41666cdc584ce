"""``unseen predict``: a trained run on images, a few or a hundred thousand."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import (
    FAILED,
    DeviceOption,
    EngineOption,
    JsonFlag,
    RunArgument,
    app,
    err,
    out,
    plain_text,
    print_json,
    print_table,
    with_bars,
)
from unseen.data.finding import FoundImages
from unseen.errors import DataError, UnseenError
from unseen.ground.progress import quiet_libraries

if TYPE_CHECKING:
    from unseen.ground.progress import Progress
    from unseen.recognizer import Prediction, Recognizer
    from unseen.recognizer.stream import Counts, Options

SHOWN = 1000
"""Images of which a table is printed."""
NAMED = 10
"""Broken images that are named one by one."""


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders, quoted patterns ('pics/**/*.jpg'), or - to read paths from standard input.",
            show_default=False,
        ),
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", help="File of paths: one per line, or a CSV table with a column `image`."),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of classes per image.", min=1)] = 3,
    among: Annotated[str, typer.Option(help="Candidate classes: all, seen or unseen.")] = "all",
    only: Annotated[
        list[str] | None,
        typer.Option(help="Candidate classes by name: A,B or @FILE with one per line (repeatable)."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Classes to exclude: A,B or @FILE (repeatable).")] = None,
    unknown: Annotated[
        str,
        typer.Option(
            help='Answer "unknown" below this confidence: auto (fitted on validation data), off, or a '
            "number such as 0.35."
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write a .csv, .parquet, .json or .jsonl file; repeat the command to resume.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet to review, as one HTML file.", show_default=False),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start --output over and replace the file.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images per batch.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Threads that read images.", min=0)] = 2,
    seed: Annotated[int | None, typer.Option(help="Seed of the model to use [default: the first].")] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict the classes of images, with confidence and evidence.

    Exits with status 1 if some images cannot be read, 2 if the call is wrong.
    """
    if not images and not lists:
        raise UnseenError("no images", hint="pass images or folders, or --list FILE")
    if html is not None and output is not None:
        raise UnseenError("two outputs", where="--html", hint="omit --output; save the CSV from the page")
    target = output if html is None else _beneath(html, restart)
    threshold, inputs = _threshold(unknown), FoundImages(images or [], lists or [])
    total = sum(1 for _ in inputs) if target else sum(1 for _ in islice(inputs, SHOWN + 1))
    if not total:
        raise UnseenError("no images", hint="the list is empty")
    if target is None and total > SHOWN:
        raise UnseenError(f"more than {SHOWN} images", hint="pass --output FILE.csv (.parquet, .json, .jsonl)")

    from unseen.recognizer import Recognizer
    from unseen.recognizer.stream import Options, check_output, names_from

    if target is not None:
        check_output(target, restart)
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
        wanted, unwanted = (names_from(e, recognizer.table.names) if e else None for e in (only, exclude))
        options = Options(top, among, wanted, unwanted, threshold, batch_size)
    if target is not None:
        counts = with_bars(
            lambda progress: _into(recognizer, inputs, target, options, total, workers, restart, progress)
        )
        if html is not None:
            with_bars(lambda progress: _sheet(recognizer, target, html, workers, progress))
        _say_counts(counts, html or target, as_json)
    else:
        counts = _onto_terminal(recognizer, inputs, options, workers, as_json)
    if counts.broken:
        where = 'see the column "error"' if output else "see the page" if html else "see the errors above"
        err.print(f"{counts.broken} of {counts.images} images could not be read; {where}", highlight=False)
    for line in inputs.left_out.lines():
        _note(line)
    _notes(recognizer, options)
    raise typer.Exit(FAILED if counts.broken else 0)


def _beneath(html: Path, restart: bool) -> Path:
    """The file of predictions that a contact sheet is made from, beside it until it is done."""
    if html.suffix.lower() not in (".html", ".htm"):
        raise UnseenError("not the name of a page", where=f"--html {html}", hint="end it in .html")
    if html.exists() and not restart:
        raise UnseenError("already exists", where=html, hint="pass another --html, or --restart to overwrite it")
    return html.with_name(f".{html.name}.jsonl")


def _sheet(recognizer: Recognizer, predictions: Path, html: Path, workers: int, progress: Progress) -> None:
    from unseen.review import read_items, write_sheet

    title = f"{html.stem}: what {recognizer.method.card.title} says"
    write_sheet(read_items(predictions), recognizer.table.names, html, title=title, workers=workers, progress=progress)
    predictions.unlink()


def _threshold(text: str) -> float | str:
    if text in ("auto", "off"):
        return text
    try:
        if 0 <= (threshold := float(text)) <= 1:
            return threshold
    except ValueError:
        pass
    raise UnseenError(
        f'"{text}" is not a threshold', where="--unknown", hint="use auto, off, or a confidence from 0 to 1"
    )


def _into(
    recognizer: Recognizer,
    images: FoundImages,
    path: Path,
    options: Options,
    total: int,
    workers: int,
    restart: bool,
    progress: Progress,
) -> Counts:
    from unseen.recognizer.stream import predict_to_file

    told = 0

    def broken(error: DataError) -> None:
        nonlocal told
        told += 1
        if told <= NAMED:
            _say(error)

    return predict_to_file(
        recognizer,
        images,
        path,
        options,
        total=total,
        workers=workers,
        restart=restart,
        progress=progress,
        broken=broken,
    )


def _say(error: DataError) -> None:
    err.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)


def _say_counts(counts: Counts, path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"output": str(path), **vars(counts)})
        return
    named = f"{counts.images} images"
    named += f", {counts.unknown} of them unknown" if counts.unknown else ""
    out.print(f"{path}: {named}", highlight=False, soft_wrap=True)


def _onto_terminal(
    recognizer: Recognizer, images: FoundImages, options: Options, workers: int, as_json: bool
) -> Counts:
    from unseen.classes.naming import label
    from unseen.recognizer import Prediction
    from unseen.recognizer.stream import Counts, record_of

    counts, records, rows = Counts(), [], []
    with quiet_libraries():
        found = list(images)
        for image, outcome in zip(found, recognizer.outcomes(found, **vars(options), workers=workers), strict=True):
            records.append(record_of(image, outcome))
            counts.add(records[-1])
            if not isinstance(outcome, Prediction):
                _say(outcome)
                continue
            rows += [
                {
                    "image": "/".join(image.parts[-2:]) if rank == 0 else "",
                    "class": _named(outcome, rank),
                    "confidence": f"{100 * c.confidence:.0f}%",
                    "top evidence": label(outcome.attributes[rank][0]) if rank < len(outcome.attributes) else "",
                }
                for rank, c in enumerate(outcome.candidates)
            ]
    if as_json:
        print_json(records)
    else:
        print_table(rows)
    return counts


def _named(prediction: Prediction, rank: int) -> str:
    candidate = prediction.candidates[rank]
    name = f"{candidate.name}{'' if candidate.seen else ' (unseen)'}"
    return f"unknown; nearest: {name}" if rank == 0 and not prediction.known else name


def _notes(recognizer: Recognizer, options: Options) -> None:
    """What a person should know of these confidences."""
    if recognizer.temperature is None:
        _note("confidence is not calibrated: the run has no validation classes")
    fewer = options.only is not None or options.exclude is not None or options.among != "all"
    if fewer and options.unknown != "off" and (options.unknown != "auto" or recognizer.threshold is not None):
        _note("confidence is relative to the candidate classes; an image of another class can still get a high value")


def _note(text: str) -> None:
    err.print(f"note: {text}", highlight=False, soft_wrap=True)
