"""What to expect of each unseen class before any image of it: do classes with images have its telling attributes? Ours.

An attribute that no class with images has cannot be learned. If many telling attributes of an unseen class are of that
kind, the model has little to recognize it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unseen.classes.naming import label
from unseen.classes.presence import present
from unseen.classes.table import ClassTable

FAR = 0.3
"""An attribute is telling if the class has it, with a value that exceeds the mean of the classes with images by at
least this share of the attribute's largest."""
BEYOND = 0.25
"""No class with images has an attribute if none is present (:func:`present`) and their largest value is below that of
the unseen class by this share of the attribute's largest."""
TROUBLE = 0.25
"""Share of missing telling attributes from which problems are expected."""


@dataclass(frozen=True)
class Expectation:
    """Expectation for an unseen class, from the table alone.

    Args:
        name: name of the class.
        telling: attributes that separate it from the classes with images, the most telling first.
        missing: telling attributes that no class with images has.
    """

    name: str
    telling: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def trouble(self) -> bool:
        """Whether too many telling attributes cannot be learned."""
        return bool(self.missing) and len(self.missing) >= TROUBLE * len(self.telling)

    @property
    def text(self) -> str:
        """The expectation in one line, without the class name."""
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
    """Expectation of each unseen class, in table order.

    Args:
        table: class table.
        trained: classes of the training, with the same attributes, if they differ from those of the table.
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
