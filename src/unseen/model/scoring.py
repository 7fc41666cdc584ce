"""Class scores in blocks of classes: any number of classes, and scores that do not depend on other classes.

A matrix product may round differently when its shape changes. Here the shape is fixed: classes are scored in blocks of
:data:`BLOCK`, with the last block padded, so the score of a class is the same bit for bit wherever it stands and
whichever classes stand beside it. For B images and N classes, ``B x CHUNK`` scores are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from unseen.backbones.towers import TextTower
from unseen.classes.table import ClassTable
from unseen.evaluation.scores import Best, best_classes, best_of_kinds, columns_by_kind
from unseen.methods import ClassSpace, Method
from unseen.vectors.sources import name_things

BLOCK = 256
"""Number of classes in a matrix product."""
CHUNK = 16
"""Number of blocks whose scores are ranked at a time."""


@dataclass(frozen=True)
class _Block:
    embeddings: Tensor
    offsets: Tensor | None
    attributes: int


class ClassScorer:
    """Scores classes with a trained method; the only place where a query meets class vectors.

    Args:
        method: method in evaluation mode, on its device.
        classes: classes on the same device, in the dtype of the method's weights.
    """

    def __init__(self, method: Method, classes: ClassSpace) -> None:
        self.method = method
        self.seen = classes.seen.cpu().numpy()
        self.table: ClassTable | None = None
        self._blocks = [_block(method, space) for space in classes.blocks(BLOCK)]

    @classmethod
    def of_table(
        cls,
        method: Method,
        table: ClassTable,
        device: torch.device,
        tower: TextTower | None = None,
        earlier: ClassScorer | None = None,
    ) -> Self:
        """Make a scorer for the classes of a table.

        Args:
            method: method in evaluation mode, on its device.
            table: class table.
            device: device of the method.
            tower: text tower, for methods that read text.
            earlier: scorer of the same method; its unchanged blocks are reused.
        """
        made = cls.__new__(cls)
        made.method, made.table, made.seen = method, table, table.seen
        made._blocks = [
            earlier._blocks[i]
            if earlier is not None and made._same(earlier.table, start)
            else _block(method, _space(table, slice(start, start + BLOCK), device, tower))
            for i, start in enumerate(range(0, len(table), BLOCK))
        ]
        return made

    def _same(self, earlier: ClassTable | None, start: int) -> bool:
        rows = slice(start, start + BLOCK)
        mine = self.table
        return (
            mine is not None
            and earlier is not None
            and np.array_equal(mine.values[rows], earlier.values[rows])
            and np.array_equal(mine.seen[rows], earlier.seen[rows])
            and np.array_equal(mine.images_of[rows], earlier.images_of[rows])
            and (not self.method.reads_text or mine.names[rows] == earlier.names[rows])
        )

    def __len__(self) -> int:
        """Number of classes N."""
        return len(self.seen)

    @torch.inference_mode()
    def scores(self, query: Tensor) -> np.ndarray:
        """Raw class scores, float64 ``(B, N)``, for a query ``(B, D)`` of :meth:`Method.query`."""
        every = [_score(query, block) for block in self._blocks]
        return torch.cat(every, dim=1)[:, : len(self)].cpu().double().numpy()

    @property
    def width(self) -> int:
        """Width D of a query."""
        return self._blocks[0].embeddings.shape[1]

    def vectors(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Class vectors as used by the method's scores, float64 ``(len(positions), K)``.

        Zero if the method compares images with classes as a whole.
        """
        if not self.method.by_attributes:
            return np.zeros((len(positions), self._blocks[0].attributes))
        return self._embedded(positions)[:, : self._blocks[0].attributes].cpu().double().numpy()

    @torch.inference_mode()
    def own(self, query: Tensor, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Float64 contribution of own training images to class scores, relative to the average training image.

        Args:
            query: ``(B, D)``, see :meth:`Method.query`.
            positions: positions of n classes.

        Returns:
            ``(B, n)``; 0 if the method does not use these images, see :meth:`Method.own_query`.
        """
        typical = self.method.own_query if self.method.by_attributes else None
        if typical is None:
            return np.zeros((len(query), len(positions)))
        width = self._blocks[0].attributes
        found = (query[:, width:] - typical) @ self._embedded(positions)[:, width:].T
        return found.cpu().double().numpy()

    def _embedded(self, positions: Sequence[int] | np.ndarray) -> Tensor:
        return torch.stack([self._blocks[int(i) // BLOCK].embeddings[int(i) % BLOCK] for i in positions])

    @torch.inference_mode()
    def best(
        self, query: Tensor, count: int, allowed: np.ndarray, *, gamma: float = 0.0, temperature: float = 1.0
    ) -> Best:
        """The best classes of each image; the first one in the table wins ties.

        Args:
            query: ``(B, D)``, see :meth:`Method.query`.
            count: number of classes k, or fewer if fewer are allowed.
            allowed: increasing positions of the candidate classes, at least one.
            gamma: subtracted from the scores of seen classes.
            temperature: temperature of the softmax.

        Raises:
            UnseenError: a score is not finite, as with damaged weights.
        """
        return best_classes(self._chunks(query, allowed), self.seen, count, gamma=gamma, temperature=temperature)

    @torch.inference_mode()
    def best_of(
        self,
        scores: np.ndarray,
        count: int,
        allowed: np.ndarray,
        *,
        gamma: float = 0.0,
        temperature: float = 1.0,
        lowered: np.ndarray | None = None,
    ) -> Best:
        """Like :meth:`best`, for raw scores ``(B, N)`` that may have been changed; unchanged ones give equal bits.

        Args:
            scores: raw class scores.
            count, allowed, gamma, temperature: as in :meth:`best`.
            lowered: ``(N,)`` multiples of gamma to subtract from each class's score; by default 1 for seen classes.
        """
        chunks = (
            (torch.from_numpy(mine), torch.from_numpy(np.ascontiguousarray(scores[:, mine])))
            for _, mine in self._in_chunks(allowed)
        )
        seen = self.seen if lowered is None else lowered
        return best_classes(chunks, seen, count, gamma=gamma, temperature=temperature)

    @torch.inference_mode()
    def best_of_kinds(self, query: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
        """The best seen and unseen classes ``(B, 2, count)`` and their scores, on the device.

        Padded with -1 and -inf after the last class of a kind.
        """
        firsts = range(0, len(self._blocks), CHUNK)
        chunks = (torch.cat([_score(query, b) for b in self._blocks[i : i + CHUNK]], dim=1) for i in firsts)
        return best_of_kinds(chunks, self._kinds, count)

    @cached_property
    def _kinds(self) -> list[list[Tensor]]:
        seen = torch.from_numpy(self.seen.copy()).to(self._blocks[0].embeddings.device)
        return [columns_by_kind(part) for part in seen.split(CHUNK * BLOCK)]

    @staticmethod
    def _in_chunks(allowed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The blocks of every chunk with an allowed position, and its allowed positions."""
        of = allowed // BLOCK  # increasing, so that nothing is sorted
        wanted = of[np.flatnonzero(np.diff(of, prepend=-1))]
        for first in range(0, len(wanted), CHUNK):
            blocks = wanted[first : first + CHUNK]
            low, high = np.searchsorted(allowed, (blocks[0] * BLOCK, (blocks[-1] + 1) * BLOCK))
            yield blocks, allowed[low:high]

    def _chunks(self, query: Tensor, allowed: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Allowed positions ``(n,)`` and float64 raw scores ``(B, n)``; skips blocks without allowed positions."""
        place = torch.device("cpu") if query.device.type == "mps" else query.device  # MPS has no float64
        for blocks, mine in self._in_chunks(allowed):
            scores = torch.cat([_score(query, self._blocks[b]) for b in blocks], dim=1).to(place)
            if len(mine) < scores.shape[1]:
                within = np.searchsorted(blocks, mine // BLOCK) * BLOCK + mine % BLOCK
                scores = scores[:, torch.from_numpy(within).to(place)]
            yield torch.from_numpy(mine).to(place), scores.double()


def _score(query: Tensor, block: _Block) -> Tensor:
    scores = query @ block.embeddings.T
    return scores if block.offsets is None else scores + block.offsets


def _space(table: ClassTable, rows: slice, device: torch.device, tower: TextTower | None) -> ClassSpace:
    """Some rows of a table as a :class:`ClassSpace`."""
    values, seen = torch.from_numpy(table.values[rows].astype(np.float32)), torch.from_numpy(table.seen[rows].copy())
    words = None if tower is None else name_things(table.names[rows], table.attributes, tower)
    trained = torch.from_numpy(table.images_of[rows].copy())
    return ClassSpace(values, seen, words, trained).to(device, torch.float32)


@torch.inference_mode()
def _block(method: Method, space: ClassSpace) -> _Block:
    """Up to :data:`BLOCK` classes, padded with empty ones."""
    vectors, words = space.vectors, space.words
    more = BLOCK - len(vectors)
    seen = torch.cat([space.seen, space.seen.new_zeros(more)])
    if words is not None:  # padding with a text that is embedded anyway
        words = replace(words, classes=(*words.classes, *[words.classes[0]] * more))
    trained = torch.cat([space.trained, space.trained.new_full((more,), -1)])
    filled = ClassSpace(torch.cat([vectors, vectors.new_zeros(more, vectors.shape[1])]), seen, words, trained)
    return _Block(method.class_embeddings(filled), method.class_offsets(filled), vectors.shape[1])
