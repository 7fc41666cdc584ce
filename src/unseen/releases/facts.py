"""Counts of each benchmark's Proposed Split, and which benchmark a set of counts matches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Counts of a benchmark under the Proposed Split (Xian et al., TPAMI 2019, table 1 and section 4).

    Args:
        images: number of images (aPY: objects).
        classes: number of classes.
        seen: classes with training images.
        attributes: numbers per class in ``att_splits.mat``.
        trainval, test_seen, test_unseen: number of images of each part.
    """

    images: int
    classes: int
    seen: int
    attributes: int
    trainval: int
    test_seen: int
    test_unseen: int

    @property
    def unseen(self) -> int:
        """Classes without training images."""
        return self.classes - self.seen


FACTS = {
    "CUB": Facts(11788, 200, 150, 312, 7057, 1764, 2967),
    "SUN": Facts(14340, 717, 645, 102, 10320, 2580, 1440),
    "AWA2": Facts(37322, 50, 40, 85, 23527, 5882, 7913),
    "AWA1": Facts(30475, 50, 40, 85, 19832, 4958, 5685),
    "APY": Facts(15339, 32, 20, 64, 5932, 1483, 7924),
    "FLO": Facts(8189, 102, 82, 1024, 5631, 1403, 1155),
}


def looks_like(images: int | None = None, classes: int | None = None) -> str | None:
    """The benchmark with these counts, if it is the only one."""
    found = [
        name
        for name, facts in FACTS.items()
        if images in (None, facts.images) and classes in (None, facts.classes) and (images or classes)
    ]
    return found[0] if len(found) == 1 else None
