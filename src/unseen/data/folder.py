"""A dataset as a folder: images, and a spreadsheet of the classes, with optional files beside them.

========================= ====================================================================
``images/``               the images, in a folder a class, or in any with an ``images`` table
``classes``               class, and columns of attributes; optionally seen, validation, and ranks
                          such as genus and family (:mod:`unseen.classes.taxonomy`). Or the
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

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.classes.attributes import NO_VALUES, Attributes
from unseen.classes.spreadsheets.cells import fold, place
from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.spreadsheets.mangled import doubts_of_names
from unseen.classes.spreadsheets.renaming import with_names, with_unique_words
from unseen.classes.spreadsheets.rows import decoded
from unseen.classes.spreadsheets.tables import SUFFIXES, find_table, read_columns, read_table
from unseen.classes.spreadsheets.understanding import understand
from unseen.classes.spreadsheets.values import bad_flags, flags, numbers, repeats
from unseen.classes.spreadsheets.workbook import has_sheet
from unseen.classes.table import ClassTable, reserved
from unseen.classes.taxonomy import Taxonomy, arranged, conflicts, looks_like_rank, rank_of
from unseen.data.dataset import Dataset, contradictions, split_by_name
from unseen.data.folder_images import Complain, Listing, read_images
from unseen.errors import DataError
from unseen.formats.xlsa17 import read_class_table
from unseen.ground.files import write_text

MISSING_WORDS = "missing.txt"
RANK = "rank"
"""Scale of a column that is a rank of the classes, not an attribute."""


def stop(errors: Sequence[DataError]) -> None:
    """Raise the first of several errors of one kind, with their number."""
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(errors[0].problem + more, where=errors[0].where, hint=errors[0].hint)


@dataclass(frozen=True)
class Classes:
    """Content of a class table, before the images are known.

    ``seen`` is ``None`` if images decide it; ``encoding`` and ``known`` are ``None`` for the field's own files.
    ``doubts`` lists what may be misread in the table.
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
    taxonomy: Taxonomy | None = None

    def filled(self, seen: np.ndarray) -> Classes:
        """Replace unknown values by the means of the seen classes."""
        if self.encoding is None or self.known is None or self.known.all() or not seen.any():
            return self
        encoding, values = self.encoding.filled(self.values, self.known, seen)
        return replace(self, encoding=encoding, values=values)


def load_folder(folder: Path | str, name: str | None = None) -> Dataset:
    """Load and validate a dataset folder.

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
        table = ClassTable(
            classes.names, classes.attributes, classes.values, seen, classes.validation, taxonomy=classes.taxonomy
        )
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
    """An error of the data model, with the tables named as in this folder."""
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
    """Seen classes ``(N,)``, and the split ``(M,)`` of every image.

    If no table gives them, classes with images are the seen ones. A hash of each file name decides whether an image of
    a seen class is for testing, so further images do not move others.
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
        complain: called with every error; may raise.
    """
    path: Path | None = None
    try:
        if not root.is_dir():
            hint = "pass a folder with images and a class table, or create one with `unseen init`"
            if root.is_file():
                raise DataError("a file, not a folder", where=root, hint=f"pass its folder: {root.resolve().parent}")
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
        complain([_sideways(root, path) or _nameless(root, path, error)])
        return None
    if sideways := _sideways(root, path, frame):
        complain([sideways])
        return None
    if not len(frame):
        complain([DataError("no classes", where=path, hint="add one row per class")])
        return None
    rows, plain = frame.attrs.get("rows"), complain
    if rows is not None:  # some are hidden

        def complain(errors: Sequence[DataError]) -> None:
            plain([as_shown(error, path, rows) for error in errors])

    taxonomic = _taxonomic(frame, path)
    if taxonomic:
        complain([taxonomic])
        return None
    nameless = [f", row {row + 2}" for row in np.flatnonzero(frame["class"] == "")]
    complain(repeats(frame, "class", path))
    taken = [(row, error) for row, error in enumerate(map(reserved, frame["class"])) if error is not None]
    complain([DataError(e.problem, where=place(path, row, "class"), hint=e.hint) for row, e in taken])
    changed = doubts_of_names(list(frame["class"]), frame.attrs["scientific"].get("class", ()), path)
    taxonomy, ranks = _taxonomy(frame, about, path, complain)
    names = [c for c in frame.columns if c not in NO_VALUES and c not in ranks]
    found = None if not names else understand(frame, names, path, about, missing, ranks)
    if found is not None and nameless:  # a second header or a row of units: its cells do not fit their columns
        sound = [e for e in found.errors if not f"{e.where},".startswith(tuple(f"{path}{row}," for row in nameless))]
        found = replace(found, errors=tuple(sound))
    if found is not None:
        of_classes = [e.where is None or str(path) in e.where for e in found.errors]
        complain([e for e, mine in zip(found.errors, of_classes, strict=True) if mine])
        complain([e for e, mine in zip(found.errors, of_classes, strict=True) if not mine])
    if found is None or found.attributes is None:
        hint = "add one column per attribute"
        complain([DataError("no attribute columns", where=path, hint=hint)])
        return None
    doubts = (*changed, *found.doubts)
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
        doubts if rows is None else tuple(as_shown(doubt, path, rows) for doubt in doubts),
        taxonomy,
    )


def _sideways(root: Path, path: Path | None, frame: pd.DataFrame | None = None) -> DataError | None:
    """An error if the folders of images have the names of columns: the classes are in columns.

    Args:
        root: the dataset folder.
        path: its class table.
        frame: content of the table; ``None`` if it lacks a column ``class``.
    """
    folders = {fold(p.name) for p in (root / "images").glob("*") if p.is_dir()}
    if path is None or not path.is_file() or len(folders) < 2:
        return None
    columns: Mapping[str, Iterable[str]]
    try:
        columns = read_columns(path) if frame is None else {**dict.fromkeys(frame.columns, ()), "class": frame["class"]}
    except DataError:
        return None
    in_rows = folders & {fold(cell) for cells in columns.values() for cell in cells}
    if in_rows or 2 * len(folders & set(map(fold, columns))) < len(folders):
        return None
    hint = "swap rows and columns: copy the table, then Paste Special, Transpose"
    return DataError("the classes are in columns; each class needs a row", where=path, hint=hint)


def _nameless(root: Path, path: Path | None, error: DataError) -> DataError:
    """The error with a hint on which column holds the names of the classes, if none is named so."""
    if path is None or not path.is_file():
        return error
    images = root / "images" if (root / "images").is_dir() else root
    folders = [entry.name for entry in images.iterdir() if entry.is_dir()]
    found = with_names(error, path, "class", folders, "the names of folders of images") if folders else error
    return with_unique_words(error, path, "class") if found is error else found


def missing_words(root: Path) -> tuple[str, ...]:
    """Extra words of a folder for "not known": the lines of ``missing.txt``."""
    path = root / MISSING_WORDS
    if not path.is_file():
        return ()
    try:
        return tuple(line.strip() for line in decoded(path.read_bytes()).splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(error), where=path, hint="save it as UTF-8 text, one word per line") from None


def add_missing_words(root: Path, words: Sequence[str]) -> Path:
    """Add words to a folder's ``missing.txt``; keeps those it has."""
    found = dict.fromkeys([*missing_words(root), *(word.strip() for word in words if word.strip())])
    write_text(root / MISSING_WORDS, "".join(f"{word}\n" for word in found))
    return root / MISSING_WORDS


def as_shown(error: DataError, path: Path, rows: Sequence[int]) -> DataError:
    """An error in a table with hidden rows, with rows counted as the spreadsheet program shows them."""
    where = error.where or ""
    if str(path) not in where:
        return error
    shown = re.sub(r", row (\d+)", lambda m: f", row {rows[int(m[1]) - 2]}" if int(m[1]) > 1 else m[0], where)
    return DataError(error.problem, where=shown, hint=error.hint)


def _taxonomic(frame: pd.DataFrame, path: Path) -> DataError | None:
    """Errors if the column ``class`` is a taxonomic class (Darwin Core), such as Aves in every row."""
    others = {fold(name).replace(" ", ""): name for name in frame.columns}
    name = next((others[n] for n in ("species", "scientificname", "vernacularname", "taxon") if n in others), None)
    if name is None or frame["class"].duplicated().sum() < len(frame) / 2 or frame[name].duplicated().any():
        return None
    what = f'"{frame["class"].iloc[0]}" appears in many rows: the column "class" seems to be the taxonomic class'
    return DataError(what, where=place(path, -1, "class"), hint=f'rename it, and rename the column "{name}" to "class"')


def _taxonomy(
    frame: pd.DataFrame, about: tuple[pd.DataFrame, Path] | None, path: Path, complain: Complain
) -> tuple[Taxonomy | None, dict[str, str]]:
    """The taxa of the classes, and their columns with ranks.

    A column is a rank if its header says so (``rank:NAME``, or ``genus``, ``family``, ... with names as cells), or if
    it has the scale ``rank`` in the attributes table; with any other scale there it is an attribute.
    """
    scales: dict[str, str] = {}
    if about is not None and "scale" in about[0]:
        scales = dict(zip(about[0]["attribute"], about[0]["scale"], strict=True))
    ranks: dict[str, str] = {}
    for name in (str(c) for c in frame.columns if c not in NO_VALUES):
        scale, said = fold(scales.get(name, "")), rank_of(name)
        if said or scale == RANK or (not scale and looks_like_rank(name, list(frame[name]))):
            ranks[name] = said or name
    columns = {rank: list(frame[name]) for name, rank in ranks.items()}
    if len(columns) < len(ranks):
        problem = "two columns are of one rank"
        complain([DataError(problem, where=place(path, -1), hint="remove one")])
        return None, ranks
    header = {rank: name for name, rank in ranks.items()}
    order, taxa = arranged(columns)
    errors = []
    for found in conflicts(order, taxa):
        rows = {parent: also_row(rows) for parent, rows in found.parents.items()}
        last = list(found.parents.values())[-1][0]
        errors.append(found.error(place(path, last, header[found.above]), rows))
    complain(errors)
    if errors or not ranks:
        return None, ranks
    try:
        return Taxonomy(order, taxa), ranks
    except DataError as error:
        complain([DataError(error.problem, where=place(path, -1), hint=error.hint)])
        return None, ranks


def also_row(rows: Sequence[int]) -> str:
    """Data rows as numbered in a spreadsheet: "rows 3, 7"."""
    shown = ", ".join(str(row + 2) for row in rows[:4]) + (", ..." if len(rows) > 4 else "")
    return f"row{'s' if len(rows) > 1 else ''} {shown}"


def _ask(frame: pd.DataFrame, column: str, path: Path, complain: Complain) -> bool:
    errors = bad_flags(frame, column, path)
    complain(errors)
    return not errors


def _about(root: Path, classes: Path) -> tuple[pd.DataFrame, Path] | None:
    """The table of attribute descriptions, or the sheet of that name beside the classes."""
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


def read_vectors(path: Path, attributes: Attributes) -> np.ndarray | None:
    """``attribute_vectors.npy`` as float64 ``(K, D)``; ``None`` if missing."""
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
    """``parts.csv``, checked against the images; ``None`` if missing."""
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
    """Everything that would stop :func:`load_folder` after reading the tables."""
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
