"""Gradient methods in a run: choose the epoch by validation, and train on all seen classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unseen.errors import RunError
from unseen.evaluation.metrics import Decisions
from unseen.ground.files import read_arrays, write_arrays
from unseen.ground.progress import Progress
from unseen.methods.base import GradientMethod, Method
from unseen.model.weights import load_weights, save_weights
from unseen.training import closed_form
from unseen.training.batches import batches
from unseen.training.deciding import query
from unseen.training.decisions import load_decisions, save_decisions
from unseen.training.engine import OnEpoch, Training, train
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result, measure, paper_criteria, results_of, value_of
from unseen.training.records import epoch_record
from unseen.training.seed import Final, SeedValidation
from unseen.training.stage import Stage
from unseen.training.steps import AugmentedFeatures, Features, read_ahead
from unseen.training.temperature import Held

Records = list[dict[str, Any]]


class Validation(SeedValidation):
    """Chooses the epoch: trains on every draw, tests after every epoch, then takes the best epoch on all draws."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self._stages: list[tuple[Path, np.ndarray, np.ndarray]] = []

    def draw(self, stage: Stage, progress: Progress) -> None:
        """Train on the training classes of a draw, and store class scores of the validation images for every epoch."""
        folder = self._folder / stage.name

        def validate(epoch: int, method: Method, earlier: Records) -> dict[str, Any]:
            scores = stage.scores(method).numpy()
            write_arrays(scores_path(folder, epoch), scores=scores)
            return measure(Decisions.from_scores(scores, stage.test_labels, stage.seen), stage.seen)

        train_stage(stage, self._seed, folder, "scores", validate, progress)
        self._stages.append((folder, stage.test_labels, stage.seen))

    def best(self, inputs: RunInputs) -> dict[str, Any]:
        """The epoch with the highest value; the first in a tie."""
        assert inputs.recipe is not None
        worth = {}
        for epoch in range(1, inputs.recipe.epochs + 1):
            draws = [self._held(*stage, epoch) for stage in self._stages]
            decisions = [Decisions.from_scores(held.scores, held.labels, held.seen) for held in draws]
            worth[epoch] = value_of(decisions, [held.seen for held in draws], inputs.config.select)
        epoch = max(worth, key=lambda epoch: worth[epoch])
        self.value = worth[epoch]
        return {"epoch": epoch}

    def scores(self, stage: Stage, pick: dict[str, Any]) -> Held:
        """Class scores of the validation images of a draw at an epoch."""
        return self._held(self._folder / stage.name, stage.test_labels, stage.seen, pick["epoch"])

    def close(self) -> None:
        """Remove the class scores, which are no longer needed."""
        for folder, _, _ in self._stages:
            for path in folder.glob("scores-*.npz"):
                path.unlink()

    @staticmethod
    def _held(folder: Path, labels: np.ndarray, seen: np.ndarray, epoch: int) -> Held:
        with kept_by(folder):
            arrays = read_arrays(scores_path(folder, epoch), ("scores",), RunError, "repeat the command of the run")
        return Held(arrays["scores"], labels, seen)


def scores_path(folder: Path, epoch: int) -> Path:
    """File with the class scores of validation images at an epoch."""
    return folder / f"scores-{epoch}.npz"


def finish(final: Final) -> dict[str, Result]:
    """Train on all seen classes; for ``paper`` test after every epoch, else only after the chosen one, the last."""
    folder, protocols, stage, choice = final.folder, final.protocols, final.stage, final.choice
    chosen, kept = None if choice is None else choice.pick["epoch"], folder / "final"
    criterion = paper_criteria(stage)[-1]

    def test(epoch: int, method: Method, earlier: Records) -> dict[str, Any]:
        if epoch != chosen and "paper" not in protocols:
            return {}
        found = stage.decide(method)
        save_decisions(_decisions_path(kept, epoch), found)
        if epoch == chosen:
            save_weights(folder / "honest.safetensors", method)
        if "paper" not in protocols:
            return {}
        metrics = measure(found, stage.seen)
        if all(metrics[criterion] > record["metrics"][criterion] for record in earlier):
            save_weights(folder / "paper.safetensors", method)
        return metrics

    epochs = None if "paper" in protocols else chosen
    method, records = train_stage(stage, final.seed, kept, f"{protocols} {chosen}", test, final.progress, epochs)
    if choice is not None and stage.inputs.start is not None and not chosen:  # it is its closed form
        choice = final.with_offset(offset_scorer(final.seed, folder / "offset", stage, choice.pick, final.progress))
    return results_of(_Epochs(method, records, kept), protocols, stage, choice, folder)


class _Epochs:
    """The epochs of a finished training; see :class:`unseen.training.outcomes.Trained`."""

    def __init__(self, method: GradientMethod, records: Records, folder: Path) -> None:
        self.method, self._records, self._folder = method, records, folder

    def tested(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [({"epoch": record["epoch"]}, record["metrics"]) for record in self._records]

    def hold(self, pick: dict[str, Any], weights: Path) -> None:
        with kept_by(self._folder):
            load_weights(weights, self.method)

    def decisions(self, pick: dict[str, Any]) -> Decisions:
        with kept_by(self._folder):
            return load_decisions(_decisions_path(self._folder, pick["epoch"]))


def offset_scorer(
    seed: int,
    folder: Path,
    stage: Stage,
    pick: dict[str, Any],
    progress: Progress,
    ready: Callable[[Any], object] = lambda method: None,
) -> Callable[[np.ndarray, np.ndarray], Tensor]:
    """A function that trains on some training images and returns class scores of others (:meth:`Final.with_offset`).

    ``ready`` is called with the trained method.
    """
    inputs, fold = stage.inputs, count()
    if not pick["epoch"]:
        return functools.partial(closed_form.scored, seed, Stage(inputs.of_start(), "final"), pick)

    def scored(train: np.ndarray, held: np.ndarray) -> Tensor:
        own = folder / f"fold-{next(fold)}"
        method, _ = train_stage(stage, seed, own, "offset", lambda *_: {}, progress, pick["epoch"], train)
        ready(method.eval())
        with torch.inference_mode():
            found = []
            for rows in batches(len(held)):
                answers = query(method, stage.train.batch(held[rows]), stage.classes, inputs.fabric)
                found.append(answers @ method.class_embeddings(stage.classes).T)
            return torch.cat(found)

    return scored


def _decisions_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch}.npz"


def train_stage(
    stage: Stage,
    seed: int,
    folder: Path,
    kept: str,
    on_epoch: OnEpoch,
    progress: Progress,
    epochs: int | None = None,
    rows: np.ndarray | None = None,
) -> tuple[GradientMethod, Records]:
    """Train on a stage, by default for the recipe's epochs and on all training images.

    Args:
        stage: stage to train on.
        seed: seed of weights and sampling.
        folder: folder for its files.
        kept: name of what ``on_epoch`` stores; a checkpoint with another name is not resumed.
        on_epoch: called after every epoch.
        progress: progress callback.
        epochs: number of epochs, instead of all.
        rows: positions of the images to train on, among the training images.
    """
    inputs, recipe = stage.inputs, stage.inputs.recipe
    assert recipe is not None
    method = inputs.new_method(seed)
    mine = np.arange(len(stage.train_labels)) if rows is None else rows
    job = Training(
        method,
        stage.train if rows is None else some(stage.train, rows),
        stage.train_labels[mine],
        stage.classes,
        recipe,
        seed,
        recipe.epochs if epochs is None else epochs,
        identity=f"{stage.identity} {kept} {json.dumps([inputs.start, inputs.refit])}",
        names=[inputs.dataset.files[i] for i in stage.partition.train[mine]],
    )
    records = train(
        job,
        inputs.fabric,
        folder,
        on_epoch=on_epoch,
        on_record=lambda record: inputs.on_record(epoch_record(seed, folder.name, record)),
        accumulate=inputs.config.accumulate,
        graph=inputs.graph,
        task=f"seed {seed}: {folder.name}",
        progress=progress,
    )
    return method, records


class Some:
    """Features of a subset of images.

    Args:
        features: features of all images.
        rows: positions of the subset.
    """

    def __init__(self, features: Features, rows: np.ndarray) -> None:
        self._features, self._rows = features, rows
        self.streams = read_ahead(features)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._rows)

    def batch(self, positions: Any) -> Tensor:
        """Features of the images at these positions of the subset."""
        return self._features.batch(self._rows[np.asarray(torch.as_tensor(positions).cpu())])


class _SomeAugmented(Some):
    """Training features that are drawn anew for every step, of a subset of images."""

    _features: AugmentedFeatures

    def augmented(self, positions: np.ndarray, key: tuple[int, ...]) -> Tensor:
        """Features drawn for the images at these positions of the subset."""
        return self._features.augmented(self._rows[positions], key)


def some(features: Features, rows: np.ndarray) -> Some:
    """Features of a subset of images; arguments as for :class:`Some`."""
    return (_SomeAugmented if isinstance(features, AugmentedFeatures) else Some)(features, rows)


@contextmanager
def kept_by(stage: Path) -> Iterator[None]:
    """Context for reading files of a finished stage; errors say to delete the stage."""
    try:
        yield
    except RunError as error:
        hint = f"delete {stage} and repeat the command to run that stage again"
        raise RunError(error.problem, where=error.where, hint=hint) from None
