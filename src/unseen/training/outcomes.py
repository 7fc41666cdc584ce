"""Outcome of a seed's training: the choice of validation, and the result on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unseen.classes.taxonomy import Taxonomy
from unseen.errors import RunError, UnseenError
from unseen.evaluation.calibration import Answers
from unseen.evaluation.metrics import LEADING, Decisions, SeenUnseenCurve, common_gamma, evaluate
from unseen.evaluation.registry import HEADLINES
from unseen.ground.files import file_digest, read_arrays, read_json, write_arrays, write_json
from unseen.methods import find_method
from unseen.methods.base import Method
from unseen.model.ranks import RankThreshold
from unseen.model.references import make_references, references_beside
from unseen.model.support import SupportRule, space_beside
from unseen.training.batches import batches
from unseen.training.fabric import weight_dtype
from unseen.training.ranks import answered, both_cases, choose_ranks
from unseen.training.stage import Stage
from unseen.training.support import choose_support, fitted_space
from unseen.training.temperature import Held, fit_temperature

DECISIONS = tuple(f.name for f in fields(Decisions))
ANSWERS = ("confidence", "right", "unseen", "offset")


@dataclass(frozen=True)
class Result:
    """Result of one seed under one protocol.

    Args:
        t1, gzsl: decisions on the test images by the models of T1 and of U/S/H (the same in ``honest``).
        gamma: calibration offset of U, S and H.
        chosen: what was chosen and how (epoch or hyperparameters, validation metrics).
        temperature: softmax temperature of the class scores, fitted on validation images; ``None`` if not fitted.
        calibration: as JSON types: temperature, gamma, the confidence threshold of "unknown", and how they perform on
            the ``validation`` and ``test`` images (:meth:`Answers.summary`); ``None`` if not fitted.
    """

    t1: Decisions
    gzsl: Decisions
    gamma: float
    chosen: dict[str, Any]
    temperature: float | None
    calibration: dict[str, Any] | None = None


@dataclass(frozen=True)
class Choice:
    """Choice of validation for one seed, over all draws together.

    Args:
        pick: ``{"epoch": e}``, or the hyperparameters of a closed form.
        metrics: metrics of the pick on the validation images, averaged over draws; ``draws`` holds those of each draw.
        temperature: temperature fitted on these images.
        decisions: decisions on these images, joined (:meth:`Decisions.joined`).
        answers: answers on these images.
        support: how support images count (:func:`unseen.training.support.choose_support`); ``None`` if not chosen.
        ranks: thresholds of ranks above the class (:func:`unseen.training.ranks.choose_ranks`); ``None`` without ranks.
    """

    pick: dict[str, Any]
    metrics: dict[str, Any]
    temperature: float
    decisions: Decisions
    answers: Answers
    support: dict[str, Any] | None = None
    ranks: dict[str, Any] | None = None

    @property
    def gamma(self) -> float:
        """Calibration offset: that of the final model if known, else the one with the best mean H in validation."""
        return float(self.metrics.get("final_gamma", self.metrics["best_gamma"]))

    def save(self, path: Path, identity: str) -> None:
        """Write the choice to ``path`` (JSON) and arrays beside it."""
        arrays = {f"decisions_{k}": array for k, array in self.decisions.arrays().items()}
        write_arrays(path.with_suffix(".npz"), **arrays, **{f"answers_{k}": getattr(self.answers, k) for k in ANSWERS})
        kept = {"identity": identity, "pick": self.pick, "metrics": self.metrics, "temperature": self.temperature}
        write_json(path, kept | {"support": self.support, "ranks": self.ranks}, sealed=True)

    @classmethod
    def load(cls, path: Path, identity: str) -> Choice | None:
        """Read what :meth:`save` wrote; ``None`` if it belongs to another training."""
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
            kept["ranks"],
        )


def measure(decisions: Decisions, seen: np.ndarray) -> dict[str, Any]:
    """Metrics at gamma 0, and the H and gamma of the best calibration, as in an epoch's record."""
    gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    return evaluate(decisions, seen).as_dict() | {"best_H": best, "best_gamma": gamma}


def criterion_of(select: str) -> str:
    """Entry of :func:`measure` for a validation metric."""
    return "best_H" if select == "H" else select


def value_of(draws: Sequence[Decisions], seens: Sequence[np.ndarray], select: str) -> float:
    """Value of a candidate on all draws: the mean of a metric; H is taken at the gamma that is best for all draws."""
    if select == "H":
        return common_gamma([SeenUnseenCurve.of(d) for d in draws])[1]
    return float(np.mean(values_of(draws, seens, select)))


def values_of(draws: Sequence[Decisions], seens: Sequence[np.ndarray], select: str) -> np.ndarray:
    """``(draws,)`` value of a candidate on each draw; H is taken at the gamma that is best for all draws."""
    pairs = list(zip(draws, seens, strict=True))
    if select == "H":
        gamma = common_gamma([SeenUnseenCurve.of(d) for d in draws])[0]
        return np.array([evaluate(d, seen, gamma).h for d, seen in pairs])
    return np.array([measure(d, seen)[criterion_of(select)] for d, seen in pairs])


def gain(start: np.ndarray, best: np.ndarray, what: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """By how much training helps, and whether by more than one standard error.

    Args:
        start, best: ``(draws,)`` values without training, and of the best that was trained.
        what: what the best is.

    Returns:
        Record of the choice (``SeedValidation.study``), and the answer: no if a single draw gives no error.
    """
    mean, count = float((best - start).mean()), len(start)
    error = float((best - start).std(ddof=1) / count**0.5) if count > 1 else None
    found = {"start": float(start.mean()), "best": float(best.mean()), **what, "gain": mean, "standard_error": error}
    return found, error is not None and mean > error


def choice_of(
    pick: dict[str, Any],
    draws: Sequence[Held],
    vectors: Sequence[np.ndarray] = (),
    taxonomies: Sequence[Taxonomy] = (),
) -> Choice:
    """Make the choice of a candidate from its class scores on every draw.

    Args:
        pick: the candidate.
        draws: class scores of each draw.
        vectors: :func:`unseen.training.support.held_out_vectors` of every draw, if support images can count.
        taxonomies: of the classes of every draw, if they have ranks.
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
    every = Answers.joined(answers)
    ranks = choose_ranks(draws, taxonomies, gamma, temperature, every.threshold()) if taxonomies else None
    return Choice(pick, metrics, temperature, joined, every, support, ranks)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


class Trained(Protocol):
    """A method trained on all seen classes, in the forms (epochs, hyperparameters) that a protocol picks from."""

    @property
    def method(self) -> Method:
        """The method, set to a pick."""
        ...

    def tested(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Every pick with its :func:`measure` on the test images."""
        ...

    def hold(self, pick: dict[str, Any], weights: Path) -> None:
        """Set ``method`` to a pick, and store its weights in ``weights``."""
        ...

    def decisions(self, pick: dict[str, Any]) -> Decisions:
        """Decisions of a pick on the test images."""
        ...


def paper_criteria(stage: Stage) -> tuple[str, str]:
    """Entries of :func:`measure` by which ``paper`` picks the model of T1 and that of U, S and H."""
    sweeps = find_method(stage.inputs.config.method).sweeps_gamma
    return HEADLINES[0], criterion_of(HEADLINES[-1]) if sweeps else HEADLINES[-1]


def results_of(
    trained: Trained, protocols: tuple[str, ...], stage: Stage, choice: Choice | None, folder: Path
) -> dict[str, Result]:
    """Results of one seed under the protocols, with weights and references in ``folder``."""
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
        if choice is None:  # the model of the run
            keep_references(trained.method, stage, weights)
        chosen = dict(zip(HEADLINES, (for_t1[0], for_h[0]), strict=True)) | {"by": "test set"}
        gamma = 0.0 if criteria[-1] in HEADLINES else for_h[1]["best_gamma"]
        results["paper"] = Result(t1, trained.decisions(for_h[0]), gamma, chosen, None)
    return results


def honest_result(choice: Choice, decisions: Decisions, method: Method, stage: Stage, folder: Path) -> Result:
    """Result of the model in ``folder/honest.safetensors``, which ``method`` holds."""
    chosen = {**choice.pick, "by": stage.inputs.config.select, "validation": choice.metrics}
    calibration = _studied(choice, method, stage, folder)
    return Result(decisions, decisions, choice.gamma, chosen, choice.temperature, calibration)


def _studied(choice: Choice, method: Method, stage: Stage, folder: Path) -> dict[str, Any]:
    """Calibration from validation and its performance on the test images; also stores the references.

    Computed once per model and images.
    """
    weights, path = folder / "honest.safetensors", folder / "honest-calibration.json"
    model = file_digest(weights)
    with suppress(UnseenError, KeyError, TypeError):
        found = read_json(path)
        spaced = choice.support is None or space_beside(weights).is_file()
        same = (found["model"], found["data"], found["ranks"]) == (model, stage.identity, choice.ranks)
        if same and spaced and references_beside(weights).is_file():
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
        "ranks": _ranks(choice, method, stage, threshold),
    }
    keep_references(method, stage, weights)
    if choice.support is not None:
        fitted_space(stage, SupportRule(**choice.support["rule"]), method).save(space_beside(weights))
    kept = {"model": model, "data": stage.identity, "ranks": choice.ranks, "calibration": calibration}
    write_json(path, kept, sealed=True)
    return calibration


def _ranks(choice: Choice, method: Method, stage: Stage, threshold: float) -> dict[str, Any] | None:
    """The thresholds of ranks with the answers that they give on validation and test images."""
    if choice.ranks is None or stage.taxonomy is None:
        return choice.ranks
    held = Held(stage.scores(method).numpy(), stage.test_labels, stage.seen)
    cases = both_cases([held], [stage.taxonomy], choice.gamma, choice.temperature)
    thresholds = {rank: RankThreshold(**one) for rank, one in choice.ranks["thresholds"].items()}
    return choice.ranks | {"test": answered(cases, thresholds, threshold)}


def keep_references(method: Method, stage: Stage, weights: Path) -> None:
    """Store the attribute scores of the training images beside the weights that ``method`` holds."""
    images, dataset, dtype = stage.partition.train, stage.inputs.dataset, weight_dtype(stage.inputs.config.precision)
    found = make_references(
        method.eval(),
        (stage.train.batch(positions).to(dtype) for positions in batches(len(images))),
        dataset.labels[images],
        [dataset.files[i] for i in images],
        dataset.table,
    )
    found.save(references_beside(weights))
