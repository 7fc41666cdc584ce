"""Accuracies beside guessing."""

from __future__ import annotations

import numpy as np
import pytest

from unseen.evaluation.standing import standing
from unseen.training.holdouts import pooled_interval


@pytest.mark.parametrize(
    ("low", "high", "chance", "classes", "said"),
    [
        (0.55, 0.9, 0.5, 6, "above"),
        (0.1, 0.4, 0.5, 6, "below"),
        (0.4, 0.9, 0.5, 6, "too few"),  # spans guessing
        (0.08, 0.12, 0.1, 10, "equal"),
        (0.9, 1.0, 0.5, 2, "too few"),  # one draw of two classes never says anything
        (0.0, 0.1, 0.5, 2, "too few"),
        (None, None, 0.5, 9, "too few"),
    ],
)
def test_standing(low, high, chance, classes, said):
    assert standing(low, high, chance, classes) == said


def test_pooled_interval_is_over_draws_too():
    # images say nothing: two draws of 0.2 and 0.6 are drawn with replacement, so the mean is 0.2, 0.4 or 0.6; the
    # spread is widened by sqrt(2)
    low, high = pooled_interval(np.tile([0.2, 0.6], (1000, 1)))
    assert low == pytest.approx(0.4 - 0.2 * np.sqrt(2))
    assert high == pytest.approx(0.4 + 0.2 * np.sqrt(2))
    # one draw: over its images alone
    one = np.linspace(0, 1, 1001)[:, None]
    assert pooled_interval(one) == pytest.approx((0.025, 0.975))
    assert pooled_interval(np.tile([0.0, 1.0], (1000, 1))) == (0.0, 1.0)
