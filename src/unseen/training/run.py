"""A run is a folder with configuration, manifest, a subfolder per seed, and results; one call makes or resumes it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.reduction import Reduction
from unseen.classes.attributes import write_attributes
from unseen.classes.changes import EARLIER, ENCODING, IMAGES, IN_USE, put_aside, same_classes, table_digests
from unseen.data.dataset import Dataset
from unseen.data.frozen import AnyStore
from unseen.errors import DataError, RunError, UnseenError
from unseen.evaluation.registry import Decided, in_json, measure
from unseen.features.store import RegionStore
from unseen.ground.cache import cache_folder
from unseen.ground.distributed import first_before_others, is_first, own_folder
from unseen.ground.files import is_left_over, read_json, write_json
from unseen.ground.progress import Progress, silent
from unseen.ground.words import pasted
from unseen.methods import find_method
from unseen.model.support import read_support
from unseen.model.weights import load_weights
from unseen.training.config import PROTOCOLS, RunConfig
from unseen.training.divergence import grown_losses
from unseen.training.fabric import check_fabric, make_fabric
from unseen.training.folder import Run
from unseen.training.holdouts import holdout_summary, needs_holdouts, run_holdouts
from unseen.training.inputs import RunInputs
from unseen.training.manifest import manifest_of, peak_memory_mb, vectors_digest
from unseen.training.outcomes import Result
from unseen.training.plan import Plan, check_held_out, engine_of
from unseen.training.protocols import run_seeds, validate_seeds
from unseen.training.race import AUTO, asked_for, race_of, run_race
from unseen.training.records import OnRecord, Record, first_alone, untold
from unseen.training.records import numbers as numbers_of
from unseen.training.stage import Stage
from unseen.training.steps import check_graph_device
from unseen.training.summary import per_class, summary, validation_summary
from unseen.training.trial import try_outside

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PATIENCE = 5.0
"""Seconds to wait for a run's folder: a worker still writes its checkpoint after its parent is killed."""


def earlier_config(folder: Path, config: RunConfig) -> RunConfig | None:
    """Configuration of the run in a folder; ``None`` if there is none.

    Raises:
        RunError: it differs from ``config`` in more than seeds and protocols.
    """
    where = folder / "config.json"
    if not where.is_file():
        return None
    existing = RunConfig.from_json(read_json(where, RunError, "restore the file, or choose another --output"), where)
    same = config.raced or config.looked or config.method != AUTO
    first = existing if same else asked_for(existing)
    changed = [name for name in config.difference(first) if name not in ("seeds", "protocols")]
    if changed:
        there, asked = _differing(*(c.to_json()[changed[0]] for c in (first, config)))
        raise RunError(
            f"contains a run with different {changed[0]} ({there}, now {asked})",
            where=folder,
            hint="choose another --output, or delete it",
        )
    return existing


def _differing(there: Any, asked: Any) -> tuple[str, str]:
    """Two settings as text; of settings with parts, the first part that differs."""
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        part = next((k for k in {**there, **asked} if there.get(k) != asked.get(k)), None)
        if part is not None:
            one, other = _differing(there.get(part), asked.get(part))
            return f"{part}: {one}", other
    return _in_words(there), _in_words(asked)


def _in_words(value: Any) -> str:
    return "the default" if value is None else "none" if value in ("", [], (), {}) else str(value)


def fit(
    config: RunConfig,
    folder: Path | str,
    *,
    cache: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = silent,
    on_plan: Callable[[Plan], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    validation_only: bool = False,
    budget_bytes: int | None = None,
    graph: bool = False,
    engine: str | None = None,
    on_record: OnRecord = untold,
    fabric: Fabric | None = None,
    with_images: bool = True,
) -> Run:
    """Do or resume a run: extract features, train every seed, test, write ``results.json``.

    Args:
        config: configuration of the run.
        folder: folder of the run; new, or of the same configuration. Other seeds are added to those done; another
            protocol is added too, but trains on all seen classes again. If images, table or attribute vectors have
            changed, the run starts over with the seeds and protocols of this call, and earlier results are removed.
        cache: see :func:`unseen.ground.cache.cache_folder`.
        device: see :func:`unseen.training.fabric.make_fabric`.
        workers: processes that read images (threads if images are read during training).
        progress: progress callback.
        on_plan: called with the plan, once everything has been checked.
        on_note: called with each line that readers of the results should know: on data, configuration and training, and
            on a run that starts over or was already finished.
        validation_only: do only the validation stage of every seed and write ``validation.json``, without using a test
            image. A later call without it continues from there.
        budget_bytes: memory for regions (or images), on a GPU its own; ``None`` is half of the free memory. The numbers
            do not depend on it.
        graph: launch each training step as one CUDA graph.
        engine: engine for a frozen network, see :func:`unseen.features.extract.extract`.
        on_record: called with records of the run, every epoch and every result, except epochs of an earlier call.
        fabric: a launched Fabric with the precision of ``config``; ``device`` is then ignored.
        with_images: as in :class:`unseen.training.inputs.RunInputs`.

    If torchrun started several processes, the first one works in ``folder`` (:mod:`unseen.ground.distributed`).

    Raises:
        RunError: the folder holds another run, or another process uses it.
        UnseenError: invalid input; raised before long work starts.
    """
    began = time.monotonic()
    fabric = make_fabric(device, config.precision) if fabric is None else check_fabric(fabric, config.precision)
    on_record = first_alone(on_record)
    folder, cache = own_folder(Path(folder)), cache_folder(cache)
    tell = on_note if is_first() else lambda note: None
    raced = _as_raced(config, folder)
    with first_before_others():
        plan = Plan.of(raced, cache, progress)  # report a wrong setting before what the folder holds
    same = _same_data(folder, plan)
    changed = same is False
    if changed and raced != config:  # it races again
        plan = Plan.of(config, cache, progress, plan.dataset)
    for protocol in ("honest",) if validation_only else config.protocols:
        check_held_out(plan.dataset, protocol, plan.config)
    if graph:
        check_graph_device(fabric)
        if plan.recipe is None:
            raise UnseenError("a closed-form method has no training steps", where="--graph", hint="omit it")
    plan = _with_earlier(plan, folder, changed)
    config = plan.config
    if on_plan is not None and is_first():
        on_plan(plan)
    stale = _stale(folder, plan) if changed else []
    for note in [*(_on_change(folder, stale) if changed else []), *plan.notes]:
        tell(note)
    with _held(folder):
        started = time.monotonic()
        own = folder if same else None
        store = plan.extract(cache, str(fabric.device), workers, progress, budget_bytes, own, engine)
        if own is not None:
            _check_same_store(own, store)
        if not validation_only and own is not None and _is_finished(own, config, store):
            tell("already finished: nothing is trained now; to train anew, choose another --output")
        if changed:
            _start_over(folder, stale)
        more: dict[str, Any] = {"budget_bytes": budget_bytes, "with_images": with_images, "on_record": on_record}
        inputs = RunInputs.of_plan(plan, store, fabric, folder, graph=graph, **more)
        try_outside(inputs)
        manifest = _write_inputs(inputs, folder)
        on_record(Record("run", about=plan.config.to_json()))
        if config.method == AUTO and not config.looked and "honest" in plan.config.protocols and not validation_only:

            def prepare(theirs: RunConfig, told: Progress) -> RunInputs:
                plan = Plan.of(theirs, cache, told, inputs.dataset)
                if theirs.looked or find_method(theirs.method).end_to_end:
                    store = plan.extract(cache, str(fabric.device), workers, told, budget_bytes, None, engine)
                else:
                    store = inputs.store
                return RunInputs.of_plan(plan, store, fabric, folder, **more)

            winner, _ = run_race(inputs, config.seeds[0], folder, progress, prepare, began + (config.time or math.inf))
            inputs = inputs if winner == inputs.config else prepare(winner, progress)
            manifest = _write_inputs(inputs, folder)
        if validation_only:
            _validate(inputs, folder, progress)
        else:
            numbers = _tested(inputs, folder, progress)
            results: dict[str, Any] = {
                "protocols": numbers,
                "splits": {stage: manifest["splits"][stage] for stage in ("final", "validation")},
                "seconds": round(time.monotonic() - started, 1),
                "peak_memory_mb": peak_memory_mb(),
                "warnings": grown_losses(folder),
                "race": race_of(folder),
            }
            write_json(folder / "results.json", results, sealed=True)
            for note in results["warnings"]:
                tell(note)
    return Run(folder)


def _validate(inputs: RunInputs, folder: Path, progress: Progress) -> None:
    """Do the validation stage of every seed, and write its numbers."""
    choices = validate_seeds(inputs, _seeds(inputs.config), folder, progress)
    inputs.keep_texts(folder)
    write_json(folder / "validation.json", validation_summary(inputs, folder, choices), sealed=True)


def _tested(inputs: RunInputs, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train and test every seed, then do the class hold-outs; returns the numbers of each protocol."""
    config, seeds = inputs.config, _seeds(inputs.config)
    numbers = summary(inputs, run_seeds(inputs, seeds, folder, config.protocols, progress))
    if "honest" in numbers and config.holdout_count and needs_holdouts(inputs.dataset):
        found = run_holdouts(inputs, seeds[0], config.holdout_count, folder / "holdouts", progress)
        numbers["honest"]["holdout"] = holdout_summary(found, inputs.dataset.table)
    for protocol, measured in numbers.items():
        for seed, values in measured["seeds"].items():
            inputs.on_record(Record("result", int(seed), protocol, values=numbers_of(values)))
    inputs.keep_texts(folder)
    return numbers


def _seeds(config: RunConfig) -> tuple[int, ...]:
    """Seeds to train; a closed form has no randomness, so one suffices."""
    return config.seeds[:1] if find_method(config.method).closed_form else config.seeds


def _as_raced(config: RunConfig, folder: Path) -> RunConfig:
    """Configuration of a run of ``auto`` that has found its winner, if this configuration asks for that run."""
    where = folder / "config.json"
    if config.method != AUTO or not where.is_file():
        return config
    existing = RunConfig.from_json(read_json(where, RunError, "restore it, or choose another --output"), where)
    if not (existing.raced or existing.looked) or set(asked_for(existing).difference(config)) - {"seeds", "protocols"}:
        return config
    return replace(existing, seeds=config.seeds, protocols=config.protocols)


def _with_earlier(plan: Plan, folder: Path, changed: bool) -> Plan:
    """The plan, extended by the seeds and protocols of the run in the folder; starts the run if there is none.

    A run on data that have since ``changed`` adds nothing.
    """
    config, existing = plan.config, earlier_config(folder, plan.config)
    if changed:
        return plan
    if existing is not None:
        wanted = {*existing.protocols, *config.protocols}
        config = replace(config, protocols=tuple(p for p in PROTOCOLS if p in wanted))
        config = replace(config, seeds=(*existing.seeds, *(s for s in config.seeds if s not in existing.seeds)))
    elif folder.is_dir() and any(not (file.name == ".lock" or is_left_over(file)) for file in folder.iterdir()):
        raise RunError("the folder is not empty and contains no run", where=folder, hint="choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot create the folder ({error.strerror})", where=folder, hint="choose another --output"
        ) from None
    return replace(plan, config=config)


def _held(folder: Path) -> AbstractContextManager[Any]:
    """The acquired lock of a run's folder."""
    try:
        return FileLock(folder / ".lock").acquire(timeout=PATIENCE)
    except Timeout:
        raise RunError("another process is working on this run", where=folder, hint="wait until it ends") from None


def _write_inputs(inputs: RunInputs, folder: Path) -> dict[str, Any]:
    """Write everything that a run's folder holds before the first training, and return the manifest."""
    config, dataset, store = inputs.config, inputs.dataset, inputs.store
    write_json(folder / "config.json", config.to_json(), sealed=True)  # from here on the folder belongs to this run
    if isinstance(store, RegionStore) and config.reduce:
        Reduction.load(store.folder / REDUCTION).save(folder / REDUCTION)
    dataset.table.to_csv(folder / "classes.csv")
    if dataset.encoding is not None and not dataset.encoding.as_it_stands:
        write_json(folder / "encoding.json", dataset.encoding.to_json(), sealed=True)
    write_attributes(folder / "attributes.csv", dataset.table.attributes)
    manifest = manifest_of(inputs) | {"tables": table_digests(folder)}
    write_json(folder / "manifest.json", manifest, sealed=True)
    return manifest


def _check_same_store(folder: Path, store: AnyStore) -> None:
    """Raise an error if the run in a folder started with regions of another engine."""
    with suppress(KeyError):
        there = Run(folder).manifest["backbone"]
        if there["store"] != store.fingerprint[:16] and there["engine"] != (asked := engine_of(store)):
            problem = f"holds a run on regions of another engine ({there['engine']}, now {asked})"
            raise RunError(problem, where=folder, hint=f"--engine {there['engine'].split()[0]}, or another --output")


def _same_data(folder: Path, plan: Plan) -> bool | None:
    """Whether a run's folder belongs to these images, classes, splits and attribute vectors; ``None`` if unknown."""
    with suppress(RunError, KeyError):
        return _is_of(Run(folder).manifest, plan)
    return None


def _is_of(manifest: Mapping[str, Any], plan: Plan) -> bool:
    there = manifest["data"]["fingerprint"], manifest["semantics"]["digest"]
    return bool(there == (plan.dataset.fingerprint, vectors_digest(plan.vectors)))


def _stale(folder: Path, plan: Plan) -> list[str]:
    """Files of changed classes in a run's folder that don't fit a training on other data.

    A class in use has the row and the place among the classes that it had in the earlier training. Support images have
    the features of a network that another training may change.
    """
    config, support = plan.config, read_support(folder).classes
    undescribed = any(not images.attributes for images in support.values())
    stale = set() if same_classes(folder, plan.dataset.table, plan.dataset.encoding) else {IN_USE}
    if config.time or (config.method != AUTO and find_method(config.method).end_to_end):
        stale |= {IMAGES, IN_USE} if undescribed else {IMAGES}
    elif stale and (undescribed or support.keys() - set(plan.dataset.table.names)):
        stale.add(IMAGES)
    return [name for name in (IN_USE, IMAGES) if name in stale and (folder / name).is_file()]


def _on_change(folder: Path, stale: Sequence[str]) -> list[str]:
    """Notes on a run whose data have changed."""
    notes = ["the images or the table have changed since the last training; starting over without its results"]
    if IN_USE in stale:
        kept = f"they are kept in {folder / f'{EARLIER}{IN_USE}'}"
        notes.append(f"classes changed with `unseen classes` no longer fit the table: {kept}; change them again")
    if IMAGES in stale:
        kept = f"their list is kept in {folder / f'{EARLIER}{IMAGES}'}"
        notes.append(f"images of classes no longer fit the model: {kept}; add them again")
    if any((folder / name).is_file() and name not in stale for name in (IN_USE, IMAGES)):
        reset = f"unseen classes reset {pasted(folder)}"
        what = "images of classes" if IN_USE in stale else "classes changed with `unseen classes`"
        notes.append(f"{what} stay in use; `{reset}` restores those of the table")
    return notes


TRAINED = ("results.json", "validation.json", "seed-*", "holdouts", "race", "start", REDUCTION, ENCODING, "report.html")
"""What a run's folder holds of a training, beside what its next call writes first."""


def _start_over(folder: Path, stale: Sequence[str]) -> None:
    """Remove the results of a run whose data have changed, so that none of them stands beside new ones."""
    for name in stale:
        put_aside(folder, name)
    for pattern in TRAINED:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_finished(folder: Path, config: RunConfig, store: AnyStore) -> bool:
    """Whether the run in a folder has all the models and numbers of a configuration, on these regions."""
    with suppress(RunError, KeyError):
        run = Run(folder)
        there, found = run.manifest["backbone"]["store"], run.results["protocols"]
        return bool(there == store.fingerprint[:16]) and all(
            str(seed) in found[protocol]["seeds"] and (folder / f"seed-{seed}" / f"{protocol}.safetensors").is_file()
            for protocol in config.protocols
            for seed in _seeds(config)
        )
    return False


def reopen(
    run: Run,
    *,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
    dataset: Dataset | None = None,
) -> RunInputs:
    """Inputs of a finished run, on the device; arguments as in :func:`fit`, ``dataset`` as in :meth:`Plan.of`.

    Raises:
        RunError: the dataset has changed since the training.
        UnseenError: images or weights are missing.
    """
    cache, fabric = cache_folder(cache), make_fabric(device, run.config.precision)
    try:
        plan = Plan.of(run.config, cache, progress, dataset)
    except DataError as error:
        if error.problem != "no such folder":
            raise
        hint = "move the dataset back to it, or train again where the dataset is now"
        raise DataError(error.problem, where=error.where, hint=hint) from None
    same = False
    with suppress(KeyError):  # a manifest without these entries
        same = _is_of(run.manifest, plan)
    if not same:
        raise RunError("the dataset has changed since the training", where=run.folder, hint="train again")
    store = plan.extract(cache, str(fabric.device), workers, progress, folder=run.folder)
    return RunInputs.of_plan(plan, store, fabric, run.folder)


def evaluate_run(
    run: Run,
    *,
    protocol: str | None = None,
    gamma: float | None = None,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Test the stored model of every seed again.

    Args:
        run: a finished run.
        protocol: protocol of the models, for a run of both; by default honest if available.
        gamma: calibration offset; by default that of each seed.
        device, cache, workers, progress: as in :func:`fit`.

    Returns:
        protocol, seeds (metrics and gamma of each) and per_class (averaged over seeds). Under ``paper`` all belong to
        the model with the best H.
    """
    if gamma is not None and not math.isfinite(gamma):
        raise UnseenError(f"gamma is {gamma}", where="--gamma", hint="use a finite number, such as 0.5")
    results, chosen = run.results, protocol or run.protocol
    if chosen not in results["protocols"]:
        raise RunError(
            f'no "{chosen}" protocol', where=run.folder, hint=f"the run has {' and '.join(results['protocols'])}"
        )
    inputs = reopen(run, device=device, cache=cache, workers=workers, progress=progress)
    final = Stage(inputs, "final")
    seeds, values = {}, []
    for seed, found in results["protocols"][chosen]["seeds"].items():
        method = inputs.new_method(int(seed))
        load_weights(run.folder / f"seed-{seed}" / f"{chosen}.safetensors", method)
        decisions = final.decide(method)
        offset = found["gamma"] if gamma is None else gamma
        taxonomy = inputs.dataset.table.taxonomy
        decided = Decided(decisions, offset, None if taxonomy is None else taxonomy.codes)
        seeds[seed] = in_json(measure(decided) | {"gamma": offset})
        values.append(Result(decisions, decisions, offset, {}, None))
    return {"protocol": chosen, "seeds": seeds, "per_class": per_class(inputs.dataset.table, values)}
