"""A scikit-learn classifier for any method, on features in memory.

::

    model = unseen.ZeroShotClassifier("eszsl").fit(X, y, attributes=S, classes=names)
    model.predict(X_new)  # among all N classes, including those without a row in X
    model.add_class("night heron", {"grey back": 1, "long legs": 0.2})

Features are rows ``(n, C)`` or regions ``(n, R, C)``. Fitting works like ``unseen train``: hyperparameters or epoch,
calibration offset and temperature are chosen on classes held out of the training classes, then all classes are used for
training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from unseen.backbones.naming import IMPORTED
from unseen.backbones.spec import BackboneSpec
from unseen.classes.attributes import Attributes, write_attributes
from unseen.classes.changes import table_in_use
from unseen.classes.table import ClassTable
from unseen.data.catalogue import keep_dataset
from unseen.data.dataset import Dataset, validation_count
from unseen.errors import RunError, UnseenError
from unseen.features.blank import Blanks
from unseen.features.store import write_store
from unseen.ground.checked import checked
from unseen.ground.devices import find_device
from unseen.ground.files import new_folder, read_json, write_json
from unseen.ground.words import counted
from unseen.methods import (
    ClassSpace,
    ClosedFormMethod,
    Method,
    create_method,
    find_method,
    find_preset,
    method_reference,
)
from unseen.methods.contract import try_method
from unseen.methods.settings import as_text
from unseen.model.scoring import ClassScorer
from unseen.model.weights import load_weights, save_weights
from unseen.recognizer.names import CLASSIFIER
from unseen.training.config import RunConfig
from unseen.training.folder import Run
from unseen.training.run import fit as fit_run
from unseen.training.trial import few

WEIGHTS = "weights.safetensors"
FORMAT = 1
BATCH = 1024
"""Number of rows that are scored at once."""
LEAST_HELD_OUT = 4
"""Smallest number of training classes for holding some out; with fewer, images are held out."""


@dataclass(frozen=True)
class _Facts:
    """Schema of ``classifier.json``."""

    format: int
    method: str
    settings: dict[str, str]
    channels: int
    regions: int
    vector_length: int
    gamma: float
    temperature: float
    labels: tuple[int | str, ...]
    __pydantic_config__: ClassVar = {"extra": "forbid"}


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """A zero-shot classifier of features, from class attributes.

    Args:
        method: a name of :func:`unseen.list_methods`, ``package.module:Class`` or a class; except methods that read
            texts or train their backbone, because they need images.
        attributes: ``(N, K)`` array or DataFrame indexed by class; :meth:`fit` takes it too. Without attributes, each
            class is its own attribute, as in an ordinary classifier.
        classes: N class names, if ``attributes`` has none.
        preset, settings, recipe, epochs: see :func:`unseen.fit`.
        select: validation metric that selects hyperparameters or epoch: ``H``, ``T1`` or ``AUSUC``.
        random_state: seed of the training and of the draws of validation classes; also a ``RandomState``, or ``None``
            for another one in each :meth:`fit`. The draws also depend on the order of the classes and of the rows.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Attributes:
        classes_: ``(N,)`` candidate classes of :meth:`predict`, as named in ``y``.
        seen_: bool ``(N,)``, classes with rows in ``X``.
        class_table_: names, attributes and values.
        method_: the trained method.
        chosen_: hyperparameters or epoch, ``by`` which metric, and the metrics of the ``validation`` draws, as in
            ``results.json``; not after :meth:`load` of a saved classifier.
        gamma_: calibration offset, subtracted from the scores of seen classes.
        temperature_: temperature of :meth:`predict_proba`.
        n_features_in_: C.
    """

    def __init__(
        self,
        method: Any = "eszsl",
        *,
        attributes: Any = None,
        classes: Any = None,
        preset: str | None = None,
        settings: Any = None,
        recipe: Any = None,
        epochs: int | None = None,
        select: str = "H",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
    ) -> None:
        self.method = method
        self.attributes = attributes
        self.classes = classes
        self.preset = preset
        self.settings = settings
        self.recipe = recipe
        self.epochs = epochs
        self.select = select
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        """Input tags: rows or regions; accuracy depends on what the attributes describe."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any, attributes: Any = None, classes: Any = None) -> Self:
        """Train on features.

        Args:
            X: ``(n, C)`` or ``(n, R, C)``, array or tensor.
            y: ``(n,)`` names of the rows' classes, or their positions in ``attributes``.
            attributes: overrides those of the constructor.
            classes: likewise.

        Raises:
            UnseenError: a row's class has no attributes, all rows are equal, or as in :func:`unseen.fit`.

        An :class:`~unseen.ground.images.ImageWarning` says which rows are zero, here and in predictions.
        """
        kind = find_method(self.method)
        if kind.reads_text or kind.end_to_end:
            problem = "encodes texts with its backbone" if kind.reads_text else "trains its backbone"
            raise UnseenError(f"{kind.name} {problem}, so it cannot use features", hint="choose another method")
        regions, labels = self._checked(X, y)
        check_classification_targets(labels)
        given = self.attributes if attributes is None else attributes
        names = self.classes if classes is None else classes
        table, every, positions = _table(given, names, np.asarray(labels))
        self.n_features_in_ = regions.shape[2]
        self.n_regions_ = regions.shape[1]
        self.classes_, self.class_table_ = every, table
        counts = np.bincount(positions[positions >= 0], minlength=len(table))
        if not _can_hold_out(counts, table):
            self._fit_small(kind, regions, positions)
        else:
            self._fit_run(kind, regions, positions)
        return self

    def _fit_run(self, kind: type[Method], regions: np.ndarray, positions: np.ndarray) -> None:
        """Fit like a run, in a temporary folder."""
        files = tuple(f"{row:09d}" for row in range(len(regions)))
        split = np.full(len(files), "trainval", dtype=object)
        with tempfile.TemporaryDirectory(prefix="unseen-") as temporary:
            folder = Path(temporary)
            dataset = Dataset("features", folder, self.class_table_, files, positions, split)
            write_store(
                folder / "store",
                lambda start, stop: regions[start:stop],
                names=files,
                grid=(1, regions.shape[1]),
                channels=regions.shape[2],
                source={"name": f"{IMPORTED}memory", "made_with": "given in memory"},
                dtype="float32",
            )
            seed = _seed(self.random_state)
            steps = as_text(self.recipe or {}) | ({} if self.epochs is None else {"epochs": str(self.epochs)})
            config = RunConfig(
                method=method_reference(kind),
                dataset=str(keep_dataset(dataset, folder / "cache")),
                backbone=BackboneSpec(f"{IMPORTED}memory", weights=str(folder / "store")),
                preset=self.preset,
                settings=as_text(self.settings or {}),
                recipe=steps,
                seeds=(seed,),
                split_seed=seed,
                select=self.select,
                store_dtype="float32",
                holdouts=0,
            )
            run = fit_run(config, folder / "run", cache=folder / "cache", device=self.device, with_images=False)
            self._take(run, str(config.seeds[0]))

    def _take(self, run: Run, seed: str) -> None:
        """Method and calibration of a finished run."""
        manifest = run.manifest
        found = run.results["protocols"][run.protocol]["seeds"][seed]
        channels = manifest["backbone"]["channels"]
        vectors = torch.ones(len(self.class_table_.attributes), manifest["semantics"]["vector_length"])
        kind = find_method(run.config.method)
        settings = kind.settings_class.changed(kind.settings_class(), manifest["method"]["settings"])
        self.method_ = create_method(kind, channels=channels, vectors=vectors, settings=settings).eval()
        load_weights(run.folder / f"seed-{seed}" / f"{run.protocol}.safetensors", self.method_)
        self.gamma_, self.temperature_ = float(found["gamma"]), float(found["temperature"] or 1.0)
        self.chosen_ = found["chosen"]
        self._place()

    def _fit_small(self, kind: type[Method], regions: np.ndarray, positions: np.ndarray) -> None:
        """A closed form if there are too few classes to hold some out: chosen on every fifth row of each class."""
        if not issubclass(kind, ClosedFormMethod):
            rows = np.unique(positions, return_counts=True)[1]
            problem = f"{counted(len(rows), 'class')}, the smallest with {counted(rows.min(), 'row')}"
            raise UnseenError(problem, hint=f"{kind.name} needs {LEAST_HELD_OUT} classes of 2 or more rows")
        table = self.class_table_
        preset = find_preset(kind, "features", self.preset)[1]
        settings = type(preset.settings).changed(preset.settings, as_text(self.settings or {}))
        x = kind.prepare(torch.from_numpy(regions))
        order = np.concatenate([np.arange((positions == c).sum()) for c in np.unique(positions)])
        place = np.empty(len(positions), dtype=int)
        place[np.argsort(positions, kind="stable")] = order
        held = place % 5 == 4
        classes = ClassSpace(torch.from_numpy(table.values.astype(np.float32)), torch.from_numpy(table.seen.copy()))

        def created(seed: int = 0) -> Method:
            vectors = torch.ones(len(table.attributes), 1)
            return create_method(kind, channels=regions.shape[2], vectors=vectors, settings=settings, seed=seed)

        def fitted(rows: np.ndarray) -> ClosedFormMethod:
            made = cast("ClosedFormMethod", created())
            made.fit(x[rows], torch.from_numpy(positions[rows]), classes)
            return made

        if not kind.__module__.startswith("unseen."):
            rows = few(positions)
            try_method(kind, created, torch.from_numpy(regions[rows]), torch.from_numpy(positions[rows]), classes)
        final: Any = fitted(np.arange(len(x)))
        ranked = grid = final.grid()
        if held.any():
            trial = fitted(np.flatnonzero(~held))

            seen, worth = np.flatnonzero(table.seen), []
            columns = torch.from_numpy(seen)
            with torch.no_grad():
                for candidate, scores in trial.sweep(x[held], classes):
                    named = scores[:, columns].argmax(dim=1).numpy()
                    worth.append((float((seen[named] == positions[held]).mean()), candidate))
            ranked = [candidate for _, candidate in sorted(worth, key=lambda found: -found[0])]
        found = next((candidate for candidate in ranked if _use(final, candidate)), None)
        if found is None:
            raise UnseenError(f"none of {len(grid)} hyperparameter candidates has a solution", hint="pass more rows")
        self.method_, self.gamma_, self.chosen_ = final.eval(), 0.0, dict(found)
        with torch.inference_mode():
            spread = float(final.class_scores(final(x), classes).std(dim=1, correction=0).mean())
        self.temperature_ = spread if len(table) > 1 and spread > 0 else 1.0
        self._place()

    def _place(self) -> None:
        """Move to the device and prepare the classes for scoring."""
        self.method_.to(find_device(self.device))
        self._scorer = ClassScorer.of_table(self.method_, self.class_table_, self._device())

    def _device(self) -> torch.device:
        result: torch.device = next(iter(self.method_.state_dict().values())).device
        return result

    # answers

    def scores(self, X: Any) -> np.ndarray:
        """Class scores ``(n, N)``, after subtracting the calibration offset from seen classes."""
        check_is_fitted(self, "method_")
        regions = self._checked(X)[0]
        if regions.shape[1] != self.n_regions_ or regions.shape[2] != self.n_features_in_:
            shape = (self.n_features_in_,) if self.n_regions_ == 1 else (self.n_regions_, self.n_features_in_)
            problem = f"X has rows of {regions.shape[1:]}, expected {shape}"
            raise ValueError(problem)
        method, scorer, device = self.method_, self._scorer, self._device()

        def scored(rows: torch.Tensor) -> np.ndarray:
            return scorer.scores(method.query(method(method.prepare(rows.to(device)))))

        with torch.inference_mode():
            found = np.concatenate([scored(rows) for rows in torch.from_numpy(regions).split(BATCH)])
        lowered: np.ndarray = found - self.gamma_ * self.seen_
        return lowered

    def _checked(self, X: Any, y: Any = None) -> tuple[np.ndarray, Any]:
        """``(n, R, C)`` float32, and ``y`` in :meth:`fit`; warns of zeros."""
        regions, y = self._validated(X, y)
        names = [f"row {row + 1}" for row in range(len(regions))]
        blanks = Blanks(lambda start, stop: regions[start:stop], names, "float32", "X")
        if y is not None:
            blanks.refuse_constant(BATCH)
        for start in range(0, len(regions), BATCH):
            blanks(start, start + BATCH)
        blanks.warn()
        return regions, y

    def _validated(self, X: Any, y: Any) -> tuple[np.ndarray, Any]:
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().float() if X.is_floating_point() else X.detach().cpu()  # NumPy has no bfloat16
        features = X.numpy() if isinstance(X, torch.Tensor) else X
        y = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y
        if getattr(features, "ndim", 2) == 3:  # scikit-learn would mistake the regions for features
            features = check_array(features, allow_nd=True, dtype=np.float32, input_name="X")
            if y is not None:
                check_consistent_length(features, y := column_or_1d(y, warn=True))
            return np.array(features), y
        if y is None:
            features = validate_data(self, features, reset=False, dtype=np.float32)
        else:
            features, y = validate_data(self, features, y, dtype=np.float32)
        return np.array(features[:, None]), y

    def decision_function(self, X: Any) -> np.ndarray:
        """:meth:`scores`; for two classes ``(n,)``, the second minus the first."""
        scores = self.scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Confidences ``(n, N)``: softmax of :meth:`scores` at the temperature fitted on held-out rows."""
        scores = self.scores(X) / self.temperature_
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return found

    def predict(self, X: Any, among: str = "all") -> np.ndarray:
        """Best class ``(n,)`` of each row.

        Args:
            X: as in :meth:`fit`.
            among: ``all`` classes, the ``seen`` or the ``unseen`` ones.

        Raises:
            UnseenError: there is no class of that kind.
        """
        scores = self.scores(X)
        allowed = {"all": np.ones_like(self.seen_), "seen": self.seen_, "unseen": ~self.seen_}.get(among)
        if allowed is None or not allowed.any():
            raise UnseenError(f'no classes "{among}"', where="among", hint="use all, seen or unseen")
        found: np.ndarray = self.classes_[np.where(allowed, scores, -np.inf).argmax(axis=1)]
        return found

    @property
    def seen_(self) -> np.ndarray:
        """Whether each class had rows in training."""
        return self.class_table_.seen

    def add_class(self, name: Any, attributes: Any) -> Self:
        """Add a class at the end, without training.

        Args:
            name: name as in ``y``; if ``y`` held positions, the name in the table.
            attributes: K numbers, or a mapping or Series from attribute names; the others get the mean.
        """
        check_is_fitted(self, "method_")
        table = self.class_table_.with_class(str(name), attributes)
        named = self.classes_.dtype.kind in "OUS"
        numbered = np.array_equal(self.classes_, np.arange(len(self.classes_)))
        label = name if named or not numbered else len(self.classes_)
        self.classes_ = np.append(self.classes_, np.array([label], dtype=object if named else self.classes_.dtype))
        self.class_table_ = table
        self._scorer = ClassScorer.of_table(self.method_, table, self._device(), earlier=self._scorer)
        return self

    # kept

    def save(self, folder: PathLike[str] | str) -> Path:
        """Save the fitted classifier to a folder, without pickle; :meth:`load` reads it.

        Args:
            folder: new, empty, or written by an earlier save.

        Raises:
            RunError: the folder is a file or holds something else.
        """
        check_is_fitted(self, "method_")
        folder = new_folder(folder, lambda inside: CLASSIFIER in inside, "classifier")
        save_weights(folder / WEIGHTS, self.method_)
        self.class_table_.to_csv(folder / "classes.csv")
        write_attributes(folder / "attributes.csv", self.class_table_.attributes)
        vectors = getattr(self.method_, "vectors", None)
        facts = {
            "format": FORMAT,
            "method": method_reference(self.method_),
            "settings": as_text(self.method_.settings),
            "channels": self.n_features_in_,
            "regions": self.n_regions_,
            "vector_length": int(vectors.shape[1]) if isinstance(vectors, torch.Tensor) else 1,
            "gamma": self.gamma_,
            "temperature": self.temperature_,
            "labels": [label.item() if isinstance(label, np.generic) else label for label in self.classes_],
        }
        write_json(folder / CLASSIFIER, facts, sealed=True)
        return folder

    @classmethod
    def load(cls, folder: PathLike[str] | str, *, seed: int | None = None, device: str = "auto") -> Self:
        """Load a saved classifier, or a run of ``unseen train`` on frozen features.

        Args:
            folder: either folder, or a run.
            seed: for a run, the seed of the model; by default the first.
            device: where to compute.

        Raises:
            RunError: the folder is neither or is damaged, or the code of its method is not installed.
        """
        folder = Path(folder).expanduser()
        if not (folder / CLASSIFIER).is_file():
            return cls._of_run(folder, seed, device)
        where, hint = folder / CLASSIFIER, "save it again"
        facts = checked(_Facts, read_json(where, RunError, hint), where, error=RunError, hint=hint)
        if facts.format != FORMAT:
            raise RunError(f"format {facts.format} instead of {FORMAT}", where=where, hint=hint)
        kind = find_method(facts.method, from_file=where)
        made = cls(facts.method, settings=facts.settings, device=device)
        made.class_table_ = ClassTable.from_csv(folder / "classes.csv", folder / "attributes.csv")
        if len(facts.labels) != len(made.class_table_):
            raise RunError(
                f"{counted(len(facts.labels), 'label')} for {counted(len(made.class_table_), 'class')}",
                where=where,
                hint=hint,
            )
        texts = any(isinstance(label, str) for label in facts.labels)
        made.classes_ = np.array(facts.labels, dtype=object if texts else np.int64)
        made.n_features_in_, made.n_regions_ = facts.channels, facts.regions
        made.gamma_, made.temperature_ = facts.gamma, facts.temperature
        vectors = torch.ones(len(made.class_table_.attributes), facts.vector_length)
        settings = kind.settings_class.changed(kind.settings_class(), facts.settings)
        made.method_ = create_method(kind, channels=facts.channels, vectors=vectors, settings=settings).eval()
        load_weights(folder / WEIGHTS, made.method_)
        made._place()
        return made

    @classmethod
    def _of_run(cls, folder: Path, seed: int | None, device: str) -> Self:
        run = Run(folder)
        kind = find_method(run.config.method)
        if kind.reads_text or kind.end_to_end:
            raise RunError(f"{kind.name} needs images", where=folder, hint="use unseen.Recognizer")
        made = cls(run.config.method, device=device)
        made.class_table_ = table_in_use(folder)
        made.classes_ = np.array(made.class_table_.names, dtype=object)
        backbone = run.manifest["backbone"]
        height, width = (int(side) for side in backbone["regions"].split("x"))
        made.n_features_in_, made.n_regions_ = backbone["channels"], height * width
        found = run.results["protocols"][run.protocol]["seeds"]
        chosen = next(iter(found)) if seed is None else str(seed)
        if chosen not in found:
            raise RunError(f"no seed {chosen}", where=folder, hint=f"use one of {', '.join(found)}")
        made._take(run, chosen)
        return made


def _use(method: ClosedFormMethod, candidate: dict[str, Any]) -> bool:
    """Whether a candidate has a solution; the method then holds it."""
    try:
        method.use(candidate)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
        return False
    return all(bool(value.isfinite().all()) for value in method.state_dict().values())


def _table(attributes: Any, classes: Any, y: np.ndarray) -> tuple[ClassTable, np.ndarray, np.ndarray]:
    """The class table, its classes as named in ``y``, and each row's position among them."""
    if attributes is None:
        every, positions = np.unique(y, return_inverse=True)
        columns = Attributes(tuple(f"is {label}" for label in every))
        seen = np.ones(len(every), dtype=bool)
        return ClassTable(tuple(str(label) for label in every), columns, np.eye(len(every)), seen), every, positions
    table = _attributes(attributes, classes)
    labels = np.asarray(table.names, dtype=object)
    if classes is not None:
        labels = np.asarray(list(classes), dtype=object)
    elif hasattr(attributes, "columns"):
        labels = np.asarray(list(attributes.get("class", attributes.index)), dtype=object)
    known = {label: i for i, label in enumerate(labels.tolist())}
    wanted = [label.item() if isinstance(label, np.generic) else label for label in y]
    if all(label in known for label in wanted):
        every = labels if any(isinstance(label, str) for label in known) else np.array(labels.tolist())
        positions = np.array([known[label] for label in wanted], dtype=np.int64)
    elif y.dtype.kind in "iu" or (y.dtype.kind == "f" and (y == y.astype(int)).all()):
        positions, every = y.astype(np.int64), np.arange(len(table))
        outside = np.flatnonzero((positions < 0) | (positions >= len(table)))
        if len(outside):
            problem = f"class {positions[outside[0]]} of {len(table)}"
            raise UnseenError(problem, where=f"y, row {outside[0]}", hint="use positions in attributes, or names")
    else:
        row = next(i for i, label in enumerate(wanted) if label not in known)
        problem = f'class "{wanted[row]}" has no attributes'
        raise UnseenError(problem, where=f"y, row {row}", hint="add a row to attributes, or fix the spelling")
    seen = np.bincount(positions, minlength=len(table)) > 0
    return ClassTable(table.names, table.attributes, table.values, seen, taxonomy=table.taxonomy), every, positions


def _can_hold_out(counts: np.ndarray, table: ClassTable) -> bool:
    """Whether a draw of validation classes always leaves a class of which an image can be held out."""
    several = int((counts > 1).sum())
    return several >= LEAST_HELD_OUT and several > validation_count(table)


def _seed(random_state: Any) -> int:
    """A seed by scikit-learn's convention."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _attributes(attributes: Any, classes: Any) -> ClassTable:
    if isinstance(attributes, ClassTable) or hasattr(attributes, "columns") or isinstance(attributes, Mapping):
        return ClassTable.from_frame(attributes)
    values = np.asarray(attributes, dtype=np.float64)
    if values.ndim != 2:
        problem = f"attributes of shape {values.shape}"
        raise UnseenError(problem, hint="pass an (N, K) array, or a DataFrame indexed by class")
    names: Sequence[Any] = range(len(values)) if classes is None else list(classes)
    if len(names) != len(values):
        raise UnseenError(
            f"{counted(len(names), 'class')} for {counted(len(values), 'row')} of attributes",
            hint="pass one name per row",
        )
    columns = Attributes(tuple(f"attribute {k}" for k in range(values.shape[1])))
    return ClassTable(tuple(str(name) for name in names), columns, values, np.ones(len(values), dtype=bool))
