"""The library in a few lines: fit, evaluate, list_methods."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.backbones.backbone import BackboneSpec
from unseen.data.catalogue import FIELDGUIDE
from unseen.errors import UnseenError
from unseen.ground.progress import Progress, silent
from unseen.methods import Recipe, Settings, every_method, method_of_settings, method_reference
from unseen.methods.base import as_text
from unseen.training import run as runs
from unseen.training.config import RunConfig
from unseen.training.run import Run, default_backbone

if TYPE_CHECKING:
    from torch import nn

    from unseen.methods import Method


def fit(
    method: str | type[Method] | Settings,
    dataset: Path | str,
    folder: Path | str,
    *,
    backbone: BackboneSpec | nn.Module | Callable[..., nn.Module] | str | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    recipe: Mapping[str, Any] | Recipe | None = None,
    epochs: int | None = None,
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
        method: a name of :func:`list_methods`, ``package.module:Class``, a class, or an instance of its settings.
        dataset: ``fieldguide``, or a dataset folder.
        folder: the run's folder.
        backbone: a spec, or what :meth:`unseen.BackboneSpec.of` takes: a name, a module, a function or class that makes
            one. Default :func:`unseen.training.run.default_backbone`.
        settings: changes to the preset's settings, such as ``{"lambda_cal": 0.2}``, or an instance in place of them.
        recipe: changes to its training recipe, such as ``{"lr": 1e-3}``, or an instance in place of it.
        epochs: short for ``recipe={"epochs": N}``.
        protocols: ``honest``, ``paper`` or both.
        seeds: one training each.
        device, workers, cache, progress, graph: see :func:`unseen.training.run.fit`.
        options: other entries of :class:`unseen.training.config.RunConfig`, such as ``preset="sun"``.

    Raises:
        UnseenError: anything wrong with what is asked for, before long work starts.
    """
    if isinstance(method, Settings):
        if settings is not None:
            raise UnseenError("settings are given twice", hint="give the method itself, and settings=")
        settings = method
        method = method_of_settings(settings)
    known = {f.name for f in fields(RunConfig)}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean "{near[0]}"?' if near else "settings={...} for those of the method"
            raise UnseenError(f'fit takes no "{name}"', hint=hint)
    name = str(dataset) if str(dataset) == FIELDGUIDE else str(Path(dataset).expanduser().absolute())
    steps = as_text(recipe or {}) | ({} if epochs is None else {"epochs": str(epochs)})
    config = RunConfig(
        method=method if isinstance(method, str) else method_reference(method),
        dataset=name,
        backbone=default_backbone(name) if backbone is None else BackboneSpec.of(backbone),
        settings=as_text(settings or {}),
        recipe=steps,
        protocols=tuple(protocols),
        seeds=tuple(seeds),
        **options,
    )
    return runs.fit(config, folder, cache=cache, device=device, workers=workers, progress=progress, graph=graph)


def evaluate(run: Run | Path | str, **options: Any) -> dict[str, Any]:
    """Test a run's saved models again; see :func:`unseen.training.run.evaluate_run`."""
    return runs.evaluate_run(run if isinstance(run, Run) else Run(run), **options)


def list_methods() -> list[str]:
    """Names of all methods: this package's, registered ones, and those of installed packages."""
    return list(every_method())
