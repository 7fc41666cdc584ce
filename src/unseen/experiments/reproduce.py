"""Run an experiment, compare measured with reported numbers, and state all differences."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unseen.backbones.spec import BackboneSpec
from unseen.data.catalogue import FIELDGUIDE, load_dataset
from unseen.errors import UnseenError
from unseen.evaluation.metrics import CORE
from unseen.experiments.files import Experiment, Reported
from unseen.ground.cache import cache_folder
from unseen.ground.progress import Progress, silent
from unseen.ground.words import size_text
from unseen.training.folder import Run
from unseen.training.run import fit

BACKBONE = ("name", "weights", "image_size", "zoom", "mirror", "regions", "fingerprint")
"""Recorded entries of a manifest's backbone."""


@dataclass(frozen=True)
class Reproduction:
    """What to do.

    Args:
        experiment: the experiment.
        data: dataset folder; ``None`` for a dataset that comes with the program.
        folder: folder of the run.
        backbone: another network than the experiment's.
        weights: file of backbone weights.
        protocols, seeds: other ones than the experiment's.
        options: other entries of :class:`unseen.training.config.RunConfig`.
        cache, device, workers, engine: see :func:`unseen.training.run.fit`.
    """

    experiment: Experiment
    data: Path | str | None
    folder: Path
    backbone: BackboneSpec | None = None
    weights: str | None = None
    protocols: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cache: Path | str | None = None
    device: str = "auto"
    workers: int = 0
    engine: str | None = None


def reproduce(asked: Reproduction, progress: Progress = silent) -> tuple[Run, list[str]]:
    """Run or resume an experiment.

    Returns:
        The run, and one line for every difference from the experiment.

    Raises:
        UnseenError: no data, or not the experiment's; no weights; or as in :func:`unseen.training.run.fit`.
    """
    experiment = asked.experiment
    if asked.data is None and experiment.dataset != FIELDGUIDE:
        where = f"{experiment.name} needs {experiment.facts.title}"
        raise UnseenError("no dataset folder", where=where, hint=f"pass --data FOLDER; {experiment.facts.get}")
    name = FIELDGUIDE if asked.data is None else str(Path(asked.data).expanduser().absolute())
    dataset = load_dataset(name, cache=asked.cache, progress=progress)
    spec = asked.backbone or experiment.spec(asked.weights)
    changes: dict[str, Any] = dict(asked.options)
    changes |= {"protocols": asked.protocols} if asked.protocols else {}
    changes |= {"seeds": asked.seeds} if asked.seeds else {}
    config = experiment.config(name, spec, **changes)
    run = fit(
        config,
        asked.folder,
        cache=cache_folder(asked.cache),
        device=asked.device,
        workers=asked.workers,
        engine=asked.engine,
        progress=progress,
    )
    return run, _differences(asked, run, spec, dataset.describe())


def _differences(asked: Reproduction, run: Run, spec: BackboneSpec, found: Mapping[str, Any]) -> list[str]:
    experiment = asked.experiment
    facts = experiment.facts
    differs = [
        f"data: {found[key]} {key.replace('_', ' ')}, {count} in {facts.name}"
        for key, count in facts.counts
        if found[key] != count
    ]
    if experiment.measured and experiment.measured[-1]["data"] != found["fingerprint"]:
        recorded = experiment.measured[-1]["data"]
        differs.append(f"data: fingerprint {found['fingerprint']} here, {recorded} in the last recorded run")
    named, used = experiment.backbone.spec, spec.to_json()
    own = asked.backbone is not None or named["name"] != FIELDGUIDE  # fieldguide's name stands for several entries
    differs += [
        f"backbone {key}: {used[key]} here, {value} in the file"
        for key, value in named.items()
        if own and used[key] != value
    ]
    differs += [f"{key}: {value} here" for key, value in asked.options.items()]
    for key, here in (("protocols", run.config.protocols), ("seeds", run.config.seeds)):
        there = getattr(experiment, key)
        if set(here) != set(there):
            differs.append(f"{key}: {_listed(here)} here, {_listed(there)} in the file")
    return differs


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(v) for v in values)


def comparison_table(experiment: Experiment, run: Run) -> list[dict[str, str]]:
    """Reported and measured numbers as rows; reported ones only for data on which they are comparable."""
    rows = [_reported_row(block) for block in experiment.reported] if experiment.facts.comparable else []
    backbone = run.manifest["backbone"]
    for protocol, found in run.results["protocols"].items():
        cells = {"": "measured", "protocol": protocol}
        for metric in CORE:
            entry = found["metrics"][metric]
            text = "–" if entry["mean"] is None else f"{100 * entry['mean']:.1f}"
            if entry["mean"] is not None and len(found["seeds"]) > 1:
                text += f" ± {100 * entry['std']:.1f}"
            cells[metric] = text
        size = size_text(backbone["image_size"], backbone["zoom"], backbone["mirror"])
        cells["features"] = f"{backbone['name']}, {backbone['weights']}, {size}, {backbone['regions']} regions"
        cells["source"] = "this run"
        rows.append(cells)
    return rows


def _reported_row(block: Reported) -> dict[str, str]:
    numbers = {metric: block.numbers.get(metric) for metric in CORE}
    cells = {metric: "–" if value is None else f"{value:.1f}" for metric, value in numbers.items()}
    about = {"features": block.features, "source": block.source}
    return {"": "reported", "protocol": block.protocol, **cells, **about}


def measured_block(run: Run, command: str, differs: list[str]) -> dict[str, Any]:
    """What ``--record`` writes to the experiment's file: numbers in percent, and what they depend on."""
    results, manifest = run.results, run.manifest
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "numbers": {
            protocol: {
                metric: {key: _percent(found["metrics"][metric][key]) for key in ("mean", "std", "low", "high")}
                for metric in CORE
            }
            for protocol, found in results["protocols"].items()
        },
        "seeds": [int(seed) for seed in next(iter(results["protocols"].values()))["seeds"]],
        "data": manifest["data"]["fingerprint"],
        "splits": {key: manifest["splits"][key] for key in ("final", "validation", "validation_source")},
        "backbone": {key: manifest["backbone"][key] for key in BACKBONE},
        "vectors": manifest["semantics"]["vectors"],
        "differs": differs,
        "versions": {"unseen": manifest["unseen"], "git": manifest["git"], **manifest["versions"]},
        "machine": manifest["machine"],
        "seconds": results["seconds"],
        "peak_memory_mb": results["peak_memory_mb"],
    }


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)
