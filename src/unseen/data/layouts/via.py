"""VGG Image Annotator, versions 1 and 2: projects, JSON and CSV exports.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/. Shapes are in pixels. An attribute of the region names its
class; users choose the attribute's name.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from unseen.data.layouts.entries import Corners, Entry, around
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError

TITLE = "VGG Image Annotator (VIA): regions, JSON or CSV"
HINT = "export the annotations again"
LABELS = ("class", "label", "species", "name", "type", "category", "object")
"""Attributes of a region that name its class, if there are several."""
_HEADER = ("filename", "region_shape_attributes", "region_attributes")


def recognizes(source: Source) -> bool:
    """Whether the source is a VIA project or export."""
    if source.is_json:
        return bool(_projects(source.json))
    if len(source.files) != 1 or source.path.is_dir():
        return False
    header = [cell.lstrip("#") for cell in source.header(source.files[0])]
    return all(name in header for name in _HEADER)


def _projects(value: Any) -> dict[str, Any]:
    """Images of a project or an export; empty if it is neither."""
    if isinstance(value, dict):
        value = value.get("_via_img_metadata", value)
    if not isinstance(value, dict) or not value:
        return {}
    of_via = all(isinstance(v, dict) and "filename" in v and "regions" in v for v in value.values())
    return value if of_via else {}


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every region except points and lines."""
    place = source.place(source.files[0])
    regions = list(_of_json(source) if source.is_json else _of_csv(source, place))
    name = label or _label(regions, place)
    for file, where, shape, about in regions:
        if (box := _box(shape, where)) is None:
            continue
        found = about.get(name)
        if isinstance(found, dict):  # checkboxes
            ticked = [key for key, value in found.items() if value]
            if len(ticked) > 1:
                raise DataError(f'several values of "{name}": {", ".join(ticked)}', where=where, hint="keep one")
            found = ticked[0] if ticked else ""
        if not isinstance(found, str) or not found.strip():
            raise DataError(f'a region without "{name}"', where=where, hint="name it, or pass another --label")
        yield Entry(images.find(file, where=where), found.strip(), where, box)


Region = tuple[str, str, Mapping[str, Any], Mapping[str, Any]]


def _of_json(source: Source) -> Iterator[Region]:
    place = source.place(source.files[0])
    for key, image in _projects(source.json).items():
        regions = image["regions"]
        for i, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
            where = f"{place}, {key}, region {i}"
            try:
                yield image["filename"], where, dict(region["shape_attributes"]), dict(region["region_attributes"])
            except (KeyError, TypeError, ValueError):
                raise DataError("no region", where=where, hint=HINT) from None


def _of_csv(source: Source, place: str) -> Iterator[Region]:
    rows = csv.DictReader(io.StringIO(source.read(source.files[0]).decode("utf-8-sig", "replace")))
    rows.fieldnames = [name.lstrip("#").strip() for name in rows.fieldnames or []]
    for number, row in enumerate(rows, 2):
        where = f"{place}, row {number}"
        try:
            shape, about = (json.loads(row[column]) for column in _HEADER[1:])
        except (ValueError, TypeError):
            raise DataError("a region that is not JSON", where=where, hint=HINT) from None
        if shape:  # images without regions have a row too
            yield row["filename"], where, shape, about


def _label(regions: list[Region], place: str) -> str:
    names = list(dict.fromkeys(name for *_, about in regions for name in about))
    known = [name for name in LABELS if name in map(str.lower, names)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise DataError("regions without attributes", where=place, hint="add one that names the class, in VIA")
    if known:
        return next(name for name in names if name.lower() == known[0])
    raise DataError(f"which attribute is the class: {', '.join(names)}?", where=place, hint="give --label NAME")


def _box(shape: Mapping[str, Any], where: str) -> Corners | None:
    """Box around a shape; ``None`` for points and lines."""
    kind = shape.get("name")
    try:
        if kind == "rect":
            x, y, width, height = (float(shape[k]) for k in ("x", "y", "width", "height"))
            return x, y, x + width, y + height
        if kind in ("circle", "ellipse"):
            x, y = float(shape["cx"]), float(shape["cy"])
            across, down = (float(shape[k]) for k in (("r", "r") if kind == "circle" else ("rx", "ry")))
            across, down = (max(across, down),) * 2 if shape.get("theta") else (across, down)
            return x - across, y - down, x + across, y + down
        if kind == "polygon":
            return around(list(zip(map(float, shape["all_points_x"]), map(float, shape["all_points_y"]), strict=True)))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"a {kind} has missing numbers", where=where, hint=HINT) from None
    return None
