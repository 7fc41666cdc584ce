"""Atomic writes, and strict JSON.

A file is first written as a temporary file beside its path, with a lock that its writer holds. A temporary file with a
free lock was left by a killed process, and the next write of the same file removes it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.errors import RunError, UnseenError

if TYPE_CHECKING:
    import numpy as np
    from filelock import FileLock

SEAL = "sha256 of the rest"
"""Last entry of a sealed JSON object."""
_LOCK = ".lock"


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``.

    Raises:
        UnseenError: the folder cannot be written, or the disk is full; ``path`` is unchanged.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(_temporary(path))
        except OSError as error:
            hint = "choose a writable folder with free disk space"
            raise UnseenError(error.strerror or str(error), where=path, hint=hint) from None
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except OSError as error:
            hint = "free some disk space, then repeat"
            raise UnseenError(error.strerror or str(error), where=path, hint=hint) from None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new temporary file beside ``path``, locked while in use; removes those of killed processes."""
    _sweep(path)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        lock = _lock(temporary)
        with contextlib.suppress(OSError, NotImplementedError):  # no locks here, so nothing is removed either
            lock.acquire(timeout=0)
        if not lock.is_locked or Path(lock.lock_file).exists():  # else removed before it was locked
            break
        lock.release()
    try:
        with temporary.open("xb"):
            pass
        yield temporary
    finally:
        _remove(temporary, lock)


def located(text: str, prefix: str) -> str:
    """``PREFIX:FOLDER`` with the full path of the folder; anything else, such as an id of the hub, is unchanged."""
    folder = Path(text.removeprefix(prefix)).expanduser()
    return f"{prefix}{folder.absolute()}" if text.startswith(prefix) and folder.is_dir() else text


def new_folder(folder: os.PathLike[str] | str, marks: Callable[[set[str]], bool], what: str) -> Path:
    """A folder to save into; created if there is none.

    Args:
        folder: new, empty, or with names of files of which ``marks`` says that an earlier save wrote them.
        marks: see ``folder``.
        what: what is saved, for the message.

    Raises:
        RunError: it is a file, or holds something else.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise RunError("is a file", where=folder, hint="choose another folder")
    inside = {path.name for path in folder.iterdir() if not is_left_over(path)} if folder.is_dir() else set()
    if inside and not marks(inside):
        raise RunError(f"the folder is not empty and contains no {what}", where=folder, hint="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_left_over(path: Path) -> bool:
    """Whether a file is a temporary file of :func:`write_with`, or its lock; killed processes leave them."""
    return path.name.startswith(".") and path.name.endswith((".tmp", f".tmp{_LOCK}"))


def _sweep(path: Path) -> None:
    found = (p for p in path.parent.iterdir() if p.name.startswith(f".{path.name}.") and is_left_over(p))
    for left in {p.with_name(p.name.removesuffix(_LOCK)) for p in found}:
        lock = _lock(left)
        with contextlib.suppress(OSError, NotImplementedError):  # in use, according to its lock
            lock.acquire(timeout=0)
            _remove(left, lock)


def _lock(temporary: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(temporary.with_name(temporary.name + _LOCK))


def _remove(temporary: Path, lock: FileLock) -> None:
    """Remove a temporary file, then its lock while holding it; Windows removes only what nobody holds."""
    held = Path(lock.lock_file)
    for remove in (temporary.unlink, held.unlink, lock.release, held.unlink):
        with contextlib.suppress(OSError):
            remove()


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, atomically."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise UnseenError("a name in it is not UTF-8", where=path, hint="rename that file or folder") from None
    write_with(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, value: Any, sealed: bool = False) -> None:
    """Write indented JSON, atomically; NaN is refused, so convert it to ``None`` first.

    Args:
        path: the file.
        value: its content.
        sealed: add the object's own checksum as last entry, by which :func:`read_json` detects changes.
    """
    if sealed:
        value = {**value, SEAL: _seal(value)}
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, error: type[UnseenError] = UnseenError, hint: str | None = None) -> Any:
    """Read JSON without NaN; raises ``error`` with one line for a missing, damaged or changed file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise error("no such file", where=path, hint=hint) from None
    except OSError as problem:
        raise error(problem.strerror or str(problem), where=path, hint=hint) from None
    except (ValueError, RecursionError) as problem:  # not UTF-8, not JSON, a number of 5,000 digits, nested too deeply
        raise error(f"damaged ({problem})", where=path, hint=hint) from None
    if isinstance(value, dict) and SEAL in value and value.pop(SEAL) != _seal(value):
        says = f'damaged: the checksum does not match (if you edited the file, remove "{SEAL}")'
        raise error(says, where=path, hint=hint)
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as ``.npz`` without pickle, atomically; the format has a checksum for each."""
    import numpy as np

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_with(path, write)


def read_arrays(path: Path, names: Sequence[str], error: type[UnseenError], hint: str) -> dict[str, np.ndarray]:
    """Read arrays of an ``.npz``; raises ``error`` with one line for a missing or damaged file or missing arrays."""
    import numpy as np

    try:
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in names}
    except FileNotFoundError:
        raise error("no such file", where=path, hint=hint) from None
    except Exception as problem:  # a damaged archive raises nearly anything
        raise error(f"damaged ({problem})", where=path, hint=hint) from None


def _check_unpacked(path: Path) -> None:
    """Raise ValueError if a small file would fill the memory; stored arrays are not compressed."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > 2 * path.stat().st_size + 2**20:
        raise ValueError(f"{unpacked:,} bytes unpacked")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as CSV, with lines that end in a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
