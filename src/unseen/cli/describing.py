"""``unseen describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.common import app, err, out, plain_text, with_bars


@app.command()
def describe(
    classes: Annotated[
        Path, typer.Argument(help="Text file with one class per line, or a class table.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Table to write [default: classes.csv in the same folder].")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="OpenAI-compatible endpoint, such as http://localhost:11434/v1; without it, nothing is sent.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model name at the endpoint.")] = "",
    attributes: Annotated[
        str | None,
        typer.Option(
            help="Columns: 'crest: yes/no; crown color: red, black; size: number', or @FILE with one per line."
        ),
    ] = None,
    about: Annotated[str, typer.Option(help='Short description of the classes, such as "garden birds".')] = "",
    count: Annotated[int, typer.Option(help="Number of columns to ask for without --attributes.", min=1, max=300)] = 20,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the API key.")] = "OPENAI_API_KEY",
) -> None:
    """Draft a table of attributes with a language model, for you to check; repeat the command to resume.

    Without `--endpoint` the requests are printed and nothing is sent. Every cell is written to `provenance.csv` as
    drafted; `unseen check` counts those that nobody has checked.

    Example: `unseen describe birds.txt --endpoint http://localhost:11434/v1 --model llama3.1`
    """
    from unseen.data import describing
    from unseen.recognizer.stream import names_from

    names = names_from([f"@{classes}"], ())
    columns = None
    if attributes is not None:
        text = Path(attributes[1:]).read_text(encoding="utf-8-sig") if attributes.startswith("@") else attributes
        columns = describing.parse_attributes(text)
    if endpoint is None:
        asked = [] if columns else [describing.asked_for_attributes(names, about, count)]
        shown = columns or [describing.Attribute("the attributes of the first answer")]
        asked.append(describing.asked_for_values(names[: describing.BATCH], shown, about))
        for text in asked:
            out.print(plain_text(f"{describing.SYSTEM}\n\n{text}\n"), highlight=False, soft_wrap=True)
        requests = len(asked) - 1 + -(-len(names) // describing.BATCH)
        err.print(f"nothing was sent; with --endpoint URL, this takes {requests} requests", highlight=False)
        return
    key = describing.key_of(key_variable)
    target = output or classes.with_name("classes.csv")
    found = with_bars(
        lambda bars: describing.describe(
            names,
            target,
            describing.Endpoint(endpoint, model, key),
            attributes=columns,
            about=about,
            count=count,
            progress=bars,
        )
    )
    for path in found:
        out.print(plain_text(f"wrote {path}"), highlight=False, soft_wrap=True)
    out.print(f'next: check every cell, then write "yes" in the column `checked` of {found[1].name}', highlight=False)
