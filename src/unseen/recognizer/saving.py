"""What a recognizer is put together from: a run's folder, a saved folder, or the hub. Files of known names only.

A saved folder may come from anybody. Its JSON is checked before anything is built from it, weights are safetensors,
tables are CSV, and no file is opened but those named here.
"""

from __future__ import annotations

import inspect
import math
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from unseen.backbones.backbone import Backbone, BackboneSpec
from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.reduction import Reduction
from unseen.backbones.towers import PREFIX, TEXTS, model_files
from unseen.backbones.vision import timm
from unseen.classes.changes import check_tables, reset, table_digests, table_in_use, trained_table
from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.table import ClassTable, write_attributes
from unseen.errors import RunError, UnseenError
from unseen.ground.files import is_left_over, read_json, write_json, write_text
from unseen.methods import Method, Settings, find_method, method_reference
from unseen.model.assembled import build_method
from unseen.model.weights import load_weights, save_weights
from unseen.recognizer.card import CardFields, model_card
from unseen.training.folder import Run

if TYPE_CHECKING:
    from unseen.recognizer.recognizer import Recognizer

FORMAT = 1
FACTS = "recognizer.json"
WEIGHTS = "weights.safetensors"
BACKBONE = "backbone.safetensors"
TOWER = "backbone"
ENCODING = "encoding.json"
REFERENCES = "weights-references.npz"
CARD = "README.md"
FILES = (FACTS, WEIGHTS, "classes.csv", "attributes.csv", ENCODING, REFERENCES, TEXTS, BACKBONE, REDUCTION, CARD)
PATTERNS = (*FILES, *(f"{TOWER}/*.{kind}" for kind in ("json", "safetensors", "model", "txt")))
"""What is fetched from the hub, and what an upload replaces there."""
DTYPES = ("float32", "float16", "bfloat16")
_AGAIN = "save it again"
_LARGEST = 1_000_000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Parts:
    """What a recognizer is put together from.

    Args:
        folder: where class table and texts lie.
        spec: of the backbone.
        weights: of the method.
        references: attribute scores of the training images, if they are there.
        method, settings, vector_length: of the method.
        gamma, temperature, threshold, store_dtype, about, encoding: as in
            :class:`~unseen.recognizer.recognizer.Recognizer`.
        typical: ``(K,)`` attribute scores of the average training image, where there are no references.
        reduction: file of what the backbone's regions go through, if anything.
        tables: SHA-256 of the class tables, by file; those not named are not checked.
    """

    folder: Path
    spec: BackboneSpec
    weights: Path
    references: Path | None
    method: str
    settings: Settings
    vector_length: int
    gamma: float
    temperature: float | None
    threshold: float | None
    store_dtype: str
    about: Mapping[str, Any]
    encoding: Encoding | None
    typical: np.ndarray | None = None
    reduction: Path | None = None
    tables: Mapping[str, str] = field(default_factory=dict)

    def build(self, as_trained: bool = False) -> tuple[Backbone, Method, ClassTable]:
        """Backbone, method with its weights, and class table: as it is in use, or as it was in training."""
        check_tables(self.folder, self.tables)
        table = trained_table(self.folder) if as_trained else table_in_use(self.folder)
        shape = (len(table.attributes), self.vector_length)
        if self.typical is not None and len(self.typical) != shape[0]:
            raise RunError(f"typical is not {shape[0]} numbers", where=self.folder / FACTS, hint=_AGAIN)
        self._check_length(shape)
        # the weights of an end-to-end method hold the backbone's
        spec = replace(self.spec, weights="random") if find_method(self.method).end_to_end else self.spec
        backbone = Backbone(spec)
        if self.reduction is not None:
            backbone.reduced(Reduction.load(self.reduction))
        method = build_method(self.method, backbone, torch.ones(shape), self.settings)
        load_weights(self.weights, method)
        return backbone, method, table

    def _check_length(self, shape: tuple[int, int]) -> None:
        """Before room is made for vectors: are those of the weights as long?"""
        try:
            with safe_open(self.weights, "pt") as file:
                for name in {"vectors", "head.vectors"} & set(file.keys()):
                    if tuple(file.get_slice(name).get_shape()) != shape:
                        raise RunError(f"its vectors are not {shape[0]} of {shape[1]}", where=self.weights, hint=_AGAIN)
        except (SafetensorError, OSError):
            pass  # said better where the weights are read


def find_parts(folder: Path, seed: int | None = None) -> Parts:
    """Those of a saved folder, or of one seed of a run."""
    return read_saved(folder) if (folder / FACTS).is_file() else read_run(folder, seed)


def read_run(folder: Path, seed: int | None = None) -> Parts:
    """Those of a finished run.

    Args:
        folder: the run's.
        seed: default the first.

    Raises:
        RunError: no run, unfinished, or no such seed; or the backbone has changed since.
    """
    try:
        return _read_run(folder, seed)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"damaged records of the training ({error!r})", where=folder, hint="train again") from None


def _read_run(folder: Path, seed: int | None) -> Parts:
    run = Run(folder)
    manifest, results = run.manifest, run.results
    measured = results["protocols"][run.protocol]
    chosen = str(seed) if seed is not None else next(iter(measured["seeds"]))
    if chosen not in measured["seeds"]:
        raise RunError(f"no seed {chosen}", where=folder, hint=f"one of {', '.join(measured['seeds'])}")
    spec = run.config.backbone
    if manifest["backbone"]["frozen"] and spec.fingerprint()[:16] != manifest["backbone"]["fingerprint"]:
        raise RunError("the backbone's weights are not those of the training", where=spec.weights, hint="restore")
    found = measured["seeds"][chosen]
    calibration = found.get("calibration") or {}
    about = {k: manifest[k] for k in ("data", "backbone", "semantics", "method", "versions", "machine", "splits")}
    about |= {
        "unseen": manifest["unseen"],
        "protocol": run.protocol,
        "seed": int(chosen),
        "seeds": [int(s) for s in measured["seeds"]],
        "metrics": measured["metrics"],
        "calibration": {
            part: {k: v for k, v in calibration[part].items() if not isinstance(v, Mapping | Sequence)}
            for part in ("validation", "test")
            if calibration.get(part)
        },
    }
    weights = folder / f"seed-{chosen}" / f"{run.protocol}.safetensors"
    references = weights.with_name(f"{weights.stem}-references.npz")
    return Parts(
        folder,
        spec,
        weights,
        references if references.is_file() else None,
        run.config.method,
        _settings(run.config.method, manifest["method"]["settings"], folder / "manifest.json"),
        manifest["semantics"]["vector_length"],
        found["gamma"],
        found["temperature"],
        calibration.get("threshold"),
        run.config.store_dtype,
        about,
        _encoding(folder),
        reduction=folder / REDUCTION if run.config.reduce else None,
        tables=manifest.get("tables", {}),
    )


def read_saved(folder: Path) -> Parts:
    """Those of a saved folder, checked.

    Raises:
        RunError: not a saved folder, of a newer version, or with something in it that does not belong there.
    """
    where = folder / FACTS
    facts = _Checked(read_json(where, RunError, "give a folder that `unseen save` wrote"), where)
    if (version := facts.whole("format", 1, _LARGEST)) > FORMAT:
        raise RunError(f"format {version}, of a newer unseen", where=where, hint="pip install --upgrade unseen")
    method = facts.text("method")
    settings = _settings(method, facts.mapping("settings"), where)
    references = folder / REFERENCES
    return Parts(
        folder,
        _spec(facts.mapping("backbone"), folder),
        folder / WEIGHTS,
        references if references.is_file() else None,
        method,
        settings,
        facts.whole("vector_length", 1, _LARGEST),
        facts.number("gamma", -math.inf),
        facts.number("temperature", 1e-12) if facts.has("temperature") else None,
        facts.number("threshold", 0, 1) if facts.has("threshold") else None,
        facts.text("store_dtype", DTYPES),
        facts.mapping("about"),
        _encoding(folder),
        facts.numbers("typical") if facts.has("typical") else None,
        folder / REDUCTION if facts.has("reduce") else None,
        facts.mapping("tables") if facts.has("tables") else {},
    )


def save(
    recognizer: Recognizer, folder: Path, include_backbone: bool, include_references: bool, card: CardFields
) -> Path:
    """See :meth:`unseen.recognizer.recognizer.Recognizer.save`."""
    inside = {path.name for path in folder.iterdir() if not is_left_over(path)} if folder.is_dir() else set()
    begun = inside <= {*FILES, TOWER} and bool(inside & {WEIGHTS, BACKBONE, TOWER})  # by a save that was stopped
    if inside and FACTS not in inside and not begun:
        raise RunError("the folder is not empty and holds no saved model", where=folder, hint="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    method, table = recognizer.method, recognizer.table
    spec, stored = _save_backbone(recognizer, folder, include_backbone)
    save_weights(folder / WEIGHTS, method)
    if method.reads_text:
        recognizer._text_tower.save(folder / TEXTS)
    reset(folder)  # what is saved are the classes in use
    table.to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", table.attributes)
    references = recognizer.references if include_references else None
    if references is not None:
        references.save(folder / REFERENCES)
    if recognizer.encoding is not None:
        write_json(folder / ENCODING, recognizer.encoding.to_json(), sealed=True)
    reduction = recognizer.backbone.reduction
    if reduction is not None:
        reduction.save(folder / REDUCTION)
    for name, there in (
        (ENCODING, recognizer.encoding is not None),
        (REFERENCES, references is not None),
        (BACKBONE, stored == "file"),
        (REDUCTION, reduction is not None),
    ):
        if not there:
            (folder / name).unlink(missing_ok=True)  # of an earlier save
    facts = {
        "format": FORMAT,
        "method": method_reference(getattr(method, "head", method)),
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in vars(method.settings).items()},
        "vector_length": _vector_length(method),
        "backbone": spec.to_json(),
        "gamma": recognizer.gamma,
        "temperature": recognizer.temperature,
        "threshold": recognizer.threshold,
        "store_dtype": recognizer.store_dtype,
        "reduce": None if reduction is None else str(reduction.spec),
        "typical": recognizer.typical.tolist() if recognizer.typical.any() else None,
        "about": without_paths(recognizer.about),
        "tables": table_digests(folder),
    }
    write_text(folder / CARD, model_card(recognizer, card, backbone_stored=stored is not None))
    write_json(folder / FACTS, facts, sealed=True)
    return folder


def fetch(
    folder_or_id: Path | str,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder itself, or where the hub's files have been put.

    Raises:
        RunError: one line on what is wrong with name, network or repository.
    """
    if Path(folder_or_id).is_dir():
        return Path(folder_or_id)
    name = str(folder_or_id)
    if not _HUB_ID.fullmatch(name):
        raise RunError("no such folder", where=name, hint="give a saved folder, or OWNER/NAME of the hub")
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(PATTERNS),
            library_name="unseen",
        )
    except Exception as error:
        raise _hub_error(error, name) from None
    if not (Path(found) / FACTS).is_file():
        raise RunError(f"not a model of unseen: it has no {FACTS}", where=name, hint="give one that `unseen push` made")
    return Path(found)


def push(
    recognizer: Recognizer,
    repo_id: str,
    private: bool,
    token: str | None,
    message: str,
    include_backbone: bool,
    include_references: bool,
    card: CardFields,
) -> str:
    """See :meth:`unseen.recognizer.recognizer.Recognizer.push_to_hub`."""
    import huggingface_hub

    if not _HUB_ID.fullmatch(repo_id):
        raise RunError("not a name of a repository", where=repo_id, hint="give OWNER/NAME")
    token = token or huggingface_hub.get_token()
    if not token:
        raise RunError("not logged in to the hub", where=repo_id, hint="hf auth login, or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as temporary:
        folder = save(recognizer, Path(temporary) / "model", include_backbone, include_references, card)
        try:
            hub = huggingface_hub.HfApi(token=token)
            hub.create_repo(repo_id, private=private, exist_ok=True)
            done = hub.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=message,
                allow_patterns=list(PATTERNS),
                delete_patterns=list(PATTERNS),
            )
        except Exception as error:
            raise _hub_error(error, repo_id) from None
    return str(done.commit_url)


def without_paths(value: Any) -> Any:
    """JSON with the folders of this machine taken out of its texts: of an absolute path, the name remains."""
    if isinstance(value, Mapping):
        return {k: without_paths(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(v) for v in value]
    if isinstance(value, str) and re.match(r"(/|~|\\\\|[A-Za-z]:[\\/])", value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _hub_error(error: Exception, name: str) -> Exception:
    """A known failure of hub or network as one line; anything else as it is."""
    from huggingface_hub import errors

    known: tuple[tuple[type[Exception], str, str], ...] = (
        (errors.GatedRepoError, "its owner must let you in first", "ask on its page, then hf auth login"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one", "fix the name, or hf auth login"),
        (errors.RevisionNotFoundError, "no such revision", "give a branch, tag or commit of it"),
        (errors.OfflineModeIsEnabled, "not fetched before, and the hub is switched off", "unset HF_HUB_OFFLINE"),
        (errors.LocalEntryNotFoundError, "not fetched before, and the hub cannot be reached", "go online once"),
        (errors.HFValidationError, "not a name of a repository", "give OWNER/NAME"),
        (errors.HfHubHTTPError, "the hub refused", "see its message"),
        (OSError, "could not be done", "see its message"),
    )
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    for kind, problem, hint in known:
        if isinstance(error, kind):
            return RunError(f"{problem}: {said}" if hint == "see its message" else problem, where=name, hint=hint)
    if type(error).__module__.split(".")[0] in ("httpx", "requests"):
        return RunError(f"the hub cannot be reached: {said}", where=name, hint="try again later")
    return error


def _save_backbone(recognizer: Recognizer, folder: Path, include: bool) -> tuple[BackboneSpec, str | None]:
    """Store what another machine could not fetch, or all of it; the spec to write, and how it was stored."""
    spec = recognizer.backbone.spec
    if recognizer.method.end_to_end:  # the weights of the method hold it
        return replace(spec, weights="random"), "weights"
    if spec.tower is not None:
        if not include and not Path(spec.tower).is_dir():
            return spec, None
        (folder / TOWER).mkdir(exist_ok=True)
        for source in model_files(spec.tower):
            target = folder / TOWER / source.name
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        return replace(spec, name=PREFIX + TOWER), "folder"
    if spec.weights == "pretrained" and not spec.is_own and not include:
        return spec, None
    save_weights(folder / BACKBONE, recognizer.backbone.network)
    return replace(spec, weights=BACKBONE), "file"


def _vector_length(method: Method) -> int:
    vectors = getattr(method, "vectors", None)
    return int(vectors.shape[1]) if isinstance(vectors, torch.Tensor) else 1


def _encoding(folder: Path) -> Encoding | None:
    where = folder / ENCODING
    return Encoding.from_json(read_json(where, RunError, _AGAIN), where) if where.is_file() else None


def _settings(method: str, values: Mapping[str, Any], where: Path) -> Settings:
    """A method's settings from JSON, each of the kind that the method's own default is."""
    kind = find_method(method, from_file=where).settings_class
    default, known = kind(), {f.name for f in fields(kind)}
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise RunError(f'{method} has no setting "{name}"', where=where, hint="use the unseen that saved it")
        own = getattr(default, name)
        if not _alike(value, own):
            raise RunError(f'setting "{name}" is not like {own!r}', where=where, hint=_AGAIN)
        made[name] = tuple(value) if isinstance(own, tuple) else type(own)(value)
    try:
        return kind(**made)
    except UnseenError as error:
        raise RunError(str(error), where=where, hint=_AGAIN) from None


def _alike(value: Any, own: Any) -> bool:
    if isinstance(own, bool) or isinstance(value, bool):
        return isinstance(own, bool) and isinstance(value, bool)
    if isinstance(own, tuple):
        return isinstance(value, list) and len(value) == len(own) and all(map(_alike, value, own))
    if isinstance(own, int | float):
        if isinstance(own, int):  # a size, perhaps, for which room will be made
            return isinstance(value, int) and abs(value) <= 10_000
        return isinstance(value, int | float) and abs(value) <= _LARGEST
    return isinstance(value, str)


def _spec(values: Mapping[str, Any], folder: Path) -> BackboneSpec:
    """The backbone of a saved folder: a name that is fetched, or weights in that folder, and nothing elsewhere."""
    where = folder / FACTS
    facts = _Checked(values, where, "backbone.")
    name, weights = facts.text("name"), facts.text("weights", ("pretrained", "random", BACKBONE))
    tower = name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
    if tower not in (None, TOWER) and not _HUB_ID.fullmatch(str(tower).partition("@")[0]):
        raise RunError(f"backbone.name {name[:60]!r} is outside the folder", where=where, hint=_AGAIN)
    options = facts.mapping("options")
    reserved = set(inspect.signature(timm.create_model).parameters)
    for key, value in options.items():
        scalars = value if isinstance(value, list) and len(value) <= 16 else [value]
        fit = all(
            v is None or isinstance(v, str | bool) or (isinstance(v, int | float) and abs(v) <= 1e5) for v in scalars
        )
        if key in reserved or key.startswith("pretrained") or not fit:
            raise RunError(f"backbone.options.{key[:60]} is not let through", where=where, hint=_AGAIN)
    facts.whole("image_size", 1, 4096)
    facts.whole("seed", 0, 2**63 - 1)
    facts.number("crop", 0, 1)
    stages = facts.values.get("stages")
    if not isinstance(stages, list) or len(stages) > 16 or not all(isinstance(s, str | int) for s in stages):
        raise RunError("backbone.stages is not a list of stages", where=where, hint=_AGAIN)
    for key in ("mean", "std"):
        three = facts.values.get(key)
        if not isinstance(three, list) or not all(_alike(v, 1.0) for v in three):
            raise RunError(f"backbone.{key} is not three numbers", where=where, hint=_AGAIN)
    spec = BackboneSpec.from_json(values, where, _AGAIN)
    if tower == TOWER:
        return replace(spec, name=PREFIX + str(folder / TOWER))
    return replace(spec, weights=str(folder / BACKBONE)) if weights == BACKBONE else spec


class _Checked:
    """Values of a JSON object, each of the kind asked for, or one line."""

    def __init__(self, values: Any, where: Path, prefix: str = "") -> None:
        if not isinstance(values, Mapping):
            raise RunError("not a JSON object", where=where, hint=_AGAIN)
        self.values: Mapping[str, Any] = values
        self._where, self._prefix = where, prefix

    def _error(self, key: str, kind: str) -> RunError:
        return RunError(f"{self._prefix}{key} is not {kind}", where=self._where, hint=_AGAIN)

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def text(self, key: str, allowed: Sequence[str] = ()) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or len(value) > 1000:
            raise self._error(key, "a text")
        if allowed and value not in allowed:
            raise self._error(key, f"one of {', '.join(allowed)}")
        return value

    def number(self, key: str, least: float, most: float = math.inf) -> float:
        value = self.values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._error(key, "a number")
        if not least <= value <= most:
            raise self._error(key, f"between {least:g} and {most:g}")
        return float(value)

    def numbers(self, key: str) -> np.ndarray:
        values = self.values.get(key)
        if not isinstance(values, list) or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise self._error(key, "a list of numbers")
        return np.array(values, dtype=np.float64)

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._error(key, f"a whole number from {least} to {most}")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self._error(key, "a JSON object")
        return value
