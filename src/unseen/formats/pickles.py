"""Read pickles of numpy arrays without running anything: no class or function named in the file is imported.

Names in a pickle are replaced by plain stand-ins that only store their arguments; arrays are built from their bytes
afterwards. A file can therefore neither call code nor request more memory than its own length.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from unseen.errors import DataError

LIMIT = 2**30
"""Largest pickle to open, in bytes."""
HINT = "save the array with numpy.save"
_KINDS = "biufc"


def read_pickle(path: Path, limit: int = LIMIT) -> Any:
    """Content of a pickle: arrays of numbers, numbers, text, and lists, tuples and dictionaries of these.

    Pickles of Python 2 are read as Latin-1.

    Raises:
        DataError: anything else in it, damage, or more than ``limit`` bytes.
    """
    if not path.is_file():
        raise DataError("no such file", where=path, hint="pass a pickle of a NumPy array")
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"{size:,} bytes, more than {limit:,}", where=path, hint=HINT)
    try:
        # from memory, where a request for more than there is allocates nothing
        return _plain(_Reader(io.BytesIO(path.read_bytes()), encoding="latin1").load(), {})
    except _RefusedError as error:
        raise DataError(f"a pickle with {error}, not only arrays", where=path, hint=HINT) from None
    except PermissionError as error:
        raise DataError(error.strerror or str(error), where=path, hint="change its permissions") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"not a valid pickle ({reason})", where=path, hint=HINT) from None


def read_array(path: Path) -> np.ndarray:
    """The only 2-d array of numbers in a pickle, as float64; errors as in :func:`read_pickle`."""
    value = read_pickle(path)
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "fiu":
        shape = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise DataError(f"{shape} instead of a table of numbers", where=path, hint="use one K x D array")
    return value.astype(np.float64)


class _RefusedError(Exception):
    pass


class _Dtype:
    """An element type: its code and byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _RefusedError("a structured dtype")
        self.order = {"|": "", "=": "="}.get(str(state[1]), str(state[1]))

    def numpy(self) -> np.dtype:
        dtype = np.dtype(self.order + self.code.lstrip("<>=|"))
        if dtype.kind not in _KINDS:
            raise _RefusedError(f'elements of type "{self.code}"')
        return dtype


class _Array:
    """An array: shape, element type, order and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("an array of unknown form")
        self.state = state[1:]

    def numpy(self) -> np.ndarray:
        if not self.state:
            raise _RefusedError("an array without content")
        shape, dtype, fortran, data = self.state
        return _array(data, dtype, shape, "F" if fortran else "C")


class _Buffer:
    """An array in the form of pickle protocol 5."""

    def __init__(self, data: object, dtype: object, shape: object, order: object) -> None:
        self.parts = data, dtype, shape, order

    def numpy(self) -> np.ndarray:
        return _array(*self.parts)


class _Scalar:
    """A numpy number."""

    def __init__(self, dtype: object, data: object) -> None:
        self.parts = data, dtype

    def numpy(self) -> Any:
        return _array(*self.parts, (), "C")[()]


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise _RefusedError("an array of objects")
    # a damaged length raises here, before any allocation
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: object, encoding: object) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise _RefusedError("an encoded text")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    ("__builtin__", "bytes"): _no_bytes,  # how protocols 0 to 2 write empty ones
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
}


class _Reader(pickle._Unpickler):
    """Unpickler in Python: the C version allocates as many objects as the largest memo index in the file."""

    dispatch: ClassVar = {**pickle._Unpickler.dispatch}

    def load_bytearray8(self: Any) -> None:
        """Python's own version allocates as many bytes as the file claims to have."""
        (size,) = struct.unpack("<Q", self.read(8))
        data = self.read(size)
        if len(data) != size:
            raise EOFError("it ends within an array")
        self.append(bytearray(data))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays instead of their stand-ins."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array | _Buffer | _Scalar):
        found: Any = value.numpy()
    elif isinstance(value, list):
        found = [_plain(v, done) for v in value]
    elif isinstance(value, tuple):
        found = tuple(_plain(v, done) for v in value)
    elif isinstance(value, dict):
        found = {_plain(k, done): _plain(v, done) for k, v in value.items()}
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        found = value
    else:
        raise _RefusedError(f"a {type(value).__name__.lstrip('_').lower()}")
    done[id(value)] = found
    return found
