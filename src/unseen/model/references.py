"""How a trained model scores its own training images: the measure of what an attribute score usually is.

The file holds numbers and names, no images: attribute scores, classes and file names. With it a new image's
neighbours are found, an attribute's reliability is known, and a corrected attribute gets the score that fits it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unseen.classes.presence import present
from unseen.classes.table import ClassTable
from unseen.errors import RunError, UnseenError
from unseen.evaluation.attributes import auroc
from unseen.ground.files import read_arrays, write_arrays
from unseen.methods import Method

FLAT = 0.1
"""Below this correlation of score and class value an attribute counts as not learned."""
LEAST_WIDTH = 0.02
"""Share of the table's range below which the training images' values hardly vary, so that a line says nothing."""
_ARRAYS = ("attribute_scores", "labels", "files", "class_names", "class_values")
QUANTILES = (0.1, 0.9)
"""Of the scores of an attribute that was not learned: what stands for its least and its largest value."""


def references_beside(weights: Path) -> Path:
    """Where they are kept: beside the model's weights, ``honest-references.npz`` beside ``honest.safetensors``."""
    return weights.with_name(f"{weights.stem}-references.npz")


@dataclass(frozen=True)
class Neighbour:
    """A training image that is scored like another image.

    Args:
        file: relative to the dataset's images.
        name: its class.
        similarity: cosine of the standardised attribute scores.
    """

    file: str
    name: str
    similarity: float


@dataclass(frozen=True, eq=False)
class AttributeFit:
    """What the scores of each attribute are like on the training images; arrays are ``(K,)``.

    ``slope`` and ``intercept`` are the least-squares line of the score on the value of the image's class, in the
    class table's unit; ``correlation`` that of the two (0 where either is constant).

    Args:
        intercept, slope, correlation: of the line.
        deviation: standard deviation of the scores around it.
        mean, spread: of the scores.
        auroc: of the scores, for classes with a value above half the attribute's largest; NaN where all or none.
        low, high: quantiles of the scores, see :data:`QUANTILES`.
        least, largest: of the class table's values, 0 included.
    """

    intercept: np.ndarray
    slope: np.ndarray
    correlation: np.ndarray
    deviation: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    auroc: np.ndarray
    low: np.ndarray
    high: np.ndarray
    least: np.ndarray
    largest: np.ndarray

    @cached_property
    def learned(self) -> np.ndarray:
        """Bool ``(K,)``: the score rises with the class value."""
        return self.correlation >= FLAT

    def expected(self, values: np.ndarray) -> np.ndarray:
        """The score that the model typically gives images of classes with these values.

        On the line where the attribute was learned; else between the two quantiles.

        Args:
            values: ``(..., K)``, in the class table's unit.
        """
        share = (values - self.least) / np.where(self.largest > self.least, self.largest - self.least, 1)
        between = self.low + (self.high - self.low) * share.clip(0, 1)
        result: np.ndarray = np.where(self.learned, self.intercept + self.slope * values, between)
        return result


@dataclass(frozen=True, eq=False)
class References:
    """Attribute scores of training images.

    Args:
        attribute_scores: float16 ``(M, K)``, the method's fused scores.
        labels: int64 ``(M,)``, positions in ``class_names``.
        files: ``(M,)`` names relative to the dataset's images.
        class_names: ``(N,)`` the classes as they were trained.
        class_values: float64 ``(N, K)`` their attribute values.

    Raises:
        RunError: shapes that do not fit.
    """

    attribute_scores: np.ndarray
    labels: np.ndarray
    files: np.ndarray
    class_names: np.ndarray
    class_values: np.ndarray

    def __post_init__(self) -> None:
        shape, classes = self.attribute_scores.shape, len(self.class_names)
        fits = (
            len(shape) == 2
            and shape[0] > 0
            and self.labels.shape == self.files.shape == (shape[0],)
            and self.class_values.shape == (classes, shape[1])
            and 0 <= self.labels.min() <= self.labels.max() < classes
        )
        if not fits:
            raise RunError("attribute scores, labels, files and classes do not match", hint="train again")

    def save(self, path: Path) -> None:
        """Write an ``.npz`` without pickle, whole or not at all."""
        write_arrays(path, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path) -> References:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: missing, damaged, or not of this kind.
        """
        arrays = read_arrays(path, _ARRAYS, RunError, "train again")
        try:
            return cls(**arrays)
        except RunError as error:
            raise RunError(f"damaged ({error})", where=path, hint="train again") from None

    @cached_property
    def mean(self) -> np.ndarray:
        """Float64 ``(K,)`` of the scores."""
        mean: np.ndarray = self.attribute_scores.astype(np.float64).mean(axis=0)
        return mean

    @cached_property
    def fit(self) -> AttributeFit:
        """The line, spread and reliability of every attribute."""
        scores = self.attribute_scores.astype(np.float64)
        values = self.class_values[self.labels]
        mean, middle = self.mean, values.mean(axis=0)
        spread, width = scores.std(axis=0), values.std(axis=0)
        together = ((scores - mean) * (values - middle)).mean(axis=0)
        varies = (width > LEAST_WIDTH * np.ptp(self.class_values, axis=0)) & (width > 0) & (spread > 0)
        slope = np.divide(together, width**2, out=np.zeros_like(mean), where=varies)
        correlation = np.divide(together, width * spread, out=np.zeros_like(mean), where=varies)
        deviation = spread * np.sqrt((1 - correlation**2).clip(min=0))
        has = present(self.class_values)[self.labels]
        low, high = np.quantile(scores, QUANTILES, axis=0)
        return AttributeFit(
            mean - slope * middle,
            slope,
            correlation,
            deviation,
            mean,
            spread,
            auroc(scores, has),
            low,
            high,
            self.class_values.min(axis=0).clip(max=0),
            self.class_values.max(axis=0).clip(min=0),
        )

    @cached_property
    def _directions(self) -> np.ndarray:
        """Float32 ``(M, K)``: standardised scores to unit length."""
        return self._direction(self.attribute_scores.astype(np.float32))

    def _direction(self, scores: np.ndarray) -> np.ndarray:
        spread = np.where(self.fit.spread > 0, self.fit.spread, 1)
        standard = ((scores - self.fit.mean) / spread).astype(np.float32)
        length = np.linalg.norm(standard, axis=-1, keepdims=True)
        directions: np.ndarray = standard / np.where(length > 0, length, 1)
        return directions

    def nearest(self, scores: np.ndarray, count: int, without: Sequence[str] = ()) -> list[Neighbour]:
        """The training images whose standardised attribute scores have the largest cosine with an image's.

        Args:
            scores: ``(K,)``.
            count: how many.
            without: files to leave out.
        """
        similarity = self._directions @ self._direction(scores)
        order = np.argsort(-similarity, kind="stable")[: count + len(without)]
        found = [
            Neighbour(str(self.files[i]), str(self.class_names[self.labels[i]]), float(similarity[i]))
            for i in order
            if self.files[i] not in without
        ]
        return found[:count]


@torch.inference_mode()
def make_references(
    method: Method, batches: Iterable[Tensor], labels: np.ndarray, files: Sequence[str], table: ClassTable
) -> References:
    """Ask a trained method about its training images.

    Args:
        method: in evaluation mode.
        batches: what the method reads of the images, in order: prepared regions ``(B, R', C)``.
        labels: ``(M,)`` positions in the table.
        files: M names relative to the dataset's images.
        table: the classes of the training.

    Raises:
        UnseenError: a score is not a finite number in float16.
    """
    rows = [method.fused_attribute_scores(method(batch)).float().cpu().numpy() for batch in batches]
    with np.errstate(over="ignore"):
        scores = np.concatenate(rows).astype(np.float16)
    if not np.isfinite(scores).all():
        raise UnseenError(
            "an attribute score is not finite", where=method.name, hint="train again with a lower learning rate"
        )
    return References(
        scores, np.asarray(labels, np.int64), np.array(list(files)), np.array(table.names), np.array(table.values)
    )
