"""How well class hold-outs predict the accuracy on unseen classes.

    python -m benchmarks.holdouts fieldguide cub50:mobilenetv2 --classes 9+4 20+8 --problems 20 --output results.json

A problem is so many random classes with images and so many without, as a user has them: pooled features are imported
without those of the unseen classes, and ``unseen train --method METHOD`` estimates the accuracy on these. The same run
with their images measures it. ``bias`` is the mean of estimate less accuracy, ``off`` the mean absolute difference,
``interval`` the mean width of the 95% interval, and ``holds`` the percentage of problems whose accuracy lies within it;
all but the last in points. Jobs are those of :mod:`benchmarks.closed_forms`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.closed_forms import inputs_of
from benchmarks.measured import finish
from unseen import fit
from unseen.classes.attributes import write_attributes
from unseen.data.dataset import Dataset
from unseen.data.importing import dataset_of, import_features
from unseen.ground.cache import cache_folder
from unseen.training.stage import Stage

METRICS = ("T1", "U", "H")
TEST_SHARE = 0.2
"""Of the images of a seen class."""


def pooled(job: str, cache: Path) -> tuple[Dataset, np.ndarray]:
    """A dataset and the mean features of its images ``(M, C)``."""
    inputs = inputs_of(job, 0, cache)
    features, count = Stage(inputs, "final").features(np.arange(len(inputs.dataset.files)), budget_bytes=0), 256
    places = np.arange(len(inputs.dataset.files))
    parts = [
        features.batch(places[i : i + count]).float().mean(dim=1).cpu().numpy() for i in range(0, len(places), count)
    ]
    return inputs.dataset, np.concatenate(parts)


def problem(
    folder: Path, dataset: Dataset, features: np.ndarray, seen: np.ndarray, unseen: np.ndarray, hidden: bool
) -> Path:
    """A dataset folder of some classes, with or without the images of the unseen ones."""
    classes, table = np.sort([*seen, *unseen]), dataset.table
    folder.mkdir()
    table.select(classes, seen=np.isin(classes, seen)).to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", table.attributes)
    tested = np.random.default_rng(0).random(len(dataset.labels)) < TEST_SHARE
    split = np.where(np.isin(dataset.labels, unseen), "test_unseen", np.where(tested, "test_seen", "trainval"))
    mine = np.flatnonzero(np.isin(dataset.labels, seen if hidden else classes))
    path, names = folder.with_suffix(".npz"), np.array(table.names)
    np.savez(path, features=features[mine], labels=names[dataset.labels[mine]], split=split[mine])
    import_features(path, dataset_of(folder, path), folder, "pooled", dtype="float32")
    return folder


def solved(dataset: Dataset, features: np.ndarray, sizes: tuple[int, int], method: str, seed: int) -> dict[str, Any]:
    """Estimates with their intervals and the accuracies of one problem, and the classes set aside."""
    drawn = np.random.default_rng(seed).permutation(len(dataset.table))[: sum(sizes)]
    seen, unseen = drawn[: sizes[0]], drawn[sizes[0] :]
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for hidden in (True, False):
            folder = problem(Path(scratch) / f"data-{hidden}", dataset, features, seen, unseen, hidden)
            options: dict[str, Any] = {"backbone": "features:pooled", "protocols": ("honest",), "device": "cpu"}
            options |= {} if hidden else {"holdouts": 0}
            run = fit(method, folder, Path(scratch) / f"run-{hidden}", **options)
            found.append(run.results["protocols"]["honest"])
    return {"estimated": found[0]["holdout"], "measured": found[1]["metrics"]}


def studied(job: str, sizes: tuple[int, int], method: str, problems: int, cache: Path) -> list[dict]:
    """The lines of one dataset and number of classes, in percent."""
    dataset, features = pooled(job, cache)
    found = [solved(dataset, features, sizes, method, seed) for seed in range(problems)]
    lines = []
    for metric in METRICS:
        estimates = pd.DataFrame([one["estimated"]["metrics"][metric] for one in found]) * 100
        true = np.array([100 * one["measured"][metric]["mean"] for one in found])
        gap, width = estimates["mean"] - true, estimates["high"] - estimates["low"]
        within = (estimates["low"] - 1e-6 <= true) & (true <= estimates["high"] + 1e-6)
        lines.append(
            {
                "data": job, "seen": sizes[0], "unseen": sizes[1], "problems": problems,
                "set aside": found[0]["estimated"]["classes_set_aside"], "metric": metric,
                "estimate": round(float(estimates["mean"].mean()), 1), "accuracy": round(float(true.mean()), 1),
                "bias": round(float(gap.mean()), 1), "off": round(float(gap.abs().mean()), 1),
                "interval": round(float(width.mean())), "holds": round(100 * float(within.mean())),
            }
        )  # fmt: skip
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="DATA[:NETWORK]")
    parser.add_argument("--classes", nargs="+", default=["9+4", "20+8"], metavar="SEEN+UNSEEN")
    parser.add_argument("--method", default="eszsl")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, cache = time.monotonic(), cache_folder(options.cache)
    sizes = [(int(a), int(b)) for a, _, b in (text.partition("+") for text in options.classes)]
    lines = [
        line
        for job in options.jobs
        for pair in sizes
        for line in studied(job, pair, options.method, options.problems, cache)
    ]
    finish(options.output, {"Estimates": lines}, began=began, protocol="honest", method=options.method, seeds=[0])


if __name__ == "__main__":
    main()
