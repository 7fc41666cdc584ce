"""Decode images ahead of the network in threads, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.backbones.transform import Transform
from unseen.errors import DataError
from unseen.ground.images import EncodedImage
from unseen.ground.threads import plain_threads

ImageInput = Path | str | Image.Image | EncodedImage
AHEAD = 2
"""Number of batches that are decoded or wait for the network."""


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Contiguous images (3, H, W) as one batch (B, 3, H, W).

    Copied without torch's threads, see :func:`unseen.ground.threads.plain_threads`.
    """
    return torch.from_numpy(np.stack([image.numpy() for image in images]))


P = TypeVar("P", bound=ImageInput)


def read_batches(
    batches: Iterable[Sequence[P]], transform: Transform, threads: int
) -> Generator[tuple[Sequence[P], list[Tensor | DataError]]]:
    """Yield each batch with the cropped pixels ``(3, size, size)`` of its images as bytes, or the error of an image.

    Args:
        batches: consumed when a batch is due to be decoded.
        transform: computes the pixels.
        threads: number of decoding threads; 0 decodes in the calling thread, on demand. Images in memory are always
            decoded there.
    """

    def read(image: P) -> Tensor | DataError:
        try:
            return transform.cropped(image)
        except DataError as error:
            return error

    source: Iterator[Sequence[P]] = iter(batches)
    if not threads:
        for batch in source:
            yield batch, [read(image) for image in batch]
        return
    pool = plain_threads(threads, "images")
    begun = deque[tuple[Sequence[P], list[Tensor | DataError | Future[Tensor | DataError]]]]()

    def begin(image: P) -> Tensor | DataError | Future[Tensor | DataError]:
        # an image in memory may occur twice, and loads once
        return read(image) if isinstance(image, Image.Image) else pool.submit(read, image)

    try:
        while True:
            while len(begun) < AHEAD and (batch := next(source, ())):
                begun.append((batch, [begin(image) for image in batch]))
            if not begun:
                return
            batch, found = begun.popleft()
            yield batch, [pixels.result() if isinstance(pixels, Future) else pixels for pixels in found]
    finally:
        pool.shutdown(cancel_futures=True)
