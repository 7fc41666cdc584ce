"""COCO JSON, also as written by Roboflow, LILA (camera traps) and iNaturalist competitions; whole images without boxes.

Source: https://cocodataset.org/#format-data. A box is x, y, width and height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel

from unseen.data.layouts.entries import Entry, part_of
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError
from unseen.ground.checked import checked

TITLE = "COCO JSON: boxes, or one class per image"
HINT = "export it as COCO JSON again"


class Image(BaseModel):
    """An image."""

    id: int | str
    file_name: str
    width: float | None = None
    height: float | None = None
    coco_url: str | None = None


class Category(BaseModel):
    """A class."""

    id: int
    name: str


class Annotation(BaseModel):
    """The class of an image."""

    image_id: int | str
    category_id: int
    bbox: list[float] | None = None
    iscrowd: int = 0


class Coco(BaseModel):
    """A whole file."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]


def files(source: Source) -> list[str]:
    """Files that are COCO: by content, or, in a folder, also by the file names of Roboflow and CVAT."""
    if source.is_json:
        return [source.files[0]] if is_coco(source.json) else []
    names = [f for f in source.named(".json") if b'"annotations"' in source.head(f) or b'"images"' in source.head(f)]
    return [f for f in names if is_coco(source.load_json(f))]


def is_coco(value: Any) -> bool:
    """Whether a JSON value is COCO."""
    return isinstance(value, dict) and all(isinstance(value.get(k), list) for k in Coco.model_fields)


def recognizes(source: Source) -> bool:
    """Whether the source is COCO."""
    return bool(files(source))


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every annotation except crowds."""
    for file in files(source):
        yield from _read(source, images, file)


def _read(source: Source, images: Images, file: str) -> Iterator[Entry]:
    place = source.place(file)
    found = checked(Coco, source.load_json(file), place, error=DataError, hint=HINT)
    names = {category.id: category.name for category in found.categories}
    by_id = {image.id: image for image in found.images}
    beside = PurePosixPath(file).parent
    part = part_of(beside.name) or part_of(PurePosixPath(file).stem.rpartition("_")[2])
    for row, annotation in enumerate(found.annotations):
        where = f"{place}, annotations.{row}"
        if annotation.image_id not in by_id or annotation.category_id not in names:
            kind = "category_id" if annotation.image_id in by_id else "image_id"
            raise DataError(f"no such {kind}: {getattr(annotation, kind)}", where=where, hint=HINT)
        if annotation.iscrowd:
            continue
        image = by_id[annotation.image_id]
        box = None
        if annotation.bbox:
            if len(annotation.bbox) != 4:
                raise DataError(
                    f"a bbox of {len(annotation.bbox)} numbers", where=where, hint="expected x, y, width, height"
                )
            x, y, width, height = annotation.bbox
            box = (x, y, x + width, y + height)
        size = (image.width, image.height) if image.width and image.height else None
        inside = "" if str(beside) == "." else str(beside)
        path = images.find(image.file_name, inside, where)
        yield Entry(path, names[annotation.category_id], where, box, size, part)
