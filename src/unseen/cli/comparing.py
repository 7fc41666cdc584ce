"""``unseen compare`` and ``ablate``: several methods or settings on one dataset, one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.cli.common import (
    FAILED,
    JsonFlag,
    MetricsOption,
    app,
    err,
    out,
    output_folder,
    plain_text,
    print_json,
    print_table,
    stoppable,
    with_bars,
)
from unseen.cli.configuring import pairs
from unseen.cli.options import (
    EpochsOption,
    ProtocolOption,
    RunOptions,
    SeedsOption,
    check_dataset,
    with_options,
    with_run_options,
)
from unseen.errors import UnseenError

if TYPE_CHECKING:
    from unseen.experiments.compare import Comparison
    from unseen.experiments.variants import Variant

DatasetArgument = Annotated[str, typer.Argument(help="`fieldguide`, or a dataset folder.", show_default=False)]
WIDE = 320
"""Terminal width that fits the whole table."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options of the rows and columns of a comparison, as given."""

    seeds: SeedsOption = "5"
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Set a training recipe value for every gradient-trained row: lr=1e-3 (repeatable)."),
    ] = None
    epochs: EpochsOption = None
    validation_only: Annotated[
        bool, typer.Option("--validation-only", help="Measure on validation classes only; never read test images.")
    ] = False
    metrics: MetricsOption = None
    as_json: JsonFlag = False

    def comparison(
        self, variants: list[Variant], dataset: str, protocol: str, folder: Path, options: RunOptions
    ) -> Comparison:
        """The comparison that is asked for."""
        from unseen.evaluation.registry import chosen_metrics
        from unseen.experiments.compare import Comparison

        return Comparison(
            variants,
            options.entries(dataset, protocol, self.seeds, [variant.method for variant in variants], folder),
            common_recipe(self.recipe, self.epochs),
            validation_only=self.validation_only,
            metrics=chosen_metrics(self.metrics),
            cache=options.cache,
            device=options.device,
            workers=options.workers,
            engine=options.engine,
        )


with_table_options = with_options(TableOptions, "table")


@app.command()
@with_run_options
@with_table_options
def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            help="Rows to compare: [NAME=]METHOD[@PRESET][:KEY=VALUE,...], or `all` for every method.",
            show_default=False,
            metavar="ROWS",
        ),
    ],
    dataset: DatasetArgument,
    output: Annotated[Path | None, output_folder("Folder for runs and tables [default: runs/compare-DATASET].")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="honest (choose on validation classes), paper (choose on the test set), or both "
            "[default: both; honest if no unseen class has test images]."
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Also measure accuracy by number of support images per class, such as 0,1,2,5,10,20, taken from the "
            "test images of unseen classes; 10 draws.",
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Also measure the gain from naming batches of test images as a whole (`unseen predict --together`).",
        ),
    ] = False,
    *,
    table: TableOptions,
    options: RunOptions,
) -> None:
    """Compare methods or settings on one dataset.

    Repeat the command to resume: finished runs are kept, and a failed run is reported in its row.

    Example: `unseen compare eszsl msdn "no cal=msdn:lambda_cal=0" fieldguide --seeds 3`
    """
    from unseen.data.catalogue import load_dataset
    from unseen.experiments.batches import measure_batches
    from unseen.experiments.compare import compare as do
    from unseen.experiments.shots import measure_shots, parse_shots
    from unseen.experiments.variants import parse_variants

    check_dataset(dataset)
    loaded = None
    if protocol is None:
        loaded = with_bars(lambda bars: load_dataset(dataset, cache=options.cache, progress=bars))
        protocol = "both" if len(loaded.indices("test_unseen")) else "honest"
    counts = None if shots is None else parse_shots(shots)
    if (counts is not None or together) and (table.validation_only or protocol == "paper"):
        where = "--shots" if counts is not None else "--together"
        raise UnseenError("needs the honest protocol", where=where, hint="--protocol honest or both")
    variants = parse_variants(methods)
    folder = output or Path("runs") / f"compare-{Path(dataset).name}"
    asked = replace(table.comparison(variants, dataset, protocol, folder, options), loaded=loaded)
    found = run_comparison(asked, folder, table.as_json, do, counts is None and not together)
    done = [(row["name"], folder / row["folder"]) for row in found["rows"] if row["error"] is None]
    more: dict[str, Any] = {}
    if counts is not None:
        more["shots"] = measure_shots(done, folder, counts, device=options.device, cache=options.cache, say=_say)
    if together:
        more["together"] = measure_batches(done, folder, device=options.device, cache=options.cache, say=_say)
    if table.as_json and more:
        print_json(found | more)
        return
    if "shots" in more:
        _print_shots(more["shots"], folder)
    if "together" in more:
        _print_batches(more["together"], folder)


@app.command()
@with_run_options
@with_table_options
def ablate(
    method: Annotated[
        str,
        typer.Argument(help="METHOD[@PRESET][:KEY=VALUE,...]; the settings apply to every row.", show_default=False),
    ],
    dataset: DatasetArgument,
    output: Annotated[
        Path | None, output_folder("Folder for runs and tables [default: runs/ablate-METHOD-DATASET].")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Vary one setting instead and plot it: lambda_cal=0.01,0.1,1.")
    ] = None,
    protocol: ProtocolOption = "honest",
    *,
    table: TableOptions,
    options: RunOptions,
) -> None:
    """Run a method without each of its components, or sweep one setting.

    Writes the same tables as `unseen compare`; every row is compared with the full method. Repeat the command to
    resume.

    Example: `unseen ablate msdnpp fieldguide --validation-only --sweep lambda_causal=0.01,0.1,1`
    """
    from functools import partial

    from unseen.experiments.ablate import ablate as do
    from unseen.experiments.variants import parse_variant

    base = parse_variant(method)
    swept = "" if sweep is None else f"-{sweep.partition('=')[0]}"
    folder = output or Path("runs") / f"ablate-{base.folder}-{Path(dataset).name}{swept}"
    asked = table.comparison([base], dataset, protocol, folder, options)
    run_comparison(asked, folder, table.as_json, partial(do, base=base, sweep=sweep))
    if sweep is not None and not table.as_json:
        out.print(f"plot:   {folder / 'sweep'}*.png, .svg", highlight=False, soft_wrap=True)


def _say(line: str) -> None:
    err.print(plain_text(line), highlight=False, soft_wrap=True)


def _print_shots(found: dict[str, Any], folder: Path) -> None:
    from unseen.experiments.shots import KINDS, METRICS, cells, legend

    rows = [cells(row) for row in found["rows"]]
    first = ("method", "images a class")
    for title in KINDS.values():
        columns = {n: n for n in first} | {f"{m}, {title}": m for m in METRICS}
        print_table([{n: row[n] for n in columns} for row in rows], columns, title)
    columns = {n: n for n in (*first, "T1, both − better", "H, both − better")}
    print_table([{n: row[n] for n in columns} for row in rows], columns, "what images and attributes together add")
    out.print(plain_text(legend(found)), highlight=False, style="dim")
    out.print(f"curves: {folder / 'shots'}.md, .csv, .json, .png, .svg", highlight=False, soft_wrap=True)


def _print_batches(found: dict[str, Any], folder: Path) -> None:
    from unseen.experiments.batches import cells, legend

    print_table([cells(row) for row in found["rows"]], title="batches named as a whole (transductive)")
    out.print(plain_text(legend(found)), highlight=False, style="dim")
    out.print(f"batches: {folder / 'together'}.md, .json", highlight=False, soft_wrap=True)


def common_recipe(recipe: list[str] | None, epochs: int | None) -> dict[str, str]:
    """Recipe entries that all rows share."""
    return pairs(recipe or [], "--recipe") | ({"epochs": str(epochs)} if epochs is not None else {})


def run_comparison(
    asked: Comparison, folder: Path, as_json: bool, do: Callable[..., dict[str, Any]], last: bool = True
) -> dict[str, Any]:
    """Make a comparison, print its table, and return its content. JSON is printed only if nothing comes after."""
    from unseen.data.catalogue import load_dataset
    from unseen.experiments.compare import name

    if asked.loaded is None:
        where, cache = asked.base["dataset"], asked.cache
        loaded = with_bars(lambda bars: load_dataset(where, cache=cache, progress=bars))
        asked = replace(asked, loaded=loaded)
    with stoppable():
        found = do(asked, folder, say=_say)
    if as_json:
        if last:
            print_json(found)
    else:
        print_comparison(found)
        out.print(f"tables: {folder / name(asked)}.md, .tex, .csv, .json, .html", highlight=False, soft_wrap=True)
    if all(row["error"] for row in found["rows"]):
        raise typer.Exit(FAILED)
    return found


def print_comparison(found: dict[str, Any]) -> None:
    """Print the table, in parts on a narrow terminal, with notes on it."""
    from unseen.evaluation.registry import HEADLINES
    from unseen.report.comparison import (
        comparison_rows,
        difference_columns,
        failures,
        legend,
        level_rows,
        metric_columns,
    )

    rows = comparison_rows(found)
    if rows and out.width >= WIDE:
        print_table(rows, title=found["title"])
    elif rows:
        views = found["views"]
        if len(views) > 1:  # side by side
            main = [m for m in HEADLINES if m in found["metrics"]]
            gaps = {m: f"{m}, paper − honest" for m in main}
            parts = {" and ".join(main): [n for m in main for n in (*(f"{view} {m}" for view in views), gaps[m])]}
            others = [m for m in found["metrics"] if m not in main]
            parts["the other metrics"] = [f"{view} {m}" for m in others for view in views]
        else:
            parts = {"metrics": list(metric_columns(found, views[0]))}
        parts["differences"] = [n for n in difference_columns(found) if "paper − honest" not in n]
        shown = {name for columns in parts.values() for name in columns} | {"method"}
        parts["runs"] = [name for name in rows[0] if name not in shown]
        for title, names in parts.items():
            if not names:
                continue
            columns = {name: name for name in ("method", *names)}
            print_table([{n: row[n] for n in columns} for row in rows], columns, f"{found['title']}: {title}")
    if levels := level_rows(found):
        print_table(levels, title=f"{found['title']}: ranks")
    for text in failures(found):
        err.print(f"[bold red]failed:[/] {plain_text(text)}", highlight=False, soft_wrap=True)
    for text in (*found["statements"], *found["warnings"]):
        out.print(plain_text(text), highlight=False)
    out.print(plain_text("\n".join(legend(found))), highlight=False, style="dim")
