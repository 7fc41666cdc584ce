"""Trait tables of ecologists, wide (AVONET) or long (TraitBank), as ``classes.csv`` and ``attributes.csv``.

The use of a column is proposed, not decided: ``attributes.csv`` gives the reason why a column is left out or on a log
scale, and a person can change it there.

Sources: AVONET (Tobias et al. 2022, doi:10.1111/ele.13898), TraitBank (https://eol.org/docs/what-is-eol/data-services),
TRY and the MeasurementOrFact extension of Darwin Core.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unseen.classes.spreadsheets.numbers import is_missing, measure
from unseen.classes.spreadsheets.rows import MOST_CELLS
from unseen.classes.spreadsheets.tables import SUFFIXES, read_table
from unseen.classes.taxonomy import DARWIN_CORE
from unseen.data.layouts.source import Source
from unseen.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

WIDE_TITLE = "trait table with one row per class (such as AVONET), or a Google Sheets link"
LONG_TITLE = "trait table with one row per value (TraitBank, TRY, MeasurementOrFact)"
CLASS = (
    *("class", "species", "scientific name", "canonical name", "taxon name", "binomial", "acc species name"),
    *("species name", "species1", "species2", "species3", "canonical", "taxon", "name", "common name"),
    *("vernacular name", "english name", "label"),
)
TRAIT = ("trait", "trait name", "predicate", "measurement type", "measurement uri", "characteristic", "attribute")
VALUE = (
    *("std value", "normal measurement", "trait value", "measurement value", "value", "orig value str", "literal"),
    *("value uri", "measurement"),
)
UNIT = ("normal units", "units", "unit", "measurement unit", "unit name", "normal units uri", "units uri")
ID = re.compile(r"(^|[ ._-])(id\d*|ids|key|uuid|guid|pk|code|tsn|eol pk|page id|resource pk|avibase id\d*)$")
SAMPLES = re.compile(
    r"^(n|no|count|sample size|samples?|n ?(obs|ind|specimens|individuals|samples?)|(total )?individuals|specimens|"
    r"complete measures|female|male|unknown|replicates?|error risk)$|(^| )(n|sample size|replicates)$"
)
SOURCE = re.compile(
    r"(^| )(refs?|references?|sources?|citations?|url|uri|link|doi|dataset|remarks|notes?|comments?|method|inference|"
    r"traits inferred|reference species|mass refs other)( other)?$"
)
TAXON = re.compile(r"^(kingdom|phylum|order|family|subfamily|genus|tribe|infraorder|suborder|species status)\d*$")
SKEW, WIDE_SPREAD = 1.0, 20.0
"""A log scale is proposed above this skewness, if the logarithm is less skewed and values span this factor."""
LEAST = 8
"""Smallest number of values to measure skewness."""


@dataclass(frozen=True)
class Traits:
    """A trait table in the form of a class table.

    Args:
        frame: one row per class, ``class`` first, with cells as text.
        about: one row per column, for ``attributes.csv``: attribute, scale, description.
        notes: what was done, one line each.
    """

    frame: pd.DataFrame
    about: pd.DataFrame
    notes: tuple[str, ...]


def plain(name: str) -> str:
    """A column's name in lower case, split into words: ``Avibase.ID1`` is ``avibase id1``."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.replace("dwc:", ""))
    return re.sub(r"[\s._:\-/]+", " ", apart).strip().casefold()


def pick(names: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """Columns with one of the wanted names, in the order of these names."""
    of = {plain(name): name for name in reversed(list(names))}
    return [of[w] for w in wanted if w in of]


def recognizes_long(source: Source) -> bool:
    """Whether a table has columns of class, trait and value."""
    return _long_table(source) is not None


def recognizes_wide(source: Source) -> bool:
    """Whether a table has a column of classes, and others."""
    if source.path.is_dir() or source.path.suffix.lower() not in (*SUFFIXES, ".txt"):
        return False
    try:
        names = list(read_table(source.path).columns)
    except DataError:
        return bool(pick(source.header(source.files[0]), CLASS))
    return bool(pick(names, CLASS)) and len(names) > 1


def _long_table(source: Source) -> str | None:
    tables = source.named("traits.csv") if source.path.is_dir() or source.archive else list(source.files)
    for file in tables:
        if not file.lower().endswith((".csv", ".tsv", ".txt")):
            continue
        names = source.header(file)
        of_class = pick(names, CLASS) or ("page_id" in names and source.named("pages.csv"))
        if of_class and pick(names, TRAIT) and pick(names, VALUE):
            return file
    return None


def read_wide(source: Source, label: str | None) -> Traits:
    """A table with one row per class."""
    frame = read_table(source.path)
    column = _column(list(frame.columns), label, CLASS, source.place(source.files[0]))
    others = [n for n in pick(frame.columns, CLASS) if n != column]
    rest = [name for name in frame.columns if name != column]
    frame = frame[[column, *rest]].rename(columns={column: "class"})
    notes = [f'classes are named by "{column}"']
    rows = len(frame)
    frame = frame[frame["class"] != ""]
    if frame["class"].duplicated().any():
        frame = _merged(frame)
        notes.append(f"{rows} rows are {len(frame)} classes: medians of numbers, all words")
    return _proposed(frame, others, notes)


def read_long(source: Source, label: str | None) -> Traits:
    """A table with one row per value."""
    import pandas as pd

    file = _long_table(source)
    assert file is not None
    place = source.place(file)
    frame = _text_table(source, file)
    trait = _column(list(frame.columns), None, TRAIT, place)
    values, units = pick(frame.columns, VALUE), pick(frame.columns, UNIT)
    names = _terms(source)
    if label is None and not pick(frame.columns, CLASS):
        pages = _text_table(source, source.named("pages.csv")[0])
        canonical = _column(list(pages.columns), None, ("canonical", *CLASS), "pages.csv")
        frame["class"] = frame["page_id"].map(dict(zip(pages["page_id"], pages[canonical], strict=True))).fillna("")
    else:
        frame["class"] = frame[_column(list(frame.columns), label, CLASS, place)]
    cells: dict[str, dict[str, list[str]]] = {}
    counted: dict[str, Counter[str]] = {}
    kept: list[tuple[str, str, str, str]] = []
    for row in frame.to_dict("records"):
        value = next((v for name in values if (v := str(row[name]).strip()) and not is_missing(v)), "")
        if not (row["class"] and row[trait] and value):
            continue
        name, word = _word(row[trait], names), _word(value, names)
        unit = next((_word(u, names) for one in units if (u := str(row[one]).strip())), "")
        unit = unit if measure(word) is not None else ""
        counted.setdefault(name, Counter())[unit] += 1
        kept.append((str(row["class"]), name, word, unit))
    if not kept:
        raise DataError("no value", where=place, hint="check the columns of traits and values")
    usual = {name: units_of.most_common(1)[0][0] for name, units_of in counted.items()}
    other = Counter(name for _, name, _, unit in kept if unit != usual[name])
    for cls, name, word, unit in kept:
        if unit == usual[name]:
            column = f"{name} ({unit})" if unit else name
            cells.setdefault(cls, {}).setdefault(column, []).append(word)
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [{"class": cls, **{c: _one(row.get(c, [])) for c in columns}} for cls, row in cells.items()]
    notes = [f"{len(kept):,} values are {len(rows)} classes and {len(columns)} columns: medians of numbers, all words"]
    notes += [
        f'"{name}": {count} values in other units than {usual[name] or "none"} ignored' for name, count in other.items()
    ]
    return _proposed(pd.DataFrame(rows, columns=["class", *columns]), [], notes)


def _text_table(source: Source, file: str) -> pd.DataFrame:
    import io

    import pandas as pd

    separator = max("\t,;", key=source.head(file).decode("utf-8", "replace").split("\n")[0].count)
    try:
        return pd.read_csv(io.BytesIO(source.read(file)), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(" ".join(str(error).split()), where=source.place(file), hint="export it again") from None


def _terms(source: Source) -> dict[str, str]:
    """Names of URIs, from TraitBank's ``terms.csv``."""
    for file in source.named("terms.csv") if source.path.is_dir() or source.archive else []:
        frame = _text_table(source, file)
        if {"uri", "name"} <= set(frame.columns):
            return dict(zip(frame["uri"], frame["name"], strict=True))
    return {}


def _word(text: str, names: dict[str, str]) -> str:
    """Name of a URI."""
    if text in names:
        return names[text]
    return re.split(r"[/#]", text.rstrip("/"))[-1] if re.match(r"https?://", text) else text


def _column(names: list[str], label: str | None, wanted: Sequence[str], place: str) -> str:
    found = [label] if label in names else pick(names, (plain(label),) if label else wanted)
    if not found:
        what = f'"{label}"' if label else f"called {', '.join(wanted[:4])}  or similar"
        raise DataError(f"no column {what}", where=place, hint=f"--label NAME selects one: {', '.join(names[:12])}")
    return str(found[0])


def _merged(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"class": name, **{column: _one(list(group[column])) for column in frame.columns[1:]}}
        for name, group in frame.groupby("class", sort=False)
    ]
    return pd.DataFrame(rows, columns=list(frame.columns))


def _one(cells: Sequence[str]) -> str:
    """Combine several cells: the median of numbers, or all words."""
    cells = [cell for cell in cells if not is_missing(cell)]
    if len(set(cells)) <= 1:
        return cells[0] if cells else ""
    found = [measure(cell) for cell in cells]
    if all(one is not None for one in found):
        values, units = zip(*(one for one in found if one is not None), strict=True)
        if len(set(units)) == 1:
            return f"{np.median(values):.6g}{units[0] if units[0] == '%' else ' ' + units[0] if units[0] else ''}"
    return "; ".join(sorted(set(cells), key=str.casefold))


def _proposed(frame: pd.DataFrame, others: Sequence[str], notes: list[str]) -> Traits:
    import pandas as pd

    if frame.size > MOST_CELLS:
        hint = "select classes: --only @FILE"
        raise DataError(f"{frame.size:,} cells, more than {MOST_CELLS:,}", hint=hint)
    rows = []
    for name in frame.columns[1:]:
        scale, why = _proposal(name, list(frame[name]), name in others)
        rows.append({"attribute": name, "scale": scale, "description": why})
    about = pd.DataFrame(rows, columns=["attribute", "scale", "description"])
    for scale, what in (("ignore", "ignored"), ("log", "on a log scale"), ("rank", "ranks of the classes")):
        named = about.loc[about["scale"] == scale, "attribute"]
        if len(named):
            shown = ", ".join(named[:6]) + (", ..." if len(named) > 6 else "")
            notes.append(f"suggested {what}: {shown} (change it in attributes.csv)")
    return Traits(frame.reset_index(drop=True), about, tuple(notes))


def _proposal(name: str, cells: list[str], is_name: bool) -> tuple[str, str]:
    """Proposed scale of a column, and the reason; both empty if there is none."""
    called = plain(re.sub(r"\s*\(.*\)$", "", name))
    filled = [cell for cell in cells if not is_missing(cell)]
    if is_name:
        return "ignore", "suggested: another name of the class"
    if ID.search(called) and len(set(filled)) > 0.5 * len(filled):
        return "ignore", "suggested: an identifier"
    if TAXON.match(called):
        known = called.rstrip("0123456789") in DARWIN_CORE
        return "rank" if known else "ignore", "suggested: a taxonomic rank, not a trait"
    if SOURCE.search(called) or (filled and all(re.match(r"https?://", cell) for cell in filled)):
        return "ignore", "suggested: a source of values"
    found = [measure(cell) for cell in filled]
    values = np.array([one[0] for one in found if one is not None], dtype=float)
    numeric = len(values) > 0 and len(values) == len(filled)
    if SAMPLES.search(called) and numeric and (values == np.round(values)).all():
        return "ignore", "suggested: a sample size"
    if not filled:
        return "ignore", "suggested: blank"
    if numeric and len(values) >= LEAST and values.min() > 0 and values.max() >= WIDE_SPREAD * values.min():
        straight, logged = _skew(values), _skew(np.log(values))
        if straight > SKEW and abs(logged) < straight:
            return "log", f"suggested: skewed, {values.min():g} to {values.max():g}"
    return "", ""


def _skew(values: np.ndarray) -> float:
    """The third standardized moment."""
    apart = values - values.mean()
    spread = float(np.sqrt((apart**2).mean()))
    return float((apart**3).mean() / spread**3) if spread else 0.0


def keep_only(found: Traits, names: Sequence[str], where: Path) -> Traits:
    """Only the classes with these names; ignores spaces, underscores and case.

    Raises:
        DataError: the table lacks a name.
    """
    from unseen.classes.spreadsheets.cells import fold, nearest

    rows = {fold(name.replace("_", " ")): i for i, name in enumerate(found.frame["class"])}
    wanted = []
    for name in names:
        key = fold(name.replace("_", " "))
        if key not in rows:
            near = nearest(name, list(found.frame["class"]))
            hint = f'did you mean "{near}"?' if near else "spell it as in the table"
            raise DataError(f'no class "{name}"', where=where, hint=hint)
        wanted.append(rows[key])
    frame = found.frame.iloc[wanted].copy()
    frame["class"] = list(names)
    again = _proposed(frame, [], [])
    kept = found.about["description"].str.contains("another name")
    about = again.about.where(~kept, found.about)
    return Traits(frame.reset_index(drop=True), about, found.notes)
