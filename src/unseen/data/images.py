"""Images for methods that train together with their backbone: read, resized, cached, augmented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.data.dataset import digest
from unseen.features.hashes import content_hashes
from unseen.features.store import RegionStore
from unseen.ground.memory import free_memory


class ImageStore:
    """All images of a dataset, as input of a backbone.

    Resized images are kept as bytes while they fit in the budget; others are read each time. The values are the same,
    and equal those of the backbone's own transform.

    Args:
        files: the images.
        backbone: provides the transform; only its description is kept.
        folder: folder that stores content hashes.
        names: one name per image, as in the dataset.
        workers: threads that read images; 0 reads them in the calling thread.
        budget_bytes: memory for images; ``None`` is half of the free memory.
        regions: regions of the backbone before training, for a method that starts from a closed form.

    Attributes:
        spec: spec of the backbone.
        fingerprint: digest of the images' content, names and order, and of the backbone with its weights.
        nbytes: bytes in memory so far.
    """

    def __init__(
        self,
        files: Sequence[Path],
        backbone: Backbone,
        folder: Path,
        *,
        names: Sequence[str],
        workers: int = 0,
        budget_bytes: int | None = None,
        regions: RegionStore | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        images = list(zip(names, content_hashes(files, folder / "hashes.json"), strict=True))
        self.fingerprint = digest("images", backbone.fingerprint, images)
        self.spec, self.regions = backbone.spec, regions
        self.transform = backbone.transform
        self._files = files
        self._grid, self._channels = backbone.grids[-1], tuple(backbone.channels)
        self._workers = workers
        self._budget = free_memory(torch.device("cpu")) // 2 if budget_bytes is None else budget_bytes
        self._kept: dict[tuple[int, int], Tensor] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._files)

    def grid(self) -> tuple[int, int]:
        """(height, width) of the backbone's last map."""
        return self._grid

    def channels(self) -> tuple[int, ...]:
        """Channels of each stage of the backbone."""
        return self._channels

    def read(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Images as the network's input for testing: float32 ``(B, 3, size, size)``."""
        return self.transform.normalized(self.read_cropped(indices))

    def read_cropped(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """The same before normalization: bytes."""
        return torch.stack(self._load(indices, 0, self.transform.cropped))

    def read_resized(self, indices: Sequence[int] | np.ndarray, short: int) -> list[Tensor]:
        """Whole images with this short side, each as bytes ``(3, h, w)``."""
        return self._load(indices, short, lambda path: self.transform.resized(path, short))

    def _load(self, indices: Sequence[int] | np.ndarray, kind: int, read: Callable[[Path], Tensor]) -> list[Tensor]:
        keys = [(int(i), kind) for i in indices]
        missing = list(dict.fromkeys(key for key in keys if key not in self._kept))
        paths = [self._files[i] for i, _ in missing]
        if self._workers and len(missing) > 1:
            with ThreadPoolExecutor(self._workers) as pool:  # Pillow decodes and resizes without holding the GIL
                found = dict(zip(missing, pool.map(read, paths), strict=True))
        else:
            found = dict(zip(missing, map(read, paths), strict=True))
        for key, pixels in found.items():
            if self.nbytes + pixels.nbytes <= self._budget:
                self._kept[key] = pixels.contiguous()
                self.nbytes += pixels.nbytes
        return [found[key] if key in found else self._kept[key] for key in keys]


class ImageSource:
    """Some images of a store as input for training and testing.

    Args:
        store: the store.
        indices: indices of the images in the store.
        device: device of the batches.
        dtype: dtype of the pixels.
        resize: short side of training images, as a factor of the input size.
        flip: whether to mirror half of the training images at random.
    """

    streams = True  # decoding, resizing and cropping can run ahead

    def __init__(
        self,
        store: ImageStore,
        indices: np.ndarray,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        resize: float = 1.0,
        flip: bool = False,
    ) -> None:
        self._store, self._indices = store, np.asarray(indices, dtype=np.int64)
        self._device, self._dtype = torch.device(device), dtype
        self._size = store.transform.size
        self._short, self._flip = round(resize * self._size), flip

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, positions: np.ndarray) -> Tensor:
        """Images for testing: ``(B, 3, size, size)``."""
        return self._ready(self._store.read_cropped(self._indices[positions]))

    def augmented(self, positions: np.ndarray, key: tuple[int, ...]) -> Tensor:
        """Images for training: resized, cropped and mirrored at random; ``(B, 3, size, size)``.

        Args:
            positions: positions of the images in ``indices``.
            key: determines the random draw together with each image's index, such as seed and step.
        """
        indices = self._indices[positions]
        crops = [
            self._crop(pixels, np.random.default_rng([*key, index]))
            for index, pixels in zip(indices, self._store.read_resized(indices, self._short), strict=True)
        ]
        return self._ready(torch.stack(crops))

    def _crop(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        top, left = (int(rng.integers(0, side - self._size + 1)) for side in pixels.shape[1:])
        crop = pixels[:, top : top + self._size, left : left + self._size]
        return crop.flip(2) if self._flip and rng.random() < 0.5 else crop

    def _ready(self, pixels: Tensor) -> Tensor:
        return self._store.transform.normalized(pixels.to(self._device), self._dtype)
