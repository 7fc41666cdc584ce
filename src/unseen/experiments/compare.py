"""Several methods on one dataset: one run folder each, resumable, and one table for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unseen.backbones.own import check_shareable_backbone
from unseen.backbones.spec import BackboneSpec
from unseen.data.catalogue import load_dataset
from unseen.data.dataset import Dataset
from unseen.errors import RunError, UnseenError
from unseen.evaluation.bootstrap import Interval, Resampled, difference, resample, same_in_all
from unseen.evaluation.registry import HEADLINES, REGISTRY, chosen_metrics
from unseen.experiments.variants import Variant, check_names
from unseen.experiments.worker import Task, WorkerError, read_usage, run_worker
from unseen.ground.cache import cache_folder
from unseen.ground.outside import check_shareable
from unseen.methods import find_method
from unseen.report.comparison import points, signed_cell, write_comparison
from unseen.training.config import RunConfig, plain
from unseen.training.decisions import decisions_path, load_decisions
from unseen.training.folder import Run
from unseen.training.holdouts import Drawn, counts, estimated, needs_holdouts, paired, saved_holdouts
from unseen.training.manifest import vectors_digest
from unseen.training.plan import check_held_out, resolve_settings
from unseen.training.run import earlier_config
from unseen.vectors.sources import attribute_vectors
from unseen.version import __version__

HOLDOUTS = "hold-outs"
"""View of a comparison without test images of unseen classes: the class hold-outs that all rows have."""
COMPARED = tuple(dict.fromkeys(part for name in HEADLINES for part in (*REGISTRY[name].of, name)))
"""Metrics whose differences are reported, and those that they are made of."""


@dataclass(frozen=True)
class Comparison:
    """A comparison to make.

    Args:
        variants: rows.
        base: entries of :class:`RunConfig` that all rows share: dataset, backbone, protocols, seeds, ...
        recipe: recipe entries that all rows with a recipe share.
        validation_only: measure on validation images only and never use a test image.
        reference: row to compare the others with; ``None`` for the best one.
        title: title of the pages.
        metrics: columns of the tables; ``None`` for those of every table. Files hold all.
        cache, device, workers, engine: see :func:`unseen.training.run.fit`.
        loaded: dataset of ``base``, if it has been read already.
    """

    variants: Sequence[Variant]
    base: Mapping[str, Any]
    recipe: Mapping[str, str] = field(default_factory=dict)
    validation_only: bool = False
    reference: str | None = None
    title: str | None = None
    metrics: Sequence[str] | None = None
    cache: Path | str | None = None
    device: str = "auto"
    workers: int = 0
    engine: str | None = None
    loaded: Dataset | None = field(default=None, repr=False)

    @property
    def views(self) -> tuple[str, ...]:
        """What each run must contain: protocols, or ``validation``."""
        return ("validation",) if self.validation_only else tuple(self.base["protocols"])

    def shown(self, dataset: Dataset) -> tuple[str, ...]:
        """What each row is measured by: :attr:`views`, or class hold-outs if no unseen class has test images."""
        counts = [variant.config(self.base, self.recipe).holdout_count for variant in self.variants]
        held = not self.validation_only and needs_holdouts(dataset) and all(counts)
        return (HOLDOUTS,) if held else self.views

    def task(self, what: str, config: RunConfig, folder: Path) -> Task:
        """The request for a worker."""
        return Task(what, config, folder, cache_folder(self.cache), self.device, self.workers, self.engine)


def compare(
    asked: Comparison,
    folder: Path | str,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Do the missing rows and write ``compare.json``, ``.csv``, ``.md``, ``.tex`` and ``.html`` into the folder.

    Every row has a run folder in it, named after the row, and its own process; a failure is reported in its row.
    Finished runs are not repeated. After an interruption the tables hold what is done.

    Args:
        asked: comparison to make.
        folder: folder for runs and tables.
        say: called with a line about each row.

    Returns:
        Content of ``compare.json``, see :func:`gather`.

    Raises:
        UnseenError: the request is invalid, or another process is working on it; nothing has been done then.
        KeyboardInterrupt: stopped on request, after writing the tables.
    """
    folder = Path(folder)
    check_names(asked.variants)
    configs = {v.name: v.config(asked.base, asked.recipe) for v in asked.variants}
    dataset = asked.loaded or load_dataset(asked.base["dataset"], cache=asked.cache)
    for protocol in ("honest",) if asked.validation_only else asked.views:
        for config in configs.values():
            check_held_out(dataset, protocol, config)
    check_shareable_backbone(asked.base["backbone"].name)
    for variant in asked.variants:
        try:
            check_shareable(configs[variant.name].method, "method")
            resolve_settings(configs[variant.name], dataset.name)
            earlier_config(folder / variant.folder, configs[variant.name])
        except UnseenError as error:
            raise UnseenError(error.problem, where=error.where or variant.name, hint=error.hint) from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise RunError(
            "another process is working on this comparison", where=folder, hint="wait until it ends"
        ) from None
    with held:
        return _compare(asked, folder, configs, dataset, say)


def _compare(
    asked: Comparison, folder: Path, configs: Mapping[str, RunConfig], dataset: Dataset, say: Callable[[str], None]
) -> dict[str, Any]:
    digests: dict[str, str] = {}
    for vectors in {config.vectors for config in configs.values()}:
        found_vectors, _ = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors, vectors)
        digests[vectors] = vectors_digest(found_vectors)
    left = [v for v in asked.variants if not _is_done(asked, folder / v.folder, configs[v.name], dataset, digests)]
    errors = {v.name: "unfinished; repeat the command to resume" for v in left}
    if kept := [v.name for v in asked.variants if v not in left]:
        say(f"finished, not trained again: {', '.join(kept)}")
    try:
        stored = [v.name for v in left if not find_method(v.method).end_to_end]
        if stored:  # so that no row's time includes what the rows share
            run_worker(asked.task("extract", configs[stored[0]], folder))
        for number, variant in enumerate(left, start=1):
            say(f"{variant.name} ({number} of {len(left)})")
            try:
                what = "validate" if asked.validation_only else "fit"
                run_worker(asked.task(what, configs[variant.name], folder / variant.folder))
                del errors[variant.name]
            except WorkerError as error:
                errors[variant.name] = str(error)
                say(f"{variant.name} failed: {error}")
    except KeyboardInterrupt:
        write_comparison(gather(asked, folder, dataset, errors), folder, name(asked))
        raise
    found = gather(asked, folder, dataset, errors)
    write_comparison(found, folder, name(asked))
    return found


def name(asked: Comparison) -> str:
    """File name of the tables, without suffix."""
    return "compare-validation" if asked.validation_only else "compare"


def _block(asked: Comparison, run: Run, view: str) -> dict[str, Any]:
    """Measured numbers of a run for a view; raises :class:`RunError` if it is unfinished."""
    if asked.validation_only:
        return run.validation
    found: dict[str, dict[str, Any]] = run.results["protocols"]
    if view not in found:
        raise RunError("the run is unfinished", where=run.folder, hint="repeat its command")
    return found[view]


def _is_done(asked: Comparison, folder: Path, config: RunConfig, dataset: Dataset, vectors: Mapping[str, str]) -> bool:
    """Whether a run has all requested numbers, for the current data, attribute vectors, backbone and settings.

    ``vectors`` are the digests of the vectors by how they are made.
    """
    seeds = config.seeds[:1] if find_method(config.method).closed_form else config.seeds
    try:
        run = Run(folder)
        manifest = run.manifest
        _, settings, recipe = resolve_settings(config, dataset.name)
        now = (dataset.fingerprint, plain(settings), None if recipe is None else plain(recipe))
        method = manifest["method"]
        if now != (manifest["data"]["fingerprint"], method["settings"], method["recipe"]):
            return False
        if manifest["semantics"].get("digest") != vectors[config.vectors]:
            return False
        if manifest["backbone"]["fingerprint"] != config.backbone.fingerprint()[:16]:
            return False
        return all(
            str(seed) in _block(asked, run, view)["seeds"]
            and all(decisions_path(folder, seed, view, metric).is_file() for metric in HEADLINES)
            for view in asked.views
            for seed in seeds
        )
    except RunError:
        return False


def gather(asked: Comparison, folder: Path, dataset: Dataset, errors: Mapping[str, str]) -> dict[str, Any]:
    """All rows from their run folders, with their differences.

    Returns:
        JSON-able: ``views`` (protocols, or validation), ``rows`` (each with a block of ``metrics`` per view and
        ``against``, the difference to the reference row, or an ``error``), ``statements`` in plain words, and what the
        numbers depend on.
    """
    rows: list[dict[str, Any]] = []
    views, warnings = asked.shown(dataset), list(dataset.warnings)
    drawn: dict[tuple[str, str], dict[str, Resampled]] = {}
    held: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    for variant in asked.variants:
        row: dict[str, Any] = {"name": variant.name, "method": variant.method, "says": variant.says}
        rows.append(row | {"folder": variant.folder, "error": errors.get(variant.name)})
        if variant.name in errors:
            continue
        run = Run(folder / variant.folder)
        if manifest is None or not manifest["backbone"]["frozen"]:  # a frozen backbone determines the regions
            manifest = run.manifest
        usage, blocks = read_usage(run.folder), {view: _block(asked, run, view) for view in asked.views}
        if not usage["seconds"] and not asked.validation_only:  # made by `unseen train`
            usage = {key: run.results[key] for key in usage}
        if views == asked.views:
            for view, block in blocks.items():
                drawn[variant.name, view] = _resampled(run.folder, view, block)
        else:
            blocks = {HOLDOUTS: blocks["honest"]}
            held[variant.name] = blocks[HOLDOUTS]
        about = run.manifest["method"]
        first = next(iter(blocks.values()))
        rows[-1] |= {
            **{key: about[key] for key in ("preset", "settings", "recipe")},
            "changes": dict(variant.changes),
            "end_to_end": find_method(variant.method).end_to_end,
            "seeds": [int(seed) for seed in first["seeds"]],
            "deterministic": first["deterministic"],
            **{view: {k: v for k, v in b.items() if k in ("metrics", "ranks", "seeds")} for view, b in blocks.items()},
            **usage,
        }
        if "honest" in blocks and "paper" in blocks:
            rows[-1]["paper_minus_honest"] = {
                metric: _plain(difference(drawn[variant.name, "paper"][metric], drawn[variant.name, "honest"][metric]))
                for metric in COMPARED
            }
    done = [row for row in rows if row["error"] is None]
    draws = _holdouts(done, held, folder, dataset)
    references = {
        (view, metric): _reference(asked, done, view, metric) for view in views for metric in HEADLINES if done
    }

    def against(row: str, other: str, view: str, metric: str) -> dict[str, Any] | None:
        if row == other:
            return None
        if view == HOLDOUTS:
            gap = paired(draws[row], draws[other], COMPARED)[metric]
        else:
            gap = _paired(drawn[row, view][metric], drawn[other, view][metric])
        return {"reference": other, **gap}

    for row in done:
        for view in views:
            row[view]["against"] = {
                metric: against(row["name"], references[view, metric], view, metric) for metric in HEADLINES
            }
    if "honest" in views and not dataset.describe()["test_unseen"]:
        warnings.append(
            "no unseen class has test images, and no class hold-outs stand in for them: T1, U and H are unknown"
        )
    return {
        "title": asked.title or f"Comparison on {dataset.name}",
        "unseen": __version__,
        "views": list(views),
        "metrics": list(chosen_metrics() if asked.metrics is None else asked.metrics),
        "data": dataset.describe(),
        "warnings": warnings,
        "backbone": _backbone(asked.base["backbone"], manifest),
        "splits": None if manifest is None else manifest["splits"],
        "machine": None if manifest is None else manifest["machine"],
        "select": asked.base.get("select", "H"),
        "split_seed": asked.base.get("split_seed", 0),
        "folds": asked.base.get("folds", "random"),
        "rows": rows,
        "reference": asked.reference,
        "statements": _statements(done, views, references),
    }


def _backbone(spec: BackboneSpec, manifest: dict[str, Any] | None) -> dict[str, Any]:
    if manifest is None:
        named = {"name": spec.name, "weights": Path(spec.weights).name}
        return named | {key: getattr(spec, key) for key in ("image_size", "zoom", "mirror")}
    found: dict[str, Any] = manifest["backbone"]
    return found


def _resampled(folder: Path, view: str, block: dict[str, Any]) -> dict[str, Resampled]:
    """Metrics of a run on the bootstrap's draws of the images."""
    gammas = [entry["gamma"] for entry in block["seeds"].values()]
    t1, gzsl = (
        [load_decisions(decisions_path(folder, seed, view, metric)) for seed in block["seeds"]] for metric in HEADLINES
    )
    return resample(gzsl, gammas, alone=t1, names=COMPARED)


def _reference(asked: Comparison, done: list[dict[str, Any]], view: str, metric: str) -> str:
    """Name of the row that the others are compared with."""
    names = [row["name"] for row in done]
    if asked.reference in names:
        assert asked.reference is not None
        return asked.reference
    return str(max(done, key=lambda row: row[view]["metrics"][metric]["mean"] or 0.0)["name"])


def _holdouts(
    done: list[dict[str, Any]], held: Mapping[str, dict[str, Any]], folder: Path, dataset: Dataset
) -> dict[str, list[Drawn]]:
    """Enter metrics and ranks over the class hold-outs that all rows have; returns these hold-outs, by row.

    Args:
        done: finished rows.
        held: numbers of each row's run under ``honest``; empty if hold-outs are not shown.
        folder: folder of the comparison.
        dataset: dataset of all rows.
    """
    count = min((len(block["holdout"]["draws"]) for block in held.values()), default=0)
    new, found = counts(dataset.table), {}
    for row in done if held else ():
        draws = found[row["name"]] = saved_holdouts(folder / row["folder"], held[row["name"]], dataset, count)
        ranks = () if dataset.table.taxonomy is None else dataset.table.taxonomy.ranks
        levels = {name: estimated(draws, new, rank) for rank, name in enumerate(ranks)}
        row[HOLDOUTS] |= {"metrics": estimated(draws, new), "draws": count} | ({"ranks": levels} if levels else {})
    return found


def _paired(first: Resampled, second: Resampled) -> dict[str, Any]:
    """First minus second.

    ``low`` and ``high`` are over images and seeds, ``low_images`` and ``high_images`` over images only,
    ``low_classes`` and ``high_classes`` over images, seeds and classes. ``equal`` says whether the two are equal on
    every resample of the images.
    """
    images = _plain(difference(first, second))
    classes = _plain(difference(first, second, over_seeds=True, over_classes=True))
    return {
        **_plain(difference(first, second, over_seeds=True)),
        "low_images": images["low"],
        "high_images": images["high"],
        "low_classes": classes["low"],
        "high_classes": classes["high"],
        "equal": bool(images["mean"] == 0 and same_in_all(first.means() - second.means())),
    }


def _plain(interval: Interval) -> dict[str, Any]:
    """Mean and interval as JSON types."""
    return {key: value for key, value in interval.as_dict().items() if key in ("mean", "low", "high")}


def _statements(done: list[dict[str, Any]], views: Sequence[str], references: dict[tuple[str, str], str]) -> list[str]:
    """What differs by more than the interval, and what does not, in plain words."""
    found = []
    for view in views:
        for metric in HEADLINES:
            if len(done) < 2 or done[0][view]["metrics"][metric]["mean"] is None:
                continue
            name = references[view, metric]
            own = next(row for row in done if row["name"] == name)[view]["metrics"][metric]["mean"]
            groups: dict[str, list[str]] = {"lower": [], "higher": [], "level": [], "equal": []}
            open_: list[str] = []
            for row in done:
                gap = row[view]["against"][metric]
                if gap is not None:
                    kind = "lower" if gap["high"] < 0 else "higher" if gap["low"] > 0 else "level"
                    kind = "equal" if gap["equal"] and kind == "level" else kind
                    span = signed_cell(gap).replace("\n", " ")
                    groups[kind].append(f"{row['name']} ({span})")
                    if kind in ("lower", "higher") and gap.get("low_classes", 1.0) <= 0 <= gap.get("high_classes", 0.0):
                        open_.append(f"{row['name']} [{points(gap['low_classes'])}, {points(gap['high_classes'])}]")
            parts = [f"{metric}, {view}: {name} has {100 * own:.1f}."]
            words = {
                "higher": "Significantly higher",
                "level": "No significant difference",
                "equal": "Equal on every resample of the images",
                "lower": "Significantly lower",
            }
            parts += [f"{words[kind]}: {', '.join(groups[kind])}." for kind in words if groups[kind]]
            parts += [f"Not significant over classes: {', '.join(open_)}."] if open_ else []
            found.append(" ".join(parts))
    return found
