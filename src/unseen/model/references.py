"""References: how a trained model scores its own training images, as a measure of what attribute scores usually are.

The file holds attribute scores, classes and file names, no images. From it come the neighbors of a new image, the
reliability of each attribute, and the score that fits a corrected attribute.
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
"""Attributes with a lower correlation of score and class value count as not learned."""
LEAST_WIDTH = 0.02
"""Share of the table's range within which the training images' values hardly vary, so that a line is meaningless."""
_ARRAYS = ("attribute_scores", "labels", "files", "class_names", "class_values")
QUANTILES = (0.1, 0.9)
"""Quantiles of the scores of an attribute that was not learned; they represent its least and largest value."""


def references_beside(weights: Path) -> Path:
    """File of the references: ``honest-references.npz`` beside the weights ``honest.safetensors``."""
    return weights.with_name(f"{weights.stem}-references.npz")


@dataclass(frozen=True)
class Neighbour:
    """A training image with scores similar to those of another image.

    Args:
        file: path relative to the dataset's images.
        name: class of the image.
        similarity: cosine of the standardized attribute scores.
    """

    file: str
    name: str
    similarity: float


@dataclass(frozen=True, eq=False)
class AttributeFit:
    """Statistics of each attribute's scores on the training images; arrays are ``(K,)``.

    ``slope`` and ``intercept`` are the least-squares line of the score on the value of the image's class, in the unit
    of the class table; ``correlation`` is that of score and value (0 if either is constant).

    Args:
        intercept, slope, correlation: of the line.
        deviation: standard deviation of the scores around it.
        mean, spread: mean and standard deviation of the scores.
        auroc: AUROC of the scores, for classes with a value above half of the attribute's largest; NaN if this holds
            for all classes or none.
        low, high: quantiles of the scores, see :data:`QUANTILES`.
        least, largest: extremes of the class table's values, including 0.
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
        """Bool ``(K,)``: whether the score rises with the class value."""
        return self.correlation >= FLAT

    def expected(self, values: np.ndarray) -> np.ndarray:
        """Score that the model typically gives to images of classes with these values.

        On the line if the attribute was learned; otherwise between the two quantiles.

        Args:
            values: ``(..., K)``, in the unit of the class table.
        """
        share = (values - self.least) / np.where(self.largest > self.least, self.largest - self.least, 1)
        between = self.low + (self.high - self.low) * share.clip(0, 1)
        result: np.ndarray = np.where(self.learned, self.intercept + self.slope * values, between)
        return result


@dataclass(frozen=True, eq=False)
class References:
    """Attribute scores of training images.

    Args:
        attribute_scores: float16 ``(M, K)`` fused scores of the method.
        labels: int64 ``(M,)``, positions in ``class_names``.
        files: ``(M,)`` paths relative to the dataset's images.
        class_names: ``(N,)`` classes of the training.
        class_values: float64 ``(N, K)`` their attribute values.

    Raises:
        RunError: the shapes do not match.
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
        """Write an ``.npz`` without pickle, atomically."""
        write_arrays(path, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path) -> References:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: the file is missing, damaged or of another kind.
        """
        arrays = read_arrays(path, _ARRAYS, RunError, "train again")
        try:
            return cls(**arrays)
        except RunError as error:
            raise RunError(f"damaged ({error})", where=path, hint="train again") from None

    @cached_property
    def mean(self) -> np.ndarray:
        """Float64 ``(K,)`` mean of the scores."""
        mean: np.ndarray = self.attribute_scores.astype(np.float64).mean(axis=0)
        return mean

    @cached_property
    def fit(self) -> AttributeFit:
        """Line, spread and reliability of every attribute."""
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
        """Float32 ``(M, K)`` standardized scores, scaled to unit length."""
        return self._direction(self.attribute_scores.astype(np.float32))

    def _direction(self, scores: np.ndarray) -> np.ndarray:
        spread = np.where(self.fit.spread > 0, self.fit.spread, 1)
        standard = ((scores - self.fit.mean) / spread).astype(np.float32)
        length = np.linalg.norm(standard, axis=-1, keepdims=True)
        directions: np.ndarray = standard / np.where(length > 0, length, 1)
        return directions

    def nearest(self, scores: np.ndarray, count: int, without: Sequence[str] = ()) -> list[Neighbour]:
        """Training images with the largest cosine of standardized attribute scores with an image.

        Args:
            scores: ``(K,)`` attribute scores of the image.
            count: number of images.
            without: files to exclude.
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
    """Compute the references of a trained method.

    Args:
        method: method in evaluation mode.
        batches: inputs of the method for the images, in order: prepared regions ``(B, R', C)``.
        labels: ``(M,)`` positions in the table.
        files: M paths relative to the dataset's images.
        table: classes of the training.

    Raises:
        UnseenError: a score is not finite in float16.
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
