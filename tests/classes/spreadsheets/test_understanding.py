"""Tables that were once misread without a word: each case with the right value."""

from __future__ import annotations

import datetime

import numpy as np
import openpyxl
import pandas as pd
import pytest

from unseen.classes.spreadsheets.guessing import guess
from unseen.classes.spreadsheets.scales import SCALES
from unseen.classes.spreadsheets.tables import read_table
from unseen.classes.spreadsheets.understanding import understand

WORDS = ["red", "blue", "red", "blue"]


def read(columns, **options):
    frame = pd.DataFrame(columns, dtype=str)
    frame.attrs.update(options.pop("attrs", {}))
    return understand(frame, list(columns), "classes.csv", **options)


def column(cells, **options):
    """The first column's description, its attributes' last value a class, and the doubts."""
    found = read({"x": cells, "word": (WORDS * 9)[: len(cells)]}, **options)
    assert found.errors == (), [str(e) for e in found.errors]
    first = found.encoding.columns[0]
    return first, found.values[:, len(first.attributes) - 1], found.doubts


def test_decimal_commas_in_a_quoted_csv(tmp_path):
    (tmp_path / "classes.csv").write_text('class,x,word\na,"0,5",red\nb,"1,0",blue\nc,"0,0",red\n')
    found = understand(read_table(tmp_path / "classes.csv"), ["x", "word"], tmp_path / "classes.csv")
    assert found.encoding.names[0] == "x"
    assert found.values[:, 0].tolist() == [0.5, 1, 0]


def test_decimal_commas_as_text_in_a_workbook(tmp_path):
    book = openpyxl.Workbook()
    for row in (["class", "x", "word"], ["a", "0,5", "red"], ["b", "1,5", "blue"], ["c", 2, "red"]):
        book.active.append(row)
    book.save(tmp_path / "classes.xlsx")
    found = understand(read_table(tmp_path / "classes.xlsx"), ["x", "word"], tmp_path / "classes.xlsx")
    assert found.encoding.columns[0].describe() == "numbers, 0.5 to 2"
    np.testing.assert_allclose(found.values[:, 1], [0, 2 / 3, 1])


@pytest.mark.parametrize(
    ("cells", "text", "values"),
    [
        (["1,5 kg", "0,5 kg", "2,5 kg"], "numbers, 0.5 to 2.5 kg", [0.5, 0, 1]),
        (["11,5-13,5 mm", "10 mm", "20 mm"], "numbers, 10 to 20 mm", [0.25, 0, 1]),
        (["1,850", "12,000", "700"], "numbers, 700 to 12000", [1150 / 11300, 1, 0]),
        (["1.200", "950", "2.050"], "numbers, 950 to 2050", [250 / 1100, 0, 1]),
        (["12\u00a0mm", "13\u2009mm", "14 ± 0.5 mm"], "numbers, 12 to 14 mm", [0, 0.5, 1]),
        (["12 °C", "-3 °C", "27\u202f°C"], "numbers, -3 to 27 °C", [0.5, 0, 1]),
        (["12.5", "-999", "11.5", "13.5"], "numbers, 11.5 to 13.5; 1 blank", [0.5, 0.5, 0, 1]),
        (["0.5", "n.d.", "#N/A", "0.7", "."], "fractions: 0.5 to 0.7; 3 blank", [0.5, 0.6, 0.6, 0.7, 0.6]),
        (["yes", "no", "unknown", "-"], "yes or no; 2 blank", [1, 0, 0.5, 0.5]),
        (["red", "nd", "red", "?"], "1 value (red); 2 blank", [1, 1, 1, 1]),
    ],
)  # fmt: skip
def test_what_is_understood(cells, text, values):
    found, upper, _ = column(cells)
    assert found.describe() == text
    np.testing.assert_allclose(upper, values, atol=1e-12)


def test_codes_are_asked_about_unless_said():
    *_, doubts = column(["12", "-999", "14", "-999"])
    assert [str(d) for d in doubts] == [
        'classes.csv, row 3, column "x": "-999" is far from 12 to 14; read as missing (and row 5) — confirm with '
        '`unseen check --missing=-999` (kept in missing.txt), or set the column\'s scale to "number"'
    ]
    assert column(["12", "-999", "14"], missing=["-999"])[2] == ()
    about = (pd.DataFrame({"attribute": ["x"], "scale": ["number"]}), "attributes.csv")
    found, _, doubts = column(["12", "-1", "14"], about=about)
    assert (found.low, found.high, doubts) == (-1, 14, ())
    about = (pd.DataFrame({"attribute": ["x"], "missing": ["0; none"]}), "attributes.csv")
    assert column(["12", "0", "none", "14"], about=about)[0].describe() == "numbers, 12 to 14; 2 blank"


def test_what_cannot_be_settled_is_asked():
    cells = ["1.200", "3.450", "2.050"]
    found, _, doubts = column(cells)
    assert (found.low, found.high) == (1.2, 3.45)
    assert '"1.200" can mean 1200 or 1.2; read with a decimal point' in str(doubts[0])
    assert column(cells, attrs={"decimal": ","})[0].high == 3450
    assert not column([*cells, "0.5"])[2]
    assert read({"x": cells, "y": ["0,5", "1,5", "2,25"]}).encoding.columns[0].high == 3450
    asked = read({"x": cells, "word": WORDS[:3]}, attrs={"decimal": ""})
    assert '"1.200" can mean 1200 or 1.2' in str(asked.errors[0])
    about = (pd.DataFrame({"attribute": ["x"], "scale": ["decimal comma"]}), "attributes.csv")
    assert column(cells, about=about)[0].high == 3450


def test_few_words_among_numbers_are_errors_and_equal_ones_are_told_once():
    found = read({"x": ["12", "tall", "14", "15", "tall", "16"], "word": [*WORDS, "red", "red"]})
    assert [str(e) for e in found.errors] == [
        'classes.csv, row 3, column "x": "tall" is not a finite number (and row 6) — '
        "enter a number, or leave the cell blank"
    ]


def test_brackets_keep_their_commas():
    found, *_ = column(["brown (dark, streaked)", "white; brown (dark, streaked)", "white"])
    assert found.steps == ("brown (dark, streaked)", "white")


@pytest.mark.parametrize("words", [False, True])
def test_percent_or_not_means_the_same(words):
    rng = np.random.default_rng(0)
    numbers = {f"c{i}": [f"{v:.2f}" for v in rng.uniform(0, 100, 12)] for i in range(85)}
    signed = {name: [f"{cell}%" for cell in cells] for name, cells in numbers.items()}
    more = {"word": WORDS * 3} if words else {}
    plain, percent = read(numbers | more), read(signed | more)
    assert len(plain.encoding.names) == 85 + 2 * words
    assert plain.encoding.names == percent.encoding.names
    np.testing.assert_array_equal(plain.values, percent.values)
    if not words:
        assert plain.values[0, 0] == float(numbers["c0"][0])
        assert percent.encoding.columns[0].describe().startswith("percent, used as they are: ")


FORMS = {
    "plain": "{:.2f}",
    "percent": "{:.2f}%",
    "fraction": "{:.4f}",
    "comma": "{:.2f}",
    "both": "{:.2f}",
}
BESIDE = {
    "nothing": {},
    "yes or no": {"striped": ["yes", "no", "yes"] * 4},
    "0 or 1": {"striped": ["1", "0", "1"] * 4},
    "other numbers": {
        "mass": [f"{300 + 700 * i}" for i in range(12)],
        "length": [f"{3 + 7 * i} cm" for i in range(12)],
    },
    "words": {"word": WORDS * 3},
}


def written(path, frame):
    if path.suffix == ".xlsx":
        frame.to_excel(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    found = read_table(path)
    return understand(found, [c for c in found.columns if c != "class"], path)


@pytest.mark.parametrize("beside", BESIDE)
def test_percentages_mean_the_same_in_every_form_and_file(beside, tmp_path):
    """The rows of unit length, which all methods score with, are equal, so every accuracy is."""
    rng, wanted = np.random.default_rng(0), None
    shares = np.where(rng.random((12, 85)) < 0.3, 0, rng.uniform(0, 100, (12, 85)).round(2))
    for form, text in FORMS.items():
        frame = pd.DataFrame({"class": [f"k{i}" for i in range(12)]})
        more = {}
        for k, column in enumerate(shares.T):
            cells = [text.format(v / 100 if form == "fraction" else v) for v in column]
            cells = [cell.replace(".", ",") for cell in cells] if form == "comma" else cells
            more[f"c{k}"] = [f"{cell}%" for cell in cells] if form == "both" and k % 2 else cells
        frame = pd.concat([frame, pd.DataFrame(more | BESIDE[beside])], axis=1)
        for suffix in (".csv", ".tsv", ".xlsx") if form != "both" else (".csv",):
            found = written(tmp_path / f"t{suffix}", frame)
            unit = found.values / np.linalg.norm(found.values, axis=1, keepdims=True)
            assert (found.errors, found.doubts) == ((), ())
            wanted = wanted or (found.encoding.names, unit)
            assert found.encoding.names == wanted[0]
            np.testing.assert_allclose(unit, wanted[1], rtol=0, atol=1e-15)
    assert len(wanted[0]) == 85 + {"nothing": 0, "yes or no": 1, "0 or 1": 1, "other numbers": 4, "words": 2}[beside]


def test_0_and_1_among_whole_percentages_are_asked_about():
    rng = np.random.default_rng(0)
    whole = {f"c{k}": [str(v) for v in rng.integers(0, 101, 12)] for k in range(20)}
    found = read(whole | {"flag": ["1", "0", "1"] * 4})
    assert [str(doubt) for doubt in found.doubts] == [
        'classes.csv, column "flag": only 0 and 1 among percentages; read as 0% and 1% — if it means no and yes, write '
        'these words, or set its scale to "yes/no" in the attributes sheet'
    ]
    assert found.values[:3, -1].tolist() == [1, 0, 1]  # of 100
    named = {f"c::{name}": cells for name, cells in {**whole, "flag": ["1", "0", "1"] * 4}.items()}
    assert read(named).doubts == ()  # the field's own format


def test_columns_in_several_units_are_scaled_by_themselves():
    found = read({"length": ["5", "30", "20"], "weight": ["0.02", "1.5", "0.76"], "eggs": ["2", "12", "7"]})
    np.testing.assert_allclose(found.values[:, 1::2], [[0, 0, 0], [1, 1, 1], [0.6, 0.5, 0.5]])
    assert "each is scaled separately" in found.notes[0]


def test_a_class_without_any_yes_keeps_its_no():
    found = read({"a": ["yes", "no", "no"], "b": ["yes", "yes", "no"]})
    assert found.encoding.names == ("a::no", "a::yes", "b::no", "b::yes")
    assert found.values[2].tolist() == [1, 0, 1, 0]
    assert read({"a": ["yes", "no", "no"], "b": ["no", "yes", "yes"]}).encoding.names == ("a", "b")


def test_unknown_is_the_mean_of_the_training_classes():
    found = read({"x": ["80%", "", "20%", "0%"], "word": WORDS})
    encoding, values = found.encoding.filled(found.values, found.known, np.array([True, True, True, False]))
    assert values[:, 0].tolist() == pytest.approx([0.8, 0.5, 0.2, 0])
    assert encoding.encode({"word": "red"})[0] == pytest.approx(0.5)


def test_sheets_rows_and_formats(tmp_path):
    path = tmp_path / "classes.xlsx"
    book = openpyxl.Workbook()
    old, new = book.active, book.create_sheet("birds")
    old.append(["class", "x"])
    old.append(["wrong", 1])
    old.sheet_state = "hidden"
    new.append(["class", "x", "size", "when", "literal"])
    for name, x in (("a", 0.005), ("b", 0.5), ("gone", 0.9), ("c", 0.25)):
        new.append([name, x, x, datetime.datetime(2026, 1, 2), x])
    for (cell,) in new.iter_rows(min_row=2, min_col=2, max_col=2):
        cell.number_format = '0.0"%"'
    for (cell,) in new.iter_rows(min_row=2, min_col=3, max_col=3):
        cell.number_format = "0.0%"
    for (cell,) in new.iter_rows(min_row=2, min_col=5, max_col=5):
        cell.number_format = '0.0" mm"'
    new.row_dimensions[4].hidden = True
    book.active = 1
    book.save(path)
    frame = read_table(path, ["class"])
    assert frame["class"].tolist() == ["a", "b", "c"]
    assert frame["x"].tolist() == ["0.0050%", "0.5%", "0.25%"]
    assert frame["size"].tolist() == ["0.5%", "50%", "25%"]
    assert frame["literal"].tolist() == ["0.0050 mm", "0.5 mm", "0.25 mm"]
    assert frame.attrs["rows"] == [2, 3, 5]
    assert frame.attrs["notes"] == [
        'sheet "birds": 1 hidden row ignored; unhide them to include them',
        'sheet "birds" is used; ignored: "Sheet" (hidden)',
    ]
    found = understand(frame, ["x", "when"], path)
    assert found.notes[0].startswith('column "when" is ignored: the cells are dates (2026-01-02)')


def test_text_files_as_excel_writes_them(tmp_path):
    text = "sep=;\nclass;Ko\u0308rper\u200b;x\na;gro\u00df\u00a0;0,5\nb;klein;1,5\n"
    (tmp_path / "classes.csv").write_text(text, encoding="utf-16")
    frame = read_table(tmp_path / "classes.csv", ["class"])
    assert list(frame.columns) == ["class", "K\u00f6rper", "x"]
    assert frame["K\u00f6rper"].tolist() == ["gro\u00df", "klein"]
    assert frame.attrs["decimal"] == ","


@pytest.mark.parametrize("word", ["yes", "Y", "1", "ja", "x"])
def test_one_word_of_consent_among_blanks_is_a_mark(word):
    """A column of yes and blanks was a constant: blanks got the mean of the others, which is yes."""
    first, values, _ = column([word, "", word, ""])
    assert (first.kind, values.tolist()) == ("marks", [1, 0, 1, 0])


def test_not_known_among_marks_is_not_no():
    first, values, _ = column(["x", "", "?", "x"])
    assert (first.kind, first.blanks) == ("marks", 1)
    assert values.tolist() == [1, 0, pytest.approx(2 / 3), 1]


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        *[("ja", "nein"), ("WAHR", "FALSCH"), ("oui", "non"), ("sí", "no")],
        *[("vorhanden", "fehlend"), ("Vorhanden", "nicht vorhanden"), ("présente", "absente"), ("présent", "absent")],
        *[("presente", "ausente"), ("presente", "assente")],
    ],
)
def test_yes_and_no_in_other_languages(yes, no):
    for blank in ("", "unbekannt", "k. A.", "Inconnue", "desconocido", "sconosciuta"):
        first, values, _ = column([yes, no, no, blank])
        assert (first.kind, first.blanks, values.tolist()) == ("yes/no", 1, [1, 0, 0, pytest.approx(1 / 3)])


@pytest.mark.parametrize(
    ("cells", "text", "values"),
    [
        (["gering", "Mittel", "hoch"], "gering < mittel < hoch", [0, 0.5, 1]),
        (["klein", "gross", "mittelgroß"], "klein < mittel < groß", [0, 1, 0.5]),
        (["selten", "oft", "immer", "nie"], "nie < selten < manchmal < oft < immer", [0.25, 0.75, 1, 0]),
        (["schwach", "stark", "keine"], "keine < schwach < mittel < stark", [1 / 3, 1, 0]),
        (["petite", "grande", "moyennes"], "petit < moyen < grand", [0, 1, 0.5]),
        (["jamais", "souvent"], "jamais < rarement < parfois < souvent < toujours", [0, 0.75]),
        (["faible", "très élevé", "moyenne"], "très faible < faible < moyen < élevé < très élevé", [0.25, 1, 0.5]),
        (["pequeña", "mediana", "GRANDE"], "pequeño < mediano < grande", [0, 0.5, 1]),
        (["nunca", "a veces", "siempre"], "nunca < raramente < a veces < a menudo < siempre", [0, 0.5, 1]),
        (["bassa", "alta", "media", "bassa"], "basso < medio < alto", [0, 1, 0.5, 0]),
        (["mai", "spesso", "di rado"], "mai < raramente < talvolta < spesso < sempre", [0, 0.75, 0.25]),
        (["low", "moderate", "high", "n/a"], "low < medium < high; 1 blank", [0, 0.5, 1, 0.5]),
        (["big", "small", "small"], "small < medium < large", [1, 0, 0]),
    ],
)
def test_ordered_words_by_language(cells, text, values):
    found, upper, doubts = column(cells)
    assert (found.describe(), upper.tolist(), doubts) == (text, pytest.approx(values), ())
    assert found.attributes == (f"x::{found.steps[0]}", f"x::{found.steps[-1]}")


def test_a_word_of_no_scale_keeps_the_column_a_category():
    assert column(["rot", "mittel", "rot", "blau"])[0].kind == "categories"
    assert read({"x": ["gering", "hoch", "hohc", "mittel"]}).errors[0].hint == 'did you mean "hoch"?'


def test_every_scale_is_found_by_its_own_words():
    found = [guess("x", list(steps), ()).column for steps in SCALES]
    assert [(column.kind, column.steps) for column in found] == [("scale", steps) for steps in SCALES]


def test_apostrophes_mark_text():
    first, values, _ = column(["'10", "'20", "15", "'12"])
    assert (first.kind, values.tolist()) == ("number", [0, 1, 0.5, 0.2])
    first, values, _ = column(["'yes", "'no", "'yes", "'yes"])
    assert (first.kind, values.tolist()) == ("yes/no", [1, 0, 1, 1])
    first, values, _ = column(["'tis'", "b", "b", "b"])  # quoted
    assert first.steps == ("'tis'", "b")


def test_dates_of_a_csv_file_are_no_categories():
    found = read({"x": ["02. Jan", "4-Mar", "Feb 03", "6. Mai"], "word": WORDS})
    assert found.encoding.columns[0].kind == "ignored"
    assert 'column "x" is ignored: the cells are dates (02. Jan)' in found.notes[0]
    found = read({"x": ["02. Jan", "3-4", "1", "2"], "word": WORDS})
    assert str(found.errors[0]).startswith('classes.csv, row 2, column "x": "02. Jan" is a date — format the column')
    assert column(["may", "mar", "may", "mar"])[0].steps == ("mar", "may")  # words


def test_a_german_range():
    first, values, _ = column(["5 bis 7", "4", "8", "5-7"])
    assert (first.kind, values.tolist()) == ("number", [0.5, 0, 1, 0.5])


@pytest.mark.parametrize(
    ("cells", "text", "values"),
    [
        (["+", "++", "+++", "-", "+"], "- < + < ++ < +++", [1 / 3, 2 / 3, 1, 0, 1 / 3]),
        (["+", "−", "?", "++"], "- < + < ++; 1 blank", [0.5, 0, 0.5, 1]),
        (["*", "***", "0"], "0 < * < ** < ***", [1 / 3, 1, 0]),
        (["x", "xx", "", "x"], "x < xx; 1 blank", [0, 1, 1 / 3, 0]),
    ],
)
def test_repeated_signs_have_an_order(cells, text, values):
    found, upper, doubts = column(cells)
    assert found.describe() == text
    assert found.attributes == ("x::low", "x::high")
    np.testing.assert_allclose(upper, values)
    assert doubts == ()


@pytest.mark.parametrize(
    ("cells", "row", "problem"),
    [
        (["no", "small", "large"], 2, '"no" is not one of small < medium < large, but "small" and "large" are: '),
        (["always", "never", "often", "usually"], 5, '"usually" is not one of never < rarely < '),
        (["klein", "medium", "large", "groß", "small"], 5, '"groß" is not one of small < medium < large, but '),
        (["<5", "5-10", ">10"], 2, '"<5" is not read as a number: the column is read as 3 words without order'),
        (["red", "blue", "red and blue"], 4, '"red and blue" is read as a value of its own, beside "red" and "blue"'),
        (["rot", "blau", "rot/blau"], 4, '"rot/blau" is read as a value of its own, beside "rot" and "blau"'),
    ],
)
def test_words_that_may_be_meant_otherwise_are_doubted(cells, row, problem):
    found, _, doubts = column(cells)
    assert found.kind == "categories"
    (doubt,) = doubts
    assert doubt.where == f'classes.csv, row {row}, column "x"'
    assert doubt.problem.startswith(problem)
    about = pd.DataFrame({"attribute": ["x"], "scale": ["categories"]}), "attributes.csv"
    assert column(cells, about=about)[2] == ()


@pytest.mark.parametrize(
    "cells", [["none", "striped", "spotted"], ["short", "hooked", "long", "bent"], ["red-brown", "red", "brown"]]
)
def test_plain_categories_are_not_doubted(cells):
    assert column(cells)[2] == ()


@pytest.mark.parametrize(
    ("cells", "row", "text"),
    [
        (["1.5", "2.25", "3,125", "4.5"], 4, '"3,125" can mean 3.1250 or 3125; the other cells are 1.5 to 4.5'),
        (["1,5", "2,25", "3.125", "4,5"], 4, '"3.125" can mean 3,1250 or 3125; the other cells are 1.5 to 4.5'),
        (
            ["1,200", "1.350", "3000", "950", "2500"],
            3,
            '"1.350" can mean 1.35 or 1350; the other cells are 950 to',
        ),
        (["1,5", "2,5", "3.125-3.500", "7,5"], 4, '"3.125-3.500" can mean 3,3125 or 3312,5'),
    ],
)
def test_a_number_that_only_fits_with_the_other_decimal_sign_is_asked_about(cells, row, text):
    """Each was once read a thousand times too large or too small, without a word."""
    sign = "," if cells[0] == "1,5" else "."
    (error,) = read({"x": cells, "y": [f"{n}{sign}5" for n in range(len(cells))]}).errors
    assert error.where == f'classes.csv, row {row}, column "x"'
    assert error.problem.startswith(text)


@pytest.mark.parametrize(
    "cells",
    [
        ["0.02", "1.5", "30", "900", "1,200"],
        ["1,850", "700", "0.5", "12"],
        ["1.125", "2.5", "500", "900"],
        ["0.125", "0.250", "0.500", "0.375"],
        ["2.875", "350.5", "412.25", "2100.5", "800.5"],  # the others settle the sign
        ["1.125", "450.0", "800.0", "300.0"],
    ],
)
def test_numbers_of_many_sizes_are_not_asked_about(cells):
    assert read({"x": cells, "y": [f"{n}.5" for n in range(len(cells))]}).errors == ()


@pytest.mark.parametrize("no", ["-", "–", "−"])
@pytest.mark.parametrize("yes", ["yes", "1", "Ja", "present"])
def test_a_dash_beside_a_single_yes_means_no(yes, no):
    found, values, doubts = column([yes, no, no, yes])
    assert (found.kind, values.tolist(), doubts) == ("yes/no", [1, 0, 0, 1], ())
    assert column([yes, "no", "-", yes])[1].tolist() == pytest.approx([1, 0, 2 / 3, 1])  # not known


def test_noughts_and_crosses_are_not_both_yes():
    assert column(["x", "o", "O", "x"])[0].steps == ("o", "x")
    assert column(["o", "n", "n", "o"])[1].tolist() == [1, 0, 0, 1]  # oui, non


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (["●", "", "●", ""], 'a blank cell is not known, and all other cells are "●": every class gets this value'),
        (["no", "", "no", "no"], 'a blank cell is not known, and all other cells are "no"'),
        (["yes", "n/a", "n/a", "yes"], '"n/a" is not known, and all other cells are "yes"'),
    ],
)
def test_blanks_that_make_a_column_say_nothing_are_doubted(cells, what):
    (doubt,) = column(cells)[2]
    assert (doubt.where, doubt.problem[: len(what)]) == ('classes.csv, row 3, column "x"', what)


def test_percent_may_be_a_word():
    found, values, _ = column(["10 percent", "50 Prozent", "100pct", "5 %"])
    assert (found.kind, values.tolist()) == ("percent", [0.1, 0.5, 1, 0.05])


def test_fractions_under_a_percent_sign_are_doubted():
    found = read({"cover (%)": ["0.5", "0.2", "1", "0"], "word": WORDS})
    assert found.values[:, 0].tolist() == [0.5, 0.2, 1, 0]
    assert [(d.where, d.problem) for d in found.doubts] == [
        (
            'classes.csv, row 2, column "cover (%)"',
            '"0.5" in a column of percentages is read as a fraction: 0.5 is 50% (and rows 3, 4)',
        )
    ]
    assert read({"cover": ["0.5", "0.2", "1", "0"], "word": WORDS}).doubts == ()


@pytest.mark.parametrize(
    ("cells", "row", "problem"),
    [
        (["short", "long", "medium", "short; long"], 3, "some cells have several of short < medium < long: "),
        (["S", "M", "L", "XL"], 4, '"L", "M" and "S" are read as words without order'),
        (["I", "III", "II", "II"], 2, '"I", "II" and "III" are read as words without order'),
        (
            ["brown/white", "white/grey", "brown", "grey"],
            2,
            '"brown/white" is read as a value of its own, beside "brown"',
        ),
        (
            ["brown\nred", "brown", "red", "red"],
            2,
            '"brown\nred" is read as a value of its own, beside',
        ),
        (["#5", "#10", "#20", "#5"], 3, '"#10" is not read as a number'),
        (["007", "012", "12", "3"], 2, '"007" is read as a number, without its zeros (and row 3)'),
        (["(5)", "3", "12", "7"], 2, '"(5)" is read as a positive number'),
    ],
)
def test_what_loses_its_order_parts_zeros_or_sign_is_doubted(cells, row, problem):
    (doubt,) = column(cells)[2]
    assert (doubt.where, doubt.problem[: len(problem)]) == (f'classes.csv, row {row}, column "x"', problem)


@pytest.mark.parametrize(
    "form",
    ["{}; {}", "{}；{}", "{}、{}", "{}, and {}", "{}; und {}", "['{}', '{}']", "{{{}; {}}}", '"{}; {}"', "{}; {}; -"],
)
def test_several_values_in_every_form(form):
    cells = [form.format("red", "blue"), "red", "blue", "green"]
    found = read({"x": cells, "y": ["1", "2", "3", "5"]})
    assert found.encoding.columns[0].steps == ("blue", "green", "red")
    assert found.values[:, :3].tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert found.encoding.encode({"x": cells[0]})[:3].tolist() == [1, 0, 1]  # classes add reads it alike
    assert found.doubts == ()


def test_gates_keep_their_and():
    assert column(["NOT gate; AND gate", "AND gate", "NOT gate", "AND gate"])[0].steps == ("AND gate", "NOT gate")


def test_columns_of_remarks_and_of_joined_values_are_not_used_and_said():
    cells = ["seen in May", "rare", "", "check"]
    assert column(cells)[0].kind == "categories"
    assert read({"Notes": cells, "word": WORDS}).encoding.names == ("word::blue", "word::red")
    many = [f"{a} / {b}" for a in ("red", "blue", "green") for b in ("black", "white", "grey")]
    found = read({"x": many, "word": (WORDS * 3)[:9]})
    assert 'ignored: no two rows share a value; if "red / black" means two values, write "red; black"' in found.notes[0]


def test_quoted_cells_are_their_content():
    found, values, _ = column(['"10"', '"20"', "15", '"12"'])
    assert (found.kind, values.tolist()) == ("number", [0, 1, 0.5, 0.2])
    encoding = read({"x": ['"10"', '"20"', "15", '"12"'], "word": WORDS}).encoding
    for cell in ('"15"', "'15", "15"):
        assert encoding.encode({"x": cell})[1] == 0.5
