"""Calibration offset of a closed form: transfer the share of correct seen answers from validation to the final model.

On the draws of validation classes, the offset with the best mean H keeps a certain share of the correct answers on seen
images. The scores of the final model may have another range, because it has more classes and images. It is therefore
solved five more times, each time without a fifth of every class's images. These images are scored among all classes,
including the unseen ones without images, and the offset is set to keep the same share of correct answers. No image of
an unseen class and no test image is used. Ours; chosen by nested validation (docs/explanation/protocols.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, gamma_keeping, kept_share
from unseen.training.outcomes import Choice
from unseen.training.stage import Stage

FOLDS = 5


def folds_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """``(n,)`` fold of each image, stratified by class; -1 (no fold) for the only image of a class."""
    rng = np.random.default_rng([seed, FOLDS])
    fold = np.full(len(labels), -1)
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        if len(mine) > 1:
            fold[rng.permutation(mine)] = np.arange(len(mine)) % FOLDS
    return fold


def matched(choice: Choice, stage: Stage, scored: Callable[[np.ndarray, np.ndarray], Tensor]) -> Choice:
    """The choice with the offset of the final stage.

    Args:
        choice: choice of validation.
        stage: ``final``.
        scored: maps positions of training images to solve on, and of others to score, to class scores ``(n, N)`` of the
            others.
    """
    if stage.seen.all():
        return choice
    fold, parts = folds_of(stage.train_labels, stage.inputs.config.split_seed), []
    for f in range(FOLDS):
        held = np.flatnonzero(fold == f)
        if len(held):
            scores = scored(np.flatnonzero(fold != f), held).double().cpu().numpy()
            parts.append(Decisions.from_scores(scores, stage.train_labels[held], stage.seen))
    if not parts:
        return choice
    joined = Decisions(*(np.concatenate(arrays) for arrays in zip(*(p.arrays().values() for p in parts), strict=True)))
    share = kept_share(SeenUnseenCurve.of(choice.decisions), choice.gamma)
    gamma = gamma_keeping(SeenUnseenCurve.of(joined), share)
    return replace(choice, metrics=choice.metrics | {"kept_share": share, "final_gamma": gamma})
