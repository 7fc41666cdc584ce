"""How the columns of a person's spreadsheet become numeric attributes, for the classes in it and for later ones.

A table of plain numbers or percentages that share one range is taken as it stands. Otherwise every column is brought
to 0..1 by what it holds. Scales and numbers then become two attributes, the value and what it lacks of 1
(``size::large`` and ``size::small``): methods compare directions, in which a zero says nothing, so that small must be
as much of an attribute as large. Percentages, shares and yes/no are one attribute with a value.

=========== =============================================================================================
yes/no      1 and 0; also x or a tick, where a blank cell is no if the column holds nothing else
share       numbers within 0..1, as they are
percent     ``80%`` is 0.8
scale       words in an order, lowest first, evenly spaced: low 0, medium 0.5, high 1
number      from the least to the greatest of the table: ``12 mm``, and ``12-15`` for its middle; where the person
            says so on a log scale, for what spans orders of magnitude
categories  any other words: an attribute ``column::value`` each; several in a cell by ``;``, ``|`` or ``,``
=========== =============================================================================================

A blank cell or a word for "not known" gets the mean of its column over the training classes. The spacing of scales,
the ends of numbers and the mean are our choices. How numbers are written is in
:mod:`unseen.classes.spreadsheets.numbers`, how a table is understood in
:mod:`unseen.classes.spreadsheets.understanding`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from unseen.classes.spreadsheets.cells import as_text, fold, nearest
from unseen.classes.spreadsheets.numbers import COMMA, DASHES, Sign, is_missing, measure, plain_number, same_unit
from unseen.classes.spreadsheets.values import to_numbers
from unseen.classes.table import SEPARATOR
from unseen.errors import DataError

YES_WORDS = {"yes", "y", "true", "present", "x", "✓", "✔", "☑", "+", "1", "1.0"}
NO_WORDS = {"no", "n", "false", "absent", "✗", "✘", "☐", *DASHES, "0", "0.0"}
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
Kind = Literal["as is", "yes/no", "marks", "share", "percent", "scale", "number", "categories", "ignored"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FLAGS = ("yes/no", "marks")
DATE = re.compile(r"\d{4}-\d\d-\d\d.*|\d\d:\d\d(:\d\d.*)?")
"""How a workbook's dates and times read as text."""


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
        log: of a number: whether the way between them is that of its logarithm.
        unit: of a number: what stands behind it in the cells; ``%`` of numbers that are percentages without saying so.
        decimal: the decimal sign of its numbers, ``.`` or ``,``; empty where none has any.
        least, greatest: of numbers: the smallest and the largest as read.
        fill: what a blank cell stands for, a value an attribute.
        blanks: how many cells were blank or said that nothing is known.
        missing: its own words for "not known", casefolded.
        dash: whether a dash says no, as among plus signs and ticks.
        both: of yes/no: whether "no" is an attribute of its own.
        several: whether some cell had several values.
        why: of an ignored one, if nobody asked for it.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    kind: Kind
    steps: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    unit: str = ""
    decimal: Sign = ""
    least: float = 0.0
    greatest: float = 1.0
    fill: tuple[float, ...] = ()
    blanks: int = 0
    missing: tuple[str, ...] = ()
    dash: bool = False
    both: bool = False
    several: bool = False
    why: str = ""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of its attributes."""
        if self.kind == "ignored":
            return ()
        steps = self.ends or (self.steps if self.kind == "categories" else ())
        return tuple(f"{self.name}{SEPARATOR}{step}" for step in steps) if steps else (self.name,)

    @property
    def ends(self) -> tuple[str, ...]:
        """What the two attributes of a column are called, the lower first; empty where it has not two."""
        if self.kind == "scale":
            return self.steps[0], self.steps[-1]
        if self.kind == "number":
            return "low", "high"
        return ("no", "yes") if self.kind in FLAGS and self.both else ()

    def is_blank(self, cell: str) -> bool:
        """Whether a cell is empty or says that nothing is known."""
        return is_missing(cell, self.missing) and not (self.dash and cell.strip() in DASHES)

    def read(self, cell: str) -> list[float] | None:
        """A cell as values, one an attribute; ``None`` if it is blank, that is unknown.

        Raises:
            CellError: it is not what the column holds.
        """
        if self.kind == "ignored":
            return []
        if self.is_blank(cell):
            if self.kind != "marks":
                return None
            value = 0.0
        elif self.kind == "categories":
            return self._values(cell)
        else:
            value = self._value(cell)
        return [1 - value, value] if self.ends else [value]

    def _value(self, cell: str) -> float:
        if self.kind in FLAGS:
            return self._flag(cell)
        if self.kind == "scale":
            return self._step(cell)
        value, unit = self._measure(cell)
        if self.kind == "percent" or (self.kind, self.unit) == ("as is", "%"):
            return self._percent(cell, value, unit) / (100 if self.kind == "percent" else 1)
        if self.kind == "share" and unit == "%":
            value, unit = value / 100, ""
        if unit and not same_unit(unit, self.unit):
            others = f"the others are in {self.unit}" if self.unit else "the others have no unit"
            raise CellError(f'"{cell}": {others}', "use one unit in the whole column, or none")
        if self.kind == "share" and not 0 <= value <= 1:
            raise CellError(f"{cell} is not between 0 and 1", "use fractions in the whole column, or percentages")
        if self.kind == "number":
            value = self._share(cell, value)
        return float(value)

    def _share(self, cell: str, value: float) -> float:
        """How far a number lies on the way from low, 0, to high, 1."""
        low, high = self.low, self.high
        if self.log:
            if value <= 0:
                raise CellError(f"{cell} cannot be on a log scale", 'use a number above 0, or the scale "number"')
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def _measure(self, cell: str) -> tuple[float, str]:
        """The number and the unit of a cell, in the column's notation."""
        found = measure(cell, self.decimal)
        if found is not None and np.isfinite(found[0]):
            return found
        if self.decimal and measure(cell) is not None:
            sign = {".": "point", ",": "comma"}[self.decimal]
            raise CellError(
                f'"{cell}": the other cells have a decimal {sign}', "use one number format in the whole column"
            )
        if DATE.fullmatch(cell):
            raise CellError(f'"{cell}" is a date', "format the column as text and enter the value again")
        raise CellError(f'"{cell}" is not a finite number', "enter a number, or leave the cell blank")

    def show(self, values: Sequence[float]) -> str:
        """Values, one an attribute, as a cell that a person would write."""
        if self.kind == "ignored":
            return ""
        if self.kind == "categories":
            return "; ".join(s for s, v in zip(self.steps, values, strict=True) if v >= 0.5)
        value = (1 - values[0] + values[1]) / 2 if self.ends else float(values[0])
        if self.kind in FLAGS:
            return "yes" if value >= 0.5 else "no"
        if self.kind == "scale":
            return self.steps[round(min(max(value, 0.0), 1.0) * (len(self.steps) - 1))]
        if self.kind == "percent":
            return self.written(100 * value) + "%"
        if self.kind == "number":
            span = (self.high / self.low) ** value * self.low if self.log else self.low + value * (self.high - self.low)
            return f"{self.written(span)} {self.unit}".rstrip()
        return self.written(value) + self.unit

    def written(self, value: float) -> str:
        """A number to six digits in the column's notation."""
        return f"{value:.6g}".replace(".", self.decimal or ".")

    def describe(self) -> str:
        """What was understood, without the name: ``numbers, 12 to 300``."""
        shown = ", ".join(self.steps[:4]) + (", ..." if len(self.steps) > 4 else "")
        sign = "%" if self.unit == "%" or self.kind == "percent" else ""
        unit = "" if sign or not self.unit else f" {self.unit}"
        seen = f"{self.least:.6g}{sign} to {self.greatest:.6g}{sign}{unit}"
        scaled = (
            "" if (self.low, self.high) == (self.least, self.greatest) else f", 0 at {self.low:g}, 1 at {self.high:g}"
        )
        text = {
            "as is": f"{'percent' if sign else 'numbers'}, used as they are: {seen}",
            "yes/no": "yes or no",
            "marks": "mark or blank; blank means no",
            "share": f"fractions: {seen}",
            "percent": f"percent: {seen}",
            "scale": " < ".join(self.steps),
            "number": f"numbers{' on a log scale' if self.log else ''}, {seen}{scaled}",
            "categories": f"{len(self.steps)} values ({shown})" + (", several per cell" if self.several else ""),
            "ignored": "not used",
        }[self.kind]
        return text + (f"; {self.blanks} blank" if self.blanks and self.kind != "ignored" else "")

    def _flag(self, cell: str) -> float:
        word = cell.casefold()
        if word in YES_WORDS:
            return 1.0
        if word in NO_WORDS:
            return 0.0
        share = plain_number(cell.removesuffix("%"), self.decimal) / (100 if cell.endswith("%") else 1)
        if 0 <= share <= 1:
            return share
        near = nearest(cell, ["yes", "no", "true", "false", "present", "absent"])
        raise CellError(
            f'"{cell}" is not yes or no', f'did you mean "{near}"?' if near else "use yes, no, or leave it blank"
        )

    def _step(self, cell: str) -> float:
        words = [fold(step) for step in self.steps]
        word = fold(cell)
        word = word if word in words else SYNONYMS.get(word, word)
        if word not in words:
            near = nearest(cell, self.steps)
            hint = f'did you mean "{near}"?' if near else "use one of these words, or leave it blank"
            raise CellError(f'"{cell}" is not one of {" < ".join(self.steps)}', hint)
        return words.index(word) / (len(words) - 1)

    def _percent(self, cell: str, value: float, unit: str) -> float:
        if not 0 <= value <= 100 or unit not in ("", "%"):
            raise CellError(f'"{cell}" is not a percentage', "use 0% to 100%")
        if self.unit != "%" and not unit and 0 < value <= 1:
            raise CellError(
                f'"{cell}" among percentages: is it a fraction or a percentage?', f"use {100 * value:g}%, or {cell}%"
            )
        return value

    def _values(self, cell: str) -> list[float]:
        known = {fold(step): i for i, step in enumerate(self.steps)}
        values = [0.0] * len(self.steps)
        for part in parts_of(cell):
            if fold(part) not in known:
                near = nearest(part, self.steps)
                hint = f'did you mean "{near}"?' if near else f"use one of {', '.join(self.steps[:6])}"
                raise CellError(f'"{part}" is not a value of this column', hint)
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
                text = as_text(cell)
                if isinstance(cell, int | float | np.number) and column.decimal:
                    text = text.replace(".", column.decimal)
                found = column.read(text)
            except CellError as error:
                raise DataError(error.what, where=where, hint=error.hint) from None
            named = {a: plain_number(as_text(direct[a])) for a in column.attributes if a in direct}
            for attribute, value in named.items():
                if not np.isfinite(value):
                    raise DataError("not a finite number", where=f'attribute "{attribute}"', hint="use a number")
            if named:
                given_one = next(iter(named.values()))
                rest = found or ([1 - given_one] * 2 if column.ends else [0.0] * len(column.attributes))
                found = [named.get(a, v) for a, v in zip(column.attributes, rest, strict=True)]
            known |= bool(found) and (column.kind != "marks" or as_text(cell) != "" or bool(named))
            values += found if found is not None else column.fill
        if not known:
            raise DataError("the class has no attribute values", hint="set at least one attribute")
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
            raise DataError(f"{values.size} values", hint=f"pass {len(self.names)} values")
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
        return {"format": 2, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, value: Any, where: object = "encoding.json") -> Encoding:
        """What :meth:`to_json` gave.

        Raises:
            DataError: it is something else.
        """
        from unseen.ground.checked import checked

        stored = checked(_Stored, value, where, error=DataError, hint="train again")
        for column in stored.columns:
            sound = len(column.fill) == len(column.attributes) and (column.kind != "scale" or len(column.steps) > 1)
            numbers = [*column.fill, column.low, column.high, column.least, column.greatest]
            sound &= not column.log or 0 < column.low <= column.high
            if not (sound and np.isfinite(numbers).all()):
                raise DataError(f'column "{column.name}" is damaged', where=where, hint="train again")
        return cls(stored.columns)

    def filled(self, values: np.ndarray, known: np.ndarray, rows: np.ndarray) -> tuple[Encoding, np.ndarray]:
        """Put the mean of some classes in place of what is unknown.

        Args:
            values: float64 ``(N, K)``.
            known: bool ``(N, K)``.
            rows: bool ``(N,)``, the classes whose mean it is: those of the training.

        Returns:
            The encoding that gives later classes the same means, and the values. Attributes that none of these classes
            is known to have keep the mean of all.
        """
        values, fill = values.copy(), np.array([f for column in self.columns for f in column.fill])
        use = known & rows[:, None]
        some = use.any(axis=0)
        total = np.where(use, values, 0.0).sum(axis=0)
        fill[some] = total[some] / use.sum(axis=0)[some]
        values[~known] = np.broadcast_to(fill, values.shape)[~known]
        columns, at = [], 0
        for column in self.columns:
            columns.append(replace(column, fill=tuple(fill[at : at + len(column.fill)].tolist())))
            at += len(column.fill)
        return Encoding(tuple(columns)), values


@dataclass(frozen=True)
class _Stored:
    """What ``encoding.json`` holds beside its checksum."""

    format: Literal[2]
    columns: tuple[Column, ...]


def parts_of(cell: str) -> list[str]:
    """The values of a cell with several, divided by ``;``, ``|`` or ``,`` outside brackets."""
    found, depth = [""], 0
    for letter in cell:
        depth = max(depth + (letter in "([{") - (letter in ")]}"), 0)
        if letter in ";|," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found if part.strip()]


def read_column(column: Column, cells: list[str]) -> tuple[np.ndarray, list[tuple[int, CellError]]]:
    """Values ``(rows, attributes)``, NaN where a cell is blank or wrong; and what is wrong, by row."""
    block = np.full((len(cells), len(column.attributes)), np.nan)
    if column.kind == "as is" and column.decimal != COMMA:
        block[:, 0] = to_numbers(cells)
        block[~np.isfinite(block)] = np.nan
        if column.missing:
            block[[column.is_blank(cell) for cell in cells]] = np.nan
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
