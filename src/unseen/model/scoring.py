"""Class scores in blocks of classes: any number of classes, and a score that no other class has a part in.

A matrix product may round differently when its shape changes. Here it never does: classes are scored in blocks of
:data:`BLOCK`, the last filled up with empty ones, so that a class's score is the same to the bit whichever classes are
beside it and wherever it stands. Of B images and N classes, ``B x CHUNK`` scores are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unseen.backbones.towers import TextTower
from unseen.classes.table import ClassTable
from unseen.errors import UnseenError
from unseen.methods import ClassSpace, Method
from unseen.vectors.sources import name_things

BLOCK = 256
"""Classes in a matrix product."""
CHUNK = 16
"""Blocks whose scores are ranked at a time."""


@dataclass(frozen=True)
class Best:
    """The first classes of B images, best first.

    Args:
        index: int64 ``(B, k)`` positions in the class table.
        score: float64 ``(B, k)`` raw class scores.
        confidence: float64 ``(B, k)`` softmax over all classes in question.
    """

    index: np.ndarray
    score: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class _Block:
    embeddings: Tensor
    offsets: Tensor | None


class ClassScorer:
    """Scores a table's classes with a trained method.

    Args:
        method: in evaluation mode, on its device.
        table: the classes.
        device: the method's.
        tower: of a method that reads text.
        earlier: a scorer of the same method whose unchanged blocks are taken over.
    """

    @torch.inference_mode()
    def __init__(
        self,
        method: Method,
        table: ClassTable,
        device: torch.device,
        tower: TextTower | None = None,
        earlier: ClassScorer | None = None,
    ) -> None:
        self.method, self.table = method, table
        self._device, self._tower = device, tower
        starts = range(0, len(table), BLOCK)
        self._blocks: list[_Block] = [
            earlier._blocks[i] if earlier is not None and self._same(earlier.table, start) else self._make(start)
            for i, start in enumerate(starts)
        ]

    def _same(self, earlier: ClassTable, start: int) -> bool:
        rows = slice(start, start + BLOCK)
        mine = self.table
        return (
            np.array_equal(mine.values[rows], earlier.values[rows])
            and np.array_equal(mine.seen[rows], earlier.seen[rows])
            and (not self.method.reads_text or mine.names[rows] == earlier.names[rows])
        )

    def _make(self, start: int) -> _Block:
        rows = slice(start, start + BLOCK)
        values = torch.from_numpy(self.table.values[rows].astype(np.float32))
        vectors, seen = torch.zeros(BLOCK, values.shape[1]), torch.zeros(BLOCK, dtype=torch.bool)
        vectors[: len(values)] = values
        seen[: len(values)] = torch.from_numpy(self.table.seen[rows].copy())
        words = None
        if self._tower is not None:
            names = self.table.names[rows]
            filled = (*names, *[names[0]] * (BLOCK - len(names)))  # a text that is embedded anyway
            words = name_things(filled, self.table.attributes, self._tower)
        classes = ClassSpace(vectors, seen, words).to(self._device, torch.float32)
        return _Block(self.method.class_embeddings(classes), self.method.class_offsets(classes))

    @torch.inference_mode()
    def scores(self, query: Tensor) -> np.ndarray:
        """Raw class scores, float64 ``(B, N)``, of what :meth:`Method.query` gives ``(B, D)``."""
        every = [self._score(query, block) for block in self._blocks]
        return torch.cat(every, dim=1)[:, : len(self.table)].cpu().double().numpy()

    @staticmethod
    def _score(query: Tensor, block: _Block) -> Tensor:
        scores = query @ block.embeddings.T
        return scores if block.offsets is None else scores + block.offsets

    @property
    def width(self) -> int:
        """D, of a query."""
        return self._blocks[0].embeddings.shape[1]

    def vectors(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Class vectors in the form that the method scores with, float64 ``(len(positions), K)``."""
        if not self.method.by_attributes:
            return np.zeros((len(positions), len(self.table.attributes)))
        rows = [self._blocks[int(i) // BLOCK].embeddings[int(i) % BLOCK] for i in positions]
        return torch.stack(rows).cpu().double().numpy()

    @torch.inference_mode()
    def best(
        self, query: Tensor, count: int, allowed: np.ndarray, *, gamma: float = 0.0, temperature: float = 1.0
    ) -> Best:
        """The best classes of each image; of equal ones the first in the table.

        Args:
            query: ``(B, D)``, see :meth:`Method.query`.
            count: k; fewer where fewer are allowed.
            allowed: rising positions of the classes in question, at least one.
            gamma: taken off the scores of seen classes.
            temperature: of the softmax.

        Raises:
            UnseenError: a score is not finite, as with damaged weights.
        """
        index = score = shifted = torch.empty(0)
        highest = total = torch.empty(0)
        for columns, raw in self._chunks(query, allowed):
            seen = torch.from_numpy(self.table.seen[columns.cpu().numpy()]).to(raw)
            lowered = (raw - gamma * seen) / temperature
            order = _leading(lowered, count)
            part = columns[order], raw.gather(1, order), lowered.gather(1, order)
            top = part[2][:, :1]
            if not len(highest):
                index, score, shifted = part
                highest, total = top, (lowered - top).exp().sum(dim=1, keepdim=True)
                continue
            index, score, shifted = (torch.cat(two, dim=1) for two in zip((index, score, shifted), part, strict=True))
            order = shifted.sort(dim=1, descending=True, stable=True).indices[:, :count]
            index, score, shifted = (values.gather(1, order) for values in (index, score, shifted))
            higher = torch.maximum(highest, top)
            total = total * (highest - higher).exp() + (lowered - higher).exp().sum(dim=1, keepdim=True)
            highest = higher
        confidence = (shifted - highest).exp() / total
        if not confidence.isfinite().all():
            raise UnseenError("the scores of an image are not finite", hint="restore the model's files, or train again")
        return Best(index.cpu().numpy(), score.cpu().numpy(), confidence.cpu().numpy())

    def _chunks(self, query: Tensor, allowed: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Allowed positions ``(n,)`` and float64 raw scores ``(B, n)``; blocks without one are left out."""
        place = torch.device("cpu") if query.device.type == "mps" else query.device  # which has no float64
        wanted = np.unique(allowed // BLOCK)
        for first in range(0, len(wanted), CHUNK):
            blocks = wanted[first : first + CHUNK]
            scores = torch.cat([self._score(query, self._blocks[b]) for b in blocks], dim=1).to(place)
            low, high = np.searchsorted(allowed, (blocks[0] * BLOCK, (blocks[-1] + 1) * BLOCK))
            mine = allowed[low:high]
            within = np.searchsorted(blocks, mine // BLOCK) * BLOCK + mine % BLOCK
            if len(within) < scores.shape[1]:
                scores = scores[:, torch.from_numpy(within).to(place)]
            yield torch.from_numpy(mine).to(place), scores.double()


def _leading(values: Tensor, count: int) -> Tensor:
    """``(B, k)`` columns of the largest of ``values`` ``(B, n)``, largest first, of equal ones the first."""
    if values.shape[1] <= 2 * count:
        return values.sort(dim=1, descending=True, stable=True).indices[:, :count]
    found = values.topk(count + 1, dim=1)
    order = found.indices[:, :count].sort(dim=1).values
    order = order.gather(1, values.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    tied = found.values[:, count - 1] == found.values[:, count]  # topk does not say which of them it takes
    if tied.any():
        order[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return order
