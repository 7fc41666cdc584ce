"""Priors: how likely each class is at a place and in a month, before an image is seen.

Weights are relative to each other, so any unit works: shares, sightings, percent. A class that the table never names
gets the mean weight of the named ones there, so that it neither gains nor loses against them overall. A class that the
table names, but not for this place and month, has weight 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from unseen.classes.spreadsheets.cells import fold, nearest, place
from unseen.classes.spreadsheets.numbers import is_missing, plain_number
from unseen.classes.spreadsheets.tables import read_table
from unseen.errors import DataError, UnseenError
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.classes.table import ClassTable

MONTHS = tuple(
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)
WEIGHT = ("weight", "prior", "probability", "frequency", "count")
"""Names of the weight column of a table with one row per class, place and month."""
ANY = "any"
"""An unknown month or place: the sum over all in the table."""


def month_of(text: str | int) -> int | None:
    """Month from 1 to 12 in ``5``, ``05``, ``May``, ``2026-05-17`` or ``2026:05:17 10:00:00``; else ``None``."""
    word = fold(str(text)).replace(":", " ").removesuffix(".")
    parts = word.split()
    if len(parts) >= 3 and len(parts[0]) == 4 and all(part.isdigit() for part in parts[:2]):
        word = parts[1]
    if word.isdigit():
        return int(word) if 1 <= int(word) <= 12 else None
    found = [i for i, name in enumerate(MONTHS, 1) if len(word) >= 3 and name.startswith(word)]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Entry:
    """Weight of a class at a place in a month; ``""`` and 0 if the table has no places and no months."""

    name: str
    place: str
    month: int
    weight: float
    where: str


@dataclass(frozen=True)
class Prior:
    """Weights of classes by place and month, with the chosen place and month.

    Args:
        entries: entries of the table; each class, place and month occurs once.
        source: file, for errors.
        place, month: chosen ones, see :meth:`at`; ``""`` and 0 if not chosen.
    """

    entries: tuple[Entry, ...]
    source: str = "prior"
    place: str = ""
    month: int | str = 0

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Self:
        """A prior that is the same everywhere: class to weight."""
        return cls(
            tuple(_entry(name, "", 0, str(weight), f'prior, class "{name}"') for name, weight in weights.items())
        )

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a table with a column ``class``, in one of these forms.

        Long: ``weight``, and optionally ``place`` and ``month``, one row each. Wide: optionally ``place``, and one
        column per month (``1``, ``May``, ...); or optionally ``month``, and one column per place. A blank cell is no
        entry.

        Raises:
            DataError: the first error, with row and column: no weight, a negative one, an unknown month, or a repeated
                class, place and month.
        """
        path = Path(path)
        frame = read_table(path, ["class"], ["place", "month"])
        columns = [str(c) for c in frame.columns if c not in ("class", "place", "month")]
        weight = next((c for word in WEIGHT for c in columns if fold(c) == word), None)
        months = {c: month for c in columns if (month := month_of(c)) is not None}
        wide_months = weight is None and bool(months) and len(months) == len(columns) and "month" not in frame
        if weight is None and not wide_months and ("place" in frame or not columns):
            hint = f'add a column "weight", or one column per month; it has {", ".join(map(str, frame.columns))}'
            raise DataError('no column "weight"', where=place(path, -1), hint=hint)
        entries: list[Entry] = []
        for row in range(len(frame)):
            cells = {str(name): str(frame[name].iloc[row]) for name in frame.columns}
            month = 0
            if "month" in cells and (month := month_of(cells["month"]) or 0) == 0:
                hint = "use 1 to 12, or January to December"
                raise DataError(f'"{cells["month"]}" is not a month', where=place(path, row, "month"), hint=hint)
            if "place" in cells and not cells["place"]:
                raise DataError("no place", where=place(path, row, "place"), hint="fill it in")
            for column in columns if weight is None else [weight]:
                if is_missing(cells[column]):
                    continue
                at = cells.get("place", "") if wide_months or weight is not None else column
                when = months[column] if wide_months else month
                entries.append(_entry(cells["class"], at, when, cells[column], place(path, row, column)))
        first: dict[tuple[str, str, int], Entry] = {}
        for one in entries:
            other = first.setdefault((fold(one.name), fold(one.place), one.month), one)
            if other is not one:
                problem = f'"{one.name}" has another weight for the same place and month ({other.where})'
                raise DataError(problem, where=one.where, hint="keep one")
        if not entries:
            raise DataError("no weights", where=path, hint="add a row per class")
        return cls(tuple(entries), str(path))

    @cached_property
    def places(self) -> tuple[str, ...]:
        """Places of the table; empty if it has none."""
        return tuple({fold(one.place): one.place for one in self.entries if one.place}.values())

    @cached_property
    def months(self) -> tuple[int, ...]:
        """Months of the table; empty if it has none."""
        return tuple(sorted({one.month for one in self.entries if one.month}))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights, and of the chosen place and month."""
        rows = [(one.name, one.place, one.month, one.weight) for one in self.entries]
        return hashlib.sha256(json.dumps([rows, self.place, self.month]).encode()).hexdigest()[:16]

    def at(self, place: str | None = None, month: int | str | None = None) -> Self:
        """Choose a place and a month; ``None`` keeps the current choice.

        Args:
            place: one of :attr:`places`, or ``any`` for the sum over all.
            month: 1 to 12, a name, or ``any``.

        Raises:
            UnseenError: the table does not have it.
        """
        found = self
        if place is not None:
            known = {fold(name): name for name in self.places}
            if not known:
                raise UnseenError("the prior has no places", where=self.source, hint='omit the place, or add "place"')
            if fold(place) not in known and fold(place) != ANY:
                near = nearest(place, self.places)
                hint = f'did you mean "{near}"?' if near else f"it has {', '.join(self.places[:6])}"
                raise UnseenError(f'the prior has no place "{place}"', where=self.source, hint=hint)
            found = replace(found, place=known.get(fold(place), ANY))
        if month is not None:
            number = ANY if str(month).casefold() == ANY else month_of(month)
            if number is None:
                raise UnseenError(f'"{month}" is not a month', hint="use 1 to 12, January to December, or any")
            if not self.months:
                raise UnseenError("the prior has no months", where=self.source, hint='omit the month, or add "month"')
            if number != ANY and number not in self.months:
                have = ", ".join(map(str, self.months))
                raise UnseenError(f"the prior has no month {number}", where=self.source, hint=f"it has {have}")
            found = replace(found, month=number)
        return found

    def only(self, names: Sequence[str]) -> Self:
        """The prior without entries for other classes."""
        known = set(map(fold, names))
        return replace(self, entries=tuple(one for one in self.entries if fold(one.name) in known))

    def named_now(self, table: ClassTable) -> Self:
        """The prior with the current names of renamed classes.

        Raises:
            DataError: it names a class by its former and its current name.
        """
        then = {fold(name) for name in table.former} - set(map(fold, table.names))
        if not then:
            return self
        found, own = [], {fold(one.name): one for one in self.entries}
        for one in self.entries:
            now = table.name_now(one.name) if fold(one.name) in then else None
            if now is not None and fold(now) in own:
                problem = f'class "{one.name}" is now "{now}", which has weights too ({own[fold(now)].where})'
                raise DataError(problem, where=one.where, hint="remove the row of one of the names")
            found.append(one if now is None else replace(one, name=now))
        return replace(self, entries=tuple(found))

    def check(self) -> None:
        """Raise an error if the weights depend on a place or month, and none was chosen."""
        for what, there, chosen, example in (
            ("place", self.places, self.place, self.places[:1]),
            ("month", self.months, self.month, self.months[:1]),
        ):
            if there and not chosen:
                hint = f"choose a {what}, such as {example[0]}, or any"
                raise UnseenError(f"the prior depends on the {what}, and none is given", where=self.source, hint=hint)

    def weights(self, names: Sequence[str]) -> np.ndarray:
        """Float64 ``(N,)`` weights of classes at the chosen place and month.

        Args:
            names: N class names.

        Raises:
            UnseenError: no place or month was chosen, though the weights depend on it.
            DataError: the table names a class that is not among them, or all weights are 0.
        """
        self.check()
        folded = {fold(name): i for i, name in reversed(list(enumerate(names)))}
        positions = {name: i for i, name in enumerate(names)}
        found = np.full(len(names), np.nan)
        for one in self.entries:
            row = positions.get(one.name, folded.get(fold(one.name), -1))
            if row < 0:
                near = nearest(one.name, list(names))
                hint = f'did you mean "{near}"?' if near else "add the class to the model, or remove the row"
                raise DataError(f'no class "{one.name}"', where=one.where, hint=hint)
            here = (not one.place or self.place in (ANY, one.place)) and (
                not one.month or self.month in (ANY, one.month)
            )
            found[row] = np.nansum([found[row], one.weight if here else 0.0])
        named = found[~np.isnan(found)]
        if not named.any():
            at = ", ".join(f"{what} {value}" for what, value in (("place", self.place), ("month", self.month)) if value)
            problem = f"every weight is 0{f' at {at}' if at else ''}"
            raise DataError(problem, where=self.source, hint="give a class a weight above 0")
        return np.where(np.isnan(found), named.mean(), found)

    def notes(self, table: ClassTable) -> list[str]:
        """Notes on classes that the prior does not name, and on those that it names by a former name."""
        now = {one.name: table.name_now(one.name) for one in self.entries} if table.former else {}
        lines = [f'the prior names "{then}", which is now "{name}"' for then, name in now.items() if name is not None]
        named = {fold(now.get(one.name) or one.name) for one in self.entries}
        without = [name for name in table.names if fold(name) not in named]
        if without:
            shown = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
            verbs = "is not in the prior and gets" if len(without) == 1 else "are not in the prior and get"
            lines.append(f"{counted(len(without), 'class')} {verbs} its mean weight ({shown})")
        return lines


def _entry(name: str, at: str, month: int, text: str, where: str) -> Entry:
    value = plain_number(text.strip().removesuffix("%"))
    if not np.isfinite(value):
        raise DataError(f'"{text}" is not a weight', where=where, hint="use a number of 0 or more")
    if value < 0:
        raise DataError(f"the weight {text} is negative", where=where, hint="use a number of 0 or more")
    return Entry(name, at, month, float(value), where)
