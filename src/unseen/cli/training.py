"""``unseen train``, ``evaluate`` and ``demo``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli import completing
from unseen.cli.common import (
    CacheOption,
    DeviceOption,
    JsonFlag,
    MetricsOption,
    RunArgument,
    app,
    err,
    out,
    output_folder,
    plain_text,
    print_json,
    print_table,
    with_bars,
)
from unseen.cli.configuring import pairs
from unseen.cli.options import EpochsOption, ProtocolOption, RunOptions, SeedsOption, with_run_options
from unseen.errors import UnseenError
from unseen.ground.words import counted, pasted

if TYPE_CHECKING:
    from unseen.data.dataset import Dataset
    from unseen.integrations.trackers import Tracker
    from unseen.training.folder import Run
    from unseen.training.plan import Plan


@app.command()
@with_run_options
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="Dataset folder: images and a class table; or `fieldguide`.",
            show_default=False,
            autocompletion=completing.datasets,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="Method name (see `unseen list methods`), or package.module:Class.",
            autocompletion=completing.methods,
        ),
    ] = "auto",
    output: Annotated[Path | None, output_folder("Run folder [default: runs/METHOD-DATASET].")] = None,
    protocol: ProtocolOption = "honest",
    seeds: SeedsOption = "1",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings to start from: cub, sun, awa2 (the releases') or recommended [default: by dataset]."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of the method: lambda_cal=0.2 (repeatable).")
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Change the training recipe: epochs=10, lr=1e-3 (repeatable).")
    ] = None,
    epochs: EpochsOption = None,
    report: Annotated[bool, typer.Option(help="Write report.html into the run folder.")] = True,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GB of regions or images to keep in memory (GPU memory on a GPU) [default: half of what is free].",
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="Also log to a tracker: tensorboard, wandb, mlflow or trackio (repeatable).",
            show_default=False,
            autocompletion=completing.one_of("tracker"),
        ),
    ] = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="Capture each training step as one CUDA graph; faster on a GPU.")
    ] = False,
    time: Annotated[
        str | None,
        typer.Option(
            help="With --method auto: time limit, such as 90s, 5m or 2h; also tries --mirror, --zoom 2 and "
            "`tuned`, which trains the network's last layers [default: no limit, without these]."
        ),
    ] = None,
    as_json: JsonFlag = False,
    *,
    options: RunOptions,
) -> None:
    """Train and test a model on a dataset; repeat the command to resume.

    Examples: `unseen train my-folder`, `unseen train fieldguide --method msdn --seeds 5 --protocol both`
    """
    from unseen.training.folder import default_folder

    folder = output or default_folder(method, Path(dataset).resolve().name)
    entries = options.entries(dataset, protocol, seeds, [method], folder)

    from unseen.report.summary import verdict
    from unseen.report.tables import race_rows, race_sentence, result_rows
    from unseen.training.config import RunConfig
    from unseen.training.run import fit

    changes = pairs(recipe or [], "--recipe") | ({"epochs": str(epochs)} if epochs is not None else {})
    config = RunConfig(method=method, preset=preset, settings=pairs(setting or [], "--set"), recipe=changes, **entries)
    config = replace(config, time=_seconds(time)) if time else config
    device, cache, workers = options.device, options.cache, options.workers
    budget, tell = None if memory is None else round(memory * 1e9), _tell_plan(folder)
    plans: list[Plan] = []

    def on_plan(plan: Plan) -> None:
        tell(plan)
        plans.append(plan)

    tracker = _tracker(track or [], folder)
    with tracker:
        run = with_bars(
            lambda bars: fit(
                config,
                folder,
                on_record=tracker,
                cache=cache,
                device=device,
                workers=workers,
                engine=options.engine,
                progress=bars,
                on_plan=on_plan,
                on_note=_note,
                budget_bytes=budget,
                graph=graph,
            )
        )
    loaded = plans[0].dataset if plans else None
    page = _page_of(run, device, cache, loaded) if report and not config.backbone.imported else None
    if as_json:
        print_json({"run": str(run.folder), "page": None if page is None else str(page), **run.results})
        return
    if race := race_rows(run.results):
        print_table(race, title="Race on validation classes")
        out.print(plain_text(race_sentence(run.results)), highlight=False, style="dim")
    print_table(result_rows([run]))
    print_legend(run)
    out.print()
    for line in verdict(run):
        out.print(plain_text(line), highlight=False)
    out.print()
    if page:
        out.print(f"report:  {page}", highlight=False, soft_wrap=True)
    out.print(f"run:     {run.folder}", highlight=False, soft_wrap=True)
    if not config.backbone.imported:
        out.print(f"predict: unseen predict {pasted(run.folder)} IMAGES", highlight=False, soft_wrap=True)


def _seconds(text: str) -> float:
    """Parse a duration such as 90, 90s, 5m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    if found is None or not float(found[1]):
        raise UnseenError(f'"{text}" is not a duration', where="--time", hint="use, for example, 90s, 5m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _tracker(names: list[str], folder: Path) -> Tracker:
    from unseen.ground.distributed import is_first
    from unseen.integrations.trackers import create_tracker

    return create_tracker(names if is_first() else [], folder)


def _tell_plan(folder: Path) -> Callable[[Plan], None]:
    """Print the plan of the run before it starts."""
    from unseen.ground.words import size_text
    from unseen.methods import find_method

    def tell(plan: Plan) -> None:
        data, spec = plan.dataset.describe(), plan.config.backbone
        size = "" if spec.imported else f" at {size_text(spec.resolved().image_size, spec.zoom, spec.mirror)}"
        lines = [
            f"{data['name']}: {data['classes_seen']} seen and {counted(data['classes_unseen'], 'unseen class')}, "
            f"{counted(data['attributes'], 'attribute')}, {counted(data['trainval'], 'training image')}, "
            f"{data['test_seen']} + {counted(data['test_unseen'], 'test image')}",
            f"{find_method(plan.config.method).name} ({plan.preset}) on {spec.name}{size}, "
            f"{' and '.join(plan.config.protocols)} protocol; run folder {folder}",
        ]
        for line in lines:
            err.print(plain_text(line), highlight=False, soft_wrap=True)

    return tell


def _note(text: str) -> None:
    err.print(f"[yellow]note:[/] {plain_text(text)}", highlight=False, soft_wrap=True)


def _page_of(run: Run, device: str, cache: Path | None, dataset: Dataset | None) -> Path | None:
    """Write the page, or print a note if packages for it are not installed."""
    from unseen.ground.extras import require

    try:
        require("matplotlib")
    except UnseenError as error:
        _note(f"no report page: {error}")
        return None
    return write_run_report(run, device, cache, dataset)


def write_run_report(run: Run, device: str, cache: Path | None, dataset: Dataset | None = None) -> Path:
    """``report.html`` in the run's folder; ``dataset`` is that of the run, if it has been read already."""
    from unseen.report.page import write_report

    return with_bars(lambda bars: write_report(run, device=device, cache=cache, progress=bars, dataset=dataset))


def print_legend(run: Run, metrics: list[str] | None = None) -> None:
    """Meaning of the columns in a run's table."""
    from unseen.evaluation.registry import chosen_metrics
    from unseen.report.tables import chances, metrics_legend, paper_choice, percent

    names = metrics or chosen_metrics()
    guessing = ", ".join(f"{name} {percent(value)}" for name, value in chances(run).items() if name in names)
    out.print(
        f"{metrics_legend(names)}. Guessing: {guessing}. ± spread over seeds, [ ] 95% interval over images. "
        + paper_choice(run),
        highlight=False,
        style="dim",
    )


@app.command()
def evaluate(
    run: RunArgument,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print one row per class.")] = False,
    protocol: Annotated[
        str | None, typer.Option(help="honest or paper, for a run with both [default: honest if it ran].")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Calibration offset subtracted from seen scores [default: the run's].")
    ] = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    metrics: MetricsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Test the saved models of a run again."""
    from unseen.evaluation.registry import chosen_metrics
    from unseen.report.tables import percent, result_rows
    from unseen.training.folder import Run
    from unseen.training.run import evaluate_run

    opened, columns = Run(run), chosen_metrics(metrics)
    found = with_bars(
        lambda bars: evaluate_run(opened, protocol=protocol, gamma=gamma, device=device, cache=cache, progress=bars)
    )
    if as_json:
        print_json(found)
        return
    described = result_rows([opened])[0]
    rows = [
        {
            "seed": seed,
            **{name: percent(values[name]) for name in columns},
            "gamma": f"{values['gamma']:.3f}",
            "data": described["data"],
            "backbone": described["backbone"],
        }
        for seed, values in found["seeds"].items()
    ]
    print_table(rows, title=f"{described['method']}, {found['protocol']} protocol")
    if per_class:
        print_table(
            [
                {
                    "class": row["class"],
                    "": "seen" if row["seen"] else "unseen",
                    "images": str(row["images"]),
                    "among all": percent(row["among_all"]),
                    "among unseen": percent(row["among_unseen"]),
                }
                for row in found["per_class"]
            ]
        )


@app.command()
def demo(
    output: Annotated[Path, output_folder("Folder for runs and the report.")] = Path("runs/demo"),
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Run the whole workflow on the built-in drawn birds: draw, train, test and write a report."""
    from unseen.report.page import write_report
    from unseen.report.tables import result_rows
    from unseen.training.config import RunConfig
    from unseen.training.plan import default_backbone
    from unseen.training.run import fit

    def one(method: str) -> Run:
        config = RunConfig(method=method, dataset="fieldguide", backbone=default_backbone("fieldguide"))
        if not as_json:
            err.print(f"[bold]{method}[/] on fieldguide", highlight=False)
        return with_bars(lambda bars: fit(config, output / method, cache=cache, device=device, progress=bars))

    runs = [one(method) for method in ("global", "eszsl", "msdn")]
    page = with_bars(
        lambda bars: write_report(
            runs[-1], others=runs[:-1], path=output / "report.html", device=device, cache=cache, progress=bars
        )
    )
    if as_json:
        print_json({"runs": {r.folder.name: r.results for r in runs}, "report": str(page)})
        return
    print_table(result_rows(runs))
    print_legend(runs[-1])
    out.print(f"\nOpen the report:  {page.resolve()}", highlight=False, soft_wrap=True)
    out.print(f"Predict an image: unseen predict {pasted(runs[-1].folder)} IMAGE", highlight=False, soft_wrap=True)
