"""Images decoded ahead of the network by threads, in their order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor

from unseen.backbones.transform import Transform
from unseen.errors import DataError
from unseen.ground.images import EncodedImage

ImageInput = Path | str | Image.Image | EncodedImage
AHEAD = 2
"""Batches that are being decoded or wait for the network."""

P = TypeVar("P", bound=ImageInput)


def read_batches(
    batches: Iterable[Sequence[P]], transform: Transform, threads: int
) -> Generator[tuple[Sequence[P], list[Tensor | DataError]]]:
    """Each batch with its images' cropped pixels ``(3, size, size)`` as bytes, or what is wrong with an image.

    Args:
        batches: asked for a batch when it is due to be decoded.
        transform: gives the pixels.
        threads: that decode; 0 decodes here, when a batch is asked for. Images in memory are always decoded here.
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
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    begun = deque[tuple[Sequence[P], list[Tensor | DataError | Future[Tensor | DataError]]]]()

    def begin(image: P) -> Tensor | DataError | Future[Tensor | DataError]:
        # one that is in memory may be there twice, and loads once
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
