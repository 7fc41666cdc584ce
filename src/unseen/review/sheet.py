"""The contact sheet: images by answer, most doubtful first, for review by keyboard.

One page serves two purposes: :func:`write_sheet` makes a self-contained file that stores verdicts in the browser;
``unseen review`` serves it and stores them on disk.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from unseen.errors import UnseenError
from unseen.ground.files import write_with
from unseen.ground.images import open_image
from unseen.ground.progress import Progress, silent
from unseen.review.book import Item

SIDE = 132
"""Longest side of images in the file of a contact sheet."""
STATIC = files("unseen.review") / "static"
STYLES = ("base.css", "sheet.css")
MODULES = ("common.js", "sheet.js")
"""Modules for any page with a contact sheet."""
SCRIPTS = (*MODULES, "boot.js")
"""Modules of its own page, in import order."""


def thumbnail_bytes(path: Path, side: int) -> bytes | None:
    """An image as a small upright JPEG; ``None`` if it cannot be read."""
    with suppress(UnseenError, OSError):
        image = open_image(path)
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()
    return None


def item_data(row: int, item: Item) -> dict[str, Any]:
    """An image as data of the page."""
    return {
        "row": row,
        "image": item.image,
        "known": item.known,
        "classes": [list(candidate) for candidate in item.classes],
        "attributes": list(item.attributes),
        "error": item.error,
        "coarser": item.coarser,
        "alone": item.alone,
    }


def review_data(
    items: Sequence[Item], classes: Sequence[str], order: Sequence[int], used: Collection[int] = ()
) -> dict[str, Any]:
    """All data of the page except images."""
    place = np.empty(len(order), int)
    place[list(order)] = np.arange(len(order))
    return {
        "classes": list(classes),
        "items": [
            item_data(row, item) | {"place": int(place[row]), "used": row in used} for row, item in enumerate(items)
        ],
    }


def page_of(title: str, data: Mapping[str, Any] | None = None) -> str:
    """The page: self-contained with ``data``, else one that asks the server beside it."""
    template = _templates.get_template("sheet.html")
    if data is None:
        return template.render(title=title, data=None, modules=SCRIPTS)
    script = "".join(map(_inlined, SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # no text may close the element that holds it
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    style = "".join(map(_read, STYLES))
    return template.render(title=title, data=text, script=script, style=style, digest=digest)


def part_of_page() -> str:
    """Elements of the sheet, for a page with other content."""
    return _templates.get_template("sheet-part.html").render(title="")


def write_sheet(
    items: Iterable[Item],
    classes: Sequence[str],
    path: Path,
    *,
    title: str = "Contact sheet",
    workers: int = 2,
    progress: Progress = silent,
) -> Path:
    """Write a contact sheet as one self-contained HTML file.

    Verdicts are stored in the reader's browser and saved from there as CSV.

    Args:
        items: images with their answers.
        classes: names of all classes, for corrections.
        path: path of the file.
        title: title of the page.
        workers: threads that read images.
        progress: progress callback.

    Raises:
        UnseenError: it cannot be written.
    """
    found = tuple(items)
    order = np.random.default_rng(0).permutation(len(found))
    data = review_data(found, classes, order.tolist())
    identity = "".join(f"{item.image}\0{item.classes}" for item in found)
    data["key"] = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        thumbnails = pool.map(lambda item: None if item.error else thumbnail_bytes(Path(item.image), SIDE), found)
        for done, (entry, small) in enumerate(zip(data["items"], thumbnails, strict=True), 1):
            entry["thumbnail"] = None if small is None else base64.b64encode(small).decode()
            progress("drawing", done, len(found))
    page = page_of(title, data)
    write_with(path, lambda temporary: temporary.write_text(page, encoding="utf-8", errors="backslashreplace"))
    return path


def _read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _inlined(name: str) -> str:
    """A module as part of one script; its imports come before it."""
    return re.sub(r"^(import .*\n|export )", "", _read(name), flags=re.MULTILINE)


_templates = jinja2.Environment(loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined)
