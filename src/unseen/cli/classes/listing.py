"""``unseen classes list`` and ``show``: the classes of a model and their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unseen.classes.changes import changes_since, read_encoding, table_in_use, trained_table
from unseen.classes.expectations import Expectation, expectations
from unseen.cli.classes.group import ModelArgument, NameArgument, commands, say, support_of
from unseen.cli.common import JsonFlag, check_ending, print_json, print_table
from unseen.ground.files import write_text
from unseen.ground.words import counted


@commands.command("list")
def list_classes(run: ModelArgument, as_json: JsonFlag = False) -> None:
    """List the classes, and their changes since the training."""
    table, trained = table_in_use(run), trained_table(run)
    states, expected = changes_since(table, trained), {e.name: e for e in expectations(table, trained)}
    removed = [name for name in trained.names if name not in table.names]
    support = support_of(run)
    counts = {name: 0 if support is None else len(support[name].images) for name in table.names}
    bare = {name for name in table.names if support is not None and not support[name].attributes}
    rows: list[dict[str, Any]] = [
        {
            "class": name,
            "seen": bool(seen),
            "change": state,
            "images": counts[name],
            "expectation": None if name in bare else _expectation(expected.get(name)),
        }
        for name, seen, state in zip(table.names, table.seen, states, strict=True)
    ]
    if as_json:
        print_json({"classes": rows, "removed": removed})
        return
    columns = {"class": "class", "": "", **({"change": "change"} if any(states) else {})}
    if any(counts.values()):
        columns["images"] = "images"
    if any(r["expectation"] for r in rows):
        columns["expectation"] = "expectation"
    print_table(
        [
            {
                "class": r["class"],
                "": "seen" if r["seen"] else "unseen",
                "change": r["change"],
                "images": f"{r['images']}{', no attributes' if r['class'] in bare else ''}",
                "expectation": r["expectation"] or "",
            }
            for r in rows
        ],
        columns,
    )
    say(f"{counted(len(table), 'class')}: {int(table.seen.sum())} seen, {int((~table.seen).sum())} unseen")
    if table.taxonomy is not None:
        say(f"ranks: {table.taxonomy.describe()}")
    if removed:
        say(f"removed: {', '.join(removed)}")


def _expectation(found: Expectation | None) -> str | None:
    """What to expect of an unseen class; ``None`` for a seen one."""
    return None if found is None else found.text


@commands.command()
def show(
    run: ModelArgument,
    name: NameArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all values to this CSV, for `add` and `edit`.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the attributes of a class: in the words of your table if it has any, else the nonzero values."""
    import pandas as pd

    if output is not None:
        check_ending(output, ".csv")
    table, encoding = table_in_use(run), read_encoding(run)
    values = table.values[table.index(name)]
    cells = None if encoding is None or encoding.as_it_stands else encoding.decode(values)
    pairs = [(a, float(v)) for a, v in zip(table.attributes.names, values, strict=True)]
    if output is not None:
        write_text(output, pd.DataFrame(pairs, columns=["attribute", "value"]).to_csv(index=False))
    taxa = table.taxa(table.index(name))
    if as_json:
        seen = bool(table.seen[table.index(name)])
        own = {"ranks": taxa} if taxa else {}
        own |= {} if cells is None else {"cells": cells}
        print_json({"class": name, "seen": seen, **own, "attributes": dict(pairs)})
        return
    if taxa:
        say(", ".join(f"{rank} {taxon}" for rank, taxon in taxa.items()))
    shown = [(a, f"{v:g}") for a, v in pairs if v] if cells is None else [c for c in cells.items() if c[1]]
    print_table([{"attribute": a, "value": v} for a, v in shown], {"attribute": "attribute", "value": "value"})
    if output is not None:
        say(f"all {len(pairs)} values: {output}")
