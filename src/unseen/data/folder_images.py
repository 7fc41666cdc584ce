"""Images of a dataset folder: from a table of files, or from folders named like classes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from unseen.backbones.naming import IMPORTED
from unseen.classes.spreadsheets.cells import fold, nearest, place
from unseen.classes.spreadsheets.mangled import restored
from unseen.classes.spreadsheets.renaming import column_of_files, with_endings, with_names
from unseen.classes.spreadsheets.tables import SUFFIXES, find_table, read_columns, read_table
from unseen.classes.spreadsheets.values import repeats
from unseen.errors import DataError
from unseen.formats.xlsa17 import SPLITS
from unseen.ground.image_files import LeftOut, endings, hidden, image_files
from unseen.ground.words import counted

FEATURES = "features"
Complain = Callable[[Sequence[DataError]], None]


@dataclass(frozen=True)
class Listing:
    """Class of each image; ``path`` is ``None`` if folders give it, ``split`` if nothing gives the split."""

    images: Path
    path: Path | None
    files: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray | None
    notes: tuple[str, ...] = ()


def imported_names(root: Path) -> list[str] | None:
    """Names of the imported features that stand for the images of a folder; ``None`` if it has images."""
    if not (root / FEATURES).is_dir() or (root / "images").is_dir() or find_table(root, "images") is None:
        return None
    return sorted(path.parent.name for path in (root / FEATURES).glob("*/store.json"))


def imported_folder(root: Path | str, name: str) -> str:
    """Path of the imported features ``features:NAME`` of a dataset folder; absolute."""
    return str(Path(root).expanduser().absolute() / FEATURES / name.removeprefix(IMPORTED))


def need_images(root: Path) -> None:
    """Raise :class:`DataError` if imported features stand for the images of a folder."""
    names = imported_names(root)
    if names is not None:
        hint = f"pass --backbone features:{names[0]}" if names else "import features with `unseen import`"
        raise DataError("the folder has no images, so no network can read them", where=root, hint=hint)


def read_images(root: Path, names: Sequence[str], complain: Complain, classes: Path) -> Listing | None:
    """Images of a folder, by ``images.csv`` or by the folders they are in; ``None`` if there are none.

    Args:
        root: the dataset folder.
        names: class names.
        complain: called with every error; may raise. Images with errors are left out.
        classes: file of the class table, for errors.
    """
    images, path = root / "images" if (root / "images").is_dir() else root, None
    try:
        path = find_table(root, "images")
        if path is not None:
            if (root / FEATURES).is_dir() or not any(entry.is_dir() for entry in root.iterdir()):
                images = root / "images"
            return _listed(path, images, names, complain, classes)
        path = find_table(images, "metadata")  # Hugging Face's ImageFolder format
        if path is not None:
            frame = read_table(path, ["file_name"])
            label = next((c for c in ("class", "label") if c in frame), None)
            if label is not None:
                frame = frame.rename(columns={"file_name": "file", label: "class"})
                return _listed(path, images, names, complain, classes, frame)
    except DataError as error:
        if path is not None:
            error = with_names(error, path, "class", names, f"names of {classes.name}")
            error = with_endings(error, path, "file", endings())
        complain([error])
        return None
    return _by_folders(images, names, complain, classes, strict=images != root)


def _listed(
    path: Path,
    images: Path,
    names: Sequence[str],
    complain: Complain,
    classes: Path,
    frame: pd.DataFrame | None = None,
) -> Listing | None:
    if frame is None:
        frame = read_table(path, ["file", "class"], ["split"])
    if not len(frame):
        raise DataError("no images", where=path, hint="add one row per image")
    complain(repeats(frame, "file", path, exact=True))
    position, notes = _matched(frame["class"], names)
    labels = frame["class"].map(position)
    unknown = np.flatnonzero(labels.isna())
    complain(
        [
            DataError(
                f'class "{name}" is not in {classes.name}{_times(rows)}',
                where=place(path, rows[0], "class"),
                hint=_spelling(name, names),
            )
            for name, rows in _alike(frame["class"], unknown)
        ]
    )
    split = frame["split"].to_numpy(dtype=object) if "split" in frame else None
    wrong = np.flatnonzero(~np.isin(split, SPLITS)) if split is not None else np.array([], dtype=int)
    complain(
        [
            DataError(
                f'unknown split "{name}"{_times(rows)}',
                where=place(path, rows[0], "split"),
                hint=f"use one of {', '.join(SPLITS)}{_SPLIT_WORDS.get(ROLES.get(name.lower(), ''), '')}",
            )
            for name, rows in _alike(frame["split"] if split is not None else [], wrong)
        ]
    )
    files = [_found(images, file) for file in frame["file"]]
    bad: Sequence[int] = []
    if images.is_dir() or not (path.parent / FEATURES).is_dir():  # features can replace images
        bad = _check_files(images, files, lambda row: place(path, row, "file"), complain, list(frame["file"]))
    keep = np.setdiff1d(np.arange(len(frame)), [*unknown, *wrong, *bad])
    if not len(keep):
        return None
    return Listing(
        images,
        path,
        tuple(files[i] for i in keep),
        labels.to_numpy(dtype=float)[keep].astype(np.int64),
        None if split is None else split[keep],
        (
            *(f'class "{name}" in {path.name} is read as "{now}"' for name, now in notes.items()),
            *_at_odds([(int(i), files[i], int(labels[i])) for i in keep], names, path),
        ),
    )


def _at_odds(rows: Iterable[tuple[int, str, int]], names: Sequence[str], path: Path) -> list[str]:
    """A note on images that are listed with another class than that of their folder, as after sorting one column."""
    kept = list(rows)
    position, _ = _matched((folder for _, file, _ in kept for folder in file.split("/")[:-1]), names)
    found = []
    for row, file, label in kept:
        classes = [position[folder] for folder in file.split("/")[:-1] if folder in position]
        if classes and label not in classes:
            found.append((row, file, label, classes[0]))
    if not found:
        return []
    row, file, label, other = found[0]
    more = f" (and {counted(len(found) - 1, 'more image')} like this)" if len(found) > 1 else ""
    where = place(Path(path.name), row, "class")
    return [f'{where}: "{file}" is listed as "{names[label]}", but is in the folder of "{names[other]}"{more}']


def _matched(written: Iterable[str], names: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Position of the class of each name, and the class of each that is written in another way than in the table.

    Case, spaces, hyphens and underscores do not count, unless several classes differ in nothing else.
    """
    exact = {name: i for i, name in enumerate(names)}
    loose: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        loose.setdefault(fold(name), []).append(i)
    alike = {name: found[0] for name in dict.fromkeys(written) if len(found := loose.get(fold(name), [])) == 1}
    return alike | exact, {name: names[i] for name, i in alike.items() if name not in exact}


def _alike(cells: Sequence[str] | pd.Series, rows: Iterable[int]) -> Iterable[tuple[str, list[int]]]:
    """Rows grouped by cell content, so that one cause gives one error."""
    found: dict[str, list[int]] = {}
    values = list(cells)
    for row in rows:
        found.setdefault(values[row], []).append(int(row))
    return found.items()


def _times(rows: Sequence[int]) -> str:
    return "" if len(rows) == 1 else f" (and in {len(rows) - 1:,} further rows)"


def _found(images: Path, file: str) -> str:
    """A file as it exists below a folder, however it is written: with the folder, backslashes, absolute, in NFD."""
    if os.path.exists(images / file) and not Path(file).is_absolute() and not file.startswith("./"):
        return file
    slashed = file.replace("\\", "/")
    parts = [part for part in PurePosixPath(slashed).parts if part != "."]
    ways = ["/".join(parts), "/".join(parts).removeprefix("images/")]
    above = [f"{place}/" for place in (images, images.resolve())]
    ways += [slashed.removeprefix(place) for place in above if slashed.startswith(place)]
    for way in ways:
        plain = "".join(c for c in way if c not in "\u200b\u200c\u200d\u2060\ufeff")
        for form in dict.fromkeys((way, *(unicodedata.normalize(f, t) for t in (way, plain) for f in ("NFC", "NFD")))):
            if form and not Path(form).is_absolute() and ".." not in form.split("/") and os.path.exists(images / form):
                return form
    return file


def _spelling(name: str, names: Sequence[str]) -> str:
    if hint := restored(name, names):
        return hint
    near = nearest(name, names)
    return (
        f'did you mean "{near}"? Otherwise add the class to the table'
        if near
        else "add the class to the table, or fix the spelling"
    )


def find_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Images below a folder, relative and sorted, and every other file with the reason why it is not one."""
    others: list[tuple[str, str]] = []

    def left(file: str, why: str) -> None:
        others.append((Path(file).relative_to(root).as_posix(), why))

    return sorted(Path(file).relative_to(root).as_posix() for file in image_files(root, left)), others


def left_out(files: Iterable[tuple[str, str]]) -> list[str]:
    """Notes on files that are not used."""
    found = LeftOut()
    for file, why in files:
        found(file, why)
    return found.lines()


def _by_folders(images: Path, names: Sequence[str], complain: Complain, classes: Path, strict: bool) -> Listing | None:
    """Images by the first folder on their path that is named like a class.

    Without ``images/``, ``strict`` is false and folders that name no class are ignored.
    """
    files, labels, notes, roles = [], [], [], []
    mixed: dict[str, str] = {}
    said: dict[str, int | None] = {}
    found_files, others = find_files(images)
    position, other = _matched((f for file in found_files for f in PurePosixPath(file).parts[:-1]), names)
    parted = _parted(found_files, names)
    for file in found_files:
        folders = PurePosixPath(file).parts[:-1]
        for folder in folders:
            if folder not in said:
                said[folder] = position.get(folder)
                if folder in other:
                    notes.append(f'folder "{folder}" is read as class "{other[folder]}"')
        label, *more = dict.fromkeys(said[f] for f in folders if said[f] is not None) or [None]
        if more:
            mixed.setdefault("/".join(folders), file)
        if label is not None:
            files.append(file)
            labels.append(label)
            roles.append(ROLES.get(folders[0].lower(), "") if parted else "")
        elif folders:
            said.setdefault(f"{folders[0]}/", None)
        else:
            said.setdefault("/", None)
    complain(
        [
            DataError(
                f'"{file}" is in the folders of two classes', where=images / folder, hint="move or rename the folder"
            )
            for folder, file in mixed.items()
        ]
    )
    complain(
        [
            DataError(
                "the folder of a class is hidden by its name", where=images / name, hint="rename it and the class"
            )
            for name in names
            if hidden(name) and (images / name).is_dir()
        ]
    )
    strangers = [folder.removesuffix("/") for folder in said if folder.endswith("/")]
    if strict:
        complain(
            [
                DataError(
                    f"no class has this name in {classes.name}" if folder else "images outside the class folders",
                    where=images / folder,
                    hint=_spelling(folder, names) if folder else _unplaced(classes.parent),
                )
                for folder in strangers
            ]
        )
    if not files:
        hint = f"put the images of {names[0]} into {images / names[0]}, and so on"
        if "/" in said and not strict:
            hint += f"; or {_unplaced(classes.parent)}"
        complain([DataError("no folder in images/ has the name of a class", where=images, hint=hint)])
        return None
    notes += _without_images(images, names, {names[label] for label in labels})
    notes += _beside(classes.parent, names) if strict else []
    notes += left_out((f, why) for f, why in others if strict or any(said.get(p) is not None for p in Path(f).parts))
    bad = set(_check_files(images, files, lambda row: str(images / files[row]), complain))
    keep = [i for i in range(len(files)) if i not in bad]
    split = None
    if parted:
        trained = {label for label, role in zip(labels, roles, strict=True) if role != "test"}
        split = np.array(
            [
                "trainval" if roles[i] != "test" else "test_seen" if labels[i] in trained else "test_unseen"
                for i in keep
            ],
            dtype=object,
        )
        notes.append("images are split by their folders: " + ", ".join(sorted({f.split("/")[0] for f in files})))
        if "val" in roles:
            notes.append("images in val/ are used for training: validation holds out whole classes")
    return Listing(
        images, None, tuple(files[i] for i in keep), np.array([labels[i] for i in keep], np.int64), split, tuple(notes)
    )


def _without_images(images: Path, names: Sequence[str], having: Collection[str]) -> list[str]:
    """A note on folders of classes that have no images, so that the classes are unseen."""
    folders = {fold(path.name) for path in images.iterdir() if path.is_dir()}
    bare = [name for name in names if fold(name) in folders and name not in having]
    shown = ", ".join(bare[:4]) + (", ..." if len(bare) > 4 else "")
    return [f"{counted(len(bare), 'class folder')} without images, so unseen classes: {shown}"] if bare else []


def _beside(root: Path, names: Sequence[str]) -> list[str]:
    """A note on images, and on folders of classes, that are beside ``images/`` and not in it."""
    known = set(map(fold, names))
    found = sorted(
        path.name + "/" * path.is_dir()
        for path in root.iterdir()
        if not hidden(path.name) and (fold(path.name) in known if path.is_dir() else path.suffix.lower() in endings())
    )
    shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
    return [f"not used, because outside images/: {shown}"] if found else []


ROLES = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of the folders of a split into training, validation and test images."""


_SPLIT_WORDS = {
    **dict.fromkeys(("train", "val"), ": here trainval"),
    "test": ": here test_seen, and test_unseen for classes without training images",
}
"""Which split the usual words mean."""


def _unplaced(root: Path) -> str:
    """Hint for images outside the class folders: a table of their classes may have another name than images.csv."""
    tables = (p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and p.stem.lower() not in ("classes", "parts"))
    for path in sorted(tables):
        with suppress(DataError):
            if column_of_files(read_columns(path, tidied=True), endings()):
                return f'if "{path.name}" lists their classes, rename it to images{path.suffix.lower()}'
    return "move them into the folders of their classes, or list them in images.csv with columns file and class"


def _parted(files: Sequence[str], classes: Collection[str]) -> bool:
    """Whether images are in ``train/CLASS/`` and ``val/`` or ``test/``; false if a class has such a name."""
    tops = {file.split("/")[0] for file in files if file.count("/") > 1}
    found = {ROLES[top.lower()] for top in tops if top.lower() in ROLES and top not in classes}
    return "train" in found and len(found) > 1


def _check_files(
    images: Path,
    files: Sequence[str],
    where: Callable[[int], str],
    complain: Complain,
    written: Sequence[str] | None = None,
) -> list[int]:
    """Errors of rows with files that are missing, outside the folder, or repeated, unless ``written`` alike."""
    folder = images.resolve()
    missing, refused = [], []
    unnamed = [row for row, file in enumerate(files) if not file.isascii() and _not_utf8(file)]
    complain(
        [
            DataError(f'the name "{files[row]}" is not UTF-8', where=where(row), hint="rename the image")
            for row in unnamed
        ]
    )
    first: dict[Path, int] = {}
    for row, file in enumerate(files):
        try:
            target = (images / file).resolve()
            exists = target.is_file()
        except (OSError, ValueError):  # a name that is too long or has a NUL, or a folder without read permission
            missing.append(row)
            continue
        if not target.is_relative_to(folder):
            complain([DataError(f'"{file}" lies outside {images}', where=where(row), hint="move it inside")])
            refused.append(row)
        elif first.setdefault(target, row) != row:
            refused.append(row)
            if written is not None and written[row] == written[first[target]]:
                continue  # reported with the repeated cells
            other = f"row {first[target] + 2}" if written is not None else f'"{files[first[target]]}"'
            complain([DataError(f'"{file}" is already the image of {other}', where=where(row), hint="keep one")])
        elif not exists:
            missing.append(row)
    complain(_missing(images, files, where, missing))
    return [*missing, *refused, *unnamed]


def _missing(
    images: Path, files: Sequence[str], where: Callable[[int], str], missing: Sequence[int]
) -> list[DataError]:
    """One error per missing file; a single one if all of several are missing, which has one cause."""
    if len(missing) < 2 or len(missing) < len(files):
        hint = "add the image, or remove the row"
        return [DataError(f'no image "{files[row]}" in {images}', where=where(row), hint=hint) for row in missing]
    there = next(iter(image_files(images)), None) if images.is_dir() else None
    example = f'paths below {images}, such as "{Path(there).relative_to(images).as_posix()}"' if there else ""
    problem = f'none of the {len(files):,} images is in {images}, the first "{files[missing[0]]}"'
    hint = f"use {example}" if example else f"put the images in {images}"
    return [DataError(problem, where=where(missing[0]), hint=hint)]


def _not_utf8(name: str) -> bool:
    """Whether a file's name has bytes of another encoding, so that it cannot be written as text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


# extras
