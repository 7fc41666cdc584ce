"""Which classes are confused, explained by the attributes that they share and those that separate them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unseen.classes.naming import label
from unseen.classes.presence import present
from unseen.evaluation.attributes import auroc
from unseen.explain.sheet import class_label
from unseen.report.material import Material
from unseen.report.quality import GOOD, POOR, mistakes, scores_attributes

SMALL = 0.05
"""Smallest share of a class's images for a confusion to be shown; the two largest are always shown."""

FEWEST = 3
"""Smallest number of test images of each of two classes to compare their attribute scores."""


@dataclass(frozen=True)
class Difference:
    """An attribute that separates two classes.

    Args:
        name: readable name.
        more: whether the first class has more of it.
        auroc: how well its score separates the test images of the two classes; ``None`` if unknown.
    """

    name: str
    more: bool
    auroc: float | None

    @property
    def verdict(self) -> str:
        """How well it is recognized: ``well``, ``fairly`` or ``badly``; empty if unknown."""
        if self.auroc is None:
            return ""
        return "well" if self.auroc >= GOOD else "fairly" if self.auroc >= POOR else "badly"


@dataclass(frozen=True)
class Confusion:
    """A class whose images are often predicted as another one.

    Args:
        name, taken_for: the two classes.
        seen, taken_for_seen: whether each had training images.
        share: share of the class's test images, over all seeds.
        images: number of test images.
        alike: cosine of the two rows of the class table.
        shared: attributes that both have.
        differences: attributes in which they differ most, strongest first.
        differing: number of attributes that one class has and the other has not.
    """

    name: str
    taken_for: str
    seen: bool
    taken_for_seen: bool
    share: float
    images: int
    alike: float
    shared: list[str]
    differences: list[Difference]
    differing: int

    @property
    def advice(self) -> str:
        """The cause of the confusion, and what would separate the two."""
        if not self.differences:
            return "Both have the same attributes, so no model can separate them. Add an attribute."
        badly = [d.name for d in self.differences if d.verdict == "badly"]
        known = [d for d in self.differences if d.verdict]
        if badly:
            which = "it" if len(badly[:2]) == 1 else "them"
            return f"{' and '.join(badly[:2])} would separate them, but the model hardly recognizes {which}."
        if known and all(d.verdict == "well" for d in known):
            few = "" if self.differing > 3 else " They differ in little else, so another attribute would help."
            return f"The model recognizes what separates them, but other attributes outweigh it.{few}"
        if known:
            weakest = min(known, key=lambda d: d.auroc or 0)
            return f"{weakest.name} would separate them, but the model often gets it wrong."
        return ""


def confusions(material: Material, most: int = 8) -> list[Confusion]:
    """The largest confusions: of unseen classes if they have test images, else of seen ones."""
    table, wrong = material.table, mistakes(material)
    unseen = [c for c in wrong if not table.seen[c]]
    some = unseen if material.tested[1] else list(wrong)
    worst = sorted(some, key=lambda c: -wrong[c][1])[:most]
    worst = [c for i, c in enumerate(worst) if i < 2 or wrong[c][1] >= SMALL]
    return [_confusion(material, c, *wrong[c]) for c in worst]


def _confusion(material: Material, a: int, b: int, share: float) -> Confusion:
    table = material.table
    values, has = table.values, present(table.values)
    gap = values[a] - values[b]
    spread = np.where(np.ptp(values, axis=0) > 0, np.ptp(values, axis=0), 1)
    order = [int(k) for k in np.argsort(-np.abs(gap) / spread, kind="stable")[:4] if gap[k]]
    reading = _readings(material, a, b, order)
    names = [label(name) for name in table.attributes.names]
    norms = np.linalg.norm(values[a]) * np.linalg.norm(values[b])
    both = np.flatnonzero(has[a] & has[b])
    rare = sorted(both.tolist(), key=lambda k: int(has[:, k].sum()))  # rare ones tell most
    return Confusion(
        class_label(table.names[a]),
        class_label(table.names[b]),
        bool(table.seen[a]),
        bool(table.seen[b]),
        share,
        material.found["per_class"][a]["images"],
        float(values[a] @ values[b] / norms),
        [names[k] for k in rare],
        [Difference(names[k], bool(gap[k] > 0), reading.get(k)) for k in order],
        int((has[a] != has[b]).sum()),
    )


def _readings(material: Material, a: int, b: int, attributes: list[int]) -> dict[int, float]:
    """Attribute to the AUROC of its score between the test images of two classes; 1 for perfect separation."""
    answers = material.answers
    if answers is None or not scores_attributes(answers) or not attributes:
        return {}
    first, second = answers.labels == a, answers.labels == b
    if min(first.sum(), second.sum()) < FEWEST:
        return {}
    rows = first | second
    values = material.table.values[:, attributes]
    more = values[answers.labels[rows]] == np.maximum(values[a], values[b])
    found = auroc(answers.attribute_scores[rows][:, attributes], more)
    return dict(zip(attributes, found.tolist(), strict=True))
