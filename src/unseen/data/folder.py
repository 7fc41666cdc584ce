"""A dataset as a folder: pictures, ``images.csv`` and ``classes.csv``, with optional extras beside them.

======================== ====================================================================
``images/``              the pictures, in any sub-folders
``images.csv``           file (relative to ``images/``), class, split
``classes.csv``          class, seen, optionally validation, and a column an attribute; or the
``att_splits.mat``       of the Proposed Split, its classes named as in ``images.csv``
``attributes.csv``       optional: attribute, group, part
``attribute_vectors.npy`` optional: K x D word vectors, in the order of the attribute columns
``parts.csv``            optional: file, part, x, y in pixels, optionally visible
``features/``            optional: imported features; with them, ``images/`` may be missing
======================== ====================================================================
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.classes import ClassTable
from unseen.data.dataset import SPLITS, Dataset
from unseen.data.tables import flags, no_repeats, numbers, place, read_table
from unseen.data.xlsa17 import read_class_table
from unseen.errors import DataError

FEATURES = "features"


def load_folder(folder: Path | str, name: str | None = None) -> Dataset:
    """Load and check a dataset folder.

    Raises:
        DataError: one line naming file, row and mend, on the first inconsistency.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError("no such folder", where=root, mend="give a folder with images.csv and classes.csv")
    path = root / "images.csv"
    if not (root / "classes.csv").is_file() and (root / "att_splits.mat").is_file():
        classes = root / "att_splits.mat"
        frame = read_table(path, ["file", "class", "split"])
        table = read_class_table(classes, set(frame["class"][frame["split"] != "test_unseen"]))
    else:
        classes = root / "classes.csv"
        table = ClassTable.from_csv(classes, root / "attributes.csv")
        frame = read_table(path, ["file", "class", "split"])
    if not len(frame):
        raise DataError("no pictures", where=path, mend="one row a picture")
    no_repeats(frame, "file", path)
    position = {c: i for i, c in enumerate(table.names)}
    labels = frame["class"].map(position)
    unknown = np.flatnonzero(labels.isna())
    if len(unknown):
        row = int(unknown[0])
        raise DataError(
            f'class "{frame["class"].iloc[row]}" is not in {classes.name}',
            where=place(path, row, "class"),
            mend="add the class there, or mend the spelling",
        )
    wrong = np.flatnonzero(~frame["split"].isin(SPLITS))
    if len(wrong):
        row = int(wrong[0])
        value = frame["split"].iloc[row]
        raise DataError(f'unknown split "{value}"', where=place(path, row, "split"), mend=f"one of {', '.join(SPLITS)}")
    images = root / "images"
    if images.exists() or images.is_symlink() or not (root / FEATURES).is_dir():  # features may stand for pictures
        _check_files(images, frame["file"], path)
    vectors = _vectors(root / "attribute_vectors.npy", table)
    parts = _parts(root / "parts.csv", set(frame["file"]))
    try:
        dataset = Dataset(
            name or root.resolve().name,
            images,
            table,
            tuple(frame["file"]),
            labels.to_numpy(dtype=np.int64),
            frame["split"].to_numpy(dtype=object),
            attribute_vectors=vectors,
            part_positions=parts,
        )
    except DataError as error:
        raise DataError(error.problem, where=root / (error.where or ""), mend=error.mend) from None
    notes = [f'"{a}" and "{b}" have the same attributes and cannot be told apart' for a, b in table.twins()]
    if dataset.attribute_vectors is not None:
        zero = np.flatnonzero(~dataset.attribute_vectors.any(axis=1))
        notes += [f'the word vector of "{table.attributes.names[k]}" is all zero' for k in zero]
    return replace(dataset, warnings=tuple(notes))


def _check_files(images: Path, files: pd.Series, path: Path) -> None:
    folder = images.resolve()
    missing = []
    first: dict[Path, int] = {}
    for row, file in enumerate(files):
        try:
            target = (images / file).resolve()
            exists = target.is_file()
        except OSError:  # a name too long, a folder that may not be read
            missing.append((row, file))
            continue
        if not target.is_relative_to(folder):
            raise DataError(f'"{file}" lies outside {images}', where=place(path, row, "file"), mend="move it inside")
        if first.setdefault(target, row) != row:
            raise DataError(
                f'"{file}" is the picture of row {first[target] + 2}', where=place(path, row, "file"), mend="keep one"
            )
        if not exists:
            missing.append((row, file))
    if missing:
        row, file = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f'no picture "{file}" in {images}{more}', where=place(path, row, "file"), mend="add it or remove the row"
        )


def _vectors(path: Path, table: ClassTable) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged header raises nearly anything
        raise DataError(f"not a plain numpy array ({error})", where=path, mend="numpy.save a K x D array") from None
    k = len(table.attributes)
    if vectors.ndim != 2 or len(vectors) != k or not vectors.size or vectors.dtype.kind not in "fiu":
        raise DataError(f"{vectors.dtype} array of shape {vectors.shape}", where=path, mend=f"make it {k} x D numbers")
    bad = np.argwhere(~np.isfinite(vectors))
    if len(bad):
        row = int(bad[0][0])
        name = table.attributes.names[row]
        raise DataError("a number is not finite", where=f'{path}, row {row} ("{name}")', mend="mend the vector")
    return vectors.astype(np.float64)


def _parts(path: Path, files: set[str]) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    frame = read_table(path, ["file", "part", "x", "y"])
    unknown = np.flatnonzero(~frame["file"].isin(files))
    if len(unknown):
        row = int(unknown[0])
        raise DataError(
            f'"{frame["file"].iloc[row]}" is not in images.csv', where=place(path, row, "file"), mend="remove the row"
        )
    frame[["x", "y"]] = numbers(frame, ["x", "y"], path)
    frame["visible"] = flags(frame, "visible", path) if "visible" in frame else True
    return frame
