"""``res101.mat`` of the Proposed Split (Xian et al., TPAMI 2019): image names, labels and pooled features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unseen.errors import DataError
from unseen.formats.hdf5 import member
from unseen.formats.matlab import HINT, mat_shapes, read_mat, readable, texts, whole_numbers
from unseen.formats.region_hdf5 import Reader
from unseen.ground.extras import require
from unseen.ground.words import counted

MOST_WHOLE = 2**29
"""Largest number of feature values in a file of version 5: 65,536 images of 2,048."""


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images of a release's rows.

    Args:
        path: the ``res101.mat``.
        files: M image paths as the makers of the release had them, with ``/``; empty if missing.
        labels: int64 ``(M,)`` positions in ``allclasses_names``, from 0.
        channels: numbers per image in ``features``; 0 if missing.
    """

    path: Path
    files: tuple[str, ...]
    labels: np.ndarray
    channels: int

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def read(cls, path: Path) -> ImageList:
        """Read names and labels, but not the features.

        Raises:
            DataError: damage, no labels, labels from 0, or counts that do not match.
        """
        content = read_mat(path, ("labels", "image_files"))
        if "labels" not in content:
            raise DataError("no `labels`", where=path, hint=HINT)
        labels = whole_numbers(content["labels"], "labels", path)
        if not len(labels) or labels.min() < 1:
            problem = "labels start at 0" if len(labels) else "no labels"
            raise DataError(problem, where=path, hint="use the file of the release, whose labels start at 1")
        names = texts(content["image_files"], "image_files", path) if "image_files" in content else ()
        if names and len(names) != len(labels):
            raise DataError(f"{len(names)} image_files for {counted(len(labels), 'label')}", where=path, hint=HINT)
        shape = mat_shapes(path).get("features", (0, len(labels)))
        if len(shape) != 2 or shape[1] != len(labels):
            raise DataError(f"features of shape {shape} for {counted(len(labels), 'label')}", where=path, hint=HINT)
        return cls(path, tuple(n.replace("\\", "/") for n in names), labels - 1, shape[0])


@contextmanager
def read_features(path: Path) -> Iterator[Reader]:
    """A function that reads pooled features as one region per image, (b, 1, C), for images ``start`` to ``stop``.

    Version 7.3 is read piece by piece; version 5 must be read whole.

    Raises:
        DataError: no ``features``, or damage.
    """
    require("h5py")
    import h5py

    if "features" not in mat_shapes(path):
        raise DataError("no `features`", where=path, hint=HINT)
    with readable(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                features = member(file, "features", path, "fiu", None)  # reversed axes: images first
                yield lambda start, stop: features[start:stop][:, None, :]
            return
    whole = read_mat(path, ("features",), MOST_WHOLE).get("features")
    if not isinstance(whole, np.ndarray) or whole.dtype.kind not in "fiu":
        raise DataError("`features` are not numbers", where=path, hint=HINT)
    yield lambda start, stop: whole[:, start:stop].T[:, None, :]
