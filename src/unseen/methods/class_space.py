"""Classes as a method sees them: attribute values on its device, and names for methods that read text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn


def _kept(compute: Callable[[Any], Tensor]) -> cached_property[Tensor]:
    """Cached tensor that can take part in training even if first computed in inference mode."""

    @wraps(compute)
    def outside(self: Any) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return compute(self)

    return cached_property(outside)


@dataclass(frozen=True)
class Words:
    """Names of classes and attributes, for methods that read text.

    Args:
        classes: N class names as words.
        attributes: K attributes as words ("red crown color").
        groups: K attribute group names.
        encode: maps texts and a device to ``(M, D)`` unit vectors, one per text, in the space of the pooled regions.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    groups: tuple[str, ...]
    encode: Callable[[Sequence[str], torch.device], Tensor]


class ClassSpace:
    """Classes as tensors on the method's device.

    Args:
        vectors: ``(N, K)`` attribute values, in any unit.
        seen: bool ``(N,)``, whether a class was trained on.
        words: names, for methods with ``reads_text``.
        trained: int64 ``(N,)`` position of each class among the classes trained on, in training order, or -1; by
            default the seen classes in order.
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
        """``(N, K)`` rows scaled to length 1."""
        return nn.functional.normalize(self.vectors, dim=1)

    @_kept
    def unit_nonnegative(self) -> Tensor:
        """``(N, K)`` rows scaled to length 1 after setting negative entries (AWA2's "unknown") to 0."""
        return nn.functional.normalize(self.vectors.clamp(min=0), dim=1)

    @_kept
    def unseen_indices(self) -> Tensor:
        """Positions of the unseen classes."""
        return torch.nonzero(~self.seen).flatten()

    def blocks(self, size: int) -> list[ClassSpace]:
        """Split the classes into blocks of ``size``; returns itself if one block suffices."""
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
