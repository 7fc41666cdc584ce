"""Advice on classes: nearest ones, nearly equal ones, and what tells two apart, by hand-made tables."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen.classes import nearness
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import UnseenError
from unseen.model.references import References
from unseen.model.support import Support, SupportImage
from unseen.recognizer.advice import closest, closest_pairs, nearly_equal, separate

ATTRIBUTES = Attributes(("crown::red", "crown::blue", "leg::long", "leg::short", "size"))
VALUES = np.array(
    [
        [100.0, 0, 100, 0, 50],  # a
        [0.0, 100, 100, 0, 50],  # b differs from a in the crown alone
        [0.0, 100, 0, 100, 100],  # c
        [0.0, 100, 0, 100, 95],  # d nearly c
    ]
)


def model(values=VALUES, seen=(1, 1, 1, 0), references=None, vectors=None):
    values = np.asarray(values, float)
    table = ClassTable(tuple("abcdefgh"[: len(values)]), ATTRIBUTES, values, np.array(seen, bool))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    vectors = unit if vectors is None else vectors
    return SimpleNamespace(table=table, class_vectors=vectors, references=references, support=Support())


@pytest.fixture
def references():
    """Scores that follow the first, second and third attribute, more and less; the fourth runs the wrong way."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    noise = rng.standard_normal((600, 5))
    slope = np.array([0.02, 0.01, 0.03, -0.03, 0.0])
    scores = (VALUES[labels] * slope + noise).astype(np.float16)
    return References(scores, labels, np.array([str(i) for i in range(600)]), np.array(list("abcd")), VALUES)


def test_closest_by_hand():
    near = closest(model(), "c", 3)
    unit = VALUES / np.linalg.norm(VALUES, axis=1, keepdims=True)
    assert [n.name for n in near] == ["d", "b", "a"]
    np.testing.assert_allclose([n.cosine for n in near], [unit[2] @ unit[3], unit[2] @ unit[1], unit[2] @ unit[0]])
    # the size of c and d differs by 5 of a range of 50: a tenth, not more
    assert [n.differing for n in near] == [0, 3, 5]
    assert [n.nearly_equal for n in near] == [True, False, False]
    assert [n.seen for n in near] == [False, True, True]


def test_nearly_equal_is_nearer_than_seen_classes_are():
    assert nearly_equal(model(), "d").name == "c"
    assert nearly_equal(model(), "a") is None
    # an unseen class not as near as 0.995, but nearer than any two seen ones
    values = [[100, 0, 0, 0, 1], [0, 100, 0, 0, 1], [0, 0, 100, 0, 1], [100, 0, 0, 20, 1]]
    found = nearly_equal(model(values), "d")
    assert found.name == "a"
    assert found.cosine == pytest.approx(10001 / np.sqrt(10001 * 10401))
    # two seen ones just as near make it an ordinary difference
    values.append([0, 100, 0, 15, 1])
    assert nearly_equal(model(values, (1, 1, 1, 0, 1)), "d") is None


def test_without_class_vectors_the_table_counts():
    plain, blind = closest(model(), "a"), closest(model(vectors=np.zeros((4, 5))), "a")
    assert [n.name for n in plain] == [n.name for n in blind]
    np.testing.assert_allclose([n.cosine for n in plain], [n.cosine for n in blind])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 50), st.integers(0, 99), st.sampled_from([1, 4, 1024]))
def test_pairs_are_those_of_the_whole_matrix(classes, count, seed, rows):
    rng = np.random.default_rng(seed)
    values = rng.random((classes, 5)) + 0.01
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    before, nearness.ROWS = nearness.ROWS, rows
    try:
        found = nearness._pairs(unit, count)
    finally:
        nearness.ROWS = before
    cosine = unit @ unit.T
    first, second = np.triu_indices(classes, 1)
    expected = np.sort(cosine[first, second])[::-1][:count]
    assert len(found) == len(expected)
    np.testing.assert_allclose([p[2] for p in found], expected, rtol=1e-12)
    assert all(a < b and p == pytest.approx(cosine[a, b]) for a, b, p in found)


def test_closest_pairs_have_names():
    first = closest_pairs(model(), 2)[0]
    assert (first.first, first.second, first.differing) == ("c", "d", 0)


def test_what_tells_apart_is_slope_times_differences(references):
    found = separate(model(references=references), "a", "b")
    unit = VALUES / np.linalg.norm(VALUES, axis=1, keepdims=True)
    assert [d.attribute for d in found.today] == ["crown::red", "crown::blue"]
    for divider in found.today:
        k = ATTRIBUTES.index(divider.attribute)
        expected = references.fit.slope[k] * (VALUES[0, k] - VALUES[1, k]) * (unit[0, k] - unit[1, k])
        assert divider.lead == pytest.approx(expected)
        assert divider.auroc == pytest.approx(references.fit.auroc[k])
    assert found.today[0].lead > found.today[1].lead > 0
    assert found.cosine == pytest.approx(unit[0] @ unit[1])


def test_refine_names_what_is_read_well_and_described_alike(references):
    found = separate(model(references=references), "a", "b")
    # legs are alike: the long ones are read well, the short ones not at all; the size was not learned
    assert [d.attribute for d in found.refine] == ["leg::long"]
    assert (found.refine[0].first_value, found.refine[0].second_value) == (100, 100)
    # nothing is known of the training images: what varies most between classes, one of each group
    unknown = separate(model(), "a", "b")
    assert [d.attribute for d in unknown.refine] == ["leg::long", "size"]
    assert unknown.refine[0].auroc is None
    assert unknown.today[0].lead is None


def test_refine_falls_back_on_groups_that_differ(references):
    values = VALUES.copy()
    values[1] = [0, 0, 50, 50, 0]  # differs from a in every group, but in size alone of its group
    values[1, 2] = 100
    found = separate(model(values, references=references), "a", "b")
    assert "leg::long" in [d.attribute for d in found.refine]


def test_a_class_without_attributes_has_none_to_be_told_by():
    bare = model()
    image = SupportImage("x.png", "0" * 64, "2026-01-01")
    bare.support, _ = Support().added("b", [image], np.ones((1, 2), np.float32), attributes=False)
    with pytest.raises(UnseenError, match='"b" has images but no attributes'):
        separate(bare, "a", "b")


def test_a_class_is_not_told_from_itself():
    with pytest.raises(UnseenError, match="pass two classes"):
        separate(model(), "a", "a")


def test_nothing_is_asked_that_neither_class_can_have(references):
    values = VALUES.copy()
    values[:2, 2] = 10  # legs of a and b are hardly long; those of c are, so that the model has learned it
    values[2, 2] = 100
    values[:, 4] = [100, 100, 100, 20]  # only the class without images has another size
    for known in (references, None):
        assert "leg::long" not in [d.attribute for d in separate(model(values, references=known), "a", "b").refine]
        assert "size" not in [d.attribute for d in separate(model(values, references=known), "a", "b").refine]
