"""All that is wrong or doubtful in a dataset folder, found at once, with the place and the hint of each."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from unseen.classes.spreadsheets.columns import Encoding, parts_of
from unseen.classes.spreadsheets.tables import fold, place, to_numbers
from unseen.data.folder import (
    Classes,
    misfits,
    read_classes,
    settle,
)
from unseen.data.folder_images import FEATURES, Listing, find_files, left_out, read_images
from unseen.data.provenance import unchecked
from unseen.errors import DataError
from unseen.formats.xlsa17 import SPLITS
from unseen.ground.image_files import OTHER, endings_of
from unseen.ground.images import eight_bit, is_elongated, opened_image, scaled_colours, used_bits
from unseen.ground.progress import Progress, silent

FEW = 5
"""Seen classes with fewer images are warned of."""
TINY = 64
"""Images with a shorter side in pixels are warned of."""
IMBALANCE = 20
HARDLY = 0.05
"""Share of an attribute's range below which classes hardly differ in it, as where a blank was filled in."""
ALIKE = 0.975
"""Correlation of two thumbnails from which on images count as near copies.

Saving again, halving and brightening stay above it. Of 2,889 photographs of CUB three pairs reach it, each of one bird
on one occasion; of 2,400 drawn birds none.
"""
EXAMPLE = "EXAMPLE"
"""What class names of the template begin with."""

_THUMB = 12
_CHUNK = 1024
_BLOCK = 128


@dataclass(frozen=True)
class Finding:
    """One thing found: ``level`` is error (training would stop), warning or note; ``kind`` groups alike ones."""

    level: str
    kind: str
    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} — {self.hint}" if self.hint else text


@dataclass
class CheckResult:
    """What a folder holds, and every finding.

    Attributes:
        folder: the dataset folder.
        findings: by kind, in the order of checking.
        classes: table, seen and unseen names; empty while there is no readable table.
        images: images by split, and of each seen class.
        encoding: how the columns were understood.
    """

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    classes: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    encoding: Encoding | None = None

    def of(self, level: str) -> list[Finding]:
        """The findings of a level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def ready(self) -> bool:
        """Whether training would start."""
        return not self.of("error")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "ready": self.ready,
            "classes": self.classes,
            "images": self.images,
            "columns": {} if self.encoding is None else {c.name: c.describe() for c in self.encoding.columns},
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_folder(folder: Path | str, *, workers: int | None = None, progress: Progress = silent) -> CheckResult:
    """Check a dataset folder whole: tables, images, what the attributes can tell apart, and likely leaks.

    Every image is decoded. Memory grows by about 3 kB an image.

    Args:
        folder: as :func:`unseen.data.folder.load_folder` takes it.
        workers: threads that decode; default one a core.
        progress: told how far it is.
    """
    root = Path(folder)
    result = CheckResult(root)
    say = _Speaker(result)
    classes = read_classes(root, say.errors)
    if classes is None:
        images = root / "images"
        files = tuple(find_files(images)[0]) if images.is_dir() else ()
        loose = Listing(images, None, files, np.zeros(len(files), np.int64), None)
        _check_images(say, loose, _scan(loose, workers or os.cpu_count() or 1, progress))
        return result
    listing = read_images(root, classes.names, say.errors, classes.path)
    result.encoding = classes.encoding
    for note in (*classes.notes, *(listing.notes if listing else ())):
        say("note", "reading the tables", root, note)
    drafted = [] if classes.frame is None else unchecked(root, classes.frame)
    if drafted:
        what = f"{len(drafted)} cells were drafted by a program and nobody has checked them, first "
        hint = "check them, and say yes under checked in provenance.csv"
        say("warning", "cells that nobody has checked", root / "provenance.csv", what + ", ".join(drafted[0]), hint)
    for doubt in classes.doubts:
        say("warning", "cells that may be misread", doubt.where, doubt.problem, doubt.hint or "")
    if listing is None:
        result.classes = {"table": classes.path.name, "seen": [], "unseen": list(classes.names)}
        _check_table(say, classes, np.zeros(len(classes.names), dtype=bool))
        return result
    say.errors(misfits(root, classes, listing))
    seen, split = settle(classes, listing)
    classes = classes.filled(seen)
    counts = np.bincount(listing.labels, minlength=len(classes.names))
    result.classes = {
        "table": classes.path.name,
        "seen": [n for n, s in zip(classes.names, seen, strict=True) if s],
        "unseen": [n for n, s in zip(classes.names, seen, strict=True) if not s],
    }
    result.images = {name: int((split == name).sum()) for name in SPLITS}
    result.images["by"] = listing.path.name if listing.path else "folders"
    result.images["of each class"] = {n: int(c) for n, c in zip(classes.names, counts, strict=True) if c}
    _check_counts(say, classes, seen, listing.labels[split == "trainval"])
    _check_table(say, classes, seen)
    _check_others(say, listing)
    if not listing.images.is_dir():
        what = f"no images: the features in {FEATURES}/ are used instead"
        say("note", "reading the tables", root, what)
        return result
    scans = _scan(listing, workers or os.cpu_count() or 1, progress)
    _check_images(say, listing, scans)
    _check_copies(say, classes, listing, split, scans, progress)
    return result


class _Speaker:
    """Adds findings to a result, with places as seen from the folder."""

    def __init__(self, result: CheckResult) -> None:
        self._result, self._root = result, result.folder

    def __call__(self, level: str, kind: str, where: object, what: str, hint: str = "") -> None:
        self._result.findings.append(Finding(level, kind, self._short(where), what, hint))

    def errors(self, errors: Sequence[DataError]) -> None:
        """Add what would stop training."""
        for error in errors:
            self("error", "errors that stop training", error.where or self._root, error.problem, error.hint or "")

    def _short(self, where: object) -> str:
        return str(where).removeprefix(str(self._root)).removeprefix(os.sep)


# the tables


def _check_counts(say: _Speaker, classes: Classes, seen: np.ndarray, trained: np.ndarray) -> None:
    """Classes with too few images, and very uneven ones."""
    counts = np.bincount(trained, minlength=len(seen))
    for c in np.flatnonzero(seen & (counts < FEW) & (counts > 0)):
        some = "1 image" if counts[c] == 1 else f"{counts[c]} images"
        what = f"only {some} for training"
        say(
            "warning",
            "classes with few images",
            f'class "{classes.names[c]}"',
            what,
            "add images; aim for 20 or more",
        )
    have = counts[seen & (counts > 0)]
    if len(have) and have.max() > IMBALANCE * have.min():
        most, least = (classes.names[int(np.flatnonzero(seen & (counts == n))[0])] for n in (have.max(), have.min()))
        what = f'"{most}" has {have.max()} training images, "{least}" {have.min()}'
        say("warning", "class imbalance", classes.path, what, "add images of the rare classes")
    if seen.all():
        what = "every class has images, so there is no unseen class"
        say(
            "warning",
            "no unseen classes",
            classes.path,
            what,
            "add rows for classes without images now or later",
        )


def _check_table(say: _Speaker, classes: Classes, seen: np.ndarray) -> None:
    values, names = classes.values, classes.attributes.names
    low, high = values.min(axis=0), values.max(axis=0)
    varies = high > low
    once = np.ones(len(names), dtype=bool)  # the upper one of the two of an ordered column
    if classes.encoding is not None:
        lower = {column.attributes[0] for column in classes.encoding.columns if column.ends}
        once = np.array([name not in lower for name in names])
    for k in np.flatnonzero(~varies & once):
        say(
            "warning",
            "constant attributes",
            f'attribute "{names[k]}"',
            "the same in every class",
            "it carries no information",
        )
    if seen.any():
        constant = varies & (np.ptp(values[seen], axis=0) <= HARDLY * np.ptp(values, axis=0))
        for k in np.flatnonzero(constant & once):
            what = "the same in every class with images, so it cannot be learned"
            hint = "add images of a class with another value"
            say("warning", "attributes that cannot be learned", f'attribute "{names[k]}"', what, hint)
        has = values == high
        flag = (has | (values == low)).all(axis=0)
        for k in np.flatnonzero(flag & varies & ~constant & (has[seen].sum(axis=0) == 1) & (seen.sum() > 3)):
            c = int(np.flatnonzero(seen & has[:, k])[0])
            what = f'only one class with images has it: "{classes.names[c]}"'
            hint = "the model cannot separate it from the other attributes of that class"
            say("warning", "attributes of one class", f'attribute "{names[k]}"', what, hint)
    _check_equal_columns(say, classes, varies & once)
    _check_twins(say, classes, low, high)
    _check_names(say, classes)
    if classes.frame is not None and classes.encoding is not None:
        _check_cells(say, classes, classes.frame, classes.encoding)


def _check_equal_columns(say: _Speaker, classes: Classes, varies: np.ndarray) -> None:
    """Attributes that go together in every class, so that no method can tell them apart."""
    if len(classes.names) < 4:
        return
    columns = np.flatnonzero(varies)
    unit = classes.values[:, columns] - classes.values[:, columns].mean(axis=0)
    unit = unit / np.linalg.norm(unit, axis=0)
    groups = classes.attributes.groups
    for a, b in np.argwhere(np.triu(np.abs(unit.T @ unit) > 1 - 1e-9, 1)):
        i, j = int(columns[a]), int(columns[b])
        if groups[i] != groups[j]:
            kind = "always occur together" if unit[:, a] @ unit[:, b] > 0 else "are opposites"
            where = f'attributes "{classes.attributes.names[i]}" and "{classes.attributes.names[j]}"'
            say(
                "warning",
                "redundant attributes",
                where,
                f"they {kind} in every class",
                "drop one, or add classes",
            )


def _check_twins(say: _Speaker, classes: Classes, low: np.ndarray, high: np.ndarray) -> None:
    """Pairs of classes with the same attributes, or that differ in one group of attributes alone.

    Values differ that are more than a tenth of the attribute's range apart; rows of the same direction are the same.
    """
    values, groups = classes.values, list(dict.fromkeys(classes.attributes.groups))
    of = np.array([groups.index(g) for g in classes.attributes.groups])
    step = np.where(high > low, high - low, 1.0) / 10
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(norms > 0, norms, 1)
    for i in range(len(values) - 1):
        differs = np.abs(values[i + 1 :] - values[i]) > step
        same = np.abs(unit[i + 1 :] - unit[i]).max(axis=1) < 1e-9
        counts = np.zeros((len(differs), len(groups)), dtype=bool)
        for g in range(len(groups)):
            counts[:, g] = differs[:, of == g].any(axis=1)
        close = counts.sum(axis=1) <= 1
        for offset in np.flatnonzero(same | (close & (len(groups) > 3))):
            where = f'classes "{classes.names[i]}" and "{classes.names[i + 1 + offset]}"'
            if same[offset] or not counts[offset].any():
                exactly = "the same attributes" if same[offset] else "nearly the same attributes"
                what, kind = f"{exactly}: the model cannot separate them", "indistinguishable classes"
                hint = "add an attribute that separates them"
            else:
                group = groups[int(np.flatnonzero(counts[offset])[0])]
                what, kind = f'they differ in "{group}" alone', "classes that are nearly alike"
                hint = "add more attributes that separate them"
            say("warning", kind, where, what, hint)


def _check_names(say: _Speaker, classes: Classes) -> None:
    """Class names that are probably one class spelt in two ways, and rows of the template."""
    for row, name in enumerate(classes.names):
        if name.startswith(EXAMPLE):
            what = f'"{name}" is an example row of the template'
            say(
                "warning",
                "example rows",
                place(classes.path, row),
                what,
                "replace it with your own class, or remove it",
            )
    folded = [fold(name) for name in classes.names]
    for (i, a), (j, b) in _alike(folded):
        where = place(classes.path, j, "class")
        what = f'"{classes.names[j]}" is spelled nearly like "{classes.names[i]}" in row {i + 2}'
        hint = "rename or remove one" if a == b else "if they are the same class, keep one row"
        say("warning", "similar class names", where, what, hint)


def _alike(words: Sequence[str], most: int = 400) -> Iterable[tuple[tuple[int, str], tuple[int, str]]]:
    """Pairs that differ by a letter or so; of very many words only those that are equal."""
    pairs = combinations(enumerate(words), 2)
    if len(words) > most:
        first: dict[str, int] = {}
        for i, word in enumerate(words):
            if first.setdefault(word, i) != i:
                yield (first[word], word), (i, word)
        return
    for (i, a), (j, b) in pairs:
        letters = [("".join(c for c in w if not c.isdigit())) for w in (a, b)]
        if a == b or (min(map(len, letters)) >= 5 and letters[0] != letters[1] and _close(a, b)):
            yield (i, a), (j, b)


def _close(a: str, b: str) -> bool:
    """One letter more, less or other, or two swapped."""
    if abs(len(a) - len(b)) > 1 or not _share_end(a, b):
        return False
    return SequenceMatcher(None, a, b, autojunk=False).ratio() > 1 - 1.5 / max(len(a), len(b))


def _share_end(a: str, b: str) -> bool:
    return a[:2] == b[:2] or a[-2:] == b[-2:]


def _check_cells(say: _Speaker, classes: Classes, frame: pd.DataFrame, encoding: Encoding) -> None:
    """Columns that look like no attributes, values spelt in two ways, and rows and columns that are mostly blank."""
    for column in encoding.columns:
        where = f'{classes.path.name}, column "{column.name}"'
        if column.kind not in ("ignored", "marks") and 2 * column.blanks > len(frame):
            what = f"{column.blanks} of {len(frame)} cells are blank and get the mean of the others"
            say("warning", "mostly blank", where, what, "fill in more cells, or remove the column")
        cells = to_numbers(frame[column.name])
        if column.kind in ("number", "as is") and len(cells) > 3 and (np.diff(cells) == 1).all():
            hint = 'if it is a row number, remove it or set its scale to "ignore"'
            say("warning", "row numbers", where, "it numbers the rows", hint)
        if column.kind == "categories":
            used = Counter(fold(p) for cell in frame[column.name] for p in parts_of(cell))
            steps = [fold(step) for step in column.steps]
            for (i, a), (j, b) in _alike(steps):
                rare, other = (i, j) if used[a] <= used[b] else (j, i)
                if used[steps[rare]] == 1:
                    rows = [r for r, cell in enumerate(frame[column.name]) if steps[rare] in fold(cell)]
                    at = place(classes.path, rows[0], column.name) if rows else where
                    what = f'"{column.steps[rare]}" appears once, and "{column.steps[other]}" is spelled nearly alike'
                    say("warning", "similar values", at, what, "if they are the same, spell them alike")
    used_columns = [c.name for c in encoding.columns if c.kind not in ("ignored", "marks")]
    if len(used_columns) > 2:
        by_name = {c.name: c for c in encoding.columns}
        blank = frame[used_columns].apply(lambda cells: cells.map(by_name[cells.name].is_blank)).sum(axis=1)
        for row in np.flatnonzero(2 * blank > len(used_columns)):
            if blank.iloc[row] < len(used_columns):
                what = f"{blank.iloc[row]} of {len(used_columns)} attributes are blank"
                hint = "fill in more; they are all the model knows about an unseen class"
                say("warning", "mostly blank", place(classes.path, int(row)), what, hint)


# the images


@dataclass(frozen=True)
class _Scan:
    """An image's content hash, its thumbnail of unit length, and what is to be said of it."""

    digest: bytes
    thumb: np.ndarray | None
    found: tuple[tuple[str, str, str, str], ...]  # level, kind, what, hint


def _scan(listing: Listing, workers: int, progress: Progress) -> list[_Scan]:
    scans: list[_Scan] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(listing.files), _CHUNK):
            chunk = listing.files[start : start + _CHUNK]
            for scan in pool.map(_scan_one, [listing.images / file for file in chunk]):
                scans.append(scan)
                progress("checking images", len(scans), len(listing.files))
    return scans


def _scan_one(path: Path) -> _Scan:
    broken = "unreadable images"
    hint = "replace or remove it"
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        return _Scan(b"", None, (("error", broken, "not a file", hint),))
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if path.stat().st_size == 0:
            return _Scan(digest, None, (("error", broken, "the file is empty", hint),))
    except OSError as error:
        return _Scan(b"", None, (("error", broken, error.strerror or str(error), hint),))
    found: list[tuple[str, str, str, str]] = []
    try:
        with opened_image(path) as image:
            side, kind, mode = min(image.size), image.format or "", image.mode
            if path.suffix.lower() not in endings_of(kind):
                found.append(("note", "wrong file extensions", f"a {kind} image named {path.suffix}", ""))
            what = f"{image.width} x {image.height} pixels"
            if is_elongated(*image.size):
                return _Scan(digest, None, (("error", broken, f"{what} is too narrow", "crop it"),))
            if side < TINY:
                found.append(("warning", "tiny images", what, "use a larger version if there is one"))
            if mode == "F":
                raise ValueError("floating-point pixels have no fixed range")
            if mode == "CMYK":
                found.append(("note", "converted images", "converted from CMYK to RGB", ""))
            elif mode.startswith("I"):
                what = f"16-bit grayscale with {used_bits(image)} bits in use, scaled to 8 bits"
                found.append(("note", "converted images", what, ""))
            pixels, bits = scaled_colours(image)
            if pixels is not image:
                what = f"16-bit color with {bits} bits in use, scaled to 8 bits"
                found.append(("note", "converted images", what, ""))
            thumb = thumbnail(pixels)
            if (frames := _frames(image)) > 1 and kind != "MPO":
                found.append(("note", "converted images", f"{frames} frames; the first is used", ""))
            return _Scan(digest, thumb, tuple(found))
    except DataError as error:
        return _Scan(digest, None, (("error", broken, error.problem, error.hint or hint),))


def _frames(image: Image.Image) -> int:
    """How many frames can be counted; those after the first are not read, and may be broken."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # Pillow looks at each, and raises nearly anything
        return 1


def thumbnail(image: Image.Image) -> np.ndarray | None:
    """The image as a float16 vector of unit length whose product with another's is their correlation.

    Decodes it whole. ``None`` for an image without contrast, which would be like any other of the kind.
    """
    image.draft("RGB", (4 * _THUMB, 4 * _THUMB))  # JPEG is decoded whole, but at an eighth of the size
    if image.mode.startswith("I"):
        image = eight_bit(image)
    small = image.convert("RGB").resize((_THUMB, _THUMB), Image.Resampling.BOX)
    vector = np.asarray(small, dtype=np.float32).ravel()
    vector = vector - vector.mean()
    norm = float(np.linalg.norm(vector))
    return (vector / norm).astype(np.float16) if norm > 3 * np.sqrt(vector.size) else None


def _check_others(say: _Speaker, listing: Listing) -> None:
    """Files beside the images that a person may take for images."""
    found, others = find_files(listing.images)
    listed = set(listing.files)
    for file, why in others:
        if file not in listed and Path(file).suffix.lower() in OTHER:
            say("warning", "ignored files", listing.images / file, why)
    if listing.path is not None:
        for line in left_out((file, why) for file, why in others if file not in listed):
            say("note", "ignored files", listing.images, line)
        left = len(found) - len(set(found) & listed)
        if left:
            say("note", "ignored files", listing.images, f"{left} images are not in {listing.path.name}")


def _check_images(say: _Speaker, listing: Listing, scans: list[_Scan]) -> None:
    for file, scan in zip(listing.files, scans, strict=True):
        for level, kind, what, hint in scan.found:
            say(level, kind, listing.images / file, what, hint)


def _check_copies(
    say: _Speaker, classes: Classes, listing: Listing, split: np.ndarray, scans: list[_Scan], progress: Progress
) -> None:
    """Images that are there twice, exactly or nearly; worst those with two classes, and in training and test."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, scan in enumerate(scans):
        if scan.digest and not any(level == "error" for level, *_ in scan.found):
            groups[scan.digest].append(i)
    for copies in groups.values():
        for other in copies[1:]:
            _say_copy(say, classes, listing, split, other, copies[0], exact=True)
    firsts = [copies[0] for copies in groups.values() if scans[copies[0]].thumb is not None]
    if len(firsts) < 2:
        return
    thumbs = np.stack([scans[i].thumb for i in firsts]).astype(np.float32)  # type: ignore[misc]
    labels, tested = listing.labels[firsts], split[firsts] != "trainval"
    pairs: dict[tuple[int, int], None] = {}
    alike = 0
    for start in range(0, len(firsts), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(firsts)))
        product = thumbs[rows] @ thumbs.T
        product[np.arange(len(rows)), rows] = 0
        alike += int((product.max(axis=1) > ALIKE).sum())
        for apart in (labels[rows, None] != labels, tested[rows, None] != tested, None):
            best = product if apart is None else np.where(apart, product, 0)
            nearest = best.argmax(axis=1)
            for row in np.flatnonzero(best.max(axis=1) > ALIKE):
                a, b = int(rows[row]), int(nearest[row])
                pairs.setdefault((min(a, b), max(a, b)))
        progress("comparing images", len(rows) + start, len(firsts))
    if alike > 0.2 * len(firsts):
        what = f"{alike} of {len(firsts)} images look nearly like another image"
        hint = "with a fixed camera, keep images of one occasion in one split"
        say("warning", "near-duplicate images", listing.images, what, hint)
    for a, b in pairs:
        if alike > 0.2 * len(firsts) and labels[a] == labels[b] and tested[a] == tested[b]:
            continue  # said above, in one line
        _say_copy(say, classes, listing, split, firsts[b], firsts[a], exact=False)


def _say_copy(
    say: _Speaker, classes: Classes, listing: Listing, split: np.ndarray, this: int, first: int, *, exact: bool
) -> None:
    """Say that an image is a copy of an earlier one, and what that does."""
    where = listing.images / listing.files[this]
    kind, what = ("a copy", "a copy of") if exact else ("nearly a copy", "nearly the same image as")
    what = f'{what} "{listing.files[first]}"'
    if listing.labels[this] != listing.labels[first]:
        a, b = (classes.names[listing.labels[i]] for i in (first, this))
        say(
            "warning",
            f"{kind} with another class",
            where,
            f'{what}, in classes "{a}" and "{b}"',
            "keep the correct one",
        )
    elif (split[this] == "trainval") != (split[first] == "trainval"):
        hint = "keep one; otherwise the test is too easy" if exact else "keep one, or put both in the same split"
        say("warning", f"{kind} in training and test (a leak)", where, what, hint)
    else:
        say("warning" if exact else "note", kind, where, what, "keep one" if exact else "")
