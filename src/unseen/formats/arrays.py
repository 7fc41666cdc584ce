"""Features as plain arrays: ``.npz``, ``.npy``, ``.safetensors`` and ``.parquet``.

============== =====================================================================================
``features``   (M, C), (M, R, C) or (M, C, H, W) numbers; also ``X`` or ``embeddings``. An ``.npy`` is that alone
``labels``     optional: (M,) class names, or positions in the class table from 0; also ``y`` or ``class``
``files``      optional: (M,) image names; also ``file`` or ``path``
``split``      optional: (M,) ``trainval``, ``test_seen`` or ``test_unseen``
============== =====================================================================================

In ``.parquet``, ``features`` is a column with one list per row; otherwise every other column of numbers is a channel.
In ``.safetensors``, texts are lists as JSON in the file's metadata. No pickle is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError
from unseen.formats.region_hdf5 import MOST_A_IMAGE, SPLITS, Reader
from unseen.ground.extras import require
from unseen.ground.words import counted

SUFFIXES = (".npz", ".npy", ".safetensors", ".parquet")
FEATURES = ("features", "X", "x", "embeddings", "feature_map")
LABELS = ("labels", "label", "y", "class")
FILES = ("files", "file", "path", "image", "image_files")
SPLIT = ("split", "splits")
HINT = "see the docs for the names: features, labels, files, split"


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """Content of a file other than its features.

    Args:
        path: the file.
        shape: shape of the features.
        labels: ``(M,)`` int64 positions or texts; ``None`` if missing.
        files: M image names; empty if missing.
        split: ``(M,)`` texts; ``None`` if missing.
    """

    path: Path
    shape: tuple[int, ...]
    labels: np.ndarray | None = None
    files: tuple[str, ...] = ()
    split: np.ndarray | None = None

    @classmethod
    def open(cls, path: Path) -> ArrayFile:
        """Read everything except the features.

        Raises:
            DataError: no such file, a damaged one, or arrays that do not match.
        """
        if not path.is_file():
            raise DataError("no such file", where=path, hint="pass a feature file")
        with _content(path) as found:
            name = next((n for n in FEATURES if n in found), None)
            if name is None:
                raise DataError(
                    "no `features`", where=path, hint=f"the file has {', '.join(list(found)[:8]) or 'nothing'}"
                )
            shape = tuple(int(side) for side in found[name].shape)
            kind = np.dtype(found[name].dtype).kind
            if len(shape) not in (2, 3, 4) or not math.prod(shape) or kind not in "fiu":
                problem = f"`{name}` is {found[name].dtype} of shape {shape}"
                raise DataError(problem, where=path, hint="expected numbers of shape (M, C), (M, R, C) or (M, C, H, W)")
            if math.prod(shape[1:]) > MOST_A_IMAGE:
                problem = f"`{name}` has {math.prod(shape[1:]):,} values per image, more than {MOST_A_IMAGE:,}"
                raise DataError(problem, where=path, hint="pool or crop the regions")
            labels, files, split = (_column(found, names, shape[0], path) for names in (LABELS, FILES, SPLIT))
        if labels is not None and labels.dtype.kind not in "iuU":
            raise DataError(f"labels are {labels.dtype}", where=path, hint="use class names, or positions from 0")
        if split is not None and (wrong := sorted(set(split) - set(SPLITS))):
            raise DataError(f'unknown split "{wrong[0]}"', where=path, hint=f"use one of {', '.join(SPLITS)}")
        texts = () if files is None else tuple(str(file).replace("\\", "/") for file in files)
        if len(set(texts)) < len(texts):
            twice = next(file for file in texts if texts.count(file) > 1)
            raise DataError(f'"{twice}" appears twice', where=path, hint="use one row per image")
        return cls(
            path, shape, labels if labels is None or labels.dtype.kind == "U" else labels.astype(np.int64), texts, split
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W): a square of R regions if R is a square number."""
        if len(self.shape) == 4:
            return self.shape[2], self.shape[3]
        regions = self.shape[1] if len(self.shape) == 3 else 1
        side = math.isqrt(regions)
        return (side, side) if side * side == regions else (1, regions)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.shape[1] if len(self.shape) == 4 else self.shape[-1]

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """A function that reads the features (b, R, C) of images ``start`` to ``stop``."""
        with _content(self.path) as found:
            features = found[next(n for n in FEATURES if n in found)]

            def read(start: int, stop: int) -> np.ndarray:
                block = np.asarray(features[start:stop], dtype=np.float32)
                if block.ndim == 4:
                    return block.reshape(len(block), self.channels, -1).transpose(0, 2, 1)
                return block if block.ndim == 3 else block[:, None, :]

            yield read


def _column(found: Any, names: Sequence[str], count: int, path: Path) -> np.ndarray | None:
    name = next((n for n in names if n in found), None)
    if name is None:
        return None
    values = np.asarray(found[name][:])
    if values.dtype.kind in "OS":
        values = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values])
    if values.shape != (count,):
        raise DataError(
            f"`{name}` has shape {values.shape} for {counted(count, 'row')}", where=path, hint="use one entry per row"
        )
    return values


@contextmanager
def _content(path: Path) -> Iterator[Any]:
    """Content of a file by name, with large arrays read on demand; damage gives one line."""
    openers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}
    try:
        with openers[path.suffix.lower()](path) as found:
            yield found
    except DataError:
        raise
    except Exception as error:  # damage raises nearly anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if "pickle" in reason:
            raise DataError(
                "contains pickled objects; unseen does not load pickles", where=path, hint="save plain arrays"
            ) from None
        raise DataError(f"not a readable {path.suffix} file ({reason})", where=path, hint=HINT) from None


def _npy(path: Path) -> Any:
    return nullcontext({"features": np.load(path, mmap_mode="r", allow_pickle=False)})


def _npz(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        texts = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name in _TEXTS}
        yield {name: _Slice(file.get_slice(name)) for name in file.keys()} | texts  # noqa: SIM118


_TEXTS = (*LABELS, *FILES, *SPLIT)


class _Slice:
    """A tensor of a safetensors file."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self.shape = tuple(part.get_shape())
        self.dtype = np.dtype({"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "f2"}.get(part.get_dtype(), "i8"))

    def __getitem__(self, rows: slice) -> Any:
        return self._part[rows]


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    found: dict[str, Any] = {}
    for name in table.column_names:
        if name in _TEXTS:
            found[name] = np.array(table[name].to_pylist())
    nested = next((n for n in FEATURES if n in table.column_names), None)
    numeric = [f.name for f in table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    channels = [name for name in numeric if name not in _TEXTS]
    if nested is not None and nested not in numeric:
        found["features"] = np.array(table[nested].to_pylist(), dtype=np.float32)
    elif channels:
        found["features"] = np.stack([table[name].to_numpy() for name in channels], axis=1)
    yield found
