"""Classes as a method sees them: attribute values on its device, and names for methods that read text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn


def _kept(compute: Callable[[Any], Tensor]) -> cached_property[Tensor]:
    """A tensor made once, and fit for training even if it is first asked for in inference mode."""

    @wraps(compute)
    def outside(self: Any) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return compute(self)

    return cached_property(outside)


@dataclass(frozen=True)
class Words:
    """What classes and attributes are called, for methods that read text.

    Args:
        classes: N class names as words.
        attributes: K attributes as words ("red crown color").
        groups: K names of attribute groups.
        encode: texts and a device to ``(M, D)`` unit vectors, a text each, in the space of the pooled regions.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    groups: tuple[str, ...]
    encode: Callable[[Sequence[str], torch.device], Tensor]


class ClassSpace:
    """Classes as tensors on the device of the method.

    Args:
        vectors: ``(N, K)`` attribute values, any unit.
        seen: bool ``(N,)``, classes trained on.
        words: their names, for methods with ``reads_text``.
        trained: int64 ``(N,)`` which of the classes trained on, in the order of the training, has a class's images, -1
            for none; by default the seen classes in order.
    """

    def __init__(
        self, vectors: Tensor, seen: Tensor, words: Words | None = None, trained: Tensor | None = None
    ) -> None:
        self.vectors = vectors
        self.seen = seen
        self.words = words
        self.trained = torch.where(seen, torch.cumsum(seen, 0) - 1, -1) if trained is None else trained

    @_kept
    def unit(self) -> Tensor:
        """``(N, K)`` rows of length 1."""
        return nn.functional.normalize(self.vectors, dim=1)

    @_kept
    def unit_nonnegative(self) -> Tensor:
        """``(N, K)`` rows of length 1 after negative entries (AWA2's "unknown") are set to 0."""
        return nn.functional.normalize(self.vectors.clamp(min=0), dim=1)

    @_kept
    def unseen_indices(self) -> Tensor:
        """Positions of the unseen classes."""
        return torch.nonzero(~self.seen).flatten()

    def blocks(self, size: int) -> list[ClassSpace]:
        """The classes in runs of ``size``; itself where there are no more."""
        if len(self.vectors) <= size:
            return [self]
        runs = [slice(start, start + size) for start in range(0, len(self.vectors), size)]
        words = [self.words and replace(self.words, classes=self.words.classes[run]) for run in runs]
        return [
            ClassSpace(self.vectors[run], self.seen[run], w, self.trained[run])
            for run, w in zip(runs, words, strict=True)
        ]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ClassSpace:
        """The same classes on another device."""
        return ClassSpace(self.vectors.to(device, dtype), self.seen.to(device), self.words, self.trained.to(device))
