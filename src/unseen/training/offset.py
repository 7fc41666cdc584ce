"""The calibration offset of a closed form: what validation gives up of seen images' answers, found in the final model.

On the draws of validation classes the offset of the best mean H leaves a share of the right answers to seen images.
Scores of the model of all seen classes may lie elsewhere, since there are more classes and images to it. So it is
solved again without a fifth of every class's images, five times; these are scored among all classes, the real ones
without images included, and the offset is where the same share of right answers is left. No image of an unseen class
and no test image takes part. Ours; it was chosen by nested validation (docs/explanation/protocols.md).
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
    """``(n,)`` a fold of each image, stratified by class; -1, in none, for a class's only image."""
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
        choice: of validation.
        stage: ``final``.
        scored: training images to solve on and others to score, as positions in the stage's, to class scores
            ``(n, N)`` of the others.
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
