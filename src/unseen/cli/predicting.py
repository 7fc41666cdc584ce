"""``unseen predict``: predict a few images, or a hundred thousand."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import (
    FAILED,
    JSON_VERSION,
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
    with_bars,
)
from unseen.data.finding import FoundImages
from unseen.data.tars import WithTars
from unseen.errors import DataError, UnseenError
from unseen.ground.progress import quiet_libraries
from unseen.ground.shards import Shard, parse_shard, shard_of
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.classes.prior import Prior
    from unseen.ground.images import EncodedImage
    from unseen.ground.progress import Progress
    from unseen.recognizer import Prediction, Recognizer
    from unseen.recognizer.occasions import Occasions
    from unseen.recognizer.stream import Counts, Options

SHOWN = 1000
"""Largest number of images for which a table is printed."""
NAMED = 10
"""Number of broken images that are named one by one."""


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders, tar archives, quoted patterns ('pics/**/*.jpg'), or - to read paths or one image "
            "from standard input.",
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
            help="Write a .csv, .xlsx, .parquet, .json or .jsonl file; repeat the command to resume. - streams CSV to "
            "standard output, or JSON lines with --json.",
            show_default=False,
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Name all images as a whole (transductive): images that look alike share their evidence. Answers then "
            "depend on the other images.",
        ),
    ] = False,
    rank: Annotated[
        str | None,
        typer.Option(
            "--rank",
            metavar="RANK",
            help="Answer at this rank of the classes, such as family.",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(
            help="Table of how likely each class is: class and weight, with columns place and month, or one column "
            "per month or place.",
            show_default=False,
        ),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(help="Place to look up in --prior, or any [default: column `place` of --list]."),
    ] = None,
    month: Annotated[
        str | None,
        typer.Option(
            help="Month to look up in --prior: 5, May, any, or exif for the date of each image [default: column "
            "`month` or `date` of --list]."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet to review, as one HTML file.", show_default=False),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Share of the images for this process, counted from 0: 0/4 to 3/4. --output is then a folder of "
            "parts; see `unseen merge` [default: set by a Slurm array or torchrun].",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start --output over and replace the file.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images per batch.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Threads that read images.", min=0)] = 2,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Predict the classes of images, with confidence and evidence.

    Exits with status 1 if some images cannot be read, 2 if the command line is wrong.
    """
    if not images and not lists:
        raise UnseenError("no images", hint="pass images or folders, or --list FILE")
    if html is not None and output is not None:
        raise UnseenError("two outputs", where="--html", hint="omit --output; save the CSV from the page")
    threshold, found = _threshold(unknown), FoundImages(images or [], lists or [])
    weighing = _prior(prior, place, month, lists or [])
    share = _share(shard, output, html)
    if together and share is not None:
        raise UnseenError("a share of the images is not the whole batch", where="--together", hint="omit --shard")
    inputs = _inputs(found, share, batch_size)
    piped = output is not None and str(output) == "-"
    target = None if piped else _target(output, share, html, restart)
    total = 1 if piped else _count(inputs, target is None, share is None)

    from unseen.recognizer import Recognizer
    from unseen.recognizer.stream import Options, check_output, names_from

    if target is not None:
        check_output(target, restart)
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
        names = (*recognizer.table.names, *recognizer.table.former)
        wanted, unwanted = (names_from(e, names) if e else None for e in (only, exclude))
        options = Options(top, among, wanted, unwanted, threshold, batch_size, together, rank, weighing)
    if target is not None:
        counts = with_bars(
            lambda progress: _into(recognizer, inputs, target, options, total, workers, restart, progress)
        )
        if html is not None:
            with_bars(lambda progress: _sheet(recognizer, target, html, rank, workers, progress))
        _say_counts(counts, html or target, as_json)
        if share is not None and not as_json:
            said = f"when all {share.count} parts are there: unseen merge {target.parent} -o FILE.csv"
            out.print(said, highlight=False, soft_wrap=True, markup=False)
    elif piped:
        counts = _onto_pipe(recognizer, inputs, options, workers, as_json)
    else:
        counts = _onto_terminal(recognizer, inputs, options, workers, as_json)
    if counts.broken:
        where = 'see the column "error"' if output else "see the page" if html else "see the errors above"
        err.print(f"{counts.broken} of {counted(counts.images, 'image')} could not be read; {where}", highlight=False)
    for line in found.left_out.lines():
        _note(line)
    for line in () if weighing is None else weighing.notes(recognizer.table):
        _note(line)
    _notes(recognizer, options)
    raise typer.Exit(FAILED if counts.broken else 0)


def _prior(path: Path | None, place: str | None, month: str | None, lists: list[Path]) -> Prior | Occasions | None:
    """The prior of all images, or of each image."""
    if path is not None:
        from unseen.recognizer.occasions import read_prior

        return read_prior(path, place, month, lists)
    given = "--place" if place is not None else "--month" if month is not None else None
    if given:
        raise UnseenError("there is no prior", where=given, hint="pass --prior FILE")
    return None


def _beneath(html: Path, restart: bool) -> Path:
    """File of predictions for a contact sheet, kept beside it until the sheet is done."""
    if html.suffix.lower() not in (".html", ".htm"):
        raise UnseenError("not an .html file", where=f"--html {html}", hint="use a file name that ends in .html")
    if html.exists() and not restart:
        raise UnseenError("already exists", where=html, hint="pass another --html, or --restart to overwrite it")
    return html.with_name(f".{html.name}.jsonl")


def _sheet(
    recognizer: Recognizer, predictions: Path, html: Path, rank: str | None, workers: int, progress: Progress
) -> None:
    from unseen.review import read_items, write_sheet

    title, names, taxonomy = f"{html.stem}: answers of {recognizer.method.name}", recognizer.table.names, None
    if rank is not None and (taxonomy := recognizer.table.taxonomy) is not None:
        at = taxonomy.rank(rank)
        title, names = f"{title} by {taxonomy.ranks[at]}", taxonomy.names(at)
    write_sheet(read_items(predictions), names, html, title=title, workers=workers, progress=progress)
    predictions.unlink()


def _inputs(found: FoundImages, share: Shard | None, batch: int) -> Iterable[Path | EncodedImage]:
    """The images of this shard, including those of archives."""
    image = found.piped_image()
    every: Iterable[Path | EncodedImage] = WithTars(found) if image is None else [image]
    return every if share is None else share.deal(every, batch)


def _target(output: Path | None, share: Shard | None, html: Path | None, restart: bool) -> Path | None:
    """The file for the predictions, if any."""
    if share is not None:
        return _part(output, share)
    return output if html is None else _beneath(html, restart)


def _count(images: Iterable[object], shown: bool, some: bool) -> int:
    """Number of images; counts no further than a terminal can show."""
    from unseen.recognizer.stream import ENDINGS

    total = sum(1 for _ in (islice(images, SHOWN + 1) if shown else images))
    if not total and some:
        raise UnseenError("no images", hint="the list is empty")
    if shown and total > SHOWN:
        raise UnseenError(
            f"more than {SHOWN} images", hint=f"pass --output FILE.csv ({', '.join(ENDINGS[1:])}), or -o -"
        )
    return total


def _share(shard: str | None, output: Path | None, html: Path | None) -> Shard | None:
    """The requested shard or, when writing a file, that of a Slurm array or torchrun."""
    if shard is None and (output is None or str(output) == "-"):
        return None
    share = parse_shard(shard) if shard is not None else shard_of(os.environ)
    if share is not None and html is not None:
        raise UnseenError("a page of one shard", where="--html", hint="give -o FOLDER, and merge the parts")
    return share


def _part(output: Path | None, share: Shard) -> Path:
    """File for the part of a shard, in the folder for all parts."""
    from unseen.recognizer.stream import ENDINGS

    if output is None or output.suffix.lower() in ENDINGS or output.is_file():
        where = "--output" if output is None else output
        raise UnseenError(
            "a shard goes to a folder of parts", where=where, hint="give -o FOLDER; then unseen merge FOLDER"
        )
    return output / share.name


@app.command()
def merge(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the parts of `unseen predict --shard`.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write .csv, .xlsx or .parquet.", show_default=False)],
    restart: Annotated[bool, typer.Option("--restart", help="Replace --output if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Merge the parts that `unseen predict --shard` wrote: the rows of a single process, in the order of the images.

    Example: `unseen merge found -o found.csv`
    """
    from unseen.recognizer.merging import merge as work

    count = work(folder, output, restart)
    if as_json:
        print_json({"output": str(output), "images": count})
    else:
        out.print(f"{output}: {counted(count, 'image')}", highlight=False, soft_wrap=True, markup=False)


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
    images: Iterable[Path | EncodedImage],
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
    named = f"{counted(counts.images, 'image')}"
    named += f", {counts.unknown} of them unknown" if counts.unknown else ""
    named += f" ({counts.coarser} with a coarser answer)" if counts.coarser else ""
    out.print(f"{path}: {named}", highlight=False, soft_wrap=True)


def _onto_pipe(
    recognizer: Recognizer, images: Iterable[Path | EncodedImage], options: Options, workers: int, as_json: bool
) -> Counts:
    """Print rows on standard output batch by batch, in bounded memory."""
    import csv
    import json

    from unseen.model.predictions import columns
    from unseen.recognizer.stream import Counts, record_of, row_of, shown

    counts, extent = Counts(), options.extent(recognizer)
    writer = csv.DictWriter(sys.stdout, list(columns(extent)), lineterminator="\n")
    if not as_json:
        writer.writeheader()
    named, asked = tee(images)
    with quiet_libraries():
        for image, outcome in zip(named, recognizer.outcomes(asked, **vars(options), workers=workers), strict=True):
            record = record_of(image, outcome)
            counts.add(record)
            if as_json:
                sys.stdout.write(json.dumps({"json_version": JSON_VERSION, **record}, ensure_ascii=False) + "\n")
            else:
                writer.writerow(shown(row_of(record, extent)))
            if counts.images % options.batch_size == 0:
                sys.stdout.flush()
    sys.stdout.flush()
    return counts


def _onto_terminal(
    recognizer: Recognizer, images: Iterable[Path | EncodedImage], options: Options, workers: int, as_json: bool
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
                    options.rank or "class": _named(outcome, rank),
                    "confidence": f"{100 * c.confidence:.0f}%{' (together)' if outcome.together else ''}",
                    **_further(outcome, rank),
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
    if rank or prediction.known:
        return name
    found = prediction.coarser
    if found is None:
        return f"unknown; nearest: {name}"
    return f"{prediction.said}, {100 * found.confidence:.0f}%; nearest: {name}"


def _further(prediction: Prediction, rank: int) -> dict[str, str]:
    """Note on the prior from the first row."""
    if prediction.weighed is None:
        return {}
    without = prediction.weighed.without
    return {"without the prior": "" if rank else f"{without.name}, {100 * without.confidence:.0f}%"}


def _notes(recognizer: Recognizer, options: Options) -> None:
    """What users should know about these confidences."""
    if options.together:
        _note("named together (transductive): every answer and confidence depends on the other images of this call")
    if recognizer.temperature is None:
        _note("confidence is not calibrated: the run has no validation classes")
    fewer = options.only is not None or options.exclude is not None or options.among != "all"
    if fewer and options.unknown != "off" and (options.unknown != "auto" or recognizer.threshold is not None):
        _note("confidence is relative to the candidate classes; an image of another class can still get a high value")


def _note(text: str) -> None:
    err.print(f"note: {text}", highlight=False, soft_wrap=True)
