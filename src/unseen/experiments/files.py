"""Experiment files: settings of a method on a dataset, each with its source, what was reported, what a run measured.

``datasets/NAME.yaml`` holds what all methods share on a dataset; ``files/METHOD/NAME.yaml`` the experiment.
``measured`` is the last entry of an experiment file and written by ``unseen reproduce --record`` alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unseen.backbones.backbone import BackboneSpec
from unseen.errors import UnseenError
from unseen.ground.files import write_text
from unseen.training.config import PROTOCOLS, RunConfig
from unseen.training.run import resolve_settings

HOME = Path(str(files("unseen.experiments")))
DATASETS = ("cub", "sun", "awa2", "flo", "fieldguide", "cub50", "flo64")
KINDS = ("published", "subset", "drawn")
NUMBERS = ("T1", "U", "S", "H")
COUNTS = ("classes_seen", "classes_unseen", "attributes", "trainval", "test_seen", "test_unseen")


_NO_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What the reader raises: also for `!!int x`, dates that are none, and lists in lists in lists."""


class ExperimentError(UnseenError):
    """An experiment file that does not hold together."""


@dataclass(frozen=True)
class Backbone:
    """The network of an experiment.

    Args:
        spec: entries of :class:`unseen.backbones.backbone.BackboneSpec`.
        get: where its weights come from; ``--backbone-weights`` where they are the user's own file.
        own_weights: whether they are.
    """

    spec: Mapping[str, Any]
    get: str
    own_weights: bool = False


@dataclass(frozen=True)
class DatasetFacts:
    """What all experiments on a dataset share.

    Args:
        name: as tables call it.
        title: in full.
        kind: ``published`` (the field's benchmark), ``subset`` of one, or ``drawn``.
        get: where it comes from, and what ``--data`` is to be.
        counts: classes, attributes and images that it must have.
        semantics: the class descriptions and attribute vectors.
        backbone: the default network.
        note: what a reader of figures must know.
    """

    name: str
    title: str
    kind: str
    get: str
    counts: Mapping[str, int]
    semantics: str
    backbone: Backbone
    note: str = ""

    @property
    def comparable(self) -> bool:
        """Whether figures on it may stand beside published ones."""
        return self.kind == "published"


@dataclass(frozen=True)
class Setting:
    """A value and its source."""

    value: Any
    source: str

    @property
    def text(self) -> str:
        """As the command line takes it."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return ",".join(str(v) for v in self.value) if isinstance(self.value, list) else str(self.value)


@dataclass(frozen=True)
class Reported:
    """Published numbers in percent, ``None`` where not known to us.

    Args:
        numbers: of T1, U, S and H.
        protocol: how they were chosen.
        features: of what network and image size.
        source: paper and table.
        note: what a reader must know.
    """

    numbers: Mapping[str, float | None]
    protocol: str
    features: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """A method on a dataset.

    Args:
        path: its file.
        method: name in the registry.
        facts: of the dataset.
        dataset: the dataset's short name.
        preset: that the settings start from.
        settings, recipe: every value with its source.
        backbone: the network, where it is not the dataset's default.
        protocols, seeds: of the run.
        reported: published numbers.
        notes: what a reader must know.
        measured: what runs measured, newest last.
    """

    path: Path
    method: str
    facts: DatasetFacts
    dataset: str
    preset: str | None
    settings: Mapping[str, Setting]
    recipe: Mapping[str, Setting]
    backbone: Backbone
    protocols: tuple[str, ...]
    seeds: tuple[int, ...]
    reported: tuple[Reported, ...]
    notes: tuple[str, ...] = ()
    measured: tuple[dict[str, Any], ...] = field(default=())

    @property
    def name(self) -> str:
        """``METHOD/DATASET``."""
        return f"{self.method}/{self.dataset}"

    def spec(self, weights: str | None = None) -> BackboneSpec:
        """The network, with the user's weights file where one is needed.

        Raises:
            UnseenError: a file is needed and not given.
        """
        entries = dict(self.backbone.spec)
        if weights is not None:
            entries["weights"] = weights
        elif self.backbone.own_weights:
            raise UnseenError("needs a weights file", where=self.name, hint=f"--backbone-weights: {self.backbone.get}")
        if entries["name"] == "fieldguide":
            from unseen.training.run import default_backbone

            return default_backbone("fieldguide")
        return BackboneSpec.from_json(entries)

    def config(self, dataset: str, backbone: BackboneSpec, **options: Any) -> RunConfig:
        """The run that does it.

        Args:
            dataset: name or folder.
            backbone: see :meth:`spec`.
            options: other entries of :class:`RunConfig`, in place of the experiment's.
        """
        entries = {"protocols": self.protocols, "seeds": self.seeds, **options}
        return RunConfig(
            method=self.method,
            dataset=dataset,
            backbone=backbone,
            preset=self.preset,
            settings={name: setting.text for name, setting in self.settings.items()},
            recipe={name: setting.text for name, setting in self.recipe.items()},
            **entries,
        )

    def check(self) -> None:
        """Resolve the settings without data; raises :class:`UnseenError` where one does not fit the method."""
        backbone = BackboneSpec(name="resnet18", weights="random")
        try:
            resolve_settings(self.config("fieldguide", backbone), self.facts.name)
        except UnseenError as error:
            raise ExperimentError(str(error), where=self.path, hint="fix the file") from None


def experiment_names() -> list[str]:
    """``METHOD/DATASET`` of every file that comes with the package."""
    return sorted(f"{p.parent.name}/{p.stem}" for p in (HOME / "files").glob("*/*.yaml"))


def load_experiment(name: str) -> Experiment:
    """An experiment by name (``msdn/cub``) or by the path of its file.

    Raises:
        ExperimentError: no such experiment, or a file that does not hold together; one line with file and entry.
    """
    if name in (known := experiment_names()):
        path = HOME / "files" / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f'did you mean "{near[0]}"?' if near else "see `unseen list experiments`"
        if mine := [n for n in known if n.startswith(f"{name.lower()}/")]:
            hint = f"one of {', '.join(mine)}"
        raise ExperimentError(f'no experiment "{name}"', hint=hint)
    data = _Entries(path)
    dataset = data.text("dataset")
    if dataset not in DATASETS:
        raise ExperimentError(f'no dataset "{dataset}"', where=path, hint=f"one of {', '.join(DATASETS)}")
    facts = load_facts(dataset)
    sources = data.mapping("sources")
    found = Experiment(
        path=path,
        method=data.text("method"),
        facts=facts,
        dataset=dataset,
        preset=data.text("preset", None) or None,
        settings=data.settings("settings", sources),
        recipe=data.settings("recipe", sources),
        backbone=data.backbone() or facts.backbone,
        protocols=tuple(data.items("protocols", str)),
        seeds=tuple(data.items("seeds", int)),
        reported=tuple(data.reported()),
        notes=tuple(data.items("notes", str)),
        measured=tuple(data.items("measured", dict)),
    )
    data.close()
    unknown = set(found.protocols) - set(PROTOCOLS)
    if unknown or not found.protocols or not found.seeds:
        raise ExperimentError("protocols and seeds must be named", where=path, hint=f"protocols: {list(PROTOCOLS)}")
    if found.reported and not facts.comparable:
        raise ExperimentError(f"nothing is published on {facts.name}", where=path, hint="reported: []")
    return found


def load_facts(dataset: str) -> DatasetFacts:
    """What experiments on a dataset share, by its short name."""
    data = _Entries(HOME / "datasets" / f"{dataset}.yaml")
    backbone = data.backbone()
    counts = data.mapping("counts")
    if backbone is None or set(counts) != set(COUNTS):
        raise ExperimentError("no backbone or not all counts", where=data.path, hint=f"counts: {', '.join(COUNTS)}")
    found = DatasetFacts(
        name=data.text("name"),
        title=data.text("title"),
        kind=data.text("kind"),
        get=data.text("get"),
        counts=counts,
        semantics=data.text("semantics"),
        backbone=backbone,
        note=data.text("note", ""),
    )
    data.close()
    if found.kind not in KINDS:
        raise ExperimentError(f'kind "{found.kind}"', where=data.path, hint=f"one of {', '.join(KINDS)}")
    return found


def record(experiment: Experiment, measured: dict[str, Any]) -> None:
    """Add a run's numbers to the experiment's file; all before ``measured:`` stays as it is.

    Raises:
        UnseenError: the file cannot be written.
    """
    text = experiment.path.read_text(encoding="utf-8")
    head, _, _ = text.partition("\nmeasured:")

    def lasting(block: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in block.items() if k not in ("date", "seconds", "peak_memory_mb")}

    blocks = [b for b in experiment.measured if lasting(b) != lasting(measured)] + [measured]
    tail = yaml.safe_dump({"measured": blocks}, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    write_text(experiment.path, f"{head}\n{tail}")


class _Entries:
    """A YAML mapping whose entries are taken one by one; what is left in the end is a mistake."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ExperimentError(error.strerror or str(error), where=path, hint="fix the path") from None
        except _NO_YAML as error:
            raise ExperimentError(f"no YAML ({error})", where=path, hint="fix the file") from None
        if not isinstance(found, dict):
            raise ExperimentError("no mapping", where=path, hint="fix the file")
        self.left: dict[str, Any] = found

    def _wrong(self, key: str, what: str) -> ExperimentError:
        return ExperimentError(f"is not {what}", where=f"{self.path}, {key}", hint="fix the file")

    def text(self, key: str, default: str | None = "required") -> str:
        value = self.left.pop(key, None)
        if value is None and default != "required":
            return default or ""
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a text")
        return value.strip()

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.left.pop(key, None) or {}
        if not isinstance(value, dict):
            raise self._wrong(key, "a mapping")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        value = self.left.pop(key, None) or []
        if not isinstance(value, list) or not all(type(v) is kind for v in value):
            raise self._wrong(key, f"a list of {kind.__name__}")
        return value

    def settings(self, key: str, sources: Mapping[str, Any]) -> dict[str, Setting]:
        found = {}
        for name, entry in self.mapping(key).items():
            if not isinstance(entry, dict) or set(entry) != {"value", "source"}:
                raise self._wrong(f"{key}, {name}", "{value: ..., source: ...}")
            if not isinstance(entry["source"], str) or entry["source"] not in sources:
                raise self._wrong(f"{key}, {name}, source", f"one of {', '.join(sources)}")
            found[name] = Setting(entry["value"], sources[entry["source"]])
        return found

    def backbone(self) -> Backbone | None:
        found = self.mapping("backbone")
        if not found:
            return None
        get, own = found.pop("get", ""), found.pop("own_weights", False)
        if "name" not in found or not get:
            raise self._wrong("backbone", "{name: ..., get: ...}")
        return Backbone(found, get, own)

    def reported(self) -> list[Reported]:
        blocks = []
        for block in self.items("reported", dict):
            extra = set(block) - {*NUMBERS, "protocol", "features", "source", "note"}
            numbers = {name: block.get(name) for name in NUMBERS}
            wrong = [n for n, v in numbers.items() if not (v is None or (isinstance(v, int | float) and 0 <= v <= 100))]
            if extra or wrong:
                raise self._wrong(f"reported, {next(iter([*extra, *wrong]))}", "known, or not a percentage")
            texts = {key: block.get(key, "") for key in ("protocol", "features", "source", "note")}
            if texts["protocol"] not in PROTOCOLS or not texts["source"] or not texts["features"]:
                raise self._wrong("reported", "complete: protocol, features and source")
            blocks.append(Reported(numbers, **texts))
        return blocks

    def close(self) -> None:
        if self.left:
            raise ExperimentError(f'unknown entry "{next(iter(self.left))}"', where=self.path, hint="fix the file")
