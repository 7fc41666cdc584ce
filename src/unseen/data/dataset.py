"""Images with classes and splits, validated on loading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.table import ClassTable
from unseen.errors import DataError
from unseen.formats.xlsa17 import SPLITS
from unseen.ground.words import counted

if TYPE_CHECKING:
    import pandas as pd


TEST_SHARE = 0.2
"""Share of a seen class's images to test on if no table says which, as in the Proposed Split."""
LEAST_TO_SPLIT = 4
"""Classes with fewer images are used for training only."""


def digest(*parts: object) -> str:
    """First 16 hex digits of SHA-256 over text and array parts, each delimited from the next."""
    hasher = hashlib.sha256()
    for part in parts:
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with class labels and a split as in the Proposed Split.

    Args:
        name: name of the dataset in tables.
        images: folder that ``files`` are relative to.
        table: class table.
        files: M image files.
        labels: int64 ``(M,)`` positions in ``table``.
        split: ``(M,)`` array of ``trainval``, ``test_seen`` or ``test_unseen``.
        attribute_vectors: optional float64 ``(K, D)`` word vector of each attribute.
        part_positions: optional table of file, part, x, y (in pixels of the image) and, if known, visible.
        warnings: notes for readers of the results.
        encoding: how the columns of a spreadsheet became the table's attributes, if it came from one.

    Raises:
        DataError: images of unseen classes in training, images of seen classes in ``test_unseen``, a seen class without
            training images, or shapes that do not match.
    """

    name: str
    images: Path
    table: ClassTable
    files: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray
    attribute_vectors: np.ndarray | None = None
    part_positions: pd.DataFrame | None = None
    warnings: tuple[str, ...] = field(default=())
    encoding: Encoding | None = None

    def __post_init__(self) -> None:
        if not (len(self.files) == len(self.labels) == len(self.split)):
            raise DataError(
                f"{counted(len(self.files), 'file')}, {counted(len(self.labels), 'label')}, {len(self.split)} splits",
                hint="pass one of each per image",
            )
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.table)))
        if len(outside):
            raise DataError(
                f"label {self.labels[outside[0]]} for {counted(len(self.table), 'class')}",
                where=f"images.csv, row {outside[0] + 2} ({self.files[outside[0]]})",
                hint="labels are positions in the class table",
            )
        unknown = set(self.split) - set(SPLITS)
        if unknown:
            raise DataError(f'unknown split "{sorted(unknown)[0]}"', hint=f"use one of {', '.join(SPLITS)}")
        for error in contradictions(
            self.table.names, self.table.seen, self.files, self.labels, self.split, self.table.values
        ):
            raise error
        if self.attribute_vectors is not None:
            vectors, k = self.attribute_vectors, len(self.table.attributes)
            if vectors.ndim != 2 or len(vectors) != k:
                raise DataError(
                    f"attribute vectors have shape {vectors.shape}",
                    hint=f"expected one row for each of {counted(k, 'name')}",
                )
            if not np.isfinite(vectors).all():
                row = int(np.argwhere(~np.isfinite(vectors))[0][0])
                raise DataError(
                    f'the vector of "{self.table.attributes.names[row]}" is not finite', hint="fix the file"
                )

    def __repr__(self) -> str:
        """Name, counts and place, in one line."""
        about = self.describe()
        classes = f"{about['classes_seen']} seen and {counted(about['classes_unseen'], 'unseen class')}"
        return f"<Dataset {self.name}: {counted(len(self.files), 'image')}, {classes}, in {self.images}>"

    def indices(self, split: str) -> np.ndarray:
        """Positions of the images of one split."""
        return np.flatnonzero(self.split == split)

    def paths(self) -> list[Path]:
        """Full paths of all images."""
        return [self.images / f for f in self.files]

    @property
    def fingerprint(self) -> str:
        """Digest of files, labels, split, class names, seen and validation flags, and attribute values."""
        table = self.table
        images = [(f, int(c), str(s)) for f, c, s in zip(self.files, self.labels, self.split, strict=True)]
        names = (json.dumps(table.names), json.dumps(table.attributes.names))
        validation = () if table.validation is None else (table.validation,)
        return digest(json.dumps(images), *names, table.values, table.seen, *validation)

    def describe(self) -> dict[str, int | str]:
        """Counts for tables and reports."""
        return {
            "name": self.name,
            "classes_seen": int(self.table.seen.sum()),
            "classes_unseen": int((~self.table.seen).sum()),
            "attributes": len(self.table.attributes),
            **{split: len(self.indices(split)) for split in SPLITS},
            "fingerprint": self.fingerprint,
        }


def split_by_name(files: Sequence[str], labels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Split ``(M,)`` of every image, if no table gives it.

    A hash of each file name decides whether an image of a seen class is for testing, so further images do not move
    others.
    """
    split = np.full(len(files), "trainval", dtype=object)
    for c, count in enumerate(np.bincount(labels, minlength=len(seen))):
        mine = np.flatnonzero(labels == c)
        if not seen[c]:
            split[mine] = "test_unseen"
        elif count >= LEAST_TO_SPLIT:
            draws = np.array([_draw(files[int(i)]) for i in mine])
            held = draws < TEST_SHARE
            held[draws.argmax()] = False
            split[mine[held]] = "test_seen"
    return split


def _draw(file: str) -> float:
    """A number in [0, 1) that depends only on an image's name."""
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") / 2**64


def contradictions(
    names: Sequence[str],
    seen: np.ndarray,
    files: Sequence[str],
    labels: np.ndarray,
    split: np.ndarray,
    values: np.ndarray,
) -> Iterator[DataError]:
    """Raise an error if the data leave nothing to learn; arguments as in :class:`Dataset`."""
    for i in map(int, np.flatnonzero(seen[labels] == (split == "test_unseen"))):
        kind = "seen" if seen[labels[i]] else "unseen"
        yield DataError(
            f'an image of the {kind} class "{names[labels[i]]}" has split {split[i]}',
            where=f"images.csv, row {i + 2} ({files[i]})",
            hint="set its split to test_unseen" if kind == "unseen" else "set its split to trainval or test_seen",
        )
    trained = np.bincount(labels[split == "trainval"], minlength=len(names)) > 0
    for c in map(int, np.flatnonzero(seen & ~trained)):
        yield DataError(
            f'the seen class "{names[c]}" has no image in trainval',
            where=f"classes.csv, row {c + 2}",
            hint="add images, or mark it unseen",
        )
    if seen.sum() < 3:
        yield DataError(
            f"{counted(int(seen.sum()), 'seen class')}",
            where='classes.csv, column "seen"',
            hint="training needs at least 3",
        )
    elif same_direction(values[seen]):
        yield DataError(
            f"the {counted(int(seen.sum()), 'seen class')} all have the same attributes, so nothing can be learned",
            where="classes.csv",
            hint="add attributes that separate them",
        )


def same_direction(rows: np.ndarray) -> bool:
    """Whether all rows ``(n, K)`` are parallel: methods compare directions."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return bool(np.ptp(unit, axis=0).max() < 1e-9)


@dataclass(frozen=True, eq=False)
class Partition:
    """Training and test data of one stage; classes are positions in the dataset's table.

    Args:
        classes: classes of this stage: training classes and held-out ones.
        seen: bool, in the order of ``classes``: training classes.
        train: images to train on.
        test_seen: held-out images of the training classes.
        test_unseen: images of the held-out classes.
        source: origin of the partition, for the record of a result.
    """

    classes: np.ndarray
    seen: np.ndarray
    train: np.ndarray
    test_seen: np.ndarray
    test_unseen: np.ndarray
    source: str

    def fingerprint(self, dataset: Dataset) -> str:
        """Digest of the classes and images of each role, by name."""
        names = [dataset.table.names[c] for c in self.classes]
        roles = [[dataset.files[i] for i in part] for part in (self.train, self.test_seen, self.test_unseen)]
        return digest(json.dumps(names), self.seen, json.dumps(roles))


def final_partition(dataset: Dataset) -> Partition:
    """Train on all seen classes, test on the test images (the Proposed Split, Xian et al., TPAMI 2019)."""
    return Partition(
        np.arange(len(dataset.table)),
        dataset.table.seen,
        dataset.indices("trainval"),
        dataset.indices("test_seen"),
        dataset.indices("test_unseen"),
        "Proposed Split",
    )


DRAWN_BY = ("random", "axes")
"""How draws of validation classes are made, see :func:`validation_partition`."""


def validation_count(table: ClassTable) -> int:
    """Number of seen classes that a validation draw holds out: n_s n_u / (n_s + n_u), at most a third.

    The ratio of training to held-out classes then equals that of seen to unseen ones, so a calibration offset found on
    them applies to the test. A third if no class is unseen.
    """
    seen = int(table.seen.sum())
    unseen = len(table) - seen
    return max(1, min(round(seen * unseen / (seen + unseen)) if unseen else seen, seen // 3))


def validation_partition(
    dataset: Dataset, seed: int = 0, held_out: float = 0.2, draw: int = 0, folds: str = "random"
) -> Partition:
    """Hold out validation classes, and images of the other classes, from ``trainval`` only.

    If the dataset names validation classes, draw 0 uses them.

    Args:
        dataset: dataset.
        seed: seed of the draws of classes and images.
        held_out: share of each remaining class's images to use as "test seen", as in the Proposed Split.
        draw: number of the draw, from 0.
        folds: classes that a draw holds out, one of :data:`DRAWN_BY`. ``random``: the next ones of random orders of the
            seen classes, so no class is held out again before every other has been. ``axes``: those at one end of a
            principal axis of the standardized attribute vectors, which differ from the others in kind: draws 0 and 1
            are both ends of the first axis, 2 and 3 of the second, and so on. Ours.

    Raises:
        DataError: the named validation classes leave fewer than two to train on, or the table has too few axes.
    """
    table = dataset.table
    rng = np.random.default_rng([seed, draw] if draw else seed)
    seen = np.flatnonzero(table.seen)
    given = table.validation is not None and bool(table.validation.any())
    if given and draw == 0:
        assert table.validation is not None
        held = np.flatnonzero(table.validation)
        source = "given validation classes"
        if len(seen) - len(held) < 2:
            raise DataError(
                "fewer than 2 seen classes remain beside the validation classes", hint="name fewer validation classes"
            )
    else:
        count = validation_count(table)
        if folds == "axes":
            held = seen[_ends_of_axes(table.values[seen], count, draw - given)]
            source = f"{counted(count, 'validation class')}, draw {draw + 1} along the axes of the class table"
        else:
            held = _held_classes(seen, count, draw - given, np.random.default_rng(seed))
            source = f"{counted(count, 'validation class')}, draw {draw + 1} with seed {seed}"
    trainval = dataset.indices("trainval")
    train, test_seen = [], []
    for c in np.setdiff1d(seen, held):
        mine = rng.permutation(trainval[dataset.labels[trainval] == c])
        keep = min(len(mine) - 1, max(1, round(len(mine) * held_out)))
        test_seen.append(mine[:keep])
        train.append(mine[keep:])
    return Partition(
        seen,
        ~np.isin(seen, held),
        np.sort(np.concatenate(train)),
        np.sort(np.concatenate(test_seen)),
        trainval[np.isin(dataset.labels[trainval], held)],
        source,
    )


def _held_classes(seen: np.ndarray, count: int, draw: int, rng: np.random.Generator) -> np.ndarray:
    """Classes of a draw: the next ``count`` of concatenated random orders, without repeats within a draw."""
    waiting: list[int] = []
    for _ in range(draw + 1):
        if len(waiting) < count:
            waiting += [int(c) for c in rng.permutation(seen) if c not in waiting]
        held, waiting = waiting[:count], waiting[count:]
    return np.sort(held)


def _ends_of_axes(values: np.ndarray, count: int, draw: int) -> np.ndarray:
    """Rows of ``(n, K)`` values that a draw holds out: the lowest or highest ``count`` on a principal axis."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    standardized = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12)
    _, strengths, axes = np.linalg.svd(standardized, full_matrices=False)
    found: list[np.ndarray] = []
    for axis in axes[strengths > 1e-9 * max(strengths[0], 1e-300)]:
        order = np.argsort(standardized @ (axis * np.sign(axis[np.abs(axis).argmax()])), kind="stable")
        for end in (np.sort(order[:count]), np.sort(order[-count:])):
            if not any(np.array_equal(end, earlier) for earlier in found):
                found.append(end)
    if draw >= len(found):
        problem = f"the class table has axes for {counted(len(found), 'draw')} of validation classes, not {draw + 1}"
        raise DataError(problem, hint=f"use --draws {len(found)} or --folds random" if found else "use --folds random")
    return found[draw]
