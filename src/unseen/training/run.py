"""A run is a folder: configuration, manifest, a sub-folder a seed, results; made by one call that resumes itself."""

from __future__ import annotations

import math
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from unseen.backbones.backbone import Backbone, BackboneSpec
from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.reduction import Reduction, ReductionSpec
from unseen.backbones.towers import TEXTS, TextTower
from unseen.classes.changes import table_digests
from unseen.classes.table import ClassTable, write_attributes
from unseen.data.catalogue import FIELDGUIDE, cache_folder, load_dataset
from unseen.data.dataset import Dataset, validation_partition
from unseen.data.images import ImageStore
from unseen.data.importing import imported_store
from unseen.errors import RunError, UnseenError
from unseen.evaluation.metrics import Interval, bootstrap, evaluate, per_class_accuracy
from unseen.features.extract import ExtractionPlan, chosen_workers, extract
from unseen.features.reduced import extract_reduced, reduce_store
from unseen.features.store import RegionStore
from unseen.ground.devices import find_device
from unseen.ground.distributed import first_before_others, is_first, own_folder
from unseen.ground.files import is_left_over, read_json, write_json
from unseen.ground.progress import Progress, silent
from unseen.methods import find_method, find_preset
from unseen.methods.base import Recipe, Settings, change_recipe
from unseen.model.weights import load_weights
from unseen.training.config import PROTOCOLS, RunConfig, plain
from unseen.training.divergence import grown_losses
from unseen.training.engine import make_fabric
from unseen.training.folder import Run
from unseen.training.holdouts import needs_rehearsal, rehearsal_summary, rehearse
from unseen.training.protocols import (
    Choice,
    Ingredients,
    Result,
    Stagehand,
    decisions_path,
    new_method,
    run_seeds,
    save_decisions,
    validate_seeds,
)
from unseen.training.steps import check_graph_device
from unseen.vectors.sources import attribute_vectors
from unseen.version import __version__

PATIENCE = 5.0
"""Seconds to wait for a run's folder: a row's worker writes its checkpoint when its parent has been killed."""


def default_backbone(dataset: str, device: str = "cuda") -> BackboneSpec:
    """The backbone where none is named: fieldguide's own on fieldguide, else ImageNet's ResNet-101 at 448 px.

    On a CPU it is ResNet-50 at 320 px instead, with a quarter of the operations an image.
    """
    if dataset == FIELDGUIDE:
        from unseen.fieldguide import BACKBONE

        return BackboneSpec(
            name=BACKBONE["name"],
            image_size=BACKBONE["image_size"],
            weights=str(BACKBONE["weights"]),
            options=BACKBONE["options"],
            mean=BACKBONE["mean"],
            std=BACKBONE["std"],
        )
    if device == "cpu":
        return BackboneSpec(name="resnet50.tv_in1k", image_size=320)
    return BackboneSpec(name="resnet101.tv_in1k", image_size=448)


def resolve_settings(config: RunConfig, dataset: str) -> tuple[str, Settings, Recipe | None]:
    """Name of the preset, settings and recipe of a configuration on a dataset of that name.

    Raises:
        UnseenError: no such method, preset, setting or recipe entry, or a value that does not fit.
    """
    kind = find_method(config.method)
    name, preset = find_preset(kind, dataset, config.preset)
    settings = type(preset.settings).changed(preset.settings, dict(config.settings))
    if preset.recipe is None and config.recipe:
        raise UnseenError(f"{kind.name} is solved in closed form", hint="leave out epochs and recipe")
    recipe = None if preset.recipe is None else change_recipe(preset.recipe, dict(config.recipe))
    return name, settings, recipe


@dataclass(frozen=True)
class Plan:
    """A configuration with its names resolved and its data loaded."""

    config: RunConfig
    dataset: Dataset
    settings: Settings
    recipe: Recipe | None
    preset: str
    vectors: np.ndarray
    vectors_label: str

    @classmethod
    def of(cls, config: RunConfig, cache: Path, progress: Progress = silent) -> Plan:
        """Resolve a configuration; everything that can be wrong with it is found here, before any long work."""
        method = find_method(config.method)
        if method.reads_text and config.backbone.tower is None:
            problem = f"no text tower, which {method.name} compares images with"
            hint = "--backbone hf:MODEL, such as hf:google/siglip-base-patch16-224"
            raise UnseenError(problem, where=f"backbone {config.backbone.name}", hint=hint)
        config.backbone.fingerprint()  # the weights are there
        dataset = load_dataset(config.dataset, cache=cache, progress=progress)
        name, settings, recipe = resolve_settings(config, dataset.name)
        vectors, label = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors, config.vectors)
        return cls(config, dataset, settings, recipe, name, vectors, label)

    def extract(
        self,
        cache: Path,
        device: str | torch.device,
        workers: int,
        progress: Progress = silent,
        budget_bytes: int | None = None,
        folder: Path | None = None,
    ) -> RegionStore | ImageStore:
        """The region store of all images of the dataset; for a method trained end to end the images themselves.

        Regions are reduced by what a run's ``folder`` has kept; without one, axes are fitted on the training images
        of the validation stage, which no protocol tests on.
        """
        cache, device = cache / "regions", find_device(device)
        reducing: dict[str, Any] = {}
        if self.config.reduce:
            reducing = {
                "spec": ReductionSpec.parse(self.config.reduce),
                "fit_on": validation_partition(self.dataset, self.config.split_seed).train,
                "kept": None if folder is None else folder / REDUCTION,
                "progress": progress,
            }
        if self.config.backbone.imported:
            full = imported_store(self.dataset, Path(self.config.backbone.weights))
            return reduce_store(full, cache, device=device, **reducing) if reducing else full
        backbone = Backbone(self.config.backbone)
        names, note = self.dataset.files, ""
        if find_method(self.config.method).end_to_end:
            workers = chosen_workers(workers, device)
            return ImageStore(
                self.dataset.paths(), backbone, cache, names=names, workers=workers, budget_bytes=budget_bytes
            )

        def tell(done: int, total: int) -> None:
            progress("extracting regions", done, total, note)

        def announce(plan: ExtractionPlan) -> None:
            nonlocal note
            if plan.todo:
                note = f"({plan})"
                tell(plan.images - plan.todo, plan.images)

        return (extract_reduced if reducing else extract)(
            self.dataset.paths(),
            backbone,
            cache,
            names=names,
            dtype=self.config.store_dtype,
            device=device,
            workers=workers,
            tick=tell,
            on_plan=announce,
            **reducing,
        )

    def ingredients(self, store: RegionStore | ImageStore, folder: Path) -> Ingredients:
        """What every seed's training shares; texts that the run's folder has vectors of are not embedded again."""
        config, tower = self.config, None
        if find_method(config.method).reads_text and config.backbone.tower is not None:
            tower = TextTower(config.backbone.tower)
            tower.load(folder / TEXTS)
        return Ingredients(
            self.dataset,
            store,
            self.vectors,
            config.method,
            self.settings,
            self.recipe,
            config.select,
            config.split_seed,
            config.precision,
            config.accumulate,
            tower,
        )


def _keep_texts(ingredients: Ingredients, folder: Path) -> None:
    """Texts that were embedded stay with the run, so that it needs no text tower."""
    if ingredients.tower is not None:
        ingredients.tower.save(folder / TEXTS)


def earlier_config(folder: Path, config: RunConfig) -> RunConfig | None:
    """The configuration of the run that a folder holds; ``None`` where it holds none.

    Raises:
        RunError: it differs from ``config`` in more than seeds and protocols.
    """
    where = folder / "config.json"
    if not where.is_file():
        return None
    existing = RunConfig.from_json(read_json(where, RunError, "restore it, or choose another --output"), where)
    changed = [name for name in config.difference(existing) if name not in ("seeds", "protocols")]
    if changed:
        there, asked = (c.to_json()[changed[0]] or "none" for c in (existing, config))
        raise RunError(
            f"holds a run with other {changed[0]} ({there} there, {asked} asked)",
            where=folder,
            hint="choose another --output, or delete it",
        )
    return existing


def fit(
    config: RunConfig,
    folder: Path | str,
    *,
    cache: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = silent,
    on_plan: Callable[[Plan], None] | None = None,
    validation_only: bool = False,
    budget_bytes: int | None = None,
    graph: bool = False,
) -> Run:
    """Do a run, or finish one that was stopped: extract, train every seed, test, write ``results.json``.

    Args:
        config: what to do.
        folder: the run's folder; new, or of the same configuration. More seeds are added to those done; another
            protocol is added too, but trains on all seen classes again.
        cache: see :func:`unseen.data.catalogue.cache_folder`.
        device: see :func:`unseen.training.engine.make_fabric`.
        workers: processes that read images (threads where they are read in training).
        progress: told how far it is.
        on_plan: told what is going to be done, once everything has been checked.
        validation_only: do the validation stage of every seed and write ``validation.json``; no test image is looked
            at. A later call without it goes on from there.
        budget_bytes: how much regions (or images) may be kept in memory, on a GPU in its own; ``None`` is half of
            what is free. The numbers do not depend on it.
        graph: launch each step of a training as one CUDA graph.

    Of several processes that torchrun started, the first works in ``folder`` (:mod:`unseen.ground.distributed`).

    Raises:
        RunError: the folder holds another run, or another process works on it.
        UnseenError: anything wrong with the input, before long work starts.
    """
    fabric = make_fabric(device, config.precision)
    folder, cache = own_folder(Path(folder)), cache_folder(cache)
    where = folder / "config.json"
    with first_before_others():
        plan = Plan.of(config, cache, progress)  # a wrong setting is said before what the folder holds
    if graph:
        check_graph_device(fabric)
        if plan.recipe is None:
            raise UnseenError("a closed form takes no steps", where="--graph", hint="leave it out")
    existing = earlier_config(folder, config)
    if existing is not None:
        wanted = {*existing.protocols, *config.protocols}
        config = replace(config, protocols=tuple(p for p in PROTOCOLS if p in wanted))
        config = replace(config, seeds=(*existing.seeds, *(s for s in config.seeds if s not in existing.seeds)))
        plan = replace(plan, config=config)
    elif folder.is_dir() and any(not (file.name == ".lock" or is_left_over(file)) for file in folder.iterdir()):
        raise RunError("the folder is not empty and holds no run", where=folder, hint="choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot be made ({error.strerror})", where=folder, hint="choose another --output") from None
    if on_plan is not None and is_first():
        on_plan(plan)
    lock = FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise RunError("another process is working on this run", where=folder, hint="wait for it") from None
    with held:
        started = time.monotonic()
        own = folder if _same_data(folder, plan.dataset) else None
        store = plan.extract(cache, str(fabric.device), workers, progress, budget_bytes, own)
        write_json(where, config.to_json(), sealed=True)  # from here on the folder is this run's
        if isinstance(store, RegionStore) and config.reduce:
            Reduction.load(store.folder / REDUCTION).save(folder / REDUCTION)
        ingredients = replace(plan.ingredients(store, folder), budget_bytes=budget_bytes, graph=graph)
        plan.dataset.table.to_csv(folder / "classes.csv")
        if plan.dataset.encoding is not None and not plan.dataset.encoding.as_it_stands:
            write_json(folder / "encoding.json", plan.dataset.encoding.to_json(), sealed=True)
        write_attributes(folder / "attributes.csv", plan.dataset.table.attributes)
        manifest = _manifest(plan, store, ingredients, fabric.device) | {"tables": table_digests(folder)}
        write_json(folder / "manifest.json", manifest, sealed=True)
        # a closed form has no randomness: one seed says it all
        seeds = config.seeds[:1] if find_method(config.method).closed_form else config.seeds
        if validation_only:
            choices = validate_seeds(ingredients, seeds, folder, fabric, progress)
            seen = ingredients.partition("validation").seen
            _keep_texts(ingredients, folder)
            write_json(folder / "validation.json", _validation_summary(plan, folder, choices, seen), sealed=True)
            return Run(folder)
        results = run_seeds(ingredients, seeds, folder, config.protocols, fabric, progress)
        rehearsed = None
        if "honest" in config.protocols and config.rehearsals and needs_rehearsal(plan.dataset):
            found = rehearse(ingredients, seeds[0], config.rehearsals, folder / "rehearsal", fabric, progress)
            rehearsed = rehearsal_summary(found)
        _keep_texts(ingredients, folder)
        summary = _summary(plan, results)
        if rehearsed is not None:
            summary["honest"]["rehearsal"] = rehearsed
        seconds = round(time.monotonic() - started, 1)
        splits = {stage: manifest["splits"][stage] for stage in ("final", "validation")}
        numbers = {"protocols": summary, "splits": splits, "seconds": seconds, "peak_memory_mb": peak_memory_mb()}
        write_json(folder / "results.json", numbers | {"warnings": grown_losses(folder)}, sealed=True)
    return Run(folder)


def _same_data(folder: Path, dataset: Dataset) -> bool:
    """Whether a run's folder is of these images, classes and splits."""
    with suppress(RunError, KeyError):
        return bool(Run(folder).manifest["data"]["fingerprint"] == dataset.fingerprint)
    return False


def reopen(
    run: Run,
    *,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> tuple[Ingredients, Fabric]:
    """The data and regions that a finished run was made of, and the device; arguments as in :func:`fit`.

    Raises:
        RunError: the dataset is no longer the one of the training.
        UnseenError: images or weights are gone.
    """
    cache, fabric = cache_folder(cache), make_fabric(device, run.config.precision)
    plan = Plan.of(run.config, cache, progress)
    if plan.dataset.fingerprint != run.manifest["data"]["fingerprint"]:
        raise RunError("the dataset has changed since the training", where=run.folder, hint="train again")
    return plan.ingredients(
        plan.extract(cache, str(fabric.device), workers, progress, folder=run.folder), run.folder
    ), fabric


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
    """Test the saved model of every seed again, from its weights.

    Args:
        run: a finished run.
        protocol: whose models, of a run of both; default honest where there is one.
        gamma: calibration offset; default each seed's own.
        device, cache, workers, progress: as in :func:`fit`.

    Returns:
        protocol, seeds (T1, U, S, H, AUSUC, gamma of each) and per_class (averaged over seeds). Under ``paper`` all
        are of the model with the best H.
    """
    if gamma is not None and not math.isfinite(gamma):
        raise UnseenError(f"gamma is {gamma}", where="--gamma", hint="a finite number, such as 0.5")
    results, chosen = run.results, protocol or run.protocol
    if chosen not in results["protocols"]:
        raise RunError(f'no "{chosen}" protocol', where=run.folder, hint=f"it has {' and '.join(results['protocols'])}")
    ingredients, fabric = reopen(run, device=device, cache=cache, workers=workers, progress=progress)
    final = Stagehand(ingredients, "final", fabric)
    seeds, values = {}, []
    for seed, found in results["protocols"][chosen]["seeds"].items():
        method = new_method(ingredients, int(seed), fabric)
        load_weights(run.folder / f"seed-{seed}" / f"{chosen}.safetensors", method)
        decisions = final.decide(method)
        offset = found["gamma"] if gamma is None else gamma
        seeds[seed] = evaluate(decisions, final.seen, offset).as_dict()
        values.append(Result(decisions, decisions, offset, {}, None))
    return {"protocol": chosen, "seeds": seeds, "per_class": _per_class(ingredients.dataset.table, values)}


def _summary(plan: Plan, results: dict[int, dict[str, Result]]) -> dict[str, Any]:
    """Every number of a run in JSON form, by protocol."""
    table = plan.dataset.table
    summary: dict[str, Any] = {}
    for protocol in plan.config.protocols:
        per_seed = {seed: found[protocol] for seed, found in results.items()}
        values = list(per_seed.values())
        summary[protocol] = {
            **_measured(plan.config, per_seed, table.seen),
            "per_class": _per_class(table, values),
            "confusions": _confusions(table, values),
        }
    return summary


def _measured(config: RunConfig, per_seed: dict[int, Result], seen: np.ndarray) -> dict[str, Any]:
    """Metrics with their intervals, and each seed's numbers."""
    values = list(per_seed.values())
    gammas = [r.gamma for r in values]
    gzsl = bootstrap([r.gzsl for r in values], seen, gammas)
    t1 = bootstrap([r.t1 for r in values], seen, gammas)["T1"]
    scores = {seed: evaluate(r.gzsl, seen, r.gamma) for seed, r in per_seed.items()}
    areas = np.array([s.ausuc for s in scores.values()])
    spread = float(areas.std(ddof=1)) if len(areas) > 1 else 0.0
    area = Interval(float(areas.mean()), spread, float("nan"), float("nan"), list(areas))
    seeds = {}
    for seed, result in per_seed.items():
        numbers = scores[seed].as_dict()
        numbers["T1"] = evaluate(result.t1, seen).as_dict()["T1"]
        seeds[str(seed)] = {**numbers, "chosen": result.chosen, "temperature": result.temperature}
        if result.calibration is not None:
            seeds[str(seed)]["calibration"] = result.calibration
    found = {"T1": t1, "U": gzsl["U"], "S": gzsl["S"], "H": gzsl["H"], "AUSUC": area}
    return {
        "metrics": {name: interval.as_dict() for name, interval in found.items()},
        "seeds": seeds,
        "deterministic": find_method(config.method).closed_form,
    }


def _validation_summary(plan: Plan, folder: Path, choices: dict[int, Choice], seen: np.ndarray) -> dict[str, Any]:
    """As one protocol's summary, on the validation images, at each seed's choice; its decisions are kept."""
    per_seed = {}
    for seed, choice in choices.items():
        save_decisions(decisions_path(folder, seed, "validation", "H"), choice.decisions)
        save_decisions(decisions_path(folder, seed, "validation", "T1"), choice.decisions)
        chosen = {**choice.pick, "by": plan.config.select}
        per_seed[seed] = Result(choice.decisions, choice.decisions, choice.gamma, chosen, choice.temperature)
    return _measured(plan.config, per_seed, seen)


def peak_memory_mb() -> int:
    """Most memory that this process has held, in MiB."""
    try:  # unlike ru_maxrss, it does not begin with what the parent process held
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)
    except (OSError, StopIteration, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1024**2 if sys.platform == "darwin" else 1024))


def _per_class(table: ClassTable, values: list[Result]) -> list[dict[str, Any]]:
    """Accuracy of every class among all classes, and of unseen ones among the unseen, averaged over seeds."""
    every = np.arange(len(table))
    gzsl = [per_class_accuracy(r.gzsl.predict(r.gamma) == r.gzsl.labels, r.gzsl.labels, every) for r in values]
    czsl = [per_class_accuracy(r.t1.czsl(), r.t1.labels[r.t1.is_unseen], every) for r in values]
    counts = np.bincount(values[0].gzsl.labels, minlength=len(table))

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return [
        {
            "class": table.names[c],
            "seen": bool(table.seen[c]),
            "images": int(counts[c]),
            "among_all": number(float(np.mean([g[c] for g in gzsl]))),
            "among_unseen": number(float(np.mean([z[c] for z in czsl]))),
        }
        for c in every
    ]


def _confusions(table: ClassTable, values: list[Result], most: int = 20) -> list[dict[str, Any]]:
    """Unseen classes and what they are most often taken for among all classes, over all seeds."""
    labels = np.concatenate([r.gzsl.labels for r in values])
    named = np.concatenate([r.gzsl.predict(r.gamma) for r in values])
    totals = np.bincount(labels, minlength=len(table))
    pairs, counts = np.unique(np.stack([labels, named], axis=1), axis=0, return_counts=True)
    wrong = (pairs[:, 0] != pairs[:, 1]) & ~table.seen[pairs[:, 0]]
    pairs, share = pairs[wrong], counts[wrong] / totals[pairs[wrong, 0]]
    return [
        {"class": table.names[pairs[i, 0]], "taken_for": table.names[pairs[i, 1]], "share": float(share[i])}
        for i in np.argsort(-share, kind="stable")[:most]
    ]


def _manifest(plan: Plan, store: RegionStore | ImageStore, parts: Ingredients, device: torch.device) -> dict[str, Any]:
    """What the numbers depend on and were made with."""
    import lightning_fabric
    import timm

    final, validation = parts.partition("final"), parts.partition("validation")
    spec = plan.config.backbone
    grid, channels = store.grid(), store.channels()
    return {
        "unseen": __version__,
        "git": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "lightning_fabric": lightning_fabric.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "device": str(device) if device.type != "cuda" else torch.cuda.get_device_name(device),
        },
        "data": plan.dataset.describe() | {"images": str(plan.dataset.images.resolve())},
        "warnings": list(plan.dataset.warnings),
        "splits": {
            "final": final.fingerprint(plan.dataset),
            "validation": validation.fingerprint(plan.dataset),
            "validation_source": validation.source,
            "validation_classes": [plan.dataset.table.names[c] for c in validation.classes[~validation.seen]],
        },
        "backbone": {
            "name": spec.name,
            "weights": str(store.backbone["made_with"])
            if isinstance(store, RegionStore) and spec.imported
            else Path(spec.weights).name,
            "image_size": plan.config.backbone.resolved().image_size,
            "regions": f"{grid[0]}x{grid[1]}",
            "stages": list(spec.stages),
            "channels": list(channels) if isinstance(channels, tuple) else channels,
            "reduce": plan.config.reduce,
            "frozen": not find_method(plan.config.method).end_to_end,
            "fingerprint": spec.fingerprint()[:16],
            "store": store.fingerprint[:16],
        },
        "semantics": {
            "attributes": len(plan.dataset.table.attributes),
            "vectors": plan.vectors_label,
            "vector_length": plan.vectors.shape[1],
        },
        "method": {
            "name": find_method(plan.config.method).name,
            "preset": plan.preset,
            "preset_source": find_method(plan.config.method).presets[plan.preset].source,
            "settings": plain(plan.settings),
            "recipe": None if plan.recipe is None else plain(plan.recipe),
        },
    }


def _git_commit() -> str | None:
    """Commit of the checkout that this package runs from; ``None`` outside one."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # not the repository of somebody's virtual environment
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
