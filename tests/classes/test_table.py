"""The class table: what it refuses, what its changes leave alone, and that its files come back bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen.classes.attributes import Attributes, read_attributes, write_attributes
from unseen.classes.changes import changes_since
from unseen.classes.table import ClassTable
from unseen.errors import DataError

ATTRIBUTES = Attributes(("size::big", "size::small", "hue::red"))
VALUES = np.array([[1.0, 0.0, 0.25], [0.0, 1.0, 1 / 3], [0.5, 0.5, 0.0], [0.1, 0.9, -1e-300]])


def table(**changes):
    made = {
        "names": ("ant", "bee", "cat", "dog"),
        "attributes": ATTRIBUTES,
        "values": VALUES,
        "seen": np.array([True, True, True, False]),
    }
    return ClassTable(**(made | changes))


def same(a, b):
    assert a.names == b.names
    assert a.attributes.names == b.attributes.names
    np.testing.assert_array_equal(a.values, b.values, strict=True)
    np.testing.assert_array_equal(a.seen, b.seen, strict=True)
    assert (a.validation is None) == (b.validation is None)
    if a.validation is not None:
        np.testing.assert_array_equal(a.validation, b.validation, strict=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"names": ("ant", "bee", "ant", "dog")}, 'class "ant" already exists'),
        ({"names": ("ant", "bee", " ", "dog")}, "a class has no name"),
        ({"values": VALUES[:3]}, r"shape \(3, 3\), not \(4, 3\)"),
        ({"values": VALUES.ravel()}, r"shape \(12,\), not \(4, 3\)"),
        ({"seen": np.ones(3, bool)}, "3 seen flags for 4 classes"),
        ({"seen": np.array(True)}, "1 seen flag for 4 classes"),
        ({"validation": np.zeros(5, bool)}, "5 validation flags for 4 classes"),
        ({"validation": np.array([0, 0, 0, 1], bool)}, 'validation class "dog" is unseen'),
        ({"values": np.where(np.eye(4, 3, dtype=bool), np.nan, VALUES)}, 'class "ant", attribute "size::big": nan'),
        ({"values": np.where(VALUES == 1 / 3, -np.inf, VALUES)}, 'class "bee", attribute "hue::red": -inf'),
        ({"values": VALUES * [[1], [1], [0], [1]]}, 'class "cat" has only zeros as attributes'),
    ],
)
def test_inconsistent_tables_are_refused(changes, text):
    with pytest.raises(DataError, match=text):
        table(**changes)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((),), "no attributes"),
        ((("a", "b", "a"),), 'attribute "a" appears twice'),
        ((("a", "b"), ("x",)), "1 groups for 2 attributes"),
        ((("a", "b"), (), ("x", "y", "z")), "3 parts for 2 attributes"),
    ],
)
def test_inconsistent_attributes_are_refused(arguments, text):
    with pytest.raises(DataError, match=text):
        Attributes(*arguments)


def test_groups_come_from_the_names():
    assert ATTRIBUTES.groups == ("size", "size", "hue")
    assert ATTRIBUTES.by_group() == {"size": [0, 1], "hue": [2]}
    assert ATTRIBUTES.parts == ("", "", "")
    assert ATTRIBUTES.index("hue::red") == 2
    with pytest.raises(DataError, match='no attribute "hue::blue"'):
        ATTRIBUTES.index("hue::blue")


def test_unknown_class_suggests_near_ones():
    with pytest.raises(DataError, match='no class "beee" — did you mean bee'):
        table().index("beee")


def test_nobody_can_write_to_a_table():
    values, seen, validation = VALUES.copy(), np.array([True, True, True, False]), np.array([1, 0, 0, 0], bool)
    made = table(values=values, seen=seen, validation=validation)
    values[:], seen[:], validation[:] = 7, False, True
    np.testing.assert_array_equal(made.values, VALUES)
    np.testing.assert_array_equal(made.seen, [True, True, True, False])
    np.testing.assert_array_equal(made.validation, [True, False, False, False])
    for array in (made.values, made.seen, made.validation):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.names = ()


def test_adding_removing_and_renaming_leave_the_rest():
    start = table(validation=np.array([False, True, False, False]))
    grown = start.with_class("eel", {"hue::red": 0.7})
    np.testing.assert_array_equal(grown.values[:4], VALUES)
    np.testing.assert_array_equal(grown.values[4], [*VALUES[start.seen].mean(axis=0)[:2], 0.7])
    assert grown.names == (*start.names, "eel")
    np.testing.assert_array_equal(grown.seen, [True, True, True, False, False])
    np.testing.assert_array_equal(grown.validation, [False, True, False, False, False])
    same(grown.without("eel"), start)
    same(start.renamed("cat", "CAT").renamed("CAT", "cat"), start)
    assert start.renamed("cat", "CAT").names == ("ant", "bee", "CAT", "dog")
    assert start.with_class("eel", [1, 2, 3], seen=True).seen[-1]
    same(start, table(validation=np.array([False, True, False, False])))


def test_classes_keep_their_first_name_through_every_renaming(tmp_path):
    """Also two that swap names and swap back, and one that only changes its case."""

    def swap(table, a, b, between):
        return table.renamed(a, between).renamed(b, a).renamed(between, b)

    start = table()
    assert start.origins == {name: name for name in start.names}
    once = swap(start, "ant", "bee", "x")
    twice = swap(once, "ant", "bee", "y")
    for made, first in (
        (once, ("bee", "ant")),
        (twice, ("ant", "bee")),
        (swap(twice, "bee", "ant", "x"), ("bee", "ant")),
    ):
        assert made.names[:2] == first
        assert made.origins == {"ant": first[0], "bee": first[1], "cat": "cat", "dog": "dog"}
        made.to_csv(tmp_path / "classes.csv")
        assert ClassTable.from_csv(tmp_path / "classes.csv").origins == made.origins
    assert start.renamed("cat", "CAT").renamed("CAT", "lion").origins["cat"] == "lion"
    assert changes_since(once, start) == ["was ant", "was bee", "", ""]
    assert changes_since(twice, start) == [""] * 4
    assert once.without("ant").origins == {"ant": "bee", "cat": "cat", "dog": "dog"}


def test_a_former_name_finds_a_renamed_class(tmp_path):
    start = table()
    made = start.renamed("cat", "CAT").renamed("cat", "lion").renamed("dog", 'a "wolf", grey')
    assert made.former == {"cat": "lion", "CAT": "lion", "dog": 'a "wolf", grey'}
    assert (made.index("Cat"), made.index("dog"), made.name_now("DOG")) == (2, 3, 'a "wolf", grey')
    assert (made.name_now("lion"), made.name_now("eel")) == (None, None)
    made.to_csv(tmp_path / "classes.csv")
    assert ClassTable.from_csv(tmp_path / "classes.csv").former == made.former
    swapped = start.renamed("ant", "x").renamed("bee", "ant").renamed("x", "bee")
    assert (swapped.names[:2], swapped.index("ant"), swapped.index("bee")) == (("bee", "ant"), 1, 0)
    assert made.renamed(made.names[0], made.names[0].upper()).names[0] == made.names[0].upper()
    again = made.with_class("cat", [1, 2, 3])  # a new class of that name
    assert (again.index("cat"), again.index("lion"), "cat" in again.former) == (4, 2, False)
    gone = made.without("cat")
    assert gone.names == ("ant", "bee", 'a "wolf", grey')
    with pytest.raises(DataError, match='no class "cat"'):
        gone.index("cat")
    assert start.renamed("cat", "lion").renamed("lion", "cat").former == {"cat": "cat", "lion": "cat"}
    start.to_csv(tmp_path / "classes.csv")
    assert "former" not in (tmp_path / "classes.csv").read_text()
    text = (tmp_path / "classes.csv").read_text().splitlines()
    text = [f"{line},{cell}" for line, cell in zip(text, ("former_names", "", "old", "", ""), strict=True)]
    (tmp_path / "classes.csv").write_text("\n".join(text))
    with pytest.raises(DataError, match='row 3, column "former_names": "old" is not a list of names'):
        ClassTable.from_csv(tmp_path / "classes.csv")


def test_select_takes_rows_in_the_order_given():
    start = table(validation=np.array([False, True, False, False]))
    picked = start.select([3, 1])
    assert picked.names == ("dog", "bee")
    np.testing.assert_array_equal(picked.values, VALUES[[3, 1]])
    np.testing.assert_array_equal(picked.seen, [False, True])
    np.testing.assert_array_equal(picked.validation, [False, True])
    other = start.select([3, 1], seen=np.array([True, False]))
    np.testing.assert_array_equal(other.seen, [True, False])
    assert other.validation is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.with_class("ant", [1, 2, 3]), 'class "ant" already exists'),
        (lambda t: t.with_class(" ANT", [1, 2, 3]), 'class " ANT" and class "ant" differ only in case or spaces'),
        (lambda t: t.renamed("bee", "Ant"), 'class "Ant" and class "ant" differ only in case or spaces'),
        (lambda t: t.with_class("eel", [1, 2]), 'class "eel": 2 values — pass 3'),
        (lambda t: t.with_class("eel", {"hue::blue": 1}), 'no attribute "hue::blue"'),
        (lambda t: t.with_class("eel", {}), 'class "eel" has only zeros as attributes'),
        (lambda t: t.with_class("eel", [1, np.nan, 0]), 'attribute "size::small": nan'),
        (lambda t: t.with_class("", [1, 2, 3]), "a class has no name"),
        (lambda t: t.renamed("ant", "bee"), 'class "bee" already exists'),
        (lambda t: t.renamed("eel", "bee"), 'no class "eel"'),
        (lambda t: t.without("eel"), 'no class "eel"'),
    ],
)
def test_changes_that_make_no_table_are_refused(change, text):
    with pytest.raises(DataError, match=text):
        change(table())


def test_twins_are_classes_of_one_direction():
    values = np.array([[1.0, 2, 0], [3, 0, 1], [2, 4, -0.0], [3, 0, 1 + 1e-6], [0.1, 0.2, 0]])
    made = ClassTable(tuple("abcde"), ATTRIBUTES, values, np.ones(5, bool))
    assert made.twins() == [("a", "c"), ("a", "e")]
    assert table().twins() == []


finite = st.floats(allow_nan=False, allow_infinity=False)
cell = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda name: name == name.strip()
)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(cell, min_size=1, max_size=4, unique=True),
    attributes=st.lists(cell, min_size=1, max_size=4, unique=True).filter(
        lambda names: not {"class", "seen", "validation"} & set(names)
    ),
    data=st.data(),
)
def test_csv_round_trip_is_exact(tmp_path_factory, names, attributes, data):
    shape = (len(names), len(attributes))
    values = np.array(data.draw(st.lists(finite, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    values = values.reshape(shape)
    values[~values.any(axis=1), 0] = 1.0
    seen = np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))))
    validation = data.draw(st.sampled_from([None, seen]))
    start = ClassTable(tuple(names), Attributes(tuple(attributes)), values, seen, validation)
    path = tmp_path_factory.mktemp("csv") / "classes.csv"
    start.to_csv(path)
    back = ClassTable.from_csv(path)
    same(back, start)
    assert back.values.tobytes() == start.values.tobytes()  # minus zero too


def test_attributes_csv_round_trip(tmp_path):
    path = tmp_path / "attributes.csv"
    attributes = Attributes(("a,b", 'say "x"', "c"), ("g", "g", "h"), ("bill", "", "wing"))
    write_attributes(path, attributes)
    assert read_attributes(path, attributes.names) == attributes
    order = read_attributes(path, ("c", "a,b", 'say "x"'))
    assert order.names == ("c", "a,b", 'say "x"')
    assert order.groups == ("h", "g", "g")
    assert order.parts == ("wing", "bill", "")


def test_a_message_is_always_one_line(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text('class,seen,a\n"an\nt",1,1\n"an\nt",1,1\n')
    with pytest.raises(DataError) as caught:
        ClassTable.from_csv(path)
    assert str(caught.value) == f'{path}, row 3, column "class": "an t" already appears in row 2 — keep one'


def test_names_in_any_case_and_form():
    table = ClassTable(
        ("Dog", "Ko\u0308hler", "x"), Attributes(("Hooves", "b")), np.eye(3, 2) + 1, np.array([1, 1, 0], bool)
    )
    assert table.index("dog") == 0
    assert table.index("K\u00f6hler") == 1
    assert table.attributes.index("hooves") == 0
    assert table.with_class("cat", {"b": 7}).values[-1].tolist() == [1.5, 7]  # the mean of the seen


@pytest.mark.parametrize("name", ["unknown", "Seen", "UNSEEN"])
def test_a_class_is_not_called_like_an_answer(name):
    table = ClassTable(("a", "b"), Attributes(("x", "y")), np.eye(2), np.ones(2, bool))
    with pytest.raises(DataError, match="is reserved for answers"):
        table.renamed("a", name)
    with pytest.raises(DataError, match="is reserved for answers"):
        table.with_class(name, [1, 2])
