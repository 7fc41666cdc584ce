"""Which column of a table to rename, if a required one is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from unseen.classes.spreadsheets.cells import fold
from unseen.classes.spreadsheets.flags import NO_WORDS, YES_WORDS
from unseen.classes.spreadsheets.numbers import measure
from unseen.classes.spreadsheets.tables import read_columns
from unseen.errors import DataError


def with_names(error: DataError, path: Path, wanted: str, known: Collection[str], what: str) -> DataError:
    """The error with a hint to rename the column that holds known names, at least half of its cells.

    Args:
        error: of reading the table; returned as it is unless it says that the column ``wanted`` is missing.
        path: file of the table.
        wanted: name of the missing column.
        known: names that its cells should have; case, spaces, hyphens and underscores do not count.
        what: what these are, for the hint.
    """
    columns = _without(error, path, wanted)
    names = set(map(fold, known))
    shares = {name: sum(fold(cell) in names for cell in cells) / len(cells) for name, cells in columns.items() if cells}
    best = max(shares, key=lambda name: shares[name], default="")
    return _renaming(error, best, wanted, what) if shares.get(best, 0) >= 0.5 else error


def with_unique_words(error: DataError, path: Path, wanted: str, data: bytes | None = None) -> DataError:
    """The error with a hint to rename the first column of words that are all different; see :func:`with_names`.

    ``data`` is the content of a table that is not in a file.
    """
    columns = _without(error, path, wanted, data)
    best = next((name for name, cells in columns.items() if unique_words(cells)), "")
    return _renaming(error, best, wanted, "words that are all different") if best else error


def with_endings(error: DataError, path: Path, wanted: str, endings: Collection[str]) -> DataError:
    """The error with a hint to rename the first column of files with these endings; see :func:`with_names`."""
    best = column_of_files(_without(error, path, wanted), endings)
    return _renaming(error, best, wanted, "names of images") if best else error


def column_of_files(columns: Mapping[str, Sequence[str]], endings: Collection[str]) -> str:
    """Name of the first column of files with these endings; empty if there is none."""
    return next((n for n, c in columns.items() if c and all(Path(x).suffix.lower() in endings for x in c)), "")


def unique_words(cells: Sequence[str]) -> bool:
    """Whether a column of at least two cells holds words that are all different, not numbers or flags."""
    words = set(map(fold, cells))
    named = all(cell and measure(cell) is None for cell in cells) and words.isdisjoint(YES_WORDS | NO_WORDS)
    return named and len(words) == len(cells) > 1


def _without(error: DataError, path: Path, wanted: str, data: bytes | None = None) -> Mapping[str, Sequence[str]]:
    """Columns of the table if the error says that one is missing; otherwise none."""
    if error.problem != f'no column "{wanted}"':
        return {}
    try:
        return read_columns(path, data=data, tidied=True)
    except DataError:
        return {}


def _renaming(error: DataError, name: str, wanted: str, what: str) -> DataError:
    hint = f'rename the column "{name}" to "{wanted}"? It holds {what}'
    return DataError(error.problem, where=error.where, hint=hint)
