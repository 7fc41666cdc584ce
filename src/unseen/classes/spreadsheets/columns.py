"""How columns of a spreadsheet become numeric attributes, for the classes in it and for later ones.

A table of plain numbers or percentages with one common range is used as it is. Otherwise every column is scaled to 0..1
by its content. Scales and numbers become two attributes, the value and 1 minus the value (``size::large`` and
``size::small``): methods compare directions, in which a zero carries no information, so small must be an attribute like
large. Percentages, shares and yes/no become one attribute with a value.

=========== =============================================================================================
yes/no      1 and 0; also x or a tick, where a blank cell is no if the column holds nothing else
share       numbers within 0..1, as they are
percent     ``80%`` is 0.8
scale       words in an order, lowest first, evenly spaced: low 0, medium 0.5, high 1
number      from the least to the greatest of the table: ``12 mm``, and ``12-15`` for its middle; where the person
            says so on a log scale, for what spans orders of magnitude
categories  any other words: an attribute ``column::value`` each; several in a cell by ``;``, ``|`` or ``,``
=========== =============================================================================================

A blank cell or a word for "not known" gets the mean of its column over the training classes. The spacing of scales, the
range of numbers and the mean are our choices. :mod:`unseen.classes.spreadsheets.numbers` describes the notation of
numbers, :mod:`unseen.classes.spreadsheets.understanding` how a whole table is understood.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from unseen.classes.attributes import SEPARATOR
from unseen.classes.spreadsheets.cells import as_text, fold, nearest, unquoted
from unseen.classes.spreadsheets.flags import NO_WORDS, YES_WORDS
from unseen.classes.spreadsheets.numbers import (
    COMMA,
    DASHES,
    DECIMALS,
    EITHER,
    Sign,
    is_missing,
    measure,
    plain_number,
    same_unit,
    unmistakable,
)
from unseen.classes.spreadsheets.scales import are_signs, step_of
from unseen.classes.spreadsheets.values import to_numbers
from unseen.errors import DataError
from unseen.ground.words import counted

Kind = Literal["as is", "yes/no", "marks", "share", "percent", "scale", "number", "categories", "ignored"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FLAGS = ("yes/no", "marks")
_MONTH = "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
DATE = re.compile(
    rf"\d{{4}}-\d\d-\d\d.*|\d\d:\d\d(:\d\d.*)?|\d{{1,2}}\.?[ -](?:{_MONTH})\.?|(?:{_MONTH})\.?[ -]\d{{1,2}}",
    re.IGNORECASE,
)
"""Text of a workbook's dates and times, and of what a spreadsheet program makes of 1-2 in a CSV file: 02. Jan."""

_LIST = re.compile(r"[\[{]([^\[\]{}]*)[\]}]")
_AND = re.compile(r"^(?:and|und|et|&)\s+")  # of "red, blue, and white", not of "NOT gate; AND gate"


class CellError(Exception):
    """What is wrong with a cell, and how to fix it."""

    def __init__(self, what: str, hint: str) -> None:
        self.what, self.hint = what, hint


@dataclass(frozen=True)
class Column:
    """One column of the spreadsheet, and the attributes made from it.

    Args:
        name: header.
        kind: one of :data:`KINDS`.
        steps: words of a scale, lowest first, or values of categories; words for no and yes that only this column has.
        low, high: numbers that become 0 and 1.
        log: whether to interpolate between them on a log scale.
        unit: unit of the numbers in the cells; ``%`` for percentages without a percent sign.
        decimal: decimal sign of the numbers, ``.`` or ``,``; empty if none has one.
        least, greatest: smallest and largest number that was read.
        fill: values for a blank cell, one per attribute.
        blanks: number of cells that are blank or say "not known".
        missing: words of the column for "not known", casefolded.
        dash: whether a dash means no, as among plus signs and ticks.
        both: for yes/no: whether "no" is an attribute of its own.
        several: whether some cells have several values.
        why: reason why the column is ignored, if the user did not ask for it.
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
        """Names of the column's attributes."""
        if self.kind == "ignored":
            return ()
        steps = self.ends or (self.steps if self.kind == "categories" else ())
        return tuple(f"{self.name}{SEPARATOR}{step}" for step in steps) if steps else (self.name,)

    @property
    def ends(self) -> tuple[str, ...]:
        """Names of the two attributes of a column, the lower one first; empty if it does not have two."""
        if self.kind == "scale" and not are_signs(self.steps):
            return self.steps[0], self.steps[-1]
        if self.kind in ("scale", "number"):
            return "low", "high"
        return ("no", "yes") if self.kind in FLAGS and self.both else ()

    def is_blank(self, cell: str) -> bool:
        """Whether a cell is empty or says "not known"."""
        return is_missing(cell, self.missing) and not (self.dash and cell.strip() in DASHES)

    def read(self, cell: str) -> list[float] | None:
        """Values of a cell, one per attribute; ``None`` if it is blank, so unknown.

        Raises:
            CellError: the cell does not fit the column.
        """
        if self.kind == "ignored":
            return []
        if self.is_blank(cell):
            if self.kind != "marks" or cell.strip():
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
        if self.kind in ("number", "as is"):
            self._check_sign(cell, value)
        if self.kind == "number":
            value = self._share(cell, value)
        return float(value)

    def _check_sign(self, cell: str, value: float) -> None:
        """Raise CellError for a number far from the column's that is among them with the other decimal sign."""
        if self.least / 10 <= value <= 10 * self.greatest or not EITHER.search(cell):
            return
        for found in (measure(cell, sign) for sign in DECIMALS):
            if found is not None and self.least <= found[0] <= self.greatest:
                here, there = (unmistakable(way, self.decimal) for way in (found[0], value))
                raise CellError(f'"{cell}" can mean {here} or {there}', f"write {here} or {there}")

    def _share(self, cell: str, value: float) -> float:
        """Position of a number between low, 0, and high, 1."""
        low, high = self.low, self.high
        if self.log:
            if value <= 0:
                raise CellError(f"{cell} cannot be on a log scale", 'use a number above 0, or the scale "number"')
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def _measure(self, cell: str) -> tuple[float, str]:
        """Number and unit of a cell, in the column's notation."""
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

    def text(self, cell: object) -> str:
        """A cell of any type in the column's notation."""
        text = unquoted(as_text(cell))
        return text.replace(".", self.decimal or ".") if isinstance(cell, int | float | np.number) else text

    def beyond(self, cell: object) -> str:
        """A note if a number is beyond the ends of the column; else empty."""
        cell = self.text(cell)
        found = None if self.kind != "number" or self.is_blank(cell) else measure(cell, self.decimal)
        if found is None or self.low <= found[0] <= self.high:
            return ""
        low, high = (f"{self.written(end)} {self.unit}".rstrip() for end in (self.low, self.high))
        return f"{self.name} {cell} is beyond the range of the table, {low} to {high}, and counts as its end"

    def show(self, values: Sequence[float]) -> str:
        """Values, one per attribute, as a cell in a person's notation."""
        if self.kind == "ignored":
            return ""
        if self.kind == "categories":
            return "; ".join(s for s, v in zip(self.steps, values, strict=True) if v >= 0.5)
        value = (1 - values[0] + values[1]) / 2 if self.ends else float(values[0])
        if self.kind in FLAGS:
            return (self.steps or ("no", "yes"))[value >= 0.5]
        if self.kind == "scale":
            return self.steps[round(min(max(value, 0.0), 1.0) * (len(self.steps) - 1))]
        if self.kind == "percent":
            return self.written(100 * value) + "%"
        if self.kind == "number":
            span = (self.high / self.low) ** value * self.low if self.log else self.low + value * (self.high - self.low)
            return f"{self.written(span)} {self.unit}".rstrip()
        return self.written(value) + self.unit

    def written(self, value: float) -> str:
        """A number with six digits in the column's notation."""
        return f"{value:.6g}".replace(".", self.decimal or ".")

    def describe(self) -> str:
        """How the column was understood, without the name: ``numbers, 12 to 300``."""
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
            "categories": f"{len(self.steps)} value{'s' * (len(self.steps) != 1)} ({shown})"
            + (", several per cell" if self.several else ""),
            "ignored": "not used",
        }[self.kind]
        return text + (f"; {self.blanks} blank" if self.blanks and self.kind != "ignored" else "")

    def _flag(self, cell: str) -> float:
        word = cell.casefold()
        if word in self.steps:
            return float(self.steps.index(word))
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
        found = step_of(cell, self.steps)
        if found is None:
            near = nearest(cell, self.steps)
            hint = f'did you mean "{near}"?' if near else "use one of these words, or leave it blank"
            raise CellError(f'"{cell}" is not one of {" < ".join(self.steps)}', hint)
        return found / (len(self.steps) - 1)

    def _percent(self, cell: str, value: float, unit: str) -> float:
        if not 0 <= value <= 100 or unit not in ("", "%"):
            raise CellError(f'"{cell}" is not a percentage', "use 0% to 100%")
        if (self.unit != "%" or self.least > 1) and not unit and 0 < value <= 1:
            raise CellError(
                f'"{cell}" among percentages: is it a fraction or a percentage?', f"use {100 * value:g}%, or {cell}%"
            )
        return value

    def parts(self, cell: str) -> list[str]:
        """Values of a cell of categories, without those that say "not known" beside others."""
        return [part for part in parts_of(cell) if not is_missing(part, self.missing)]

    def _values(self, cell: str) -> list[float] | None:
        known = {fold(step): i for i, step in enumerate(self.steps)}
        values = [0.0] * len(self.steps)
        parts = self.parts(cell)
        if not parts:
            return None
        for part in parts:
            if fold(part) not in known:
                near = nearest(part, self.steps)
                hint = f'did you mean "{near}"?' if near else f"use one of {', '.join(self.steps[:6])}"
                raise CellError(f'"{part}" is not a value of this column', hint)
            values[known[fold(part)]] = 1.0
        return values


@dataclass(frozen=True)
class Encoding:
    """The columns of a class spreadsheet in order; converts rows of text to K attribute values and back."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The K attributes."""
        return tuple(name for column in self.columns for name in column.attributes)

    @property
    def as_it_stands(self) -> bool:
        """Whether every column is used as it is, so that nothing needs encoding."""
        return all(column.kind in ("as is", "ignored") for column in self.columns)

    def encode(self, row: Mapping[str, object]) -> np.ndarray:
        """Attribute values of a class, by the same rules as the rows of the spreadsheet.

        Args:
            row: cells by column: text, numbers, true or false, lists of values, ``None`` for unknown. Missing columns
                are unknown. An attribute name (``color::red``) may replace a column, with its value.

        Returns:
            float64 ``(K,)``; numbers beyond the table's range are clipped to it.

        Raises:
            DataError: an unknown column or word, with the most similar one; or nothing is known.
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
                found = column.read(column.text(cell))
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
        """Attributes and values of one cell, given the name of its column or of an attribute; as in :meth:`encode`."""
        values = dict(zip(self.names, self.encode({name: cell}), strict=True))
        column = next(c for c in self.columns if fold(c.name) == fold(name) or name in c.attributes)
        return {attribute: float(values[attribute]) for attribute in column.attributes}

    def decode(self, values: Sequence[float] | np.ndarray) -> dict[str, str]:
        """K values as readable cells by column; includes categories of at least 0.5."""
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (len(self.names),):
            raise DataError(f"{counted(values.size, 'value')}", hint=f"pass {counted(len(self.names), 'value')}")
        found, at = {}, 0
        for column in self.columns:
            if column.kind != "ignored":
                count = len(column.attributes)
                found[column.name] = column.show(values[at : at + count].tolist())
                at += count
        return found

    def describe(self) -> list[str]:
        """How each column was understood, one line per column."""
        return [f"{column.name}: {column.describe()}" for column in self.columns]

    def to_json(self) -> dict[str, Any]:
        """The content of ``encoding.json``."""
        return {"format": 2, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, value: Any, where: object = "encoding.json") -> Encoding:
        """Read what :meth:`to_json` returned.

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
        """Replace unknown values by the mean of some classes.

        Args:
            values: float64 ``(N, K)``.
            known: bool ``(N, K)``.
            rows: bool ``(N,)``, the classes to average: those of the training.

        Returns:
            The encoding that fills later classes with the same means, and the values. Attributes that are unknown for
            all of these classes keep the mean over all classes.
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
    """Schema of ``encoding.json`` without its checksum."""

    format: Literal[2]
    columns: tuple[Column, ...]


def parts_of(cell: str) -> list[str]:
    """Values of a cell with several, separated by ``;``, ``|`` or ``,`` outside brackets.

    ``red, blue, and white`` and a program's ``['red', 'blue']`` are values, too.
    """
    inner = _LIST.fullmatch(cell)
    found, depth = [""], 0
    for letter in inner[1] if inner else cell:
        depth = max(depth + (letter in "([{") - (letter in ")]}"), 0)
        if letter in ";|,；，、" and not depth:
            found.append("")
        else:
            found[-1] += letter
    parts = [part.strip() for part in found]
    parts = [part.strip("'\"") for part in parts] if inner else parts
    return [part for part in (parts[0], *(_AND.sub("", part, count=1) for part in parts[1:])) if part]


def read_column(column: Column, cells: list[str]) -> tuple[np.ndarray, list[tuple[int, CellError]]]:
    """Values ``(rows, attributes)``, NaN for blank or wrong cells; and the errors by row."""
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
