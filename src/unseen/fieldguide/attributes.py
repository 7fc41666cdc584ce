"""Possible looks of a field-guide bird: groups of attributes, each tied to a part of the body."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """Mutually exclusive attributes: a bird has exactly one value of every group.

    Attributes:
        name: name of the group, such as ``bill_color``.
        part: part of the body where it shows.
        values: possible values.
    """

    name: str
    part: str
    values: tuple[str, ...]


PARTS = ("bill", "crown", "eye", "throat", "breast", "belly", "back", "wing", "tail", "leg", "body")

GROUPS = (
    Group("bill_shape", "bill", ("conical", "needle", "hooked", "decurved")),
    Group("bill_color", "bill", ("red", "yellow", "black", "blue")),
    Group("crown_color", "crown", ("red", "black", "white", "blue")),
    Group("crest", "crown", ("crested", "smooth")),
    Group("eye_ring", "eye", ("ringed", "plain")),
    Group("eye_stripe", "eye", ("striped", "plain")),
    Group("throat_color", "throat", ("white", "black", "orange")),
    Group("breast_pattern", "breast", ("plain", "spotted", "streaked", "banded")),
    Group("belly_color", "belly", ("white", "yellow", "rust", "gray")),
    Group("back_color", "back", ("brown", "green", "slate", "black")),
    Group("wing_color", "wing", ("rufous", "green", "blue", "black")),
    Group("wing_bars", "wing", ("barred", "plain")),
    Group("tail_shape", "tail", ("forked", "rounded", "pointed", "square")),
    Group("leg_color", "leg", ("yellow", "black", "pink")),
    Group("leg_length", "leg", ("short", "long")),
    Group("size", "body", ("small", "large")),
)

ATTRIBUTES = tuple(f"{group.name}::{value}" for group in GROUPS for value in group.values)

PAIRS = (
    ("crest::crested", "bill_color::red"),
    ("wing_bars::barred", "tail_shape::forked"),
    ("leg_color::yellow", "eye_ring::ringed"),
)
"""Attributes that are correlated in training species, less so in validation species, not in unseen ones."""

Appearance = Mapping[str, str]
"""The value of every group, by the group's name."""


def random_appearance(rng: np.random.Generator) -> dict[str, str]:
    """A random appearance, with every group's value drawn independently and uniformly."""
    return {group.name: group.values[int(rng.integers(len(group.values)))] for group in GROUPS}


def attribute_vector(appearance: Appearance) -> np.ndarray:
    """One number per attribute in the order of `ATTRIBUTES`: 1 if the bird has it, else 0."""
    return np.array([float(appearance[group.name] == value) for group in GROUPS for value in group.values])
