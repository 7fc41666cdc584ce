"""Parts of a model in a run folder; imported only when a run is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unseen.backbones.reduction import FILE as REDUCTION
from unseen.classes.changes import read_encoding
from unseen.errors import RunError
from unseen.model.ranks import RankThreshold
from unseen.model.references import references_beside
from unseen.model.support import space_beside
from unseen.recognizer.parts import Parts, checked_settings
from unseen.training.folder import Run


def read_run(folder: Path, seed: int | None = None) -> Parts:
    """Parts of a finished run.

    Args:
        folder: folder of the run.
        seed: by default the first.

    Raises:
        RunError: no run, unfinished, or no such seed; or the backbone has changed since.
    """
    try:
        return _read_run(folder, seed)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"damaged training records ({error!r})", where=folder, hint="train again") from None


def _read_run(folder: Path, seed: int | None) -> Parts:
    run = Run(folder)
    manifest, results = run.manifest, run.results
    measured = results["protocols"][run.protocol]
    chosen = str(seed) if seed is not None else next(iter(measured["seeds"]))
    if chosen not in measured["seeds"]:
        raise RunError(f"no seed {chosen}", where=folder, hint=f"use one of {', '.join(measured['seeds'])}")
    spec = run.config.backbone
    if manifest["backbone"]["frozen"] and spec.fingerprint()[:16] != manifest["backbone"]["fingerprint"]:
        raise RunError("the backbone weights differ from those of the training", where=spec.weights, hint="restore")
    found = measured["seeds"][chosen]
    calibration = found.get("calibration") or {}
    about = {k: manifest[k] for k in ("data", "backbone", "semantics", "method", "versions", "machine", "splits")}
    about |= {
        "unseen": manifest["unseen"],
        "protocol": run.protocol,
        "seed": int(chosen),
        "seeds": [int(s) for s in measured["seeds"]],
        "metrics": measured["metrics"],
        "ranks": {
            rank: {name: entry["mean"] for name, entry in metrics.items()}
            for rank, metrics in measured.get("ranks", {}).items()
        },
        "coarser": {part: v for part, v in (calibration.get("ranks") or {}).items() if part != "thresholds"},
        "calibration": {
            part: {k: v for k, v in calibration[part].items() if not isinstance(v, Mapping | Sequence)}
            for part in ("validation", "test")
            if calibration.get(part)
        },
    }
    weights = folder / f"seed-{chosen}" / f"{run.protocol}.safetensors"
    references = references_beside(weights)
    return Parts(
        folder,
        spec,
        weights,
        references if references.is_file() else None,
        run.config.method,
        checked_settings(run.config.method, manifest["method"]["settings"], folder / "manifest.json"),
        manifest["semantics"]["vector_length"],
        found["gamma"],
        found["temperature"],
        calibration.get("threshold"),
        {rank: RankThreshold(**one) for rank, one in (calibration.get("ranks") or {}).get("thresholds", {}).items()},
        run.config.store_dtype,
        about,
        read_encoding(folder),
        reduction=folder / REDUCTION if run.config.reduce else None,
        tables=manifest.get("tables", {}),
        space=space if (space := space_beside(weights)).is_file() else None,
    )
