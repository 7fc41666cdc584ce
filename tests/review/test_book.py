"""A review on disk: verdicts that last, and what they measure."""

from __future__ import annotations

import math

import pytest

from review_tools import made_up
from unseen.errors import RunError, UnseenError
from unseen.review import Measured, Review, Verdict

ANSWERS = [("Rook", 0.9), ("Raven", 0.4), (None, 0.2), "truncated", ("Rook", 0.6)]


@pytest.fixture
def folder(tmp_path):
    return made_up(tmp_path / "review", ANSWERS)


def test_verdicts_last_and_can_be_taken_back(folder):
    with Review(folder) as review:
        review.decide([0, 1], Verdict("Rook"))
        review.decide([2], Verdict(None))
        review.decide([4], Verdict("Raven"))
        review.decide([4], None)
    with Review(folder) as review:
        assert review.verdicts == {0: Verdict("Rook"), 1: Verdict("Rook"), 2: Verdict(None)}
        assert [review.is_right(row) for row in (0, 1, 2)] == [True, False, True]
        assert [review.final(row) for row in range(5)] == ["Rook", "Rook", "unknown", "", "Rook"]
        review.decide([1], Verdict("Raven"))  # the last one stands
        assert review.is_right(1)


def test_a_torn_verdict_is_forgotten_and_later_ones_are_kept(folder):
    with Review(folder) as review:
        review.decide([0], Verdict("Rook"))
        review.decide([1], Verdict("Raven"))
    path = folder / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with Review(folder) as review:
        assert review.verdicts == {0: Verdict("Rook")}
        review.decide([2], Verdict(None))
    with Review(folder) as review:
        assert review.verdicts == {0: Verdict("Rook"), 2: Verdict(None)}


def test_an_image_that_cannot_be_read_can_be_named_but_is_never_right(folder):
    with Review(folder) as review:
        review.decide([3], Verdict(None))
        assert not review.is_right(3)
        review.decide([3], Verdict("Rook"))
        assert (review.is_right(3), review.final(3)) == (False, "Rook")


def test_wilson_interval_by_hand():
    found = Measured.of(10, 8)
    z = 1.959963984540054
    middle = (0.8 + z**2 / 20) / (1 + z**2 / 10)
    half = z / (1 + z**2 / 10) * math.sqrt(0.8 * 0.2 / 10 + z**2 / 400)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert found.share == 0.8
    assert Measured.of(0, 0) == Measured(0, 0, 0.0, 1.0)
    assert math.isnan(Measured.of(0, 0).share)


def test_only_the_head_of_the_random_order_stands_for_all(folder):
    with Review(folder) as review:
        assert sorted(review.order) == list(range(5))
        first, second, third = review.order[:3]
        review.decide([second], Verdict("b/c"))
        assert review.reviewed().reviewed == 1
        assert review.estimated().reviewed == 0  # the first of the sample is still open
        review.decide([first], Verdict("b/c"))
        assert (review.estimated().reviewed, review.reviewed().reviewed) == (2, 2)
        review.decide([third], Verdict("b/c"))
        assert review.estimated().reviewed == 3


@pytest.mark.parametrize(
    ("rows", "verdict", "line"),
    [([9], Verdict("Rook"), "no image 9"), ([-1], None, "no image -1"), ([0], Verdict("Roc"), 'no class "Roc"')],
)
def test_wrong_verdicts_change_nothing(folder, rows, verdict, line):
    with Review(folder) as review:
        with pytest.raises(UnseenError, match=line):
            review.decide(rows, verdict)
        assert review.verdicts == {}


def test_what_is_no_review_is_said(folder, tmp_path):
    with pytest.raises(RunError, match="not a review"):
        Review(tmp_path)
    with Review(folder), pytest.raises(UnseenError, match="another process is using this review"):
        Review(folder)
    (folder / "predictions.jsonl").write_text('{"image": 1\n')
    with pytest.raises(RunError, match=r"predictions\.jsonl: damaged"):
        Review(folder)
