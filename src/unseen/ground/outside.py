"""Users' code: objects by their path ``package.module:Name``, and which of it may be imported."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from unseen.errors import UnseenError

_PART = r"([^\W\d]\w*|<locals>|<lambda>)"
_PATH = re.compile(rf"[^\W\d]\w*(\.[^\W\d]\w*)*:{_PART}(\.{_PART})*")


def is_path(text: str) -> bool:
    """Whether a text has the form ``package.module:Name``."""
    return _PATH.fullmatch(text) is not None


def path_of(thing: Any) -> str:
    """``package.module:Name`` of a class or function."""
    return f"{thing.__module__}:{thing.__qualname__}"


def import_path(path: str, what: str) -> Any:
    """Import the object at ``package.module:Name``.

    Raises:
        UnseenError: it cannot be imported; one line with the cause. ``what`` names its purpose.
    """
    module, _, name = path.partition(":")
    check_shareable(path, what)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            hint = "install its package, or add its folder to PYTHONPATH"
            raise UnseenError(f'no module "{error.name}"', where=f"{what} {path}", hint=hint) from None
        raise _failed(error, path, what) from error
    except Exception as error:
        raise _failed(error, path, what) from error
    for part in name.split("."):
        if not hasattr(found, part):
            file = getattr(sys.modules[module], "__file__", None)
            raise UnseenError(f'"{module}" has no "{name}"', where=f"{what} {path}", hint=f"see {file}")
        found = getattr(found, part)
    return found


def check_installed(path: str, where: object, what: str) -> None:
    """Raise an error if a file refers to code that is neither installed, nor on ``PYTHONPATH``, nor imported.

    The working directory does not count: it may contain files that came with this file.
    """
    module = path.partition(":")[0]
    if module in sys.modules and module != "__main__":
        return
    check_shareable(path, what)
    folders = trusted_folders()
    for folder in folders:
        stem = folder.joinpath(*module.split("."))
        file = next((f for f in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py") if f.is_file()), None)
        if file is not None:
            if b"unseen" not in file.read_bytes():
                problem = f"its {what} {path} is not valid: {file} does not belong to unseen"
                raise UnseenError(problem, where=where, hint="do not trust this file")
            return
    hint = f"install the package of {path}, add its folder to PYTHONPATH, or import it first"
    raise UnseenError(f'its {what} is code that is not installed: no module "{module}"', where=where, hint=hint)


def check_shareable(path: str, what: str) -> None:
    """Raise an error if another process cannot import what a path names."""
    if path.startswith("__main__:") or "<" in path:
        _refuse_script(path, what)


def trusted_folders() -> list[Path]:
    """Search path for modules named by a file: without the working directory."""
    here = os.path.realpath("")
    chosen = {os.path.realpath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p}
    found = dict.fromkeys(os.path.realpath(p) for p in sys.path if p)
    return [Path(p) for p in found if p != here or p in chosen]


def _refuse_script(path: str, what: str) -> None:
    problem = "is defined in a script, notebook or function; other processes cannot import it"
    raise UnseenError(problem, where=f"{what} {path}", hint="move it into a module and import it from there")


def _failed(error: Exception, path: str, what: str) -> UnseenError:
    said = " ".join(str(error).split()) or type(error).__name__
    return UnseenError(f"cannot be imported ({type(error).__name__}: {said})", where=f"{what} {path}")
