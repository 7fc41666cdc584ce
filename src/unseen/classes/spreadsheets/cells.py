"""Text of names and cells: tidied, compared, written, and named by file, row and column."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f"))
"""Invisible characters; joiners (in Persian, in emoji) are not among them."""
_THREE = re.compile(r"-?\d{1,3}\.\d{3}")


def place(path: Path, row: int | None = None, column: str | None = None) -> str:
    """Name a cell as a spreadsheet shows it: ``classes.csv, row 7, column "size"``; ``row`` counts data rows from 0."""
    text = str(path)
    if row is not None:
        text += f", row {row + 2}"
    if column is not None:
        text += f', column "{column}"'
    return text


def also(rows: Sequence[int]) -> str:
    """Mention further data rows with the same problem: " (and rows 5, 7)"."""
    others = [str(row + 2) for row in rows[1:6]]
    more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
    return f" (and row{'s' if len(rows) > 2 else ''} {', '.join(others)}{more})" if others else ""


def tidy(text: str) -> str:
    """Normalize a name or cell to Unicode NFC, with plain spaces and without invisible characters."""
    if text.isascii():
        return text.strip()
    plain = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in plain).strip()


def fold(text: str) -> str:
    """Reduce a name to a form without differences of case, spaces, underscores, hyphens and Unicode forms."""
    plain = unicodedata.normalize("NFKC", tidy(text)).casefold()
    return " ".join(re.sub(r"[\s_\-‐–−]+", " ", plain).split())


def spelled(text: str) -> str:
    """Reduce a name to a form without differences of case, spaces and Unicode forms: what no reader tells apart."""
    return " ".join(unicodedata.normalize("NFKC", tidy(text)).casefold().split())


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that ``name`` is probably a misspelling of."""
    folded = {fold(n): n for n in names}
    near = get_close_matches(fold(name), folded, 1, cutoff=0.65)
    return folded[near[0]] if near else None


def as_text(value: object) -> str:
    """A value of any type as a text cell: nothing is blank, 3.0 is 3, lists are joined by semicolons.

    1.234 is written as 1.2340, which cannot be mistaken for a thousand.
    """
    if value is None or type(value).__name__ in ("NaTType", "NAType"):  # of pandas
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if np.isnan(value) or float(value).is_integer():
            return "" if np.isnan(value) else str(int(value))
        return exact_text(float(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return "; ".join(as_text(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value))
    return str(value).strip()


def unquoted(cell: str) -> str:
    """A cell without the apostrophe that marks numbers and formulas as text, or without quotes: '12 and "12" are 12."""
    if len(cell) > 2 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1]:
        return cell[1:-1].strip()
    return cell[1:].lstrip() if cell[:1] in ("'", "’") and cell[1:2] and cell[-1] != cell[0] else cell


def exact_text(value: float) -> str:
    """A number as text that reads back bit for bit under every rule: 1.234, possibly a thousand, becomes 1.2340."""
    text = repr(value)
    return f"{text}0" if _THREE.fullmatch(text) else text
