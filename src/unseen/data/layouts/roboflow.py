"""Roboflow's exports other than COCO: CSV of boxes, YOLO with ``data.yaml``, and Pascal VOC XML.

Source: https://roboflow.com/formats. Corners in CSV and VOC are in pixels; YOLO's boxes are center and size as shares
of the image, its polygons x and y as shares.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

from unseen.data.layouts.entries import Corners, Entry, around, part_of
from unseen.data.layouts.source import Images, Source
from unseen.errors import DataError

TITLE = "Roboflow, YOLO, Pascal VOC: boxes"
HINT = "export it again"
_CSV = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def _tables(source: Source) -> list[str]:
    return [f for f in source.named(".csv") if set(_CSV) <= set(source.header(f))]


def _yaml(source: Source) -> list[str]:
    return [f for f in source.named("data.yaml", "dataset.yaml") if b"names:" in source.head(f)]


def _voc(source: Source) -> list[str]:
    return [f for f in source.named(".xml") if b"<annotation" in (h := source.head(f)) and b"<annotations" not in h]


def recognizes(source: Source) -> bool:
    """Whether the source is one of the three."""
    return bool(_tables(source) or _yaml(source) or _voc(source))


def read(source: Source, images: Images, label: str | None) -> Iterator[Entry]:
    """Yield every box."""
    if tables := _tables(source):
        for file in tables:
            yield from _of_csv(source, images, file)
    elif found := _yaml(source):
        yield from _of_yolo(source, images, found[0])
    else:
        for file in _voc(source):
            yield from _of_voc(source, images, file)


def _folder(file: str) -> tuple[str, str]:
    """Folder of a file, and its part of the split."""
    parents = PurePosixPath(file).parent
    part = next((part_of(name) for name in reversed(parents.parts) if part_of(name)), "")
    return ("" if str(parents) == "." else str(parents)), part


def _of_csv(source: Source, images: Images, file: str) -> Iterator[Entry]:
    beside, part = _folder(file)
    for number, row in enumerate(csv.DictReader(io.StringIO(source.read(file).decode("utf-8-sig", "replace"))), 2):
        where = f"{source.place(file)}, row {number}"
        width, height, *corners = _floats([row[k] for k in _CSV if k not in ("filename", "class")], where)
        path = images.find(row["filename"], beside, where)
        yield Entry(path, row["class"], where, _corners(corners), (width, height), part)


def _of_yolo(source: Source, images: Images, file: str) -> Iterator[Entry]:
    place = source.place(file)
    try:
        names = yaml.safe_load(source.read(file))["names"]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise DataError("not a list of names", where=place, hint=HINT) from None
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    labels = [f for f in source.named(".txt") if "labels" in PurePosixPath(f).parts]
    if not labels:
        raise DataError("no labels/*.txt", where=place, hint="pass the folder with data.yaml")
    for one in labels:
        folder, part = _folder(one)
        beside = str(PurePosixPath(*("images" if p == "labels" else p for p in PurePosixPath(folder).parts)))
        lines = source.read(one).decode("utf-8", "replace").split("\n")
        image = None
        for number, line in enumerate(lines, 1):
            where = f"{source.place(one)}, line {number}"
            if not (cells := line.split()):
                continue
            numbers = _floats(cells, where)
            if int(numbers[0]) not in names:
                raise DataError(f"class {cells[0]} of {len(names)}", where=where, hint=f"names are in {place}")
            if len(numbers) != 5 and (len(numbers) < 7 or not len(numbers) % 2):
                raise DataError(f"{len(numbers)} numbers", where=where, hint="expected class, x, y, width, height")
            image = image or _image(images, PurePosixPath(one).stem, beside, where)
            if len(numbers) == 5:
                _, x, y, width, height = numbers
                box: Corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            else:
                box = around(list(zip(numbers[1::2], numbers[2::2], strict=True)))
            yield Entry(image, str(names[int(numbers[0])]), where, box, (1.0, 1.0), part)


def _image(images: Images, stem: str, beside: str, where: str) -> Path:
    for ending in (*_ENDINGS, *map(str.upper, _ENDINGS)):
        try:
            return images.find(stem + ending, beside, where)
        except DataError as error:
            failed = error
            if "are called" in error.problem:
                raise
    raise DataError(f'no image "{stem}" with one of {", ".join(_ENDINGS)}', where=where, hint=failed.hint)


def _of_voc(source: Source, images: Images, file: str) -> Iterator[Entry]:
    place, (beside, part) = source.place(file), _folder(file)
    root = source.load_xml(file, HINT)
    name = root.findtext("filename") or ""
    sizes = [root.findtext(f"size/{side}") for side in ("width", "height")]
    width, height = _floats(sizes, place)
    for i, thing in enumerate(root.iter("object")):
        where = f"{place}, object {i}"
        corners = _floats([thing.findtext(f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")], where)
        path = images.find(name, beside, where)
        yield Entry(path, thing.findtext("name") or "", where, _corners(corners), (width, height), part)


def _corners(numbers: list[float]) -> Corners:
    left, top, right, bottom = numbers
    return left, top, right, bottom


def _floats(cells: list[str | None] | list[str], where: str) -> list[float]:
    try:
        return [float(cell) for cell in cells]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(f"not numbers: {', '.join(map(str, cells))}", where=where, hint=HINT) from None
