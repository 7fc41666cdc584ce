"""The class table: classes and their attributes.

Only the table knows classes; a trained method knows attributes. You can therefore add, hide or rename a class at any
time without changing the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unseen.classes.spreadsheets.cells import exact_text, fold, place, spelled
from unseen.classes.spreadsheets.tables import read_columns
from unseen.classes.spreadsheets.values import flags, no_repeats, numbers
from unseen.classes.taxonomy import PREFIX, Taxonomy, looks_like_rank, rank_of
from unseen.errors import DataError
from unseen.ground.files import write_text
from unseen.ground.words import counted

if TYPE_CHECKING:
    import pandas as pd

    Values = Sequence[float] | np.ndarray | Mapping[str, float] | pd.Series[float]
    """A class's attribute values: K numbers, or a mapping or Series from attribute names."""
from unseen.classes.attributes import (
    FORMER,
    NO_VALUES,
    TRAINED_AS,
    Attributes,
    check_names,
    is_attribute,
    read_attributes,
)

SHOWN = 5
"""Number of classes that a table's representation names."""
RESERVED = ("unknown", "seen", "unseen")
"""Reserved class names: predictions and options use these words."""


def in_order(seen: np.ndarray) -> np.ndarray:
    """``(N,)`` positions of the seen classes among themselves, -1 for the others."""
    return np.where(seen, np.cumsum(seen) - 1, -1)


def reserved(name: str) -> DataError | None:
    """Error for a class name that answers and options use."""
    if name.strip().casefold() not in RESERVED:
        return None
    hint = 'choose another name, such as "unknown species"'
    return DataError(f'"{name}" is reserved for answers and cannot be a class name', hint=hint)


def _frozen(values: np.ndarray, dtype: type) -> np.ndarray:
    """A read-only copy, or the array itself if it is read-only already."""
    if isinstance(values, np.ndarray) and values.dtype == dtype and values.base is None and not values.flags.writeable:
        return values
    copy: np.ndarray = np.array(values, dtype=dtype)
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Classes and their attribute values. Immutable: every change returns a new table.

    Args:
        names: N unique class names; all arrays have this order.
        attributes: the K attributes.
        values: float64 ``(N, K)``, finite, without rows of zeros. In any unit; methods normalize.
        seen: bool ``(N,)``, classes with training images.
        validation: bool ``(N,)``, seen classes that a release reserves for validation; ``None`` if it names none.
        trained: int64 ``(N,)``, position of each class among a trained model's seen classes (from 0, in training
            order), or -1; by default the seen classes in order.
        taxonomy: taxa of each class, such as genus and family; ``None`` for none.
        former: former to current name of renamed classes, the first name of each class first. A former name still finds
            its class, unless another class has it now, so that files and commands from before the change keep their
            meaning.

    Raises:
        DataError: duplicate names, wrong shapes, values that are not finite or all zero, or unseen validation classes.
    """

    names: tuple[str, ...]
    attributes: Attributes
    values: np.ndarray
    seen: np.ndarray
    validation: np.ndarray | None = None
    trained: np.ndarray | None = None
    taxonomy: Taxonomy | None = None
    former: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, k = len(self.names), len(self.attributes)
        values = _frozen(self.values, np.float64)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "seen", _frozen(self.seen, bool))
        if self.seen.shape != (n,):
            raise DataError(
                f"{counted(self.seen.size, 'seen flag')} for {counted(n, 'class')}", hint="pass one per class"
            )
        trained = in_order(self.seen) if self.trained is None else self.trained
        object.__setattr__(self, "trained", _frozen(trained, np.int64))
        check_names(self.names, "class")
        for error in filter(None, map(reserved, self.names)):
            raise error
        if len(set(self.names)) != n:
            twice = next(c for c in self.names if self.names.count(c) > 1)
            raise DataError(f'class "{twice}" already exists', hint="choose another name, or edit that class")
        if values.shape != (n, k):
            raise DataError(f"attribute values have shape {values.shape}, not {(n, k)}", hint="pass one row per class")
        finite = np.isfinite(values)
        if not finite.all():
            c, a = np.argwhere(~finite)[0]
            raise DataError(
                f'class "{self.names[c]}", attribute "{self.attributes.names[a]}": {values[c, a]} is not a number',
                hint="use a finite number",
            )
        empty = np.flatnonzero(~values.any(axis=1))
        if len(empty):
            raise DataError(
                f'class "{self.names[empty[0]]}" has only zeros as attributes', hint="set at least one attribute"
            )
        if self.validation is not None:
            validation = _frozen(self.validation, bool)
            object.__setattr__(self, "validation", validation)
            if validation.shape != (n,):
                raise DataError(
                    f"{counted(validation.size, 'validation flag')} for {counted(n, 'class')}",
                    hint="pass one per class",
                )
            wrong = np.flatnonzero(validation & ~self.seen)
            if len(wrong):
                raise DataError(
                    f'validation class "{self.names[wrong[0]]}" is unseen', hint="use seen classes for validation"
                )

        if self.images_of.shape != (n,):
            raise DataError(
                f"{counted(self.images_of.size, 'position')} in the training for {counted(n, 'class')}",
                hint="pass one per class",
            )
        if self.taxonomy is not None and len(self.taxonomy) != n:
            raise DataError(
                f"the taxa of {counted(len(self.taxonomy), 'class')} for {n}", hint="pass those of every class"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        """Counts and the first names, in one line."""
        seen = int(self.seen.sum())
        first = ", ".join(self.names[:SHOWN]) + (", ..." if len(self) > SHOWN else "")
        counts = (
            f"{seen} seen and {counted(len(self) - seen, 'unseen class')}, {counted(len(self.attributes), 'attribute')}"
        )
        return f"<ClassTable: {counts}: {first}>"

    def _repr_html_(self) -> str:
        """For notebooks: the table."""
        html: str = self.to_frame().to_html(max_rows=2 * SHOWN, max_cols=4 * SHOWN, notebook=True)
        return html

    @property
    def images_of(self) -> np.ndarray:
        """``(N,)`` :attr:`trained`, which a table always has once it is made."""
        assert self.trained is not None
        return self.trained

    def index(self, name: str) -> int:
        """Position of a class by its name, ignoring case, or by a former one.

        Raises:
            DataError: no such class; the error suggests similar names.
        """
        try:
            return self.names.index(name)
        except ValueError:
            import difflib

            alike = [c for c, own in enumerate(self.names) if fold(own) == fold(name)]
            if len(alike) == 1:
                return alike[0]
            if not alike and (now := self.name_now(name)) is not None:
                return self.names.index(now)
            near = difflib.get_close_matches(name, self.names, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "use a name from the class table"
            raise DataError(f'no class "{name}"', hint=hint) from None

    def name_now(self, name: str) -> str | None:
        """Current name of a class that was called ``name``, ignoring case; ``None`` if none was, or one still is."""
        wanted = fold(name)
        if any(fold(own) == wanted for own in self.names):
            return None
        return next((now for then, now in self.former.items() if fold(then) == wanted), None)

    def taxa(self, position: int) -> dict[str, str]:
        """Rank to taxon of a class, coarsest first, without unknown ones."""
        return {} if self.taxonomy is None else self.taxonomy.of(position)

    def select(self, classes: Iterable[int], seen: np.ndarray | None = None) -> ClassTable:
        """The table of the given classes to train on, in the given order, optionally with other ``seen`` flags."""
        rows = np.asarray(list(classes), dtype=int)
        return ClassTable(
            tuple(self.names[i] for i in rows),
            self.attributes,
            self.values[rows],
            self.seen[rows] if seen is None else seen,
            None if seen is not None or self.validation is None else self.validation[rows],
            taxonomy=None if self.taxonomy is None else self.taxonomy.select(rows),
        )

    @cached_property
    def unknown(self) -> np.ndarray:
        """``(K,)`` values for unknown attributes: the mean of the seen classes, or of all if none is seen."""
        return np.asarray(self.values[self.seen if self.seen.any() else slice(None)].mean(axis=0))

    def with_class(
        self,
        name: str,
        values: Values,
        *,
        seen: bool = False,
        trained: int = -1,
        taxa: Mapping[str, str] | None = None,
    ) -> ClassTable:
        """The table with a class added at the end.

        Args:
            name: name of the new class.
            values: K numbers, or a mapping or Series from attribute names (others are unknown, see :attr:`unknown`), in
                the table's unit.
            seen: whether it has training images.
            trained: position of the class in the training, see the class's docstring.
            taxa: rank to taxon, see :meth:`with_taxa`.
        """
        self._check_free(name)
        values = _by_name(values)
        if isinstance(values, Mapping) and not values:
            raise DataError(f'class "{name}" has only zeros as attributes', hint="set at least one attribute")
        rows = np.vstack([self.values, self.row(values, name, self.unknown)])
        rows.flags.writeable = False
        return ClassTable(
            (*self.names, name),
            self.attributes,
            rows,
            np.append(self.seen, seen),
            None if self.validation is None else np.append(self.validation, False),
            np.append(self.images_of, trained),
            self._with_taxa(len(self), taxa or {}),
            {then: now for then, now in self.former.items() if fold(then) != fold(name)},
        )

    def _check_free(self, name: str, position: int = -1) -> None:
        """Raise DataError if another class than that at the position differs in case or spaces alone."""
        if not isinstance(name, str):
            raise DataError(f"{name!r:.60} is not a class name", hint="pass text")
        alike = next((own for c, own in enumerate(self.names) if c != position and spelled(own) == spelled(name)), name)
        if alike != name:
            problem = f'class "{name}" and class "{alike}" differ only in case or spaces'
            raise DataError(problem, hint="choose another name, or edit that class")

    def with_taxa(self, name: str, taxa: Mapping[str, str]) -> ClassTable:
        """The table with other taxa for a class.

        Args:
            name: name of the class.
            taxa: rank to taxon, ``""`` for none; other ranks follow from other classes, or stay.

        Raises:
            UnseenError: no such rank.
            DataError: other classes contradict this, for example a genus would be in two families.
        """
        return replace(self, taxonomy=self._with_taxa(self.index(name), taxa))

    def _with_taxa(self, row: int, taxa: Mapping[str, str]) -> Taxonomy | None:
        if self.taxonomy is None and not taxa:
            return None
        return (self.taxonomy or Taxonomy((), ((),) * len(self))).with_row(row, taxa)

    def back_from(self, training: ClassTable, name: str) -> int:
        """Position in the training of a removed class that comes back as ``name``; else -1."""
        found = int(training.images_of[training.names.index(name)]) if name in training.names else -1
        return -1 if found in self.images_of else found

    def row(self, values: Values, name: str, start: np.ndarray | None = None) -> np.ndarray:
        """Values of a class as float64 ``(K,)``.

        Args:
            values: K numbers, or a mapping from attribute names.
            name: name of the class, for errors.
            start: ``(K,)`` values of attributes that the mapping omits; by default 0.
        """
        values = _by_name(values)
        if not isinstance(values, Mapping):
            try:
                row = np.array(values.tolist() if hasattr(values, "tolist") else values, dtype=np.float64)
            except (TypeError, ValueError):
                problem = f'class "{name}": {type(values).__name__} is no row of attribute values'
                hint = f"pass {len(self.attributes)} numbers, or a dict from attribute names"
                raise DataError(problem, hint=hint) from None
            if row.shape != (len(self.attributes),):
                raise DataError(f'class "{name}": {counted(row.size, "value")}', hint=f"pass {len(self.attributes)}")
            return row
        row = np.zeros(len(self.attributes)) if start is None else np.array(start, dtype=np.float64)
        for attribute, value in values.items():
            try:
                row[self.attributes.index(attribute)] = value
            except (TypeError, ValueError):
                raise DataError(
                    f'class "{name}", attribute "{attribute}": {value!r} is not a number', hint="use a number"
                ) from None
        return row

    def with_values(self, name: str, values: Values) -> ClassTable:
        """The table with other values for a class.

        Args:
            name: name of the class.
            values: K numbers, or a mapping from attribute names; omitted ones stay.
        """
        position = self.index(name)
        changed = self.values.copy()
        changed[position] = self.row(values, name, self.values[position])
        return replace(self, values=changed)

    def without(self, name: str) -> ClassTable:
        """The table without one class."""
        gone = self.index(name)
        kept = np.delete(np.arange(len(self)), gone)
        former = {then: now for then, now in self.former.items() if now != self.names[gone]}
        return replace(self.select(kept), trained=self.images_of[kept], former=former)

    def renamed(self, old: str, new: str) -> ClassTable:
        """The table with a class renamed; see :attr:`former`."""
        names, position = list(self.names), self.index(old)
        old, names[position] = names[position], new
        self._check_free(new, position)
        former = {then: new if now == old else now for then, now in self.former.items()}
        former.setdefault(old, new)  # a name that another class had before stays that class's
        mine = [then for then, now in former.items() if now == new]
        if mine[:1] != [new] or len(mine) == 1:  # its own name tells something only as its first name among others
            former = {then: now for then, now in former.items() if (then, now) != (new, new)}
        return replace(self, names=tuple(names), former=former)

    @property
    def origins(self) -> dict[str, str]:
        """First to current name of every class: what stays the same if classes are renamed, even if two swap names."""
        first: dict[str, str] = {}
        for then, now in self.former.items():
            first.setdefault(now, then)
        return {first.get(name, name): name for name in self.names}

    def twins(self) -> list[tuple[str, str]]:
        """Pairs of classes with equal attributes: their unit vectors agree to 1e-9."""
        unit = self.values / np.linalg.norm(self.values, axis=1, keepdims=True)
        _, inverse = np.unique(unit.round(9), axis=0, return_inverse=True)
        first: dict[int, int] = {}
        pairs = []
        for i, group in enumerate(inverse.ravel()):
            if int(group) in first:
                pairs.append((self.names[first[int(group)]], self.names[i]))
            else:
                first[int(group)] = i
        return pairs

    def to_csv(self, path: Path, *, trained: bool = False) -> None:
        """Write ``classes.csv``: class, seen, validation if known, ``rank:...``, and one column per attribute.

        A column ``trained_as`` holds :attr:`trained` if the seen classes are no longer those of the training, or on
        request, and a column ``former_names`` the lists of :attr:`former` if there are any, as JSON.
        """
        import pandas as pd

        frame = pd.DataFrame({"class": self.names, "seen": self.seen.astype(int)})
        if self.validation is not None:
            frame["validation"] = self.validation.astype(int)
        if trained or not np.array_equal(self.images_of, in_order(self.seen)):
            frame[TRAINED_AS] = self.images_of
        if self.former:
            then = [[former for former, now in self.former.items() if now == name] for name in self.names]
            frame[FORMER] = [json.dumps(names, ensure_ascii=False) if names else "" for names in then]
        for rank, taxa in self._rank_columns().items():
            frame[rank] = taxa
        values = [[exact_text(value) for value in row] for row in self.values.tolist()]
        frame = pd.concat([frame, pd.DataFrame(values, columns=list(self.attributes.names))], axis=1)
        write_text(path, frame.to_csv(index=False))

    def _rank_columns(self) -> dict[str, list[str]]:
        """Header to taxa, coarsest first."""
        found = self.taxonomy
        return {} if found is None else {f"{PREFIX}{r}": [t[i] for t in found.taxa] for i, r in enumerate(found.ranks)}

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame indexed by class: ``seen``, ``validation`` where known, ``rank:...``, a column per attribute."""
        import pandas as pd

        columns: dict[str, Any] = {"seen": self.seen}
        if self.validation is not None:
            columns["validation"] = self.validation
        columns |= self._rank_columns()
        index = pd.Index(self.names, name="class")
        values = pd.DataFrame(self.values, index=index, columns=list(self.attributes.names))
        return pd.concat([pd.DataFrame(columns, index=index), values], axis=1)

    @classmethod
    def from_frame(cls, frame: Any) -> ClassTable:
        """A table from a DataFrame indexed by class (or with a column ``class``) and one column per attribute.

        Args:
            frame: the DataFrame, optionally with ``seen`` and ``validation`` as booleans (otherwise all classes are
                seen), and ranks (``genus``, ``family``, ..., ``rank:NAME``) with names; a mapping of class to a mapping
                of attribute to number; or a table, which is returned.

        Raises:
            DataError: the first value that is not a number, with row and column.
        """
        import pandas as pd

        if isinstance(frame, cls):
            return frame
        if isinstance(frame, Mapping):
            frame = pd.DataFrame.from_dict(dict(frame), orient="index")
        if not isinstance(frame, pd.DataFrame):
            problem = f"{type(frame).__name__} is not a class table"
            raise DataError(problem, where="attributes", hint="pass a DataFrame indexed by class")
        if "class" in frame.columns:
            frame = frame.set_index("class")
        names = tuple(str(name) for name in frame.index)
        marks = {mark: frame[mark].to_numpy(dtype=bool) for mark in ("seen", "validation") if mark in frame.columns}
        frame = frame.drop(columns=list(marks))
        texts = {c: ["" if pd.isna(cell) else str(cell) for cell in frame[c]] for c in frame.columns}
        ranks = {c: rank_of(str(c)) or str(c) for c in texts if rank_of(str(c)) or looks_like_rank(str(c), texts[c])}
        taxonomy = Taxonomy.of_columns({rank: texts[c] for c, rank in ranks.items()}) if ranks else None
        frame = frame.drop(columns=list(ranks))
        for column in frame.columns:
            found = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
            if not np.isfinite(found).all():
                row = int(np.flatnonzero(~np.isfinite(found))[0])
                where = f'attributes, class "{names[row]}", column "{column}"'
                problem = f'"{frame[column].iloc[row]}" is not a number'
                raise DataError(problem, where=where, hint="use a finite number")
        attributes = Attributes(tuple(str(column) for column in frame.columns))
        values = frame.to_numpy(dtype=np.float64)
        seen = marks.get("seen", np.ones(len(names), bool))
        return cls(names, attributes, values, seen, marks.get("validation"), taxonomy=taxonomy)

    @classmethod
    def from_csv(cls, path: Path | str, attributes: Path | str | None = None) -> ClassTable:
        """Read what :meth:`to_csv` and, if present, :func:`write_attributes` wrote, exactly.

        Raises:
            DataError: the first error, with file, row and column.
        """
        path = Path(path)
        columns = read_columns(path, ["class", "seen"], exact=True)
        if not columns["class"]:
            raise DataError("no classes", where=path, hint="pass one row per class")
        no_repeats(columns, "class", path, exact=True)
        names = [c for c in columns if is_attribute(c)]
        if not names:
            raise DataError(
                "no attribute columns", where=path, hint="pass one column per attribute, after class and seen"
            )
        values = numbers(columns, names, path)
        table_attributes = Attributes(tuple(names))
        if attributes is not None and Path(attributes).is_file():
            table_attributes = read_attributes(Path(attributes), names)
        seen = flags(columns, "seen", path)
        validation = flags(columns, "validation", path) if "validation" in columns else None
        trained = numbers(columns, [TRAINED_AS], path)[:, 0].astype(int) if TRAINED_AS in columns else None
        former = _former(columns, path) if FORMER in columns else {}
        ranks = {c: rank for c in columns if (rank := rank_of(c)) is not None}
        taxa = tuple(zip(*(columns[c] for c in ranks), strict=True))
        taxonomy = Taxonomy(tuple(ranks.values()), taxa) if ranks else None
        empty = np.flatnonzero(~values.any(axis=1))
        if len(empty):
            raise DataError(
                f'class "{columns["class"][empty[0]]}" has only zeros as attributes',
                where=place(path, int(empty[0])),
                hint="set at least one attribute",
            )
        wrong = np.flatnonzero(~seen & (False if validation is None else validation))
        if len(wrong):
            raise DataError(
                f'validation class "{columns["class"][wrong[0]]}" is unseen',
                where=place(path, int(wrong[0]), "validation"),
                hint="use seen classes for validation",
            )
        return cls(tuple(columns["class"]), table_attributes, values, seen, validation, trained, taxonomy, former)


def _former(columns: Mapping[str, Sequence[str]], path: Path) -> dict[str, str]:
    """Former to current names from a column of JSON lists."""
    found: dict[str, str] = {}
    for row, (now, cell) in enumerate(zip(columns["class"], columns[FORMER], strict=True)):
        try:
            names = json.loads(cell) if cell else []
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            hint = 'use a list such as ["old name"], or leave it blank'
            raise DataError(f'"{cell}" is not a list of names', where=place(path, row, FORMER), hint=hint)
        found |= dict.fromkeys(names, now)
    return found


def _by_name(values: Values) -> Any:
    """A Series of attribute names as a mapping, without other columns of a class table; other values unchanged."""
    if isinstance(values, Mapping) or not hasattr(values, "to_dict"):
        return values
    named: dict[Any, float] = values.to_dict()
    if not all(isinstance(name, str) for name in named):
        return np.asarray(values)
    return {name: value for name, value in named.items() if name not in NO_VALUES and not name.startswith(PREFIX)}
