"""``unseen report``: write the page of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.common import CacheOption, DeviceOption, JsonFlag, RunArgument, app, out, print_json, with_bars
from unseen.errors import UnseenError


@app.command()
def report(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write [default: RUN/report.html].")
    ] = None,
    examples: Annotated[int, typer.Option(help="Number of correct examples, and of wrong ones.", min=0, max=60)] = 6,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the HTML report of a finished run: one self-contained page."""
    from unseen.report.page import write_report
    from unseen.training.folder import Run

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise UnseenError("not an .html file", where=output, hint="use a file name that ends in .html")
    opened = Run(run)
    page = with_bars(
        lambda bars: write_report(
            opened, path=output, examples=examples, device=device, cache=cache, workers=workers, progress=bars
        )
    )
    if show:
        typer.launch(page.resolve().as_uri())
    if as_json:
        print_json({"report": str(page)})
        return
    out.print(str(page), highlight=False, soft_wrap=True, markup=False)
