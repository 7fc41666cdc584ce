"""Where fieldguide stands: chance, a linear baseline, MSDN, full supervision; and who looks at the right part.

    python benchmarks/fieldguide_levels.py [--seeds 5] [--output benchmarks/results/fieldguide_levels.json]

T1, U, S and H are of the honest protocol. Full supervision is a ridge classifier on the same frozen features: with the
seen classes' training pictures on their test pictures, and with half of every unseen class's pictures on the other
half (which no zero-shot method gets). The pointing game is over the unseen test pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV

import unseen
from unseen.data.catalogue import cache_folder
from unseen.evaluation.localisation import pointing_game
from unseen.evaluation.metrics import per_class_accuracy
from unseen.methods.pooled import pool
from unseen.progress import bars
from unseen.training.run import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/fieldguide-levels"))
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    levels, looking = {}, {}
    for method in ("eszsl", "global", "msdn"):
        with bars() as report:
            run = unseen.fit(method, "fieldguide", arguments.runs / method, seeds=range(arguments.seeds), report=report)
        levels[method] = run.results["protocols"]["honest"]["metrics"]
        cache = cache_folder()
        plan = Plan.of(run.config, cache)
        store = plan.extract(cache, "cpu", 0)
        games = []
        for seed in run.results["protocols"]["honest"]["seeds"]:
            recognizer = unseen.Recognizer.load(run.folder, seed=int(seed), device="cpu")
            pictures = plan.dataset.indices("test_unseen")
            games.append(pointing_game(recognizer.method, plan.dataset, store, recognizer.backbone.transform, pictures))
        looking[method] = {
            name: {
                "hits": round(float(np.mean([g[name].hits for g in games])), 4),
                "std over seeds": round(float(np.std([g[name].hits for g in games])), 4),
                "chance": round(games[0][name].chance, 4),
                "by group": {
                    group: {
                        "hits": round(float(np.mean([g[name].by_group[group][0] for g in games])), 3),
                        "chance": round(entry[1], 3),
                    }
                    for group, entry in sorted(games[0][name].by_group.items())
                },
            }
            for name in games[0]
        }
    dataset = plan.dataset
    features = torch.cat(
        [pool(store.read(np.arange(i, min(i + 256, len(store)))).float())[:, 0] for i in range(0, len(store), 256)]
    ).numpy()

    def supervised(train: np.ndarray, test: np.ndarray) -> float:
        model = RidgeClassifierCV(np.logspace(-3, 3, 7)).fit(features[train], dataset.labels[train])
        right = model.predict(features[test]) == dataset.labels[test]
        return float(np.mean(per_class_accuracy(right, dataset.labels[test], np.unique(dataset.labels[test]))))

    unseen_pictures = dataset.indices("test_unseen")
    half = np.concatenate(
        [np.flatnonzero(dataset.labels == c)[::2] for c in np.unique(dataset.labels[unseen_pictures])]
    )
    result = {
        "chance T1": 1 / int((~dataset.table.seen).sum()),
        "zero-shot, honest protocol": levels,
        "full supervision": {
            "seen classes": supervised(dataset.indices("trainval"), dataset.indices("test_seen")),
            "unseen classes, half of their pictures": supervised(half, np.setdiff1d(unseen_pictures, half)),
        },
        "pointing game on unseen test pictures": looking,
        "manifest": run.manifest,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
