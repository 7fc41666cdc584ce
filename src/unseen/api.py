"""The library in a few lines: fit, evaluate, list_methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unseen.backbones.backbone import BackboneSpec
from unseen.data.catalogue import FIELDGUIDE
from unseen.ground.progress import Progress, silent
from unseen.methods import METHODS
from unseen.training import run as runs
from unseen.training.config import RunConfig
from unseen.training.run import Run, default_backbone


def fit(
    method: str,
    dataset: Path | str,
    folder: Path | str,
    *,
    backbone: BackboneSpec | None = None,
    protocols: Sequence[str] = ("honest",),
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    workers: int = 0,
    cache: Path | str | None = None,
    progress: Progress = silent,
    graph: bool = False,
    **options: Any,
) -> Run:
    """Train and test a method; the same call resumes a run that was stopped.

    Args:
        method: see :func:`list_methods`.
        dataset: ``fieldguide``, or a dataset folder.
        folder: the run's folder.
        backbone: default :func:`unseen.training.run.default_backbone`.
        protocols: ``honest``, ``paper`` or both.
        seeds: one training each.
        device, workers, cache, progress, graph: see :func:`unseen.training.run.fit`.
        options: other entries of :class:`unseen.training.config.RunConfig`, such as ``settings={"lambda_cal": "0.2"}``.
    """
    name = str(dataset) if str(dataset) == FIELDGUIDE else str(Path(dataset).expanduser().absolute())
    config = RunConfig(
        method=method,
        dataset=name,
        backbone=backbone or default_backbone(name),
        protocols=tuple(protocols),
        seeds=tuple(seeds),
        **options,
    )
    return runs.fit(config, folder, cache=cache, device=device, workers=workers, progress=progress, graph=graph)


def evaluate(run: Run | Path | str, **options: Any) -> dict[str, Any]:
    """Test a run's saved models again; see :func:`unseen.training.run.evaluate_run`."""
    return runs.evaluate_run(run if isinstance(run, Run) else Run(run), **options)


def list_methods() -> list[str]:
    """Names of all methods."""
    return list(METHODS)
