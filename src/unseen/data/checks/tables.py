"""Checks of the class table: classes with few images, uninformative attributes, classes that are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
import pandas as pd

from unseen.classes.expectations import expectations
from unseen.classes.spreadsheets.cells import fold, place
from unseen.classes.spreadsheets.columns import Column, Encoding, parts_of
from unseen.classes.spreadsheets.numbers import read_numbers
from unseen.classes.spreadsheets.values import to_numbers
from unseen.classes.table import ClassTable
from unseen.classes.taxonomy import Taxonomy
from unseen.data.checks.findings import Recorder
from unseen.data.folder import (
    Classes,
)
from unseen.errors import DataError
from unseen.ground.words import counted

FEW = 5
"""Seen classes with fewer images get a warning."""
IMBALANCE = 20
HARDLY = 0.05
"""Share of an attribute's range below which classes hardly differ, as after filling a blank cell."""
_NO_CLASSES = """total totals sum sums mean means average avg median min minimum max maximum count std sd unit units
legend note notes summe gesamt insgesamt mittelwert durchschnitt einheit einheiten anzahl legende
somme moyenne unité unités
suma promedio unidad σ ∑ ø"""
NO_CLASSES = frozenset((*_NO_CLASSES.split(), "grand total", "standard deviation"))
"""Names of rows that are rarely classes, folded."""
EXAMPLE = "EXAMPLE"
"""Prefix of the example class names in the template."""


def check_counts(say: Recorder, classes: Classes, seen: np.ndarray, trained: np.ndarray) -> None:
    """Check for classes with too few images, and for imbalance."""
    counts = np.bincount(trained, minlength=len(seen))
    for c in np.flatnonzero(seen & (counts < FEW) & (counts > 0)):
        some = "1 image" if counts[c] == 1 else f"{counts[c]} images"
        what = f"only {some} for training"
        say(
            "warning",
            "classes with few images",
            f'class "{classes.names[c]}"',
            what,
            "add images; aim for 20 or more",
        )
    have = counts[seen & (counts > 0)]
    if len(have) and have.max() > IMBALANCE * have.min():
        most, least = (classes.names[int(np.flatnonzero(seen & (counts == n))[0])] for n in (have.max(), have.min()))
        what = f'"{most}" has {counted(have.max(), "training image")}, "{least}" {have.min()}'
        say("warning", "class imbalance", classes.path, what, "add images of the rare classes")
    if seen.all():
        what = "every class has images, so there is no unseen class"
        say(
            "warning",
            "no unseen classes",
            classes.path,
            what,
            "add rows for classes without images now or later",
        )


def check_ranks(say: Recorder, classes: Classes, taxonomy: Taxonomy) -> None:
    """Check for classes without a taxon, and for ranks that separate nothing."""
    for i, rank in enumerate(taxonomy.ranks):
        without = [name for name, taxa in zip(classes.names, taxonomy.taxa, strict=True) if not taxa[i]]
        where = f"{classes.path.name}, {rank}"
        if without:
            shown = ", ".join(without[:4]) + (", ..." if len(without) > 4 else "")
            what = f"{len(without)} {'class has' if len(without) == 1 else 'classes have'} none ({shown})"
            say("note", "ranks", where, what, "their confidence counts for no taxon of this rank")
        elif len(taxonomy.names(i)) == 1:
            what = f'all classes are in "{taxonomy.names(i)[0]}"'
            say("note", "ranks", where, what, "such a rank is never an answer")


def check_table(say: Recorder, classes: Classes, seen: np.ndarray) -> None:
    """Check what the attributes of the table can tell apart, and how names and cells are written."""
    values, names = classes.values, classes.attributes.names
    low, high = values.min(axis=0), values.max(axis=0)
    varies = high > low
    once = np.ones(len(names), dtype=bool)  # an ordered column has two attributes; report only the upper one
    if classes.encoding is not None:
        lower = {column.attributes[0] for column in classes.encoding.columns if column.ends}
        once = np.array([name not in lower for name in names])
    for k in np.flatnonzero(~varies & once):
        say(
            "warning",
            "constant attributes",
            f'attribute "{names[k]}"',
            "the same in every class",
            "it carries no information",
        )
    if seen.any():
        constant = varies & (np.ptp(values[seen], axis=0) <= HARDLY * np.ptp(values, axis=0))
        for k in np.flatnonzero(constant & once):
            what = "the same in every class with images, so it cannot be learned"
            hint = "add images of a class with another value"
            say("warning", "attributes that cannot be learned", f'attribute "{names[k]}"', what, hint)
        has = values == high
        flag = (has | (values == low)).all(axis=0)
        for k in np.flatnonzero(flag & varies & ~constant & (has[seen].sum(axis=0) == 1) & (seen.sum() > 3)):
            c = int(np.flatnonzero(seen & has[:, k])[0])
            what = f'only one class with images has it: "{classes.names[c]}"'
            hint = "the model cannot separate it from the other attributes of that class"
            say("warning", "attributes of one class", f'attribute "{names[k]}"', what, hint)
        _check_expectations(say, classes, seen)
    _check_equal_columns(say, classes, varies & once)
    _check_twins(say, classes, low, high)
    _check_names(say, classes)
    _check_totals(say, classes, seen)
    if classes.frame is not None and classes.encoding is not None:
        _check_cells(say, classes, classes.frame, classes.encoding)


def _check_expectations(say: Recorder, classes: Classes, seen: np.ndarray) -> None:
    """Say which unseen classes have distinctive attributes that no class with images has."""
    with suppress(DataError):  # such a table is refused elsewhere
        table = ClassTable(classes.names, classes.attributes, classes.values, seen)
        for expected in expectations(table):
            if expected.missing:
                level = "warning" if expected.trouble else "note"
                hint = "add images of a class that has them, or of this class"
                say(level, "what to expect of unseen classes", f'class "{expected.name}"', expected.text, hint)


def _check_equal_columns(say: Recorder, classes: Classes, varies: np.ndarray) -> None:
    """Check for attributes that always occur together, which no method can tell apart."""
    if len(classes.names) < 4:
        return
    columns = np.flatnonzero(varies)
    unit = classes.values[:, columns] - classes.values[:, columns].mean(axis=0)
    unit = unit / np.linalg.norm(unit, axis=0)
    likeness = unit.T @ unit
    signs = np.where(np.abs(likeness) > 1 - 1e-9, np.sign(likeness), 0)
    names, groups = classes.attributes.names, classes.attributes.groups
    left = np.arange(len(columns))
    while len(left):
        mine = signs[left[0], left]
        same: dict[str, tuple[str, float]] = {}  # of every group one attribute, one that occurs with the first if any
        for k in np.argsort(-mine, kind="stable"):
            if mine[k]:
                same.setdefault(groups[columns[left[k]]], (names[columns[left[k]]], mine[k]))
        left = left[mine == 0]
        if len(same) > 1:
            two, opposed = len(same) == 2, any(sign < 0 for _, sign in same.values())
            kind = "are opposites" if opposed and two else "always occur together"
            say(
                "warning",
                "redundant attributes",
                f"attributes {_some([name for name, _ in same.values()])}",
                f"they {kind}{', or are opposites,' if opposed and not two else ''} in every class",
                f"{'drop one' if two else 'keep one of them'}, or add classes",
            )


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first of at least two names in quotes, and how many more there are."""
    told = [f'"{name}"' for name in names[:most]]
    told += [f"{len(names) - most} more"] if len(names) > most else []
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _check_twins(say: Recorder, classes: Classes, low: np.ndarray, high: np.ndarray) -> None:
    """Check for pairs of classes with the same attributes, or that differ in only one group of attributes.

    Values differ if they are more than a tenth of the attribute's range apart. Parallel rows count as equal.
    """
    values, groups = classes.values, list(dict.fromkeys(classes.attributes.groups))
    of = np.array([groups.index(g) for g in classes.attributes.groups])
    step = np.where(high > low, high - low, 1.0) / 10
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(norms > 0, norms, 1)
    for i in range(len(values) - 1):
        differs = np.abs(values[i + 1 :] - values[i]) > step
        same = np.abs(unit[i + 1 :] - unit[i]).max(axis=1) < 1e-9
        counts = np.zeros((len(differs), len(groups)), dtype=bool)
        for g in range(len(groups)):
            counts[:, g] = differs[:, of == g].any(axis=1)
        close = counts.sum(axis=1) <= 1
        for offset in np.flatnonzero(same | (close & (len(groups) > 3))):
            where = f'classes "{classes.names[i]}" and "{classes.names[i + 1 + offset]}"'
            if same[offset] or not counts[offset].any():
                exactly = "the same attributes" if same[offset] else "nearly the same attributes"
                what, kind = f"{exactly}: the model cannot separate them", "indistinguishable classes"
                hint = "add an attribute that separates them"
            else:
                group = groups[int(np.flatnonzero(counts[offset])[0])]
                what, kind = f'they differ in "{group}" alone', "classes that are nearly alike"
                hint = "add more attributes that separate them"
            say("warning", kind, where, what, hint)


def _check_names(say: Recorder, classes: Classes) -> None:
    """Check for class names that are probably spellings of one class, and for example rows of the template."""
    for row, name in enumerate(classes.names):
        if name.startswith(EXAMPLE):
            what = f'"{name}" is an example row of the template'
            say(
                "warning",
                "example rows",
                place(classes.path, row),
                what,
                "replace it with your own class, or remove it",
            )
    folded = [fold(name) for name in classes.names]
    for (i, a), (j, b) in _alike(folded):
        where = place(classes.path, j, "class")
        what = f'"{classes.names[j]}" is spelled nearly like "{classes.names[i]}" in row {i + 2}'
        hint = "rename or remove one" if a == b else "if they are the same class, keep one row"
        say("warning", "similar class names", where, what, hint)


def _alike(words: Sequence[str], most: int = 400) -> Iterable[tuple[tuple[int, str], tuple[int, str]]]:
    """Yield pairs of words that differ by about one letter; only equal words if there are more than ``most``."""
    pairs = combinations(enumerate(words), 2)
    if len(words) > most:
        first: dict[str, int] = {}
        for i, word in enumerate(words):
            if first.setdefault(word, i) != i:
                yield (first[word], word), (i, word)
        return
    for (i, a), (j, b) in pairs:
        letters = [("".join(c for c in w if not c.isdigit())) for w in (a, b)]
        if a == b or (min(map(len, letters)) >= 5 and letters[0] != letters[1] and _close(a, b)):
            yield (i, a), (j, b)


def _close(a: str, b: str) -> bool:
    """Whether two words differ by one letter inserted, removed or replaced, or by two letters swapped."""
    if abs(len(a) - len(b)) > 1 or not _share_end(a, b):
        return False
    return SequenceMatcher(None, a, b, autojunk=False).ratio() > 1 - 1.5 / max(len(a), len(b))


def _share_end(a: str, b: str) -> bool:
    return a[:2] == b[:2] or a[-2:] == b[-2:]


def _check_totals(say: Recorder, classes: Classes, seen: np.ndarray) -> None:
    """Check for rows that sum up or explain the others: without images, such a row would be an unseen class."""
    for row, name in enumerate(classes.names):
        if fold(name.rstrip(":")) in NO_CLASSES and not seen[row]:
            what = f'"{name}" has the name of a total or a unit, and counts as an unseen class'
            say(
                "warning",
                "rows that may be no class",
                place(classes.path, row, "class"),
                what,
                "remove the row if it is none",
            )


def _check_extreme(say: Recorder, classes: Classes, frame: pd.DataFrame, column: Column) -> None:
    """Check for one number so far from the others that these become almost equal on the column's scale."""
    cells = list(frame[column.name])
    read = read_numbers(cells, column.missing, column.decimal, codes=False)
    values = np.array(read.values)
    order = [int(row) for row in np.argsort(values) if np.isfinite(values[row])]
    for row, others in ((order[-1], order[:-1]), (order[0], order[1:])) if len(order) > 3 else ():
        low, high = values[others].min(), values[others].max()
        if len({*values[others]}) > 2 and high - low <= HARDLY * np.ptp(values[order]):
            where = place(classes.path, row, column.name)
            what = f'"{cells[row]}" is far from the others, {low:g} to {high:g}, which become almost equal'
            hint = "correct it" + (', or give the column the scale "log" in the attributes sheet' * (column.low > 0))
            say("warning", "cells that may be misread", where, what, hint)


def _check_cells(say: Recorder, classes: Classes, frame: pd.DataFrame, encoding: Encoding) -> None:
    """Check for columns that are not attributes, values with two spellings, and mostly blank rows and columns."""
    for column in encoding.columns:
        where = f'{classes.path.name}, column "{column.name}"'
        if column.kind not in ("ignored", "marks") and 2 * column.blanks > len(frame):
            what = f"{column.blanks} of {len(frame)} cells are blank and get the mean of the others"
            say("warning", "mostly blank", where, what, "fill in more cells, or remove the column")
        cells = to_numbers(frame[column.name])
        if column.kind in ("number", "as is") and len(cells) > 3 and (np.diff(cells) == 1).all():
            hint = 'if it is a row number, remove it or set its scale to "ignore"'
            say("warning", "row numbers", where, "it numbers the rows", hint)
        if column.kind == "number" and not column.log:
            _check_extreme(say, classes, frame, column)
        if column.kind == "categories":
            used = Counter(fold(p) for cell in frame[column.name] for p in parts_of(cell))
            steps = [fold(step) for step in column.steps]
            for (i, a), (j, b) in _alike(steps):
                rare, other = (i, j) if used[a] <= used[b] else (j, i)
                if used[steps[rare]] == 1:
                    rows = [r for r, cell in enumerate(frame[column.name]) if steps[rare] in fold(cell)]
                    at = place(classes.path, rows[0], column.name) if rows else where
                    what = f'"{column.steps[rare]}" appears once, and "{column.steps[other]}" is spelled nearly alike'
                    say("warning", "similar values", at, what, "if they are the same, spell them alike")
    used_columns = [c.name for c in encoding.columns if c.kind not in ("ignored", "marks")]
    if len(used_columns) > 2:
        by_name = {c.name: c for c in encoding.columns}
        blank = frame[used_columns].apply(lambda cells: cells.map(by_name[cells.name].is_blank)).sum(axis=1)
        for row in np.flatnonzero(2 * blank > len(used_columns)):
            if blank.iloc[row] < len(used_columns):
                what = f"{blank.iloc[row]} of {len(used_columns)} attributes are blank"
                hint = "fill in more; they are all the model knows about an unseen class"
                say("warning", "mostly blank", place(classes.path, int(row)), what, hint)
