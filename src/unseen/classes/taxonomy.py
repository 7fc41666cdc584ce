"""Ranks above the class, such as genus and family: what can be said about an image if its class is uncertain.

One hierarchy: a taxon of a finer rank belongs to one taxon of every coarser rank.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unseen.classes.spreadsheets.cells import fold
from unseen.classes.spreadsheets.flags import NO_WORDS, YES_WORDS
from unseen.classes.spreadsheets.numbers import DASHES, is_missing, measure
from unseen.errors import DataError, UnseenError

DARWIN_CORE = (
    "kingdom",
    "phylum",
    "order",
    "superfamily",
    "family",
    "subfamily",
    "tribe",
    "subtribe",
    "genus",
    "subgenus",
)
"""Ranks that a column header alone declares, coarsest first (https://dwc.tdwg.org/terms/#taxon).

Without ``class``, which is the column of classes here.
"""
PREFIX = "rank:"
"""Prefix of the header of any other rank's column, and of every rank in tables that the program writes."""
TAKEN = (
    "answer",
    "answer_rank",
    "attributes",
    "best_class",
    "class",
    "classes",
    "confidence",
    "error",
    "file",
    "image",
    "known",
    "prior",
    "probably",
    "rank",
    "ranks",
    "seen",
    "together",
    "unknown",
    "validation",
)
"""Reserved rank names: columns of predictions and class tables have them."""
_TAKEN = re.compile(r"(class|confidence)_.*|.*_confidence")
_FLAGS = (YES_WORDS | NO_WORDS) - {"o", "j"}  # letters that may be a name
_HEADER = re.compile(r"rank:(?!:)\s*(.*\S)\s*", re.IGNORECASE)


def rank_of(header: str) -> str | None:
    """The rank that a header with :data:`PREFIX` declares; ``None`` for others (``rank::captain`` is one)."""
    found = _HEADER.fullmatch(header)
    return found[1] if found else None


def looks_like_rank(header: str, cells: Sequence[str]) -> bool:
    """Whether a column is a rank: a header in Darwin Core terms, and cells that are names rather than measurements."""
    if fold(header) not in DARWIN_CORE:
        return False
    filled = [cell for cell in cells if not _is_blank(cell)]
    return bool(filled) and not any(
        measure(cell) is not None or cell.casefold() in _FLAGS or ";" in cell for cell in filled
    )


def _is_blank(cell: str) -> bool:
    return is_missing(cell) or cell.strip() in DASHES


@dataclass(frozen=True)
class Conflict:
    """A taxon that belongs to two taxa of a coarser rank.

    Args:
        rank, taxon: the finer one.
        above: the coarser rank.
        parents: its taxa, to the rows that state them.
    """

    rank: str
    taxon: str
    above: str
    parents: Mapping[str, Sequence[int]]

    def error(self, where: str | None, rows: Mapping[str, str]) -> DataError:
        """The error in one line; ``rows`` describes the rows of each parent."""
        both = " and ".join(f'"{parent}" ({rows[parent]})' for parent in self.parents)
        problem = f'{self.rank} "{self.taxon}" is in more than one {self.above}: {both}'
        hint = f"correct the rows; call two taxa of one name apart, as in “{self.taxon} (plant)”"
        return DataError(problem, where=where, hint=hint)


def conflicts(ranks: Sequence[str], taxa: Sequence[Sequence[str]]) -> Iterator[Conflict]:
    """Taxa of a finer rank that belong to several of a coarser one; arguments as in :class:`Taxonomy`."""
    for finer in range(len(ranks) - 1, 0, -1):
        for coarser in range(finer - 1, -1, -1):
            parents: dict[str, dict[str, list[int]]] = {}
            for row, names in enumerate(taxa):
                if names[finer] and names[coarser]:
                    parents.setdefault(names[finer], {}).setdefault(names[coarser], []).append(row)
            for taxon, found in parents.items():
                if len(found) > 1:
                    yield Conflict(ranks[finer], taxon, ranks[coarser], found)


@dataclass(frozen=True)
class Taxonomy:
    """The taxa of N classes.

    Args:
        ranks: L rank names, from the coarsest to the finest.
        taxa: one row per class, with the taxon of each rank, ``""`` if unknown.

    Raises:
        DataError: a rank name is reserved or repeated, or a taxon belongs to two of a coarser rank.
    """

    ranks: tuple[str, ...]
    taxa: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for name in self.ranks:
            taken = fold(name) in map(fold, TAKEN) or _TAKEN.fullmatch(name)
            if taken or rank_of(PREFIX + name) != name or not name.isprintable():
                raise DataError(
                    f'a rank cannot be called "{name}"', hint=f'choose another name, such as "taxon {name}"'
                )
        if len(set(self.ranks)) < len(self.ranks):
            raise DataError(f'rank "{max(self.ranks, key=self.ranks.count)}" appears twice', hint="remove one")
        if any(len(row) != len(self.ranks) for row in self.taxa):
            raise DataError("taxa and ranks do not match", hint=f"pass {len(self.ranks)} taxa for every class")
        for taxon in {taxon for row in self.taxa for taxon in row}:
            if not taxon.isprintable() or taxon != taxon.strip():
                raise DataError(f"the taxon {taxon!r} cannot be written to a text file", hint="choose another name")
        for found in conflicts(self.ranks, self.taxa):
            rows = {parent: f"class {rows[0] + 1}" for parent, rows in found.parents.items()}
            raise found.error(None, rows)

    def __len__(self) -> int:
        return len(self.taxa)

    @classmethod
    def of_columns(cls, columns: Mapping[str, Sequence[str]]) -> Taxonomy:
        """A taxonomy from a person's columns: ordered, one spelling per taxon, completed from other rows.

        Args:
            columns: rank to the taxon of each class, in table order.
        """
        return cls(*arranged(columns))

    def rank(self, name: str) -> int:
        """Position of a rank, ignoring case; raises :class:`UnseenError` with the known ones if there is none."""
        folded = [fold(rank) for rank in self.ranks]
        if fold(name) in folded:
            return folded.index(fold(name))
        near = difflib.get_close_matches(fold(name), folded, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(self.ranks)}"
        raise UnseenError(f'the classes have no rank "{name}"', hint=hint)

    def names(self, rank: int) -> tuple[str, ...]:
        """Taxa of a rank, in the order of their first classes."""
        return tuple(dict.fromkeys(row[rank] for row in self.taxa if row[rank]))

    @cached_property
    def codes(self) -> np.ndarray:
        """Int64 ``(N, L)`` positions of each class's taxa in :meth:`names`, -1 for none."""
        found = np.full((len(self.taxa), len(self.ranks)), -1, dtype=np.int64)
        for column in range(len(self.ranks)):
            positions = {name: i for i, name in enumerate(self.names(column))}
            found[:, column] = [positions.get(row[column], -1) for row in self.taxa]
        found.flags.writeable = False
        return found

    def of(self, row: int) -> dict[str, str]:
        """Rank to taxon of a class, without unknown ones."""
        return {rank: taxon for rank, taxon in zip(self.ranks, self.taxa[row], strict=True) if taxon}

    def select(self, rows: Iterable[int]) -> Taxonomy:
        """The taxonomy of some classes."""
        return Taxonomy(self.ranks, tuple(self.taxa[int(row)] for row in rows))

    def with_row(self, row: int, given: Mapping[str, str]) -> Taxonomy:
        """The taxonomy with other taxa for a class, or with one more class; coarser ranks follow from other classes.

        Args:
            row: position of the class; N for a new one.
            given: rank to taxon, ``""`` for none; omitted ranks stay.

        Raises:
            UnseenError: no such rank. Ranks of :data:`DARWIN_CORE`, and the first rank of all, are added.
            DataError: the taxa contradict those of other classes.
        """
        columns = {rank: [names[i] for names in self.taxa] for i, rank in enumerate(self.ranks)}
        count = max(row + 1, len(self.taxa))
        told: dict[str, str] = {}
        for rank, taxon in given.items():
            known = fold(rank) in map(fold, self.ranks)
            new = not known and (not self.ranks or fold(rank) in DARWIN_CORE)
            told[rank if new else self.ranks[self.rank(rank)]] = taxon.strip()
        for rank in (*columns, *told):
            cells = columns.setdefault(rank, [])
            cells += [""] * (count - len(cells))
        for rank, taxon in told.items():
            columns[rank][row] = taxon
        ranks = self.ranks if len(columns) == len(self.ranks) else _ordered(columns)
        finest = max((ranks.index(rank) for rank, taxon in told.items() if taxon), default=0)
        own = columns[ranks[finest]] if ranks else []
        for rank in ranks[:finest]:  # from other classes of the finest taxon, else unchanged
            others = enumerate(zip(own, columns[rank], strict=True))
            above = [a for i, (taxon, a) in others if i != row and a and fold(taxon) == fold(own[row])]
            if rank not in told and above:
                columns[rank][row] = above[0]
        _, taxa = arranged(columns, ranks)
        for found in conflicts(ranks, taxa):
            parents = {p: "as given" if row in rows else "other classes" for p, rows in found.parents.items()}
            raise found.error(None, parents)
        return Taxonomy(ranks, taxa)

    def describe(self) -> str:
        """Ranks with their numbers of taxa: ``family (5), genus (12)``."""
        return ", ".join(f"{rank} ({len(self.names(i))})" for i, rank in enumerate(self.ranks))


def arranged(
    columns: Mapping[str, Sequence[str]], order: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Ranks in order, and the taxa of each class: one spelling per taxon, completed from other rows."""
    ranks = _ordered(columns) if order is None else order
    cells = [_one_spelling(columns[rank]) for rank in ranks]
    for finer in range(len(ranks) - 1, 0, -1):
        for coarser in range(finer):
            above = {t: a for t, a in zip(cells[finer], cells[coarser], strict=True) if t and a}
            cells[coarser] = [a or above.get(t, "") for t, a in zip(cells[finer], cells[coarser], strict=True)]
    return ranks, tuple(zip(*cells, strict=True)) if cells else ()


def _one_spelling(cells: Sequence[str]) -> list[str]:
    """Cells with blanks as ``""``; names that differ only in case and spaces become the first of them."""
    first: dict[str, str] = {}
    return ["" if _is_blank(cell) else first.setdefault(fold(cell), cell.strip()) for cell in cells]


def _ordered(columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Ranks from the coarsest: Darwin Core's in its order, others where they nest, as fine as possible."""
    plain = {rank: fold(rank).rstrip("0123456789") for rank in columns}
    found = [rank for word in DARWIN_CORE for rank in columns if plain[rank] == word]
    cells = {rank: _one_spelling(column) for rank, column in columns.items()}

    def nests(order: Sequence[str]) -> bool:
        return not any(conflicts(order, list(zip(*(cells[rank] for rank in order), strict=True))))

    for rank in sorted((rank for rank in columns if rank not in found), key=lambda r: len(set(cells[r]))):
        places = [[*found[:i], rank, *found[i:]] for i in range(len(found), -1, -1)]
        found = next((order for order in places if nests(order)), places[0])
    return tuple(found)
