"""MATLAB files of version 5 (scipy) and 7.3 (h5py), with the same result for both."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import DataError

MEND = "download it again from the data's own page"
_NUMBERS = "biufc"


def read_mat(path: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """The variables of a MATLAB file.

    Numbers are arrays of MATLAB's shape (2-d at least), text is ``str``, cell arrays are object arrays of MATLAB's
    shape that hold any of these. Variables of other kinds (structs, sparse matrices, handles) are left out.

    Args:
        path: a file of version 5 or 7.3.
        names: the variables wanted; the others are not read. ``None`` is all.

    Raises:
        DataError: no such file, or one that is no MATLAB file or damaged.
    """
    import h5py
    import scipy.io

    with _readable(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                wanted = [n for n in file if not n.startswith("#") and (names is None or n in names)]
                found = {n: _from_hdf5(file, file[n]) for n in wanted}
        else:
            content = scipy.io.loadmat(path, variable_names=None if names is None else list(names))
            found = {n: _from_scipy(v) for n, v in content.items() if not n.startswith("__")}
    return {name: value for name, value in found.items() if value is not None}


def mat_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """MATLAB's shape of every variable, without reading it; errors as :func:`read_mat`."""
    import h5py
    import scipy.io

    with _readable(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                return {n: v.shape[::-1] for n, v in file.items() if isinstance(v, h5py.Dataset) and n[0] != "#"}
        return {name: tuple(shape) for name, shape, _ in scipy.io.whosmat(path)}


def texts(value: object, name: str, path: Path) -> tuple[str, ...]:
    """A cell array of strings as a tuple.

    Raises:
        DataError: it is none.
    """
    cells = list(value.ravel()) if isinstance(value, np.ndarray) and value.dtype == object else [value]
    if not all(isinstance(cell, str) for cell in cells):
        raise DataError(f"`{name}` is no cell array of names", where=path, mend=MEND)
    return tuple(str(cell).strip() for cell in cells)


def whole_numbers(value: object, name: str, path: Path) -> np.ndarray:
    """A row or column of whole numbers as int64 ``(n,)``.

    Raises:
        DataError: it is none.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.size not in (0, max(value.shape)):
        raise DataError(f"`{name}` is no row or column of numbers", where=path, mend=MEND)
    flat = value.ravel()
    if flat.dtype.kind == "f" and not (np.isfinite(flat).all() and (flat == np.floor(flat)).all()):
        raise DataError(f"`{name}` holds a number that is not whole", where=path, mend=MEND)
    return flat.astype(np.int64)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Everything that can be wrong with a file as one line."""
    if not path.is_file():
        raise DataError("no such file", where=path, mend="download it from the data's own page")
    try:
        yield
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(error.strerror or str(error), where=path, mend="make it readable") from None
    except Exception as error:  # a damaged file raises nearly anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"not a MATLAB file, or damaged ({reason})", where=path, mend=MEND) from None


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


def _from_hdf5(file: Any, item: Any) -> Any:
    """A variable; arrays lie in HDF5 with their axes in reverse, cells as references to other datasets."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        return None
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if item.attrs.get("MATLAB_empty", 0):
        shape = tuple(int(n) for n in item[()].ravel())
        return "" if kind == "char" else np.empty(shape, dtype=object if kind == "cell" else np.float64)
    if h5py.check_ref_dtype(item.dtype) is not None:
        references = item[()].T
        cells = np.empty(references.shape, dtype=object)
        for i, reference in np.ndenumerate(references):
            cells[i] = _from_hdf5(file, file[reference])
        return cells
    value = item[()]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in _NUMBERS:
        return None
    value = np.atleast_2d(value.T)
    if kind != "char":
        return value
    rows = ["".join(map(chr, row)) for row in value]
    return rows[0] if len(rows) == 1 else rows
