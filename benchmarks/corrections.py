"""Gain from correcting the most wrong attributes of a model: `python -m benchmarks.corrections RUN`.

For each test image, the attributes whose estimated value differs most from its class's value, relative to the
attribute's range, are corrected. The truth is the class table's value, which a person who knows the class would give.
Another row corrects the same number of random attributes. Accuracy is the mean over classes, among all classes with
gamma subtracted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from unseen import Recognizer, Run
from unseen.evaluation.metrics import per_class_accuracy
from unseen.ground.files import write_json
from unseen.ground.progress import bars
from unseen.model.references import make_references
from unseen.model.weights import load_weights
from unseen.training.batches import batches
from unseen.training.run import reopen
from unseen.training.stage import Stage

COUNTS = (0, 1, 3, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", "-o", type=Path)
    options = parser.parse_args()
    run = Run(options.run)
    with bars() as progress:
        inputs = reopen(run, device="cpu", progress=progress)
    seed = next(iter(run.results["protocols"][run.protocol]["seeds"]))
    weights = run.folder / f"seed-{seed}" / f"{run.protocol}.safetensors"
    recognizer = Recognizer.load(run.folder, device="cpu", as_trained=True)
    hand = Stage(inputs, "final")
    method = inputs.new_method(int(seed))
    load_weights(weights, method)
    method.eval()
    dataset, train = inputs.dataset, hand.partition.train
    if recognizer.references is None:
        files = [dataset.files[i] for i in train]
        asked = (hand.train.batch(rows) for rows in batches(len(train)))
        recognizer.references = make_references(method, asked, dataset.labels[train], files, dataset.table)
    table, fit = dataset.table, recognizer.references.fit
    spread = np.where(np.ptp(table.values, axis=0) > 0, np.ptp(table.values, axis=0), 1)
    rng = np.random.default_rng(0)
    labels = dataset.labels[hand.held_out]
    named: dict[tuple[str, int], list[int]] = {}
    for rows in batches(len(hand.held_out)):
        with torch.inference_mode():
            branches = method(hand.test.batch(rows))
            scores = method.fused_attribute_scores(branches).cpu().double().numpy()
            query = method.query(branches).cpu().double().numpy()
        for i, row in enumerate(rows):
            look = recognizer.reading(scores[i], query[i])
            truth = table.values[labels[row]]
            wrong = np.nan_to_num(np.abs(look.estimates() - truth) / spread)
            orders = {"most mistaken": np.argsort(-wrong, kind="stable"), "by chance": rng.permutation(len(wrong))}
            for which, order in orders.items():
                for count in COUNTS:
                    corrections = {table.attributes.names[k]: truth[k] for k in order[:count]}
                    named.setdefault((which, count), []).append(table.index(look.rank(corrections)[0].name))
    every = np.arange(len(table))
    found: dict[str, dict[int, dict[str, float]]] = {}
    for (which, count), predicted in named.items():
        accuracy = per_class_accuracy(np.array(predicted) == labels, labels, every)
        unseen, seen = float(np.nanmean(accuracy[~table.seen])), float(np.nanmean(accuracy[table.seen]))
        found.setdefault(which, {})[count] = {"unseen": unseen, "seen": seen}
        print(f"{which:14} {count:3} corrected   unseen {100 * unseen:5.1f}   seen {100 * seen:5.1f}", flush=True)
    print(f"attributes learned: {int(fit.learned.sum())} of {len(table.attributes)}")
    if options.output:
        about = {
            "data": run.manifest["data"]["name"],
            "backbone": run.manifest["backbone"]["name"],
            "method": run.manifest["method"]["name"],
            "protocol": run.protocol,
        }
        write_json(options.output, {**about, "accuracy": found, "learned": int(fit.learned.sum())})


if __name__ == "__main__":
    main()
