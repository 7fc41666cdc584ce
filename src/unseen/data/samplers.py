"""Samplers choose the images of a training step: a pure function of seed and step, so resuming needs only the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unseen.errors import UnseenError

Sampler = Callable[[int], np.ndarray]
"""Maps a step number to the positions of its images."""


def random_images(count: int, batch_size: int, seed: int) -> Sampler:
    """Draws different images for every step independently (MSDN's release on CUB)."""
    size = min(batch_size, count)
    return lambda step: np.random.default_rng([seed, step]).permutation(count)[:size]


def images_of_classes(labels: np.ndarray, batch_size: int, seed: int, shots: int = 1) -> Sampler:
    """Draws ``batch_size / shots`` different classes per step, and ``shots`` different images of each.

    MSDN's release uses one image of each on SUN and AWA2, Mg-MRN's two. A class with fewer images repeats them.
    """
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    ways = min(batch_size // shots, len(members))

    def draw(step: int) -> np.ndarray:
        rng = np.random.default_rng([seed, step])
        classes = rng.permutation(len(members))[:ways]
        return np.concatenate([rng.choice(m, shots, shots > len(m)) for m in (members[c] for c in classes)])

    return draw


def create_sampler(name: str, labels: np.ndarray, batch_size: int, seed: int, shots: int = 1) -> Sampler:
    """Make the sampler of a recipe: ``random`` or ``classes``."""
    if name == "random":
        return random_images(len(labels), batch_size, seed)
    if name == "classes":
        return images_of_classes(labels, batch_size, seed, shots)
    raise UnseenError(f'unknown sampler "{name}"', hint="use random or classes")
