"""A process's share of images, and the file for its part of the predictions.

Images are assigned batch by batch, so every batch, and therefore every row, equals that of a single process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from unseen.errors import UnseenError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """A process's share.

    Args:
        index: index of the process, from 0.
        count: number of processes.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            last = f"0/{self.count} to {self.count - 1}/{self.count}" if self.count > 0 else "0/4, for instance"
            raise UnseenError(f"no shard {self.index}/{self.count}", where="--shard", hint=f"they are {last}")

    @property
    def name(self) -> str:
        """File name of its part."""
        return f"part-{self.index:05d}-of-{self.count:05d}.parquet"

    def deal(self, images: Iterable[T], batch: int) -> Dealt[T]:
        """Its images: every count-th batch."""
        return Dealt(images, self, batch)


class Dealt(Iterable[T]):
    """Images of a shard, searched again at each iteration."""

    def __init__(self, images: Iterable[T], shard: Shard, batch: int) -> None:
        self._images, self._shard, self._batch = images, shard, batch

    def __iter__(self) -> Iterator[T]:
        first, step = self._shard.index * self._batch, self._shard.count * self._batch
        for position, image in enumerate(self._images):
            if first <= position % step < first + self._batch:
                yield image


def parse_shard(text: str) -> Shard:
    """Parse ``3/16``, with indices from 0."""
    found = re.fullmatch(r"(\d+)\s*/\s*(\d+)", text.strip())
    if found is None:
        hint = "give its number, counted from 0, and how many there are: 0/4"
        raise UnseenError(f'"{text}" is not a shard', where="--shard", hint=hint)
    return Shard(int(found[1]), int(found[2]))


def shard_of(environment: Mapping[str, str]) -> Shard | None:
    """Share of a task of a Slurm array, or of one of several processes (torchrun); ``None`` for a single process."""
    number = {name: int(value) for name, value in environment.items() if name in _NUMBERS and value.isdigit()}
    if number.get("SLURM_ARRAY_TASK_COUNT", 1) > 1 and "SLURM_ARRAY_TASK_ID" in number:
        first, step = number.get("SLURM_ARRAY_TASK_MIN", 0), number.get("SLURM_ARRAY_TASK_STEP", 1)
        return Shard((number["SLURM_ARRAY_TASK_ID"] - first) // max(step, 1), number["SLURM_ARRAY_TASK_COUNT"])
    if number.get("WORLD_SIZE", 1) > 1 and "RANK" in number:
        return Shard(number["RANK"], number["WORLD_SIZE"])
    return None


_NUMBERS = (
    *("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    *("RANK", "WORLD_SIZE"),
)


def batches(images: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of the given number of images."""
    stream = iter(images)
    return iter(lambda: list(islice(stream, size)), [])
