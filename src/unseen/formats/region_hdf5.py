"""Region features as used in the field: one HDF5 file with ``feature_map``, labels, splits and semantics.

======================== =========================================================================
``feature_map``          (M, C, H, W) float32, in the order of ``res101.mat``; (M, C) is one region
``labels``               (M,) positions in ``allclasses_names``
``trainval_loc``, ...    rows of the splits
``att``, ``original_att`` (N, K) class attributes
``w2v_att``              (K, D) word vectors of the attributes
======================== =========================================================================

Labels and rows count from 0 there, unlike in MATLAB files; files that count from 1 are recognized by their largest row.
Only ``feature_map`` is large, and it is never read whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError
from unseen.formats.hdf5 import HINT, member
from unseen.ground.extras import require
from unseen.ground.words import counted

MOST_A_IMAGE = 2**22
"""Largest number of feature values per image: 2,048 channels in 45 x 45 regions."""
Reader = Callable[[int, int], np.ndarray]
"""Reads features (b, R, C) of the images from one row up to another."""
SPLITS = ("trainval", "test_seen", "test_unseen")


@dataclass(frozen=True, eq=False)
class RegionFile:
    """Content of a file other than its features.

    Args:
        path: the file.
        count: M images.
        channels: C numbers per region.
        grid: (H, W).
        labels: int64 ``(M,)``, from 0.
        rows: rows from 0 of ``trainval``, ``test_seen`` and ``test_unseen``, as far as available.
        values: float64 ``(N, K)`` class attributes, preferably ``original_att``, else ``att``; ``None`` if missing.
        vectors: float64 ``(K, D)`` word vectors; ``None`` if missing.
    """

    path: Path
    count: int
    channels: int
    grid: tuple[int, int]
    labels: np.ndarray
    rows: dict[str, np.ndarray]
    values: np.ndarray | None
    vectors: np.ndarray | None

    @classmethod
    def open(cls, path: Path) -> RegionFile:
        """Read everything except the features.

        Raises:
            DataError: no such file, or one that is damaged or lacks ``feature_map`` or ``labels``.
        """
        with _opened(path) as file:
            for name in ("feature_map", "labels"):
                if name not in file:
                    raise DataError(
                        f"no `{name}`", where=path, hint=f"the file has {', '.join(list(file)[:8]) or 'nothing'}"
                    )
            features = member(file, "feature_map", path, "f", None)
            shape = features.shape
            if len(shape) not in (2, 4) or not features.size:
                problem = f"`feature_map` is {features.dtype} of shape {shape}"
                raise DataError(problem, where=path, hint="expected M x C x H x W floats")
            if math.prod(shape[1:]) > MOST_A_IMAGE:
                problem = f"`feature_map` has {math.prod(shape[1:]):,} values per image, more than {MOST_A_IMAGE:,}"
                raise DataError(problem, where=path, hint="pool or crop the regions")
            labels = _whole(file, "labels", path)
            rows = {s: _whole(file, f"{s}_loc", path) for s in SPLITS if f"{s}_loc" in file}
            name = "original_att" if "original_att" in file else "att"
            values = np.asarray(member(file, name, path, "fiu"), dtype=np.float64) if name in file else None
            vectors = np.asarray(member(file, "w2v_att", path, "fiu"), dtype=np.float64) if "w2v_att" in file else None
        if len(labels) != shape[0]:
            raise DataError(f"{counted(len(labels), 'label')} for {counted(shape[0], 'image')}", where=path, hint=HINT)
        every = np.concatenate([*rows.values()]) if rows else np.zeros(0, dtype=np.int64)
        first = 1 if len(every) and every.max() == shape[0] else 0
        if len(every) and (every.min() < first or every.max() - first >= shape[0]):
            problem = f"rows from {every.min()} to {every.max()} for {counted(shape[0], 'image')}"
            raise DataError(problem, where=path, hint=HINT)
        return cls(
            path,
            shape[0],
            shape[1],
            (shape[2], shape[3]) if len(shape) == 4 else (1, 1),
            labels - first,
            {name: found - first for name, found in rows.items()},
            values,
            vectors,
        )

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """A function that reads only the features (b, R, C) of images ``start`` to ``stop``."""
        with _opened(self.path) as file:
            features = file["feature_map"]

            def read(start: int, stop: int) -> np.ndarray:
                block: np.ndarray = features[start:stop]
                return block.reshape(len(block), self.channels, -1).transpose(0, 2, 1)

            yield read


def _whole(file: Any, name: str, path: Path) -> np.ndarray:
    """A row or column of whole numbers, int64 ``(n,)``."""
    values = np.asarray(member(file, name, path, "fiu")).ravel()
    if values.dtype.kind == "f" and not (np.abs(values) < 2**53).all():
        raise DataError(f"`{name}` contains a value that is not an integer", where=path, hint=HINT)
    found = values.astype(np.int64)
    if (found != values).any():
        raise DataError(f"`{name}` contains a value that is not an integer", where=path, hint=HINT)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file; every error becomes one line."""
    require("h5py")
    import h5py

    if not path.is_file():
        raise DataError("no such file", where=path, hint="pass an HDF5 file with region features")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"not a valid HDF5 file ({reason})", where=path, hint=HINT) from None
