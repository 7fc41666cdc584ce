"""Classes changed after training: where they are stored, and how a new class is read.

The folder of a model (a run, or a folder of ``Recognizer.save``) has the classes of its training in ``classes.csv``.
That file never changes: a resumed training writes it again, and test results refer to its classes. Changes go to
``classes-in-use.csv``, which predictions and explanations prefer, and support images to ``class-images.safetensors``
(:mod:`unseen.model.support`).
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from filelock import FileLock, Timeout

from unseen.classes.attributes import NO_VALUES, SEPARATOR, is_attribute
from unseen.classes.spreadsheets.cells import exact_text, fold, place, tidy
from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.spreadsheets.mangled import doubts_of_names
from unseen.classes.spreadsheets.numbers import is_missing, read_numbers
from unseen.classes.spreadsheets.renaming import with_unique_words
from unseen.classes.spreadsheets.tables import read_table
from unseen.classes.spreadsheets.values import no_repeats, to_numbers
from unseen.classes.table import ClassTable
from unseen.classes.taxonomy import looks_like_rank, rank_of
from unseen.errors import DataError, RunError, UnseenError
from unseen.ground.files import file_digest, read_json
from unseen.ground.words import pasted

if TYPE_CHECKING:
    import pandas as pd

TRAINED, IN_USE, ATTRIBUTES = "classes.csv", "classes-in-use.csv", "attributes.csv"
IMAGES = "class-images.safetensors"
EARLIER = "earlier-"
"""Start of the names of changes that a later training has put out of use."""
ENCODING = "encoding.json"
_FACTS = ("manifest.json", "recognizer.json")
"""Files by which runs and saved models are recognized."""
AGAIN = "save the model again, or train again"
LOCK = ".classes.lock"
WAIT = 10.0
"""Seconds to wait for another change of the classes in the same folder."""


class Encodes(Protocol):
    """How the cells of a spreadsheet become attribute values."""

    def encode(self, row: Mapping[str, object]) -> np.ndarray:
        """``(K,)`` values of a row: column to cell."""
        ...


def trained_table(folder: Path) -> ClassTable:
    """The classes of the training, or those that a recognizer was saved with."""
    if not (folder / TRAINED).is_file():
        raise RunError("not a run folder", where=folder, hint="pass a run folder of `unseen train`")
    return ClassTable.from_csv(folder / TRAINED, folder / ATTRIBUTES)


def table_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the tables that a model was trained or saved with, by file."""
    return {name: file_digest(folder / name) for name in (TRAINED, ATTRIBUTES)}


def check_tables(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise :class:`RunError` if a table has changed since it was written; tables without a digest are not checked."""
    for name in (TRAINED, ATTRIBUTES):
        path = folder / name
        if name in digests and not path.is_file():
            raise RunError("no such file", where=path, hint="restore it, or train again")
        if name in digests and file_digest(path) != digests[name]:
            problem = "damaged or edited: the checksum does not match"
            raise RunError(
                problem,
                where=path,
                hint=f"restore the file; use `unseen classes edit {pasted(folder)}` to change classes",
            )


def check_model(folder: Path) -> None:
    """Raise :class:`RunError` if the tables beside a model are not those that it was trained or saved with."""
    for facts in (folder / name for name in _FACTS):
        if facts.is_file():
            tables = read_json(facts, RunError, AGAIN).get("tables")
            check_tables(folder, tables if isinstance(tables, Mapping) else {})


def read_encoding(folder: Path) -> Encoding | None:
    """How a spreadsheet became the class table, if the folder has this."""
    where = folder / ENCODING
    return Encoding.from_json(read_json(where, RunError, AGAIN), where) if where.is_file() else None


def table_in_use(folder: Path) -> ClassTable:
    """The classes in use: as changed, else as trained.

    Raises:
        RunError: they were changed for a model with other attributes, or there is no model.
    """
    if not (folder / IN_USE).is_file():
        return trained_table(folder)
    trained, changed = (_attribute_columns(folder / name) for name in (TRAINED, IN_USE))
    if trained != changed:
        raise RunError(
            f"its attributes differ from those of {TRAINED}",
            where=folder / IN_USE,
            hint=f"run `unseen classes reset {pasted(folder)}`",
        )
    return ClassTable.from_csv(folder / IN_USE, folder / ATTRIBUTES)


def _attribute_columns(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file), []) if is_attribute(name.strip())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(str(error), where=path, hint="run `unseen classes reset`, or train again") from None


@contextmanager
def _at(where: str | None) -> Iterator[None]:
    """Prefix the place of an error."""
    try:
        yield
    except DataError as error:
        places = ", ".join(str(p) for p in (where, error.where) if p)
        raise DataError(error.problem, where=places or None, hint=error.hint) from None


@contextmanager
def changing(folder: Path) -> Iterator[ClassTable]:
    """Context with the table in use, locked against other processes; see :func:`keep_table`.

    Raises:
        RunError: there is no model, or another process keeps the lock.
    """
    if not (folder / TRAINED).is_file():
        trained_table(folder)  # says so
    lock = FileLock(folder / LOCK)
    try:
        held = lock.acquire(timeout=WAIT)
    except Timeout:
        raise RunError("another process is changing the classes", where=folder, hint="try again") from None
    except OSError as error:
        raise RunError(error.strerror or str(error), where=folder, hint="make it writable") from None
    with held:
        yield table_in_use(folder)


def keep_table(folder: Path, table: ClassTable) -> None:
    """Store a table as the one in use; call it inside :func:`changing`."""
    table.to_csv(folder / IN_USE)


def reset(folder: Path) -> bool:
    """Restore the classes of the training, without images added since; returns whether anything had changed."""
    changed = [folder / name for name in (IN_USE, IMAGES) if (folder / name).is_file()]
    for path in changed:
        path.unlink(missing_ok=True)
    return bool(changed)


def same_classes(folder: Path, table: ClassTable, encoding: Encoding | None) -> bool:
    """Whether a model was trained on these classes: the same rows in the same order, from cells read the same way."""
    with tempfile.TemporaryDirectory() as empty, suppress(UnseenError, OSError):
        table.to_csv(now := Path(empty) / TRAINED)
        read = [None if e is None or e.as_it_stands else e.to_json() for e in (read_encoding(folder), encoding)]
        return now.read_bytes() == (folder / TRAINED).read_bytes() and read[0] == read[1]
    return False


def put_aside(folder: Path, name: str) -> None:
    """Put a file of changes out of use; it stays in the folder as ``earlier-...``."""
    if (folder / name).is_file():
        (folder / name).replace(folder / f"{EARLIER}{name}")


def changes_since(table: ClassTable, trained: ClassTable) -> list[str]:
    """Change of each class since the training: none (empty), ``added``, ``edited``, or ``was NAME``."""
    values = {trained.values[i].tobytes(): name for i, name in enumerate(trained.names) if name not in table.names}
    first = {now: then for then, now in table.origins.items() if then in trained.names}
    found = []
    for c, (name, row) in enumerate(zip(table.names, table.values, strict=True)):
        if first.get(name, name) != name:
            found.append(f"was {first[name]}")
        elif name in trained.names:
            same = (row == trained.values[trained.index(name)]).all()
            ranks = [
                {} if t.taxonomy is None else t.taxonomy.of(i) for t, i in ((table, c), (trained, trained.index(name)))
            ]
            found.append("" if same and ranks[0] == ranks[1] else "edited")
        else:
            old = values.get(row.tobytes())
            found.append("added" if old is None else f"was {old}")
    return found


@dataclass(frozen=True)
class Described:
    """A class as described by a user.

    Args:
        name: name of the class; ``None`` if a file describes one class without naming it.
        cells: attribute, or column of the original spreadsheet, to text, or to a number that the file stores as such.
        where: place, for errors.
        notes: what the file leaves out or may have changed; on the first class of a file.
    """

    name: str | None
    cells: Mapping[str, str | float]
    where: str
    notes: tuple[str, ...] = ()


def read_described(path: Path, data: bytes | None = None) -> list[Described]:
    """Read classes from a table: rows ``attribute, value`` for one class, or one row per class with a ``class`` column.

    The column ``class`` may have any name that training accepts, such as ``species``.
    Columns of ``classes.csv`` that are not attributes, such as ``seen``, are ignored, so its rows are accepted.

    Args:
        path: path of the table.
        data: content, if it is not in a file; see :func:`unseen.classes.spreadsheets.tables.read_table`.

    Raises:
        DataError: neither form, or an attribute or class that is repeated.
    """
    frame = read_table(path, optional=("attribute", "value"), data=data)
    if not {"attribute", "value"} <= set(frame.columns):
        try:
            frame = read_table(path, ["class"], data=data)
        except DataError as error:
            raise _nameless(error, path, frame, data) from None
    if not len(frame):
        raise DataError("no rows below the header", where=path, hint="add one row per class, or one per attribute")
    if "class" in frame:
        no_repeats(frame, "class", path)
        columns = [str(c) for c in frame.columns if c not in NO_VALUES]
        if not columns:
            raise DataError("no attribute columns", where=path, hint="add one column per attribute")
        typed, shown = frame.attrs["typed"], frame.attrs["rows"]
        doubts = doubts_of_names(list(frame["class"]), frame.attrs["scientific"].get("class", ()), path)
        notes = [*frame.attrs["notes"], *map(str, doubts)]
        return [
            Described(
                str(row["class"]),
                {c: _stored(row[c]) if c in typed else str(row[c]) for c in columns},
                place(path, i if shown is None else shown[i] - 2),
                () if i else tuple(notes),
            )
            for i, (_, row) in enumerate(frame.iterrows())
        ]
    no_repeats(frame, "attribute", path)
    typed = "value" in frame.attrs["typed"]
    values = [_stored(v) if typed else str(v) for v in frame["value"]]
    cells = dict(zip(map(str, frame["attribute"]), values, strict=True))
    return [Described(None, cells, str(path), tuple(frame.attrs["notes"]))]


def _stored(cell: str) -> str | float:
    """A cell of a column of numbers as the number that the file stores: no decimal sign is to be settled."""
    value = _plain(cell)
    return value if math.isfinite(value) else cell


def _nameless(error: DataError, path: Path, frame: pd.DataFrame, data: bytes | None) -> DataError:
    """The error for a table without the columns of either form, with the column to rename if one is likely."""
    if error.problem != 'no column "class"':
        return error
    wanted = "attribute" if "value" in frame else "class"
    found = with_unique_words(DataError(f'no column "{wanted}"', where=path), path, wanted, data)
    problem = 'no columns "attribute" and "value", and no column "class"'
    return DataError(problem, where=path, hint=found.hint or "use one row per attribute of one class, or one per class")


def read_settings(texts: Sequence[str], option: str = "--set") -> dict[str, str]:
    """``NAME=VALUE`` texts of an option as a mapping; split at the last ``=``, since names may contain one."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name.strip() or not value.strip():
            form, example = ("RANK=TAXON", "family=Ardeidae") if option == "--rank" else ("ATTRIBUTE=VALUE", "crest=1")
            raise UnseenError(f'"{text}" is not {form}', where=option, hint=f'for example, "{example}"')
        found[tidy(name)] = tidy(value)
    return found


def values_of(
    cells: Mapping[str, object],
    table: ClassTable,
    encoding: Encodes | None = None,
    *,
    start: np.ndarray | None = None,
    where: str | None = None,
) -> np.ndarray:
    """Attribute values of a class from a user's description.

    Args:
        cells: numbers by attribute name; with an encoding also cells by column of the spreadsheet, unless the program
            wrote them, see :func:`_as_written`.
        table: provides attributes and unit.
        encoding: encoding of the spreadsheet that the table came from.
        start: ``(K,)`` values of everything else; by default unknown: the mean of the seen classes, or what the
            encoding uses for unknown.
        where: place, for errors.

    Returns:
        float64 ``(K,)``.

    Raises:
        DataError: an unknown name, or a cell that is not a finite number.
    """
    attributes = table.attributes
    if encoding is not None and not _as_written(cells, table):
        with _at(where):
            encoded = encoding.encode(cells) if cells or start is None else np.array(start)
        if start is None:
            return encoded
        named = {fold(name) for name in cells}
        given = [
            fold(name) in named or fold(name.split(SEPARATOR)[0]) in named or fold(group) in named
            for name, group in zip(attributes.names, attributes.groups, strict=True)
        ]
        return np.where(given, encoded, start)
    values = np.array(table.unknown if start is None else start, dtype=np.float64)
    texts = [str(cell) for cell in cells.values()]
    read = read_numbers([text.rstrip("% ") for text in texts], codes=False)
    largest, known = float(np.abs(table.values).max()), 0
    for i, (name, text) in enumerate(zip(cells, texts, strict=True)):
        with _at(where):
            k = attributes.index(name)
        if is_missing(text):
            continue
        number, percent = _plain(text) if math.isfinite(_plain(text)) else read.values[i], text.endswith("%")
        if math.isnan(number) or math.isinf(number) or (read.unsettled == text and not _is_plain(text)):
            hint = "use a number without a thousands separator"
            raise DataError(f'attribute "{name}": "{text}" is not a finite number', where=where, hint=hint)
        values[k] = number / 100 if percent and largest <= 1 else number
        known += 1
    if not known and start is None:
        raise DataError("the class has no attribute values", where=where, hint="set at least one attribute")
    return values


def _as_written(cells: Mapping[str, object], table: ClassTable) -> bool:
    """Whether the program wrote these cells: ``classes.csv``, or ``unseen classes show --output``.

    Such rows name every attribute, with its value as the program writes it. A person's ``0.8`` and the program's differ
    only for percentages; a person's complete row of percentages has one above 1.
    """
    if cells.keys() != table.attributes.positions.keys():
        return False
    texts = [exact_text(cell) if isinstance(cell, float) else str(cell) for cell in cells.values()]
    found = to_numbers(texts)
    largest = np.abs(table.values).max(axis=0, initial=1.0)[[table.attributes.positions[name] for name in cells]]
    written = all(exact_text(value) == text for value, text in zip(found.tolist(), texts, strict=True))
    return written and bool((np.abs(found) <= largest).all())


def _plain(text: str) -> float:
    """A number as programs write it, else NaN."""
    return float(to_numbers([text])[0])


def _is_plain(text: str) -> bool:
    return math.isfinite(_plain(text))


def taxa_in(
    cells: Mapping[str, object], table: ClassTable, encoding: Encoding | None = None
) -> tuple[dict[str, object], dict[str, str]]:
    """Split the cells of a class into attributes, and its taxon for each rank.

    A rank is named ``rank:NAME``, or like a rank of the table, or in Darwin Core terms if its cell is a name; columns
    of the original spreadsheet (``encoding``) are not ranks.
    """
    own = {column.name for column in encoding.columns} if encoding is not None else set()
    known = [] if table.taxonomy is None else [fold(rank) for rank in table.taxonomy.ranks]
    taxa: dict[str, str] = {}
    for name, cell in cells.items():
        text = "" if cell is None else str(cell).strip()
        if name in table.attributes.positions or name in own:
            continue
        if (rank := rank_of(name)) is not None or fold(name) in known or looks_like_rank(name, [text]):
            taxa[rank or name] = "" if is_missing(text) else text
    return {n: c for n, c in cells.items() if (rank_of(n) or n) not in taxa}, {r: t for r, t in taxa.items() if t}


def left_unknown(cells: Mapping[str, object], table: ClassTable, encoding: Encoding | None = None) -> str | None:
    """A note if most attributes of a new class were not given."""
    own = {fold(name) for name, cell in cells.items() if not is_missing(str(cell))}
    if encoding is not None:
        every = [c.name for c in encoding.columns if c.kind != "ignored"]
        given = sum(
            bool(own & set(map(fold, (c.name, *c.attributes)))) for c in encoding.columns if c.kind != "ignored"
        )
        what = "columns"
    else:
        every, what = list(table.attributes.names), "attributes"
        given = sum(fold(name) in own for name in every)
    if given == len(every):
        return None
    return f"{given} of {len(every)} {what} given; the others get the mean of the training classes"


def beyond_range(name: str, cells: Mapping[str, object], encoding: Encoding | None) -> list[str]:
    """Notes on numbers of a class that are beyond the range of the training's table, and count as its end."""
    columns = {fold(column.name): column for column in encoding.columns} if encoding is not None else {}
    found = [(columns[fold(key)], cell) for key, cell in cells.items() if fold(key) in columns]
    return [f'"{name}": {text}' for column, cell in found if (text := column.beyond(cell))]


def unit_doubt(values: np.ndarray, table: ClassTable) -> str | None:
    """A note if the values of a class seem to have another unit than the table; else ``None``."""
    largest, mine = np.abs(table.values).max(axis=1), float(np.abs(values).max())
    if mine > 2 * largest.max() or mine < largest.min() / 10:
        return f"the largest value is {mine:g}; the other classes have {largest.min():g} to {largest.max():g}"
    return None
