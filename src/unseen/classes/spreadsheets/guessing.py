"""Guess from its cells what a column of a spreadsheet holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from unseen.classes.spreadsheets.cells import fold, nearest
from unseen.classes.spreadsheets.columns import (
    DATE,
    Column,
    parts_of,
)
from unseen.classes.spreadsheets.doubtful import joined
from unseen.classes.spreadsheets.flags import MARKS, NO_WORDS, PLAIN_FLAGS, YES_WORDS, dash_means_no, pair_of
from unseen.classes.spreadsheets.numbers import (
    DASHES,
    Numbers,
    is_percent,
    read_numbers,
)
from unseen.classes.spreadsheets.scales import SCALES, repeated_signs, step_of

_REMARKS = frozenset(
    {
        *("note", "notes", "comment", "comments", "remark", "remarks", "description", "source", "reference", "url"),
        *("bemerkung", "bemerkungen", "kommentar", "notiz", "anmerkung", "quelle", "remarque", "commentaire", "notas"),
    }
)
"""Names of columns of free text, folded."""


@dataclass(frozen=True)
class Read:
    """A column in progress: its cells, and their numbers if it holds numbers."""

    column: Column
    cells: list[str]
    fixed: bool
    numbers: Numbers | None = None

    @property
    def plain(self) -> bool:
        """Whether its cells are bare numbers: no units, ranges or deviations."""
        found = self.numbers
        return found is not None and not found.unit and not found.ranges


def guess(name: str, cells: list[str], missing: tuple[str, ...]) -> Read:
    """What a column holds, judged by its cells alone; numbers are settled later, together with the other columns."""
    dash = dash_means_no(cells)
    base = Column(name, "ignored", missing=missing, dash=dash)
    filled = [cell for cell in cells if not base.is_blank(cell)]
    words = [cell.casefold() for cell in filled]
    if not filled:
        return Read(replace(base, why="all cells are blank"), cells, False)
    if "" in cells and (set(words) <= MARKS or (set(words) <= YES_WORDS and len(set(words)) == 1)):
        return Read(replace(base, kind="marks"), cells, False)
    flags = 0 if {"o", "x"} <= {*words} else sum(word in YES_WORDS | NO_WORDS for word in words)  # o: oui, or a zero
    if flags == len(words) and not set(words) <= {"1", "1.0", "0", "0.0"}:
        return Read(replace(base, kind="yes/no"), cells, False)
    if pair := pair_of(filled):
        return Read(replace(base, kind="yes/no", steps=pair), cells, False)
    if steps := repeated_signs(cell for cell in cells if cell.strip() in DASHES or not base.is_blank(cell)):
        return Read(replace(base, kind="scale", steps=steps, dash=True), cells, False)
    base = replace(base, dash=False)
    dates = sum(DATE.fullmatch(cell) is not None for cell in filled)
    if dates == len(filled):
        what = f"the cells are {'times' if filled[0][2:3] == ':' else 'dates'} ({filled[0]})"
        why = f"{what}; if you entered numbers or ranges, format the column as text first"
        return Read(replace(base, why=why), cells, False)
    numbers = read_numbers(cells, missing)
    numeric = len(filled) - len(numbers.wrong) + len(numbers.other_units)
    if 2 * (numeric + dates) >= len(filled) and numeric:
        return Read(number_column(name, numbers, missing), cells, False, numbers)
    known, steps = _scale(filled)
    if known < 1 and flags >= 0.6 * len(words) and len(set(words) & PLAIN_FLAGS) > 1:
        return Read(replace(base, kind="yes/no"), cells, False)
    if steps:
        return Read(replace(base, kind="scale", steps=steps), cells, False)
    return Read(category_column(base, filled, rows=len(cells)), cells, False)


def number_column(name: str, numbers: Numbers, missing: tuple[str, ...]) -> Column:
    """Numbers or percentages, with their ends and unit."""
    values = [value for value in numbers.values if np.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    shared = Column(
        name,
        "number",
        low=low,
        high=high,
        least=low,
        greatest=high,
        decimal=numbers.decimal,
        missing=missing,
    )
    if numbers.percent:
        return replace(shared, kind="percent", low=0.0, high=1.0)
    if not numbers.unit and values and is_percent(name) and 1 < high <= 100:
        return replace(shared, kind="percent", unit="%", low=0.0, high=1.0)
    return replace(shared, unit=numbers.unit)


def _scale(filled: list[str]) -> tuple[float, tuple[str, ...]]:
    """The shortest known scale that fits the words apart from typos, and the share of words that it contains."""
    best: tuple[float, tuple[str, ...]] = (0.0, ())
    count = Counter(map(fold, filled))
    for steps in SCALES:
        places = {word: step_of(word, steps) for word in count}
        known = sum(count[word] for word, place in places.items() if place is not None) / len(filled)
        better = known >= 0.6 and (known, -len(steps)) > (best[0], -len(best[1]))
        if better and len({*places.values()} - {None}) >= 2:
            slips = (word for word, place in places.items() if place is None)
            best = (known, steps) if all(nearest(word, steps) for word in slips) else best
    return best


def category_column(base: Column, filled: list[str], rows: int = 0) -> Column:
    """Categories; or unused free text, if the number of ``rows`` is given."""
    spelling: dict[str, str] = {}
    count: dict[str, int] = {}
    for cell in filled:
        for key, part in {fold(p): p for p in base.parts(cell)}.items():
            spelling.setdefault(key, part)
            count[key] = count.get(key, 0) + 1
    long = sum(map(len, filled)) > 40 * len(filled) or fold(base.name) in _REMARKS
    if rows and max(count.values(), default=1) == 1 and (long or len(filled) >= max(8, 0.5 * rows)):
        why = 'no two rows share a value; to use it, set its scale to "categories" in the attributes sheet'
        if two := joined(filled):
            both, apart = " ".join(two[0].split()), "; ".join(two[1])
            why = f'no two rows share a value; if "{both}" means two values, write "{apart}"'
        return replace(base, kind="ignored", why=why)
    several = any(len(parts_of(cell)) > 1 for cell in filled)
    steps = tuple(spelling[key] for key in sorted(spelling))
    return replace(base, kind="categories", steps=steps, several=several)
