"""The regions that training reads: in device memory if they fit, else from disk batch by batch."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from unseen.features.store import RegionStore
from unseen.ground.memory import free_memory

PIECE = 64
"""Images read at a time."""


class RegionSource:
    """The regions that training reads: some images of a store, prepared, on a device.

    Prepared features that fit in the budget are computed once and stay on the device; others are read and prepared
    batch by batch. The values are the same.

    Args:
        store: the store.
        indices: indices of the images in the store.
        stage: position of the stage in `store.stages`.
        device: device of the batches.
        dtype: dtype that features are prepared in.
        prepare: maps features (B, R, C) to (B, R', C'), image by image and without gradients, for example normalizing
            or pooling regions.
        budget_bytes: memory on the device; None is half of its free memory.

    Attributes:
        resident: whether the features are on the device.
        streams: whether batches are read from disk.
        shape: (R', C').
        nbytes: bytes of all prepared features.
    """

    def __init__(
        self,
        store: RegionStore,
        indices: Sequence[int] | np.ndarray | Tensor,
        stage: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        prepare: Callable[[Tensor], Tensor] | None = None,
        budget_bytes: int | None = None,
    ) -> None:
        self._store, self._stage, self._prepare = store, stage, prepare
        self._indices = np.asarray(indices, dtype=np.int64)
        self._device, self._dtype = torch.device(device), dtype
        first = self._compute(self._indices[:1])
        self.shape: tuple[int, ...] = tuple(first.shape[1:])
        self.nbytes = len(self) * math.prod(self.shape) * first.itemsize
        self.resident = self.nbytes <= self._budget(budget_bytes)
        self.streams = not self.resident
        if self.resident:
            self._kept = self._shared(first) if self._of_all() <= self._budget(budget_bytes) else self._own(first)

    def _budget(self, budget_bytes: int | None) -> int:
        return free_memory(self._device) // 2 if budget_bytes is None else budget_bytes

    def _of_all(self) -> float:
        """Bytes of one vector per image of the whole store; infinite if an image has more than one."""
        return self.nbytes / max(len(self), 1) * len(self._store.names) if self.shape[0] == 1 else math.inf

    def _own(self, first: Tensor) -> Tensor:
        kept = first.new_empty(len(self), *self.shape)
        for start in range(0, len(self), PIECE):
            kept[start : start + PIECE] = self._compute(self._indices[start : start + PIECE])
        return kept

    def _shared(self, first: Tensor) -> Tensor:
        """As :meth:`_own`; an image that another source of the store prepared in the same way is not read again."""
        key = self._stage, self._device, self._dtype, self._prepare
        if key not in self._store.prepared:
            with torch.inference_mode(False):  # others fill it in either mode
                every = torch.empty(len(self._store.names), *self.shape, dtype=first.dtype, device=first.device)
            self._store.prepared[key] = every, np.zeros(len(self._store.names), bool)
        kept, known = self._store.prepared[key]
        missing = np.unique(self._indices[~known[self._indices]])
        for start in range(0, len(missing), PIECE):
            part = missing[start : start + PIECE]
            kept[torch.from_numpy(part).to(self._device)] = self._compute(part)
        known[missing] = True
        return kept[torch.from_numpy(self._indices).to(self._device)]

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, positions: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Prepared features (B, R', C') of the images at these positions of `indices`."""
        if self.resident:
            return self._kept[torch.as_tensor(positions, dtype=torch.int64, device=self._device)]
        return self._compute(self._indices[np.asarray(torch.as_tensor(positions).cpu(), dtype=np.int64)])

    @torch.no_grad()
    def _compute(self, indices: np.ndarray) -> Tensor:
        regions = self._store.read(indices, self._stage).to(self._device).to(self._dtype)
        return regions if self._prepare is None else self._prepare(regions)
