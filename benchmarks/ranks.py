"""What coarser answers and a prior are worth, on the test images of a run whose classes have ranks.

    python -m benchmarks.ranks runs/eszsl-fieldguide --output ranks.json

Three questions, each over all candidate classes. ``as trained``: which images without a sure class get a coarser
answer, and is it right? ``class missing``: the same with each image's own class left out of the table, as for a species
that nobody described, so that no class is right and a rank can be. ``taxon missing``: with all classes of its coarsest
taxon left out, so that every answer is wrong; ``plain`` is the rule that compares a taxon's confidence with the class
threshold alone. Priors: half of the classes, drawn for each image, weigh ten times as much as the others; the true
class is one of them (``right``) or not (``wrong``).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured import finish
from unseen.data.catalogue import load_dataset
from unseen.evaluation.metrics import harmonic, per_class_accuracy
from unseen.model.predictions import Prediction
from unseen.recognizer import Recognizer
from unseen.training.folder import Run

FACTOR = 10.0
"""Weight of likely classes in a prior, that of the others being 1."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the priors")
    parser.add_argument("--output", "-o", type=Path)
    chosen, began = parser.parse_args(), time.monotonic()
    run = Run(chosen.run)
    recognizer = Recognizer.load(chosen.run, device="cpu", as_trained=True)
    dataset = load_dataset(run.config.dataset)
    tested = np.flatnonzero(dataset.split != "trainval")
    labels = dataset.labels[tested]
    scores = recognizer.scores([dataset.paths()[i] for i in tested])
    tables = {
        "accuracy at each rank": accuracies(run),
        "coarser answers": coarser(recognizer, scores, labels),
        "priors": priors(recognizer, scores, labels, chosen.seed),
    }
    finish(chosen.output, tables, began=began, images=len(tested), factor=FACTOR)


def accuracies(run: Run) -> list[dict[str, Any]]:
    """T1, U, S and H of the class and of each rank, from the run."""
    found = run.results["protocols"][run.protocol]
    levels = {"class": found["metrics"], **found["ranks"]}
    return [
        {"rank": level, **{n: 100 * metrics[n]["mean"] for n in ("T1", "U", "S", "H")}}
        for level, metrics in levels.items()
    ]


def predicted(
    recognizer: Recognizer, scores: np.ndarray, allowed: np.ndarray, weights: np.ndarray | None = None
) -> list[Prediction]:
    """Predictions of class scores at the model's threshold."""
    choice = recognizer.choice(1, allowed)
    psi = np.zeros((len(scores), len(recognizer.table.attributes)))
    return recognizer.respond([""] * len(scores), scores, psi, choice, weights)


def coarser(recognizer: Recognizer, scores: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Answers above the class: how many images get one, and how many of these are right."""
    table, taxonomy = recognizer.table, recognizer.table.taxonomy
    assert taxonomy is not None
    every, coarsest = np.arange(len(table)), taxonomy.codes[:, 0]
    threshold = recognizer.threshold_of("auto")
    left_out = {
        "as trained": lambda c: np.zeros(len(table), bool),
        "class missing": lambda c: every == c,
        "taxon missing": lambda c: coarsest == coarsest[c],
    }
    rows = []
    for case, without in left_out.items():
        counts = dict.fromkeys(("images", "named", "unknown", "coarser", "right", "plain", "plain right"), 0)
        for c in np.unique(labels):
            mine = predicted(recognizer, scores[labels == c], every[~without(c)])
            truth = table.taxa(int(c))
            for one in mine:
                counts["images"] += 1
                counts["named"] += one.known
                counts["unknown"] += not one.known
                if one.known:
                    continue
                if one.coarser is not None:
                    counts["coarser"] += 1
                    counts["right"] += truth.get(one.coarser.rank) == one.coarser.name
                plain = next((t for t in reversed(one.ranks) if t.confidence >= threshold), None)
                if plain is not None:
                    counts["plain"] += 1
                    counts["plain right"] += truth.get(plain.rank) == plain.name
        rows.append({"table": case, **counts})
    return rows


def priors(recognizer: Recognizer, scores: np.ndarray, labels: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """U, S and H in percent without a prior, with a right one, and with a wrong one."""
    rng, table = np.random.default_rng(seed), recognizer.table
    every = np.arange(len(table))
    likely = rng.permuted(np.tile(every < len(table) // 2, (len(labels), 1)), axis=1)
    rows = []
    for case, of_truth in (("none", None), ("right", True), ("wrong", False)):
        weights = None
        if of_truth is not None:
            drawn = likely.copy()
            drawn[np.arange(len(labels)), labels] = of_truth
            weights = np.where(drawn, FACTOR, 1.0)
        found = predicted(recognizer, scores, every, weights)
        right = np.array([one.best.name == table.names[c] for one, c in zip(found, labels, strict=True)], float)
        shares = per_class_accuracy(right, labels, every)
        u, s = (float(np.nanmean(shares[table.seen == kind])) for kind in (False, True))
        known = np.array([one.known for one in found])
        rows.append(
            {"prior": case, "U": 100 * u, "S": 100 * s, "H": 100 * float(harmonic(u, s))}
            | {"known": int(known.sum()), "right of known": 100 * float(right[known].mean())}
        )
    return rows


if __name__ == "__main__":
    main()
