"""Weights of classes by place and month: read in each form, chosen, and wrong in one line."""

from __future__ import annotations

import numpy as np
import pytest

from unseen.classes.attributes import Attributes
from unseen.classes.prior import Prior, month_of
from unseen.classes.table import ClassTable
from unseen.errors import DataError, UnseenError

NAMES = ("gull", "heron", "tern", "wren")
LONG = "class,place,month,weight\ngull,coast,5,6\nheron,coast,May,2\ngull,coast,6,3\nheron,lake,5,8\n"


def table_of(names):
    return ClassTable(tuple(names), Attributes(("a",)), np.ones((len(names), 1)), np.ones(len(names), bool))


def read(tmp_path, text):
    (tmp_path / "prior.csv").write_text(text)
    return Prior.read(tmp_path / "prior.csv")


@pytest.mark.parametrize(
    ("text", "month"),
    [
        *(("5", 5), ("05", 5), ("May", 5), ("sept.", 9), ("2026-05-17", 5), ("2026:11:02 10:00:00", 11)),
        *(("13", None), ("ma", None), ("", None), ("m", None), ("0", None)),
    ],
)
def test_months(text, month):
    assert month_of(text) == month


def test_a_long_table(tmp_path):
    prior = read(tmp_path, LONG)
    assert (prior.places, prior.months) == (("coast", "lake"), (5, 6))
    # at the coast in May the mean of 6 and 2 is 4; in June heron is named elsewhere alone, so 0
    assert prior.at("coast", 5).weights(NAMES).tolist() == [6, 2, 4, 4]
    assert prior.at("Coast", "June").weights(NAMES).tolist() == [3, 0, 1.5, 1.5]
    assert prior.at("any", "any").weights(NAMES).tolist() == [9, 10, 9.5, 9.5]
    assert prior.at("coast", 5).at(month="any").weights(NAMES).tolist() == [9, 2, 5.5, 5.5]
    assert prior.notes(table_of(NAMES)) == ["2 classes are not in the prior and get its mean weight (tern, wren)"]
    assert prior.at("coast", 5).fingerprint != prior.at("coast", 6).fingerprint


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("class,place,4,May\ngull,coast,9,6\nheron,coast,9,2\n", ("coast", 5)),
        ("class,Apr,May\ngull,9,6\nheron,,2\n", (None, 5)),
        ("class,month,coast,lake\ngull,5,6,\nheron,5,2,8\n", ("coast", 5)),
        ("class;coast;lake\ngull;6;1\nheron;2;8\n", ("coast", None)),
        ("class,frequency\ngull,60%\nHeron,20%\n", (None, None)),
    ],
)
def test_other_forms(tmp_path, text, at):
    found = read(tmp_path, text).at(*at).weights(NAMES)
    assert np.allclose(found / found.sum(), np.array([6, 2, 4, 4]) / 16)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("class,weight\ngul,1\n", r'prior\.csv, row 2, column "weight": no class "gul" — did you mean "gull"\?'),
        ("class,weight\ngull,-1\n", r"row 2.*the weight -1 is negative"),
        ("class,weight\ngull,lots\n", r'"lots" is not a weight'),
        ("class,weight\ngull,0\nheron,0\n", r"every weight is 0 — give a class"),
        ("class,weight\ngull,1\ngull,2\n", r'row 3.*"gull" has another weight for the same place and month'),
        ("class,month,weight\ngull,13,1\n", r'row 2, column "month": "13" is not a month'),
        ("class,place,weight\ngull,,1\n", r'row 2, column "place": no place'),
        ("class,place,x\ngull,coast,1\n", r'no column "weight"'),
        ("class,month,weight\ngull,5,1\n", r"the prior depends on the month, and none is given — choose a month"),
    ],
)
def test_bad_input_is_one_line(tmp_path, text, line):
    with pytest.raises(UnseenError, match=line) as told:
        read(tmp_path, text).weights(NAMES)
    assert "\n" not in str(told.value)


def test_places_and_months_that_are_not_there(tmp_path):
    prior = read(tmp_path, LONG)
    for at, line in [
        (("cost", 5), r'no place "cost" — did you mean "coast"'),
        (("coast", 7), r"no month 7 — it has 5, 6"),
        (("coast", "Mo"), r'"Mo" is not a month'),
    ]:
        with pytest.raises(UnseenError, match=line):
            prior.at(*at)
    with pytest.raises(UnseenError, match="the prior has no places"):
        Prior.of({"gull": 1}).at("coast")
    with pytest.raises(DataError, match="negative"):
        Prior.of({"gull": -1})


def test_a_renamed_class_keeps_its_weight(tmp_path):
    prior = read(tmp_path, "class,weight\ngull,6\nheron,2\n")
    table = table_of(NAMES).renamed("heron", "Grey Heron").renamed("tern", "Tern of the sea")
    now = prior.named_now(table)
    assert now.weights(table.names).tolist() == [6, 2, 4, 4]
    assert prior.notes(table) == [
        'the prior names "heron", which is now "Grey Heron"',
        "2 classes are not in the prior and get its mean weight (Tern of the sea, wren)",
    ]
    assert prior.named_now(table_of(NAMES)) is prior
    with pytest.raises(DataError, match=r'prior.csv, row 3.*: no class "heron" — add the class to the model'):
        prior.named_now(removed := table.without("Grey Heron")).weights(removed.names)
    both = read(tmp_path, "class,weight\ngull,6\nheron,2\ngrey heron,1\n")
    with pytest.raises(DataError, match=r'row 3.*: class "heron" is now "Grey Heron", which has weights too \(.*row 4'):
        both.named_now(table)
