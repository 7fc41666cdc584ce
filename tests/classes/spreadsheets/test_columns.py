"""How words become numbers: hand-computed columns, and properties of encoding and decoding."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen.classes.spreadsheets.columns import CellError, Column, Encoding
from unseen.classes.spreadsheets.scales import SCALES
from unseen.classes.spreadsheets.together import stands
from unseen.classes.spreadsheets.understanding import understand
from unseen.errors import DataError


def read(columns, about=None, path="classes.csv"):
    frame = pd.DataFrame(columns, dtype=str)
    described = None if about is None else (pd.DataFrame(about, dtype=str).fillna(""), "attributes.csv")
    return understand(frame, list(columns), path, described)


def one(cells, name="x"):
    """Kind and values of one column beside a column of words, so that it is not a plain table."""
    found = read({name: cells, "word": (["red", "blue"] * len(cells))[: len(cells)]})
    assert found.errors == (), [str(e) for e in found.errors]
    column = found.encoding.columns[0]
    if not column.ends:
        assert column.attributes == (name,)
        return column, found.values[:, 0]
    lower, upper = found.values[:, :2].T
    np.testing.assert_allclose(lower, 1 - upper)
    return column, upper


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["yes", "No", "Y", "n"], "yes/no", [1, 0, 1, 0]),
        (["true", "FALSE", "true", "1"], "yes/no", [1, 0, 1, 1]),
        (["1", "0", "0", "1.0"], "yes/no", [1, 0, 0, 1]),
        (["yes", "", "no", "?"], "yes/no", [1, 0.5, 0, 0.5]),
        (["+", "-", "-", "+"], "yes/no", [1, 0, 0, 1]),
        (["present", "absent", "absent", "present"], "yes/no", [1, 0, 0, 1]),
        (["with", "Without", "with", "without"], "yes/no", [1, 0, 1, 0]),
        (["T", "F", "F", "T"], "yes/no", [1, 0, 0, 1]),
        (["a", "p", "p", "a"], "yes/no", [0, 1, 1, 0]),
        (["ohne", "mit", "ohne", "mit"], "yes/no", [0, 1, 0, 1]),
        (["agree", "neutral", "Strongly disagree", "agree"], "scale", [0.75, 0.5, 0, 0.75]),
        (["x", "", "X", ""], "marks", [1, 0, 1, 0]),
        (["✓", "", "", ""], "marks", [1, 0, 0, 0]),
        (["0.25", "1", "0", ""], "share", [0.25, 1, 0, 1.25 / 3]),
        (["80%", "5 %", "0", "100%"], "percent", [0.8, 0.05, 0, 1]),
        (["low", "High", "medium", "low"], "scale", [0, 1, 0.5, 0]),
        (["small", "big", "mid", "large"], "scale", [0, 1, 0.5, 1]),
        (["very low", "very_high", "medium", "low"], "scale", [0, 1, 0.5, 0.25]),
        (["never", "always", "often", "rarely"], "scale", [0, 1, 0.75, 0.25]),
        (["none", "few", "some", "many"], "scale", [0, 1 / 3, 2 / 3, 1]),
        (["absent", "weak", "strong", "moderate"], "scale", [0, 1 / 3, 1, 2 / 3]),
        (["12", "300", "156", ""], "number", [0, 1, 0.5, 0.5]),
        (["12 mm", "300mm", "100-212 mm", "n/a"], "number", [0, 1, 0.5, 0.5]),
        (["5", "5", "5", "5"], "number", [0.5, 0.5, 0.5, 0.5]),
        (["-3", "1", "-1", "0"], "number", [0, 1, 0.5, 0.75]),
    ],
)  # fmt: skip
def test_a_column_of_one_attribute(cells, kind, values):
    column, found = one(cells)
    assert column.kind == kind
    np.testing.assert_allclose(found, values, rtol=0, atol=1e-12)


def test_categories_have_an_attribute_each():
    found = read(
        {"crown color": ["red", "Blue; black", "blue|red", ""], "tail": ["forked", "round", "round", "forked"]}
    )
    assert found.encoding.names == (
        "crown color::black", "crown color::Blue", "crown color::red", "tail::forked", "tail::round",
    )  # fmt: skip
    np.testing.assert_allclose(
        found.values[:, :3], [[0, 0, 1], [1, 1, 0], [0, 1, 1], [1 / 3, 2 / 3, 2 / 3]], atol=1e-12
    )
    assert found.attributes.groups == (*["crown color"] * 3, *["tail"] * 2)
    assert found.encoding.describe()[0] == "crown color: 3 values (black, Blue, red), several per cell; 1 blank"
    assert found.notes == ('1 blank cell gets the column mean ("crown color" 1)',)
    assert found.encoding.decode(found.values[1]) == {"crown color": "black; Blue", "tail": "round"}


def test_a_plain_table_is_taken_as_it_stands():
    columns = {"a": ["0.1", "1e-3", "7"], "b": ["3", "2.9197", "-5"]}
    found = read(columns)
    np.testing.assert_array_equal(found.values, [[0.1, 3], [1e-3, 2.9197], [7, -5]])
    assert [c.kind for c in found.encoding.columns] == ["as is", "as is"]
    assert found.notes == found.errors == ()
    blank = read({**columns, "b": ["3", "", "-5"]})
    np.testing.assert_array_equal(blank.values[:, 1], [3, -1, -5])
    np.testing.assert_array_equal(blank.values[:, 0], found.values[:, 0])


def test_units_that_cannot_be_compared_are_brought_to_one_range():
    found = read({"has crest": ["1", "0", "1"], "length": ["12", "300", "84"]})
    np.testing.assert_allclose(found.values[:, ::2], [[1, 0], [0, 1], [1, 0.25]])
    assert found.encoding.names == ("has crest", "length::low", "length::high")
    assert found.notes == (
        'columns have different ranges ("has crest" up to 1, "length" up to 300): each is scaled separately',
    )


@pytest.mark.parametrize(
    ("rows", "same"),
    [
        ([[0, 100], [100, 0]], True),
        ([[1, 0], [0, 1]], True),
        ([[0, 5], [1, 3]], False),
        ([[0, 5], [2, 3]], True),
        ([[0, 12], [1, 3]], False),
        ([[2.5, 90], [0, 40]], False),  # centimetres and kilograms, though none is above 100
        ([[300, 250], [10, 40]], True),
        ([[300, 2], [10, 3]], False),
        ([[np.nan, 2], [1.5, 3]], True),
        ([[0, 0], [0, 0]], True),
        ([[0, 90, 80, 70, 60, 99, 3, 55], [51, 0, 0, 0, 0, 0, 0, 0]], True),  # percentages, one of them small
        ([[0, 90, 80, 7, 6, 99, 3, 55], [51, 0, 0, 0, 0, 0, 0, 0]], False),
    ],
)
def test_which_plain_numbers_stand(rows, same):
    values = np.array(rows, dtype=float)
    assert stands([f"c{i}" for i in range(values.shape[1])], values) is same
    assert stands([f"c::{i}" for i in range(values.shape[1])], values)


@pytest.mark.parametrize(
    ("cells", "row", "text"),
    [
        (["low", "hgih", "high", "medium"], 3, '"hgih" is not one of low < medium < high — did you mean "high"?'),
        (["yes", "no", "yes", "maybe"], 5, '"maybe" is not yes or no — use yes, no, or leave it blank'),
        (["yes", "no", "yse", "yes"], 4, '"yse" is not yes or no — did you mean "yes"?'),
        (["3", "4", "two", "1"], 4, '"two" is not a finite number — enter a number'),
        (["3", "4", "2026-02-01", "1"], 4, '"2026-02-01" is a date — format the column as text'),
        (["80%", "0.7", "5%", "1%"], 3, '"0.7" among percentages: is it a fraction or a percentage? — use 70%'),
        (["80%", "120%", "5%", "1%"], 3, '"120%" is not a percentage — use 0% to 100%'),
        (["3 mm", "4 cm", "5 mm", "1 mm"], 3, '"4 cm": the others are in mm — use one unit'),
        (["3", "4", "5 mm", "1"], 4, '"5 mm": the others have no unit — use one unit'),
    ],
)  # fmt: skip
def test_a_wrong_cell_names_row_column_and_hint(cells, row, text):
    found = read({"x": cells, "word": ["red", "blue", "red", "blue"]})
    assert str(found.errors[0]).startswith(f'classes.csv, row {row}, column "x": {text}')
    assert len(found.errors) == 1


def test_all_errors_are_told_in_order():
    found = read({"a": ["1", "2", "w", "v"], "b": ["1", "u", "3", "4"]})
    assert [e.where for e in found.errors] == [
        'classes.csv, row 3, column "b"', 'classes.csv, row 4, column "a"', 'classes.csv, row 5, column "a"',
    ]  # fmt: skip


def test_a_class_without_anything_known():
    found = read({"a": ["red", "", "red"], "b": ["1", "?", "0"]})
    assert [str(e) for e in found.errors] == [
        "classes.csv, row 3: every attribute is blank — fill in its attributes, or remove the row"
    ]


def test_columns_that_are_no_attributes():
    names = [f"Avis {w}" for w in ["prima", "secunda", "tertia", "quarta", "quinta", "sexta", "septima", "octava"]]
    found = read({"latin": names, "size": ["small", "large"] * 4, "empty": [""] * 8})
    assert found.encoding.names == ("size::small", "size::large")
    assert [c.kind for c in found.encoding.columns] == ["ignored", "scale", "ignored"]
    assert found.notes[0].startswith('column "latin" is ignored: no two rows share a value')
    forced = read({"latin": names}, {"attribute": ["latin"], "scale": ["categories"]})
    assert len(forced.encoding.names) == 8


# what attributes.csv says


def test_scales_that_the_person_gives():
    columns = {
        "shade": ["dim", "bright", "dusk"],
        "n": ["0", "1", "5"],
        "p": ["10", "20", "50"],
        "c": ["1", "2", "1"],
        "skip": ["a", "b", "c"],
        "r": ["1", "2", "3"],
    }
    scales = ["dim<dusk<bright", "0..10", "percent", "categories", "ignore", "number"]
    found = read(columns, {"attribute": list(columns), "scale": scales})
    assert found.errors == ()
    assert found.encoding.names == (
        "shade::dim", "shade::bright", "n::low", "n::high", "p", "c::1", "c::2", "r::low", "r::high",
    )  # fmt: skip
    np.testing.assert_allclose(
        found.values[:, [1, 3, 4, 5, 6, 8]], [[0, 0, 0.1, 1, 0, 0], [1, 0.1, 0.2, 0, 1, 0.5], [0.5, 0.5, 0.5, 1, 0, 1]]
    )


def test_a_log_scale():
    columns = {"mass g": ["10", "100", "100000"], "wing": ["2", "20", "2000"]}
    found = read(columns, {"attribute": list(columns), "scale": ["log", "Log 1..100"]})
    assert found.errors == ()
    np.testing.assert_allclose(found.values[:, 1], [0, 0.25, 1], atol=1e-12)
    np.testing.assert_allclose(found.values[:, 3], [np.log10(2) / 2, np.log10(20) / 2, 1], atol=1e-12)
    mass = found.encoding.columns[0]
    assert mass.describe() == "numbers on a log scale, 10 to 100000"
    assert [mass.show([1 - v, v]) for v in (0.0, 0.25, 1.0)] == ["10", "100", "100000"]
    again = Encoding.from_json(json.loads(json.dumps(found.encoding.to_json())))
    assert again == found.encoding
    with pytest.raises(DataError, match=r"0 cannot be on a log scale"):
        again.encode({"mass g": "0"})
    for scale, text in (("log", "smallest value of 0"), ("log 0..5", "starts at 0"), ("log 9..5", "is an empty range")):
        wrong = read({"n": ["0", "5", "9"]}, {"attribute": ["n"], "scale": [scale]})
        assert any(text in str(e) for e in wrong.errors)


def test_groups_and_parts_of_columns_and_values():
    found = read(
        {"color": ["red", "blue", "red"], "big": ["yes", "no", "no"]},
        {"attribute": ["color", "color::red", "big"], "group": ["hue", "", ""], "part": ["wing", "tail", ""]},
    )
    assert found.errors == ()
    assert found.attributes.groups == ("hue", "hue", "big")
    assert found.attributes.parts == ("wing", "tail", "")


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"attribute": ["colr"]}, 'attributes.csv, row 2, column "attribute": the class table has no column "colr"'),
        ({"attribute": ["color"], "scale": ["words"]}, 'attributes.csv, row 2, column "scale": unknown scale "words"'),
        ({"attribute": ["color"], "scale": ["a<a"]}, 'row 2, column "scale": "a<a" is not an ordered list of words'),
        ({"attribute": ["color"], "scale": ["5..1"]}, 'column "scale": "5..1" is an empty range'),
        ({"attribute": ["color::red"], "scale": ["number"]}, '"color::red" is a single value of a column'),
        ({"attribute": ["color", "color"]}, '"color" already appears in row 2'),
    ],
)
def test_what_attributes_must_not_say(about, text):
    found = read({"color": ["red", "blue", "red"]}, about)
    assert any(text in str(e) for e in found.errors), [str(e) for e in found.errors]


# a class more

TABLE = {
    "color": ["red; white", "blue", "white", "red"],
    "size": ["small", "large", "medium", "small"],
    "crest": ["yes", "no", "no", "yes"],
    "length": ["12 mm", "300 mm", "84 mm", ""],
    "cover": ["10%", "20%", "90%", "0%"],
}


@pytest.fixture(scope="module")
def encoding():
    return read(TABLE).encoding


def test_encode_hand_computed(encoding):
    assert encoding.names == (
        "color::blue", "color::red", "color::white", "size::small", "size::large", "crest",
        "length::low", "length::high", "cover",
    )  # fmt: skip
    row = {"color": "White, red", "Size": "big", "crest": True, "length": 156, "cover": "50%"}
    np.testing.assert_allclose(encoding.encode(row), [0, 1, 1, 0, 1, 1, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(encoding.encode({"length": "999 mm"})[6:8], [0, 1])
    np.testing.assert_allclose(encoding.encode({"color": ["red"], "crest": None})[:6], [0, 1, 0, 0.625, 0.375, 0.5])
    np.testing.assert_allclose(encoding.encode({"color::red": 0.7, "size": "small"})[:5], [0, 0.7, 0, 1, 0])
    np.testing.assert_allclose(encoding.encode({"crest": 0.8, "size::small": 1})[3:6], [1, 0, 0.8])


def test_reading_of_one_cell(encoding):
    assert encoding.reading("Color", "red; white") == {"color::blue": 0, "color::red": 1, "color::white": 1}
    assert encoding.reading("crest", "no") == {"crest": 0}
    assert encoding.reading("crest", "0.8") == encoding.reading("crest", "80%") == pytest.approx({"crest": 0.8})
    assert encoding.reading("size::large", "0.8") == pytest.approx({"size::small": 0.2, "size::large": 0.8})
    with pytest.raises(DataError, match='did you mean "red"'):
        encoding.reading("color", "redd")
    assert not encoding.as_it_stands
    assert read({"a": ["10", "20"], "b": ["30", "0"]}).encoding.as_it_stands


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"colour": "red"}, 'no column "colour" — did you mean "color"?'),
        ({"color": "redd"}, 'column "color": "redd" is not a value of this column — did you mean "red"?'),
        ({"size": "smal"}, 'column "size": "smal" is not one of small < medium < large — did you mean "small"?'),
        ({"size": None}, "the class has no attribute values — set at least one attribute"),
        ({}, "the class has no attribute values"),
        ({"color::red": "much"}, 'attribute "color::red": not a finite number'),
        ({"length": "tall"}, 'column "length": "tall" is not a finite number'),
    ],
)
def test_encode_refuses_in_one_line(encoding, row, text):
    with pytest.raises(DataError) as caught:
        encoding.encode(row)
    assert str(caught.value).startswith(text)


def test_the_tables_own_rows_encode_to_their_values():
    found = read(TABLE)
    for row in range(4):
        cells = {name: column[row] for name, column in TABLE.items()}
        np.testing.assert_allclose(found.encoding.encode(cells), found.values[row], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    colors=st.sets(st.sampled_from(["red", "white", "blue"]), min_size=1),
    size=st.sampled_from(["small", "medium", "large"]),
    crest=st.booleans(),
    length=st.floats(12, 300),
    cover=st.integers(0, 100),
)
def test_decode_undoes_encode(encoding, colors, size, crest, length, cover):
    row = {"color": colors, "size": size, "crest": crest, "length": length, "cover": f"{cover}%"}
    values = encoding.encode(row)
    assert values.shape == (9,)
    assert ((values >= 0) & (values <= 1)).all()
    shown = encoding.decode(values)
    assert set(shown["color"].split("; ")) == colors
    assert shown["size"] == size
    assert shown["crest"] == ("yes" if crest else "no")
    assert float(shown["length"].removesuffix(" mm")) == pytest.approx(length, rel=1e-5)
    np.testing.assert_allclose(encoding.encode(shown), values, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_table_of_words_keeps_its_encoding_in_json(data):
    rows = data.draw(st.integers(3, 6))
    kinds = [
        st.sampled_from(["yes", "no", ""]),
        st.sampled_from(["red", "blue", "red; blue", "green"]),
        st.sampled_from(["1", "2.5", "40", ""]),
        *(st.sampled_from([*scale, ""]) for scale in SCALES[:3]),
        st.sampled_from(["10%", "55 %", "0"]),
    ]
    columns = {f"c{i}": data.draw(st.lists(kind, min_size=rows, max_size=rows)) for i, kind in enumerate(kinds)}
    found = read(columns)
    assert np.isfinite(found.values).all()
    again = Encoding.from_json(json.loads(json.dumps(found.encoding.to_json(), allow_nan=False)))
    assert again == found.encoding
    assert again.names == (found.attributes.names if found.attributes else ())
    for row in range(rows):
        cells = {name: column[row] for name, column in columns.items()}
        if any(cells.values()):
            np.testing.assert_allclose(again.encode(cells), found.values[row], atol=1e-12)


@pytest.mark.parametrize(
    "value", [None, {}, [], {"format": 1}, {"format": 1, "columns": [{"name": "x"}]}, {"format": 9, "columns": []}]
)
def test_damaged_json(value):
    with pytest.raises(DataError):
        Encoding.from_json(value)


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        (Column("x", "number", low=1, high=5, least=1, greatest=5, decimal="."), "3,125", "can mean 3.1250 or 3125"),
        (Column("x", "number", low=1, high=5, least=1, greatest=5, decimal=","), "3.125", "can mean 3,1250 or 3125"),
        (Column("x", "as is", least=1, greatest=5, decimal="."), "3,125", "can mean 3.1250 or 3125"),
        (Column("x", "number", low=900, high=5e3, least=900, greatest=5e3, decimal=","), "3,125", "3125 or 3,1250"),
        (Column("x", "percent", unit="%", least=5, greatest=80), "0.8", "is it a fraction or a percentage?"),
    ],
)
def test_a_later_cell_in_another_notation_is_asked_about(column, cell, said):
    with pytest.raises(CellError) as error:
        column.read(cell)
    assert said in error.value.what


def test_a_later_cell_in_the_columns_notation_is_read():
    number = Column("x", "number", low=0, high=5000, least=0.5, greatest=5000, decimal=".")
    assert number.read("2,500")[1] == 0.5
    assert number.read("9,000")[1] == 1
    assert Column("x", "percent", unit="%", least=0.5, greatest=80).read("0.8") == [0.008]
    assert Column("x", "percent", unit="%", least=5, greatest=80).read("0.8%") == [0.008]


@pytest.mark.parametrize(
    "cells", [["T", "B", "T", "B"], ["T", "F", "B", "T"], ["with", "mit", "with", "mit"], ["a", "f", "a", "f"]]
)
def test_words_that_are_yes_and_no_only_as_a_pair_stay_values_beside_others(cells):
    assert read({"x": cells}).encoding.columns[0].kind == "categories"


def test_a_pair_of_words_means_nothing_in_another_column():
    found = read({"x": ["yes", "no", "yes", "no", "yes", "an"], "word": ["red", "blue"] * 3})
    assert [str(e) for e in found.errors if '"an"' in str(e)]
    column, _ = one(["Ohne", "mit", "mit", "ohne"])
    assert (column.show([1.0]), column.show([0.0])) == ("mit", "ohne")
    assert [column.read(cell)[0] for cell in ("MIT", "ohne", "yes", "no")] == [1, 0, 1, 0]
    with pytest.raises(CellError, match='"with" is not yes or no'):
        column.read("with")
