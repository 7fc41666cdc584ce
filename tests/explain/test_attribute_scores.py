"""Attribute scores measured: by hand, against scikit-learn and SciPy, and where nothing can be measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import DataError
from unseen.evaluation.attributes import auroc, mean_ranks, spearman
from unseen.explain.attribute_scores import attribute_quality, held_out_quality, quality_sheet
from unseen.explain.sheet import FORMATS


def answers(values, seen, labels, scores, names=("bill::red", "bill::blue", "tail::long")):
    """Just what is measured, without a run."""
    table = ClassTable(
        tuple("abcdef"[: len(values)]), Attributes(names[: len(values[0])]), np.array(values, float), np.array(seen)
    )
    labels = np.array(labels)
    return SimpleNamespace(
        dataset=SimpleNamespace(name="mine", table=table),
        labels=labels,
        unseen=~table.seen[labels],
        attribute_scores=np.array(scores, float),
        origin="by hand",
    )


def test_auroc_by_hand():
    # pairs (with, without): 3 > 1, 3 > 2, 2 = 2 (half), 2 > 1: 3.5 of 4
    scores = np.array([[3.0], [2.0], [1.0], [2.0]])
    has = np.array([[True], [True], [False], [False]])
    assert auroc(scores, has) == pytest.approx(3.5 / 4)
    assert auroc(-scores, has) == pytest.approx(0.5 / 4)
    assert auroc(np.zeros((4, 1)), has) == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 5), st.integers(2, 6))
def test_auroc_and_spearman_equal_the_libraries(seed, count, attributes, levels):
    """With many ties in both."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (count, attributes)) / 3
    values = rng.integers(0, levels, (count, attributes)).astype(float)
    has = values > 0
    np.testing.assert_array_equal(mean_ranks(scores), rankdata(scores, axis=0))
    areas, correlations = auroc(scores, has), spearman(scores, values)
    for k in range(attributes):
        if 0 < has[:, k].sum() < count:
            assert areas[k] == pytest.approx(roc_auc_score(has[:, k], scores[:, k]))
        else:
            assert np.isnan(areas[k])
        if np.ptp(scores[:, k]) and np.ptp(values[:, k]):
            assert correlations[k] == pytest.approx(spearmanr(scores[:, k], values[:, k]).statistic)
        else:
            assert np.isnan(correlations[k])


def test_ranks_of_numbers_that_are_not_finite_are_those_of_scipy():
    values = np.array([[np.inf, 1, 0], [-np.inf, np.nan, 0], [np.inf, 2, 0]], dtype=np.float32)
    np.testing.assert_array_equal(mean_ranks(values), rankdata(values, axis=0))


def test_no_images_is_nothing_measured():
    empty = np.zeros((0, 2))
    assert np.isnan(auroc(empty, empty.astype(bool))).all()
    assert np.isnan(spearman(empty, empty)).all()


def test_sides_are_apart_and_constant_attributes_left_out():
    found = attribute_quality(
        answers(
            [[100, 0, 100], [0, 100, 100], [100, 0, 0], [0, 100, 0]],
            [True, True, False, False],
            [0, 0, 1, 1, 2, 2, 3, 3],
            # seen: the first attribute right, the second upside down; unseen: the other way round
            [[2, 2, 1], [2, 2, 2], [1, 1, 3], [1, 1, 4], [1, 1, 5], [1, 1, 6], [2, 2, 7], [2, 2, 8]],
        )
    )
    assert found.measure == "auroc"
    assert found.table["seen_auroc"].tolist()[:2] == [1, 0]
    assert found.table["unseen_auroc"].tolist()[:2] == [0, 1]
    assert found.table["seen_with"].tolist() == [2, 2, 4]
    assert found.table["unseen_with"].tolist() == [2, 2, 0]
    assert found.table.loc[2, ["seen_auroc", "unseen_auroc", "seen_spearman", "unseen_spearman"]].isna().all()
    assert found.constant == {"seen": 1, "unseen": 1}
    assert found.groups().index.tolist() == ["bill"]
    assert found.groups().loc["bill"].tolist() == [0.5, 0.5]


def test_graded_values_are_ranked():
    found = attribute_quality(
        answers(
            [[10, 0], [60, 1], [90, 1], [40, 1]],
            [True, True, True, False],
            [0, 1, 2, 3],
            [[1, 0], [2, 0], [4, 1], [3, 0]],
        )
    )
    assert found.measure == "spearman"
    assert found.table["seen_spearman"][0] == pytest.approx(1)
    assert found.table["seen_auroc"][0] == 1  # has it: above 45, half of the largest value
    assert found.table["seen_with"][0] == 2
    assert np.isnan(found.table["unseen_spearman"]).all()
    assert found.constant == {"seen": 0, "unseen": 2}


@pytest.mark.parametrize(
    ("labels", "there", "gone"), [([0, 0, 1, 1], "seen", "unseen"), ([2, 2, 3, 3], "unseen", "seen")]
)
def test_images_of_one_side_only(labels, there, gone, tmp_path):
    measured = answers(
        [[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1]],
        [True, True, False, False],
        labels,
        [[2, 0, 0], [3, 1, 0], [1, 2, 0], [0, 3, 0]],
    )
    found = attribute_quality(measured)
    assert found.table[f"{there}_auroc"].tolist()[:2] == [1, 1]
    assert found.table[f"{gone}_auroc"].isna().all()
    sheet = quality_sheet(measured, found)
    assert sheet.summary["images"] == {there: 4, gone: 0}
    assert sheet.summary["mean"] == {there: 1.0, gone: None}
    assert f"all classes have the same value: 1 over {there} classes" in sheet.caption
    again = quality_sheet(measured, found).save(tmp_path / "again", FORMATS)
    for first, second in zip(sheet.save(tmp_path, FORMATS), again, strict=True):
        assert first.read_bytes() == second.read_bytes()  # the same figure, the same bytes
        assert first.suffix in (".csv", ".json") or first.stat().st_size > 5000


def test_held_out_classes_stand_for_unseen_ones():
    """If these have no test images: no attribute is measured on classes that the model knows by sight alone."""
    measured = answers(
        [[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1]],
        [True, True, False, False],
        [0, 0, 1, 1],
        [[2, 0, 0], [3, 1, 0], [1, 2, 0], [0, 3, 0]],
    )
    read = {"auroc": [0.75, 0.25, None], "spearman": [0.5, -0.5, None]}
    found = attribute_quality(measured, read)
    assert found.held_out
    np.testing.assert_array_equal(found.table["unseen_auroc"], [0.75, 0.25, np.nan])
    assert found.table["seen_auroc"].tolist()[:2] == [1, 1]
    assert found.constant == {"unseen": 1, "seen": 1}
    sheet = quality_sheet(measured, found)
    assert (sheet.summary["mean"], sheet.summary["held_out"]) == ({"unseen": 0.5, "seen": 1.0}, True)
    assert "Held-out classes stand in for unseen ones" in sheet.caption
    assert "the same value: 1 over held-out classes and 1 over seen classes" in sheet.caption
    alone = held_out_quality(measured.dataset.table, read)  # without any test image
    np.testing.assert_array_equal(alone.table["unseen_spearman"], [0.5, -0.5, np.nan])
    assert alone.table["seen_auroc"].isna().all()
    with_images = SimpleNamespace(**{**vars(measured), "labels": np.array([2, 2, 3, 3]), "unseen": np.ones(4, bool)})
    assert attribute_quality(with_images, read).table["unseen_auroc"].tolist()[:2] == [1, 1]  # these are what counts


def test_the_figure_s_numbers_are_all_attributes(tmp_path):
    """Also where it shows only the best and worst."""
    rng = np.random.default_rng(0)
    k = 40
    measured = answers(
        rng.integers(0, 2, (6, k)) * 100 + np.eye(6, k),
        [True] * 3 + [False] * 3,
        np.repeat(np.arange(6), 5),
        rng.normal(size=(30, k)),
        tuple(f"group{i % 7}::{i}" for i in range(k)),
    )
    sheet = quality_sheet(measured, attribute_quality(measured), top=3)
    assert len(sheet.numbers) == k
    assert len(sheet.summary["groups"]) == 7
    left, right = sheet.figure.axes
    assert len(left.get_yticklabels()) == 7
    assert right.get_title() == "the 3 best and 3 worst attributes"
    texts = [t.get_text() for t in right.get_yticklabels()]
    ranked = sheet.numbers.dropna(subset="unseen_spearman").sort_values("unseen_spearman", ascending=False)["attribute"]
    expected = [*ranked[:3], *ranked[-3:]]
    assert texts == [name.replace("::", ": ") for name in expected]


def test_nothing_to_measure_is_said():
    measured = answers([[1, 0], [1, 1], [0, 1], [1, 1]], [True, True, True, False], [3, 3], [[1, 2], [3, 4]])
    with pytest.raises(DataError, match="mine: all classes with test images have the same attributes"):
        quality_sheet(measured, attribute_quality(measured))


def test_attributes_without_groups_have_one_panel():
    """As in SUN and AWA2, whose names have no group."""
    rng = np.random.default_rng(0)
    values = np.eye(6, 20) + rng.integers(0, 2, (6, 20))
    names = tuple(f"attribute {i} with a name that is longer than a label may be" for i in range(20))
    measured = answers(values, [True] * 3 + [False] * 3, np.repeat(np.arange(6), 4), rng.normal(size=(24, 20)), names)
    (axis,) = quality_sheet(measured, attribute_quality(measured), top=4).figure.axes
    assert [len(t.get_text()) for t in axis.get_yticklabels()] == [40] * 8
