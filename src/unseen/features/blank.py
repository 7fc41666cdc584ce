"""Images without features: rows of zeros, and features that are the same for every image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

from unseen.errors import DataError
from unseen.features.layout import torch_dtype
from unseen.ground.images import ImageWarning
from unseen.ground.words import counted

Reader = Callable[[int, int], np.ndarray]
SHOWN = 3
"""Number of images that a warning names."""


class Blanks:
    """Reads features, finds rows of zeros, and refuses features that are the same for all images.

    Numbers that ``dtype`` rounds to zero are zeros.

    Args:
        read: returns the features (b, ...) of the images from one position up to another.
        names: names of the images.
        dtype: dtype that the features are kept in.
        where: source of the features, for messages.
    """

    def __init__(self, read: Reader, names: Sequence[str], dtype: str, where: object) -> None:
        self._read, self._names, self._where, self._kind = read, names, where, dtype
        self._dtype = torch_dtype(dtype)
        self._rows: list[int] = []
        self._rounded = False

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Read features, and note which rows are zeros."""
        block = self._read(start, stop)
        largest = _largest(block)
        zeros = np.flatnonzero((torch.from_numpy(largest).to(self._dtype) == 0).numpy())
        self._rounded |= bool(largest[zeros].any())
        self._rows += (start + zeros).tolist()
        return block

    def refuse_constant(self, piece: int) -> None:
        """Raise :class:`DataError` if all images have the same features; reads up to the first piece that differs."""
        count, first, rounded = len(self._names), None, False
        if count < 2:
            return
        for start in range(0, count, piece):
            block = self._read(start, min(start + piece, count))
            kept = torch.from_numpy(np.ascontiguousarray(block)).to(self._dtype)
            first = kept[:1].clone() if first is None else first
            if not first.isfinite().all() or not (kept == first).all():  # numbers that are not finite are another error
                return
            rounded |= bool(_largest(block).any())
        zero = first is not None and not first.any()
        problem = f"the features of all {count:,} images are {self._zero(rounded) if zero else 'equal'}"
        raise DataError(problem, where=self._where, hint=_hint(zero and rounded))

    def warn(self) -> None:
        """Warn of the rows of zeros among those read: how many, and the first few images."""
        if not self._rows:
            return
        found = f"the features of {len(self._rows):,} of {counted(len(self._names), 'image')} are "
        shown = ", ".join(self._names[row] for row in self._rows[:SHOWN])
        more = len(self._rows) - SHOWN
        shown += f" and {more:,} more" if more > 0 else ""
        warnings.warn(
            f"{self._where}: {found}{self._zero(self._rounded)} ({shown}), so nothing can be recognized from "
            f"them; {_hint(self._rounded)}",
            ImageWarning,
            stacklevel=3,
        )

    def _zero(self, rounded: bool) -> str:
        return f"zero as {self._kind}" if rounded else "all zero"


def _largest(block: np.ndarray) -> np.ndarray:
    """Largest magnitude in each row, float64."""
    rows = block.reshape(len(block), -1)
    found: np.ndarray = np.maximum(rows.max(axis=1).astype(float), -rows.min(axis=1).astype(float))
    return found


def _hint(rounded: bool) -> str:
    return "pass --store-dtype bfloat16 or float32" if rounded else "extract them again"
