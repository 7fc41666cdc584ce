"""Comparisons of methods as one table each, from the folders that `unseen compare` wrote.

    unseen compare sae eszsl@paper eszsl prototypes cn devise ale sje global msdn msdnpp anchored fieldguide \
        --seeds 5 --protocol honest --holdouts 0 --output runs/fieldguide
    python -m benchmarks.comparisons runs/fieldguide --output benchmarks/results/comparison_fieldguide.json

Percent, honest protocol. ``±`` is the standard deviation over seeds; ``lead`` is the H of the row with the highest one
less that of the row, paired over images and seeds, with its 95% interval; ``over classes`` is its interval if classes
are resampled, too. ``seconds`` and ``GB`` are those of the row's own process, without the extraction of features.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.measured import finish


def main() -> None:
    """Read, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders that `unseen compare` wrote")
    parser.add_argument("--output", "-o", type=Path)
    chosen, tables, facts = parser.parse_args(), dict[str, list[dict[str, Any]]](), {}
    for folder in chosen.folders:
        found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
        tables[folder.name] = [line(row) for row in found["rows"] if row["error"] is None]
        facts[folder.name] = {name: found[name] for name in ("data", "backbone", "splits", "machine", "select")}
    finish(chosen.output, tables, comparisons=facts)


def line(row: dict[str, Any]) -> dict[str, Any]:
    """One row of a table."""
    metrics, gap = row["honest"]["metrics"], row["honest"].get("against", {}).get("H")
    seeds = 1 if row["deterministic"] else len(row["seeds"])
    found: dict[str, Any] = {"method": row["name"], "seeds": seeds}
    for name in ("T1", "U", "S", "H", "AUSUC"):
        value = metrics[name]
        text = f"{100 * value['mean']:.1f}"
        found[name] = text if seeds == 1 else f"{text} ± {100 * value['std']:.1f}"
    found["lead"] = "" if gap is None else f"{points(gap, 'mean')} [{points(gap, 'high')}, {points(gap, 'low')}]"
    found["over classes"] = "" if gap is None else f"[{points(gap, 'high_classes')}, {points(gap, 'low_classes')}]"
    return found | {"seconds": round(row["seconds"]), "GB": round(row["peak_memory_mb"] / 1000, 1)}


def points(gap: dict[str, float], end: str) -> str:
    """One number of a lead, the difference with the other sign, in points."""
    return f"{-100 * gap[end] + 0.0:.1f}"


if __name__ == "__main__":
    main()
