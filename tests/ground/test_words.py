"""Numbers agree with their nouns, in messages and in the source of all others."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from unseen.ground.words import counted, pasted


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


def test_a_path_to_paste_is_one_argument():
    for path in ("birds", "Fotos & Daten", "it's", "Vögel (neu)/Läufe"):
        assert shlex.split(f"unseen train {pasted(Path(path))} --seeds 1") == ["unseen", "train", path, "--seeds", "1"]
    assert pasted("runs/auto-birds") == "runs/auto-birds"
