"""Coarser answers are told with their numbers, and left out where none was due."""

from __future__ import annotations

from unseen.evaluation.coarser import answers_in_words


def test_answers_are_counted_and_none_is_said():
    numbers = {
        "listed": {"images": 9, "unsure": 0, "ranks": {"family": {"answers": 0, "right": 0}}},
        "missing": {"images": 9, "unsure": 7, "ranks": {"family": {"answers": 2, "right": 1}}},
    }
    assert answers_in_words(numbers, "test") == [
        "Every test image has a class above the threshold.",
        "With the image's own class left out, of 7 test images with no class above the threshold, "
        "2 get a family (1 right).",
    ]
