"""The main entry points of the library: fit, evaluate, load, list_methods."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.backbones.naming import IMPORTED
from unseen.backbones.spec import BackboneSpec
from unseen.data.catalogue import FIELDGUIDE, keep_dataset
from unseen.data.dataset import Dataset
from unseen.data.folder_images import imported_folder
from unseen.data.holding import make_dataset
from unseen.errors import UnseenError
from unseen.ground.extras import require
from unseen.ground.progress import Progress, silent
from unseen.methods import Recipe, Settings, every_method, method_of_settings, method_reference
from unseen.methods.settings import as_text
from unseen.recognizer.names import CLASSIFIER
from unseen.training import run as runs
from unseen.training.config import RunConfig
from unseen.training.folder import Run, default_folder
from unseen.training.plan import default_backbone, kind_of_device
from unseen.training.records import OnRecord, untold

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from unseen.integrations.sklearn import ZeroShotClassifier
    from unseen.methods import Method
    from unseen.recognizer import Recognizer

_log = logging.getLogger("unseen")


def fit(
    method: str | type[Method] | Settings,
    dataset: Any,
    folder: PathLike[str] | str | None = None,
    *,
    attributes: Any = None,
    root: Path | str | None = None,
    backbone: BackboneSpec | nn.Module | Callable[..., nn.Module] | str | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    recipe: Mapping[str, Any] | Recipe | None = None,
    epochs: int | None = None,
    protocols: Sequence[str] = ("honest",),
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    workers: int = 0,
    engine: str | None = None,
    cache: Path | str | None = None,
    progress: Progress = silent,
    graph: bool = False,
    on_record: OnRecord = untold,
    fabric: Fabric | None = None,
    **options: Any,
) -> Run:
    """Train and test a method. Call it again with the same arguments to resume an interrupted run.

    Notes on the data, the configuration and the training go to the logger ``unseen`` as warnings; those on the results
    are also in :attr:`Run.notes <unseen.training.folder.Run.notes>`.

    Args:
        method: a name of :func:`list_methods`, ``package.module:Class``, a class, or an instance of its settings.
        dataset: ``fieldguide``, a dataset folder, a :class:`~unseen.data.dataset.Dataset`, or, with ``attributes``, an
            argument of :func:`unseen.make_dataset`: a DataFrame of paths and classes, an ``ImageFolder``, a Hugging
            Face dataset. Everything except a folder is copied to the cache, so that the run finds it again.
        folder: folder of the run; by default ``runs/METHOD-DATASET``.
        attributes, root: see :func:`unseen.make_dataset`.
        backbone: a spec, ``fieldguide``, ``features:NAME`` of the dataset folder, or an argument of
            :meth:`unseen.BackboneSpec.of`: a name, a module, or a function or class that returns one. The default is
            :func:`unseen.training.plan.default_backbone` of the device.
        settings: changes to the preset's settings, such as ``{"lambda_cal": 0.2}``, or an instance that replaces them.
        recipe: changes to the training recipe, such as ``{"lr": 1e-3}``, or an instance that replaces it.
        epochs: short for ``recipe={"epochs": N}``.
        protocols: ``honest``, ``paper`` or both.
        seeds: seeds to train, one training each.
        device, workers, engine, cache, progress, graph, on_record, fabric: see :func:`unseen.training.run.fit`.
        options: other entries of :class:`unseen.training.config.RunConfig`, such as ``preset="sun"``, and of the
            backbone's :class:`unseen.BackboneSpec`: ``image_size``, ``zoom``, ``weights``, ``mean``, ``std``, ``crop``,
            ``pixels``, ``stages``, ``channels``.

    Raises:
        UnseenError: an argument is invalid; raised before any long work starts.
    """
    if isinstance(method, Settings):
        if settings is not None:
            raise UnseenError("settings are passed twice", hint="pass the method, and its settings as settings=")
        settings = method
        method = method_of_settings(settings)
    known = {f.name for f in fields(RunConfig)} | set(OF_BACKBONE)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = (
                f'did you mean "{near[0]}"?'
                if near
                else "pass settings={...} for the method, recipe={...} for its training"
            )
            raise UnseenError(f'fit has no argument "{name}"', hint=hint)
    entries = {key: options.pop(key) for key in OF_BACKBONE if key in options}
    name, called = _dataset_name(dataset, attributes, root, cache, progress)
    if isinstance(seeds, Integral):
        raise UnseenError(f"seeds is {seeds}", hint=f"pass several: range({seeds}), or ({seeds},) for this one")
    steps = as_text(recipe or {}) | ({} if epochs is None else {"epochs": str(epochs)})
    method = method if isinstance(method, str) else method_reference(method)
    folder = default_folder(method, called) if folder is None else Path(folder).expanduser()
    config = RunConfig(
        method=method,
        dataset=name,
        backbone=_backbone(backbone, name, entries, kind_of_device(device, folder), method),
        settings=as_text(settings or {}),
        recipe=steps,
        protocols=(protocols,) if isinstance(protocols, str) else tuple(protocols),
        seeds=tuple(seeds),
        **options,
    )
    where: dict[str, Any] = {"cache": cache, "device": device, "workers": workers, "engine": engine}
    more: dict[str, Any] = {"graph": graph, "on_record": on_record, "fabric": fabric}
    return runs.fit(config, folder, **where, **more, progress=progress, on_note=lambda note: _log.warning("%s", note))


OF_BACKBONE = ("image_size", "zoom", "mirror", "weights", "mean", "std", "crop", "pixels", "stages", "channels")
"""Entries of a backbone's spec that :func:`fit` accepts."""


def _backbone(given: Any, dataset: str, entries: Mapping[str, Any], device: str, method: str) -> BackboneSpec:
    if given is None or (isinstance(given, str) and given == FIELDGUIDE):
        return replace(default_backbone(given or dataset, device, [method]), **entries)
    if isinstance(given, str) and given.startswith(IMPORTED):
        entries = {"weights": imported_folder(dataset, given), **entries}
    return BackboneSpec.of(given, **entries)


def _dataset_name(
    dataset: Any, attributes: Any, root: Path | str | None, cache: Any, progress: Progress
) -> tuple[str, str]:
    """Name or folder of the data in a run, and its name in a path."""
    if isinstance(dataset, Path | str):
        if attributes is not None or root is not None:
            hint = "omit attributes and root, or pass the images as a table"
            raise UnseenError("a dataset folder has its own class table", where=str(dataset), hint=hint)
        if str(dataset) == FIELDGUIDE:
            return FIELDGUIDE, FIELDGUIDE
        found = Path(dataset).expanduser().absolute()
        return str(found), found.name
    if not isinstance(dataset, Dataset):
        if attributes is None:
            problem = f"images as {type(dataset).__name__} without attributes of their classes"
            raise UnseenError(problem, hint="pass attributes=, a DataFrame indexed by class")
        dataset = make_dataset(dataset, attributes, root=root, cache=cache, progress=progress)
    return str(keep_dataset(dataset, cache)), dataset.name


def load(
    folder_or_id: PathLike[str] | str, *, seed: int | None = None, device: str = "auto"
) -> Recognizer | ZeroShotClassifier:
    """Load a trained model, ready to predict.

    Args:
        folder_or_id: a run or its folder, a saved folder, or the hub's ``OWNER/NAME``.
        seed: for a run, the seed of the model; by default the first.
        device: where to compute.

    Returns:
        A :class:`~unseen.recognizer.recognizer.Recognizer` for images; for a saved classifier or a run on imported
        features, a :class:`~unseen.integrations.sklearn.ZeroShotClassifier` for features.

    Raises:
        RunError: no such model, unfinished, or damaged.
    """
    from unseen.recognizer.loading import load_recognizer

    if not _predicts_features(Path(folder_or_id).expanduser()):
        return load_recognizer(folder_or_id, seed=seed, device=device)
    require("sklearn", what="a classifier of features")
    from unseen.integrations.sklearn import ZeroShotClassifier

    return ZeroShotClassifier.load(folder_or_id, seed=seed, device=device)


def _predicts_features(folder: Path) -> bool:
    if (folder / CLASSIFIER).is_file():
        return True
    return (folder / "config.json").is_file() and Run(folder).config.backbone.imported


def evaluate(run: Run | Path | str, **options: Any) -> dict[str, Any]:
    """Test the saved models of a run again; see :func:`unseen.training.run.evaluate_run`."""
    return runs.evaluate_run(run if isinstance(run, Run) else Run(run), **options)


def list_methods() -> list[str]:
    """Names of all methods: this package's, registered ones, and those of installed packages."""
    return list(every_method())
