"""How well class hold-outs predict the accuracy on unseen classes, on finished runs with images of unseen classes.

    python -m benchmarks.holdouts runs/msdnpp-fieldguide runs/eszsl-fieldguide --draws 3 --output results.json

The images of unseen classes are removed from a copy of each run's dataset, the run is repeated on the copy, and its
hold-out estimates are compared with the accuracy measured on those images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from unseen.classes.attributes import write_attributes
from unseen.data.catalogue import load_dataset
from unseen.training.folder import Run
from unseen.training.run import fit


def without_unseen(dataset, folder: Path) -> Path:
    folder.mkdir(parents=True)
    dataset.table.to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", dataset.table.attributes)
    (folder / "images").symlink_to(dataset.images.resolve())
    names = [dataset.table.names[c] for c in dataset.labels]
    frame = pd.DataFrame({"file": dataset.files, "class": names, "split": dataset.split})
    frame[frame["split"] != "test_unseen"].to_csv(folder / "images.csv", index=False)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for run in map(Run, options.runs):
        dataset = load_dataset(run.config.dataset)
        measured = run.results["protocols"]["honest"]["metrics"]
        with tempfile.TemporaryDirectory() as scratch:
            folder = without_unseen(dataset, Path(scratch) / dataset.name)
            preset = run.manifest["method"]["preset"]
            config = replace(
                run.config, dataset=str(folder), preset=preset, seeds=run.config.seeds[:1], holdouts=options.draws
            )
            again = fit(config, Path(scratch) / "run").results["protocols"]["honest"]["holdout"]
        row = {"method": run.config.method, "data": dataset.name, "set_aside": again["classes_set_aside"]}
        for name in ("T1", "U", "S", "H"):
            row[name] = round(100 * measured[name]["mean"], 1)
            row[f"{name}_held_out"] = [round(100 * draw["metrics"][name], 1) for draw in again["draws"]]
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.output:
        options.output.write_text(json.dumps({"draws": options.draws, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
