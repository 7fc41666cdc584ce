"""The pointing game of finished runs: how often each sub-net attends to the part that an attribute names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unseen.evaluation.localisation import pointing_game
from unseen.ground.progress import Progress, silent
from unseen.recognizer import Recognizer
from unseen.training.folder import Run
from unseen.training.run import reopen


def run_pointing(
    run: Run,
    *,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> dict[str, dict[str, Any]]:
    """Hit rates of every sub-net on the unseen test images, over the seeds of a run.

    Args:
        run: a finished run on a dataset with part positions.
        device, cache, workers, progress: as in :func:`unseen.training.run.fit`.

    Returns:
        By sub-net: ``hits`` (mean over seeds), ``std`` (over seeds, 0 for one), ``chance``, ``by_group``: attribute
        group to ``hits``, ``std``, ``chance`` and ``cases`` (images times attributes of their class).

    Raises:
        DataError: no part positions, or no attribute that names a part.
        RunError: the run is unfinished, or its dataset has changed.
    """
    seeds = [int(seed) for seed in run.results["protocols"][run.protocol]["seeds"]]
    inputs = reopen(run, device=device, cache=cache, workers=workers, progress=progress)
    images = inputs.dataset.indices("test_unseen")
    games = []
    for i, seed in enumerate(seeds):
        recognizer = Recognizer.load(run.folder, seed=seed, device=device, as_trained=True)
        transform = recognizer.backbone.transform
        games.append(pointing_game(inputs.adapted(recognizer.method), inputs.dataset, inputs.store, transform, images))
        progress("pointing game", i + 1, len(seeds))

    def over_seeds(values: list[float]) -> tuple[float, float]:
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    found: dict[str, dict[str, Any]] = {}
    for name, first in games[0].items():
        hits, std = over_seeds([game[name].hits for game in games])
        groups = {}
        for group, (_, chance, cases) in sorted(first.by_group.items()):
            mean, spread = over_seeds([game[name].by_group[group][0] for game in games])
            groups[group] = {"hits": mean, "std": spread, "chance": chance, "cases": cases}
        found[name] = {"hits": hits, "std": std, "chance": first.chance, "by_group": groups}
    return found
