"""Import exports of other tools as dataset folders; the layout of a source is recognized by its content.

A layout is a module with ``TITLE``, ``recognizes(source)`` and ``read``, registered in :data:`LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unseen.data.layouts import (
    coco,
    cvat,
    darwin_core,
    inaturalist,
    label_studio,
    roboflow,
    traits,
    via,
)
from unseen.data.layouts.entries import Entry
from unseen.data.layouts.source import Images, Source
from unseen.data.layouts.traits import Traits
from unseen.errors import DataError, UnseenError


@dataclass(frozen=True)
class Layout:
    """An export format that can be imported.

    Args:
        name: name for ``--layout``.
        title: readable name.
        recognizes: whether a source has this layout.
        images: reads images with their classes; ``None`` for tables.
        table: reads the class table; ``None`` for images. Both take the attribute, term or column that names the class.
    """

    name: str
    title: str
    recognizes: Callable[[Source], bool]
    images: Callable[[Source, Images, str | None], Iterator[Entry]] | None = None
    table: Callable[[Source, str | None], Traits] | None = None


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("darwin-core", darwin_core.TITLE, darwin_core.recognizes, darwin_core.read),
        Layout("coco", coco.TITLE, coco.recognizes, coco.read),
        Layout("label-studio", label_studio.TITLE, label_studio.recognizes, label_studio.read),
        Layout("cvat", cvat.TITLE, cvat.recognizes, cvat.read),
        Layout("via", via.TITLE, via.recognizes, via.read),
        Layout("roboflow", roboflow.TITLE, roboflow.recognizes, roboflow.read),
        Layout("inaturalist", inaturalist.TITLE, inaturalist.recognizes, inaturalist.read),
        Layout("traits-long", traits.LONG_TITLE, traits.recognizes_long, table=traits.read_long),
        Layout("traits", traits.WIDE_TITLE, traits.recognizes_wide, table=traits.read_wide),
    )
}
"""Layouts in the order in which they are tried; the most specific ones come first."""


def find_layout(source: Source, name: str | None = None) -> Layout:
    """The layout of that name, or the first that recognizes a source.

    Raises:
        UnseenError: no such layout.
        DataError: no layout recognizes it.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise UnseenError(f'unknown layout "{name}"', where="--layout", hint=f"use one of {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    found = next((layout for layout in LAYOUTS.values() if layout.recognizes(source)), None)
    if found is None:
        raise DataError("unknown layout", where=source.path, hint="`unseen list layouts` lists the supported ones")
    return found
