"""Accuracy of Mg-MRN's schedules: progressive, joint, and joint with twice the learning rate and about as much time.

    python -m benchmarks.mgmrn_schedules fieldguide [--seeds 3] [--output FILE]
    python -m benchmarks.mgmrn_schedules cub50 --data FOLDER --weights FILE [--output FILE]

Runs `unseen compare` under the honest protocol; repeat the command to resume. A seed of fieldguide takes about a
quarter of an hour on one idle thread, of cub50 (128 px) about half an hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measured import finish

ROWS = {  # dataset: method with preset, doubled learning rate, batches per epoch that take about progressive's time
    "fieldguide": ("mgmrn", "2e-3", 130),
    "cub50": ("mgmrn@recommended", "6e-4", 130),
}
CUT = ("--epochs", "4", "--recipe", "batches=60", "--recipe", "lr_every=3")
"""Backbone for cub50."""
MOBILENET = (
    *("--backbone", "mobilenetv2_100", "--backbone-option", "pad_type=same"),
    *("--mean", "0.5", "--std", "0.5", "--image-size", "128"),
)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=ROWS)
    parser.add_argument("--data", type=Path, help="dataset folder of cub50")
    parser.add_argument("--weights", type=Path, help="weights of MobileNetV2, for cub50")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--rows", type=int, default=4, help="number of rows to run")
    parser.add_argument(
        "--runs", type=Path, default=None, help="folder of the runs (default: runs/mgmrn-schedules-DATASET)"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, name = time.monotonic(), options.dataset
    runs = options.runs or Path(f"runs/mgmrn-schedules-{name}")
    method, lr, batches = ROWS[name]
    arguments: list[str] = []
    if name == "cub50":
        if not (options.data and options.weights):
            parser.error("cub50 needs --data and --weights")
        arguments = [*CUT, *MOBILENET, "--backbone-weights", str(options.weights)]
    rows = [
        f"joint={method}",
        f"progressive={method}:schedule=progressive",
        f"joint, twice the learning rate={method}:lr={lr}",
        f"joint, {batches} batches an epoch={method}:batches={batches}",
    ][: options.rows]
    data = str(options.data or name)
    command = [sys.executable, "-m", "unseen", "compare", *rows, data, *arguments]
    subprocess.run([*command, "--protocol", "honest", "--seeds", options.seeds, "-o", runs], check=True)
    found = json.loads((runs / "compare.json").read_text(encoding="utf-8"))
    finish(
        options.output,
        {f"Schedules on {name}": [row_of(row) for row in found["rows"]]},
        began=began,
        says=found["statements"],
        data=found["data"],
        backbone=found["backbone"],
    )


def row_of(row: dict) -> dict:
    """One line of the table: percent, with the interval over images."""
    if row["error"]:
        raise SystemExit(f"{row['name']}: {row['error']}")
    metrics = row["honest"]["metrics"]
    cells: dict = {"training": row["name"], "batches": row["recipe"]["epochs"] * row["recipe"]["batches"]}
    for name in ("T1", "U", "S", "H", "AUSUC"):
        m = metrics[name]
        interval = "" if m["low"] is None else f" [{100 * m['low']:.1f}, {100 * m['high']:.1f}]"
        cells[name] = f"{100 * m['mean']:.1f}{interval}"
    chosen = [s["chosen"]["validation"]["best_H"] for s in row["honest"]["seeds"].values()]
    cells["H, validation"] = f"{100 * sum(chosen) / len(chosen):.1f}"
    cells["seeds"] = len(row["seeds"])
    return cells


if __name__ == "__main__":
    main()
