"""Images in tar archives, such as WebDataset shards: found by their headers, and read on demand."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from unseen.errors import DataError
from unseen.ground.image_files import endings
from unseen.ground.images import EncodedImage, PackedImage

TAR = ".tar"


def tar_images(path: Path) -> Iterator[PackedImage]:
    """Yield the images of an uncompressed archive in its order; skips other members.

    Raises:
        DataError: the file is not an archive, or compressed, or damaged.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                hidden = os.path.basename(member.name).startswith(".")  # noqa: PTH119 - a name in an archive
                if member.isreg() and not hidden and os.path.splitext(member.name)[1].lower() in endings():  # noqa: PTH122
                    yield PackedImage(str(path), member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        said = getattr(error, "strerror", None) or f"no tar archive ({error})"
        raise DataError(said, where=path, hint="make it an uncompressed tar, or unpack it") from None


class WithTars:
    """Images of files and of archives among them, searched again at each iteration.

    Args:
        found: paths, such as :class:`unseen.data.finding.FoundImages`.
    """

    def __init__(self, found: Iterable[Path]) -> None:
        self._found = found

    def __iter__(self) -> Iterator[Path | EncodedImage]:
        for path in self._found:
            if path.suffix.lower() == TAR:
                yield from tar_images(path)
            else:
                yield path
