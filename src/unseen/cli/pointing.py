"""``unseen pointing``: the pointing game of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.common import CacheOption, DeviceOption, JsonFlag, app, out, print_json, print_table, with_bars


@app.command()
def pointing(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `unseen train`.", show_default=False)],
    by_group: Annotated[bool, typer.Option("--by-group", help="Also print one row per attribute group.")] = False,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Play the pointing game: how often the attention of an attribute peaks on its part (needs parts.csv).

    Example: `unseen pointing runs/msdn-cub50 runs/msdnpp-cub50 --by-group`
    """
    from unseen.explain.pointing import run_pointing
    from unseen.report.tables import percent
    from unseen.training.folder import Run

    opened = [Run(run) for run in runs]
    found = {
        str(run.folder): with_bars(
            lambda bars, run=run: run_pointing(run, device=device, cache=cache, progress=bars)  # type: ignore[misc]
        )
        for run in opened
    }
    if as_json:
        print_json(found)
        return

    def cell(entry: dict[str, float]) -> str:
        return percent(entry["hits"]) + (f" ± {percent(entry['std'])}" if entry["std"] else "")

    named = [(f"{run.folder.name} {name}", game) for run in opened for name, game in found[str(run.folder)].items()]
    print_table([{"map": name, "hits": cell(game), "chance": percent(game["chance"])} for name, game in named])
    if by_group:
        groups = list(dict.fromkeys(group for _, game in named for group in game["by_group"]))
        print_table(
            [
                {
                    "group": group,
                    **{name: cell(game["by_group"][group]) for name, game in named if group in game["by_group"]},
                    "chance": percent(named[0][1]["by_group"][group]["chance"]),
                    "cases": str(named[0][1]["by_group"][group]["cases"]),
                }
                for group in groups
            ]
        )
    out.print(
        "Percentage of (unseen test image, attribute of its class) pairs whose strongest region "
        "lies on the part that the attribute names; ± spread over seeds; chance: a random "
        "region.",
        highlight=False,
        style="dim",
    )
