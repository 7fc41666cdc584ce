"""Whether an accuracy is better than chance, as far as its interval and its classes can tell."""

from __future__ import annotations

from typing import Literal

Standing = Literal["above", "below", "equal", "too few"]

FEWEST_CLASSES = 3
"""Smallest number of classes for a statement."""
ENOUGH_CLASSES = 10
"""Number of classes from which an interval that includes chance tells about the model instead of the classes."""


def standing(low: float | None, high: float | None, chance: float, classes: int) -> Standing:
    """Compare an accuracy with chance.

    Args:
        low, high: 95% interval; ``None`` for none.
        chance: chance level.
        classes: number of distinct classes that it was measured on.

    Returns:
        ``above`` or ``below`` if the whole interval is; ``equal`` if it includes chance despite :data:`ENOUGH_CLASSES`
        classes; ``too few`` if there are too few classes to tell.
    """
    if low is None or high is None or classes < FEWEST_CLASSES:
        return "too few"
    if low > chance:
        return "above"
    if high < chance:
        return "below"
    return "equal" if classes >= ENOUGH_CLASSES else "too few"
