"""What to expect of each unseen class before any image of it: do classes with images have what sets it apart? Ours.

An attribute that no class with images has cannot be learned. Where much of what sets an unseen class apart is of that
kind, the model has little to name it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unseen.classes.naming import label
from unseen.classes.presence import present
from unseen.classes.table import ClassTable

FAR = 0.3
"""An attribute sets a class apart if the class has it, by a value above the mean of the classes with images by at
least this share of the attribute's largest."""
BEYOND = 0.25
"""No class with images has an attribute if none is present (:func:`present`) and the largest value among them lies
below the unseen class's by this share of the attribute's largest."""
TROUBLE = 0.25
"""Share of missing telling attributes from which trouble is expected."""


@dataclass(frozen=True)
class Expectation:
    """What the table alone says of an unseen class.

    Args:
        name: of the class.
        telling: attributes that set it apart from the classes with images, the most telling first.
        missing: those of them that no class with images has.
    """

    name: str
    telling: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def trouble(self) -> bool:
        """Whether too much of what sets it apart cannot be learned."""
        return bool(self.missing) and len(self.missing) >= TROUBLE * len(self.telling)

    @property
    def text(self) -> str:
        """In a line, without the class's name."""
        if not self.telling:
            return "no attribute separates it from the classes with images"
        if not self.missing:
            many = len(self.telling)
            every = f"all {many} distinctive attributes occur" if many > 1 else "its one distinctive attribute occurs"
            return f"{every} in classes with images"
        some = f"{_list([label(name) for name in self.missing])} {'occurs' if len(self.missing) == 1 else 'occur'}"
        if self.trouble:
            return f"low accuracy expected: {some} in no class with images"
        others = len(self.telling) - len(self.missing)
        return f"{some} in no class with images, its {others} other distinctive ones do"


def expectations(table: ClassTable, trained: ClassTable | None = None) -> list[Expectation]:
    """Of each unseen class, in the table's order.

    Args:
        table: the classes.
        trained: the classes of the training, with the same attributes, where they are not those of the table.
    """
    source = table if trained is None else trained
    if not source.seen.any():
        return []
    known, unseen = source.values[source.seen], np.flatnonzero(~table.seen)
    every = np.concatenate([known, table.values[unseen]])
    largest = np.abs(every).max(axis=0)
    scale = np.where(largest > 0, largest, 1)
    has = present(every)
    absent: np.ndarray = ~np.any(has[: len(known)], axis=0)
    lead = (table.values[unseen] - known.mean(axis=0)) / scale
    beyond = (table.values[unseen] - known.max(axis=0)) / scale
    found = []
    for row, c in enumerate(unseen):
        telling = [k for k in np.argsort(-lead[row], kind="stable") if lead[row, k] >= FAR and has[len(known) + row, k]]
        missing = [k for k in telling if absent[k] and beyond[row, k] >= BEYOND]
        names = table.attributes.names
        found.append(Expectation(table.names[c], tuple(names[k] for k in telling), tuple(names[k] for k in missing)))
    return found


def _list(names: Sequence[str], most: int = 4) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
