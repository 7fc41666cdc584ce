"""The attributes of a class table: names in a fixed order, with groups and parts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unseen.classes.spreadsheets.cells import fold, place
from unseen.classes.spreadsheets.tables import read_columns
from unseen.classes.spreadsheets.values import no_repeats
from unseen.classes.taxonomy import rank_of
from unseen.errors import DataError
from unseen.ground.files import write_text
from unseen.ground.words import counted

if TYPE_CHECKING:
    import pandas as pd

    Values = Sequence[float] | np.ndarray | Mapping[str, float] | pd.Series[float]
    """A class's attribute values: K numbers, or a mapping or Series from attribute names."""

SEPARATOR = "::"
TRAINED_AS, FORMER = "trained_as", "former_names"
NO_VALUES = ("class", "seen", "validation", TRAINED_AS, FORMER)
"""Columns of ``classes.csv`` that are not attributes, so no attribute can have these names; ranks are reserved too."""


@dataclass(frozen=True)
class Attributes:
    """Attribute names in a fixed order, with groups and parts.

    Args:
        names: K unique names; ``group::value`` by convention.
        groups: K group names; by default the part of each name before ``::``.
        parts: K part names, empty if unknown.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("no attributes", hint="add at least one attribute column")
        if len(set(self.names)) != len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise DataError(f'attribute "{twice}" appears twice', hint="rename or remove one")
        check_names(self.names, "attribute")
        taken = next((name for name in self.names if not is_attribute(name)), None)
        if taken is not None:
            problem = f'"{taken}" is a column of the class table, and cannot be an attribute'
            raise DataError(problem, hint="choose another name")
        if not self.groups:
            object.__setattr__(self, "groups", tuple(n.split(SEPARATOR)[0] for n in self.names))
        if not self.parts:
            object.__setattr__(self, "parts", ("",) * len(self.names))
        for label, values in (("groups", self.groups), ("parts", self.parts)):
            if len(values) != len(self.names):
                raise DataError(
                    f"{len(values)} {label} for {counted(len(self.names), 'attribute')}", hint="pass one per attribute"
                )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Name to position."""
        return {name: k for k, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Position of an attribute, ignoring case; raises :class:`DataError` with similar names if there is none."""
        try:
            return self.positions[name]
        except KeyError:
            import difflib

            alike = [k for k, own in enumerate(self.names) if fold(own) == fold(name)]
            if len(alike) == 1:
                return alike[0]
            near = difflib.get_close_matches(name, self.names, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(self.names[:5])}, ..."
            raise DataError(f'no attribute "{name}"', hint=hint) from None

    def by_group(self) -> dict[str, list[int]]:
        """Positions of the attributes of each group, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for k, group in enumerate(self.groups):
            found.setdefault(group, []).append(k)
        return found


def is_attribute(column: str) -> bool:
    """Whether a column of a class table written by the program is an attribute."""
    return column not in NO_VALUES and rank_of(column) is None


def check_names(names: Iterable[str], what: str) -> None:
    """Check that a file can store these names."""
    for name in names:
        if not name.strip():
            raise DataError(f"{'an' if what == 'attribute' else 'a'} {what} has no name", hint=f"name the {what}")
        if not name.isprintable() and any(c in "\0\r" or unicodedata.category(c) == "Cs" for c in name):
            raise DataError(f"the {what} name {name!r} cannot be written to a text file", hint="choose another name")


def read_attributes(path: Path, names: Sequence[str]) -> Attributes:
    """Read ``attributes.csv``, in the order of the class table's columns.

    Raises:
        DataError: an attribute is missing there, unknown here, or named twice.
    """
    columns = read_columns(path, ["attribute"], exact=True)
    no_repeats(columns, "attribute", path, exact=True)
    rows = {name: i for i, name in enumerate(columns["attribute"])}
    for name in names:
        if name not in rows:
            raise DataError(f'attribute "{name}" of the class table is missing', where=path, hint="add a row for it")
    for name, row in rows.items():
        if name not in names:
            raise DataError(
                f'the class table has no column "{name}"', where=place(path, row, "attribute"), hint="remove it"
            )
    order = [rows[name] for name in names]
    groups = tuple(columns["group"][i] for i in order) if "group" in columns else ()
    parts = tuple(columns["part"][i] for i in order) if "part" in columns else ()
    return Attributes(tuple(names), groups, parts)


def write_attributes(path: Path, attributes: Attributes) -> None:
    """Write ``attributes.csv``, with a ``scale`` that takes the values of the class table as they are.

    A folder of tables that the program wrote is therefore also a dataset's, and no column is interpreted.
    """
    import pandas as pd

    frame = pd.DataFrame({"attribute": attributes.names, "group": attributes.groups, "part": attributes.parts})
    write_text(path, frame.assign(scale="as is").to_csv(index=False))
