"""Whether an accuracy is better than guessing, as far as its interval and its classes can tell."""

from __future__ import annotations

from typing import Literal

Standing = Literal["above", "below", "equal", "too few"]

FEWEST_CLASSES = 3
"""Classes below which nothing is said."""
ENOUGH_CLASSES = 10
"""Classes from which an interval that spans guessing says something of the model, not of the classes."""


def standing(low: float | None, high: float | None, chance: float, classes: int) -> Standing:
    """An accuracy beside guessing.

    Args:
        low, high: its 95% interval; ``None`` where there is none.
        chance: what guessing gives.
        classes: distinct classes that it was measured on.

    Returns:
        ``above`` or ``below`` where the whole interval is, ``equal`` where it spans guessing though there are
        :data:`ENOUGH_CLASSES`, and ``too few`` where the classes are too few to tell.
    """
    if low is None or high is None or classes < FEWEST_CLASSES:
        return "too few"
    if low > chance:
        return "above"
    if high < chance:
        return "below"
    return "equal" if classes >= ENOUGH_CLASSES else "too few"
