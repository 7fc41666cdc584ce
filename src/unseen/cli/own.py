"""``unseen init`` and ``check``: users' own images and spreadsheets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from unseen.cli.common import CacheOption, JsonFlag, app, out, plain_text, print_json, with_bars
from unseen.ground.words import counted, pasted

if TYPE_CHECKING:
    from unseen.data.checks.findings import CheckResult, Finding

SHOWN = 10
COLUMNS = 40
LEVELS = {"error": ("red", "to fix"), "warning": ("yellow", "to review"), "note": ("dim", "to note")}


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to create, or with your images.", show_default=False)],
    format: Annotated[str, typer.Option(help="Format of the table: xlsx or csv.")] = "xlsx",
    example: Annotated[
        bool, typer.Option("--example", help="Write a complete example: drawn birds and their table.")
    ] = False,
    cache: CacheOption = None,
) -> None:
    """Create a dataset folder: a class table to fill in and a folder for your images.

    If the folder already has class folders with images, the table gets a row for each class.
    """
    from unseen.data.template import write_example, write_template

    if example:
        from unseen.data.catalogue import FIELDGUIDE, load_dataset

        birds = with_bars(lambda bars: load_dataset(FIELDGUIDE, cache=cache, progress=bars))
        written = write_example(folder, birds, format)
    else:
        written = write_template(folder, format)
    for path in written:
        out.print(f"wrote {path}{'/' if path.is_dir() else ''}", highlight=False, soft_wrap=True, markup=False)
    step = "Inspect it, then run" if example else f"Fill in {written[0].name}, put images in images/, then run"
    out.print(f"{step}: unseen check {pasted(folder)}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Dataset folder: images and a class table.", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="List every finding and column.")] = False,
    missing: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help='Text or code that means "missing"; saved in missing.txt (repeatable).'),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that read images [default: one per core].", min=1)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a dataset folder: how its tables are read, what is wrong, and how to fix it.

    Reads every table and decodes every image. Exits with status 2 if training cannot start.
    """
    from unseen.data.checks import check_folder

    if missing:
        from unseen.data.folder import add_missing_words

        add_missing_words(folder, missing)
    result = with_bars(lambda bars: check_folder(folder, workers=workers, progress=bars))
    if as_json:
        print_json(result.as_dict())
        raise typer.Exit(0 if result.ready else 2)
    _print_understood(result, everything)
    for level in LEVELS:
        _print_findings(result.of(level), level, everything)
    count = len(result.of("error"))
    if result.ready:
        doubts = len(result.of("warning"))
        more = f" ({doubts} {'warning' if doubts == 1 else 'warnings'} above)" if doubts else ""
        network = f" --backbone features:{result.features[0]}" if result.features else ""
        _say(f"[green]ready to train:[/] unseen train {plain_text(pasted(folder) + network)}{more}")
    else:
        _say(f"[bold red]{count} {'problem' if count == 1 else 'problems'} to fix first[/]")
    raise typer.Exit(0 if result.ready else 2)


def _say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)


def _print_understood(result: CheckResult, everything: bool) -> None:
    if result.encoding is not None:
        columns = result.encoding.columns
        rows = [{"column": c.name, "read as": c.describe()} for c in columns]
        if len(rows) > COLUMNS and not everything:
            kinds = {row["read as"] for row in rows}
            if len(kinds) == 1:
                rows = [{"column": f"all {len(rows)} columns", "read as": kinds.pop()}]
            else:
                rows = [*rows[:COLUMNS], {"column": f"and {len(rows) - COLUMNS} more", "read as": "see --all"}]
        table = Table(header_style="bold")
        table.add_column("column", overflow="fold")
        table.add_column("read as", overflow="fold")
        for row in rows:
            table.add_row(*map(plain_text, row.values()))
        out.print(table)
        counts = {"column": len(columns), "attribute": len(result.encoding.names)}
        _say(", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items()))
    for state, what in (("seen", "with images"), ("unseen", "in the table only")):
        names = list(filter(None, result.classes.get(state, [])))
        if result.classes:
            shown = names if everything else names[:SHOWN]
            listed = plain_text(", ".join(shown)) + (", ..." if len(shown) < len(names) else "")
            _say(
                f"[bold]{len(names)}[/] {'class' if len(names) == 1 else 'classes'} {what} ({state})"
                + (f": {listed}" if names else "")
            )
    if ranks := result.classes.get("ranks"):
        _say("ranks: " + plain_text(", ".join(f"{rank} ({count})" for rank, count in ranks.items())))
    if result.images:
        counts = result.images
        _say(
            f"[bold]{counted(counts['trainval'], 'training image')}[/], "
            f"{counted(counts['test_seen'], 'test image')} of seen classes, "
            f"{counts['test_unseen']:,} of unseen classes (by {counts['by']})"
        )


def _print_findings(findings: list[Finding], level: str, everything: bool) -> None:
    """Findings by kind, the first ones of each."""
    color, title = LEVELS[level]
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    if kinds:
        _say(f"\n[bold {color}]{len(findings)} {title}[/]")
    for kind, found in kinds.items():
        _say(f"[{color}]{plain_text(kind)}[/] ({len(found)})")
        for finding in found if everything else found[:SHOWN]:
            _say(f"  {plain_text(str(finding))}")
        if len(found) > SHOWN and not everything:
            _say(f"  and {len(found) - SHOWN} more (--all lists them)")
    if kinds and level == "note":
        _say("")
