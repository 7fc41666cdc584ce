"""Which pictures make up a training step: a pure function of seed and step, so that resuming needs only the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unseen.errors import UnseenError

Sampler = Callable[[int], np.ndarray]
"""Step number to the positions of its pictures."""


def random_pictures(count: int, batch_size: int, seed: int) -> Sampler:
    """Every step an independent draw of different pictures (MSDN's release on CUB)."""
    size = min(batch_size, count)
    return lambda step: np.random.default_rng([seed, step]).permutation(count)[:size]


def one_picture_a_class(labels: np.ndarray, batch_size: int, seed: int) -> Sampler:
    """Every step ``batch_size`` different classes, one picture of each (MSDN's release on SUN and AWA2)."""
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    size = min(batch_size, len(members))

    def draw(step: int) -> np.ndarray:
        rng = np.random.default_rng([seed, step])
        return np.array([rng.choice(members[c]) for c in rng.permutation(len(members))[:size]])

    return draw


def create_sampler(name: str, labels: np.ndarray, batch_size: int, seed: int) -> Sampler:
    """The sampler that a recipe names: ``random`` or ``classes``."""
    if name == "random":
        return random_pictures(len(labels), batch_size, seed)
    if name == "classes":
        return one_picture_a_class(labels, batch_size, seed)
    raise UnseenError(f'unknown sampler "{name}"', mend="random or classes")
