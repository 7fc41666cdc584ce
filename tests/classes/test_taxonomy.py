"""Ranks of the classes: read, ordered, checked, changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unseen.classes.attributes import Attributes
from unseen.classes.changes import read_described, taxa_in
from unseen.classes.table import ClassTable
from unseen.classes.taxonomy import Taxonomy, looks_like_rank, rank_of
from unseen.data.folder import read_classes, stop
from unseen.errors import DataError, UnseenError

HERONS = Taxonomy.of_columns(
    {"genus": ["Ardea", "ardea ", "Botaurus", "Anas"], "family": ["Ardeidae", "", "Ardeidae", "Anatidae"]}
)


def table(taxonomy=HERONS):
    seen = np.array([True, True, True, False])
    return ClassTable(("a", "b", "c", "d"), Attributes(("x", "y")), np.eye(4)[:, :2] + 1, seen, taxonomy=taxonomy)


def test_columns_are_ordered_spelt_alike_and_filled():
    assert HERONS.ranks == ("family", "genus")
    assert HERONS.taxa == (("Ardeidae", "Ardea"),) * 2 + (("Ardeidae", "Botaurus"), ("Anatidae", "Anas"))
    assert HERONS.codes.tolist() == [[0, 0], [0, 0], [0, 1], [1, 2]]
    assert HERONS.describe() == "family (2), genus (3)"
    other = Taxonomy.of_columns({"genus": ["a", "b", "c"], "zone": ["wet", "wet", "dry"], "order": ["o", "o", "o"]})
    assert other.ranks == ("order", "zone", "genus")
    unknown = Taxonomy.of_columns({"family": ["F", "NA", ""]})
    assert unknown.codes.tolist() == [[0], [-1], [-1]]


@pytest.mark.parametrize(
    ("header", "rank"),
    [("rank:clade", "clade"), ("Rank: clade ", "clade"), ("rank::captain", None), ("rank:", None), ("family", None)],
)
def test_headers(header, rank):
    assert rank_of(header) == rank


def test_a_column_in_darwin_cores_words_is_a_rank_where_it_holds_names():
    assert looks_like_rank("Family", ["Ardeidae", ""])
    for cells in (["1", "2"], ["yes", "no"], ["a; b", "c"], ["", ""], ["12 cm", "Ardeidae"]):
        assert not looks_like_rank("family", cells)
    assert not looks_like_rank("clade", ["A", "B"])


@pytest.mark.parametrize("rank", ["class", "confidence", ":x", " family"])
def test_names_that_no_rank_can_have(rank):
    with pytest.raises(DataError, match="cannot be called"):
        Taxonomy((rank,), (("a",),))


def test_a_genus_in_two_families_is_one_line():
    with pytest.raises(DataError, match=r'genus "Ardea" is in more than one family: "F" \(class 1\) and "G"'):
        Taxonomy(("family", "genus"), (("F", "Ardea"), ("G", "Ardea")))


def test_in_a_spreadsheet_the_line_names_the_rows(tmp_path):
    rows = {"class": list("abc"), "size": [1, 2, 3], "Family": ["F", "G", "F"], "genus": ["Ardea", "Ardea", "Anas"]}
    pd.DataFrame(rows).to_csv(tmp_path / "classes.csv", index=False)
    with pytest.raises(DataError) as told:
        read_classes(tmp_path, stop)
    assert str(told.value).startswith(
        f'{tmp_path / "classes.csv"}, row 3, column "Family": genus "Ardea" is in more than one Family: '
        '"F" (row 2) and "G" (row 3) — correct the rows'
    )


def test_a_spreadsheets_ranks_are_no_attributes(tmp_path):
    rows = {"class": list("abc"), "size": [1, 2, 3], "family": ["F", "F", "G"], "guild": ["w", "w", "l"]}
    pd.DataFrame(rows).to_csv(tmp_path / "classes.csv", index=False)
    found = read_classes(tmp_path, stop)
    assert [c.name for c in found.encoding.columns] == ["size", "guild"]
    assert found.taxonomy == Taxonomy(("family",), (("F",), ("F",), ("G",)))
    about = pd.DataFrame({"attribute": ["family", "guild"], "scale": ["categories", "rank"]})
    about.to_csv(tmp_path / "attributes.csv", index=False)
    found = read_classes(tmp_path, stop)
    assert [c.name for c in found.encoding.columns] == ["size", "family"]
    assert found.taxonomy == Taxonomy(("guild",), (("w",), ("w",), ("l",)))


def test_classes_come_and_go_with_their_taxa():
    more = table().with_class("e", [1, 1], taxa={"genus": "Botaurus"})
    assert more.taxonomy.taxa[4] == ("Ardeidae", "Botaurus")
    assert more.without("a").taxonomy.taxa == more.taxonomy.taxa[1:]
    assert more.renamed("e", "f").with_values("f", [2, 2]).taxonomy == more.taxonomy
    assert more.with_class("g", [1, 1]).taxonomy.of(5) == {}
    assert table().with_taxa("d", {"order": "Anseriformes"}).taxonomy.ranks == ("order", "family", "genus")
    assert table(None).with_taxa("d", {"clade": "x"}).taxonomy == Taxonomy(("clade",), (("",),) * 3 + (("x",),))
    assert table(None).with_class("e", [1, 1]).taxonomy is None
    with pytest.raises(UnseenError, match=r'no rank "famly" — did you mean "family"'):
        table().with_taxa("d", {"famly": "x"})
    with pytest.raises(DataError, match=r'"Ardea" is in more than one family: "Ardeidae" \(other classes\) and "X"'):
        table().with_class("e", [1, 1], taxa={"genus": "Ardea", "family": "X"})


def test_frames_hold_ranks():
    frame = table().to_frame()
    assert list(frame.columns) == ["seen", "rank:family", "rank:genus", "x", "y"]
    assert ClassTable.from_frame(frame).taxonomy == HERONS
    plain = frame.rename(columns={"rank:genus": "genus"}).drop(columns="rank:family")
    assert ClassTable.from_frame(plain).taxonomy.ranks == ("genus",)


def test_ranks_in_rows_of_new_classes(tmp_path):
    (tmp_path / "new.csv").write_text("class,x,y,Genus,rank:family\ne,1,2,Ardea,\nf,1,2,,Anatidae\n")
    found = [taxa_in(one.cells, table()) for one in read_described(tmp_path / "new.csv")]
    assert found == [({"x": "1", "y": "2"}, {"Genus": "Ardea"}), ({"x": "1", "y": "2"}, {"family": "Anatidae"})]
