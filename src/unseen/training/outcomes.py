"""What a seed's training comes to: what validation chose, and the result on the test images."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import UnseenError
from unseen.evaluation.calibration import Answers
from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, evaluate
from unseen.ground.files import file_digest, read_json, write_json
from unseen.methods.base import Method
from unseen.model.references import make_references, references_beside
from unseen.training.batches import batches
from unseen.training.fabric import weight_dtype
from unseen.training.stage import Stage
from unseen.training.temperature import fit_temperature


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


def measure(decisions: Decisions, seen: np.ndarray) -> dict[str, Any]:
    """Metrics at gamma 0, and the H and gamma of the best calibration: what an epoch's record holds."""
    gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    return evaluate(decisions, seen).as_dict() | {"best_H": best, "best_gamma": gamma}


def criterion_of(select: str) -> str:
    """The entry of :func:`measure` that a validation metric is chosen by."""
    return "best_H" if select == "H" else select


def choice_of(pick: dict[str, Any], metrics: dict[str, Any], method: Method, stage: Stage) -> Choice:
    """The choice of what ``method`` now is, with its temperature."""
    scores, gamma = stage.scores(method), metrics["best_gamma"]
    temperature = fit_temperature(scores, stage.test_labels, stage.seen, gamma)
    values = scores.numpy()
    decisions = Decisions.from_scores(values, stage.test_labels, stage.seen)
    answers = Answers.from_scores(values, stage.test_labels, stage.seen, gamma, temperature)
    return Choice(pick, metrics, temperature, decisions, answers)


def honest_result(choice: Choice, decisions: Decisions, method: Method, stage: Stage, folder: Path) -> Result:
    """The result of the model in ``folder/honest.safetensors``, which ``method`` holds."""
    chosen = {**choice.pick, "by": stage.inputs.config.select, "validation": choice.metrics}
    calibration = _studied(choice, method, stage, folder)
    return Result(decisions, decisions, choice.gamma, chosen, choice.temperature, calibration)


def _studied(choice: Choice, method: Method, stage: Stage, folder: Path) -> dict[str, Any]:
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
    tested = stage.answers(method, choice.gamma, choice.temperature) if len(stage.held_out) else None
    calibration = {
        "temperature": choice.temperature,
        "gamma": choice.gamma,
        "threshold": threshold,
        "validation": choice.answers.summary(threshold),
        "test": {} if tested is None else tested.summary(threshold),
    }
    keep_references(method, stage, weights)
    write_json(path, {"model": model, "calibration": calibration}, sealed=True)
    return calibration


def keep_references(method: Method, stage: Stage, weights: Path) -> None:
    """Attribute scores of the training images, beside the weights that ``method`` holds."""
    images, dataset, dtype = stage.partition.train, stage.inputs.dataset, weight_dtype(stage.inputs.config.precision)
    found = make_references(
        method.eval(),
        (stage.train.batch(positions).to(dtype) for positions in batches(len(images))),
        dataset.labels[images],
        [dataset.files[i] for i in images],
        dataset.table,
    )
    found.save(references_beside(weights))
