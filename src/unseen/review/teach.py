"""Teach the model from a review: reviewed images become support images of their classes."""

from __future__ import annotations

from unseen.recognizer.recognizer import Recognizer
from unseen.review.book import Review


def teach(recognizer: Recognizer, review: Review) -> dict[str, int]:
    """Add every reviewed image of a class to its support images, without training.

    Args:
        recognizer: model whose ``support`` changes.
        review: review; images that could not be read, show no class, or show a class that the model no
            longer has (:meth:`Review.removed`) are left out.

    Returns:
        Number of new support images by class.

    Raises:
        DataError: an image no longer exists.
        UnseenError: training chose no rule for support images.
    """
    files: dict[str, list[str]] = {}
    removed = review.removed()
    for row, verdict in sorted(review.verdicts.items()):
        item = review.items[row]
        if verdict.name is not None and verdict.name not in removed and item.error is None:
            files.setdefault(verdict.name, []).append(item.image)
    added = {name: len(images) - len(recognizer.add_images(name, images)) for name, images in files.items()}
    return {name: count for name, count in added.items() if count}
