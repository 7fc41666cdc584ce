"""Protocols: who may look at the test images, and when.

``honest``: epoch or hyper-parameters, the calibration offset gamma and the softmax temperature are chosen on validation
classes taken from the seen classes; then one training on all seen classes, tested once. One model for every number.

``paper``: what the field does. The best epoch (or hyper-parameters) is picked *on the test set*, for T1 and for H
apart; gamma is picked there too where the method's own protocol sweeps it, and is 0 otherwise.

When both are asked for they share the training on all seen classes: the honest number is read at the epoch that
validation chose, which is what a separate training for that many epochs would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy.optimize import minimize_scalar
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.backbones.towers import TextTower
from unseen.data.dataset import Dataset, Partition, digest, final_partition, validation_partition
from unseen.data.images import ImageSource, ImageStore
from unseen.errors import DataError, RunError, UnseenError
from unseen.evaluation.calibration import Answers
from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, evaluate
from unseen.evaluation.scores import calibrated
from unseen.features.source import RegionSource
from unseen.features.store import RegionStore
from unseen.ground.distributed import rows_of_all
from unseen.ground.files import file_digest, read_arrays, read_json, write_arrays, write_json
from unseen.ground.progress import Progress, silent
from unseen.methods import create_method, find_method
from unseen.methods.base import (
    ClassSpace,
    ClosedFormMethod,
    EndToEndRecipe,
    GradientMethod,
    Method,
    Recipe,
    Settings,
)
from unseen.model.assembled import build_method
from unseen.model.references import make_references, references_beside
from unseen.model.scoring import ClassScorer
from unseen.model.weights import load_weights, save_weights
from unseen.training.divergence import DivergedError, broken_features, not_finite
from unseen.training.engine import (
    PRECISIONS,
    OnEpoch,
    Stage,
    ahead,
    batches,
    decide,
    own_batches,
    query,
    train,
    weight_dtype,
)
from unseen.training.steps import Features, non_finite
from unseen.vectors.sources import name_things

Records = list[dict[str, Any]]
_ARRAYS = ("labels", "best_seen", "best_unseen", "offset", "is_unseen")


@dataclass(frozen=True)
class Ingredients:
    """Everything that a seed's training needs, the seed apart.

    Args:
        dataset: the data.
        store: regions of all its images, or for methods trained end to end the images.
        vectors: ``(K, D)`` attribute vectors.
        method: its name.
        settings: its settings.
        recipe: its recipe; ``None`` for closed forms.
        select: validation metric for ``honest``.
        split_seed: of the validation partition.
        precision: Fabric's.
        accumulate: micro-batches.
        budget_bytes: of regions kept on the device, see :class:`RegionSource`.
        graph: launch each step of a training as one CUDA graph.
        tower: text tower, for methods that read text.
    """

    dataset: Dataset
    store: RegionStore | ImageStore
    vectors: np.ndarray
    method: str
    settings: Settings
    recipe: Recipe | None
    select: str
    split_seed: int
    precision: str
    accumulate: int
    tower: TextTower | None = None
    budget_bytes: int | None = None
    graph: bool = False

    def partition(self, stage: str) -> Partition:
        """The images and classes of ``validation`` or ``final``."""
        if stage == "validation":
            return validation_partition(self.dataset, self.split_seed)
        return final_partition(self.dataset)


@dataclass(frozen=True)
class Result:
    """One seed under one protocol.

    Args:
        t1, gzsl: decisions on the test images of the models that T1 and U/S/H come from (in ``honest`` the same).
        gamma: calibration offset of U, S and H.
        chosen: what was picked and how (epoch or hyper-parameters, validation metrics).
        temperature: of the class scores' softmax, fitted on validation images; ``None`` where nothing was fitted.
        calibration: in JSON form: temperature, gamma, the confidence below which an answer counts as unknown, and how
            they do on the ``validation`` and ``test`` images (:meth:`Answers.summary`); ``None`` likewise.
    """

    t1: Decisions
    gzsl: Decisions
    gamma: float
    chosen: dict[str, Any]
    temperature: float | None
    calibration: dict[str, Any] | None = None


class Stagehand:
    """Features, labels and classes of one stage on the device; features are prepared when they are first asked for."""

    def __init__(self, parts: Ingredients, stage: str, fabric: Fabric) -> None:
        self.parts, self.fabric = parts, fabric
        self.partition = partition = parts.partition(stage)
        table = parts.dataset.table
        position = np.full(len(table), -1)
        position[partition.classes] = np.arange(len(partition.classes))
        labels = position[parts.dataset.labels]
        dtype = weight_dtype(parts.precision)
        vectors = torch.from_numpy(table.values[partition.classes])
        words = None
        if parts.tower is not None:
            words = name_things([table.names[c] for c in partition.classes], table.attributes, parts.tower)
        self.classes = ClassSpace(vectors, torch.from_numpy(partition.seen.copy()), words).to(fabric.device, dtype)
        self.held_out = np.concatenate([partition.test_seen, partition.test_unseen])
        self.train_labels, self.test_labels = labels[partition.train], labels[self.held_out]
        self.identity = digest(parts.store.fingerprint, partition.fingerprint(parts.dataset))
        self.seen = partition.seen

    def features(self, images: np.ndarray, budget_bytes: int | None = None) -> Features:
        """Prepared regions of some images of the dataset, or the images, as the method is given them.

        Args:
            images: positions in the dataset.
            budget_bytes: of regions, instead of the ingredients'; images are kept by their store.
        """
        parts, device = self.parts, self.fabric.device
        if isinstance(parts.store, ImageStore):
            recipe = parts.recipe
            assert isinstance(recipe, EndToEndRecipe)
            dtype = weight_dtype(parts.precision)
            return ImageSource(parts.store, images, device=device, dtype=dtype, resize=recipe.resize, flip=recipe.flip)
        return RegionSource(
            parts.store,
            images,
            device=device,
            dtype=PRECISIONS[parts.precision],
            prepare=find_method(parts.method).prepare,
            budget_bytes=parts.budget_bytes if budget_bytes is None else budget_bytes,
        )

    @cached_property
    def train(self) -> Features:
        """Of the training images."""
        return self.features(self.partition.train)

    @cached_property
    def test(self) -> Features:
        """Of the held-out images."""
        return self.features(self.held_out)

    def decide(self, method: Method) -> Decisions:
        """Decisions on the held-out images."""
        return decide(method, self.test, self.test_labels, self.classes, self.fabric)

    def scores(self, method: Method) -> Tensor:
        """``(M, N)`` class scores of the held-out images, for fitting the temperature."""
        with torch.inference_mode():
            mine, rows = own_batches(len(self.test_labels))
            regions = ahead(self.test.batch, mine, self.test)
            scorer = ClassScorer(method, self.classes)
            found = [scorer.scores(query(method, own, self.classes, self.fabric)) for own in regions]
        scores = torch.from_numpy(np.concatenate([np.zeros((0, len(self.seen))), *found]))
        return rows_of_all(scores, rows, len(self.test_labels))

    def answers(self, method: Method, gamma: float, temperature: float) -> Answers:
        """Answers on the held-out images, a batch at a time."""
        mine, rows = own_batches(len(self.test_labels))
        parts = [
            Answers.from_scores(np.zeros((0, len(self.seen))), self.test_labels[:0], self.seen, gamma, temperature)
        ]
        with torch.inference_mode():
            scorer = ClassScorer(method, self.classes)
            for positions, regions in zip(mine, ahead(self.test.batch, mine, self.test), strict=True):
                scores = scorer.scores(query(method, regions, self.classes, self.fabric))
                parts.append(Answers.from_scores(scores, self.test_labels[positions], self.seen, gamma, temperature))
        own = Answers.joined(parts)
        table = torch.from_numpy(np.stack([own.confidence, own.right, own.unseen, own.offset], axis=1).astype(float))
        confidence, right, unseen, offset = rows_of_all(table, rows, len(self.test_labels)).numpy().T
        return Answers(confidence, right.astype(bool), unseen.astype(bool), offset)


def fit_temperature(scores: Tensor, labels: np.ndarray, seen: np.ndarray, gamma: float) -> float:
    """The temperature of least cross-entropy of softmax((S - gamma seen) / T) on held-out images.

    A log-normal prior around the scores' own spread, worth one image, keeps it finite where a few images are all
    named right.
    """
    shifted = calibrated(scores, seen, gamma)
    target = torch.from_numpy(labels)
    spread = float(shifted.std(dim=1).mean().log().clamp(min=-20))

    def loss(log_temperature: float) -> float:
        data = float(torch.nn.functional.cross_entropy(shifted / np.exp(log_temperature), target))
        return data + (log_temperature - spread) ** 2 / (2 * len(labels))

    return float(np.exp(minimize_scalar(loss, bounds=(spread - 7, spread + 7), method="bounded").x))


def measure(decisions: Decisions, seen: np.ndarray) -> dict[str, Any]:
    """Metrics at gamma 0, and the H and gamma of the best calibration: what an epoch's record holds."""
    gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    return evaluate(decisions, seen).as_dict() | {"best_H": best, "best_gamma": gamma}


def _criterion(select: str) -> str:
    return "best_H" if select == "H" else select


@dataclass(frozen=True)
class Choice:
    """What validation picked for one seed.

    Args:
        pick: ``{"epoch": e}``, or the hyper-parameters of a closed form.
        metrics: of that pick on the validation images.
        temperature: fitted on them.
        decisions: on them.
        answers: on them.
    """

    pick: dict[str, Any]
    metrics: dict[str, Any]
    temperature: float
    decisions: Decisions
    answers: Answers

    @property
    def gamma(self) -> float:
        """The calibration offset of the best H on the validation images."""
        return float(self.metrics["best_gamma"])


def run_seeds(
    parts: Ingredients,
    seeds: Sequence[int],
    folder: Path,
    protocols: tuple[str, ...],
    fabric: Fabric,
    progress: Progress = silent,
) -> dict[int, dict[str, Result]]:
    """Train and test every seed under the protocols; what was finished earlier is read, not done again.

    All seeds choose first and are trained on all seen classes then, so that one stage's features are in memory at a
    time. ``folder/seed-N/PROTOCOL.safetensors`` holds the weights.

    Raises:
        DataError: a protocol has no held-out images of seen or unseen classes to choose by.
    """
    for protocol in protocols:
        _check_held_out(parts, protocol)
    finish = _finish_closed_form if find_method(parts.method).closed_form else _finish_training
    choices: dict[int, Choice | None] = dict.fromkeys(seeds)
    if "honest" in protocols:
        choices.update(validate_seeds(parts, seeds, folder, fabric, progress))
    hand = Stagehand(parts, "final", fabric)
    results = {
        seed: finish(parts, seed, folder / f"seed-{seed}", protocols, hand, choice, progress)
        for seed, choice in choices.items()
    }
    for seed, found in results.items():
        for protocol, result in found.items():
            for metric, decisions in (("T1", result.t1), ("H", result.gzsl)):
                save_decisions(decisions_path(folder, seed, protocol, metric), decisions)
    return results


def validate_seeds(
    parts: Ingredients, seeds: Sequence[int], folder: Path, fabric: Fabric, progress: Progress = silent
) -> dict[int, Choice]:
    """The validation stage of every seed alone: what ``honest`` would choose, without a look at a test image.

    :func:`run_seeds` in the same folder goes on from there.

    Raises:
        DataError: no held-out images of seen or unseen classes to choose by.
    """
    _check_held_out(parts, "honest")
    choose = _choose_candidate if find_method(parts.method).closed_form else _choose_epoch
    hand = Stagehand(parts, "validation", fabric)
    return {seed: choose(parts, seed, folder / f"seed-{seed}", hand, progress) for seed in seeds}


def decisions_path(folder: Path, seed: int | str, protocol: str, metric: str) -> Path:
    """The file of one seed's decisions: on the test images by the model that T1 or (``H``) U, S and H come from."""
    return folder / f"seed-{seed}" / f"{protocol}-{metric}.npz"


def _check_held_out(parts: Ingredients, protocol: str) -> None:
    stage, hint = {
        "paper": ("final", "use the honest protocol"),
        "honest": ("validation", "give every class 2 or more images"),
    }[protocol]
    chooser = parts.partition(stage)
    for kind, images in (("seen", chooser.test_seen), ("unseen", chooser.test_unseen)):
        if not len(images):
            problem = f"the {protocol} protocol has no held-out images of {kind} classes to choose by"
            raise DataError(problem, where=parts.dataset.name, hint=hint)


def _best(records: Records, criterion: str) -> dict[str, Any]:
    """The earliest record with the highest value of a metric."""
    return max(records, key=lambda record: (record["metrics"][criterion], -record["epoch"]))


def _is_best(metrics: dict[str, Any], earlier: Records, criterion: str) -> bool:
    return all(metrics[criterion] > record["metrics"][criterion] for record in earlier)


def new_method(parts: Ingredients, seed: int, fabric: Fabric) -> Any:
    """The method with a seed's initial weights, on the device."""
    vectors = torch.from_numpy(parts.vectors).to(weight_dtype(parts.precision))
    if isinstance(parts.store, RegionStore):
        channels = parts.store.channels(0)
        made = create_method(parts.method, channels=channels, vectors=vectors, settings=parts.settings, seed=seed)
    else:
        assert isinstance(parts.recipe, EndToEndRecipe)
        made = build_method(
            parts.method,
            Backbone(parts.store.spec),
            vectors,
            parts.settings,
            seed=seed,
            checkpointing=parts.recipe.checkpointing,
            batch_norm=parts.recipe.batch_norm,
        )
    return made.to(fabric.device)


def _train(
    parts: Ingredients,
    seed: int,
    folder: Path,
    hand: Stagehand,
    epochs: int,
    on_epoch: OnEpoch,
    kept: str,
    progress: Progress,
) -> tuple[GradientMethod, Records]:
    """Train one stage; ``kept`` names what ``on_epoch`` keeps, so that a checkpoint that kept less is not used."""
    assert parts.recipe is not None
    method = new_method(parts, seed, hand.fabric)
    identity = f"{hand.identity} {kept}"
    names = [parts.dataset.files[i] for i in hand.partition.train]
    job = Stage(method, hand.train, hand.train_labels, hand.classes, parts.recipe, seed, epochs, identity, names)
    task = f"seed {seed}: {folder.name}"
    how: dict[str, Any] = {"accumulate": parts.accumulate, "graph": parts.graph}
    records = train(job, hand.fabric, folder, on_epoch=on_epoch, task=task, progress=progress, **how)
    return method, records


@contextmanager
def _kept_by(stage: Path) -> Iterator[None]:
    """What a finished stage kept is read in here; it is gone or damaged only together with the stage."""
    try:
        yield
    except RunError as error:
        hint = f"delete {stage} and repeat the command, which does that stage again"
        raise RunError(error.problem, where=error.where, hint=hint) from None


def _choose_epoch(parts: Ingredients, seed: int, folder: Path, hand: Stagehand, progress: Progress) -> Choice:
    """Train on the training classes, testing every epoch on the validation images."""
    assert parts.recipe is not None
    criterion, best_weights = _criterion(parts.select), folder / "validation" / "weights.safetensors"

    def validate(epoch: int, method: Method, earlier: Records) -> dict[str, Any]:
        metrics = measure(hand.decide(method), hand.seen)
        if _is_best(metrics, earlier, criterion):
            save_weights(best_weights, method)
        return metrics

    method, records = _train(
        parts, seed, folder / "validation", hand, parts.recipe.epochs, validate, parts.select, progress
    )
    best = _best(records, criterion)
    with _kept_by(folder / "validation"):
        load_weights(best_weights, method)
    return _choice({"epoch": best["epoch"]}, best["metrics"], method, hand)


def _finish_training(
    parts: Ingredients,
    seed: int,
    folder: Path,
    protocols: tuple[str, ...],
    hand: Stagehand,
    choice: Choice | None,
    progress: Progress,
) -> dict[str, Result]:
    """Train on all seen classes; for ``paper`` test every epoch, else only the chosen one, the last."""
    assert parts.recipe is not None
    sweeps = find_method(parts.method).sweeps_gamma
    paper_h = "best_H" if sweeps else "H"
    chosen = None if choice is None else choice.pick["epoch"]

    def at(epoch: int) -> Path:
        return folder / "final" / f"epoch-{epoch}.npz"

    def test(epoch: int, method: Method, earlier: Records) -> dict[str, Any]:
        if epoch != chosen and "paper" not in protocols:
            return {}
        found = hand.decide(method)
        save_decisions(at(epoch), found)
        if epoch == chosen:
            save_weights(folder / "honest.safetensors", method)
        if "paper" not in protocols:
            return {}
        metrics = measure(found, hand.seen)
        if _is_best(metrics, earlier, paper_h):
            save_weights(folder / "paper.safetensors", method)
        return metrics

    epochs = chosen if "paper" not in protocols else parts.recipe.epochs
    assert epochs is not None
    method, records = _train(parts, seed, folder / "final", hand, epochs, test, f"{protocols} {chosen}", progress)
    results = {}
    if choice is not None:
        with _kept_by(folder / "final"):
            decisions = load_decisions(at(choice.pick["epoch"]))
            load_weights(folder / "honest.safetensors", method)
        results["honest"] = _honest(parts, choice, decisions, method, hand, folder)
    if "paper" in protocols:
        best_t1, best_h = _best(records, "T1"), _best(records, paper_h)
        if choice is None:  # the run's model
            with _kept_by(folder / "final"):
                load_weights(folder / "paper.safetensors", method)
            _keep_references(parts, method, hand, folder / "paper.safetensors")
        with _kept_by(folder / "final"):
            t1, gzsl = (load_decisions(at(best["epoch"])) for best in (best_t1, best_h))
        results["paper"] = Result(
            t1,
            gzsl,
            best_h["metrics"]["best_gamma"] if sweeps else 0.0,
            {"epoch_T1": best_t1["epoch"], "epoch_H": best_h["epoch"], "by": "test set"},
            None,
        )
    return results


def _fitted(parts: Ingredients, seed: int, hand: Stagehand) -> ClosedFormMethod:
    method: ClosedFormMethod = new_method(parts, seed, hand.fabric)
    everything = hand.train.batch(np.arange(len(hand.train_labels)))
    broken = [parts.dataset.files[hand.partition.train[i]] for i in not_finite(everything)]
    if broken:
        raise broken_features(broken, method.name)
    try:
        method.fit(everything, torch.as_tensor(hand.train_labels, device=hand.fabric.device), hand.classes)
    except torch.linalg.LinAlgError as error:
        raise DivergedError(f"no solution ({error})", where=method.name, hint="--precision 64-true") from None
    return method


def _sweep(
    method: ClosedFormMethod, hand: Stagehand, task: str, progress: Progress
) -> list[tuple[dict[str, Any], Any]]:
    """Every hyper-parameter candidate with its metrics on the held-out images; those without a solution apart."""
    grid = method.grid()
    swept = []
    for i, candidate in enumerate(grid):
        method.use(candidate)
        if non_finite(method.state_dict()) is None:
            swept.append((candidate, measure(hand.decide(method), hand.seen)))
        progress(task, i + 1, len(grid))
    if not swept:
        problem = f"none of {len(grid)} hyper-parameter candidates has a finite solution"
        raise DivergedError(problem, where=method.name, hint="--precision 64-true, or check the features")
    return swept


def _choose_candidate(parts: Ingredients, seed: int, folder: Path, hand: Stagehand, progress: Progress) -> Choice:
    """Solve on the training classes for every candidate, testing each on the validation images."""
    method, criterion = _fitted(parts, seed, hand), _criterion(parts.select)
    swept = _sweep(method, hand, f"seed {seed}: validation", progress)
    candidate, metrics = max(swept, key=lambda pair: pair[1][criterion])
    method.use(candidate)
    return _choice(candidate, metrics, method, hand)


def _finish_closed_form(
    parts: Ingredients,
    seed: int,
    folder: Path,
    protocols: tuple[str, ...],
    hand: Stagehand,
    choice: Choice | None,
    progress: Progress,
) -> dict[str, Result]:
    """Solve on all seen classes, with the chosen candidate and, for ``paper``, with every one."""
    method, results = _fitted(parts, seed, hand), {}
    if choice is not None:
        method.use(choice.pick)
        save_weights(folder / "honest.safetensors", method)
        results["honest"] = _honest(parts, choice, hand.decide(method), method, hand, folder)
    if "paper" in protocols:
        swept = _sweep(method, hand, f"seed {seed}: test", progress)
        sweeps = find_method(parts.method).sweeps_gamma
        for_t1, _ = max(swept, key=lambda pair: pair[1]["T1"])
        for_h, best = max(swept, key=lambda pair: pair[1]["best_H" if sweeps else "H"])
        method.use(for_t1)
        t1 = hand.decide(method)
        method.use(for_h)
        save_weights(folder / "paper.safetensors", method)
        if choice is None:  # the run's model
            _keep_references(parts, method, hand, folder / "paper.safetensors")
        chosen = {"T1": for_t1, "H": for_h, "by": "test set"}
        results["paper"] = Result(t1, hand.decide(method), best["best_gamma"] if sweeps else 0.0, chosen, None)
    return results


def _honest(
    parts: Ingredients, choice: Choice, decisions: Decisions, method: Method, hand: Stagehand, folder: Path
) -> Result:
    """The result of the model in ``folder/honest.safetensors``, which ``method`` holds."""
    chosen = {**choice.pick, "by": parts.select, "validation": choice.metrics}
    calibration = _studied(parts, choice, method, hand, folder)
    return Result(decisions, decisions, choice.gamma, chosen, choice.temperature, calibration)


def _studied(parts: Ingredients, choice: Choice, method: Method, hand: Stagehand, folder: Path) -> dict[str, Any]:
    """What validation chose for confidences and how it does on the test images; keeps the references.

    Both are made once for a model.
    """
    weights, path = folder / "honest.safetensors", folder / "honest-calibration.json"
    model = file_digest(weights)
    with suppress(UnseenError, KeyError, TypeError):
        found = read_json(path)
        if found["model"] == model and references_beside(weights).is_file():
            calibration: dict[str, Any] = found["calibration"]
            return calibration
    threshold = choice.answers.threshold()
    tested = hand.answers(method, choice.gamma, choice.temperature) if len(hand.held_out) else None
    calibration = {
        "temperature": choice.temperature,
        "gamma": choice.gamma,
        "threshold": threshold,
        "validation": choice.answers.summary(threshold),
        "test": {} if tested is None else tested.summary(threshold),
    }
    _keep_references(parts, method, hand, weights)
    write_json(path, {"model": model, "calibration": calibration}, sealed=True)
    return calibration


def _keep_references(parts: Ingredients, method: Method, hand: Stagehand, weights: Path) -> None:
    """Attribute scores of the training images, beside the weights that ``method`` holds."""
    images, dataset, dtype = hand.partition.train, parts.dataset, weight_dtype(parts.precision)
    found = make_references(
        method.eval(),
        (hand.train.batch(positions).to(dtype) for positions in batches(len(images))),
        dataset.labels[images],
        [dataset.files[i] for i in images],
        dataset.table,
    )
    found.save(references_beside(weights))


def _choice(pick: dict[str, Any], metrics: dict[str, Any], method: Method, hand: Stagehand) -> Choice:
    scores, gamma = hand.scores(method), metrics["best_gamma"]
    temperature = fit_temperature(scores, hand.test_labels, hand.seen, gamma)
    values = scores.numpy()
    decisions = Decisions.from_scores(values, hand.test_labels, hand.seen)
    answers = Answers.from_scores(values, hand.test_labels, hand.seen, gamma, temperature)
    return Choice(pick, metrics, temperature, decisions, answers)


def save_decisions(path: Path, d: Decisions) -> None:
    """Write decisions as arrays, whole or not at all."""
    write_arrays(path, **{k: getattr(d, k) for k in _ARRAYS})


def load_decisions(path: Path) -> Decisions:
    """What :func:`save_decisions` wrote.

    Raises:
        RunError: missing, damaged, or not of this kind.
    """
    arrays = read_arrays(path, _ARRAYS, RunError, "repeat the command of the run")
    return Decisions(**arrays)
