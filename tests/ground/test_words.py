"""Numbers agree with their nouns, in messages and in the source of all others."""

from __future__ import annotations

import pytest

from unseen.ground.words import counted


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (0, "image", None, "0 images"),
        (1, "image", None, "1 image"),
        (2, "unseen class", None, "2 unseen classes"),
        (1, "class", None, "1 class"),
        (12345, "box", None, "12,345 boxes"),
        (3, "more branch", None, "3 more branches"),
        (2, "attribute varies", "attributes vary", "2 attributes vary"),
    ],
)
def test_a_number_with_its_noun(number, noun, plural, text):
    assert counted(number, noun, plural) == text
