"""The offset of a closed form's final model."""

from __future__ import annotations

import numpy as np
import pytest

from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, gamma_keeping, kept_share
from unseen.training.offset import FOLDS, folds_of


def curve(offsets, right):
    """Seen images of one class: best seen class 0 where right, class 1 elsewhere."""
    n = len(offsets)
    scores = np.zeros((n, 3))
    scores[:, 2] = -np.array(offsets)
    scores[np.arange(n), np.where(right, 1, 0)] = 1e-9
    return SeenUnseenCurve.of(Decisions.from_scores(scores, np.zeros(n, int) + 1, np.array([True, True, False])))


def test_the_offset_leaves_the_share_asked_for():
    found = curve([0.1, 0.2, 0.3, 0.4, 0.5], [True, True, True, True, False])
    assert kept_share(found, -1.0) == 1
    assert kept_share(found, 0.25) == pytest.approx(0.5)
    for share, low, high in ((1.0, -np.inf, 0.1), (0.75, 0.1, 0.2), (0.5, 0.2, 0.3), (0.6, 0.1, 0.2), (0.0, 0.4, 0.51)):
        gamma = gamma_keeping(found, share)
        assert low <= gamma <= high + 1e-6
        assert kept_share(found, gamma - 1e-7) >= share - 1e-12


def test_folds_hold_a_fifth_of_every_class():
    labels = np.repeat([3, 0, 7, 5], [10, 5, 1, 2])
    fold = folds_of(labels, 4)
    np.testing.assert_array_equal(np.bincount(fold[labels == 3]), [2] * FOLDS)
    np.testing.assert_array_equal(np.sort(fold[labels == 0]), np.arange(FOLDS))
    assert fold[labels == 7] == -1
    assert (folds_of(labels, 4) == fold).all()
    assert (folds_of(labels, 5) != fold).any()
