"""Exports that people have, as dataset folders; which layout a source has is told by its content.

A layout is one module: ``TITLE``, ``recognises(source)`` and ``read``; it is entered in :data:`LAYOUTS`.
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
    """An export that can be imported.

    Args:
        name: for ``--layout``.
        title: what it is.
        recognises: whether a source is one.
        images: its images with their classes; ``None`` of a table.
        table: its class table; ``None`` of images. Both take the attribute, term or column that names the class.
    """

    name: str
    title: str
    recognises: Callable[[Source], bool]
    images: Callable[[Source, Images, str | None], Iterator[Entry]] | None = None
    table: Callable[[Source, str | None], Traits] | None = None


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("darwin-core", darwin_core.TITLE, darwin_core.recognises, darwin_core.read),
        Layout("coco", coco.TITLE, coco.recognises, coco.read),
        Layout("label-studio", label_studio.TITLE, label_studio.recognises, label_studio.read),
        Layout("cvat", cvat.TITLE, cvat.recognises, cvat.read),
        Layout("via", via.TITLE, via.recognises, via.read),
        Layout("roboflow", roboflow.TITLE, roboflow.recognises, roboflow.read),
        Layout("inaturalist", inaturalist.TITLE, inaturalist.recognises, inaturalist.read),
        Layout("traits-long", traits.LONG_TITLE, traits.recognises_long, table=traits.read_long),
        Layout("traits", traits.WIDE_TITLE, traits.recognises_wide, table=traits.read_wide),
    )
}
"""In the order in which they are tried: what is told by more comes first."""


def find_layout(source: Source, name: str | None = None) -> Layout:
    """The layout of that name, or the first that recognises a source.

    Raises:
        UnseenError: no such layout.
        DataError: none recognises it.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise UnseenError(f'unknown layout "{name}"', where="--layout", hint=f"one of {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    found = next((layout for layout in LAYOUTS.values() if layout.recognises(source)), None)
    if found is None:
        raise DataError("unknown layout", where=source.path, hint="`unseen list layouts` lists the supported ones")
    return found
