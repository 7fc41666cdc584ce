"""The classes of a served model: read and changed, in the worker's thread."""

from __future__ import annotations

import io
import logging
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unseen.classes.changes import (
    IMAGES,
    IN_USE,
    beyond_range,
    changes_since,
    changing,
    keep_table,
    read_described,
    table_in_use,
    taxa_in,
    trained_table,
    unit_doubt,
    values_of,
)
from unseen.classes.expectations import expectations
from unseen.classes.table import ClassTable
from unseen.errors import DataError, UnseenError
from unseen.ground.words import counted
from unseen.model.support import keep_support, read_support
from unseen.recognizer import Recognizer
from unseen.recognizer.advice import closest, nearly_equal
from unseen.serve import schema
from unseen.serve.examples import Examples
from unseen.serve.settings import Refusal, Settings

_log = logging.getLogger(__name__)
NEAR, MOST_NEAR = 3, 20
"""Number of near classes reported for a new one, and of new classes with such a report."""
ROWS = 1000
"""Largest number of classes in one table."""
_NO_NAME = {"Cc", "Cs", "Cn", "Zl", "Zp"}


class Classes:
    """Reads and changes the classes of a model.

    Args:
        recognizer: the model.
        settings: settings of the server.
        examples: provide an image of each class.

    Attributes:
        sent: thumbnails of support images sent to this server, by SHA-256.
    """

    def __init__(self, recognizer: Recognizer, settings: Settings, examples: Examples) -> None:
        self.recognizer, self.settings, self.examples = recognizer, settings, examples
        self.sent: dict[str, bytes] = {}
        self._most = len(recognizer.table) + settings.added
        self._watched = settings.save or settings.watch
        self._trained = recognizer.table if self._watched is None else trained_table(self._watched)
        self._state = self._stamps()
        self._unsaved = False

    def refresh(self) -> None:
        """Take over the classes that another process has changed in the folder, unless changes here are unsaved."""
        if self._unsaved or self._watched is None or (now := self._stamps()) == self._state:
            return
        self._state = now
        try:
            table, support = table_in_use(self._watched), read_support(self._watched)
        except UnseenError as error:  # the classes stay as they are
            _log.warning("%s", error)
        else:
            self.recognizer.table, self.recognizer.support = table, support

    @property
    def outdated(self) -> str | None:
        """What to do if the folder and this server have both changed their classes; ``None`` if not."""
        if not self._unsaved or self._stamps() == self._state:
            return None
        return (
            f"restart `unseen serve` to take over the classes in {self._watched}; the changes made here are then lost"
        )

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        """State of the files with changed classes."""
        found: list[tuple[int, int, int] | None] = []
        for path in [] if self._watched is None else [self._watched / name for name in (IN_USE, IMAGES)]:
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append(None)
        return found

    def all(self) -> list[schema.ClassEntry]:
        """All classes without their values."""
        table, trained = self.recognizer.table, self._trained
        first = {now: then for then, now in table.origins.items() if then != now}
        support = self.recognizer.support  # a class known from images alone has no expectation
        small = self.examples.addresses(self.sent)
        expected = {e.name: e.text for e in expectations(table, trained) if support[e.name].attributes}
        rows = zip(
            table.names, table.seen, changes_since(table, trained), self.recognizer.attribute_shares, strict=True
        )
        return [
            schema.ClassEntry(
                name=name,
                seen=bool(seen),
                change=change or None,
                former=[then for then, now in table.former.items() if name == now != then] or None,
                origin=first.get(name),
                expectation=expected.get(name),
                ranks=table.taxa(c) or None,
                images=len(support[name].images) or None,
                image_weight=1 - float(share) if support[name].images else None,
                thumbnail=small.get(name),
            )
            for c, (name, seen, change, share) in enumerate(rows)
        ]

    def entry(self, name: str) -> schema.ClassEntry:
        """A class with its values."""
        return self._entries([name])[0]

    def _entries(self, names: Sequence[str]) -> list[schema.ClassEntry]:
        table, every = self.recognizer.table, self.all()
        found = []
        for c in map(self.index, names):
            values = dict(zip(table.attributes.names, table.values[c].tolist(), strict=True))
            found.append(every[c].model_copy(update={"values": values}))
        return found

    def template(self) -> dict[str, str]:
        """The first class as a row of a table for adding classes: in words if the model's classes came in words."""
        table, encoding = self.recognizer.table, self.recognizer.encoding
        if encoding is not None:
            return encoding.decode(table.values[0])
        return {name: f"{value:g}" for name, value in zip(table.attributes.names, table.values[0], strict=True)}

    def add(self, new: schema.NewClass) -> schema.Changed:
        """Add a class from its attributes."""
        with self.change():
            table = self.recognizer.table
            start = None if new.like is None else table.values[self.index(new.like)]
            there = new.name in table.names  # reported first
            row = table.unknown if there else _values(new.values, table, start)
            self.add_described(new.name, row, new.ranks)
        return self._changed([new.name])

    def add_table(self, data: bytes, suffix: str) -> schema.Changed:
        """Add classes from a table with a column ``class`` and one per attribute or spreadsheet column: all or none.

        Args:
            data: content of the table.
            suffix: format: ``.csv``, ``.tsv`` or ``.xlsx``.
        """
        if suffix == ".xlsx":
            _check_workbook(data, self.settings.max_upload)
        described = read_described(Path(f"upload{suffix}"), data)
        if len(described) > ROWS:
            raise Refusal(413, f"{counted(len(described), 'class')} in one table", f"send at most {ROWS} at once")
        names = [one.name for one in described if one.name is not None]
        if len(names) < len(described):
            raise DataError("the table has no class name", hint='add a column "class"')
        notes: list[str] = []
        with self.change():
            for name, one in zip(names, described, strict=True):
                table, encoding = self.recognizer.table, self.recognizer.encoding
                cells, taxa = taxa_in(one.cells, table, encoding)
                self.add_described(name, values_of(cells, table, encoding, where=one.where), taxa)
                notes += [*one.notes, *beyond_range(name, cells, encoding)]
        return self._changed(names, notes)

    def save(self) -> schema.Saved:
        """Save the classes with the run."""
        folder = self.settings.save or self.settings.folder
        if folder is None:
            raise Refusal(403, "this server cannot save classes", "start it with --save on a folder of your own")
        if (hint := self.outdated) is not None:
            raise Refusal(409, "another process has changed the classes in the folder", hint)
        with changing(folder):
            keep_table(folder, self.recognizer.table)
            keep_support(folder, self.recognizer.support)
        self._unsaved, self._state = False, self._stamps()
        return schema.Saved(folder=str(folder))

    def add_described(self, name: str, values: np.ndarray, taxa: Mapping[str, str] | None = None) -> None:
        """Add a class, inside :meth:`change`."""
        self.must_be_new(name)
        if len(self.recognizer.table) >= self._most:
            raise Refusal(409, f"{self.settings.added} classes are already added", "remove some first")
        if np.abs(values).max() > schema.LARGEST:
            raise Refusal(422, f'class "{name}": a value beyond {schema.LARGEST:g}', "use a larger unit")
        trained = self.recognizer.table.back_from(self._trained, name)
        self.recognizer.add_class(name, values, trained=trained, taxa=taxa)

    def edit(self, name: str, change: schema.ClassChange) -> schema.Changed:
        """Change name, values, or both."""
        with self.change():
            c, table = self.index(name), self.recognizer.table
            if change.values:
                self.recognizer.edit_class(name, _values(change.values, table, table.values[c]))
            if change.ranks:
                self.recognizer.edit_taxa(name, change.ranks)
            if change.name is not None and change.name != name:
                self.must_be_new(change.name)
                self.recognizer.rename_class(name, change.name)
        return self._changed([change.name or name])

    def remove(self, name: str) -> schema.Changed:
        """Remove the class."""
        with self.change():
            self.index(name)
            if len(self.recognizer.table) <= 2:
                raise Refusal(409, "at least two classes must remain", "add another class first")
            self.recognizer.remove_class(name)
        return self._changed([])

    def index(self, name: str) -> int:
        """Position of a class in the table; Refusal (404) if there is none."""
        try:
            return self.recognizer.table.index(name)
        except DataError as error:
            raise Refusal(404, error.problem, error.hint or "") from None

    def must_be_new(self, name: str) -> None:
        """Reject an invalid class name, or one that is taken."""
        if len(name) > 200 or name in (".", "..") or any(unicodedata.category(c) in _NO_NAME for c in name):
            raise Refusal(422, "not a valid class name", "use 1 to 200 printable characters")
        if name in self.recognizer.table.names:
            raise Refusal(409, f'class "{name}" already exists', "choose another name")

    @contextmanager
    def change(self) -> Iterator[None]:
        """Context for a change, all or nothing; if changes are saved, starts from the table of other processes."""
        recognizer, folder = self.recognizer, self.settings.save
        before = recognizer.table, recognizer.support
        try:
            if folder is None:
                yield
                self._unsaved = True
                return
            with changing(folder) as recognizer.table:
                recognizer.support = read_support(folder)
                yield
                keep_table(folder, recognizer.table)
                keep_support(folder, recognizer.support)
            self._state = self._stamps()
        except BaseException:
            recognizer.table, recognizer.support = before
            raise

    def _changed(self, names: Sequence[str], notes: Sequence[str] = ()) -> schema.Changed:
        warnings = [*notes, *(line for name in names for line in self._warnings(name))]
        entries = self._entries(names) if names else []
        described = [name for name in names if self.recognizer.support[name].attributes]
        near = {name: [n.name for n in closest(self.recognizer, name, NEAR)] for name in described[:MOST_NEAR]}
        return schema.Changed(classes=entries, warnings=warnings, nearest=near, saved=self.settings.save is not None)

    def entry_of(self, name: str) -> dict[str, Any]:
        """Fields of an answer about the support images of a class."""
        return {"classes": [self.entry(name)], "saved": self.settings.save is not None}

    def _warnings(self, name: str) -> Iterator[str]:
        if not self.recognizer.support[name].attributes:
            return
        near = nearly_equal(self.recognizer, name)
        if near is not None and not near.differing:
            yield f'"{name}" has the same attributes as "{near.name}", so the model cannot separate them.'
        elif near is not None:
            count = f"{near.differing} attribute{'s differ' if near.differing > 1 else ' differs'}"
            yield f'"{name}" is nearly equal to "{near.name}": {count}, so they are easily confused.'
        table = self.recognizer.table
        doubt = unit_doubt(table.values[table.index(name)], table.without(name))
        if doubt is not None:
            yield f'"{name}": {doubt}; check the unit'


def _values(given: Mapping[str, float | None], table: ClassTable, start: np.ndarray | None) -> np.ndarray:
    """Values of a class from numbers and nulls, which mean unknown."""
    values = values_of({name: value for name, value in given.items() if value is not None}, table, start=start)
    for name, value in given.items():
        if value is None:
            k = table.attributes.index(name)
            values[k] = table.unknown[k]
    return values


def _check_workbook(data: bytes, limit: int) -> None:
    """Reject an archive that is not a workbook, or that unpacks to more than a request may have."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError):
        raise DataError("cannot read the workbook", where="upload.xlsx", hint="save it again") from None
    if size > limit:
        raise Refusal(413, f"the workbook unpacks to {size / 1e6:.0f} MB", "save the table as CSV")
