"""Experiments: settings of a method on a dataset with their sources, reported numbers, and measured ones.

``datasets/NAME.yaml`` holds what all methods share on a dataset. ``files/METHOD/NAME.yaml`` exists if a number was
published or measured: it names the settings that have their own source; the rest comes from the preset. Every other
pair of method and dataset is an experiment too, with the preset alone. ``measured`` is the last entry of a file and
only ``unseen reproduce --record`` writes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from unseen.backbones.spec import BackboneSpec
from unseen.errors import UnseenError
from unseen.evaluation.metrics import ACCURACIES
from unseen.ground.checked import checked
from unseen.ground.files import write_text
from unseen.methods import METHODS, every_method, find_method, find_preset
from unseen.methods.settings import as_text
from unseen.training.config import RunConfig
from unseen.training.plan import resolve_settings

HOME = Path(str(files("unseen.experiments")))
DATASETS = tuple(sorted(p.stem for p in (HOME / "datasets").glob("*.yaml")))
NUMBERS = ACCURACIES
SEEDS = (0, 1, 2, 3, 4)

_NO_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Exceptions of the reader, including those for `!!int x`, invalid dates, and deeply nested lists."""

Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Protocol = Literal["honest", "paper"]


class ExperimentError(UnseenError):
    """An invalid experiment file."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, str_strip_whitespace=True)


class Backbone(_Entry):
    """The network of an experiment.

    Attributes:
        get: source of its weights; ``--backbone-weights`` if they are the user's own file.
        own_weights: whether the user provides the weights.
        name, image_size, zoom, mirror, options, mean, std, crop: entries of
            :class:`unseen.backbones.spec.BackboneSpec`.
    """

    get: Text
    own_weights: bool = False
    name: Text
    image_size: int | None = None
    zoom: int | None = None
    mirror: bool | None = None
    options: dict[str, str | int | float | bool] = {}
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    crop: float | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """Entries of the backbone that the file names, as JSON types."""
        return self.model_dump(mode="json", exclude={"get", "own_weights"}, exclude_unset=True)


class Counts(_Entry):
    """Numbers of classes, attributes and images that a dataset must have."""

    classes_seen: int
    classes_unseen: int
    attributes: int
    trainval: int
    test_seen: int
    test_unseen: int


class DatasetFacts(_Entry):
    """What all experiments on a dataset share.

    Attributes:
        name: name in tables.
        title: full name.
        kind: ``published`` (the field's benchmark), ``subset`` of one, or ``drawn``.
        get: where to get it, and what to pass to ``--data``.
        counts: required numbers of classes, attributes and images.
        semantics: class descriptions and attribute vectors.
        backbone: the default network.
        note: what readers of the figures must know.
    """

    name: Text
    title: Text
    kind: Literal["published", "subset", "drawn"]
    get: Text
    counts: Counts
    semantics: Text
    backbone: Backbone
    note: str = ""

    @property
    def comparable(self) -> bool:
        """Whether results on it can be compared with published ones."""
        return self.kind == "published"


class Setting(_Entry):
    """A value and its source."""

    value: bool | int | float | str | list[bool | int | float | str]
    source: Text


class Reported(_Entry):
    """Published numbers in percent, ``None`` if unknown to us.

    Attributes:
        T1, U, S, H: the numbers.
        protocol: how hyperparameters were chosen.
        features: network and image size.
        source: paper and table.
        note: what readers must know.
    """

    T1: Percent | None = None
    U: Percent | None = None
    S: Percent | None = None
    H: Percent | None = None
    protocol: Protocol
    features: Text
    source: Text
    note: str = ""

    @property
    def numbers(self) -> dict[str, float | None]:
        """T1, U, S and H."""
        return {name: getattr(self, name) for name in NUMBERS}


class _File(_Entry):
    """An experiment file."""

    method: Text
    dataset: Text
    preset: Text | None = None
    sources: dict[str, Text] = {}
    settings: dict[str, Setting] = {}
    recipe: dict[str, Setting] = {}
    backbone: Backbone | None = None
    protocols: Annotated[tuple[Protocol, ...], Field(min_length=1)] = ("honest", "paper")
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = SEEDS
    reported: tuple[Reported, ...] = ()
    notes: tuple[str, ...] | None = ()
    measured: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A method on a dataset.

    Args:
        path: experiment file; ``None`` for none.
        method: as in :func:`unseen.methods.find_method`.
        facts: facts of the dataset.
        dataset: short name of the dataset.
        preset: preset that the settings start from.
        settings, recipe: values with their sources.
        backbone: the network, if it is not the dataset's default.
        protocols, seeds: of the run.
        reported: published numbers.
        notes: what readers must know.
        measured: measured numbers of runs, newest last.
    """

    path: Path | None
    method: str
    facts: DatasetFacts
    dataset: str
    preset: str | None
    settings: Mapping[str, Setting]
    recipe: Mapping[str, Setting]
    backbone: Backbone
    protocols: tuple[str, ...]
    seeds: tuple[int, ...]
    reported: tuple[Reported, ...] = ()
    notes: tuple[str, ...] = ()
    measured: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """``METHOD/DATASET``."""
        return f"{self.method}/{self.dataset}"

    def spec(self, weights: str | None = None) -> BackboneSpec:
        """The network, with the user's weights file if one is needed.

        Raises:
            UnseenError: a file is needed but not given.
        """
        entries = dict(self.backbone.spec)
        if weights is not None:
            entries["weights"] = weights
        elif self.backbone.own_weights:
            raise UnseenError(
                "this experiment needs a weights file", where=self.name, hint=f"--backbone-weights: {self.backbone.get}"
            )
        if entries["name"] == "fieldguide":
            from unseen.training.plan import default_backbone

            return default_backbone("fieldguide")
        return BackboneSpec.from_json(entries)

    def config(self, dataset: str, backbone: BackboneSpec, **options: Any) -> RunConfig:
        """Configuration of a run of the experiment.

        Args:
            dataset: name or folder.
            backbone: see :meth:`spec`.
            options: other entries of :class:`RunConfig`, instead of the experiment's.
        """
        entries = {"protocols": self.protocols, "seeds": self.seeds, **options}
        return RunConfig(
            method=self.method,
            dataset=dataset,
            backbone=backbone,
            preset=self.preset,
            settings=as_text({name: setting.value for name, setting in self.settings.items()}),
            recipe=as_text({name: setting.value for name, setting in self.recipe.items()}),
            **entries,
        )

    def check(self) -> None:
        """Resolve the settings without data; raises :class:`UnseenError` if one does not fit the method."""
        backbone = BackboneSpec(name="resnet18", weights="random")
        try:
            resolve_settings(self.config("fieldguide", backbone), self.facts.name)
        except UnseenError as error:
            raise ExperimentError(str(error), where=self.path or self.name, hint="fix the file") from None


def experiment_names() -> list[str]:
    """``METHOD/DATASET`` of every method and dataset."""
    return [f"{method}/{dataset}" for method in every_method() for dataset in DATASETS]


def recorded_names() -> list[str]:
    """``METHOD/DATASET`` of every file in the package: a number was published or measured."""
    return sorted(f"{p.parent.name}/{p.stem}" for p in (HOME / "files").glob("*/*.yaml"))


def load_experiment(name: str) -> Experiment:
    """An experiment by name (``msdn/cub``) or by the path of its file.

    Raises:
        ExperimentError: no such experiment, or an invalid file; one line with file and entry.
    """
    method, _, dataset = name.rpartition("/")
    if name in recorded_names():
        return _read(HOME / "files" / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name))
    if dataset in DATASETS and method:
        return _made(_File(method=method, dataset=dataset), None)
    near = difflib.get_close_matches(name.lower(), known := experiment_names(), 1)
    hint = f'did you mean "{near[0]}"?' if near else "see `unseen list experiments`"
    if name.lower() in METHODS:
        hint = f"use one of {', '.join(n for n in known if n.startswith(f'{name.lower()}/'))}"
    raise ExperimentError(f'no experiment "{name}"', hint=hint)


def load_facts(dataset: str) -> DatasetFacts:
    """What experiments on a dataset share, by its short name."""
    path = HOME / "datasets" / f"{dataset}.yaml"
    return checked(DatasetFacts, _yaml(path), path, error=ExperimentError, hint="fix the file")


def _read(path: Path) -> Experiment:
    data = checked(_File, _yaml(path), path, error=ExperimentError, hint="fix the file")
    if data.dataset not in DATASETS:
        raise ExperimentError(f'no dataset "{data.dataset}"', where=path, hint=f"use one of {', '.join(DATASETS)}")
    for key, block in (("settings", data.settings), ("recipe", data.recipe)):
        for name, setting in block.items():
            if setting.source not in data.sources:
                where = f"{path}, {key}.{name}.source"
                raise ExperimentError(
                    "is not one of the sources", where=where, hint=f"use one of {', '.join(data.sources)}"
                )
    found = _made(data, path)
    if found.reported and not found.facts.comparable:
        raise ExperimentError(f"nothing is published on {found.facts.name}", where=path, hint="reported: []")
    return found


def _made(data: _File, path: Path | None) -> Experiment:
    """The experiment of a file, with the preset's values where the file names none."""
    facts = load_facts(data.dataset)
    try:
        name, preset = find_preset(find_method(data.method, path), facts.name, data.preset)
    except UnseenError as error:
        if path is None or str(error.where) == str(path):
            raise
        where = ", ".join(str(place) for place in (path, error.where) if place is not None)
        raise ExperimentError(error.problem, where=where, hint=error.hint) from None
    recipe = {} if preset.recipe is None else asdict(preset.recipe)

    def filled(values: Mapping[str, Any], named: Mapping[str, Setting]) -> dict[str, Setting]:
        own = {key: Setting(value=s.value, source=data.sources[s.source]) for key, s in named.items()}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {key: Setting(value=value, source=preset.source) for key, value in plain.items()} | own

    return Experiment(
        path=path,
        method=data.method,
        facts=facts,
        dataset=data.dataset,
        preset=name,
        settings=filled(asdict(preset.settings), data.settings),
        recipe=filled(recipe, data.recipe),
        backbone=data.backbone or facts.backbone,
        protocols=data.protocols,
        seeds=data.seeds,
        reported=data.reported,
        notes=data.notes or (),
        measured=data.measured,
    )


def record(experiment: Experiment, measured: dict[str, Any]) -> Path:
    """Add a run's numbers to the experiment's file; creates it if needed.

    Everything before ``measured:`` stays unchanged.

    Raises:
        UnseenError: the file cannot be written.
    """
    path = experiment.path or HOME / "files" / f"{experiment.name}.yaml"
    if experiment.path is None:
        text = f"method: {experiment.method}\ndataset: {experiment.dataset}\npreset: {experiment.preset}\n"
    else:
        text = path.read_text(encoding="utf-8")
    head, _, _ = text.rstrip("\n").partition("\nmeasured:")

    def lasting(block: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in block.items() if k not in ("date", "seconds", "peak_memory_mb")}

    blocks = [b for b in experiment.measured if lasting(b) != lasting(measured)] + [measured]
    tail = yaml.safe_dump({"measured": blocks}, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    write_text(path, f"{head}\n{tail}")
    return path


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(error.strerror or str(error), where=path, hint="fix the path") from None
    except _NO_YAML as error:
        raise ExperimentError(f"not valid YAML ({error})", where=path, hint="fix the file") from None
    if not isinstance(found, dict):
        raise ExperimentError("not a mapping", where=path, hint="fix the file")
    return found
