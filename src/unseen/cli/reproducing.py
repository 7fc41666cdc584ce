"""``unseen reproduce``: run an experiment file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from unseen.cli.common import JsonFlag, app, err, out, output_folder, plain_text, print_json, with_bars
from unseen.cli.configuring import parse_protocols, parse_seeds
from unseen.cli.options import ENTRIES, RunOptions, with_run_options
from unseen.errors import UnseenError

DEFAULTS = {name: getattr(RunOptions(), name) for name in ENTRIES}
"""Entries of a run that an experiment does not set."""


@app.command()
@with_run_options
def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(help="METHOD/DATASET from `unseen list experiments`, or a YAML file.", show_default=False),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the dataset; not needed for fieldguide.", show_default=False)
    ] = None,
    output: Annotated[Path | None, output_folder("Run folder [default: runs/reproduce/METHOD-DATASET].")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds to use instead of the experiment's.")] = None,
    protocol: Annotated[str | None, typer.Option(help="honest, paper or both [default: the experiment's].")] = None,
    record: Annotated[bool, typer.Option("--record", help="Record the results in the experiment file.")] = False,
    as_json: JsonFlag = False,
    *,
    options: RunOptions,
) -> None:
    """Run a published experiment and compare the results with the paper's.

    Repeat the command to resume.

    Example: `unseen reproduce msdn/cub --data ~/CUB`
    """
    from unseen.cli.common import print_table
    from unseen.experiments import files
    from unseen.experiments.reproduce import Reproduction, comparison_table, measured_block
    from unseen.experiments.reproduce import reproduce as do

    found = files.load_experiment(experiment)
    weights, network = options.backbone_weights, options
    if options.backbone is None:
        network = replace(options, backbone_weights=None)
        free: dict[str, Any] = {"device": "auto", "workers": RunOptions.workers, "engine": None, "cache": None}
        if replace(network, **free, **{k: DEFAULTS[k] for k in ENTRIES}) != RunOptions():
            raise UnseenError("backbone options need --backbone", hint="add --backbone with a timm model")
    entries = network.entries("fieldguide" if data is None else str(data), "both", "1")
    asked = Reproduction(
        found,
        data,
        output or Path("runs") / "reproduce" / found.name.replace("/", "-"),
        backbone=None if options.backbone is None else entries["backbone"],
        weights=None if weights is None else str(Path(weights).expanduser().absolute()),
        protocols=None if protocol is None else parse_protocols(protocol),
        seeds=None if seeds is None else parse_seeds(seeds),
        options={k: v for k, v in entries.items() if k in DEFAULTS and v != DEFAULTS[k]},
        cache=options.cache,
        device=options.device,
        workers=options.workers,
        engine=options.engine,
    )
    run, differs = with_bars(lambda bars: do(asked, progress=bars))
    rows = comparison_table(found, run)
    if record:
        recorded = files.record(found, measured_block(run, _command(), differs))
    if as_json:
        print_json({"experiment": found.name, "run": str(run.folder), "rows": rows, "differs": differs})
        return
    columns = {name: name for name in rows[0] if name not in ("features", "source")}
    print_table([{n: row[n] for n in columns} for row in rows], columns, f"{found.method} on {found.facts.title}")
    for line in dict.fromkeys(f"{row['']}: {row['source']}; {row['features']}" for row in rows):
        out.print(plain_text(line), highlight=False, soft_wrap=True)
    for line in differs:
        out.print(f"difference: {plain_text(line)}", highlight=False, soft_wrap=True)
    said = [
        *(b.note for b in found.reported if b.note),
        *found.notes,
        *([found.facts.note] if found.facts.note else []),
    ]
    for line in dict.fromkeys(said):
        out.print(f"note: {plain_text(line)}", highlight=False, soft_wrap=True)
    out.print(f"run: {run.folder}", highlight=False, soft_wrap=True)
    if record:
        err.print(f"recorded in {recorded}", highlight=False, soft_wrap=True)


def _command() -> str:
    """The command line with only the last part of every path, to keep the rest private."""
    import shlex
    import sys

    def short(word: str) -> str:
        return Path(word).name if "/" in word and Path(word).expanduser().exists() else word

    return shlex.join(["unseen", *map(short, sys.argv[1:])])
