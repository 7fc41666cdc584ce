"""Protocols: who may use the test images, and when.

``honest``: epoch or hyperparameters, the offset gamma, the softmax temperature, the threshold of "unknown" and the
weight of support images are chosen on several draws of validation classes from the seen classes, all draws together.
Then one training on all seen classes is tested once. One model gives every number.

``paper``: common practice in the field. The best epoch (or hyperparameters) is picked *on the test set*, separately for
T1 and for H; gamma is also picked there if the method's own protocol sweeps it, and is 0 otherwise.

If both are requested, they share the training on all seen classes: the honest number is read at the epoch that
validation chose, which equals a separate training for that many epochs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from unseen.classes.taxonomy import Taxonomy
from unseen.data.dataset import digest
from unseen.evaluation.registry import HEADLINES
from unseen.ground.progress import Progress, silent
from unseen.methods import find_method
from unseen.methods.base import AnchoredMethod, RefitMethod, StartedMethod
from unseen.training import anchored, closed_form, gradient, refitted
from unseen.training.decisions import decisions_path, save_decisions
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Choice, Result, choice_of
from unseen.training.plan import check_held_out
from unseen.training.seed import Final, SeedValidation
from unseen.training.stage import Stage
from unseen.training.support import held_out_vectors, takes_images
from unseen.training.temperature import Held


def run_seeds(
    inputs: RunInputs,
    seeds: Sequence[int],
    folder: Path,
    protocols: tuple[str, ...],
    progress: Progress = silent,
) -> dict[int, dict[str, Result]]:
    """Train and test every seed under the protocols; finished parts are read instead of repeated.

    First all seeds choose, draw by draw; then all are trained on all seen classes. So only one stage's features are in
    memory at a time. ``folder/seed-N/PROTOCOL.safetensors`` holds the weights.

    Raises:
        DataError: a protocol has no held-out images of seen or unseen classes for its choices.
    """
    for protocol in protocols:
        check_held_out(inputs.dataset, protocol, inputs.config)
    inputs = _started(inputs, seeds, folder, progress)
    choices: dict[int, Choice | None] = dict.fromkeys(seeds)
    if "honest" in protocols:
        choices.update(validate_seeds(inputs, seeds, folder, progress))
    stage, kind = Stage(inputs, "final"), _kind(inputs)
    results = {
        seed: kind.finish(Final(seed, folder / f"seed-{seed}", protocols, stage, choice, progress))
        for seed, choice in choices.items()
    }
    for seed, found in results.items():
        for protocol, result in found.items():
            for metric, decisions in zip(HEADLINES, (result.t1, result.gzsl), strict=True):
                save_decisions(decisions_path(folder, seed, protocol, metric), decisions)
    return results


def validate_seeds(
    inputs: RunInputs,
    seeds: Sequence[int],
    folder: Path,
    progress: Progress = silent,
    after: Callable[[SeedValidation], None] | None = None,
) -> dict[int, Choice]:
    """Only the validation stage of every seed: what ``honest`` would choose, without using a test image.

    :func:`run_seeds` in the same folder continues from there. ``after`` is called after every draw of every seed, and
    may stop the validation by an exception.

    Raises:
        DataError: there are no held-out images of seen or unseen classes for the choices.
    """
    check_held_out(inputs.dataset, "honest", inputs.config)
    inputs = _started(inputs, seeds, folder, progress)
    count, kind = inputs.config.draw_count, _kind(inputs)
    identity = identity_of(inputs, count)
    kept = {seed: folder / f"seed-{seed}" / "choice.json" for seed in seeds}
    choices = {seed: Choice.load(path, identity) for seed, path in kept.items()}
    open_seeds = {seed: kind.Validation(seed, folder / f"seed-{seed}") for seed in seeds if choices[seed] is None}
    if open_seeds:
        vectors: list[np.ndarray] = []
        for draw in range(count):
            stage = Stage(inputs, "validation", draw)
            for validation in open_seeds.values():
                validation.draw(stage, progress)
                if after is not None:
                    after(validation)
            if takes_images(stage):
                vectors.append(held_out_vectors(stage))
        picks = {seed: validation.best(inputs) for seed, validation in open_seeds.items()}
        held: dict[int, list[Held]] = {seed: [] for seed in open_seeds}
        own: dict[int, list[np.ndarray]] = {seed: [] for seed in open_seeds}
        taxonomies: list[Taxonomy] = []
        for draw in range(count):
            if count > 1:
                stage = Stage(inputs, "validation", draw)
            for seed, validation in open_seeds.items():
                held[seed].append(validation.scores(stage, picks[seed]))
                if (found := validation.vectors(stage, picks[seed])) is not None:
                    own[seed].append(found)
            if stage.taxonomy is not None:
                taxonomies.append(stage.taxonomy)
        for seed, validation in open_seeds.items():
            choice = choice_of(picks[seed], held[seed], own[seed] or vectors, taxonomies)
            if validation.race:
                choice.metrics["race"] = validation.race
            if validation.study:
                choice.metrics["study"] = validation.study
            choice.save(kept[seed], identity)
            validation.close()
            choices[seed] = choice
    return {seed: choice for seed, choice in choices.items() if choice is not None}


def identity_of(inputs: RunInputs, count: int) -> str:
    """Identity of what a choice depends on beside the run's configuration; a race has choices of two methods."""
    draws = [inputs.partition("validation", draw).fingerprint(inputs.dataset) for draw in range(count)]
    start = [] if inputs.start is None else [json.dumps(inputs.start)]
    config, taxonomy = inputs.config, inputs.dataset.table.taxonomy
    ranks = [] if taxonomy is None else [json.dumps([taxonomy.ranks, taxonomy.taxa])]
    return digest(inputs.store.fingerprint, config.method, config.select, inputs.with_images, *draws, *start, *ranks)


def _started(inputs: RunInputs, seeds: Sequence[int], folder: Path, progress: Progress) -> RunInputs:
    """The inputs, with the closed form that a method starts from chosen once for all seeds."""
    if inputs.start is not None or not issubclass(find_method(inputs.config.method), StartedMethod):
        return inputs
    choice = validate_seeds(inputs.of_start(), seeds[:1], folder / "start", progress)[seeds[0]]
    return replace(inputs, start=choice.pick)


def _kind(inputs: RunInputs) -> ModuleType:
    """Module that chooses and finishes a method."""
    method = find_method(inputs.config.method)
    if method.closed_form:
        return closed_form
    return anchored if issubclass(method, AnchoredMethod) else refitted if issubclass(method, RefitMethod) else gradient
