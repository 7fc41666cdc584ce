"""CVAT for images 1.1: XML with boxes, polygons and tags.

Source: https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/. Corners are in pixels; a rotation is clockwise
around the center of the box.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from unseen.data.layouts.entries import Corners, Entry, around, part_of, turned
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError

TITLE = "CVAT for images 1.1: boxes, polygons, tags"
HINT = 'export the task as "CVAT for images 1.1" again'


def files(source: Source) -> list[str]:
    """Files of the source that are CVAT's."""
    return [f for f in source.named(".xml") if b"<annotations" in source.head(f) and b"<version>" in source.head(f)]


def recognizes(source: Source) -> bool:
    """Whether the source is CVAT's."""
    return bool(files(source))


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every box, polygon and tag; the class is its label, or its attribute ``label``."""
    for file in files(source):
        place = source.place(file)
        for element in source.load_xml(file, HINT):
            if element.tag == "track":
                raise DataError("tracks of a video", where=place, hint=HINT)
            if element.tag == "image":
                yield from _of_image(element, images, place, label)


def _of_image(element: Element, images: Images, place: str, label: str | None) -> Iterator[Entry]:
    name = element.get("name")
    where = f'{place}, image "{name}"'
    if not name:
        raise DataError("an image without a name", where=place, hint=HINT)
    size = _numbers(element, ("width", "height"), where)
    shapes = [shape for shape in element if shape.tag in ("box", "polygon", "tag")]
    path = images.find(name, where=where) if shapes else None
    for shape in shapes:
        assert path is not None
        found = shape.get("label") if label is None else _attribute(shape, label)
        if not found:
            what = "label" if label is None else f'attribute "{label}"'
            raise DataError(f"a {shape.tag} without {what}", where=where, hint=HINT if label is None else "fix --label")
        box: Corners | None = None
        if shape.tag == "box":
            left, top, right, bottom = _numbers(shape, ("xtl", "ytl", "xbr", "ybr"), where)
            middle = ((left + right) / 2, (top + bottom) / 2)
            box = turned((left, top, right, bottom), float(shape.get("rotation") or 0), middle)
        elif shape.tag == "polygon":
            box = _around(shape.get("points", ""), where)
        yield Entry(path, found, where, box, (size[0], size[1]), part_of(element.get("subset") or ""))


def _attribute(shape: Element, name: str) -> str | None:
    return next((a.text for a in shape.iter("attribute") if a.get("name") == name), None)


def _numbers(element: Element, names: tuple[str, ...], where: str) -> list[float]:
    try:
        return [float(element.attrib[name]) for name in names]
    except (KeyError, ValueError) as error:
        raise DataError(f"{element.tag}: no number {error}", where=where, hint=HINT) from None


def _around(points: str, where: str) -> Corners:
    try:
        found = [(float(x), float(y)) for x, y in (point.split(",") for point in points.split(";"))]
    except ValueError:
        raise DataError(f'polygon: "{points[:40]}" are not points', where=where, hint=HINT) from None
    return around(found)
