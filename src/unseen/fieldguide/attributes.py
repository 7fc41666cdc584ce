"""What a field-guide bird can look like: groups of attributes, each tied to a part of the body."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """Attributes that exclude each other: a bird has exactly one value of every group.

    Attributes:
        name: what the group is about, such as ``bill_color``.
        part: the part of the body where it shows.
        values: what it may be.
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
"""Attributes that go together in the training species, less in the validation ones, and come apart in the unseen."""

Appearance = Mapping[str, str]
"""The value of every group, by the group's name."""


def random_appearance(rng: np.random.Generator) -> dict[str, str]:
    """An appearance with every group's value drawn on its own, all values alike likely."""
    return {group.name: group.values[int(rng.integers(len(group.values)))] for group in GROUPS}


def attribute_vector(appearance: Appearance) -> np.ndarray:
    """One number per attribute in the order of `ATTRIBUTES`: 1 where the bird has it, else 0."""
    return np.array([float(appearance[group.name] == value) for group in GROUPS for value in group.values])
