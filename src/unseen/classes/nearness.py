"""Which classes of a table are near each other, and in how many attributes they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unseen.classes.table import ClassTable

NEAR = 0.995
"""Classes with a larger cosine are nearly equal, regardless of other classes."""
CLOSE = 0.95
"""Classes with a smaller cosine never count as nearly equal."""
DIFFERS = 0.1
"""Two classes differ in an attribute if their values differ by more than this share of its range in the table."""
ROWS = 1024
"""Number of classes compared with all others at a time."""


@dataclass(frozen=True)
class Near:
    """A class near another one.

    Args:
        name, seen: of the class.
        cosine: cosine of the two class vectors.
        differing: number of attributes that differ, see :data:`DIFFERS`.
        nearly_equal: whether the cosine is above :data:`NEAR`, or above :data:`CLOSE` and that of any two seen classes:
            the model never had to learn such a small difference.
    """

    name: str
    seen: bool
    cosine: float
    differing: int
    nearly_equal: bool


@dataclass(frozen=True)
class Pair:
    """Two classes whose vectors have a large cosine; see :class:`Near`."""

    first: str
    second: str
    cosine: float
    differing: int


def directions(vectors: np.ndarray) -> np.ndarray:
    """Rows ``(N, K)`` scaled to unit length; rows of 0 stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(length > 0, length, 1)
    return unit


def apart(table: ClassTable, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Bool: whether values ``(..., K)`` differ by more than :data:`DIFFERS` of their range."""
    differs: np.ndarray = np.abs(first - second) > DIFFERS * np.ptp(table.values, axis=0)
    return differs


def closest(table: ClassTable, name: str, count: int = 5, unit: np.ndarray | None = None) -> list[Near]:
    """The classes nearest to one, nearest first.

    Args:
        table: class table.
        name: the class.
        count: number of neighbors.
        unit: ``(N, K)`` class vectors of unit length; ``None`` for the directions of the table's values.
    """
    unit, mine = directions(table.values) if unit is None else unit, table.index(name)
    cosine = unit @ unit[mine]
    pairs = _pairs(unit[table.seen], 1)
    limit = min(NEAR, max(CLOSE, pairs[0][2] if pairs else 1.0))
    order = [int(c) for c in np.argsort(-cosine, kind="stable") if c != mine][:count]
    return [
        Near(
            table.names[c],
            bool(table.seen[c]),
            float(cosine[c]),
            int(apart(table, table.values[c], table.values[mine]).sum()),
            bool(cosine[c] > limit),
        )
        for c in order
    ]


def closest_pairs(table: ClassTable, count: int = 10, unit: np.ndarray | None = None) -> list[Pair]:
    """Pairs of classes with the largest cosines in the whole table; arguments as in :func:`closest`."""
    found = _pairs(directions(table.values) if unit is None else unit, count)
    return [
        Pair(table.names[a], table.names[b], cosine, int(apart(table, table.values[a], table.values[b]).sum()))
        for a, b, cosine in found
    ]


def _pairs(unit: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """Pairs of rows with the largest cosines, computed in blocks; memory is ``ROWS x N``."""
    best: list[tuple[float, int, int]] = []
    for start in range(0, len(unit), ROWS):
        cosine = unit[start : start + ROWS] @ unit.T
        cosine[np.arange(len(unit)) <= np.arange(start, start + len(cosine))[:, None]] = -np.inf
        few = np.argpartition(-cosine, min(count, cosine.size) - 1, axis=None)[:count]
        rows, columns = np.unravel_index(few, cosine.shape)
        best += [(-float(cosine[r, c]), start + int(r), int(c)) for r, c in zip(rows, columns, strict=True)]
        best = sorted(pair for pair in best if np.isfinite(pair[0]))[:count]
    return [(a, b, -negative) for negative, a, b in best]
