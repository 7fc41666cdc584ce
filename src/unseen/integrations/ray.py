"""Predict with Ray Data: actors that hold a model, on the devices of one or many machines.

found = unseen.integrations.ray.predict("s3://bucket/images.txt".splitlines(), "runs/mine", workers=8, gpus=0.5)
found.write_parquet("s3://bucket/found")

Use :class:`Predictor` in ``map_batches`` of any dataset. Needs ``pip install 'unseen[ray]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError, UnseenError
from unseen.ground.extras import needed
from unseen.ground.shards import batches
from unseen.model.predictions import Prediction, columns
from unseen.recognizer.stream import record_of, row_of

POSITION = "position"
"""Column with the order of images, which Ray does not preserve."""


class Predictor:
    """A model for ``map_batches``: takes a batch with a column of images, and returns one with rows of predictions.

    Args:
        model: folder or id, as in :func:`unseen.load`; every actor loads it once.
        column: column of images: paths, URLs, bytes, or pixels ``(H, W, 3)`` from ``ray.data.read_images``.
        top: number of classes per image.
        device: device of each actor; ``auto`` takes the GPU that Ray assigns.
        threads: torch threads of an actor that computes on a CPU.
        options: options of :meth:`unseen.Recognizer.outcomes`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        column: str = "image",
        top: int = 3,
        device: str = "auto",
        threads: int = 1,
        **options: Any,
    ) -> None:
        import torch

        from unseen.recognizer.loading import load_recognizer

        torch.set_num_threads(threads)
        self.recognizer = load_recognizer(model, device=device)
        self.column, self.top, self.options = column, top, options
        held = ("among", "only", "exclude", "together", "rank", "prior")
        self.extent = self.recognizer.extent(top, **{name: options[name] for name in held if name in options})

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """The batch's other columns, and those of ``unseen predict --output``."""
        if self.column not in batch:
            raise UnseenError(f'no column "{self.column}"', hint=f"it has {', '.join(batch)}")
        images = list(batch[self.column])
        outcomes = list(
            self.recognizer.outcomes(images, top=self.top, batch_size=max(len(images), 1), workers=0, **self.options)
        )
        rows = [
            row_of(record_of(image if isinstance(image, str) else "", outcome), self.extent)
            for image, outcome in zip(images, outcomes, strict=True)
        ]
        kinds = columns(self.extent)
        found = {name: _array([row[name] for row in rows], kind) for name, kind in kinds.items()}
        return {k: v for k, v in batch.items() if k != self.column and k not in found} | found


def _array(values: list[Any], kind: type) -> np.ndarray:
    if kind is float:
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    if kind is bool:
        return np.array([bool(v) for v in values])
    return np.array(["" if v is None else v for v in values], dtype=object)


def predict(
    images: Any,
    model: str | Path,
    *,
    column: str = "image",
    workers: int = 1,
    gpus: float = 0.0,
    cpus: float = 1.0,
    batch_size: int = 32,
    **options: Any,
) -> Any:
    """Rows of predictions as a lazy Ray dataset; the column ``position`` holds the order.

    Args:
        images: paths or URLs, or a Ray dataset with a column of images.
        model: as in :class:`Predictor`.
        column: column of images in a dataset.
        workers: number of actors.
        gpus: GPUs per actor; 0.5 puts two actors on one.
        cpus: CPUs per actor.
        batch_size: images per batch. With paths, every batch, and therefore every row, equals that of a single process.
        options: options of :class:`Predictor`.

    Raises:
        UnseenError: Ray is not installed, or fewer than one worker.
    """
    data = needed("ray.data", "unseen.integrations.ray")
    if workers < 1:
        raise UnseenError(f"{workers} workers", hint="give one or more")
    size: int | None = batch_size
    if isinstance(images, Sequence) and not isinstance(images, str):
        import pandas as pd

        parts = [
            pd.DataFrame({column: list(map(str, part)), POSITION: range(i * batch_size, i * batch_size + len(part))})
            for i, part in enumerate(batches(images, batch_size))
        ]
        if not parts:
            raise DataError("no images", hint="give paths or addresses")
        images, size = data.from_pandas(parts), None  # a block is a batch
    return images.map_batches(
        Predictor,
        fn_constructor_args=(str(model),),
        fn_constructor_kwargs={"column": column, **options},
        batch_size=size,
        concurrency=workers,
        num_gpus=gpus,
        num_cpus=cpus,
    )


__all__ = ["POSITION", "Prediction", "Predictor", "predict"]
