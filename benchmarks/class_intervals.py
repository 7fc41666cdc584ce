"""How often intervals over classes hold what other classes of the kind give.

    python -m benchmarks.class_intervals fieldguide cub50:mobilenetv2 flo64:mobilenetv2 --output results.json

Many draws of validation classes play the part of unseen classes. The closed forms keep the candidate that five further
draws have chosen, and one offset for all draws. ``mean`` is the mean of a metric over the draws, ``spread`` its
standard deviation, ``over images`` and ``over classes`` the percentage of draws whose 95% interval of that kind holds
the mean. Rows ``eszsl - prototypes`` are paired differences, as in ``unseen compare``. All draws take from the same
seen classes, so the spread is a little smaller than over new classes. No test image is scored. Jobs are those of
:mod:`benchmarks.closed_forms`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.closed_forms import DRAWS, inputs_of, of_method, sweep
from benchmarks.measured import finish
from unseen.evaluation.bootstrap import Interval, Resampled, difference, resample
from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, common_gamma
from unseen.ground.cache import cache_folder
from unseen.training import closed_form
from unseen.training.stage import Stage

METHODS = ("eszsl", "prototypes")
METRICS = ("T1", "H")


def decided(job: str, count: int, cache: Path) -> tuple[dict[str, list[Decisions]], int]:
    """Decisions of each method on many draws, and the number of classes that each holds out."""
    base = inputs_of(job, 0, cache)
    stages = [Stage(base, "validation", draw) for draw in range(DRAWS)]
    picks = {method: sweep(of_method(base, method), stages).best(range(DRAWS))[0] for method in METHODS}
    found: dict[str, list[Decisions]] = {method: [] for method in METHODS}
    for seed in range(1, 1 + count // DRAWS):
        inputs = inputs_of(job, seed, cache)
        for draw in range(DRAWS):
            stage = Stage(inputs, "validation", draw)
            for method in METHODS:
                stage.inputs = of_method(inputs, method)
                solved = closed_form._fitted(0, stage)
                solved.use(picks[method])
                found[method].append(stage.decide(solved))
    return found, int((~stage.seen).sum())


def resampled(decisions: list[Decisions]) -> list[dict[str, Resampled]]:
    """Metrics of every draw, at the offset of the highest mean H."""
    gamma, _ = common_gamma([SeenUnseenCurve.of(found) for found in decisions])
    return [resample([found], [gamma], names=("T1", "U", "S", "H")) for found in decisions]


def studied(job: str, count: int, cache: Path) -> list[dict]:
    """The lines of one dataset and network, in percent."""
    decisions, classes = decided(job, count, cache)
    first, second = (resampled(decisions[method]) for method in METHODS)
    lines = []
    for metric in METRICS:
        pairs = [(one[metric], other[metric]) for one, other in zip(first, second, strict=True)]
        one, other = (
            [(found.interval(), found.interval().over_classes) for found in side] for side in zip(*pairs, strict=True)
        )
        gaps = [(difference(*p), difference(*p, over_classes=True)) for p in pairs]
        both = [(over_images, (wide.low, wide.high)) for over_images, wide in gaps]
        for name, intervals in zip((*METHODS, " - ".join(METHODS)), (one, other, both), strict=True):
            line = {"data": job, "row": name, "metric": metric, "classes": classes, "draws": len(pairs)}
            lines.append(line | coverage(intervals))
            print(lines[-1], flush=True)
    return lines


def coverage(intervals: Sequence[tuple[Interval, tuple[float, float] | None]]) -> dict:
    """Mean and spread over the draws, and how often each kind of interval holds the mean."""
    means = 100 * np.array([interval.mean for interval, _ in intervals])

    def holding(ends: Iterable[tuple[float, float]]) -> int:
        return round(100 * float(np.mean([100 * low <= means.mean() <= 100 * high for low, high in ends])))

    return {
        "mean": round(float(means.mean()), 1),
        "spread": round(float(means.std(ddof=1)), 1),
        "over images": holding((interval.low, interval.high) for interval, _ in intervals),
        "over classes": holding(wide for _, wide in intervals if wide is not None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="DATA[:NETWORK]")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    lines = [line for job in options.jobs for line in studied(job, options.draws, cache_folder(options.cache))]
    finish(options.output, {"Coverage": lines}, began=began)


if __name__ == "__main__":
    main()
