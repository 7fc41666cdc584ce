"""``unseen list``."""

from __future__ import annotations

from typing import Annotated

import typer

from unseen.cli.common import JsonFlag, app, print_json, print_table
from unseen.errors import UnseenError


@app.command(name="list")
def list_things(
    what: Annotated[
        str, typer.Argument(help="methods, datasets, layouts, experiments, or stages of a timm model.")
    ] = "methods",
    name: Annotated[
        str | None, typer.Argument(help="Method to describe, or timm model for `stages`.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List methods (default), datasets, layouts that can be imported, experiments, or the stages of a backbone.

    Examples: `unseen list methods msdn`, `unseen list stages resnet101`
    """
    if what == "methods":
        from unseen.methods import every_method, find_method

        chosen = every_method().values() if name is None else [find_method(name)]
        rows = [{"name": m.name, **vars(m.card), "presets": ", ".join(m.presets)} for m in chosen]
        if name is None and not as_json:
            rows = [{k: row[k] for k in ("name", "title", "paper", "presets")} for row in rows]
        elif not as_json:
            told = {"exact": "as in the paper"}
            rows = [{"": told.get(key, key), rows[0]["name"]: value} for key, value in rows[0].items() if key != "name"]
    elif what == "datasets":
        rows = [
            {"name": "fieldguide", "what": "60 species of drawn birds; no download"},
            {
                "name": "FOLDER",
                "what": "your own dataset: images in images/CLASS/ and a class table; see `unseen init`",
            },
        ]
    elif what == "layouts":
        from unseen.data.layouts import LAYOUTS

        rows = [{"name": layout.name, "what `unseen import` reads": layout.title} for layout in LAYOUTS.values()]
    elif what == "experiments":
        rows = _experiments(name)
    elif what == "stages":
        if name is None:
            raise UnseenError("stages needs a timm model", hint="for example, unseen list stages resnet101")
        from unseen.backbones.backbone import list_stages

        rows = [{"stage": str(s), "channels": str(c), "reduction": f"1/{r}"} for s, c, r in list_stages(name)]
    else:
        raise UnseenError(f'cannot list "{what}"', hint="use methods, datasets, layouts, experiments or stages")
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


def _experiments(method: str | None) -> list[dict[str, str]]:
    """One row per experiment file: what was reported, and whether a run has been recorded."""
    from unseen.experiments.files import experiment_names, load_experiment

    rows = []
    for name in experiment_names():
        found = load_experiment(name)
        if method not in (None, found.method):
            continue
        reported = found.reported[0].numbers if found.reported else {}
        numbers = [f"{metric} {value}" for metric, value in reported.items() if value is not None]
        rows.append(
            {
                "experiment": name,
                "data": found.facts.title,
                "reported": " ".join(numbers) or "–",
                "recorded": str(len(found.measured)),
            }
        )
    if not rows:
        raise UnseenError(f'no experiments of "{method}"', hint="see `unseen list methods`")
    return rows
