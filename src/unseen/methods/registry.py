"""Find methods by name or by path: in this package, in installed packages, and in users' own code.

A method is referred to by its name if everybody can find it there: it is in this package, or a package declares it as
an entry point of the group ``unseen.methods``. Otherwise it is referred to by ``package.module:Class``. Runs and saved
models store this reference. A reference from a file is followed only into code that the user has installed, put on
``PYTHONPATH`` or imported.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from unseen.errors import UnseenError
from unseen.ground.outside import check_installed, import_path, is_path, path_of
from unseen.methods.base import Card, ClosedFormMethod, Method
from unseen.methods.contract import check_class
from unseen.methods.settings import EndToEndRecipe, Preset, Recipe

GROUP = "unseen.methods"
METHODS: dict[str, type[Method]] = {}
"""Registered methods by name; :func:`every_method` includes those of installed packages."""
_GIVEN: dict[str, type[Method]] = {}
"""Classes passed in this process, by path; also those of scripts, notebooks and functions."""
M = TypeVar("M", bound=type[Method])
_NAME = re.compile(r"[A-Za-z][\w.-]*")


def register_method(kind: M) -> M:
    """Class decorator that registers a method by name in this process.

    Raises:
        UnseenError: the class is not a method, or its name is taken.
    """
    _complete(kind)
    other = METHODS.get(kind.name)
    if other is not None and path_of(other) != path_of(kind):
        hint = "choose another name"
        raise UnseenError(f'method "{kind.name}" already exists: {path_of(other)}', where=path_of(kind), hint=hint)
    METHODS[kind.name] = kind
    return kind


def discover(package: str, path: list[str]) -> None:
    """Import every module of a package so that its methods register themselves, and sort them by name."""
    import pkgutil

    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
    found = sorted(METHODS.items())
    METHODS.clear()
    METHODS.update(found)


def every_method() -> dict[str, type[Method]]:
    """All methods with a name: registered ones and those of installed packages.

    Raises:
        UnseenError: a method of an installed package cannot be imported, or is not a method.
    """
    return METHODS | {name: _load(entry) for name, entry in _entries().items() if name not in METHODS}


def find_method(method: str | type[Method], from_file: object = None) -> type[Method]:
    """Find the class of a method.

    Args:
        method: its name, ``package.module:Class``, or the class itself.
        from_file: file that refers to it; modules are then imported only if installed or on ``PYTHONPATH``.

    Raises:
        UnseenError: no such method, with similar names as a hint; or its code cannot be imported.
    """
    if not isinstance(method, str):
        _complete(method)
        _GIVEN[path_of(method)] = method
        return method
    if method in METHODS:
        return METHODS[method]
    if method in (entries := _entries()):
        return _load(entries[method])
    if is_path(method):
        return _by_path(method, from_file)
    base, at, preset = method.partition("@")
    if at and base in METHODS:
        raise UnseenError(f'no method "{method}"', hint=f"pass the preset separately: {base} --preset {preset}")
    known = [*METHODS, *entries]
    near = difflib.get_close_matches(method.lower(), known, 1)
    hint = f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(known)}, or package.module:Class"
    raise UnseenError(f'no method "{method}"', where=from_file, hint=hint)


def method_reference(method: str | type[Method] | Method) -> str:
    """The reference that a run stores for a method: a name that everybody can find, else its path.

    Raises:
        UnseenError: as :func:`find_method`.
    """
    kind = type(method) if isinstance(method, Method) else find_method(method)
    path, name = path_of(kind), kind.name
    if path.startswith(f"{__package__}.") and METHODS.get(name) is kind:
        return name
    entry = _entries().get(name)
    return name if entry is not None and entry.value.replace(" ", "") == path else path


def method_of_settings(settings: object) -> type[Method]:
    """Find the method to which an instance of settings belongs.

    Raises:
        UnseenError: no method, or several, use this class of settings.
    """
    known = {path_of(kind): kind for kind in (*every_method().values(), *_GIVEN.values())}
    found = [kind for kind in known.values() if kind.settings_class is type(settings)]
    if len(found) != 1:
        what = "none" if not found else " and ".join(kind.name for kind in found)
        problem = f"{type(settings).__name__} are the settings of {what}"
        raise UnseenError(problem, hint="pass the method, and these as settings=")
    return found[0]


def _by_path(path: str, from_file: object) -> type[Method]:
    if path in _GIVEN:
        return _GIVEN[path]
    for known in METHODS.values():
        if path_of(known) == path:
            return known
    if from_file is not None:
        check_installed(path, from_file, "method")
    kind: type[Method] = import_path(path, "method")
    _complete(kind, path)
    _GIVEN[path] = kind
    return kind


def _complete(kind: type[Method], where: str | None = None) -> None:
    """Fill in what a class omits: name, card and presets.

    Raises:
        UnseenError: the class is not a method, its name is invalid, or as :func:`unseen.methods.contract.check_class`.
    """
    if not inspect.isclass(kind) or not issubclass(kind, Method):
        hint = "pass a subclass of unseen.GradientMethod or unseen.ClosedFormMethod"
        raise UnseenError("is not a method", where=where or getattr(kind, "__name__", repr(kind)), hint=hint)
    own = vars(kind)
    if "name" not in own:
        kind.name = kind.__name__.lower()
    if not isinstance(kind.name, str) or not _NAME.fullmatch(kind.name):
        hint = "use letters, digits, dots, dashes and underscores"
        raise UnseenError(f"{kind.name!r} is not a valid method name", where=path_of(kind), hint=hint)
    check_class(kind)
    if "card" not in own:
        kind.card = Card(title=_title(kind))
    if not hasattr(kind, "presets"):
        made = EndToEndRecipe() if kind.end_to_end else Recipe()
        recipe = None if issubclass(kind, ClosedFormMethod) else made
        kind.presets = {"default": Preset(kind.settings_class(), recipe, "defaults of the class")}


def _title(kind: type[Method]) -> str:
    lines = (vars(kind).get("__doc__") or "").strip().splitlines()
    return lines[0].rstrip(".") if lines else kind.__name__


@functools.lru_cache(maxsize=1)
def _entries_of(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _entries() -> dict[str, EntryPoint]:
    """Entry points by name; searched again when the search path changes."""
    return _entries_of(tuple(sys.path))


def _load(entry: EntryPoint) -> type[Method]:
    kind = _by_path(entry.value.replace(" ", ""), None)
    if kind.name != entry.name:
        problem = f'the entry point is called "{entry.name}" and the method "{kind.name}"'
        raise UnseenError(problem, where=entry.value, hint="use the same name for both")
    return kind
