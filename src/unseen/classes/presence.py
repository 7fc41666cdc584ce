"""Which classes have which attributes, for a table of values in any unit."""

from __future__ import annotations

import numpy as np

PRESENT = 0.5
"""A class has an attribute if its value exceeds this share of the attribute's largest."""


def present(values: np.ndarray) -> np.ndarray:
    """Bool ``(N, K)``: which of N classes have which of K attributes, see :data:`PRESENT`."""
    largest = np.abs(values).max(axis=0)
    has: np.ndarray = values > PRESENT * np.where(largest > 0, largest, 1)
    return has
