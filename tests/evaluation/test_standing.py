"""Accuracies beside guessing."""

from __future__ import annotations

import pytest

from unseen.evaluation.standing import standing


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
