"""Support images over HTTP: read one by one, added together, listed with thumbnails, removed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import numpy as np

from unseen.errors import DataError, UnseenError
from unseen.model.support import SupportImage
from unseen.recognizer.class_images import read_images
from unseen.serve import schema
from unseen.serve.classes import Classes
from unseen.serve.settings import Refusal
from unseen.serve.thumbnails import THUMBNAIL, jpeg, on_disk
from unseen.serve.uploads import Upload, decode


@dataclass(frozen=True, eq=False)
class Read:
    """An image that can become a support image.

    Args:
        image: origin of the image.
        features: pooled features, float32 ``(1, C)``.
        thumbnail: a small JPEG.
    """

    image: SupportImage
    features: np.ndarray
    thumbnail: bytes


class SupportImages:
    """Support images of classes; everything here runs in the worker's thread.

    Args:
        classes: classes of the served model.

    Attributes:
        refused: why classes cannot have images; ``None`` if they can.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes, self.recognizer = classes, classes.recognizer
        self._most = self._count() + classes.settings.support_images
        self.refused: str | None = None
        try:
            self.recognizer.space  # noqa: B018
        except UnseenError as error:
            self.refused = f"{error.problem}; {error.hint}"

    def check(self, name: str, new: bool) -> None:
        """Raise an error if the class cannot get images, before any is read."""
        self.recognizer.space  # noqa: B018 - says why there is none
        if new:
            self.classes.must_be_new(name)
        else:
            self.classes.index(name)

    def read(self, upload: Upload) -> Read | schema.FailedImage:
        """Features and origin of an image, or the reason why it cannot be read."""
        try:
            image = decode(upload, self.classes.settings.max_pixels)
        except Refusal as refusal:
            return schema.FailedImage(image=upload.name, error=refusal.detail, hint=refusal.hint)
        except DataError as error:
            where = f"{upload.name}: {error.problem}"
            return schema.FailedImage(image=upload.name, error=where, hint=error.hint or "replace it")
        found = read_images(self.recognizer, image)
        assert found is not None
        (about,), features = found
        about = replace(about, file=upload.name, sha256=hashlib.sha256(upload.data).hexdigest())
        return Read(about, features, jpeg(image, THUMBNAIL))

    def add(self, name: str, given: Sequence[Read | schema.FailedImage], new: bool = False) -> schema.ImagesAdded:
        """Add images to a class, or create a class from images alone.

        Args:
            name: name of the class.
            given: images; the answer names those that could not be read and were left out.
            new: whether to create the class.

        Raises:
            Refusal: no image could be read, the class exists (if new) or does not, or there are too many images.
        """
        found = [one for one in given if isinstance(one, Read)]
        failed = [one for one in given if isinstance(one, schema.FailedImage)]
        if not found:
            raise Refusal(422, failed[0].error, failed[0].hint)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        images = [replace(one.image, added=now) for one in found]
        with self.classes.change():
            if new:
                self.classes.add_described(name, self.recognizer.table.unknown)
            name = self.recognizer.table.names[self.classes.index(name)]
            if self._count() + len(images) > self._most:
                most = self.classes.settings.support_images
                raise Refusal(409, f"more than {most} support images", "remove some first")
            features = np.concatenate([one.features for one in found])
            support, again = self.recognizer.support.added(name, images, features, False if new else None)
            elsewhere = self._elsewhere(name, images)
            self.recognizer.support = support
        self.classes.sent |= {one.image.sha256: one.thumbnail for one in found}
        self._forget()
        fresh = [image.sha256 for image in support[name].images if image.added == now]
        return schema.ImagesAdded(
            **self.classes.entry_of(name),
            warnings=elsewhere,
            added=fresh,
            known=[image.file for image in again],
            failed=failed,
        )

    def listed(self, name: str) -> schema.ImagesOfClass:
        """Images of a class, in the order of addition."""
        name = self.recognizer.table.names[self.classes.index(name)]
        images = [
            schema.ClassImage(
                image=PurePosixPath(image.file.replace("\\", "/")).name,
                sha256=image.sha256,
                added=image.added,
                thumbnail=image.sha256 in self.classes.sent or on_disk(image),
            )
            for image in self.recognizer.support[name].images
        ]
        return schema.ImagesOfClass(name=name, images=images)

    def remove(self, name: str, digests: Sequence[str]) -> schema.Changed:
        """Remove images of a class by their SHA-256, or all."""
        with self.classes.change():
            name = self.recognizer.table.names[self.classes.index(name)]
            known = {image.sha256 for image in self.recognizer.support[name].images}
            wrong = [digest for digest in digests if digest not in known]
            if wrong or not known:
                problem = f'no image "{wrong[0][:20]}" of "{name}"' if wrong else f'"{name}" has no images'
                raise Refusal(404, problem, "see /api/class-images/NAME")
            self.recognizer.remove_images(name, list(dict.fromkeys(digests)) or None)
        self._forget()
        return schema.Changed(**self.classes.entry_of(name))

    def thumbnail(self, digest: str) -> bytes:
        """A support image as a small JPEG: one sent to this server, or a file that still exists unchanged.

        Raises:
            Refusal: neither.
        """
        if digest in self.classes.sent:
            return self.classes.sent[digest]
        every = (image for mine in self.recognizer.support.classes.values() for image in mine.images)
        for image in every:
            if image.sha256 == digest and on_disk(image):
                with suppress(OSError, DataError, Refusal):
                    data = Path(image.file).read_bytes()
                    if hashlib.sha256(data).hexdigest() == digest:
                        return jpeg(decode(Upload(digest, data), self.classes.settings.max_pixels), THUMBNAIL)
        raise Refusal(404, "no thumbnail of this image", "the model keeps features of images, not the images")

    def _elsewhere(self, name: str, images: Sequence[SupportImage]) -> list[str]:
        """Warnings about images that another class also has."""
        names = {image.sha256: image.file for image in reversed(images)}
        return [
            f'{names[image.sha256]} is also an image of "{other}"'
            for other, mine in self.recognizer.support.classes.items()
            for image in mine.images
            if other != name and image.sha256 in names
        ]

    def _forget(self) -> None:
        """Drop thumbnails of images that no class has any more."""
        kept = self.recognizer.support.digests
        self.classes.sent = {digest: small for digest, small in self.classes.sent.items() if digest in kept}

    def _count(self) -> int:
        return sum(len(mine.images) for mine in self.recognizer.support.classes.values())
