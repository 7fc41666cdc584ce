"""MATLAB files of version 5 (scipy) and 7.3 (h5py), with the same result for both."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError, UnseenError
from unseen.formats.hdf5 import MOST, plain
from unseen.ground.extras import require

HINT = "download it again from the dataset's page"
_NUMBERS = "biufc"


def read_mat(path: Path, names: Collection[str] | None = None, most: int = MOST) -> dict[str, Any]:
    """Variables of a MATLAB file.

    Numbers are arrays of MATLAB's shape (at least 2-d), text is ``str``, cell arrays are object arrays of MATLAB's
    shape that hold any of these. Variables of other kinds (structs, sparse matrices, handles) are left out.

    Args:
        path: a file of version 5 or 7.3.
        names: variables to read; ``None`` for all.
        most: largest number of elements of these variables together.

    Raises:
        DataError: no such file, or one that is not a MATLAB file, damaged or too large.
    """
    require("h5py")
    import h5py
    import scipy.io

    with readable(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                wanted = [n for n in file if not n.startswith("#") and (names is None or n in names)]
                read = _Hdf5(file, path, most)
                found = {n: read(_own(file, n, path)) for n in wanted}
        else:
            sizes = {n: math.prod(shape) for n, shape, _ in scipy.io.whosmat(path) if names is None or n in names}
            if sum(sizes.values()) > most:
                raise _too_much(sum(sizes.values()), most, path)
            content = scipy.io.loadmat(path, variable_names=None if names is None else list(names))
            found = {n: _from_scipy(v) for n, v in content.items() if not n.startswith("__")}
    return {name: value for name, value in found.items() if value is not None}


def mat_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """MATLAB's shape of every variable, without reading it; errors as in :func:`read_mat`."""
    require("h5py")
    import h5py
    import scipy.io

    with readable(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                own = {n: _own(file, n, path) for n in file if not n.startswith("#")}
                return {n: v.shape[::-1] for n, v in own.items() if isinstance(v, h5py.Dataset)}
        return {name: tuple(shape) for name, shape, _ in scipy.io.whosmat(path)}


def texts(value: object, name: str, path: Path) -> tuple[str, ...]:
    """A cell array of strings as a tuple.

    Raises:
        DataError: it is not one.
    """
    cells = list(value.ravel()) if isinstance(value, np.ndarray) and value.dtype == object else [value]
    if not all(isinstance(cell, str) for cell in cells):
        raise DataError(f"`{name}` is not a cell array of names", where=path, hint=HINT)
    return tuple(str(cell).strip() for cell in cells)


def whole_numbers(value: object, name: str, path: Path) -> np.ndarray:
    """A row or column of whole numbers as int64 ``(n,)``.

    Raises:
        DataError: it is not one.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.size not in (0, max(value.shape)):
        raise DataError(f"`{name}` is not a row or column of numbers", where=path, hint=HINT)
    flat = value.ravel()
    if flat.dtype.kind == "f" and not (np.isfinite(flat).all() and (flat == np.floor(flat)).all()):
        raise DataError(f"`{name}` contains a value that is not an integer", where=path, hint=HINT)
    return flat.astype(np.int64)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn everything that can be wrong with a MATLAB file into one line."""
    if not path.is_file():
        raise DataError("no such file", where=path, hint="download it from the dataset's page")
    try:
        yield
    except PermissionError as error:
        raise DataError(error.strerror or str(error), where=path, hint="change its permissions") from None
    except UnseenError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"not a valid MATLAB file ({reason})", where=path, hint=HINT) from None


def _from_scipy(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.names is not None:
        return None
    if value.dtype.kind == "U":
        return str(value[0]) if value.size == 1 else [str(v) for v in value] if value.size else ""
    if value.dtype == object:
        cells = np.empty(value.shape, dtype=object)
        for i, cell in np.ndenumerate(value):
            cells[i] = _from_scipy(cell)
        return cells
    return value if value.dtype.kind in _NUMBERS else None


def _too_much(count: int, most: int, path: Path) -> DataError:
    problem = f"it has at least {count:,} numbers and characters; the limit is {most:,}"
    return DataError(problem, where=path, hint="remove variables that are not needed")


def _own(file: Any, name: str, path: Path) -> Any:
    """A variable of an HDF5 file; it must be inside this file."""
    require("h5py")
    import h5py

    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise DataError(f"`{name}` is stored in another file", where=path, hint=HINT)
    item = file[name]
    if item.file.filename != file.filename:  # through an existing group
        raise DataError(f"`{name}` is stored in another file", where=path, hint=HINT)
    return item


class _Hdf5:
    """Reads variables of HDF5; arrays have reversed axes, and cells are references to other datasets.

    A file of a few bytes can claim any number of elements, and cells can contain the same cells again, so everything
    read is counted.
    """

    def __init__(self, file: Any, path: Path, most: int) -> None:
        self.file, self.path, self.most, self.left = file, path, most, most

    def __call__(self, item: Any) -> Any:
        """A variable in the form of :func:`read_mat`; ``None`` for other kinds."""
        require("h5py")
        import h5py

        if not isinstance(item, h5py.Dataset) or item.shape is None or item.dtype.kind not in _NUMBERS + "O":
            return None
        plain(item, self.path, _NUMBERS + "O", None)
        self.left -= 1 + math.prod(item.shape)
        if self.left < 0:
            raise _too_much(self.most - self.left, self.most, self.path)
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if item.attrs.get("MATLAB_empty", 0):
            return "" if kind == "char" else np.empty(self._empty(item), dtype=object if kind == "cell" else np.float64)
        if h5py.check_ref_dtype(item.dtype) is not None:
            references = item[()].T
            cells = np.empty(references.shape, dtype=object)
            for i, reference in np.ndenumerate(references):
                cells[i] = self(self.file[reference])
            return cells
        value = item[()]
        if not isinstance(value, np.ndarray | np.number) or value.dtype.kind not in _NUMBERS:
            return None
        value = np.atleast_2d(np.asarray(value).T)
        if kind != "char":
            return value
        rows = ["".join(map(chr, row)) for row in value]
        return rows[0] if len(rows) == 1 else rows

    def _empty(self, item: Any) -> tuple[int, ...]:
        """Shape of an array without elements, which is stored instead of them."""
        shape = tuple(int(n) for n in item[()].ravel())
        if len(shape) > 8 or 0 not in shape:
            raise DataError("an empty array with elements", where=self.path, hint=HINT)
        return shape
