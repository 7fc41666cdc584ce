"""Embeddings of images, for comparisons: similar images, near duplicates, outliers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unseen.errors import UnseenError
from unseen.ground.extras import require
from unseen.ground.files import write_arrays, write_with
from unseen.ground.words import counted

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".parquet", ".npz")
AT_LEAST = 0.9
"""Smallest cosine of near duplicates."""
NEIGHBOURS = 5
"""Number of images that an outlier is compared with."""
BLOCK = 1024


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Embeddings of M images.

    Args:
        images: paths, ``""`` for pixels.
        pooled: float32 ``(M, C)`` mean of the network's regions, scaled to unit length.
        standardised: float32 ``(M, C)`` the same, centered and whitened by the training images, scaled to unit length;
            ``None`` if the model has no such space (:mod:`unseen.model.support`).
        attribute_scores: float32 ``(M, K)`` attribute scores of the method.
        attributes: K attribute names.
    """

    images: tuple[str, ...]
    pooled: np.ndarray
    standardised: np.ndarray | None
    attribute_scores: np.ndarray
    attributes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        """Number of images and lengths of the vectors."""
        sizes = f"{self.pooled.shape[1]} pooled features, {counted(len(self.attributes), 'attribute')}"
        return f"<Embeddings: {counted(len(self), 'image')}, {sizes}>"

    @cached_property
    def compared(self) -> np.ndarray:
        """``(M, C)`` unit vectors for comparisons: standardized, or pooled minus the mean of these images."""
        return self.seen_from_here(self)

    def seen_from_here(self, other: Embeddings) -> np.ndarray:
        """Unit vectors of other images of the same model, comparable with :attr:`compared`."""
        if other.standardised is not None:
            return other.standardised
        centred = other.pooled - self.pooled.mean(axis=0) if len(self) > 1 else other.pooled
        found: np.ndarray = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row per image: ``image``, and lists of numbers ``pooled``, ``standardised``, ``attribute_scores``."""
        import pandas as pd

        columns: dict[str, Any] = {"image": self.images, "pooled": list(self.pooled)}
        if self.standardised is not None:
            columns["standardised"] = list(self.standardised)
        return pd.DataFrame(columns | {"attribute_scores": list(self.attribute_scores)})

    def save(self, path: Path) -> None:
        """Write ``.parquet`` (lists of float32, attribute names in the schema) or ``.npz``, atomically.

        Raises:
            UnseenError: another file extension.
        """
        check_ending(path)
        if path.suffix.lower() == ".npz":
            more = {} if self.standardised is None else {"standardised": self.standardised}
            names = {"images": np.array(self.images), "attributes": np.array(self.attributes)}
            write_arrays(path, **names, pooled=self.pooled, **more, attribute_scores=self.attribute_scores)
            return
        require("pyarrow")
        import json

        import pyarrow as pa
        import pyarrow.parquet as pq

        kind = pa.list_(pa.float32())
        table = pa.table({"image": [image.encode(errors="backslashreplace").decode() for image in self.images]})
        for name in ("pooled", "standardised", "attribute_scores"):
            if (values := getattr(self, name)) is not None:
                table = table.append_column(name, pa.array(list(values), kind))
        table = table.replace_schema_metadata({"attributes": json.dumps(self.attributes)})
        write_with(path, lambda temporary: pq.write_table(table, temporary))

    def similar(self, query: np.ndarray, count: int = 10) -> list[tuple[int, float]]:
        """Positions of the images most similar to a vector of :attr:`compared`, with the cosine, best first."""
        cosines = self.compared @ query
        return [(int(i), float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:count]]

    def duplicates(self, at_least: float = AT_LEAST) -> list[tuple[int, int, float]]:
        """Pairs of near duplicates by position, with their cosine, most similar first."""
        found = []
        for start in range(0, len(self), BLOCK):
            cosines = self.compared[start : start + BLOCK] @ self.compared.T
            for row, column in np.argwhere(cosines >= at_least):
                if start + row < column:
                    found.append((int(start + row), int(column), float(cosines[row, column])))
        return sorted(found, key=lambda pair: (-pair[2], pair[:2]))

    def outliers(self, count: int = 10) -> list[tuple[int, float]]:
        """Images least similar to the others, with the mean cosine to their five nearest, least similar first."""
        near = min(NEIGHBOURS, len(self) - 1)
        if near < 1:
            return []
        means = []
        for start in range(0, len(self), BLOCK):
            cosines = self.compared[start : start + BLOCK] @ self.compared.T
            cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -2
            means.append(np.partition(cosines, -near, axis=1)[:, -near:].mean(axis=1))
        every = np.concatenate(means)
        return [(int(i), float(every[i])) for i in np.argsort(every, kind="stable")[:count]]


def check_ending(path: Path) -> None:
    """Raise an error if embeddings cannot be written to a file of this name."""
    if path.suffix.lower() not in ENDINGS:
        raise UnseenError("unsupported file format for embeddings", where=path, hint=f"use one of {', '.join(ENDINGS)}")
