"""How the columns of a person's spreadsheet become numeric attributes, for the classes in it and for later ones.

A table of plain numbers in one unit is taken as it stands. Otherwise every column is brought to 0..1 by what it holds.
All but categories then become two attributes, the value and what it lacks of 1 (``size::large`` and ``size::small``):
methods compare directions, in which a zero says nothing, so that small must be as much of an attribute as large.

=========== =============================================================================================
yes/no      1 and 0; also x or a tick, where a blank cell is no if the column holds nothing else
share       numbers within 0..1, as they are
percent     ``80%`` is 0.8
scale       words in an order, lowest first, evenly spaced: low 0, medium 0.5, high 1
number      from the least to the greatest of the table: ``12 mm``, and ``12-15`` for its middle
categories  any other words: an attribute ``column::value`` each; several in a cell by ``;``, ``|`` or ``,``
=========== =============================================================================================

A blank cell is unknown and gets the mean of its column. The spacing of scales, the ends of numbers and the mean are our
choices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unseen.classes.spreadsheets.tables import as_text, fold, nearest, place, repeats, to_numbers
from unseen.classes.table import SEPARATOR, Attributes
from unseen.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BLANK = {"", "na", "n/a", "?", "unknown"}
YES_WORDS = {"yes", "y", "true", "present", "x", "✓", "✔", "☑", "+", "1", "1.0"}
NO_WORDS = {"no", "n", "false", "absent", "✗", "✘", "☐", "-", "–", "−", "0", "0.0"}
PLAIN_FLAGS = {"yes", "no", "y", "n", "true", "false"}
MARKS = {"x", "✓", "✔", "☑", "+"}
SCALES = tuple(
    tuple(text.split("<"))
    for text in (
        "low<medium<high",
        "small<medium<large",
        "short<medium<long",
        "narrow<medium<broad",
        "thin<medium<thick",
        "light<medium<dark",
        "slow<medium<fast",
        "weak<moderate<strong",
        "absent<weak<moderate<strong",
        "none<weak<moderate<strong",
        "none<mild<moderate<severe",
        "none<low<medium<high",
        "none<few<some<many",
        "poor<fair<good<excellent",
        "rare<uncommon<common<abundant",
        "never<rarely<sometimes<often<always",
        "very low<low<medium<high<very high",
        "very small<small<medium<large<very large",
        "very short<short<medium<long<very long",
        "tiny<small<medium<large<huge",
    )
)
SYNONYMS = {
    "moderate": "medium",
    "mid": "medium",
    "average": "medium",
    "intermediate": "medium",
    "big": "large",
    "wide": "broad",
    "seldom": "rarely",
    "frequently": "often",
    "zero": "none",
    "no": "none",
}
ENDS = {"yes/no": ("no", "yes"), "marks": ("no", "yes")} | dict.fromkeys(
    ("share", "percent", "number"), ("low", "high")
)
"""The two attributes of a column, the lower first."""
KINDS = ("as is", "yes/no", "marks", "share", "percent", "scale", "number", "categories", "ignored")
SCALE_HINT = "low<medium<high, yes/no, percent, share, number, 0..50, categories, as is, or ignore"

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_MEASURE = re.compile(
    rf"({_NUMBER})(?: ?(?:-|–|to) ?({_NUMBER.replace('[-+]?', '', 1)}))? ?([^\W\d_]{{1,8}}[²³]?|\"|')?"
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d.*")
_SEVERAL = re.compile(r"[;|,]")
_ENDS = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")


class CellError(Exception):
    """What is wrong with a cell, and how to fix it."""

    def __init__(self, what: str, hint: str) -> None:
        self.what, self.hint = what, hint


@dataclass(frozen=True)
class Column:
    """One column of the spreadsheet and the attributes that it became.

    Args:
        name: its header.
        kind: one of :data:`KINDS`.
        steps: the words of a scale, lowest first; the values of categories.
        low, high: of a number: what becomes 0 and 1.
        unit: of a number: what stands behind it in the cells.
        fill: what a blank cell stands for, a value an attribute.
        blanks: how many cells were blank.
        several: whether some cell had several values.
        why: of an ignored one, if nobody asked for it.
    """

    name: str
    kind: str
    steps: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    fill: tuple[float, ...] = ()
    blanks: int = 0
    several: bool = False
    why: str = ""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of its attributes."""
        if self.kind == "ignored":
            return ()
        if self.kind == "as is":
            return (self.name,)
        return tuple(f"{self.name}{SEPARATOR}{step}" for step in (self.ends or self.steps))

    @property
    def ends(self) -> tuple[str, ...]:
        """What the two attributes of an ordered column are called, the lower first; empty for other columns."""
        if self.kind == "scale":
            return self.steps[0], self.steps[-1]
        return ENDS.get(self.kind, ())

    def read(self, cell: str) -> list[float] | None:
        """A cell as values, one an attribute; ``None`` if it is blank, that is unknown.

        Raises:
            CellError: it is not what the column holds.
        """
        if self.kind == "ignored":
            return []
        if cell.casefold() in BLANK:
            return [1.0, 0.0] if self.kind == "marks" else None
        if self.kind == "categories":
            return self._values(cell)
        value = self._value(cell)
        return [1 - value, value] if self.ends else [value]

    def _value(self, cell: str) -> float:
        if self.kind in ("yes/no", "marks"):
            return self._flag(cell)
        if self.kind == "scale":
            return self._step(cell)
        if self.kind == "percent":
            return self._percent(cell)
        if self.kind == "number":
            value, unit = _measure(cell) or (np.nan, "")
            if unit and _one(unit) != _one(self.unit):
                others = f"the others are in {self.unit}" if self.unit else "the others have no unit"
                raise CellError(f'"{cell}": {others}', "use one unit, or none, in the whole column")
        else:
            value = _plain(cell)
        if not np.isfinite(value):
            if _DATE.fullmatch(cell):
                raise CellError(f'"{cell}" is a date', "format the column as text, and write the value again")
            raise CellError(f'"{cell}" is not a finite number', "write a number")
        if self.kind == "share" and not 0 <= value <= 1:
            raise CellError(f"{cell} is not within 0 to 1", "write a share, or a percentage in the whole column")
        if self.kind == "number":
            span = self.high - self.low
            value = min(max((value - self.low) / span, 0.0), 1.0) if span else 0.5
        return float(value)

    def show(self, values: Sequence[float]) -> str:
        """Values, one an attribute, as a cell that a person would write."""
        if self.kind == "ignored":
            return ""
        if self.kind == "categories":
            return "; ".join(s for s, v in zip(self.steps, values, strict=True) if v >= 0.5)
        value = (1 - values[0] + values[1]) / 2 if self.ends else float(values[0])
        if self.kind in ("yes/no", "marks"):
            return "yes" if value >= 0.5 else "no"
        if self.kind == "scale":
            return self.steps[round(min(max(value, 0.0), 1.0) * (len(self.steps) - 1))]
        if self.kind == "percent":
            return f"{100 * value:.6g}%"
        if self.kind == "number":
            return f"{self.low + value * (self.high - self.low):.6g} {self.unit}".rstrip()
        return f"{value:.6g}"

    def describe(self) -> str:
        """What was understood, without the name: ``numbers 12 to 300``."""
        shown = ", ".join(self.steps[:4]) + (", ..." if len(self.steps) > 4 else "")
        text = {
            "as is": "numbers, taken as they stand",
            "yes/no": "yes or no",
            "marks": "marked or blank; blank is no",
            "share": "shares, 0 to 1",
            "percent": "percent, 0% to 100%",
            "scale": " < ".join(self.steps),
            "number": f"numbers, {self.low:g} to {self.high:g} {self.unit}".rstrip(),
            "categories": f"{len(self.steps)} values ({shown})" + (", several a cell" if self.several else ""),
            "ignored": "not used",
        }[self.kind]
        return text + (f"; {self.blanks} blank" if self.blanks and self.kind != "ignored" else "")

    def _flag(self, cell: str) -> float:
        word = cell.casefold()
        if word in YES_WORDS:
            return 1.0
        if word in NO_WORDS:
            return 0.0
        near = nearest(cell, ["yes", "no", "true", "false", "present", "absent"])
        raise CellError(f'"{cell}" is neither yes nor no', f'did you mean "{near}"?' if near else "yes, no, or blank")

    def _step(self, cell: str) -> float:
        words = [fold(step) for step in self.steps]
        word = fold(cell)
        word = word if word in words else SYNONYMS.get(word, word)
        if word not in words:
            near = nearest(cell, self.steps)
            hint = f'did you mean "{near}"?' if near else "one of these words, or blank"
            raise CellError(f'"{cell}" is none of {" < ".join(self.steps)}', hint)
        return words.index(word) / (len(words) - 1)

    def _percent(self, cell: str) -> float:
        value = _plain(cell.removesuffix("%").rstrip())
        if not 0 <= value <= 100:
            raise CellError(f'"{cell}" is not a percentage', "write 0% to 100%")
        if self.unit != "%" and not cell.endswith("%") and 0 < value <= 1:
            raise CellError(
                f'"{cell}" among percentages: a share or a percentage?', f"write {100 * value:g}%, or {cell}%"
            )
        return value / 100

    def _values(self, cell: str) -> list[float]:
        known = {fold(step): i for i, step in enumerate(self.steps)}
        values = [0.0] * len(self.steps)
        for part in _parts(cell):
            if fold(part) not in known:
                near = nearest(part, self.steps)
                hint = f'did you mean "{near}"?' if near else f"one of {', '.join(self.steps[:6])}"
                raise CellError(f'"{part}" is no value of this column', hint)
            values[known[fold(part)]] = 1.0
        return values


@dataclass(frozen=True)
class Encoding:
    """The columns of a class spreadsheet, in order: from a row of text to K attribute values and back."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The K attributes."""
        return tuple(name for column in self.columns for name in column.attributes)

    @property
    def as_it_stands(self) -> bool:
        """Whether every column was taken as it stands, so that there is nothing to encode."""
        return all(column.kind in ("as is", "ignored") for column in self.columns)

    def encode(self, row: Mapping[str, object]) -> np.ndarray:
        """The attributes of a class, by the rules that the spreadsheet's own rows were read with.

        Args:
            row: cells by column: text, numbers, true or false, lists of values, ``None`` for unknown. Columns left out
                are unknown. An attribute's own name (``color::red``) may stand for a column, with its value.

        Returns:
            float64 ``(K,)``; a number beyond the table's least and greatest counts as the nearer of them.

        Raises:
            DataError: an unknown column or word, with the nearest one; or nothing is known.
        """
        own = {column.name: column for column in self.columns}
        folded = {fold(name): name for name in own}
        given: dict[str, object] = {}
        direct: dict[str, object] = {}
        for key, cell in row.items():
            name = key if key in own else folded.get(fold(key))
            if name is not None:
                given[name] = cell
            elif key in self.names:
                direct[key] = cell
            else:
                near = nearest(key, [*own, *self.names])
                hint = f'did you mean "{near}"?' if near else f"columns are {', '.join(list(own)[:6])}"
                raise DataError(f'no column "{key}"', hint=hint)
        known = False
        values: list[float] = []
        for column in self.columns:
            cell = given.get(column.name)
            if isinstance(cell, bool) and column.kind in ("as is", "share", "number", "percent"):
                cell = int(cell)
            where = f'column "{column.name}"'
            try:
                found = column.read(as_text(cell))
            except CellError as error:
                raise DataError(error.what, where=where, hint=error.hint) from None
            named = {a: _plain(as_text(direct[a])) for a in column.attributes if a in direct}
            for attribute, value in named.items():
                if not np.isfinite(value):
                    raise DataError("not a finite number", where=f'attribute "{attribute}"', hint="write a number")
            if named:
                given_one = next(iter(named.values()))
                rest = found or ([1 - given_one] * 2 if column.ends else [0.0] * len(column.attributes))
                found = [named.get(a, v) for a, v in zip(column.attributes, rest, strict=True)]
            known |= bool(found) and (column.kind != "marks" or as_text(cell) != "" or bool(named))
            values += found if found is not None else column.fill
        if not known:
            raise DataError("nothing is known of the class", hint="give it at least one attribute")
        return np.array(values)

    def reading(self, name: str, cell: object) -> dict[str, float]:
        """Attributes and their values of one cell, its column or an attribute of it being named; as :meth:`encode`."""
        values = dict(zip(self.names, self.encode({name: cell}), strict=True))
        column = next(c for c in self.columns if fold(c.name) == fold(name) or name in c.attributes)
        return {attribute: float(values[attribute]) for attribute in column.attributes}

    def decode(self, values: Sequence[float] | np.ndarray) -> dict[str, str]:
        """K values as readable cells by column; categories are those of 0.5 and more."""
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (len(self.names),):
            raise DataError(f"{values.size} values", hint=f"give {len(self.names)}")
        found, at = {}, 0
        for column in self.columns:
            if column.kind != "ignored":
                count = len(column.attributes)
                found[column.name] = column.show(values[at : at + count].tolist())
                at += count
        return found

    def describe(self) -> list[str]:
        """A line a column: what was understood."""
        return [f"{column.name}: {column.describe()}" for column in self.columns]

    def to_json(self) -> dict[str, Any]:
        """For ``encoding.json``."""
        return {"format": 1, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, value: Any, where: object = "encoding.json") -> Encoding:
        """What :meth:`to_json` gave.

        Raises:
            DataError: it is something else.
        """
        try:
            if value["format"] != 1:
                raise DataError("an encoding of another version", where=where, hint="use the version that wrote it")
            columns = tuple(_column(entry) for entry in value["columns"])
        except (KeyError, TypeError, ValueError):
            raise DataError("not an encoding", where=where, hint="train again") from None
        return cls(columns)


def _column(entry: dict[str, Any]) -> Column:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    column = Column(**fields)
    texts = (column.name, column.kind, column.unit, column.why, *column.steps)
    if not all(isinstance(text, str) for text in texts) or column.kind not in KINDS:
        raise ValueError
    if len(column.fill) != len(column.attributes) or not np.isfinite([*column.fill, column.low, column.high]).all():
        raise ValueError
    if column.kind == "scale" and len(column.steps) < 2:
        raise ValueError
    return column


@dataclass(frozen=True)
class Understood:
    """What became of a spreadsheet: encoding, attributes, float64 ``(N, K)`` values, and what is to be said of it."""

    encoding: Encoding
    attributes: Attributes | None
    values: np.ndarray
    errors: tuple[DataError, ...]
    notes: tuple[str, ...]


def understand(
    frame: pd.DataFrame, names: Sequence[str], path: Path, about: tuple[pd.DataFrame, Path] | None = None
) -> Understood:
    """Find out what the attribute columns hold and bring them to numbers.

    Args:
        frame: the table as text, N rows.
        names: its attribute columns.
        path: its file, for errors.
        about: ``attributes.csv`` as text, and its file: attribute (a column, or ``column::value``), and optionally
            group, part, scale, description.

    Returns:
        All that is wrong is in ``errors``, by row; cells in error are taken for blank. ``attributes`` is ``None`` if no
        column can be used.
    """
    errors: list[DataError] = []
    hints = _hints(about, frame, names, errors)
    columns = [hints.get(name) or _guess(name, list(frame[name])) for name in names]
    columns = _settle(columns, frame, [name in hints for name in names])
    finished, blocks, wrong = [], [], []
    for column in columns:
        block, problems = _read_column(column, list(frame[column.name]))
        wrong += [(row, column.name, problem) for row, problem in problems]
        known = np.isfinite(block).all(axis=1)
        mean = block[known].mean(axis=0) if known.any() else np.zeros(block.shape[1])
        blank = [] if column.kind == "marks" else [c for c in frame[column.name] if c.casefold() in BLANK]
        block[~known] = mean
        finished.append(replace(column, fill=tuple(mean.tolist()), blanks=len(blank)))
        blocks.append(block)
    order = {name: i for i, name in enumerate(names)}
    for row, name, problem in sorted(wrong, key=lambda found: (found[0], order[found[1]])):
        errors.append(DataError(problem.what, where=place(path, row, name), hint=problem.hint))
    encoding = Encoding(tuple(finished))
    used = [c.name for c in finished if c.kind not in ("ignored", "marks")]
    if used and not any(c.kind == "marks" for c in finished):
        empty = np.flatnonzero(frame[used].apply(lambda s: s.str.casefold().isin(BLANK)).all(axis=1))
        hint = "fill in what is known of it, or remove the row"
        errors += [DataError("every attribute is blank", where=place(path, int(row)), hint=hint) for row in empty]
    attributes = _attributes(encoding, about, errors)
    values = np.hstack(blocks) if blocks else np.empty((len(frame), 0))
    return Understood(encoding, attributes, values, tuple(errors), _notes(finished))


def _notes(columns: Iterable[Column]) -> tuple[str, ...]:
    columns = list(columns)
    notes = [f'column "{c.name}" is not used: {c.why}' for c in columns if c.why]
    filled = [c for c in columns if c.blanks and c.kind != "ignored"]
    if filled:
        most = ", ".join(f'"{c.name}" {c.blanks}' for c in sorted(filled, key=lambda c: -c.blanks)[:3])
        count = sum(c.blanks for c in filled)
        verb = "cell got its column's mean" if count == 1 else "cells got their columns' means"
        notes.append(f"{count} blank {verb} ({most}{', ...' if len(filled) > 3 else ''})")
    return tuple(notes)


def _plain(cell: str) -> float:
    """A plain number, else NaN; read as the strict tables are."""
    return float(to_numbers([cell])[0])


def _measure(cell: str) -> tuple[float, str] | None:
    """``12``, ``12 mm`` or ``12-15 mm``: the number, or the middle of the two, and the unit."""
    found = _MEASURE.fullmatch(cell)
    if not found:
        return None
    low = float(found[1])
    return (low if found[2] is None else (low + float(found[2])) / 2), found[3] or ""


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in _SEVERAL.split(cell) if part.strip()]


def _read_column(column: Column, cells: list[str]) -> tuple[np.ndarray, list[tuple[int, CellError]]]:
    """Values ``(rows, attributes)``, NaN where a cell is blank or wrong; and what is wrong, by row."""
    block = np.full((len(cells), len(column.attributes)), np.nan)
    if column.kind == "as is":
        block[:, 0] = to_numbers(cells)
        block[~np.isfinite(block)] = np.nan
    wrong = []
    known: dict[str, list[float] | None] = {}
    for row, cell in enumerate(cells):
        if column.kind == "as is" and np.isfinite(block[row, 0]):
            continue
        try:
            if cell not in known:
                known[cell] = column.read(cell)
            values = known[cell]
            if values is not None:
                block[row] = values
        except CellError as error:
            wrong.append((row, error))
    return block, wrong


# what a column holds


def _guess(name: str, cells: list[str]) -> Column:
    """What a column holds, by its cells alone; numbers are settled later, together with the other columns."""
    filled = [cell for cell in cells if cell.casefold() not in BLANK]
    if not filled:
        return Column(name, "ignored", why="it is blank")
    words = [cell.casefold() for cell in filled]
    if set(words) <= MARKS and len(filled) < len(cells):
        return Column(name, "marks")
    flags = sum(word in YES_WORDS | NO_WORDS for word in words)
    if flags == len(words) and not set(words) <= {"1", "1.0", "0", "0.0"}:
        return Column(name, "yes/no")
    numeric = sum(cell.endswith("%") or _measure(cell) is not None for cell in filled)
    if 2 * numeric >= len(filled):
        return _numbers(name, filled)
    known, steps = _scale(filled)
    if known < 1 and flags >= 0.6 * len(words) and len(set(words) & PLAIN_FLAGS) > 1:
        return Column(name, "yes/no")
    return Column(name, "scale", steps) if steps else _categories(name, filled, rows=len(cells))


def _one(unit: str) -> str:
    """A unit without its plural: day, days."""
    return fold(unit).removesuffix("s")


def _numbers(name: str, filled: list[str]) -> Column:
    """Numbers or percentages, with their ends and unit."""
    signs = any(cell.endswith("%") for cell in filled)
    found = [m for m in map(_measure, filled) if m is not None]
    values = [value for value, _ in found]
    if signs:
        return Column(name, "percent")
    if values and ("%" in name or "percent" in name.casefold()) and 1 < max(values) <= 100:
        return Column(name, "percent", unit="%")
    if not values:
        return Column(name, "number")
    units = [_one(unit) for _, unit in found]
    unit = max(dict.fromkeys(units), key=units.count)
    return Column(name, "number", low=min(values), high=max(values), unit=unit)


def _scale(filled: list[str]) -> tuple[float, tuple[str, ...]]:
    """The smallest known scale that the words are of, slips of the pen apart, and which share of them it has."""
    best: tuple[float, tuple[str, ...]] = (0.0, ())
    words = [fold(cell) for cell in filled]
    for steps in SCALES:
        own = [w if w in steps else SYNONYMS.get(w, w) for w in words]
        known = sum(w in steps for w in own) / len(own)
        slips = all(w in steps or nearest(w, steps) for w in own)
        fits = known >= 0.6 and slips
        if len(set(own) & set(steps)) >= 2 and fits and (known, -len(steps)) > (best[0], -len(best[1])):
            best = (known, steps)
    return best


def _categories(name: str, filled: list[str], rows: int = 0) -> Column:
    """Categories; or free text that is not used, if it is asked about with the number of ``rows``."""
    spelling: dict[str, str] = {}
    count: dict[str, int] = {}
    for cell in filled:
        for key, part in {fold(p): p for p in _parts(cell)}.items():
            spelling.setdefault(key, part)
            count[key] = count.get(key, 0) + 1
    long = sum(map(len, filled)) > 40 * len(filled)
    if rows and max(count.values(), default=1) == 1 and (long or len(filled) >= max(8, 0.5 * rows)):
        return Column(name, "ignored", why='no two rows share a value (scale "categories" in attributes would use it)')
    several = any(len(_parts(cell)) > 1 for cell in filled)
    return Column(name, "categories", tuple(spelling[key] for key in sorted(spelling)), several=several)


def _settle(columns: list[Column], frame: pd.DataFrame, fixed: list[bool]) -> list[Column]:
    """Numbers as they stand where the whole table is plain numbers in one unit, else each column in 0..1."""
    loose = [c.kind == "number" and not f for c, f in zip(columns, fixed, strict=True)]
    numeric = [c for c, free in zip(columns, loose, strict=True) if free]
    only = all(free or c.kind in ("as is", "ignored") for c, free in zip(columns, loose, strict=True))
    if not numeric:
        return columns
    values = np.stack([to_numbers(frame[c.name]) for c in numeric], axis=1)
    values[~np.isfinite(values)] = np.nan
    sound = [all(_measure(cell) or cell.casefold() in BLANK for cell in frame[c.name]) for c in numeric]
    plain = only and not any(c.unit for c in numeric) and not _ranges({cell for c in numeric for cell in frame[c.name]})
    if plain and one_unit(values[:, sound]):
        return [
            replace(c, kind="as is", low=0.0, high=1.0) if free else c for c, free in zip(columns, loose, strict=True)
        ]
    wrong = {c.name for c, ok in zip(numeric, sound, strict=True) if not ok}
    return [
        _own_range(c, frame[c.name]) if free and c.name not in wrong else c
        for c, free in zip(columns, loose, strict=True)
    ]


def _ranges(cells: Iterable[str]) -> bool:
    """Whether some cell is a range or has a unit."""
    return any(_measure(cell) is not None for cell in cells if np.isnan(_plain(cell)))


def one_unit(values: np.ndarray) -> bool:
    """Whether columns ``(N, K)`` of numbers can be of one unit, so that they may be compared as they stand.

    They cannot if some hold only 0 and 1 and others go beyond 5 (the end of many ratings), nor if some go beyond
    100 and to ten times others.
    """
    size = np.where(np.isfinite(values), np.abs(values), 0).max(axis=0, initial=0)
    flag = (~np.isfinite(values) | (values == 0) | (values == 1)).all(axis=0) & (size == 1)
    size = size[size > 0]
    if not len(size):
        return True
    if flag.any() and size.max() > 5:
        return False
    return bool(size.max() <= 100 or 10 * size.min() >= size.max())


def _own_range(column: Column, cells: Iterable[str]) -> Column:
    if column.unit or _ranges(cells):
        return column
    if {column.low, column.high} <= {0.0, 1.0}:
        values = {value for value in to_numbers(cells).tolist() if not math.isnan(value)}
        return replace(column, kind="yes/no" if values <= {0.0, 1.0} else "share", low=0.0, high=1.0)
    if column.low >= 0 and column.high <= 1:
        return replace(column, kind="share", low=0.0, high=1.0)
    return column


# attributes.csv


def _hints(
    about: tuple[pd.DataFrame, Path] | None, table: pd.DataFrame, names: Sequence[str], errors: list[DataError]
) -> dict[str, Column]:
    """Columns whose scale the person has said."""
    if about is None or "scale" not in about[0]:
        return {}
    frame, path = about
    hints = {}
    for row, (name, text) in enumerate(zip(frame["attribute"], frame["scale"], strict=True)):
        if not text or (name not in names and name.split(SEPARATOR)[0] not in names):
            continue  # an unknown one is told of by _attributes
        try:
            if name not in names:
                raise CellError(f'"{name}" is one value of a column', "give the column a scale")
            hints[name] = parse_scale(name, text, list(table[name]))
        except CellError as error:
            errors.append(DataError(error.what, where=place(path, row, "scale"), hint=error.hint))
    return hints


def parse_scale(name: str, text: str, cells: Sequence[str]) -> Column:
    """The column that the ``scale`` cell of ``attributes.csv`` describes.

    Args:
        name: the column.
        text: such as ``low<medium<high``, ``percent`` or ``0..50``.
        cells: what is in it, for the ends of numbers and the values of categories.

    Raises:
        CellError: no such scale.
    """
    if "<" in text:
        steps = tuple(step.strip() for step in text.split("<"))
        if not all(steps) or len({fold(step) for step in steps}) < len(steps):
            raise CellError(f'"{text}" is not an order of words', "such as low<medium<high")
        return Column(name, "scale", steps)
    ends = _ENDS.fullmatch(text.replace(" ", ""))
    if ends:
        low, high = float(ends[1]), float(ends[2])
        if not low < high:
            raise CellError(f'"{text}" goes nowhere', "write the smaller number first")
        return replace(_numbers(name, list(cells)), kind="number", low=low, high=high)
    filled = [cell for cell in cells if cell.casefold() not in BLANK]
    word = fold(text)
    if word in ("number", "numbers"):
        return replace(_numbers(name, [c for c in filled if not c.endswith("%")]), kind="number")
    if word in ("categories", "category"):
        return _categories(name, filled)
    if word in ("percent", "%"):
        return Column(name, "percent", unit="" if any(cell.endswith("%") for cell in filled) else "%")
    if word in ("ignore", "ignored"):
        return Column(name, "ignored")
    if word in ("yes/no", "share", "as is"):
        return Column(name, word)
    raise CellError(f'unknown scale "{text}"', f"one of {SCALE_HINT}")


def _attributes(
    encoding: Encoding, about: tuple[pd.DataFrame, Path] | None, errors: list[DataError]
) -> Attributes | None:
    """The attributes with groups and parts; a table of plain numbers must be described whole or not at all."""
    names = encoding.names
    groups = {a: a.split(SEPARATOR)[0] if c.kind == "as is" else c.name for c in encoding.columns for a in c.attributes}
    parts = dict.fromkeys(names, "")
    if about is not None:
        frame, path = about
        errors += repeats(frame, "attribute", path)
        of = {c.name: c.attributes for c in encoding.columns} | {name: (name,) for name in names}
        rows = list(enumerate(frame["attribute"]))
        told = {name for _, name in rows}
        if all_plain(encoding):
            errors += [
                DataError(f'attribute "{name}" of the class table is missing', where=path, hint="add a row for it")
                for name in names
                if name not in told
            ]
        for row, name in sorted(rows, key=lambda found: len(of.get(found[1], ())), reverse=True):  # columns first
            if name and name not in of:
                near = nearest(name, list(of))
                hint = f'remove it, or did you mean "{near}"?' if near else "remove it"
                where = place(path, row, "attribute")
                errors.append(DataError(f'the class table has no column "{name}"', where=where, hint=hint))
            for attribute in of.get(name, ()):
                if "group" in frame and (frame["group"].iloc[row] or all_plain(encoding)):
                    groups[attribute] = frame["group"].iloc[row]
                if "part" in frame and frame["part"].iloc[row]:
                    parts[attribute] = frame["part"].iloc[row]
    if not names:
        return None
    try:
        return Attributes(names, tuple(groups[n] for n in names), tuple(parts[n] for n in names))
    except DataError as error:
        errors.append(error)
        return None


def all_plain(encoding: Encoding) -> bool:
    """Whether the table is plain numbers, taken as they stand."""
    return all(column.kind in ("as is", "ignored") for column in encoding.columns)
