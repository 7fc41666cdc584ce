"""Numbers as people write them, hand-read; and written in every notation by hypothesis and read back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen.classes.spreadsheets.numbers import MISSING, measure, plain_number, read_numbers, settle


@pytest.mark.parametrize(
    ("cells", "values", "unit", "decimal"),
    [
        (["0,5", "1,25"], [0.5, 1.25], "", ","),
        (["1,5 kg", "0,8 kg"], [1.5, 0.8], "kg", ","),
        (["11,5-13,5 mm", "9 mm"], [12.5, 9], "mm", ","),
        (["11.5–13.5 mm", "9 to 10 mm", "8mm - 9mm"], [12.5, 9.5, 8.5], "mm", "."),
        (["12\u00a0mm", "13\u2009mm", "14\u202fmm"], [12, 13, 14], "mm", ""),
        (["12 ± 0.5", "13.5 +/- 1"], [12, 13.5], "", "."),
        (["−3 °C", "21°C"], [-3, 21], "°C", ""),
        (["3,00 €", "14,50€", "20 €"], [3, 14.5, 20], "€", ","),
        (["$3.50", "$ 12", "$1,200.00"], [3.5, 12, 1200], "$", "."),
        (["£5-7", "8 £"], [6, 8], "£", ""),
        (["1.200", "2.050", "950"], [1200, 2050, 950], "", ","),
        (["1,850", "12,300", "700"], [1850, 12300, 700], "", "."),
        (["1.850", "0.2"], [1.85, 0.2], "", "."),
        (["1.234.567", "1.850"], [1234567, 1850], "", ","),
        (["1 850", "2’050", "1'000,5"], [1850, 2050, 1000.5], "", ","),
        (["~12 mm", "ca. 13 mm"], [12, 13], "mm", ""),
        (["1e3", "2.5E-1"], [1000, 0.25], "", "."),
        (["80%", "5 %"], [80, 5], "%", ""),
        (["80–90%", "5 % - 7 %"], [85, 6], "%", ""),
        (["4 m²", "5 m2"], [4, 5], "m2", ""),
    ],
)
def test_a_column(cells, values, unit, decimal):
    found = read_numbers(cells)
    assert found.wrong == ()
    assert list(found.values) == pytest.approx(values, abs=1e-12)
    assert (found.unit, found.decimal) == (unit, decimal)


@pytest.mark.parametrize("cells", [["1,850", "2,000"], ["1.200", "3.450"]])
def test_what_nothing_settles_is_said(cells):
    found = read_numbers(cells)
    assert found.unsettled == cells[0]
    assert settle([cells]) == ""
    assert settle([cells, ["0,5"]]) == ","
    assert settle([cells, ["0.5"]]) == "."


@pytest.mark.parametrize(
    "cell", ["red", "1-2-3", "12 mm wide and more", "1,2,3", "2026-01-02", "", "1.2.3", "5 x" * 30, "$", "$$"]
)
def test_what_is_no_number(cell):
    assert measure(cell) is None


@pytest.mark.parametrize("word", [*MISSING, "NaN", "NULL", "#N/A", "N.A.", "ND", "Unknown", " ? "])
def test_missing_words(word):
    found = read_numbers(["12", word, "14"])
    assert math.isnan(found.values[1])
    assert found.wrong == ()


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        (["12", "-999", "14"], (1,)),
        (["12", "-1", "0"], (1,)),
        (["12", "9999", "14"], (1,)),
        (["12", "99", "14"], ()),
        (["-5", "-1", "3"], ()),
        (["1200", "9999", "8000"], ()),
        (["12.5 mm", "-999", "11 mm"], (1,)),
    ],
)
def test_codes(cells, codes):
    found = read_numbers(cells)
    assert found.codes == codes
    assert all(math.isnan(found.values[i]) for i in codes)
    assert read_numbers(cells, codes=False).codes == ()


def grouped(value, decimal, thousands, digits):
    whole, _, part = f"{abs(value):.{digits}f}".partition(".")
    groups = []
    while len(whole) > 3:
        whole, last = whole[:-3], whole[-3:]
        groups.insert(0, last)
    text = thousands.join([whole, *groups]) if thousands else whole + "".join(groups)
    return ("-" if value < 0 else "") + text + (decimal + part if part else "")


NOTATIONS = [
    *[(".", thousands) for thousands in (",", "", "'", " ", "\u2009")],
    *[(",", thousands) for thousands in (".", "", "\u00a0", "’")],
]


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=6),
    digits=st.sampled_from([1, 2, 4]),
    notation=st.sampled_from(NOTATIONS),
    unit=st.sampled_from(["", " mm", "\u00a0kg", "\u2009°C", "cm", "%", " %", "\u202fg/l"]),
)
def test_every_notation_is_read_back(values, digits, notation, unit):
    numbers = [value / 10**digits for value in values]
    cells = [grouped(number, *notation, digits) + unit for number in numbers]
    found = read_numbers(cells, codes=False)
    assert found.wrong == ()
    assert found.unsettled == ""
    assert list(found.values) == numbers
    assert found.unit.replace(" ", "") == "".join(unit.split())
    assert [measure(cell, notation[0])[0] for cell in cells] == numbers


@settings(max_examples=60, deadline=None)
@given(
    ends=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=4),
    notation=st.sampled_from(NOTATIONS),
    dash=st.sampled_from(["-", "–", " - ", " – ", " to "]),
)
def test_ranges_are_their_middle(ends, notation, dash):
    pairs = [(a / 100, b / 100) for a, b in ends]
    cells = [dash.join(grouped(end, *notation, 2) for end in pair) + " mm" for pair in pairs]
    found = read_numbers(cells, codes=False)
    assert list(found.values) == pytest.approx([sum(pair) / 2 for pair in pairs], rel=1e-15)
    assert found.ranges


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_of_programs_are_read_to_the_bit(values):
    from unseen.classes.spreadsheets.cells import as_text

    cells = [as_text(value) for value in values]
    found = read_numbers(cells, codes=False)
    assert (found.wrong, found.unsettled) == ((), "")
    assert [plain_number(cell, found.decimal) for cell in cells] == values


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=4))
def test_any_text_is_a_number_or_not(cells):
    found = read_numbers(cells)
    assert len(found.values) == len(cells)
