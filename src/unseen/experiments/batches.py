"""Gains and losses of predicting a batch together, on batches of the test images of finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import RunError
from unseen.evaluation.mixtures import KINDS, SCOPES
from unseen.ground.files import write_json, write_text
from unseen.model.support import SupportSpace, space_beside
from unseen.model.weights import load_weights
from unseen.report.tables import markdown_table
from unseen.training.folder import Run
from unseen.training.run import reopen
from unseen.training.stage import Stage
from unseen.training.support import pooled_features, together_on
from unseen.training.temperature import Held

DRAWS = 10
"""Number of batches of each kind."""
SCOPE_NAMES = {"unseen": "unseen classes (T1)", "all": "all classes (H)"}


def measure_batches(
    folders: Sequence[tuple[str, Path]],
    output: Path,
    *,
    draws: int = DRAWS,
    device: str = "auto",
    cache: Path | str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure finished runs and write ``together.json`` and ``.md``.

    Args:
        folders: name and folder of each run, all of one dataset.
        output: folder for the tables.
        draws: number of batches of each kind.
        device, cache: see :func:`unseen.training.run.fit`.
        say: called with a line about each run.

    Returns:
        Content of ``together.json``: ``rows``, one per run, kind of batch and scope, with the accuracy image by image
        (``alone``) and together (``together``), and the gain with a 95% interval over batches (``low``, ``high``).

    Raises:
        RunError: a run has no rule for support images.
    """
    rows: list[dict[str, Any]] = []
    for name, folder in folders:
        say(f"{name}: {draws} batches of each kind")
        rows += [{"name": name, **row} for row in _of_run(Run(folder), draws, device, cache)]
    found = {"draws": draws, "rows": rows}
    write_json(output / "together.json", found)
    write_text(output / "together.md", markdown_table([cells(row) for row in rows], legend(found)))
    return found


def _of_run(run: Run, draws: int, device: str, cache: Path | str | None) -> list[dict[str, Any]]:
    stage = Stage(reopen(run, device=device, cache=cache), "final")
    seed, measured = next(iter(run.results["protocols"]["honest"]["seeds"].items()))
    weights = run.folder / f"seed-{seed}" / "honest.safetensors"
    if not space_beside(weights).is_file():
        raise RunError("no rule for support images", where=run.folder, hint="train again with a frozen backbone")
    method = stage.inputs.new_method(int(seed))
    load_weights(weights, method)
    space = SupportSpace.load(space_beside(weights))
    held = Held(stage.scores(method).numpy(), stage.test_labels, stage.seen)
    vectors = space.vectors(pooled_features(stage, stage.held_out, method)).numpy()
    numbers = measured["gamma"], measured["temperature"], space.rule, [space.rule.together]
    rows = []
    for kind in KINDS:
        for scope in SCOPES:
            drawn = [
                together_on(kind, scope, held, vectors, *numbers, np.random.default_rng([draw, 7]))
                for draw in range(draws)
            ]
            pairs = np.array([(before, *after) for before, after in drawn])
            pairs = pairs[np.isfinite(pairs).all(axis=1)]  # batches that have images of every requested kind
            if not len(pairs):
                continue
            gains = pairs[:, 1] - pairs[:, 0]
            half = 1.96 * float(gains.std(ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            gain = {"gain": float(gains.mean()), "low": float(gains.mean()) - half, "high": float(gains.mean()) + half}
            alone, whole = pairs.mean(axis=0)
            rows.append({"kind": kind, "scope": scope, "alone": float(alone), "together": float(whole), **gain})
    return [row | {"weight": space.rule.together} for row in rows]


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A row of the table as text, in percent."""
    return {
        "method": row["name"],
        "batch": row["kind"],
        "choice among": SCOPE_NAMES[row["scope"]],
        "one by one": f"{100 * row['alone']:.1f}",
        "together": f"{100 * row['together']:.1f}",
        "gain": f"{100 * row['gain']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
    }


def legend(found: dict[str, Any]) -> str:
    """What readers of the table must know."""
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    weights = ", ".join(
        f"{name} {weight:g}" for name, weight in {r["name"]: r["weight"] for r in found["rows"]}.items()
    )
    return (
        f"Percent, class means, test images; mean over {found['draws']} batches, with a 95% interval over them. "
        f"Together is transductive: an answer depends on the other images. {kinds}. An image of a batch counts as this "
        f"many support images, chosen on validation classes: {weights} (0: no gain there, and the batch is named one "
        "by one)."
    )
