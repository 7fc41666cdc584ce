"""Methods that solve their closed form anew on trained features: choose the epoch together with the hyperparameters.

After every epoch, the features of a draw's images are stored. The features of each epoch then pass the choice of the
closed form (:mod:`unseen.training.closed_form`), as if they were those of a frozen network. The best epoch has to beat
epoch 0, before training, by more than one standard error of the mean difference over the draws; otherwise nothing is
trained on all seen classes, and the model is the closed form. A single draw gives no standard error.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.errors import RunError
from unseen.evaluation.metrics import Decisions
from unseen.ground.distributed import processes
from unseen.ground.files import read_arrays, write_arrays
from unseen.ground.progress import Progress, silent
from unseen.model.scoring import ClassScorer
from unseen.training import closed_form, gradient
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result, gain, measure
from unseen.training.seed import Final, SeedValidation
from unseen.training.stage import KeptStage, Stage, solvable_features
from unseen.training.support import held_out_vectors
from unseen.training.temperature import Held


class Validation(SeedValidation):
    """Chooses epoch and hyperparameters; ``study`` records by how much the best epoch beat the closed form."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self._stages: list[Stage] = []
        self._progress: Progress = silent

    def draw(self, stage: Stage, progress: Progress) -> None:
        """Train on the training classes of a draw, and store the features of its images for every epoch."""
        folder = self._folder / stage.name

        def keep(epoch: int, method: Any, earlier: gradient.Records) -> dict[str, Any]:
            # only the first process has solved it
            train = method.refitted.solved_on if processes() == 1 else solvable_features(method, stage.train)
            test = solvable_features(method, stage.test)
            write_arrays(_path(folder, epoch), train=train.cpu().numpy(), test=test.cpu().numpy())
            with torch.inference_mode():
                branches = method.refitted.of_solvable(test.to(stage.classes.vectors.dtype))
                scores = ClassScorer(method, stage.classes).scores(method.query(branches))
            return measure(Decisions.from_scores(scores, stage.test_labels, stage.seen), stage.seen)

        epochs = 0 if stage.inputs.config.draw_count == 1 else None
        gradient.train_stage(stage, self._seed, folder, "features", keep, progress, epochs)
        self._stages.append(stage)
        self._progress = progress

    def best(self, inputs: RunInputs) -> dict[str, Any]:
        """The epoch with the highest value at its best hyperparameters, if it is clearly above that of epoch 0."""
        assert inputs.recipe is not None
        last = inputs.recipe.epochs if len(self._stages) > 1 else 0
        picks, values = zip(*(self._chosen(inputs, epoch) for epoch in range(last + 1)), strict=True)
        epoch = max(range(min(1, last), last + 1), key=lambda epoch: float(values[epoch].mean()))
        if last:
            self.study, helps = gain(values[0], values[epoch], {"epoch": epoch})
            epoch = epoch if helps else 0
        self.value = float(values[epoch].mean())
        return {**picks[epoch], "epoch": epoch}

    def _chosen(self, inputs: RunInputs, epoch: int) -> tuple[dict[str, Any], np.ndarray]:
        """Hyperparameters for the features of an epoch, and their value on each draw."""
        chooser = closed_form.Validation(self._seed, self._folder)
        for stage in self._stages:
            chooser.draw(self._solved_on(stage, epoch), self._progress)
        pick = chooser.best(inputs.of_start())
        return pick, chooser.values(pick, inputs.config.select)

    def scores(self, stage: Stage, pick: dict[str, Any]) -> Held:
        """Class scores of the validation images of a draw."""
        return closed_form.Validation(self._seed, self._folder).scores(self._solved_on(stage, pick["epoch"]), pick)

    def close(self) -> None:
        """Remove the features, which are no longer needed."""
        for stage in self._stages:
            for path in (self._folder / stage.name).glob("features-*.npz"):
                path.unlink()

    def vectors(self, stage: Stage, pick: dict[str, Any]) -> np.ndarray | None:
        """The held-out images of a draw by their trained features, in the space of support images."""
        return held_out_vectors(self._solved_on(stage, pick["epoch"])) if stage.inputs.with_images else None

    def _solved_on(self, stage: Stage, epoch: int) -> KeptStage:
        """The stage of the closed form, on the features of an epoch."""
        folder = self._folder / stage.name
        with gradient.kept_by(folder):
            hint = "repeat the command of the run"
            arrays = read_arrays(_path(folder, epoch), ("train", "test"), RunError, hint)
        train, test = (torch.from_numpy(arrays[name]).to(stage.fabric.device) for name in ("train", "test"))
        return KeptStage.of(stage, train, test)


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"features-{epoch}.npz"


def finish(final: Final) -> dict[str, Result]:
    """Train on all seen classes, and solve the closed form with the chosen hyperparameters."""
    if final.choice is None:
        return gradient.finish(final)
    stage = copy.copy(final.stage)
    stage.inputs = replace(stage.inputs, refit={k: v for k, v in final.choice.pick.items() if k != "epoch"})
    return gradient.finish(replace(final, stage=stage))
