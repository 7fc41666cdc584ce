"""Images, classes and features of one stage of a run: ``final``, or a draw of ``validation``."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unseen.data.dataset import digest
from unseen.data.frozen import FrozenSource, FrozenStore
from unseen.data.images import ImageSource, ImageStore
from unseen.evaluation.calibration import Answers
from unseen.evaluation.metrics import Decisions
from unseen.features.source import RegionSource
from unseen.ground.distributed import rows_of_all
from unseen.methods import find_method
from unseen.methods.base import Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.preparation import FeaturePreparation
from unseen.methods.settings import EndToEndRecipe
from unseen.model.assembled import EndToEnd
from unseen.model.scoring import ClassScorer
from unseen.training.batches import ahead, own_batches
from unseen.training.deciding import decide, query
from unseen.training.fabric import PRECISIONS, weight_dtype
from unseen.training.inputs import RunInputs
from unseen.training.steps import Features
from unseen.vectors.sources import name_things


class Stage:
    """Features, labels and classes of one stage on the device; features are prepared on first use.

    Attributes:
        whitened: whitening of all training images, if a closed form has fitted it.
    """

    whitened: FeaturePreparation | None = None

    def __init__(self, inputs: RunInputs, name: str, draw: int = 0) -> None:
        self.inputs, self.fabric = inputs, inputs.fabric
        self.name = f"{name}-{draw + 1}" if draw else name
        self.partition = partition = inputs.partition(name, draw)
        table = inputs.dataset.table
        position = np.full(len(table), -1)
        position[partition.classes] = np.arange(len(partition.classes))
        labels = position[inputs.dataset.labels]
        dtype = weight_dtype(inputs.config.precision)
        vectors = torch.from_numpy(table.values[partition.classes])
        words = None
        if inputs.tower is not None:
            words = name_things([table.names[c] for c in partition.classes], table.attributes, inputs.tower)
        self.classes = ClassSpace(vectors, torch.from_numpy(partition.seen.copy()), words).to(self.fabric.device, dtype)
        self.held_out = np.concatenate([partition.test_seen, partition.test_unseen])
        self.train_labels, self.test_labels = labels[partition.train], labels[self.held_out]
        self.identity = digest(inputs.store.fingerprint, partition.fingerprint(inputs.dataset))
        self.seen = partition.seen
        self.taxonomy = None if table.taxonomy is None else table.taxonomy.select(partition.classes)

    def features(self, images: np.ndarray, budget_bytes: int | None = None) -> Features:
        """Prepared regions of some images of the dataset, or what the method takes instead.

        Args:
            images: positions in the dataset.
            budget_bytes: memory for regions, instead of the run's; images are kept by their store.
        """
        inputs, device, dtype = self.inputs, self.fabric.device, weight_dtype(self.inputs.config.precision)
        if isinstance(inputs.store, FrozenStore):
            return FrozenSource(inputs.store, images, device=device, dtype=dtype)
        if isinstance(inputs.store, ImageStore):
            recipe = inputs.recipe
            assert isinstance(recipe, EndToEndRecipe)
            return ImageSource(inputs.store, images, device=device, dtype=dtype, resize=recipe.resize, flip=recipe.flip)
        return RegionSource(
            inputs.store,
            images,
            device=device,
            dtype=PRECISIONS[inputs.config.precision],
            prepare=find_method(inputs.config.method).prepare,
            budget_bytes=inputs.budget_bytes if budget_bytes is None else budget_bytes,
        )

    @cached_property
    def train(self) -> Features:
        """Features of the training images."""
        return self.features(self.partition.train)

    @cached_property
    def test(self) -> Features:
        """Features of the held-out images."""
        return self.features(self.held_out)

    def decide(self, method: Method) -> Decisions:
        """Decisions on the held-out images."""
        return decide(method, self.test, self.test_labels, self.classes, self.fabric)

    def scores(self, method: Method) -> Tensor:
        """``(M, N)`` class scores of the held-out images, to fit the temperature."""
        with torch.inference_mode():
            mine, rows = own_batches(len(self.test_labels))
            regions = ahead(self.test.batch, mine, self.test)
            scorer = ClassScorer(method, self.classes)
            found = [scorer.scores(query(method, own, self.classes, self.fabric)) for own in regions]
        scores = torch.from_numpy(np.concatenate([np.zeros((0, len(self.seen))), *found]))
        return rows_of_all(scores, rows, len(self.test_labels))

    def answers(self, method: Method, gamma: float, temperature: float) -> Answers:
        """Answers on the held-out images, computed in batches."""
        mine, rows = own_batches(len(self.test_labels))
        parts = [
            Answers.from_scores(np.zeros((0, len(self.seen))), self.test_labels[:0], self.seen, gamma, temperature)
        ]
        with torch.inference_mode():
            scorer = ClassScorer(method, self.classes)
            for positions, regions in zip(mine, ahead(self.test.batch, mine, self.test), strict=True):
                scores = scorer.scores(query(method, regions, self.classes, self.fabric))
                parts.append(Answers.from_scores(scores, self.test_labels[positions], self.seen, gamma, temperature))
        own = Answers.joined(parts)
        table = torch.from_numpy(np.stack([own.confidence, own.right, own.unseen, own.offset], axis=1).astype(float))
        confidence, right, unseen, offset = rows_of_all(table, rows, len(self.test_labels)).numpy().T
        return Answers(confidence, right.astype(bool), unseen.astype(bool), offset)


@torch.inference_mode()
def solvable_features(method: EndToEnd, features: Features) -> Tensor:
    """``(n, R', C)`` what the closed form of a method takes of every image."""
    mine, rows = own_batches(len(features))
    found = [method.solvable(batch) for batch in ahead(features.batch, mine, features)]
    return rows_of_all(torch.cat(found), rows, len(features))


class Kept:
    """Features ``(n, R', C)`` in memory."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    def __len__(self) -> int:
        """Number of images."""
        return len(self._features)

    def batch(self, positions: Any) -> Tensor:
        """Features of the images at these positions."""
        return self._features[torch.as_tensor(positions, device=self._features.device)]


class KeptStage(Stage):
    """A stage with the features of a trained backbone in memory, for the closed form on them."""

    @classmethod
    def of(cls, stage: Stage, train: Tensor, test: Tensor) -> Self:
        """Make it from a stage, and features ``(n, 1, C)`` of its training and held-out images."""
        made = cls.__new__(cls)
        made.__dict__ |= stage.__dict__ | {"inputs": stage.inputs.of_start(), "whitened": None}
        made.train, made.test = Kept(train), Kept(test)
        return made
