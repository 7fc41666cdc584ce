"""Anchored methods in a run: choose the closed form, then whether and how much the trained parts count.

The closed form is chosen as if it were alone. The rest is then trained on top of it, on the same draws of validation
classes. The best combination of an epoch and shares of the trained parts is used if it beats the closed form by more
than one standard error: with d the difference of the metric on a draw, each at its own common offset, if mean(d) >
std(d) / sqrt(draws). Otherwise the shares are 0, nothing is trained on all seen classes, and the model is the closed
form. A single draw gives no standard error, so the shares are 0 then. Shares fixed by settings are not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from unseen.errors import RunError
from unseen.evaluation.metrics import Decisions
from unseen.ground.files import read_arrays, write_arrays
from unseen.ground.progress import Progress
from unseen.methods import find_method
from unseen.methods.base import AnchoredMethod, Method
from unseen.model.weights import load_weights, save_weights
from unseen.training import gradient
from unseen.training.batches import batches
from unseen.training.decisions import load_decisions, save_decisions
from unseen.training.divergence import broken_features, not_finite
from unseen.training.fabric import weight_dtype
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Result, gain, honest_result, keep_references, measure, values_of
from unseen.training.seed import Final
from unseen.training.stage import Stage
from unseen.training.temperature import Held

T = TypeVar("T")
Shares = tuple[float, ...]
"""Shares of the trained parts, in their order."""


def _candidates(inputs: RunInputs) -> tuple[list[Shares], list[Shares]]:
    """The fallback shares (0, or as the settings fix them), and the shares to choose from."""
    kind = _kind(inputs)
    fixed = kind.fixed_shares(inputs.settings)
    back = tuple(fixed.get(part, 0.0) for part in kind.trained_parts)
    choices = [(fixed[part],) if part in fixed else (0.0, *shares) for part, shares in kind.trained_parts.items()]
    return [back], [shares for shares in product(*choices) if shares != back]


def _kind(inputs: RunInputs) -> type[AnchoredMethod]:
    kind = find_method(inputs.config.method)
    assert issubclass(kind, AnchoredMethod)
    return kind


def _by_part(inputs: RunInputs, shares: Shares) -> dict[str, float]:
    return dict(zip(_kind(inputs).trained_parts, shares, strict=True))


class Validation(gradient.Validation):
    """Chooses epoch and shares; ``study`` records by how much the best beat the closed form."""

    def draw(self, stage: Stage, progress: Progress) -> None:
        """Solve and train on the training classes of a draw, and store class scores of every epoch for each part."""
        folder, inputs = self._folder / stage.name, stage.inputs
        self._stages.append((folder, stage.test_labels, stage.seen))
        folder.mkdir(parents=True, exist_ok=True)
        _check_features(stage)

        def keep(epoch: int, part: str, method: Method) -> np.ndarray:
            shares = {part: 1.0} if part else {}
            scores = _at_shares(method, shares, lambda: stage.scores(method).numpy())
            write_arrays(_scores_path(folder, epoch, part), scores=scores)
            return scores

        def validate(epoch: int, method: Method, earlier: gradient.Records) -> dict[str, Any]:
            if epoch == 1:
                keep(0, "", method)
            for part in _kind(inputs).trained_parts:
                scores = keep(epoch, part, method)
            return measure(Decisions.from_scores(scores, stage.test_labels, stage.seen), stage.seen)

        back, others = _candidates(inputs)
        if any(back[0]) or (others and inputs.config.draw_count > 1):
            gradient.train_stage(stage, self._seed, folder, "scores", validate, progress)
        else:
            keep(0, "", _started(self._seed, stage))

    def best(self, inputs: RunInputs) -> dict[str, Any]:
        """Epoch and shares, with the hyperparameters of the closed form."""
        assert inputs.recipe is not None
        assert inputs.start is not None
        seens, epochs = [seen for _, _, seen in self._stages], inputs.recipe.epochs
        parts = _kind(inputs).trained_parts

        def values(epoch: int, shares: Shares) -> np.ndarray:
            held = [self._mixed(*stage, epoch, _by_part(inputs, shares)) for stage in self._stages]
            decisions = [Decisions.from_scores(h.scores, h.labels, h.seen) for h in held]
            return values_of(decisions, seens, inputs.config.select)

        def best_of(every: list[Shares]) -> tuple[int, Shares, np.ndarray]:
            tried = [(e, s, values(e, s)) for s in every for e in (range(1, epochs + 1) if any(s) else (0,))]
            return max(tried, key=lambda found: float(found[2].mean()))

        back, others = _candidates(inputs)
        epoch, shares, start = best_of(back)
        if others and len(self._stages) > 1:
            other_epoch, other_shares, found = best_of(others)
            self.study, helps = gain(start, found, {"epoch": other_epoch, **_by_part(inputs, other_shares)})
            if helps:
                epoch, shares, start = other_epoch, other_shares, found
        self.value = float(start.mean())
        return {**inputs.start, "epoch": epoch, **dict(zip(parts, shares, strict=True))}

    def scores(self, stage: Stage, pick: dict[str, Any]) -> Held:
        """Class scores of the validation images of a draw."""
        folder, shares = self._folder / stage.name, _picked(stage.inputs, pick)
        return self._mixed(folder, stage.test_labels, stage.seen, pick["epoch"], _by_part(stage.inputs, shares))

    def _mixed(
        self, folder: Path, labels: np.ndarray, seen: np.ndarray, epoch: int, shares: Mapping[str, float]
    ) -> Held:
        """Class scores at an epoch and shares; they are linear in the shares."""
        start = scores = self._kept(folder, 0, "")
        for part, share in shares.items():
            if share:
                scores = scores + share * (self._kept(folder, epoch, part) - start)
        return Held(scores, labels, seen)

    @staticmethod
    def _kept(folder: Path, epoch: int, part: str) -> np.ndarray:
        with gradient.kept_by(folder):
            hint = "repeat the command of the run"
            return read_arrays(_scores_path(folder, epoch, part), ("scores",), RunError, hint)["scores"]


def _scores_path(folder: Path, epoch: int, part: str) -> Path:
    return folder / f"scores-{epoch}{part and '-'}{part}.npz"


def _picked(inputs: RunInputs, pick: Mapping[str, Any]) -> Shares:
    return tuple(pick[part] for part in _kind(inputs).trained_parts)


def finish(final: Final) -> dict[str, Result]:
    """Solve the closed form, and train if a share is above 0; for ``paper`` test every epoch at every share."""
    seed, stage, folder, choice, protocols = final.seed, final.stage, final.folder, final.choice, final.protocols
    inputs, kept = stage.inputs, folder / "final"
    assert inputs.recipe is not None
    _check_features(stage)
    kept.mkdir(parents=True, exist_ok=True)
    wanted = set[tuple[int, Shares]]()
    if choice is not None:
        wanted.add((choice.pick["epoch"], _picked(inputs, choice.pick)))
    if "paper" in protocols:
        every = [shares for some in _candidates(inputs) for shares in some]
        wanted |= {(e, s) for s in every for e in (range(1, inputs.recipe.epochs + 1) if any(s) else (0,))}
    last = max(epoch for epoch, _ in wanted)

    def at(epoch: int, shares: Shares) -> Path:
        return kept / f"epoch-{epoch}-{'-'.join(map(str, shares))}.npz"

    def weights(epoch: int) -> Path:
        return kept / f"epoch-{epoch}.safetensors"

    def test(epoch: int, method: Method, earlier: gradient.Records) -> dict[str, Any]:
        mine = sorted(shares for e, shares in wanted if e == epoch)
        if not mine:
            return {}
        save_weights(weights(epoch), method)
        for shares in mine:
            found = _at_shares(method, _by_part(inputs, shares), lambda: stage.decide(method))
            save_decisions(at(epoch, shares), found)
        return measure(found, stage.seen)

    method: Any = None
    if min(wanted)[0] == 0:
        method = _started(seed, stage)
        test(0, method, [])
    if last:
        method, _ = gradient.train_stage(stage, seed, kept, str(sorted(wanted)), test, final.progress, last)

    def load(epoch: int, shares: Shares) -> Decisions:
        with gradient.kept_by(kept):
            load_weights(weights(epoch), method)
            method.set_shares(_by_part(inputs, shares))
            return load_decisions(at(epoch, shares))

    results = {}
    if "paper" in protocols:
        tested = {}
        for key in sorted(wanted):
            with gradient.kept_by(kept):
                tested[key] = measure(load_decisions(at(*key)), stage.seen)
        best = {metric: max(tested, key=lambda key: tested[key][metric]) for metric in ("T1", "H")}
        t1, gzsl = load(*best["T1"]), load(*best["H"])
        save_weights(folder / "paper.safetensors", method)
        if choice is None:  # the model of the run
            keep_references(method, stage, folder / "paper.safetensors")
        picks = {m: {"epoch": e, **_by_part(inputs, shares)} for m, (e, shares) in best.items()}
        results["paper"] = Result(t1, gzsl, 0.0, {**picks, "by": "test set"}, None)
    if choice is not None:
        shares = _by_part(inputs, _picked(inputs, choice.pick))
        ready: Callable[[Any], object] = lambda trained: trained.set_shares(shares)  # noqa: E731
        scored = gradient.offset_scorer(seed, folder / "offset", stage, choice.pick, final.progress, ready)
        choice = final.with_offset(scored)
        decisions = load(choice.pick["epoch"], _picked(inputs, choice.pick))
        save_weights(folder / "honest.safetensors", method)
        results["honest"] = honest_result(choice, decisions, method, stage, folder)
    return results


def _at_shares(method: Method, shares: Mapping[str, float], work: Callable[[], T]) -> T:
    """Call a function of the method at some shares; resets them to 0."""
    assert isinstance(method, AnchoredMethod)
    method.set_shares(shares)
    try:
        return work()
    finally:
        method.set_shares({})


def _started(seed: int, stage: Stage) -> AnchoredMethod:
    """The method with its closed form, and shares of 0."""
    method: AnchoredMethod = stage.inputs.new_method(seed)
    dtype, device = weight_dtype(stage.inputs.config.precision), stage.fabric.device
    everything = (
        (stage.train.batch(rows).to(dtype), torch.as_tensor(stage.train_labels[rows], device=device))
        for rows in batches(len(stage.train_labels))
    )
    with torch.no_grad():
        method.start(everything, stage.classes)
    method.eval()
    return method


def _check_features(stage: Stage) -> None:
    """Raise an error that names the training images with features that are not finite."""
    inputs, images = stage.inputs, stage.partition.train
    broken = [
        inputs.dataset.files[images[rows[i]]]
        for rows in batches(len(images))
        for i in not_finite(stage.train.batch(rows))
    ]
    if broken:
        raise broken_features(broken, inputs.config.method)
