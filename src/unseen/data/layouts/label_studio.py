"""Label Studio's JSON and JSON-MIN exports: rectangles in percent, or one choice per image.

Source: https://labelstud.io/guide/export and https://labelstud.io/tags/rectanglelabels. ``x``, ``y``, ``width`` and
``height`` are percent of the original image; a rotation is clockwise around the upper left corner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from unseen.data.layouts.entries import Corners, Entry, turned
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError
from unseen.ground.checked import checked
from unseen.ground.words import counted

TITLE = "Label Studio, JSON or JSON-MIN: rectangles or choices"
HINT = "export it as JSON again"
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")


class Value(BaseModel):
    """A rectangle or a choice."""

    model_config = ConfigDict(extra="ignore")
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    rotation: float = 0.0
    rectanglelabels: list[str] = Field(default_factory=list)
    choices: list[str] = Field(default_factory=list)
    original_width: float | None = None
    original_height: float | None = None


class Result(BaseModel):
    """A drawn or chosen result."""

    type: str
    value: dict[str, Any]
    original_width: float | None = None
    original_height: float | None = None


class Annotation(BaseModel):
    """The annotation of a task by one person."""

    result: list[Result]
    was_cancelled: bool = False


class Task(BaseModel):
    """A task of the JSON export."""

    data: dict[str, Any]
    annotations: list[Annotation]


def recognizes(source: Source) -> bool:
    """Whether the source is one of the two exports."""
    if not source.is_json or not isinstance(source.json, list) or not source.json:
        return False
    first = source.json[0]
    return isinstance(first, dict) and (_is_task(first) or _is_short(first))


def _is_task(task: dict[str, Any]) -> bool:
    return isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list)


def _is_short(task: dict[str, Any]) -> bool:
    drawn = [v for v in task.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return "id" in task and "annotator" in task and ("choice" in task or any("original_width" in v[0] for v in drawn))


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every rectangle and every single choice that was not cancelled."""
    place = source.place(source.files[0])
    for row, task in enumerate(source.json):
        where = f"{place}, {row}"
        if not isinstance(task, dict):
            raise DataError("no task", where=where, hint=HINT)
        if _is_task(task):
            found = checked(Task, task, where, error=DataError, hint=HINT)
            results = [r for a in found.annotations if not a.was_cancelled for r in a.result]
            drawn = [
                (r.type, {"original_width": r.original_width, "original_height": r.original_height} | r.value)
                for r in results
                if r.type in ("rectanglelabels", "choices")
            ]
            image = _image_of(found.data, where)
        else:
            drawn = [
                ("rectanglelabels", value)
                for values in task.values()
                if isinstance(values, list)
                for value in values
                if isinstance(value, dict) and "rectanglelabels" in value
            ]
            if isinstance(task.get("choice"), str):
                drawn.append(("choices", {"choices": [task["choice"]]}))
            image = _image_of(task, where)
        for kind, raw in drawn:
            value = checked(Value, raw, where, error=DataError, hint=HINT)
            yield from _entries(kind, value, _found(image, images, where), where)


def _entries(kind: str, value: Value, image: Path | str, where: str) -> Iterator[Entry]:
    names = value.rectanglelabels if kind == "rectanglelabels" else value.choices
    if len(names) != 1:
        if not names:
            return  # drawn, but without a label
        raise DataError(
            f"{counted(len(names), 'label')} for one region: {', '.join(names)}", where=where, hint="keep one"
        )
    if kind == "choices":
        yield Entry(image, names[0], where)
        return
    numbers = (value.x, value.y, value.width, value.height, value.original_width, value.original_height)
    if any(number is None for number in numbers):
        raise DataError("a rectangle has missing numbers", where=where, hint=HINT)
    x, y, width, height, across, down = (float(number) for number in numbers if number is not None)
    left, top = x * across / 100, y * down / 100
    box: Corners = (left, top, left + width * across / 100, top + height * down / 100)
    yield Entry(image, names[0], where, turned(box, value.rotation, (left, top)), (across, down))


def _image_of(data: dict[str, Any], where: str) -> str:
    names = [k for k in ("image", "img", "picture", "photo") if isinstance(data.get(k), str)]
    others = [
        k for k, v in data.items() if isinstance(v, str) and re.search(r"\.(jpe?g|png|webp|tiff?|bmp|gif)\b", v, re.I)
    ]
    if not names and len(others) != 1:
        raise DataError("no image", where=where, hint="tasks need a field `image`")
    return str(data[(names or others)[0]])


def _found(name: str, images: Images, where: str) -> Path | str:
    """File or URL of ``/data/upload/1/ab12cd34-a.jpg``, ``/data/local-files/?d=a.jpg`` or a URL."""
    if "://" in name:
        return name
    parts = urlsplit(name)
    local = parse_qs(parts.query).get("d")
    path = PurePosixPath(unquote(local[0] if local else parts.path).lstrip("/"))
    own = _UPLOADED.fullmatch(path.name)
    try:
        return images.find(str(path.name if "upload" in path.parts else path), where=where)
    except DataError:
        if own is None:
            raise
        return images.find(own[1], where=where)
