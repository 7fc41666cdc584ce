"""Quality by class and by attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unseen.classes.naming import label
from unseen.classes.nearness import apart
from unseen.classes.presence import present
from unseen.classes.table import ClassTable
from unseen.errors import UnseenError
from unseen.explain.answers import Answers
from unseen.explain.attribute_scores import SIDES, attribute_quality, held_out_quality, read_in_holdouts
from unseen.explain.sheet import class_label
from unseen.report.images import square
from unseen.report.material import Material

GOOD, POOR = 0.8, 0.6
"""AUROC from which an attribute counts as recognized well, and below which as recognized badly."""

MOST_CLASSES, MOST_THUMBNAILS, MOST_ATTRIBUTES = 600, 240, 600
"""Numbers of rows and images in the tables; the page states the number of others."""


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes; accuracies are fractions, ``None`` if not measured."""

    name: str
    seen: bool
    training: int | None
    images: int
    among_all: float | None
    among_unseen: float | None
    mistaken: str
    mistaken_share: float
    image: str


def mistakes(material: Material) -> dict[int, tuple[int, float]]:
    """Class to the other class that its test images are most often predicted as, and their share, over all seeds."""
    pairs: Counter[tuple[int, int]] = Counter()
    totals: Counter[int] = Counter()
    for seed, d in material.decisions.items():
        named = d.predict(material.gamma(seed))
        pairs.update(zip(d.labels.tolist(), named.tolist(), strict=True))
        totals.update(d.labels.tolist())
    found: dict[int, tuple[int, float]] = {}
    for (truth, named_as), count in sorted(pairs.items()):
        share = count / totals[truth]
        if truth != named_as and share > found.get(truth, (0, 0.0))[1]:
            found[truth] = (named_as, share)
    return found


def class_rows(material: Material) -> list[ClassRow]:
    """All classes as a table, without images: unseen ones first, the worst first."""
    table, wrong = material.table, mistakes(material)
    training: np.ndarray | None = None
    if material.dataset is not None:
        labels = material.dataset.labels[material.dataset.indices("trainval")]
        training = np.bincount(labels, minlength=len(table))
    rows = []
    for c, entry in enumerate(material.found["per_class"]):
        other, share = wrong.get(c, (-1, 0.0))
        rows.append(
            ClassRow(
                class_label(entry["class"]),
                entry["seen"],
                None if training is None else int(training[c]),
                entry["images"],
                entry["among_all"],
                entry["among_unseen"],
                "" if other < 0 else class_label(table.names[other]),
                share,
                "",
            )
        )
    return rows


def class_order(rows: list[ClassRow]) -> list[int]:
    """Positions of the rows in display order: unseen first, then by accuracy; classes without test images last."""

    def key(c: int) -> tuple[bool, bool, float, float]:
        row = rows[c]
        return (row.seen, row.among_all is None, row.among_all or 0.0, row.among_unseen or 0.0)

    return sorted(range(len(rows)), key=key)


def class_images(material: Material, classes: list[int]) -> dict[int, str]:
    """A thumbnail for each of some classes, if available: of the training images, else of the test ones."""
    dataset = material.dataset
    if dataset is None:
        return {}
    order = np.concatenate([dataset.indices(split) for split in ("trainval", "test_seen", "test_unseen")])
    first: dict[int, int] = {}
    for i in order:
        first.setdefault(int(dataset.labels[i]), int(i))
    found = {}
    for c in classes:
        if c in first:
            try:
                found[c] = square(dataset.images / dataset.files[first[c]])
            except UnseenError:  # the image is broken; the row of the class does without
                continue
    return found


@dataclass(frozen=True)
class AttributeRow:
    """A row of the table of attributes.

    Args:
        name, group: readable names.
        classes: number of classes that have it.
        unseen, seen: AUROC of its score over the test images of either kind; ``None`` if it cannot be measured. If no
            unseen class has test images, ``unseen`` refers to the held-out classes.
        rank: Spearman correlation with the class's value, over the side in ``best``; ``None`` likewise.
    """

    name: str
    group: str
    classes: int
    unseen: float | None
    seen: float | None
    rank: float | None

    @property
    def best(self) -> float | None:
        """AUROC over unseen classes, else over seen ones."""
        return self.seen if self.unseen is None else self.unseen


@dataclass(frozen=True)
class AttributeSection:
    """Everything that the page shows about attributes.

    Args:
        rows: rows in table order.
        graded: whether an attribute has more than two values in the class table.
        side: side of the bars: unseen classes if they can be measured, else seen ones.
        hardly: names of attributes that :func:`hardly_varying` finds.
        groups: name, mean AUROC and number of measured attributes, best first; empty if groups are uninformative.
        held_out: whether unseen classes are those of class hold-outs.
    """

    rows: list[AttributeRow]
    graded: bool
    side: str
    hardly: list[str]
    groups: list[tuple[str, float, int]]
    held_out: bool = False

    def value(self, row: AttributeRow) -> float | None:
        """AUROC of the displayed side."""
        return row.unseen if self.side == "unseen" else row.seen

    @property
    def ranked(self) -> list[tuple[AttributeRow, float]]:
        """Measured attributes with their AUROC, best first."""
        measured = [(row, v) for row in self.rows if (v := self.value(row)) is not None]
        return sorted(measured, key=lambda pair: -pair[1])

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of attributes recognized well, fairly and badly, and of those that cannot be measured."""
        values = [v for _, v in self.ranked]
        well, badly = sum(v >= GOOD for v in values), sum(v < POOR for v in values)
        return {
            "well": well,
            "fairly": len(values) - well - badly,
            "badly": badly,
            "unmeasured": len(self.rows) - len(values),
        }


def scores_attributes(answers: Answers) -> bool:
    """Whether attribute scores of the method differ between images."""
    return bool(np.ptp(answers.attribute_scores, axis=0).any())


def learned_in_holdouts(read: Mapping[str, Any] | None) -> bool:
    """Whether attribute scores differed between the images of held-out classes: the AUROC of equal scores is 0.5."""
    return read is not None and any(value is not None and value != 0.5 for value in read["auroc"])


def hardly_varying(table: ClassTable) -> np.ndarray:
    """Bool ``(K,)``: whether all classes but at most one have the same value, see :func:`apart`."""
    values = table.values
    differing = apart(table, values, np.median(values, axis=0)).sum(axis=0)
    hardly: np.ndarray = (np.ptp(values, axis=0) == 0) | ((differing <= 1) & (len(values) > 3))
    return hardly


def attribute_section(material: Material) -> AttributeSection | None:
    """Quality of every attribute over test images and class hold-outs; ``None`` if nothing can be measured."""
    answers, read = material.answers, read_in_holdouts(material.found)
    if not (learned_in_holdouts(read) if answers is None else scores_attributes(answers)):
        return None
    quality = held_out_quality(material.table, read) if answers is None else attribute_quality(answers, read)
    frame = quality.table
    attributes, has = material.table.attributes, present(material.table.values)
    counts = has.sum(axis=0)
    side = next((s for s in SIDES if frame[f"{s}_auroc"].notna().any()), None)
    if side is None:
        return None

    def number(value: Any) -> float | None:
        return None if np.isnan(value) else float(value)

    rows = [
        AttributeRow(
            label(name),
            label(group),
            int(counts[k]),
            number(frame["unseen_auroc"].iloc[k]),
            number(frame["seen_auroc"].iloc[k]),
            number(frame[f"{side}_spearman"].iloc[k]),
        )
        for k, (name, group) in enumerate(zip(attributes.names, attributes.groups, strict=True))
    ]
    hardly = [row.name for row, alike in zip(rows, hardly_varying(material.table), strict=True) if alike]
    means = frame.groupby("group", sort=False)[f"{side}_auroc"].agg(["mean", "count"]).dropna()
    groups = [(label(str(name)), float(row["mean"]), int(row["count"])) for name, row in means.iterrows()]
    if len(groups) >= len(rows) or len(groups) < 2:
        groups = []
    graded = any(len(np.unique(column)) > 2 for column in material.table.values.T)
    return AttributeSection(rows, graded, side, hardly, sorted(groups, key=lambda g: -g[1]), quality.held_out)
