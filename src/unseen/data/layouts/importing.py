"""Import an export as a dataset folder: images cut out, copied or downloaded, with ``images.csv``; or a class table."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pandas as pd
from PIL import Image

from unseen.classes.spreadsheets.cells import tidy
from unseen.classes.spreadsheets.tables import find_table
from unseen.data.dataset import digest
from unseen.data.layouts import Layout, find_layout
from unseen.data.layouts.entries import Corners, Entry
from unseen.data.layouts.source import Images, Source
from unseen.data.layouts.traits import keep_only
from unseen.errors import DataError
from unseen.ground.files import read_json, write_json, write_text, write_with
from unseen.ground.images import image_of_bytes, open_image
from unseen.ground.progress import Progress, silent
from unseen.ground.words import counted

QUALITY = 95
"""JPEG quality of cut-out images."""
BEGUN = ".importing.json"
UNPACKED = ".unpacked"
LEAST_SIDE = 8
"""Boxes with a side of fewer pixels are left out."""


@dataclass(frozen=True)
class Options:
    """Options of an import of images.

    Args:
        label: attribute, term or column that names the class; the default depends on the layout.
        margin: added to a box on each side, as a share of its width and height.
        images: folder of the images, if they are not beside the export.
        most: largest number of images per class; 0 for all.
        only: classes to import; ``None`` for all.
    """

    label: str | None = None
    margin: float = 0.1
    images: Path | None = None
    most: int = 0
    only: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2:
            raise DataError(
                f"{self.margin:g} is not a margin", where="--margin", hint="use a fraction of the box, 0 to 2"
            )


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Args:
        layout: layout of the source.
        written: files and folders.
        images: number of images by class; empty for a table.
        notes: further notes.
    """

    layout: Layout
    written: tuple[Path, ...]
    images: dict[str, int]
    notes: tuple[str, ...] = ()


def import_export(
    path: Path,
    folder: Path,
    options: Options | None = None,
    *,
    layout: str | None = None,
    progress: Progress = silent,
    left_out: Callable[[DataError], None] = lambda error: None,
) -> Imported:
    """Import an export into a dataset folder; repeating the call resumes one that was stopped.

    Images go to ``images/CLASS/`` and are listed in ``images.csv`` with their origin, creator and license; a table
    becomes ``classes.csv`` and ``attributes.csv``.

    Args:
        path: file, folder or zip archive.
        folder: new, or a dataset folder without ``images.csv`` or ``classes``.
        options: see :class:`Options`.
        layout: one of :data:`unseen.data.layouts.LAYOUTS`; by default recognized by the content.
        progress: progress callback.
        left_out: called for every image that cannot be downloaded or read, and every box outside its image.

    Raises:
        DataError: the source has no known layout or is damaged, or the folder already has the files to write.
    """
    options = options or Options()
    source = Source(path)
    found = find_layout(source, layout)
    if found.table is not None:
        return _table(source, found, folder, options)
    return _images(source, found, folder, options, progress, left_out)


def _table(source: Source, layout: Layout, folder: Path, options: Options) -> Imported:
    assert layout.table is not None
    for stem in ("classes", "attributes"):
        if (there := find_table(folder, stem)) is not None:
            raise DataError("already exists", where=there, hint="move it, or choose another folder")
    traits = layout.table(source, options.label)
    if options.only is not None:
        traits = keep_only(traits, options.only, source.path)
    for name, frame in (("classes.csv", traits.frame), ("attributes.csv", traits.about)):
        write_text(folder / name, frame.to_csv(index=False))
    written = (folder / "classes.csv", folder / "attributes.csv")
    return Imported(layout, written, {}, traits.notes)


def _images(
    source: Source,
    layout: Layout,
    folder: Path,
    options: Options,
    progress: Progress,
    left_out: Callable[[DataError], None],
) -> Imported:
    assert layout.images is not None
    if (there := find_table(folder, "images")) is not None:
        raise DataError("already exists", where=there, hint="move it, or choose another folder")
    _begin(source, layout, folder, options)
    kept = folder / UNPACKED
    entries, unnamed = _wanted(layout.images(source, Images(source, options.images, kept), options.label), options)
    if not entries:
        raise DataError("no image with a class", where=source.path, hint="check the export, or pass another --label")
    rows, counts, cut = [], Counter[str](), _Cutter()
    for done, (entry, name) in enumerate(zip(entries, _names(entries), strict=True), 1):
        try:
            file = _put(entry, folder / "images", name, options.margin, cut)
        except DataError as error:
            left_out(DataError(error.problem, where=error.where or entry.where, hint=error.hint))
        else:
            counts[entry.label] += 1
            rows.append(_row(entry, file))
        progress("importing images", done, len(entries))
    if not rows:
        raise DataError("none of the images can be read", where=source.path, hint="see above")
    frame = pd.DataFrame(rows)
    if any(entry.part for entry in entries):
        frame.insert(2, "split", _splits(frame))
    frame = frame.drop(columns=["part", *(c for c in ("box", "creator", "license") if not frame[c].any())])
    write_text(folder / "images.csv", frame.to_csv(index=False))
    (folder / BEGUN).unlink(missing_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    notes = [f"{len(entries) - len(rows)} of {len(entries)} ignored"] if len(rows) < len(entries) else []
    notes += [f"{counted(unnamed, 'image')} without a class ignored (try another --label)"] if unnamed else []
    return Imported(layout, (folder / "images", folder / "images.csv"), dict(counts), tuple(notes))


def _begin(source: Source, layout: Layout, folder: Path, options: Options) -> None:
    """Check that an unfinished import had the same source and options."""
    about = source.path.stat()
    facts = {
        "source": str(source.path.absolute()),
        "of": digest(layout.name, options, about.st_size, about.st_mtime_ns),
    }
    begun = folder / BEGUN
    if begun.is_file():
        if read_json(begun, DataError, "remove it, and images/") != facts:
            problem = "the folder has an unfinished import with another source or other options"
            raise DataError(problem, where=folder, hint="repeat that import, or choose another folder")
        return
    if (folder / "images").is_dir() and any((folder / "images").iterdir()):
        raise DataError("already has images", where=folder / "images", hint="choose another folder")
    write_json(begun, facts)


def _wanted(entries: Iterable[Entry], options: Options) -> tuple[list[Entry], int]:
    """Entries of the wanted classes, and the number of entries without a class."""
    counts, found, unnamed = Counter[str](), [], 0
    for entry in entries:
        if not entry.label:
            unnamed += 1
            continue
        name = tidy(entry.label)
        if not name:
            raise DataError("a class without a name", where=entry.where, hint="name it in the export")
        if options.only is not None and name not in options.only:
            continue
        counts[name] += 1
        if not options.most or counts[name] <= options.most:
            found.append(replace(entry, label=name))
    return found, unnamed


def _names(entries: Sequence[Entry]) -> list[str]:
    """A file per entry: the folder of its class and the name of its image, with a number if that repeats."""
    found, count = [], Counter[str]()
    for entry in entries:
        folder = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", entry.label).strip(". ") or "_"
        path = PurePosixPath(
            urlsplit(str(entry.image)).path if isinstance(entry.image, str) else entry.image.as_posix()
        )
        stem = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", path.stem)
        if isinstance(entry.image, str):  # URLs may have equal endings: .../photos/123/medium.jpg
            stem = f"{digest(entry.image)[:8]}-{stem}"
        ending = ".jpg" if entry.box else (path.suffix.lower() or ".jpg")
        name = f"{folder}/{stem}"
        count[name] += 1
        found.append(f"{name}-{count[name]}{ending}" if entry.box or count[name] > 1 else f"{name}{ending}")
    return found


def _put(entry: Entry, images: Path, name: str, margin: float, cut: _Cutter) -> str:
    target = images / name
    if target.is_file():
        return name
    if entry.box is not None:
        piece = cut(entry, margin)
        write_with(target, lambda path: piece.save(path, "JPEG", quality=QUALITY))
    elif isinstance(entry.image, str):
        data = fetched(entry.image)
        image_of_bytes(data, entry.image)  # it says what is missing
        write_with(target, lambda path: path.write_bytes(data))
    else:
        source = entry.image
        write_with(target, lambda path: shutil.copyfile(source, path))
    return name


def fetched(address: str) -> bytes:
    """Download the bytes of a URL."""
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            data: bytes = file.read()
    except Exception as error:  # every file system has its own exceptions
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot be fetched ({said})", where=address, hint="repeat the command to try again") from None
    return data


class _Cutter:
    """Cuts out boxes; an image with several boxes is opened once."""

    def __init__(self) -> None:
        self._at: Path | str | None = None
        self._image: Image.Image | None = None

    def __call__(self, entry: Entry, margin: float) -> Image.Image:
        """The part of the image in the entry's box."""
        assert entry.box is not None
        if self._image is None or self._at != entry.image:
            source = entry.image
            self._image = open_image(source) if isinstance(source, Path) else image_of_bytes(fetched(source), source)
            self._at = source
        return self._image.crop(corners(entry, self._image.size, margin))


def corners(entry: Entry, size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """Pixels of an entry's box and its margin, within its image.

    Raises:
        DataError: the box has no area or is outside the image, or refers to an image of another shape.
    """
    assert entry.box is not None
    across, down = entry.size or size
    if (across, down) != (1, 1) and abs(across * size[1] - down * size[0]) > 0.02 * across * size[1]:
        problem = f"the boxes are of {across:g} x {down:g} pixels, the image is {size[0]} x {size[1]}"
        raise DataError(problem, where=entry.where, hint="pass the images that were annotated")
    scale = (size[0] / across, size[1] / down)
    left, top, right, bottom = (value * scale[i % 2] for i, value in enumerate(entry.box))
    box: Corners = (left, top, right, bottom)
    left, right = (min(max(v, 0), size[0]) for v in (box[0], box[2]))
    top, bottom = (min(max(v, 0), size[1]) for v in (box[1], box[3]))
    if right - left < 1 or bottom - top < 1:
        raise DataError("a box without area in its image", where=entry.where, hint="draw it again, or remove it")
    if right - left < LEAST_SIDE or bottom - top < LEAST_SIDE:
        problem = f"a box of {right - left:.0f} x {bottom - top:.0f} pixels"
        raise DataError(problem, where=entry.where, hint="too small; remove it")
    wide, high = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return (
        max(int(box[0] - wide), 0),
        max(int(box[1] - high), 0),
        min(-int(-(box[2] + wide) // 1), size[0]),
        min(-int(-(box[3] + high) // 1), size[1]),
    )


def _row(entry: Entry, file: str) -> dict[str, str]:
    box = "" if entry.box is None else " ".join(f"{v:g}" for v in entry.box)
    source = str(entry.image) if isinstance(entry.image, str) else entry.image.name
    return {
        "file": file,
        "class": entry.label,
        "part": entry.part,
        "source": source,
        "box": box,
        "creator": entry.creator,
        "license": entry.license,
    }


def _splits(frame: pd.DataFrame) -> list[str]:
    """Splits for parts: images of ``val`` are for training too; a class without any such image is unseen."""
    seen = set(frame.loc[frame["part"] != "test", "class"])
    return [
        "trainval" if part != "test" else "test_seen" if name in seen else "test_unseen"
        for part, name in zip(frame["part"], frame["class"], strict=True)
    ]
