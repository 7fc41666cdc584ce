"""Coarser answers in words; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def answers_in_words(numbers: Mapping[str, Any], images: str) -> list[str]:
    """How many coarser answers were given and right, one sentence with and one without each image's own class.

    Args:
        numbers: from :func:`unseen.training.ranks.answered`.
        images: which images, such as "test".
    """
    found = []
    for case, start in (("listed", ""), ("missing", "with the image's own class left out, ")):
        one = numbers[case]
        if not one["unsure"]:
            found.append(f"{start}every {images} image has a class above the threshold.".capitalize())
            continue
        parts = [
            f"{at['answers']} {'get' if at['answers'] != 1 else 'gets'} a {rank} ({at['right']} right)"
            for rank, at in reversed(one["ranks"].items())
        ]
        text = f"{start}of {one['unsure']} {images} images with no class above the threshold, {', '.join(parts)}."
        found.append(text[:1].upper() + text[1:])
    return found
