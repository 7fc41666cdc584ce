"""Which closed form validation classes prefer and by how much, and what an ensemble or an earlier map adds.

    python -m benchmarks.standings fieldguide cub50:mobilenetv2 --stage=-2+final --output results.json

No test image is scored. H of a row is the mean over the draws at one common offset; differences are paired over draws,
each row at its own offset, with their standard error. The ensemble is (1 - w) A / sigma_A + w B / sigma_B of the best
candidates of both methods, with sigma the mean deviation of an image's class scores, and the best w of 0.25, 0.5, 0.75.
Rows ``s = ...`` are the best candidate with that share of the earlier maps of ``--stage``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_forms import DRAWS, Swept, inputs_of, of_method, sweep
from benchmarks.measured import finish
from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, common_gamma
from unseen.ground.cache import cache_folder
from unseen.training import closed_form
from unseen.training.inputs import RunInputs
from unseen.training.stage import Stage

METHODS = ("eszsl", "prototypes")
WEIGHTS = (0.25, 0.5, 0.75)


def on_draws(curves: list[SeenUnseenCurve]) -> tuple[float, np.ndarray]:
    """H at the common offset: its mean, and that of each draw."""
    gamma, value = common_gamma(curves)
    return value, np.array([2 * u * s / max(u + s, 1e-12) for u, s in (at(curve, gamma) for curve in curves)])


def at(curve: SeenUnseenCurve, gamma: float) -> tuple[float, float]:
    """U and S at an offset."""
    i = int(np.searchsorted(curve.gamma, gamma, side="right")) - 1
    return float(curve.u[i]), float(curve.s[i])


def line(job: str, row: str, chosen: str, curves: list[SeenUnseenCurve], base: np.ndarray | None) -> dict:
    """One line of the table, in percent."""
    value, draws = on_draws(curves)
    found: dict = {"data": job, "row": row, "chosen": chosen, "H": round(100 * value, 1)}
    found["draws"] = " ".join(f"{100 * h:.1f}" for h in draws)
    if base is not None:
        gain = 100 * (draws - base)
        found |= {"difference": round(float(gain.mean()), 2)}
        found |= {"error": round(float(gain.std(ddof=1)) / len(gain) ** 0.5, 2)}
    return found


def scores_of(swept: Swept, pick: dict, stages: list[Stage]) -> list[np.ndarray]:
    """Class scores of the validation images of every draw."""
    found = []
    for stage in stages:
        stage.inputs = swept.inputs
        method = closed_form._fitted(0, stage)
        method.use(pick)
        found.append(stage.scores(method).numpy())
    return found


def studied(job: str, split_seed: int, cache: Path, stage_name: str, features: str) -> list[dict]:
    """Every row of one data set and network."""

    def swept(inputs: RunInputs, label: str) -> Swept:
        own = of_method(inputs, label)
        settings: Any = own.settings
        return sweep(replace(own, settings=replace(settings, features=features)), stages)

    inputs = inputs_of(job, split_seed, cache)
    stages = [Stage(inputs, "validation", draw) for draw in range(DRAWS)]
    every = {label: swept(inputs, label) for label in METHODS}
    picks = {label: found.best(range(DRAWS))[0] for label, found in every.items()}
    curves = {label: every[label].curves[_key(every[label], pick)] for label, pick in picks.items()}
    best = max(METHODS, key=lambda label: on_draws(curves[label])[0])
    base = on_draws(curves[best])[1]
    rows = [line(job, label, _chosen(picks[label]), curves[label], base) for label in METHODS]
    scores = [scores_of(every[label], picks[label], stages) for label in METHODS]
    scaled = [[s / np.concatenate(own).std(axis=1).mean() for s in own] for own in scores]
    mixed = {
        f"{w} prototypes": [
            SeenUnseenCurve.of(Decisions.from_scores((1 - w) * a + w * b, stage.test_labels, stage.seen))
            for a, b, stage in zip(*scaled, stages, strict=True)
        ]
        for w in WEIGHTS
    }
    chosen = max(mixed, key=lambda name: on_draws(mixed[name])[0])
    rows.append(line(job, "ensemble", chosen, mixed[chosen], base))
    joined = inputs_of(job, split_seed, cache, stage_name)
    stages = [Stage(joined, "validation", draw) for draw in range(DRAWS)]
    again = {label: swept(joined, label) for label in METHODS}
    for share in ("", "+0.25", "+0.5"):
        found = {label: one.best(range(DRAWS), partial(_shares, share)) for label, one in again.items()}
        label = max(METHODS, key=lambda name: found[name][2])
        mine = again[label].curves[_key(again[label], found[label][0])]
        name = f"s = {share[1:] or 0}: {label}"
        rows.append(line(job, name, _chosen(found[label][0]), mine, base))
    return rows


def _shares(share: str, candidate: dict) -> bool:
    """Whether a candidate gives the earlier stage this share."""
    return candidate["features"].partition("+")[1:] == share.partition("+")[1:]


def _key(swept: Swept, pick: dict) -> str:
    return next(key for key, candidate in swept.candidates.items() if candidate == pick)


def _chosen(pick: dict) -> str:
    return f"{pick['features']}, {pick['rows']}, own {pick.get('own', 0.0)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="DATA[:NETWORK]")
    parser.add_argument("--stage", default="-2+final")
    parser.add_argument("--features", default="auto", help="a preparation, instead of all")
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, cache = time.monotonic(), cache_folder(options.cache)
    rows: list[dict] = []
    for job in options.jobs:
        rows += studied(job, options.split_seed, cache, options.stage, options.features)
        for row in rows:
            print(row, flush=True)
    finish(options.output, {"Standings": rows}, began=began, protocol="honest", seeds=[options.split_seed])


if __name__ == "__main__":
    main()
