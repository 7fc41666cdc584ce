"""Give the model what a person said of images: each class gets its reviewed images as support images."""

from __future__ import annotations

from unseen.recognizer.recognizer import Recognizer
from unseen.review.book import Review


def teach(recognizer: Recognizer, review: Review) -> dict[str, int]:
    """Add every reviewed image of a class to its support images; nothing is trained.

    Args:
        recognizer: the model; its ``support`` is changed.
        review: images that could not be read, and those of no class, are left out.

    Returns:
        How many images each class got that it had not yet.

    Raises:
        DataError: a class is gone, or an image is.
        UnseenError: training chose no rule for images of classes.
    """
    files: dict[str, list[str]] = {}
    for row, verdict in sorted(review.verdicts.items()):
        item = review.items[row]
        if verdict.name is not None and item.error is None:
            files.setdefault(verdict.name, []).append(item.image)
    added = {name: len(images) - len(recognizer.add_images(name, images)) for name, images in files.items()}
    return {name: count for name, count in added.items() if count}
