"""Try a method of somebody else's on a few training images, before a run begins."""

from __future__ import annotations

import numpy as np
import torch

from unseen.features.store import RegionStore
from unseen.methods import find_method
from unseen.methods.base import StartedMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.contract import try_method
from unseen.training.inputs import RunInputs
from unseen.training.stage import Stage

CLASSES, EACH = 8, 2
"""Training classes, and images of each."""


def try_outside(inputs: RunInputs) -> None:
    """Run a method on frozen features that is not of this package on a few training images.

    Raises:
        UnseenError: as :func:`unseen.methods.contract.try_method`.
    """
    kind, store = find_method(inputs.config.method), inputs.store
    ours = kind.__module__.startswith("unseen.")
    if ours or kind.reads_text or issubclass(kind, StartedMethod) or not isinstance(store, RegionStore):
        return
    stage = Stage(inputs, "final")
    rows = few(stage.train_labels)
    vectors = stage.classes.vectors
    regions = store.read(stage.partition.train[rows], 0).to(vectors.device, vectors.dtype)
    labels = torch.as_tensor(stage.train_labels[rows], device=vectors.device)
    kept = ~stage.classes.seen  # every seen class has images, as in training
    kept[labels] = True
    classes = ClassSpace(vectors[kept], stage.classes.seen[kept])
    try_method(kind, inputs.new_method, regions, torch.cumsum(kept, 0)[labels] - 1, classes)


def few(labels: np.ndarray) -> np.ndarray:
    """Positions of the first images of some classes."""
    return np.concatenate([np.flatnonzero(labels == c)[:EACH] for c in np.unique(labels)[:CLASSES]])
