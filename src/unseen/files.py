"""Files are written whole or not at all, and JSON is strict."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unseen.errors import UnseenError


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises:
        UnseenError: the folder cannot be written, or the disk is full; ``path`` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise UnseenError(error.strerror or str(error), where=path, mend="choose a folder you can write to") from None
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UnseenError(error.strerror or str(error), where=path, mend="free some disk space, then repeat") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all; NaN is refused, so turn it into ``None`` first."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, error: type[UnseenError] = UnseenError, mend: str | None = None) -> Any:
    """Read JSON without NaN; a missing or damaged file raises ``error`` with one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise error("no such file", where=path, mend=mend) from None
    except OSError as problem:
        raise error(problem.strerror or str(problem), where=path, mend=mend) from None
    except (ValueError, RecursionError) as problem:  # not UTF-8, not JSON, a number of 5,000 digits, nested too deep
        raise error(f"damaged ({problem})", where=path, mend=mend) from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
