"""Accuracy against images per class: attributes, images, and both, on the test images of finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.errors import RunError, UnseenError
from unseen.evaluation.metrics import ACCURACIES, Decisions, evaluate
from unseen.evaluation.registry import HEADLINES
from unseen.evaluation.shots import Episode
from unseen.ground.files import write_json, write_text
from unseen.ground.words import counted
from unseen.methods.base import Method
from unseen.model.support import SupportSpace, space_beside
from unseen.model.weights import load_weights
from unseen.report.shots import write_curves
from unseen.report.tables import markdown_table
from unseen.training.folder import Run
from unseen.training.inputs import RunInputs
from unseen.training.run import reopen
from unseen.training.stage import Stage
from unseen.training.support import mixed_scores, pooled_features

METRICS = ACCURACIES
KINDS = {"attributes": "attributes alone", "images": "images alone", "both": "attributes and images"}
DRAWS = 10
"""Number of draws of support images."""


def parse_shots(text: str) -> tuple[int, ...]:
    """``0,1,5`` as increasing numbers of images."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 0 or found[-1] > 1000:
        raise UnseenError(
            f'"{text}" is not a list of numbers of images', where="--shots", hint="use, for example, 0,1,2,5,10,20"
        )
    return tuple(found)


def measure_shots(
    folders: Sequence[tuple[str, Path]],
    output: Path,
    shots: Sequence[int],
    *,
    draws: int = DRAWS,
    device: str = "auto",
    cache: Path | str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure finished runs and write ``shots.json``, ``.csv``, ``.md``, ``.png`` and ``.svg``.

    Args:
        folders: name and folder of each run, all of one dataset.
        output: folder for the tables.
        shots: numbers of images per class.
        draws: number of draws of support images.
        device, cache: see :func:`unseen.training.run.fit`.
        say: called with a line about each run.

    Returns:
        Content of ``shots.json``: ``rows``, one per run and number of images, with T1, U, S and H of each of
        :data:`KINDS` (mean, ``sd`` over draws) and ``gain`` of both over attributes alone and over the better of the
        two (mean, ``low``, ``high``: 95% over draws); images alone have none without images.

    Raises:
        RunError: a run has no rule for support images.
    """
    rows = []
    for name, folder in folders:
        say(f"{name}: {counted(draws, 'draw')} of support images")
        rows += [{"name": name, **row} for row in _of_run(Run(folder), shots, draws, device, cache)]
    found = {"shots": list(shots), "draws": draws, "rows": rows}
    write_json(output / "shots.json", found)
    write_text(output / "shots.csv", _csv(rows))
    write_text(output / "shots.md", markdown_table([cells(row) for row in rows], legend(found)))
    write_curves(found, output / "shots")
    return found


def _of_run(run: Run, shots: Sequence[int], draws: int, device: str, cache: Path | str | None) -> list[dict[str, Any]]:
    if "honest" not in run.config.protocols:
        raise RunError("no honest protocol", where=run.folder, hint="--shots needs --protocol honest or both")
    inputs = reopen(run, device=device, cache=cache)
    stage = Stage(inputs, "final")
    samples: dict[tuple[int, str], list[dict[str, float | None]]] = {}
    for seed, measured in run.results["protocols"]["honest"]["seeds"].items():
        weights = run.folder / f"seed-{seed}" / "honest.safetensors"
        if not space_beside(weights).is_file():
            hint = "train again; mgmrn has none"
            raise RunError("no rule for support images", where=run.folder, hint=hint)
        for key, values in _of_seed(inputs, stage, int(seed), weights, measured["gamma"], shots, draws).items():
            samples.setdefault(key, []).extend(values)
    return [_row(n, {kind: samples.get((n, kind)) for kind in KINDS}) for n in shots]


def _of_seed(
    inputs: RunInputs, stage: Stage, seed: int, weights: Path, gamma: float, shots: Sequence[int], draws: int
) -> dict[tuple[int, str], list[dict[str, float | None]]]:
    """Metrics of every draw by number of images and kind."""
    method = inputs.new_method(seed)
    load_weights(weights, method)
    scores, space = stage.scores(method).numpy(), SupportSpace.load(space_beside(weights))
    vectors = space.vectors(pooled_features(stage, stage.held_out, method)).numpy()
    prototypes = _class_means(stage, space, method)
    labels, unseen = stage.test_labels, np.flatnonzero(~stage.seen)
    found: dict[tuple[int, str], list[dict[str, float | None]]] = {}
    for draw in range(draws):
        episode = Episode.draw(labels, unseen, max(shots), np.random.default_rng([seed, draw]))
        asked = labels[episode.queries]

        def measure(answer: np.ndarray, asked: np.ndarray = asked) -> dict[str, float | None]:
            return evaluate(Decisions.from_scores(answer, asked, stage.seen), stage.seen).as_dict()

        alone = measure(mixed_scores(scores, stage.seen, gamma, space.rule, episode, vectors, 0))
        for n in shots:
            found.setdefault((n, "attributes"), []).append(alone)
            both = mixed_scores(scores, stage.seen, gamma, space.rule, episode, vectors, n)
            found.setdefault((n, "both"), []).append(measure(both))
            if n:
                chosen, _, cosines = episode.similarities(vectors, n)
                images = np.where(stage.seen, vectors[episode.queries] @ prototypes.T, -2.0)
                images[:, chosen] = cosines
                found.setdefault((n, "images"), []).append(measure(images))
    return found


def _class_means(stage: Stage, space: SupportSpace, method: Method) -> np.ndarray:
    """``(N, C)`` unit means of the training images of each seen class; 0 for unseen ones."""
    own = space.vectors(pooled_features(stage, stage.partition.train, method)).double()
    sums = torch.zeros(len(stage.seen), own.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(stage.train_labels), own)
    return np.asarray(torch.nn.functional.normalize(sums, dim=1).numpy())


def _row(n: int, kinds: dict[str, list[dict[str, float | None]] | None]) -> dict[str, Any]:
    row: dict[str, Any] = {"shots": n}
    values = {
        kind: {m: np.array([np.nan if r[m] is None else r[m] for r in records], float) for m in METRICS}
        for kind, records in kinds.items()
        if records
    }
    for kind, by_metric in values.items():
        row[kind] = {
            m: {"mean": float(v.mean()), "sd": float(v.std(ddof=1)) if len(v) > 1 else 0.0}
            for m, v in by_metric.items()
        }
    row["gain"] = {
        against: {m: _interval(values["both"][m] - others[m]) for m in METRICS}
        for against, others in (
            ("attributes", values["attributes"]),
            ("better", _better(values)),
        )
    }
    return row


def _better(values: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Attributes alone or images alone, whichever has the higher mean, metric by metric."""
    alone = [values[kind] for kind in ("attributes", "images") if kind in values]
    return {m: max((v[m] for v in alone), key=lambda v: float(v.mean())) for m in METRICS}


def _interval(differences: np.ndarray) -> dict[str, float]:
    mean = float(differences.mean())
    half = 1.96 * float(differences.std(ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half}


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A row of the table as text, in percent."""
    found = {"method": row["name"], "images a class": str(row["shots"])}
    for kind, title in KINDS.items():
        for metric in METRICS:
            entry = row.get(kind, {}).get(metric)
            found[f"{metric}, {title}"] = "" if entry is None else f"{100 * entry['mean']:.1f}"
    for metric in HEADLINES:
        gain = row["gain"]["better"][metric]
        found[f"{metric}, both − better"] = (
            f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        )
    return found


def legend(found: dict[str, Any]) -> str:
    """What readers of the table must know."""
    return (
        f"Percent, class means, test images; mean over {counted(found['draws'], 'draw')} of support images of the "
        "unseen classes. "
        "The images to name are the same for every number of support images. Images alone: the nearest class "
        "mean, of training images for seen classes. Both − better: over the better of attributes alone and images "
        "alone, with a 95% interval over draws."
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    flat = [
        {
            "method": row["name"],
            "shots": row["shots"],
            **{f"{kind}_{m}": row.get(kind, {}).get(m, {}).get("mean") for kind in KINDS for m in METRICS},
            **{f"{kind}_{m}_sd": row.get(kind, {}).get(m, {}).get("sd") for kind in KINDS for m in METRICS},
        }
        for row in rows
    ]
    return str(pd.DataFrame(flat).to_csv(index=False))
