"""Protocols: who may look at the test images, and when.

``honest``: epoch or hyper-parameters, the calibration offset gamma and the softmax temperature are chosen on validation
classes taken from the seen classes; then one training on all seen classes, tested once. One model for every number.

``paper``: what the field does. The best epoch (or hyper-parameters) is picked *on the test set*, for T1 and for H
apart; gamma is picked there too where the method's own protocol sweeps it, and is 0 otherwise.

When both are asked for they share the training on all seen classes: the honest number is read at the epoch that
validation chose, which is what a separate training for that many epochs would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from unseen.errors import DataError
from unseen.ground.progress import Progress, silent
from unseen.methods import find_method
from unseen.training import closed_form, gradient
from unseen.training.decisions import decisions_path, save_decisions
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Choice, Result
from unseen.training.stage import Stage


def run_seeds(
    inputs: RunInputs,
    seeds: Sequence[int],
    folder: Path,
    protocols: tuple[str, ...],
    progress: Progress = silent,
) -> dict[int, dict[str, Result]]:
    """Train and test every seed under the protocols; what was finished earlier is read, not done again.

    All seeds choose first and are trained on all seen classes then, so that one stage's features are in memory at a
    time. ``folder/seed-N/PROTOCOL.safetensors`` holds the weights.

    Raises:
        DataError: a protocol has no held-out images of seen or unseen classes to choose by.
    """
    for protocol in protocols:
        _check_held_out(inputs, protocol)
    choices: dict[int, Choice | None] = dict.fromkeys(seeds)
    if "honest" in protocols:
        choices.update(validate_seeds(inputs, seeds, folder, progress))
    stage, kind = Stage(inputs, "final"), _kind(inputs)
    results = {
        seed: kind.finish(seed, folder / f"seed-{seed}", protocols, stage, choice, progress)
        for seed, choice in choices.items()
    }
    for seed, found in results.items():
        for protocol, result in found.items():
            for metric, decisions in (("T1", result.t1), ("H", result.gzsl)):
                save_decisions(decisions_path(folder, seed, protocol, metric), decisions)
    return results


def validate_seeds(
    inputs: RunInputs, seeds: Sequence[int], folder: Path, progress: Progress = silent
) -> dict[int, Choice]:
    """The validation stage of every seed alone: what ``honest`` would choose, without a look at a test image.

    :func:`run_seeds` in the same folder goes on from there.

    Raises:
        DataError: no held-out images of seen or unseen classes to choose by.
    """
    _check_held_out(inputs, "honest")
    stage, kind = Stage(inputs, "validation"), _kind(inputs)
    return {seed: kind.choose(seed, folder / f"seed-{seed}", stage, progress) for seed in seeds}


def _kind(inputs: RunInputs) -> ModuleType:
    """How a method is chosen and finished: :mod:`closed_form` or :mod:`gradient`."""
    return closed_form if find_method(inputs.config.method).closed_form else gradient


def _check_held_out(inputs: RunInputs, protocol: str) -> None:
    stage, hint = {
        "paper": ("final", "use the honest protocol"),
        "honest": ("validation", "give every class 2 or more images"),
    }[protocol]
    chooser = inputs.partition(stage)
    for kind, images in (("seen", chooser.test_seen), ("unseen", chooser.test_unseen)):
        if not len(images):
            problem = f"the {protocol} protocol has no held-out images of {kind} classes to choose by"
            raise DataError(problem, where=inputs.dataset.name, hint=hint)
