"""Training images to try the model on, and an image of each class."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from unseen.recognizer import Recognizer
from unseen.serve.settings import Refusal
from unseen.serve.thumbnails import PREVIEW, THUMBNAIL, jpeg, on_disk
from unseen.serve.uploads import Upload, decode

EXAMPLES = 6
"""Number of example images."""


class Examples:
    """Training images as examples.

    Args:
        recognizer: model; its training images may be elsewhere, which gives no examples.
        max_pixels: largest number of pixels of an image.
    """

    def __init__(self, recognizer: Recognizer, max_pixels: int) -> None:
        self.recognizer, self._max_pixels = recognizer, max_pixels

    @cached_property
    def _training(self) -> list[tuple[str, Path]]:
        """Class and path of a training image of each class; empty where they lie elsewhere."""
        folder, references = self.recognizer.images, self.recognizer.references
        if folder is None or references is None:
            return []
        found: dict[str, Path] = {}
        for c, file in zip(references.labels, references.files, strict=True):
            name, path = str(references.class_names[c]), folder / str(file)
            if name not in found and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
                found[name] = path
        return list(found.items())

    @property
    def names(self) -> list[str]:
        """Classes of the images to try, by their current names."""
        now = self.recognizer.named_now
        return [now.get(name, name) for name, _ in self._training[:EXAMPLES]]

    def jpeg(self, number: int, small: bool) -> bytes:
        """A training image as JPEG: of those to try, or of another class."""
        if number >= len(self._training):
            raise Refusal(404, f"no example {number}", "see /api/examples")
        path = self._training[number][1]
        image = decode(Upload(path.name, path.read_bytes()), self._max_pixels)
        return jpeg(image, THUMBNAIL if small else PREVIEW)

    def addresses(self, sent: Collection[str]) -> dict[str, str]:
        """Class to the address of a small image of it: of the training, else of its support images.

        Args:
            sent: SHA-256 of the support images of which the server has a thumbnail.
        """
        now = self.recognizer.named_now
        found = {now.get(name, name): f"/api/examples/{i}?small=1" for i, (name, _) in enumerate(self._training)}
        for name, mine in self.recognizer.support.classes.items():
            shown = (image.sha256 for image in mine.images if image.sha256 in sent or on_disk(image))
            if name not in found and (digest := next(shown, None)):
                found[name] = f"/api/thumbnails/{digest}"
        return found
