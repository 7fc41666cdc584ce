"""Compare the other result files with the aims of the project: `python -m benchmarks.aims [--output FILE]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measured import ROOT, finish


def rows_of(results: Path, name: str, title: str) -> list[dict[str, Any]]:
    """Rows of a result file; empty if it was not measured."""
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["tables"].get(title, []) if path.is_file() else []


def span(values: Iterable[float]) -> str:
    found = list(values)
    return f"{min(found):.2f} to {max(found):.2f}" if len(found) > 1 else f"{found[0]:.2f}"


def most(aim: str, limit: float, values: list[float]) -> dict[str, Any]:
    """An aim that every value must stay below."""
    return _row(aim, f"at most {limit:g}", values, all(v <= limit for v in values), sum(v <= limit for v in values))


def least(aim: str, limit: float, values: list[float]) -> dict[str, Any]:
    """An aim that every value must reach."""
    return _row(aim, f"at least {limit:g}", values, all(v >= limit for v in values), sum(v >= limit for v in values))


def _row(aim: str, limit: str, values: list[float], met: bool, count: int) -> dict[str, Any]:
    if not values:
        return {"aim": aim, "limit": limit, "measured": "not yet measured", "met": ""}
    share = "yes" if met else "no" if len(values) == 1 else f"{count} of {len(values)}"
    return {"aim": aim, "limit": limit, "measured": span(values), "met": share}


def at(precision: str) -> Callable[[dict[str, Any]], bool]:
    """Rows of a precision."""
    return lambda row: row["precision"] == precision


def where(rows: list[dict[str, Any]], column: str, keep: Callable[[dict[str, Any]], bool]) -> list[float]:
    return [float(row[column]) for row in rows if keep(row) and row.get(column) is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results = options.output.parent if options.output else ROOT / "benchmarks" / "results"
    table = partial(rows_of, results)
    steps, inference = table("steps", "Training steps"), table("steps", "Inference")
    start = table("start_up", "Start-up")
    rate = table("extraction_rate", "Extraction, cpu")
    rows = []
    for title, found in (("training step", steps), ("inference", inference)):
        for precision, limit in (("float32", 1.15), ("bfloat16", 1.5)):
            values = where(found, "ours / floor", at(precision))
            rows.append(most(f"{title}, {precision}: time over the floor of its products", limit, values))
    for precision, limit in (("float32", 1.6), ("bfloat16", 4.5)):
        values = where(steps, "literal float32 / ours", at(precision))
        rows.append(least(f"training step, {precision}: times faster than the formulas in float32", limit, values))
    mgmrn = where(table("mgmrn_step", "Mg-MRN step"), "times faster", lambda row: row["step"] == "+ fused optimiser")
    rows.append(least("Mg-MRN step on a CPU: times faster than the plain loop", 2.5, mgmrn))
    on_gpu = table("gpu/mgmrn_step", "Mg-MRN step")
    rows.append(
        least(
            "Mg-MRN step on a GPU: times faster",
            5,
            where(on_gpu, "times faster", lambda row: row["step"] == "+ fused optimiser"),
        )
    )
    whole = where(table("gpu/training", "A whole training"), "seconds", lambda row: "literal" not in row["training"])
    rows.append(most("the fastest whole training of CUB's size on a GPU, seconds", 15, sorted(whole)[:1]))
    alone = where(rate, "unseen to it", lambda row: row["side"].startswith("network alone, 4"))
    rows.append(least("extraction: rate over that of the network alone", 0.9, alone))
    predict = where(start, "seconds", lambda row: row["what"] == "unseen predict, one photograph")
    rows.append(most("unseen predict of one photograph, seconds from the command to its end", 3, predict))
    finish(options.output, {"Aims": rows})


if __name__ == "__main__":
    main()
