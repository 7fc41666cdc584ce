"""Time of `auto`, which races the closed forms against MSDN++, as a multiple of the time of MSDN++ alone.

    python -m benchmarks.race_time fieldguide cub50:mobilenetv2 --output results.json

``DATA:NETWORK`` as in :mod:`benchmarks.closed_forms`. Whole ``unseen train`` commands on stored features, from their
start to the report, in turn; the best of the rounds. ``ratio`` is of processor time, which depends less on other load.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.closed_form_time import command
from benchmarks.closed_forms import inputs_of
from benchmarks.measured import finish
from unseen.ground.cache import cache_folder
from unseen.training.race import AUTO, TRAINED


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="DATA[:NETWORK]")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, cache, rows = time.monotonic(), cache_folder(options.cache), []
    for job in options.jobs:
        inputs_of(job, 0, cache)
        taken = [{name: command(job, name, cache) for name in (AUTO, TRAINED)} for _ in range(options.rounds)]
        row: dict[str, object] = {"data": job}
        for key, unit in (("command", "seconds"), ("its processor", "processor")):
            auto, alone = (min(one[name][key] for one in taken) for name in (AUTO, TRAINED))
            row |= {f"{AUTO}, {unit}": round(auto), f"{TRAINED}, {unit}": round(alone)}
        rows.append(row | {"ratio": round(auto / alone, 2)})
    finish(options.output, {"Time of the race": rows}, began=began, rounds=options.rounds)


if __name__ == "__main__":
    main()
