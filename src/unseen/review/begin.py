"""Start or resume a review."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from unseen.errors import DataError, RunError
from unseen.ground.files import file_digest, read_json, write_json
from unseen.ground.progress import Progress, silent
from unseen.recognizer.recognizer import Recognizer
from unseen.recognizer.stream import Options, facts_of, predict_to_file
from unseen.review.book import FACTS, PREDICTIONS, VERDICTS, Review
from unseen.version import __version__

MADE_BY = ("model", "class table", "support images", "class selection")
"""What the answers of a review depend on beside the images."""


def begin(
    recognizer: Recognizer,
    images: Iterable[Path],
    folder: Path,
    options: Options | None = None,
    *,
    total: int = 0,
    workers: int = 2,
    progress: Progress = silent,
    broken: Callable[[DataError], None] = lambda error: None,
    again: bool = False,
) -> Review:
    """Predict the images and open their review; a folder with a review of the same images is opened unchanged.

    Images that are support images of classes are marked as used: the model knows them, so they do not count in the
    accuracy.

    Args:
        recognizer: model.
        images: images, in the same order at every iteration.
        folder: folder of the review; created if needed.
        options, total, workers, progress, broken: see :func:`unseen.recognizer.stream.predict_to_file`.
        again: predict again with the current model, and keep the verdicts.

    Raises:
        RunError: the folder holds something else, or a review of other images.
    """
    facts, predictions = folder / FACTS, folder / PREDICTIONS
    options = options or Options()
    made = {name: digest for name, digest in facts_of(recognizer, options).items() if name in MADE_BY}
    wanted = {"images": _digest(images), **made}
    if facts.is_file():
        before = read_json(facts)["of"]
        other = [name for name in wanted if before.get(name) != wanted[name]]
        if "images" in other or (other and not again):
            hint = "pass another --output"
            if "images" not in other:
                hint = "pass --again to predict again and keep the verdicts"
            raise RunError(f"a review with other {' and '.join(other)}", where=folder, hint=hint)
        if other:
            predictions.unlink(missing_ok=True)
            facts.unlink()
    elif folder.is_dir() and not (folder / VERDICTS).is_file() and any(map(_foreign, folder.iterdir())):
        raise RunError("the folder is not empty and contains no review", where=folder, hint="pass another --output")
    folder.mkdir(parents=True, exist_ok=True)
    if not predictions.is_file():
        predict_to_file(
            recognizer,
            images,
            predictions,
            options,
            total=total,
            workers=workers,
            over="pass another --output",
            progress=progress,
            broken=broken,
        )
    if not facts.is_file():
        found = {
            "unseen": __version__,
            "used": _used(recognizer, images),
            "of": wanted,
            "classes": list(recognizer.table.names),
            "origins": recognizer.table.origins,
            "threshold": recognizer.threshold,
        }
        write_json(facts, found, sealed=True)
    return Review(folder)


def _foreign(entry: Path) -> bool:
    """Whether a file does not belong to a review that was stopped before its first verdict."""
    return not entry.name.startswith(PREDICTIONS)


def _used(recognizer: Recognizer, images: Iterable[Path]) -> list[int]:
    """Positions of images that some class has as support images, by their content."""
    known = recognizer.support.digests
    return [row for row, image in enumerate(images) if image.is_file() and file_digest(image) in known] if known else []


def _digest(images: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for image in images:
        found.update(str(image).encode(errors="surrogateescape") + b"\0")
    return found.hexdigest()
