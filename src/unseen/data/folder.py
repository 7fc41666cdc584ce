"""A dataset as a folder: images, and a spreadsheet of the classes, with optional extras beside them.

========================= ====================================================================
``images/``               the images, in a folder a class, or in any with an ``images`` table
``classes``               class, and columns of attributes; optionally seen, validation. Or the
``att_splits.mat``        of the Proposed Split, its classes named as in ``images.csv``
``images``                optional: file (relative to ``images/``), class, optionally split; or
                          ``images/metadata`` with file_name and label, as of Hugging Face
``attributes``            optional: attribute, group, part, scale, missing; or a sheet of ``classes.xlsx``
``missing.txt``           optional: further words for "not known" in the class table, a line each
``attribute_vectors.npy`` optional: K x D word vectors, in the order of the attributes
``parts``                 optional: file, part, x, y in pixels, optionally visible
``features/``             optional: imported features; with them, ``images/`` may be missing
========================= ====================================================================

Tables are ``.csv``, ``.tsv``, ``.xlsx`` or ``.parquet``.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.spreadsheets.tables import (
    SUFFIXES,
    bad_flags,
    decoded,
    find_table,
    flags,
    fold,
    has_sheet,
    nearest,
    numbers,
    place,
    read_table,
    repeats,
)
from unseen.classes.spreadsheets.understanding import understand
from unseen.classes.table import Attributes, ClassTable
from unseen.data.dataset import Dataset, contradictions, split_by_name
from unseen.errors import DataError
from unseen.formats.xlsa17 import SPLITS, read_class_table
from unseen.ground.files import write_text
from unseen.ground.image_files import LeftOut, image_files

FEATURES = "features"
RESERVED = ("class", "seen", "validation")
MISSING_WORDS = "missing.txt"

Complain = Callable[[Sequence[DataError]], None]


def stop(errors: Sequence[DataError]) -> None:
    """Raise the first of several errors of one sort, with their number."""
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(errors[0].problem + more, where=errors[0].where, hint=errors[0].hint)


@dataclass(frozen=True)
class Classes:
    """What a class table says, before the images are known.

    ``seen`` is ``None`` where images decide it, ``encoding`` and ``known`` for the field's own files. ``doubts`` are
    what may be misread in the table.
    """

    path: Path
    names: tuple[str, ...]
    attributes: Attributes
    values: np.ndarray
    seen: np.ndarray | None
    validation: np.ndarray | None = None
    encoding: Encoding | None = None
    notes: tuple[str, ...] = ()
    frame: pd.DataFrame | None = None
    known: np.ndarray | None = None
    doubts: tuple[DataError, ...] = ()

    def filled(self, seen: np.ndarray) -> Classes:
        """With the means of the seen classes in place of what is unknown."""
        if self.encoding is None or self.known is None or self.known.all() or not seen.any():
            return self
        encoding, values = self.encoding.filled(self.values, self.known, seen)
        return replace(self, encoding=encoding, values=values)


@dataclass(frozen=True)
class Listing:
    """Which image shows which class; ``path`` is ``None`` where folders say it, ``split`` where nothing does."""

    images: Path
    path: Path | None
    files: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray | None
    notes: tuple[str, ...] = ()


def load_folder(folder: Path | str, name: str | None = None) -> Dataset:
    """Load and check a dataset folder.

    Raises:
        DataError: one line naming file, row and hint, on the first inconsistency.
    """
    root = Path(folder)
    classes, listing = read_classes(root, stop), None
    if classes is not None:
        listing = read_images(root, classes.names, stop, classes.path)
    assert classes is not None
    assert listing is not None
    seen, split = settle(classes, listing)
    classes = classes.filled(seen)
    try:
        table = ClassTable(classes.names, classes.attributes, classes.values, seen, classes.validation)
        dataset = Dataset(
            name or root.resolve().name,
            listing.images,
            table,
            listing.files,
            listing.labels,
            split,
            attribute_vectors=read_vectors(root / "attribute_vectors.npy", table.attributes),
            part_positions=read_parts(root, set(listing.files)),
            encoding=classes.encoding,
        )
    except DataError as error:
        raise in_folder(error, root, classes, listing) from None
    notes = [f'"{a}" and "{b}" have the same attributes and cannot be separated' for a, b in table.twins()]
    if dataset.attribute_vectors is not None:
        zero = np.flatnonzero(~dataset.attribute_vectors.any(axis=1))
        notes += [f'the word vector of "{table.attributes.names[k]}" is all zero' for k in zero]
    return replace(dataset, warnings=(*classes.notes, *map(str, classes.doubts), *listing.notes, *notes))


def in_folder(error: DataError, root: Path, classes: Classes, listing: Listing) -> DataError:
    """An error of the data model, with the tables called as they are here."""
    where = error.where or ""
    if not where.startswith(str(root)):
        where = where.replace("classes.csv", classes.path.name)
        if listing.path is not None:
            where = where.replace("images.csv", listing.path.name)
        if classes.seen is None:
            where = where.removesuffix(', column "seen"')
        where = str(root / where)
    return DataError(error.problem, where=where, hint=error.hint)


def settle(classes: Classes, listing: Listing) -> tuple[np.ndarray, np.ndarray]:
    """Which classes are seen ``(N,)``, and every image's split ``(M,)``.

    Where no table says it, classes with images are the seen ones, and a seen class keeps a share of its images for
    the test by a hash of each one's name, so that further images do not move the others.
    """
    seen, split = classes.seen, listing.split
    if seen is None:
        shown = listing.labels if split is None else listing.labels[split != "test_unseen"]
        seen = np.bincount(shown, minlength=len(classes.names)) > 0
    return seen, split_by_name(listing.files, listing.labels, seen) if split is None else split


# classes


def read_classes(root: Path, complain: Complain) -> Classes | None:
    """The class table of a folder; ``None`` if it cannot be read at all.

    Args:
        root: the dataset folder.
        complain: told of everything that is wrong; may raise.
    """
    try:
        if not root.is_dir():
            hint = "pass a folder with images and a class table, or create one with `unseen init`"
            raise DataError("no such folder", where=root, hint=hint)
        path = find_table(root, "classes")
        if path is None and (root / "att_splits.mat").is_file():
            return _published_classes(root)
        path = path or root / "classes.csv"
        if not path.is_file():
            tables = [p.name for p in sorted(root.iterdir()) if p.suffix.lower() in SUFFIXES]
            rename = f', or rename "{tables[0]}"' if len(tables) == 1 and fold(tables[0][:6]) != "images" else ""
            hint = f'create it with columns "class" and attributes (see `unseen init`){rename}'
            raise DataError("no such file", where=path, hint=hint)
        frame = read_table(path, ["class"], ["seen", "validation"])
        about, missing = _about(root, path), missing_words(root)
    except DataError as error:
        complain([error])
        return None
    if not len(frame):
        complain([DataError("no classes", where=path, hint="add one row per class")])
        return None
    rows, plain = frame.attrs.get("rows"), complain
    if rows is not None:  # some are hidden

        def complain(errors: Sequence[DataError]) -> None:
            plain([as_shown(error, path, rows) for error in errors])

    taxonomic = _taxonomic(frame, path)
    complain([taxonomic] if taxonomic else repeats(frame, "class", path))
    names = [c for c in frame.columns if c not in RESERVED]
    found = None if not names else understand(frame, names, path, about, missing)
    if found is not None:
        of_classes = [e.where is None or str(path) in e.where for e in found.errors]
        complain([e for e, mine in zip(found.errors, of_classes, strict=True) if mine])
        complain([e for e, mine in zip(found.errors, of_classes, strict=True) if not mine])
    if found is None or found.attributes is None:
        hint = "add one column per attribute"
        complain([DataError("no attribute columns", where=path, hint=hint)])
        return None
    marked = {c: flags(frame, c, path) for c in ("seen", "validation") if c in frame and _ask(frame, c, path, complain)}
    complain(
        [
            DataError(
                f'class "{frame["class"].iloc[row]}" has only zeros as attributes',
                where=place(path, int(row)),
                hint="set at least one attribute",
            )
            for row in np.flatnonzero(~found.values.any(axis=1))
        ]
    )
    if len(marked) == 2:
        complain(
            [
                DataError(
                    f'validation class "{frame["class"].iloc[row]}" is unseen',
                    where=place(path, int(row), "validation"),
                    hint="use seen classes for validation",
                )
                for row in np.flatnonzero(~marked["seen"] & marked["validation"])
            ]
        )
    return Classes(
        path,
        tuple(frame["class"]),
        found.attributes,
        found.values,
        marked.get("seen"),
        marked.get("validation"),
        found.encoding,
        (*frame.attrs.get("notes", ()), *found.notes),
        frame,
        found.known,
        found.doubts if rows is None else tuple(as_shown(doubt, path, rows) for doubt in found.doubts),
    )


def missing_words(root: Path) -> tuple[str, ...]:
    """A folder's own words for "not known": the lines of ``missing.txt``."""
    path = root / MISSING_WORDS
    if not path.is_file():
        return ()
    try:
        return tuple(line.strip() for line in decoded(path.read_bytes()).splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(error), where=path, hint="save it as UTF-8 text, one word per line") from None


def add_missing_words(root: Path, words: Sequence[str]) -> Path:
    """Write further words into a folder's ``missing.txt``; those that it has stay."""
    found = dict.fromkeys([*missing_words(root), *(word.strip() for word in words if word.strip())])
    write_text(root / MISSING_WORDS, "".join(f"{word}\n" for word in found))
    return root / MISSING_WORDS


def as_shown(error: DataError, path: Path, rows: Sequence[int]) -> DataError:
    """An error of a table of which rows are hidden, with rows counted as the spreadsheet program shows them."""
    where = error.where or ""
    if str(path) not in where:
        return error
    shown = re.sub(r", row (\d+)", lambda m: f", row {rows[int(m[1]) - 2]}" if int(m[1]) > 1 else m[0], where)
    return DataError(error.problem, where=shown, hint=error.hint)


def _taxonomic(frame: pd.DataFrame, path: Path) -> DataError | None:
    """What is wrong where the column ``class`` is that of a taxonomy (Darwin Core), such as Aves in every row."""
    others = {fold(name).replace(" ", ""): name for name in frame.columns}
    name = next((others[n] for n in ("species", "scientificname", "vernacularname", "taxon") if n in others), None)
    if name is None or frame["class"].duplicated().sum() < len(frame) / 2 or frame[name].duplicated().any():
        return None
    what = f'"{frame["class"].iloc[0]}" appears in many rows: the column "class" seems to be the taxonomic class'
    return DataError(what, where=place(path, -1, "class"), hint=f'rename it, and rename the column "{name}" to "class"')


def _ask(frame: pd.DataFrame, column: str, path: Path, complain: Complain) -> bool:
    errors = bad_flags(frame, column, path)
    complain(errors)
    return not errors


def _about(root: Path, classes: Path) -> tuple[pd.DataFrame, Path] | None:
    """The table that describes attributes, or the sheet of that name beside the classes."""
    columns = (["attribute"], ["group", "part", "scale", "missing", "description"])
    path = find_table(root, "attributes")
    if path is not None:
        frame = read_table(path, *columns)
        return (frame, path) if len(frame) else None
    if has_sheet(classes, "attributes"):
        sheet = classes.with_name(f'{classes.name}, sheet "attributes"')
        try:
            frame = read_table(classes, *columns, sheet="attributes")
            return (frame, sheet) if len(frame) else None
        except DataError as error:
            where = (error.where or "").replace(str(classes), str(sheet))
            raise DataError(error.problem, where=where, hint=error.hint) from None
    return None


def _published_classes(root: Path) -> Classes:
    path = root / "att_splits.mat"
    frame = read_table(_images_table(root), ["file", "class", "split"])
    table = read_class_table(path, set(frame["class"][frame["split"] != "test_unseen"]))
    return Classes(path, table.names, table.attributes, table.values, table.seen, table.validation)


def _images_table(root: Path) -> Path:
    return find_table(root, "images") or root / "images.csv"


# images


def read_images(root: Path, names: Sequence[str], complain: Complain, classes: Path) -> Listing | None:
    """The images of a folder, by ``images.csv`` or by the folders they are in; ``None`` if there are none.

    Args:
        root: the dataset folder.
        names: the classes.
        complain: told of everything that is wrong; may raise. Images in error are left out.
        classes: the class table's file, for errors.
    """
    images = root / "images" if (root / "images").is_dir() else root
    try:
        path = find_table(root, "images")
        if path is not None:
            if (root / FEATURES).is_dir() or not any(entry.is_dir() for entry in root.iterdir()):
                images = root / "images"
            return _listed(path, images, names, complain, classes)
        path = find_table(images, "metadata")  # of Hugging Face's ImageFolder
        if path is not None:
            frame = read_table(path, ["file_name"])
            label = next((c for c in ("class", "label") if c in frame), None)
            if label is not None:
                frame = frame.rename(columns={"file_name": "file", label: "class"})
                return _listed(path, images, names, complain, classes, frame)
    except DataError as error:
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
    complain(repeats(frame, "file", path))
    labels = frame["class"].map({c: i for i, c in enumerate(names)})
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
                hint=f"use one of {', '.join(SPLITS)}",
            )
            for name, rows in _alike(frame["split"] if split is not None else [], wrong)
        ]
    )
    files = [_found(images, file) for file in frame["file"]]
    bad: Sequence[int] = []
    if images.is_dir() or not (path.parent / FEATURES).is_dir():  # features may stand for images
        bad = _check_files(images, files, lambda row: place(path, row, "file"), complain, table=True)
    keep = np.setdiff1d(np.arange(len(frame)), [*unknown, *wrong, *bad])
    if not len(keep):
        return None
    return Listing(
        images,
        path,
        tuple(files[i] for i in keep),
        labels.to_numpy(dtype=float)[keep].astype(np.int64),
        None if split is None else split[keep],
    )


def _alike(cells: Sequence[str] | pd.Series, rows: Iterable[int]) -> Iterable[tuple[str, list[int]]]:
    """Rows by what their cells say, so that one cause is one error."""
    found: dict[str, list[int]] = {}
    values = list(cells)
    for row in rows:
        found.setdefault(values[row], []).append(int(row))
    return found.items()


def _times(rows: Sequence[int]) -> str:
    return "" if len(rows) == 1 else f" (and in {len(rows) - 1:,} further rows)"


def _found(images: Path, file: str) -> str:
    """A file as it lies below a folder, however it is written: from the folder above, on Windows, absolute, in NFD."""
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
    bare = [other for other in names if other.lstrip("0") == name.lstrip("0") and other != name]
    if bare:
        return f'use "{bare[0]}": spreadsheet programs drop leading zeros unless the column is formatted as text'
    near = nearest(name, names)
    return (
        f'did you mean "{near}"? Otherwise add the class to the table'
        if near
        else "add the class to the table, or fix the spelling"
    )


def find_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Images below a folder, relative to it and sorted, and every other file with why it is none."""
    others: list[tuple[str, str]] = []

    def left(file: str, why: str) -> None:
        others.append((Path(file).relative_to(root).as_posix(), why))

    return sorted(Path(file).relative_to(root).as_posix() for file in image_files(root, left)), others


def left_out(files: Iterable[tuple[str, str]]) -> list[str]:
    """What is to be said of files that are not taken."""
    found = LeftOut()
    for file, why in files:
        found(file, why)
    return found.lines()


def _by_folders(images: Path, names: Sequence[str], complain: Complain, classes: Path, strict: bool) -> Listing | None:
    """Images by the first folder on their way that is called like a class.

    Where there is no ``images/``, ``strict`` is false: folders of no class are then left alone.
    """
    exact = {name: i for i, name in enumerate(names)}
    loose: dict[str, set[int]] = {}
    for i, name in enumerate(names):
        loose.setdefault(fold(name), set()).add(i)
    files, labels, notes, roles = [], [], [], []
    said: dict[str, int | None] = {}
    found_files, others = find_files(images)
    parted = _parted(found_files, exact)
    for file in found_files:
        folders = PurePosixPath(file).parts[:-1]
        for folder in folders:
            if folder not in said:
                found = {exact[folder]} if folder in exact else loose.get(fold(folder), set())
                said[folder] = next(iter(found)) if len(found) == 1 else None
                if len(found) == 1 and folder not in exact:
                    notes.append(f'folder "{folder}" is read as class "{names[next(iter(found))]}"')
        label = next((said[f] for f in folders if said[f] is not None), None)
        if label is not None:
            files.append(file)
            labels.append(label)
            roles.append(ROLES.get(folders[0].lower(), "") if parted else "")
        elif folders:
            said.setdefault(f"{folders[0]}/", None)
        else:
            said.setdefault("/", None)
    strangers = [folder.removesuffix("/") for folder in said if folder.endswith("/")]
    if strict:
        complain(
            [
                DataError(
                    f"no class has this name in {classes.name}" if folder else "images outside the class folders",
                    where=images / folder,
                    hint=_spelling(folder, names) if folder else "move them into the folders of their classes",
                )
                for folder in strangers
            ]
        )
    if not files:
        hint = f"put the images of {names[0]} into {images / names[0]}, and so on"
        complain([DataError("no folder in images/ has the name of a class", where=images, hint=hint)])
        return None
    notes += left_out((f, why) for f, why in others if strict or any(said.get(p) is not None for p in Path(f).parts))
    bad = set(_check_files(images, files, lambda row: str(images / files[row]), complain, table=False))
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


ROLES = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the folders of a split into training, validation and test images are called."""


def _parted(files: Sequence[str], classes: Mapping[str, int]) -> bool:
    """Whether images lie in ``train/CLASS/`` and ``val/`` or ``test/``; not where a class is called so."""
    tops = {file.split("/")[0] for file in files if file.count("/") > 1}
    found = {ROLES[top.lower()] for top in tops if top.lower() in ROLES and top not in classes}
    return "train" in found and len(found) > 1


def _check_files(
    images: Path, files: Sequence[str], where: Callable[[int], str], complain: Complain, table: bool
) -> list[int]:
    """Rows of files that are not there, lie outside, or are there twice."""
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
        except (OSError, ValueError):  # a name too long or with a NUL, a folder that may not be read
            missing.append(row)
            continue
        if not target.is_relative_to(folder):
            complain([DataError(f'"{file}" lies outside {images}', where=where(row), hint="move it inside")])
            refused.append(row)
        elif first.setdefault(target, row) != row:
            other = f"row {first[target] + 2}" if table else f'"{files[first[target]]}"'
            complain([DataError(f'"{file}" is already the image of {other}', where=where(row), hint="keep one")])
            refused.append(row)
        elif not exists:
            missing.append(row)
    complain(_missing(images, files, where, missing))
    return [*missing, *refused, *unnamed]


def _missing(
    images: Path, files: Sequence[str], where: Callable[[int], str], missing: Sequence[int]
) -> list[DataError]:
    """One error for each file that is not there; a single one where none of several is, which has one cause."""
    if len(missing) < 2 or len(missing) < len(files):
        hint = "add the image, or remove the row"
        return [DataError(f'no image "{files[row]}" in {images}', where=where(row), hint=hint) for row in missing]
    there = next(iter(image_files(images)), None) if images.is_dir() else None
    example = f'paths below {images}, such as "{Path(there).relative_to(images).as_posix()}"' if there else ""
    problem = f'none of the {len(files):,} images is in {images}, the first "{files[missing[0]]}"'
    hint = f"use {example}" if example else f"put the images in {images}"
    return [DataError(problem, where=where(missing[0]), hint=hint)]


def _not_utf8(name: str) -> bool:
    """Whether a file's name came from bytes of another encoding, so that it cannot be written down."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


# extras


def read_vectors(path: Path, attributes: Attributes) -> np.ndarray | None:
    """``attribute_vectors.npy`` as float64 ``(K, D)``; ``None`` where there is none."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged header raises nearly anything
        raise DataError(
            f"not a plain NumPy array ({error})", where=path, hint="save a K x D array with numpy.save"
        ) from None
    k = len(attributes)
    if vectors.ndim != 2 or len(vectors) != k or not vectors.size or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"{vectors.dtype} array of shape {vectors.shape}", where=path, hint=f"save an array of {k} x D numbers"
        )
    bad = np.argwhere(~np.isfinite(vectors))
    if len(bad):
        row = int(bad[0][0])
        name = attributes.names[row]
        raise DataError("a value is not finite", where=f'{path}, row {row} ("{name}")', hint="fix the vector")
    return vectors.astype(np.float64)


def read_parts(root: Path, files: set[str]) -> pd.DataFrame | None:
    """``parts.csv``, checked against the images; ``None`` where there is none."""
    path = find_table(root, "parts")
    if path is None:
        return None
    frame = read_table(path, ["file", "part", "x", "y"], ["visible"])
    unknown = np.flatnonzero(~frame["file"].isin(files))
    if len(unknown):
        row = int(unknown[0])
        raise DataError(
            f'"{frame["file"].iloc[row]}" is not in images.csv', where=place(path, row, "file"), hint="remove the row"
        )
    frame[["x", "y"]] = numbers(frame, ["x", "y"], path)
    frame["visible"] = flags(frame, "visible", path) if "visible" in frame else True
    return frame


def misfits(root: Path, classes: Classes, listing: Listing) -> list[DataError]:
    """Everything that would stop :func:`load_folder` once its tables are read."""
    seen, split = settle(classes, listing)
    found = [
        in_folder(error, root, classes, listing)
        for error in contradictions(classes.names, seen, listing.files, listing.labels, split, classes.values)
    ]
    for read in (
        lambda: read_vectors(root / "attribute_vectors.npy", classes.attributes),
        lambda: read_parts(root, set(listing.files)),
    ):
        try:
            read()
        except DataError as error:
            found.append(error)
    return found
