"""Outputs of a backbone's frozen layers, for methods whose backbone trains after them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.data.dataset import digest
from unseen.data.images import ImageStore
from unseen.features.store import RegionStore


class FrozenStore:
    """Outputs of the frozen layers for several views of every image (:class:`unseen.backbones.transform.Transform`).

    Args:
        views: one store per view of the same images, the one for testing first; with several looks at an image, only
            that one holds them all, below each other.
        backbone: the backbone; only its description is kept.
        regions: regions of the backbone before training, for a method that starts from a closed form.

    Attributes:
        spec: spec of the backbone.
        engine: engine that computed the outputs for testing.
        fingerprint: digest of the outputs and of the backbone with its weights.
        views: the stores.
    """

    def __init__(self, views: Sequence[RegionStore], backbone: Backbone, regions: RegionStore | None = None) -> None:
        self.views, self.regions = list(views), regions
        self.spec, self.engine = backbone.spec, views[0].engine
        self.fingerprint = digest("frozen", backbone.fingerprint, [view.fingerprint for view in views])
        self._grid, self._channels = backbone.grids[-1], tuple(backbone.channels)

    def __len__(self) -> int:
        return len(self.views[0])

    def grid(self) -> tuple[int, int]:
        """(height, width) of the backbone's last map."""
        return self._grid

    def channels(self) -> tuple[int, ...]:
        """Channels of each stage of the backbone."""
        return self._channels

    def read(self, indices: Sequence[int] | np.ndarray, view: int = 0) -> Tensor:
        """Outputs ``(B, C, h, w)`` for some images, float32; those of L looks, ``(B, C, L h, w)``."""
        store = self.views[view]
        found: Tensor = store.read(np.asarray(indices)).float().transpose(1, 2).unflatten(2, store.grid())
        return found

    def read_whole(self, indices: Sequence[int] | np.ndarray, view: int) -> Tensor:
        """The same of whole images, without further looks."""
        height = self.views[0].grid()[0] // self.spec.looks
        return self.read(indices, view)[:, :, :height]


class FrozenSource:
    """Outputs for some images of a store as input for training and testing.

    Args:
        store: the store.
        indices: indices of the images in the store.
        device: device of the batches.
        dtype: dtype of the batches.
    """

    streams = True  # read from disk

    def __init__(
        self,
        store: FrozenStore,
        indices: np.ndarray,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._store, self._indices = store, np.asarray(indices, dtype=np.int64)
        self._device, self._dtype = torch.device(device), dtype

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, positions: np.ndarray) -> Tensor:
        """Outputs ``(B, C, h, w)`` for testing."""
        return self._store.read(self._indices[positions]).to(self._device, self._dtype)

    def augmented(self, positions: np.ndarray, key: tuple[int, ...]) -> Tensor:
        """Outputs ``(B, C, h, w)`` for training, of whole views drawn at random; arguments as for images."""
        indices = self._indices[positions]
        drawn = np.array([np.random.default_rng([*key, i]).integers(len(self._store.views)) for i in indices])
        order = [np.flatnonzero(drawn == view) for view in range(len(self._store.views))]
        read = torch.cat([self._store.read_whole(indices[rows], view) for view, rows in enumerate(order) if len(rows)])
        return read[np.argsort(np.concatenate(order))].to(self._device, self._dtype)


AnyStore = RegionStore | ImageStore | FrozenStore
"""What a method trains on."""
