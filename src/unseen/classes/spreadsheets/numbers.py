"""Numbers in people's notation: one grammar, settled for a column from all its cells.

``1,5 kg``, ``11.5-13.5 mm``, ``12 ± 0.5``, ``1.850``, ``1 850``, ``80 %``, ``−3 °C``, ``3,50 €``, ``$3.50``. The
decimal sign, comma or point, is a property of a column, never of a cell: ``1.850`` is 1.85 among ``0.2`` and 1850 among
``1.200.000``. If the column does not settle it, its values are read so that they are closest together, then like the
table's other columns.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

MISSING = (
    *("", "na", "n/a", "n.a.", "n.a", "#n/a", "#na", "<na>", "nan", "null", "nil", "unknown", "not known", "missing"),
    *(
        "no data",
        "not available",
        "nd",
        "n.d.",
        "n.d",
        "unk",
        "tbd",
        "not measured",
        "?",
        "??",
        "-",
        "--",
        "–",
        "—",
        "−",
        ".",
        "..",
        "…",
    ),
    *("unbekannt", "nicht bekannt", "k.a.", "k. a.", "k.a", "keine angabe", "keine angaben", "keine daten"),
    *("nicht verfügbar", "nicht gemessen"),
    *("inconnu", "inconnue", "non connu", "non connue", "non renseigné", "non renseignée", "non disponible"),
    *("pas de données", "non mesuré", "non mesurée"),
    *(
        "desconocido",
        "desconocida",
        "no conocido",
        "no conocida",
        "sin datos",
        "no disponible",
        "no medido",
        "no medida",
    ),
    *("sconosciuto", "sconosciuta", "ignoto", "ignota", "non noto", "non nota", "nessun dato", "non disponibile"),
    *("non misurato", "non misurata"),
)
"""Words for "not known" in English, German, French, Spanish and Italian, in any case.

The ``missing.txt`` of a dataset folder adds to them.
"""
DASHES = frozenset({"-", "–", "−"})
Sign = Literal["", ".", ","]
POINT: Sign = "."
COMMA: Sign = ","
DECIMALS: tuple[Sign, ...] = (POINT, COMMA)
_SPACES = re.compile(r"\s+")
_FIGURE = r"(?:\d(?:[\d.,'’ ]*\d)?|[.,]\d+)(?:[eE][-+]?\d+)?"
_MONEY = r"[$€£¥₹₩₽₺¢]"
_UNIT = _MONEY + r"|%|‰|[\"'″′]|°(?:\s?[CFK])?|[^\W\d_][^\s\d]{0,11}(?:[23]|\^[23])?"
_ABOUT = r"(?:~|≈|∼|(?:ca|c|approx|about)\.?(?=[\s\d]))?\s?"
_CELL = re.compile(
    rf"{_ABOUT}([-+]?{_FIGURE})(?:\s?({_UNIT}))??(?:\s?(?:(±|\+/-|\+-)\s?({_FIGURE})|(?:-|–|—|to|bis)\s?([-+]?{_FIGURE})))?"
    rf"\s?({_UNIT})?"
)
_BARE = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_OPEN = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")
_PERCENT = ("percent", "per cent", "pct", "pct.", "prozent", "pourcent", "procent", "porcentaje", "%")
_LONGEST = 60
"""Largest length of a number in characters; longer cells are text."""
_CODE = re.compile(r"-(?:1|9+)|9{3,}|-8{2,}|8{4,}")
"""Numbers that often mean "not known"."""
EITHER = re.compile(r"(?<!\d)[1-9]\d{0,2}[.,]\d{3}(?!\d)")
"""A thousand in one notation, and three decimals in the other."""
_OTHERS = 3
"""Least number of other values that tell whether a value is far from them."""


@dataclass(frozen=True)
class Numbers:
    """The cells of a column as numbers.

    Args:
        values: one number per cell; NaN if it is blank or not a number.
        unit: unit of most numbers; ``%`` for percentages.
        decimal: decimal sign, ``.`` or ``,``; empty if it matters for no cell.
        wrong: positions of cells that are not numbers, or have another unit.
        other_units: positions of cells with another unit.
        codes: positions of numbers that look like codes for "not known"; their values are NaN.
        unsettled: the first ambiguous cell, if nothing settles its meaning.
        percent: whether some cells have a percent sign.
        ranges: whether some cells are ranges or have a deviation.
    """

    values: tuple[float, ...]
    unit: str = ""
    decimal: Sign = ""
    wrong: tuple[int, ...] = ()
    other_units: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    unsettled: str = ""
    percent: bool = False
    ranges: bool = False

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(math.isnan(value) or value.is_integer() for value in self.values)


@dataclass(frozen=True)
class _Cell:
    tokens: tuple[str, ...]  # one number, or the ends of a range
    unit: str
    plain: bool  # no range, deviation or unit
    spread: bool = False  # with a deviation


def tidy(cell: str) -> str:
    """Normalize a cell: plain spaces, digits and minus signs, no invisible characters."""
    text = unicodedata.normalize("NFKC", cell).replace("−", "-").replace("⁄", "/")
    return _SPACES.sub(" ", "".join(c for c in text if unicodedata.category(c) != "Cf")).strip()


def is_missing(cell: str, more: Iterable[str] = ()) -> bool:
    """Whether a cell says "not known"; ``more`` are words beside :data:`MISSING`, casefolded."""
    word = cell.strip().casefold()
    return word in MISSING or word in more


def is_number(cell: str) -> bool:
    """Whether a cell is a number in some notation, with or without a unit."""
    found = _parse(cell)
    return found is not None and any(_values(found, decimal) for decimal in DECIMALS)


def is_percent(header: str) -> bool:
    """Whether the name of a column says that it holds percentages."""
    return "%" in header or "percent" in header.casefold()


def plain_number(cell: str, decimal: Sign = "") -> float:
    """A cell that is only a number, else NaN; in either notation if ``decimal`` is empty."""
    if decimal != COMMA and _BARE.fullmatch(cell):
        return float(cell)
    found = _parse(cell)
    if found is None or not found.plain:
        return math.nan
    return _read(found, decimal)


def measure(cell: str, decimal: Sign = "") -> tuple[float, str] | None:
    """Number of a cell, or the middle of its range, and its unit; ``None`` if it is not a number."""
    found = _parse(cell)
    if found is None:
        return None
    value = _read(found, decimal)
    return None if math.isnan(value) else (value, found.unit)


def same_unit(one: str, other: str) -> bool:
    """Whether two units are equal apart from case and plural: day, days."""

    def bare(unit: str) -> str:
        return unit.casefold().rstrip(".").removesuffix("s").replace(" ", "")

    return bare(one) == bare(other)


def read_numbers(cells: Sequence[str], missing: Iterable[str] = (), decimal: Sign = "", codes: bool = True) -> Numbers:
    """Read a column.

    Args:
        cells: text of the cells.
        missing: words for "not known" beside :data:`MISSING`, casefolded.
        decimal: decimal sign, if known.
        codes: whether numbers may be codes for "not known".
    """
    more = frozenset(missing)
    if (
        decimal != COMMA
        and more.isdisjoint(cells)
        and all(_BARE.fullmatch(cell) and not _OPEN.fullmatch(cell) for cell in cells)
    ):
        bare = [float(cell) for cell in cells]  # written by programs, as large tables are
        coded = _coded(bare, cells) if codes else []
        sign = POINT if any(POINT in cell for cell in cells) else ""
        return Numbers(
            tuple(math.nan if i in set(coded) else v for i, v in enumerate(bare)), decimal=sign, codes=tuple(coded)
        )
    blank = [is_missing(cell, more) for cell in cells]
    found = [None if b else _parse(cell) for cell, b in zip(cells, blank, strict=True)]
    kept = [cell for cell in found if cell is not None]
    signs, unsettled = ([decimal], "") if decimal else _decimal(kept)
    values = [math.nan] * len(cells)
    wrong, others = [], []
    units = [cell.unit for cell in kept if cell.unit]
    unit = Counter(units).most_common(1)[0][0] if 2 * len(units) >= len(kept) and units else ""
    for i, cell in enumerate(found):
        if blank[i]:
            continue
        value = math.nan if cell is None else _read(cell, signs[0])
        if math.isnan(value):
            wrong.append(i)
        elif cell is not None and cell.unit and not same_unit(cell.unit, unit):
            wrong.append(i)
            others.append(i)
        else:
            values[i] = value
    coded = _coded(values, cells) if codes else []
    for i in coded:
        values[i] = math.nan
    return Numbers(
        tuple(values),
        unit,
        signs[0] if len(signs) == 1 else "",
        tuple(wrong),
        tuple(others),
        tuple(coded),
        unsettled,
        any(cell.unit == "%" for cell in kept),
        any(cell.spread or len(cell.tokens) > 1 for cell in kept),
    )


def settle(columns: Sequence[Sequence[str]], missing: Iterable[str] = ()) -> Sign:
    """Decimal sign of a table: that of most columns that have one; empty if none has."""
    more = frozenset(missing)
    votes: Counter[Sign] = Counter()
    for cells in columns:
        found = [c for c in (None if is_missing(cell, more) else _parse(cell) for cell in cells) if c is not None]
        signs, _ = _decimal(found)
        if len(signs) == 1 and found:
            votes[signs[0]] += 1
    return votes.most_common(1)[0][0] if votes else ""


def unmistakable(value: float, decimal: Sign) -> str:
    """A number as text that has one meaning in a column with this decimal sign."""
    text = f"{value:.10g}".replace(POINT, decimal or POINT)
    return f"{text}0" if EITHER.fullmatch(text) else text


def misplaced(cells: Sequence[str], numbers: Numbers) -> list[int]:
    """Positions of numbers far from all others that would be among them with the other decimal sign: 3,125 beside 4.5.

    Args:
        cells: text of the cells.
        numbers: what was read from them.
    """
    sizes = [abs(value) for value in numbers.values]
    looks = [i for i, cell in enumerate(cells) if EITHER.search(cell) and sizes[i] > 0]
    found = []
    for sign in (POINT, COMMA) if looks else ():
        if any(cell.count(sign) == 1 and not EITHER.search(cell) for cell in cells):
            continue  # 350.5: a decimal sign
        mine = {i for i in looks if sign in cells[i]}
        others = [size for i, size in enumerate(sizes) if i not in mine and size > 0]
        if len(others) < _OTHERS:
            continue
        low, high = min(others), max(others)
        for i in mine:
            if low / 10 <= sizes[i] <= 10 * high:
                continue
            ways = [abs(way[0]) for way in (measure(cells[i], decimal) for decimal in DECIMALS) if way is not None]
            if any(low / 3 <= way <= 3 * high for way in ways):
                found.append(i)
    return sorted(found)


def _decimal(cells: Sequence[_Cell]) -> tuple[list[Sign], str]:
    """Possible decimal signs of a column, the likeliest first, and a cell that nothing settles."""
    fits = [d for d in DECIMALS if all(_values(cell, d) for cell in cells)]
    if len(fits) < 2:
        if not fits and cells:  # a typo in some cell: take what fits most
            fits = [max(DECIMALS, key=lambda d: sum(bool(_values(cell, d)) for cell in cells))]
        return fits or [POINT], ""
    open_cells = [cell for cell in cells if _values(cell, POINT) != _values(cell, COMMA)]
    if not open_cells:
        return list(DECIMALS), ""
    spread = {d: _spread([v for cell in cells for v in _values(cell, d)]) for d in DECIMALS}
    best = min(DECIMALS, key=lambda d: spread[d])
    if max(spread.values()) > 10 * spread[best]:
        return [best], ""
    return list(DECIMALS), open_cells[0].tokens[0]


def _spread(values: Sequence[float]) -> float:
    sizes = [abs(v) for v in values if v]
    return max(sizes) / min(sizes) if sizes else 1.0


def _coded(values: Sequence[float], cells: Sequence[str]) -> list[int]:
    """Positions of probable codes: -1 or -999 among numbers of 0 and more, 9999 ten times beyond all others."""
    looks = [i for i, v in enumerate(values) if not math.isnan(v) and _CODE.fullmatch(tidy(cells[i]).split(" ")[0])]
    others = [v for i, v in enumerate(values) if not math.isnan(v) and i not in set(looks)]
    if not looks or not others:
        return []
    low, high = min(others), max(others)
    beyond = 10 * max(abs(low), abs(high))
    return [i for i in looks if (values[i] < 0 <= low) or abs(values[i]) > beyond]


def _parse(cell: str) -> _Cell | None:
    text = tidy(cell) if len(cell) <= _LONGEST else ""
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        text = text[1:-1].strip()
    ahead = re.match(_MONEY, text)
    if ahead:  # $3.50 is 3.50 $
        text = f"{text[1:].strip()} {ahead[0]}"
    found = _CELL.fullmatch(text)
    if found is None:
        return None
    first, inner, sign, _, last, unit = found.groups()
    if inner and unit and not same_unit(inner, unit):
        return None
    tokens = (first,) if last is None else (first, last)
    said = (unit or inner or "").strip()
    said = "%" if said.casefold() in _PERCENT else said
    return _Cell(tokens, said, last is None and sign is None and not said, sign is not None)


def _read(cell: _Cell, decimal: Sign) -> float:
    for sign in (decimal,) if decimal else DECIMALS:
        values = _values(cell, sign)
        if values:
            return sum(values) / len(values)
    return math.nan


def _values(cell: _Cell, decimal: str) -> tuple[float, ...]:
    """Numbers of a cell in one notation; empty if it has none."""
    read = tuple(_token(token, decimal) for token in cell.tokens)
    return () if any(math.isnan(value) for value in read) else read


def _token(token: str, decimal: str) -> float:
    body, exponent = re.fullmatch(r"(.*?)((?:[eE][-+]?\d+)?)", token).groups()  # type: ignore[union-attr]
    sign = -1.0 if body.startswith("-") else 1.0
    body = body.lstrip("+-")
    whole, point, part = body.partition(decimal)
    if decimal in part or (point and not part.isdigit()):
        groups = whole + point + part
        whole, part = (groups, "") if not exponent else ("", "")
        if decimal in whole:
            return math.nan
    separators = {c for c in whole if not c.isdigit()}
    if len(separators) > 1 or decimal in separators:
        return math.nan
    if separators:
        separator = separators.pop()
        groups_found = whole.split(separator)
        sound = 1 <= len(groups_found[0]) <= 3 and all(len(g) == 3 for g in groups_found[1:])
        if not sound or groups_found[0].startswith("0"):
            return math.nan
        whole = "".join(groups_found)
    if not (whole or part):
        return math.nan
    try:
        return sign * float(f"{whole or '0'}.{part or '0'}{exponent}")
    except ValueError:
        return math.nan
