"""Checks of image files: unreadable, tiny, converted or unlisted."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unseen.data.checks.findings import Recorder
from unseen.data.folder_images import Listing, find_files, left_out
from unseen.errors import DataError
from unseen.ground.image_files import OTHER, endings_of
from unseen.ground.images import eight_bit, is_elongated, opened_image, scaled_colors, used_bits
from unseen.ground.progress import Progress
from unseen.ground.words import counted

TINY = 64
"""Images with a shorter side, in pixels, get a warning."""

_THUMB = 12
_CHUNK = 1024


@dataclass(frozen=True)
class Scan:
    """An image's content hash, its thumbnail of unit length, and the findings about it."""

    digest: bytes
    thumb: np.ndarray | None
    found: tuple[tuple[str, str, str, str], ...]  # level, kind, what, hint


def scan_images(listing: Listing, workers: int, progress: Progress) -> list[Scan]:
    """Decode every listed image, in parallel."""
    scans: list[Scan] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(listing.files), _CHUNK):
            chunk = listing.files[start : start + _CHUNK]
            for scan in pool.map(scan_image, [listing.images / file for file in chunk]):
                scans.append(scan)
                progress("checking images", len(scans), len(listing.files))
    return scans


def scan_image(path: Path) -> Scan:
    """Decode one image and look for what is wrong with it; never raises."""
    broken = "unreadable images"
    hint = "replace or remove it"
    if path.exists() and not path.is_file():  # opening a pipe would block for ever
        return Scan(b"", None, (("error", broken, "not a file", hint),))
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if path.stat().st_size == 0:
            return Scan(digest, None, (("error", broken, "the file is empty", hint),))
    except OSError as error:
        return Scan(b"", None, (("error", broken, error.strerror or str(error), hint),))
    found: list[tuple[str, str, str, str]] = []
    try:
        with opened_image(path) as image:
            side, kind, mode = min(image.size), image.format or "", image.mode
            if path.suffix.lower() not in endings_of(kind):
                found.append(("note", "wrong file extensions", f"a {kind} image named {path.suffix}", ""))
            what = f"{image.width} x {image.height} pixels"
            if is_elongated(*image.size):
                return Scan(digest, None, (("error", broken, f"{what} is too narrow", "crop it"),))
            if side < TINY:
                found.append(("warning", "tiny images", what, "use a larger version if there is one"))
            if mode == "F":
                raise ValueError("floating-point pixels have no fixed range")
            if mode == "CMYK":
                found.append(("note", "converted images", "converted from CMYK to RGB", ""))
            elif mode.startswith("I"):
                what = f"16-bit grayscale with {used_bits(image)} bits in use, scaled to 8 bits"
                found.append(("note", "converted images", what, ""))
            pixels, bits = scaled_colors(image)
            if pixels is not image:
                what = f"16-bit color with {bits} bits in use, scaled to 8 bits"
                found.append(("note", "converted images", what, ""))
            thumb = thumbnail(pixels)
            if (frames := _frames(image)) > 1 and kind != "MPO":
                found.append(("note", "converted images", f"{frames} frames; the first is used", ""))
            return Scan(digest, thumb, tuple(found))
    except DataError as error:
        return Scan(digest, None, (("error", broken, error.problem, error.hint or hint),))


def _frames(image: Image.Image) -> int:
    """Number of frames, or 1 if they cannot be counted; frames after the first may be broken and are not read."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # Pillow opens each frame, and may raise nearly anything
        return 1


def thumbnail(image: Image.Image) -> np.ndarray | None:
    """The image as a float16 vector of unit length; the product of two is the correlation of their images.

    Decodes the whole image. ``None`` for an image without contrast, since all such images are alike.
    """
    image.draft("RGB", (4 * _THUMB, 4 * _THUMB))  # JPEG is decoded whole, but at an eighth of the size
    if image.mode.startswith("I"):
        image = eight_bit(image)
    small = image.convert("RGB").resize((_THUMB, _THUMB), Image.Resampling.BOX)
    vector = np.asarray(small, dtype=np.float32).ravel()
    vector = vector - vector.mean()
    norm = float(np.linalg.norm(vector))
    return (vector / norm).astype(np.float16) if norm > 3 * np.sqrt(vector.size) else None


def is_about_others(note: str) -> bool:
    """Whether a note is about files that :func:`check_others` names one by one."""
    return any(f" ignored, {ending}, {what}: " in note for ending, what in OTHER.items())


def check_others(say: Recorder, listing: Listing) -> None:
    """Check for files that a person may take for images but that are not used."""
    found, others = find_files(listing.images)
    listed = set(listing.files)
    unused = [(file, why) for file, why in others if file not in listed]
    taken_for_images = [(file, why) for file, why in unused if Path(file).suffix.lower() in OTHER]
    for file, why in taken_for_images:
        say("warning", "ignored files", listing.images / file, why)
    if listing.path is not None:
        for line in left_out(one for one in unused if one not in taken_for_images):
            say("note", "ignored files", listing.images, line)
        left = len(found) - len(set(found) & listed)
        if left:
            say("note", "ignored files", listing.images, f"{counted(left, 'image')} not in {listing.path.name}")


def check_images(say: Recorder, listing: Listing, scans: list[Scan]) -> None:
    """Add the findings of the scans."""
    for file, scan in zip(listing.files, scans, strict=True):
        for level, kind, what, hint in scan.found:
            say(level, kind, listing.images / file, what, hint)
