"""Advice on classes: which are hard to tell apart, by which attributes they differ, and which values to refine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unseen.classes import nearness
from unseen.classes.nearness import DIFFERS, Near, Pair, apart
from unseen.classes.presence import PRESENT
from unseen.errors import UnseenError
from unseen.model.trained import TrainedModel


@dataclass(frozen=True)
class Divider:
    """An attribute that separates two classes.

    Args:
        attribute: name of the attribute.
        first_value, second_value: values of the classes, in the table's unit.
        lead: mean difference, between images of the first and of the second class, in what the attribute adds to the
            lead of the first class; ``None`` if the model's training images are unknown.
        auroc: how well the attribute's score separates training images with and without it; ``None`` likewise.
    """

    attribute: str
    first_value: float
    second_value: float
    lead: float | None
    auroc: float | None


@dataclass(frozen=True)
class Separation:
    """What separates two classes, and what could.

    Args:
        first, second: the classes.
        cosine: cosine of their class vectors.
        today: attributes in which they differ, those that separate them most first.
        refine: attributes with equal values for both that the model recognizes well, so values to check. Only
            attributes that vary between training classes and for which at least one of the two has half of the largest
            value. One per group; groups without any difference only, if there are such groups.
    """

    first: str
    second: str
    cosine: float
    today: tuple[Divider, ...]
    refine: tuple[Divider, ...]


def directions(model: TrainedModel) -> np.ndarray:
    """``(N, K)`` class vectors of unit length; from the table's values if the method has no class vectors."""
    return nearness.directions(model.class_vectors if model.class_vectors.any() else model.table.values)


def closest(model: TrainedModel, name: str, count: int = 5) -> list[Near]:
    """Classes nearest to one by the vectors that the method scores with, nearest first."""
    return nearness.closest(model.table, name, count, directions(model))


def nearly_equal(model: TrainedModel, name: str) -> Near | None:
    """The class that is nearly equal to one, for a warning; ``None`` if there is none."""
    return next((near for near in closest(model, name, 1) if near.nearly_equal), None)


def closest_pairs(model: TrainedModel, count: int = 10) -> list[Pair]:
    """Pairs of classes with the largest cosines in the whole table."""
    return nearness.closest_pairs(model.table, count, directions(model))


def separate(model: TrainedModel, first: str, second: str, count: int = 5) -> Separation:
    """What separates two classes, and which attributes would if their values were refined.

    With s_k the slope of attribute k's score on the class value over the training images (0 if not learned), v the
    classes' values and z their vectors, the lead of an attribute is ``s_k (v_ak - v_bk) (z_ak - z_bk)``. If training
    images are unknown, attributes are ordered by ``|z_ak - z_bk|``, and in ``refine`` by how much they vary between
    classes.

    Raises:
        UnseenError: both classes are the same, or one has no attributes.
    """
    table, unit, vectors = model.table, directions(model), model.class_vectors
    a, b = table.index(first), table.index(second)
    if a == b:
        raise UnseenError(f'"{first}" twice', hint="pass two classes")
    for name in (table.names[a], table.names[b]):
        if not model.support[name].attributes:
            problem = f'"{name}" has images but no attributes'
            raise UnseenError(problem, hint="describe it first: unseen classes edit RUN CLASS --set ATTRIBUTE=VALUE")
    values, gap = table.values, vectors[a] - vectors[b]
    fit = None if model.references is None else model.references.fit
    lead = None if fit is None else np.where(fit.learned, fit.slope, 0) * (values[a] - values[b]) * gap

    def divider(k: int) -> Divider:
        area = None if fit is None or np.isnan(fit.auroc[k]) else float(fit.auroc[k])
        return Divider(
            table.attributes.names[k],
            float(values[a, k]),
            float(values[b, k]),
            None if lead is None else float(lead[k]),
            area,
        )

    differs = apart(table, values[a], values[b])
    weight = np.abs(gap if gap.any() else unit[a] - unit[b]) if lead is None else lead
    today = [int(k) for k in np.argsort(-weight, kind="stable") if differs[k]][:count]
    spread, trained = np.ptp(values, axis=0), values[table.seen] if table.seen.any() else values
    largest = np.abs(values).max(axis=0)
    possible = (np.maximum(values[a], values[b]) >= PRESENT * largest) & (np.ptp(trained, axis=0) > DIFFERS * spread)
    if fit is None:
        promise = np.std(values, axis=0) / np.where(spread > 0, spread, 1)
    else:
        promise = np.where(fit.learned, np.nan_to_num(fit.auroc, nan=0.0), 0)
    possible &= (promise > 0) & (spread > 0) & ~differs
    order = [int(k) for k in np.argsort(-promise, kind="stable") if possible[k]]
    refine = _one_of_each_group(table.attributes.groups, order, differs)[:count]
    return Separation(first, second, float(unit[a] @ unit[b]), tuple(map(divider, today)), tuple(map(divider, refine)))


def _one_of_each_group(groups: Sequence[str], order: Sequence[int], apart: np.ndarray) -> list[int]:
    """The first attribute of each group; only groups without a difference, if there are any."""
    differing = {groups[int(k)] for k in np.flatnonzero(apart)}
    first: dict[str, int] = {}
    for k in order:
        first.setdefault(groups[k], k)
    alike = [k for group, k in first.items() if group not in differing]
    return alike or list(first.values())
