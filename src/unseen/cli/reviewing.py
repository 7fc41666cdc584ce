"""``unseen review``: a person reviews the answers on a batch of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import (
    DeviceOption,
    EngineOption,
    RunArgument,
    SeedOption,
    app,
    err,
    out,
    output_folder,
    plain_text,
    with_bars,
)
from unseen.cli.serving import AllowHostOption, serve_application
from unseen.data.finding import FoundImages
from unseen.errors import DataError, UnseenError
from unseen.ground.progress import quiet_libraries
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.recognizer import Recognizer
    from unseen.review import Review

TOP = 9
"""Number of classes per image, as many as there are keys."""
NAMED = 10
WARNING = "see the images and change the verdicts"


@app.command()
def review(
    run: RunArgument,
    images: Annotated[list[str], typer.Argument(help="Images, folders, or quoted patterns.", show_default=False)],
    output: Annotated[
        Path | None, output_folder("Folder of the review [default: review-NAME, after the images].")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write a .csv or .xlsx file, or copy the images to a new folder by class; opens no page."),
    ] = None,
    teach: Annotated[
        bool,
        typer.Option("--teach", help="Add the reviewed images to their classes as support images; opens no page."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Predict again with the current model; keep the verdicts.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Candidate classes: A,B or @FILE.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; the next free one if it is taken.", min=1, max=65535)] = 8000,
    allow_host: AllowHostOption = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    workers: Annotated[int, typer.Option(help="Threads that read images.", min=0)] = 2,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
) -> None:
    """Review the answers on many images in a browser: accept, correct, mark as unknown, by keyboard.

    Every verdict is saved immediately; repeat the command to resume. The page measures the accuracy of the answers.

    Example: `unseen review runs/birds photos --open`
    """
    try:
        from unseen.serve.reviewing import create_review_app
    except ModuleNotFoundError as error:
        raise UnseenError(f"{error.name} is not installed", hint="pip install 'unseen[app]'") from None
    from unseen.recognizer import Recognizer
    from unseen.recognizer.stream import Options, names_from
    from unseen.review.begin import begin
    from unseen.review.export import check_export
    from unseen.serve.settings import Settings

    if export is not None:
        check_export(export)
    if teach and not run.is_dir():
        raise UnseenError("not a folder of your own", where="--teach", hint="fetch the model, then give its folder")
    inputs = FoundImages(images)
    total, folder = sum(1 for _ in inputs), output or _folder(images)
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
    table = recognizer.table
    wanted = names_from(only, (*table.names, *table.former)) if only else None
    told = 0

    def broken(error: DataError) -> None:
        nonlocal told
        told += 1
        if told <= NAMED:
            err.print(f"[bold red]error:[/] {plain_text(str(error))}", highlight=False, soft_wrap=True)

    found = with_bars(
        lambda progress: begin(
            recognizer,
            inputs,
            folder,
            Options(top=TOP, only=wanted),
            total=total,
            workers=workers,
            progress=progress,
            broken=broken,
            again=again,
        )
    )
    for line in inputs.left_out.lines():
        err.print(f"note: {line}", highlight=False, soft_wrap=True)
    _say(found)
    if export is not None:
        from unseen.review import export_review

        with found:
            out.print(f"written: {export_review(found, export)}", highlight=False, soft_wrap=True)
        return
    if teach:
        _teach(run, recognizer, found)
        return
    settings = Settings(hosts=tuple(name.lower() for name in allow_host or ()))
    serve_application(
        create_review_app(recognizer, found, settings), settings, host, port, str(folder), open_page, WARNING
    )


def _teach(run: Path, recognizer: Recognizer, review: Review) -> None:
    from unseen.classes.changes import changing
    from unseen.model.support import keep_support, read_support
    from unseen.review.teach import teach

    with review, changing(run):
        recognizer.support = read_support(run)
        added = teach(recognizer, review)
        keep_support(run, recognizer.support)
    if not added:
        out.print("no image added: none is reviewed, or its class has it already", highlight=False, soft_wrap=True)
        return
    for name, count in sorted(added.items()):
        out.print(f"{name}: {count} image{'' if count == 1 else 's'} added", highlight=False, soft_wrap=True)
    total = f"{counted(sum(added.values()), 'image')} added to {counted(len(added), 'class')}, kept with {run}"
    out.print(f"{total}; --again predicts again with them", highlight=False, soft_wrap=True)


def _folder(images: list[str]) -> Path:
    """``review-NAME`` in the current folder, with the name of the first argument."""
    name = Path(images[0]).resolve().stem if not any(c in images[0] for c in "*?[") else "images"
    return Path(f"review-{name or 'images'}")


def _say(found: Review) -> None:
    measured, estimated = found.reviewed(), found.estimated()
    line = f"{found.folder}: {counted(len(found.items), 'image')}, {measured.reviewed} reviewed"
    if measured.reviewed:
        line += f", {measured.right} of them right"
    if estimated.reviewed:
        line += (
            f"; of a random sample of {estimated.reviewed}, {estimated.share:.0%} are right "
            f"(95% interval {estimated.low:.0%} to {estimated.high:.0%})"
        )
    out.print(line, highlight=False, soft_wrap=True)
    for name, count in found.removed().items():
        many = f"{count} verdict{'' if count == 1 else 's'}"
        hint = "change them, or add the class with `unseen classes add` and pass --again"
        note = f'note: {many} on "{name}", which the model no longer has: they count as wrong answers; {hint}'
        err.print(plain_text(note), highlight=False, soft_wrap=True)
