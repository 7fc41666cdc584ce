"""Levels of fieldguide: chance, linear baselines, MSDN, MSDN++, full supervision; and the pointing game.

    python -m benchmarks.fieldguide_levels [--seeds 5] [--output benchmarks/results/fieldguide_levels.json]

T1, U, S and H are those of the honest protocol. Full supervision is a ridge classifier on the same frozen features:
trained on the seen classes' training images and tested on their test images, and trained on half of every unseen
class's images and tested on the other half (which no zero-shot method gets). The pointing game uses the unseen test
images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV

import unseen
from unseen.evaluation.metrics import per_class_accuracy
from unseen.explain.pointing import run_pointing
from unseen.ground.cache import cache_folder
from unseen.ground.progress import bars
from unseen.methods.pooled import pool
from unseen.training.plan import Plan

ROWS = {
    "eszsl": ("eszsl", None),
    "global": ("global", None),
    "msdn-released": ("msdn", "cub"),
    "msdn": ("msdn", None),
    "msdnpp": ("msdnpp", None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/fieldguide-levels"))
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    levels, looking = {}, {}
    for name, (method, preset) in ROWS.items():
        with bars() as progress:
            run = unseen.fit(
                method,
                "fieldguide",
                arguments.runs / name,
                preset=preset,
                seeds=range(arguments.seeds),
                progress=progress,
            )
        levels[name] = run.results["protocols"]["honest"]["metrics"]
        looking[name] = run_pointing(run, device="cpu")
    plan = Plan.of(run.config, cache_folder())
    store = plan.extract(cache_folder(), "cpu", 0)
    dataset = plan.dataset
    features = torch.cat(
        [pool(store.read(np.arange(i, min(i + 256, len(store)))).float())[:, 0] for i in range(0, len(store), 256)]
    ).numpy()

    def supervised(train: np.ndarray, test: np.ndarray) -> float:
        model = RidgeClassifierCV(np.logspace(-3, 3, 7)).fit(features[train], dataset.labels[train])
        right = model.predict(features[test]) == dataset.labels[test]
        return float(np.mean(per_class_accuracy(right, dataset.labels[test], np.unique(dataset.labels[test]))))

    unseen_images = dataset.indices("test_unseen")
    half = np.concatenate([np.flatnonzero(dataset.labels == c)[::2] for c in np.unique(dataset.labels[unseen_images])])
    result = {
        "chance T1": 1 / int((~dataset.table.seen).sum()),
        "zero-shot, honest protocol": levels,
        "full supervision": {
            "seen classes": supervised(dataset.indices("trainval"), dataset.indices("test_seen")),
            "unseen classes, half of their images": supervised(half, np.setdiff1d(unseen_images, half)),
        },
        "pointing game on unseen test images": looking,
        "manifest": run.manifest,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
