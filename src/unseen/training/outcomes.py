"""What a seed's training comes to: what validation chose, and the result on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unseen.errors import RunError, UnseenError
from unseen.evaluation.calibration import Answers
from unseen.evaluation.metrics import LEADING, Decisions, SeenUnseenCurve, common_gamma, evaluate
from unseen.evaluation.registry import HEADLINES
from unseen.ground.files import file_digest, read_arrays, read_json, write_arrays, write_json
from unseen.methods import find_method
from unseen.methods.base import Method
from unseen.model.references import make_references, references_beside
from unseen.model.support import SupportRule, space_beside
from unseen.training.batches import batches
from unseen.training.fabric import weight_dtype
from unseen.training.stage import Stage
from unseen.training.support import choose_support, fitted_space
from unseen.training.temperature import Held, fit_temperature

DECISIONS = tuple(f.name for f in fields(Decisions))
ANSWERS = ("confidence", "right", "unseen", "offset")


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
    """What validation picked for one seed, on all draws together.

    Args:
        pick: ``{"epoch": e}``, or the hyper-parameters of a closed form.
        metrics: of that pick on the validation images, averaged over draws; ``draws`` holds each one's.
        temperature: fitted on them.
        decisions: on them, joined (:meth:`Decisions.joined`).
        answers: on them.
        support: how images of classes count (:func:`unseen.training.support.choose_support`); ``None`` where that was
            not chosen.
    """

    pick: dict[str, Any]
    metrics: dict[str, Any]
    temperature: float
    decisions: Decisions
    answers: Answers
    support: dict[str, Any] | None = None

    @property
    def gamma(self) -> float:
        """The calibration offset: that of the final model where it is known, else of the best mean H in validation."""
        return float(self.metrics.get("final_gamma", self.metrics["best_gamma"]))

    def save(self, path: Path, identity: str) -> None:
        """Write it as ``path`` (JSON) and arrays beside it."""
        arrays = {f"decisions_{k}": array for k, array in self.decisions.arrays().items()}
        write_arrays(path.with_suffix(".npz"), **arrays, **{f"answers_{k}": getattr(self.answers, k) for k in ANSWERS})
        kept = {"identity": identity, "pick": self.pick, "metrics": self.metrics, "temperature": self.temperature}
        write_json(path, kept | {"support": self.support}, sealed=True)

    @classmethod
    def load(cls, path: Path, identity: str) -> Choice | None:
        """What :meth:`save` wrote for the same training, else ``None``."""
        if not path.is_file():
            return None
        kept = read_json(path)
        if kept.get("identity") != identity:
            return None
        names = [f"decisions_{k}" for k in DECISIONS] + [f"answers_{k}" for k in ANSWERS]
        arrays = read_arrays(path.with_suffix(".npz"), names, RunError, f"delete {path} and repeat the command")
        return cls(
            kept["pick"],
            kept["metrics"],
            kept["temperature"],
            Decisions.from_arrays({k: arrays[f"decisions_{k}"] for k in DECISIONS}),
            Answers(**{k: arrays[f"answers_{k}"] for k in ANSWERS}),
            kept["support"],
        )


def measure(decisions: Decisions, seen: np.ndarray) -> dict[str, Any]:
    """Metrics at gamma 0, and the H and gamma of the best calibration: what an epoch's record holds."""
    gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    return evaluate(decisions, seen).as_dict() | {"best_H": best, "best_gamma": gamma}


def criterion_of(select: str) -> str:
    """The entry of :func:`measure` that a validation metric is chosen by."""
    return "best_H" if select == "H" else select


def value_of(draws: Sequence[Decisions], seens: Sequence[np.ndarray], select: str) -> float:
    """What a candidate is worth on all draws: the mean of a metric, for H at the one gamma that is best for all."""
    if select == "H":
        return common_gamma([SeenUnseenCurve.of(d) for d in draws])[1]
    return float(np.mean(values_of(draws, seens, select)))


def values_of(draws: Sequence[Decisions], seens: Sequence[np.ndarray], select: str) -> np.ndarray:
    """``(draws,)`` what a candidate is worth on each, for H at the one gamma that is best for all."""
    pairs = list(zip(draws, seens, strict=True))
    if select == "H":
        gamma = common_gamma([SeenUnseenCurve.of(d) for d in draws])[0]
        return np.array([evaluate(d, seen, gamma).h for d, seen in pairs])
    return np.array([measure(d, seen)[criterion_of(select)] for d, seen in pairs])


def choice_of(pick: dict[str, Any], draws: Sequence[Held], vectors: Sequence[np.ndarray] = ()) -> Choice:
    """The choice of a candidate, from its class scores on every draw.

    Args:
        pick: the candidate.
        draws: its class scores.
        vectors: :func:`unseen.training.support.held_out_vectors` of every draw, where images of classes can count.
    """
    decisions = [Decisions.from_scores(held.scores, held.labels, held.seen, LEADING) for held in draws]
    gamma, best = common_gamma([SeenUnseenCurve.of(d) for d in decisions])
    plain = [evaluate(d, held.seen).as_dict() for d, held in zip(decisions, draws, strict=True)]
    at_gamma = [evaluate(d, held.seen, gamma).as_dict() for d, held in zip(decisions, draws, strict=True)]
    metrics: dict[str, Any] = {name: _mean([found[name] for found in plain]) for name in plain[0]}
    metrics |= {"best_H": best, "best_gamma": gamma, "draws": at_gamma}
    temperature = fit_temperature(draws, gamma)
    answers = [Answers.from_scores(held.scores, held.labels, held.seen, gamma, temperature) for held in draws]
    joined = Decisions.joined(decisions, len(draws[0].seen))
    support = choose_support(draws, vectors, gamma, temperature) if vectors else None
    return Choice(pick, metrics, temperature, joined, Answers.joined(answers), support)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


class Trained(Protocol):
    """A method trained on all seen classes, in the forms (epochs, hyper-parameters) that a protocol picks from."""

    method: Any

    def tested(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Every pick with what :func:`measure` gives of it on the test images."""
        ...

    def hold(self, pick: dict[str, Any], weights: Path) -> None:
        """Make ``method`` that of a pick, whose weights ``weights`` holds from then on."""
        ...

    def decisions(self, pick: dict[str, Any]) -> Decisions:
        """Those of a pick on the test images."""
        ...


def paper_criteria(stage: Stage) -> tuple[str, str]:
    """The entries of :func:`measure` that ``paper`` picks the model of T1 and that of U, S and H by."""
    sweeps = find_method(stage.inputs.config.method).sweeps_gamma
    return HEADLINES[0], criterion_of(HEADLINES[-1]) if sweeps else HEADLINES[-1]


def results_of(
    trained: Trained, protocols: tuple[str, ...], stage: Stage, choice: Choice | None, folder: Path
) -> dict[str, Result]:
    """The results of one seed under the protocols, with weights and references in ``folder``."""
    results = {}
    if choice is not None:
        trained.hold(choice.pick, folder / "honest.safetensors")
        decisions = trained.decisions(choice.pick)
        results["honest"] = honest_result(choice, decisions, trained.method, stage, folder)
    if "paper" in protocols:
        tested, criteria = trained.tested(), paper_criteria(stage)
        for_t1, for_h = (max(tested, key=lambda pair: pair[1][criterion]) for criterion in criteria)
        t1 = trained.decisions(for_t1[0])
        weights = folder / "paper.safetensors"
        trained.hold(for_h[0], weights)
        if choice is None:  # the run's model
            keep_references(trained.method, stage, weights)
        chosen = dict(zip(HEADLINES, (for_t1[0], for_h[0]), strict=True)) | {"by": "test set"}
        gamma = 0.0 if criteria[-1] in HEADLINES else for_h[1]["best_gamma"]
        results["paper"] = Result(t1, trained.decisions(for_h[0]), gamma, chosen, None)
    return results


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
        spaced = choice.support is None or space_beside(weights).is_file()
        if found["model"] == model and spaced and references_beside(weights).is_file():
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
        "images": choice.support,
    }
    keep_references(method, stage, weights)
    if choice.support is not None:
        fitted_space(stage, SupportRule(**choice.support["rule"])).save(space_beside(weights))
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
