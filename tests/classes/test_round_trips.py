"""Tables that the program writes are read back as they were, to the bit, by whatever reads them."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unseen.classes.attributes import Attributes, is_attribute, write_attributes
from unseen.classes.changes import read_described, taxa_in, values_of
from unseen.classes.spreadsheets.tables import read_table
from unseen.classes.spreadsheets.understanding import understand
from unseen.classes.table import ClassTable
from unseen.classes.taxonomy import Taxonomy
from unseen.data.dataset import Dataset
from unseen.data.folder import read_classes, stop
from unseen.data.saved import load_saved, save_dataset
from unseen.errors import DataError

ODD = (1.234, 12.345, 999.125, -999.0, -1.0, 9999.0, 0.8, 80.0, 1e22, 5e-324, 0.1 + 0.2, 100.0, -0.0)
"""What a rule for people's tables reads otherwise: thousands, codes for "not known", percentages."""
NUMBERS = st.sampled_from(ODD) | st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)
PLAIN = st.text(string.ascii_letters + "::_ ", min_size=1, max_size=8).map(str.strip).filter(bool)
ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=8).filter(
    str.strip
)
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reserved(name: str) -> bool:
    words = ("class", "seen", "unseen", "unknown", "validation", "file", "label", "species")
    return not is_attribute(name) or name.strip().casefold() in words


@st.composite
def tables(draw, names) -> ClassTable:
    usable = names.filter(lambda name: not reserved(name))
    classes = draw(st.lists(usable, min_size=1, max_size=4, unique_by=str.casefold))
    attributes = draw(st.lists(usable, min_size=1, max_size=4, unique_by=str.casefold))
    labels = st.lists(
        st.sampled_from(["", "colour", " of, the\n", "bill"]), min_size=len(attributes), max_size=len(attributes)
    )
    values = [[draw(NUMBERS) for _ in attributes] for _ in classes]
    for row in values:
        row[0] = row[0] or 2.0
    seen = draw(st.lists(st.booleans(), min_size=len(classes), max_size=len(classes)))
    validation = np.array(seen) & draw(st.booleans()) if draw(st.booleans()) else None
    about = Attributes(tuple(attributes), tuple(draw(labels)), tuple(draw(labels)))
    return ClassTable(
        tuple(classes), about, np.array(values), np.array(seen), validation, taxonomy=draw(taxonomies(len(classes)))
    )


@st.composite
def taxonomies(draw, count: int) -> Taxonomy | None:
    ranks = draw(st.lists(st.sampled_from(["order", "family", "my clade", "größe", "a,b"]), max_size=3, unique=True))
    taxon = st.sampled_from(["", "NA", "1.5", 'Ardea, the"heron', "x", "yes"])
    rows = draw(st.lists(st.tuples(*(taxon for _ in ranks)), min_size=count, max_size=count))
    try:
        return Taxonomy(tuple(ranks), tuple(rows)) if ranks else None
    except DataError:  # they do not nest
        return Taxonomy(tuple(ranks[:1]), tuple(row[:1] for row in rows))


def same(found: ClassTable, wanted: ClassTable) -> None:
    assert (found.names, found.attributes) == (wanted.names, wanted.attributes)
    assert found.values.tobytes() == wanted.values.tobytes()
    assert np.array_equal(found.seen, wanted.seen)
    assert found.taxonomy == wanted.taxonomy
    assert (found.validation is None) == (wanted.validation is None)
    assert wanted.validation is None or np.array_equal(found.validation, wanted.validation)


def write(table: ClassTable, folder: Path) -> Path:
    table.to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", table.attributes)
    return folder / "classes.csv"


@few
@given(tables(ANY))
def test_of_runs_saved_models_and_exports(tmp_path, table):
    same(ClassTable.from_csv(write(table, tmp_path), tmp_path / "attributes.csv"), table)


@few
@given(st.lists(ANY.filter(lambda name: not reserved(name)), min_size=9, max_size=9, unique_by=str.casefold))
def test_of_datasets_from_arrays(tmp_path, names):
    classes, files = tuple(names[:3]), tuple(names[3:])
    table = ClassTable(classes, Attributes(tuple(names[6:])), 1.234 * np.eye(3), np.ones(3, bool))
    dataset = Dataset("own", tmp_path, table, files, np.arange(6) % 3, np.full(6, "trainval", dtype=object))
    found = load_saved(save_dataset(dataset, tmp_path / "saved"))
    same(found.table, table)
    assert found.files == files


@few
@given(tables(PLAIN))
def test_of_prepared_releases_and_of_runs_as_datasets(tmp_path, table):
    write(table, tmp_path)
    found = read_classes(tmp_path, stop)
    assert found is not None
    assert (found.names, found.attributes.names) == (table.names, table.attributes.names)
    assert np.array_equal(found.values, table.values)


@few
@given(tables(PLAIN))
def test_of_rows_given_to_classes_add(tmp_path, table):
    for c, one in enumerate(read_described(write(table, tmp_path))):
        cells, taxa = taxa_in(one.cells, table)
        assert np.array_equal(values_of(cells, table), table.values[c])
        assert table.taxonomy is None or taxa == {r: t for r, t in table.taxonomy.of(c).items() if t != "NA"}


COLUMNS = {
    "percent in words": ["80%", "0.5%", "35%", ""],
    "cover %": ["80", "1", "35", "12"],
    "weight": ["1,5 kg", "0,25 kg", "2,125 kg", ""],
    "share": ["0,5", "0,25", "0,125", "1"],
    "length": ["1.200", "3.450", "2.000", "10.000.000"],
    "size": ["small", "medium", "large", ""],
    "colour": ["red", "red; blue", "", "green"],
    "crest": ["yes", "no", "yes", ""],
}


@few
@given(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, unique=True))
def test_of_rows_of_a_spreadsheets_attributes(tmp_path, columns):
    sheet = pd.DataFrame({"class": list("abcd")} | {name: COLUMNS[name] for name in columns})
    sheet.to_csv(tmp_path / "sheet.csv", index=False, sep=";")
    understood = understand(read_table(tmp_path / "sheet.csv"), columns, tmp_path / "sheet.csv", None, ())
    assert understood.attributes is not None
    values = np.where(understood.values.any(axis=1, keepdims=True), understood.values, 0.5)
    values = np.where(np.isfinite(values), values, 0.375)
    table = ClassTable(tuple("abcd"), understood.attributes, values, np.ones(4, bool))
    for row, one in zip(table.values, read_described(write(table, tmp_path)), strict=True):
        assert np.array_equal(values_of(one.cells, table, understood.encoding), row)


@pytest.mark.parametrize("name", ["class", "seen", "validation", " ", "a\0", "a\r", "\ud800"])
def test_names_that_no_table_can_hold_are_refused_at_once(name):
    with pytest.raises(DataError):
        Attributes((name,))
