"""Images with classes and splits, checked on loading."""

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

if TYPE_CHECKING:
    import pandas as pd


TEST_SHARE = 0.2
"""Share of a seen class's images kept for testing where no table says which: the Proposed Split's."""
LEAST_TO_SPLIT = 4
"""Classes with fewer images are trained on whole."""


def digest(*parts: object) -> str:
    """First 16 hex digits of SHA-256 over the text and array parts, each closed off from the next."""
    hasher = hashlib.sha256()
    for part in parts:
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with class labels and a split as in the Proposed Split.

    Args:
        name: name in tables.
        images: the folder that ``files`` are relative to.
        table: the classes.
        files: M image files.
        labels: int64 ``(M,)``, positions in ``table``.
        split: ``(M,)`` array of ``trainval``, ``test_seen`` or ``test_unseen``.
        attribute_vectors: optional float64 ``(K, D)`` word vector of each attribute.
        part_positions: optional table file, part, x, y (pixels of the image) and, where known, visible.
        warnings: notes for readers of its results.
        encoding: how the columns of a spreadsheet became the table's attributes, where it was read from one.

    Raises:
        DataError: images of unseen classes in training, images of seen classes among the unseen, a seen class
            without training images, or shapes that do not fit.
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
                f"{len(self.files)} files, {len(self.labels)} labels, {len(self.split)} splits",
                hint="pass one of each per image",
            )
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.table)))
        if len(outside):
            raise DataError(
                f"label {self.labels[outside[0]]} for {len(self.table)} classes",
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
                    f"attribute vectors have shape {vectors.shape}", hint=f"expected one row for each of {k} names"
                )
            if not np.isfinite(vectors).all():
                row = int(np.argwhere(~np.isfinite(vectors))[0][0])
                raise DataError(
                    f'the vector of "{self.table.attributes.names[row]}" is not finite', hint="fix the file"
                )

    def __repr__(self) -> str:
        """Name, counts and place, in one line."""
        about = self.describe()
        classes = f"{about['classes_seen']} seen and {about['classes_unseen']} unseen classes"
        return f"<Dataset {self.name}: {len(self.files):,} images, {classes}, in {self.images}>"

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
    """Every image's split ``(M,)`` where no table says it.

    A seen class keeps a share of its images for the test by a hash of each one's name, so that further images do not
    move the others.
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
    """A number in [0, 1) of an image's name alone."""
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") / 2**64


def contradictions(
    names: Sequence[str],
    seen: np.ndarray,
    files: Sequence[str],
    labels: np.ndarray,
    split: np.ndarray,
    values: np.ndarray,
) -> Iterator[DataError]:
    """Where images, splits, seen flags and attributes leave nothing to learn; arguments as in :class:`Dataset`."""
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
            f"{int(seen.sum())} seen classes", where='classes.csv, column "seen"', hint="training needs at least 3"
        )
    elif same_direction(values[seen]):
        yield DataError(
            f"the {int(seen.sum())} seen classes all have the same attributes, so nothing can be learned",
            where="classes.csv",
            hint="add attributes that separate them",
        )


def same_direction(rows: np.ndarray) -> bool:
    """Whether all rows ``(n, K)`` are the same up to their length: methods compare directions."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return bool(np.ptp(unit, axis=0).max() < 1e-9)


@dataclass(frozen=True, eq=False)
class Partition:
    """What one stage trains on and what it is measured on; all classes are positions in the dataset's table.

    Args:
        classes: classes that exist in this stage, training classes and those held out.
        seen: bool, in the order of ``classes``: those trained on.
        train: images to train on.
        test_seen: held-out images of the training classes.
        test_unseen: images of the held-out classes.
        source: how it came about, for the result's record.
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


def validation_count(table: ClassTable) -> int:
    """How many seen classes a validation draw holds out: n_s n_u / (n_s + n_u), at most a third.

    Trained and held-out classes are then to each other as the seen to the unseen ones are, and a calibration offset
    found on them holds for the test. Where no class is unseen, a third.
    """
    seen = int(table.seen.sum())
    unseen = len(table) - seen
    return max(1, min(round(seen * unseen / (seen + unseen)) if unseen else seen, seen // 3))


def validation_partition(dataset: Dataset, seed: int = 0, held_out: float = 0.2, draw: int = 0) -> Partition:
    """Hold out validation classes, and images of the others, from ``trainval`` alone.

    Draw after draw goes through random orders of the seen classes, so that no class is held out again before every
    other was. Where the dataset names validation classes, draw 0 takes them.

    Args:
        dataset: the data.
        seed: for the draws of classes and images.
        held_out: share of each remaining class's images kept as "test seen", the Proposed Split's share.
        draw: which of the draws, from 0.

    Raises:
        DataError: the named validation classes leave fewer than two to train on.
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
        held = _held_classes(seen, count, draw - given, np.random.default_rng(seed))
        source = f"{count} validation classes, draw {draw + 1} with seed {seed}"
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
    """Classes of a draw: the next ``count`` of random orders laid end to end, none twice in a draw."""
    waiting: list[int] = []
    for _ in range(draw + 1):
        if len(waiting) < count:
            waiting += [int(c) for c in rng.permutation(seen) if c not in waiting]
        held, waiting = waiting[:count], waiting[count:]
    return np.sort(held)
