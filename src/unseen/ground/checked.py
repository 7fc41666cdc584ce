"""Validate what was read from a file with pydantic; errors become one line."""

from __future__ import annotations

import json
import operator
from functools import lru_cache
from typing import Any, TypeVar, cast

from unseen.errors import UnseenError

T = TypeVar("T")


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def checked(kind: type[T], data: Any, where: object, *, error: type[UnseenError] = UnseenError, hint: str) -> T:
    """Validate ``data`` as ``kind``: a pydantic model, a dataclass, or any type that pydantic knows.

    Values must have the JSON type: ``"1"`` is not a number, and a list becomes a tuple.

    Args:
        kind: type of the result.
        data: parsed JSON or YAML.
        where: file of the data.
        error, hint: type and hint of the error.

    Raises:
        UnseenError: of type ``error``: the first invalid entry, with its place in the file.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(cast(Any, kind)).validate_json(json.dumps(data, default=_refuse), strict=True)
    except ValidationError as caught:
        found_errors = caught.errors(include_url=False)
        first = found_errors[0]
        entry = ".".join(str(part) for part in first["loc"])
        raise error(_said(first), where=f"{where}, {entry}" if entry else where, hint=hint) from None
    except (TypeError, ValueError, RecursionError) as caught:
        raise error(str(caught), where=where, hint=hint) from None
    return found


def whole(value: Any, name: str, least: int) -> int:
    """A whole number that a caller passes.

    Args:
        value: an int, also of numpy.
        name: of the argument.
        least: smallest value.

    Raises:
        UnseenError: it is another type, or less.
    """
    found = None if isinstance(value, bool | str) or not hasattr(value, "__index__") else operator.index(value)
    if found is None or found < least:
        raise UnseenError(f"{name} is {value!r}", hint=f"use a whole number, {least} or more")
    return found


def _said(error: Any) -> str:
    kind, text = error["type"], str(error["msg"])
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return "unknown entry"
    if kind in ("missing", "missing_argument"):
        return "is missing"
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ").replace("Input should be", "is not")
    given = error.get("input")
    shown = "" if isinstance(given, dict | list) or text.startswith("is not") is False else f" ({given!r:.60})"
    return f"{text[:1].lower()}{text[1:]}{shown}"


def _refuse(value: object) -> Any:
    raise TypeError(f"{value!r} is not a valid setting")
