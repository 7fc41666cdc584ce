"""The Proposed Split in its own format: ``att_splits.mat`` (Xian et al., TPAMI 2019).

Its indices count from 1 and become positions from 0 here. They are rows of the ``res101.mat`` beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import DataError
from unseen.formats.matlab import HINT, read_mat, texts, whole_numbers
from unseen.ground.words import counted

SPLITS = ("trainval", "test_seen", "test_unseen")
VALIDATION_LISTS = ("train", "val")


@dataclass(frozen=True, eq=False)
class Split:
    """Content of an ``att_splits.mat``.

    Args:
        path: the file.
        names: N class names from ``allclasses_names``; numbers from 1 if it has none (Oxford Flowers).
        unit: float64 ``(N, K)``, ``att``: rows of unit length.
        values: float64 ``(N, K)``, ``original_att``, or ``att`` if missing.
        rows: rows from 0 of ``trainval``, ``test_seen``, ``test_unseen`` and, if available, ``train`` and ``val``.
        named: whether the names come from the file.
    """

    path: Path
    names: tuple[str, ...]
    unit: np.ndarray
    values: np.ndarray
    rows: dict[str, np.ndarray]
    named: bool

    @property
    def count(self) -> int:
        """Number of images in the three parts together."""
        return sum(len(self.rows[name]) for name in SPLITS)

    def parts(self) -> np.ndarray:
        """``(M,)`` trainval, test_seen or test_unseen for every row.

        Raises:
            DataError: indices count from 0, are in two parts, or leave rows out.
        """
        every = np.concatenate([self.rows[name] for name in SPLITS])
        hint = "use att_splits.mat of the release"
        if every.min() < 0:
            raise DataError("the indices start at 0 instead of 1", where=self.path, hint=hint)
        for i, one in enumerate(SPLITS):
            if len(np.unique(self.rows[one])) < len(self.rows[one]):
                raise DataError(f"an image appears twice in {one}_loc", where=self.path, hint=hint)
            for other in SPLITS[i + 1 :]:
                both = len(np.intersect1d(self.rows[one], self.rows[other]))
                if both:
                    raise DataError(
                        f"{counted(both, 'image')} in both {one}_loc and {other}_loc", where=self.path, hint=hint
                    )
        if every.max() >= len(every):
            gap = int(np.setdiff1d(np.arange(len(every)), every)[0])
            problem = f"image {gap + 1} is in no part, and the largest index is {every.max() + 1} for {len(every)}"
            raise DataError(problem, where=self.path, hint=hint)
        found = np.empty(len(every), dtype=object)
        for name in SPLITS:
            found[self.rows[name]] = name
        return found

    def validation_classes(self, labels: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
        """Classes that the release reserves for validation: those in ``val_loc`` but not in ``train_loc``.

        Several releases list test images of seen classes in ``train_loc`` and ``val_loc``. These are ignored here: only
        the classes are used, so validation images always come from ``trainval_loc``.

        Args:
            labels: int64 ``(M,)`` class of every row.

        Returns:
            bool ``(N,)``, or ``None`` without the two lists; and notes on ignored images.
        """
        if not all(name in self.rows for name in VALIDATION_LISTS):
            return None, []
        notes, classes = [], []
        for name in VALIDATION_LISTS:
            kept = np.intersect1d(self.rows[name], self.rows["trainval"])
            left = len(np.intersect1d(self.rows[name], self.rows["test_seen"]))
            if left:
                notes.append(f"{name}_loc lists {left:,} test-seen images; they are excluded from validation")
            classes.append(np.unique(labels[kept]))
        held = np.setdiff1d(classes[1], classes[0])
        if len(held) < len(classes[1]):
            shared = len(classes[1]) - len(held)
            notes.append(f"{counted(shared, 'class')} in both train_loc and val_loc, used for training")
        return (np.isin(np.arange(len(self.names)), held), notes) if len(held) else (None, notes)


def read_split(path: Path) -> Split:
    """Read an ``att_splits.mat`` of MATLAB 5 or 7.3.

    Raises:
        DataError: not such a file, or attributes or one of the three parts are missing.
    """
    names, unit, values, named = _classes(path)
    content = read_mat(path, [f"{name}_loc" for name in (*SPLITS, *VALIDATION_LISTS)])
    rows = {}
    for name in (*SPLITS, *VALIDATION_LISTS):
        if f"{name}_loc" in content:
            rows[name] = whole_numbers(content[f"{name}_loc"], f"{name}_loc", path) - 1
        elif name in SPLITS:
            raise DataError(f"no `{name}_loc`", where=path, hint=HINT)
        if name in SPLITS and not len(rows[name]):
            raise DataError(f"`{name}_loc` is empty", where=path, hint=HINT)
    return Split(path, names, unit, values, rows, named)


def read_class_table(path: Path, seen: Collection[str]) -> ClassTable:
    """The classes of an ``att_splits.mat``, in its order.

    Classes are named by ``allclasses_names`` or, if missing (Oxford Flowers), by their number from 1. Columns have no
    names there, so attributes are named by number: ``0001``, ``0002``, ... Values are ``original_att`` if available,
    else ``att`` (the same in columns of unit length).

    Args:
        path: MATLAB file.
        seen: names of the classes that have training images.

    Raises:
        DataError: not such a file, or it lacks a name in ``seen``.
    """
    names, _, values, _ = _classes(path)
    unknown = [name for name in seen if name not in names]
    if unknown:
        hint = f"its classes are {', '.join(names[:3])}, ..."
        raise DataError(f'class "{unknown[0]}" of images.csv is missing', where=path, hint=hint)
    try:
        return ClassTable(names, numbered(values.shape[1]), values, np.isin(names, list(seen)))
    except DataError as error:
        raise DataError(error.problem, where=path, hint=error.hint) from None


def numbered(count: int) -> Attributes:
    """Attributes without names: ``0001``, ``0002``, ..."""
    return Attributes(tuple(f"{k + 1:04d}" for k in range(count)))


def _classes(path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, bool]:
    """Names, ``att`` and ``original_att`` as (N, K), and whether the names are the file's."""
    content = read_mat(path, ("allclasses_names", "att", "original_att"))
    tables = [content.get("att", content.get("original_att")), content.get("original_att", content.get("att"))]
    for table in tables:
        if not isinstance(table, np.ndarray) or table.ndim != 2 or not table.size or table.dtype.kind not in "fiu":
            raise DataError("no K x N numbers `original_att` or `att`", where=path, hint=HINT)
    unit, values = (np.asarray(table, dtype=np.float64).T for table in tables)
    if unit.shape != values.shape:
        raise DataError(f"`att` is {unit.T.shape}, `original_att` {values.T.shape}", where=path, hint=HINT)
    classes = len(values)
    if "allclasses_names" not in content:
        return tuple(str(c + 1) for c in range(classes)), unit, values, False
    names = texts(content["allclasses_names"], "allclasses_names", path)
    if len(names) != classes:
        raise DataError(f"{counted(len(names), 'name')} for {counted(classes, 'class')}", where=path, hint=HINT)
    return names, unit, values, True
