"""A comparison as a table of LaTeX, with the rules of the package booktabs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from unseen.evaluation.registry import every_metric
from unseen.report.tables import percent


def latex(found: dict[str, Any], comments: Iterable[str]) -> str:
    """One ``tabular`` of the finished rows: percent, the spread over seeds if there are several, the best in bold.

    With several protocols, each has its own columns.

    Args:
        found: content of ``compare.json``.
        comments: what readers of the table must know, before it.
    """
    views = found["views"]
    columns = [(view, metric) for view in views for metric in found["metrics"]]
    rows = [row for row in found["rows"] if row["error"] is None]
    cells = {column: [_cell(row[column[0]]["metrics"].get(column[1])) for row in rows] for column in columns}
    table = pd.DataFrame(cells, index=[row["name"] for row in rows])
    if len(views) == 1:
        table.columns = pd.Index(found["metrics"])
    style = table.style.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    best = pd.DataFrame("", index=table.index, columns=table.columns)
    for place, (view, metric) in enumerate(columns):
        for i in _best([row[view]["metrics"].get(metric) for row in rows], every_metric()[metric].higher_is_better):
            best.iloc[i, place] = "textbf:--rwrap;"
    style = style.apply(lambda _: best, axis=None)
    text = style.to_latex(hrules=True, column_format="l" + "r" * len(columns), multicol_align="c")
    return "".join(f"% {line}\n" for comment in comments for line in comment.splitlines()) + str(text)


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["mean"] is None:
        return "--"
    spread = rf" $\pm$ {percent(entry['std'])}" if entry["std"] else ""
    return f"{percent(entry['mean'])}{spread}"


def _best(entries: list[Mapping[str, Any] | None], higher: bool) -> list[int]:
    """Positions of the best values as they are printed; none among fewer than two."""
    shown = {i: float(percent(e["mean"])) for i, e in enumerate(entries) if e is not None and e["mean"] is not None}
    if len(shown) < 2:
        return []
    top = (max if higher else min)(shown.values())
    return [i for i, value in shown.items() if value == top]
