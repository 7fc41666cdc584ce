"""The check of a whole dataset folder, ``unseen check``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from unseen.data.checks.copies import check_copies
from unseen.data.checks.findings import CheckResult, Recorder
from unseen.data.checks.images import check_images, check_others, is_about_others, scan_images
from unseen.data.checks.tables import check_counts, check_ranks, check_table
from unseen.data.folder import (
    misfits,
    read_classes,
    settle,
)
from unseen.data.folder_images import FEATURES, Listing, find_files, imported_names, read_images
from unseen.data.provenance import unchecked
from unseen.formats.xlsa17 import SPLITS
from unseen.ground.progress import Progress, silent


def check_folder(folder: Path | str, *, workers: int | None = None, progress: Progress = silent) -> CheckResult:
    """Check a whole dataset folder: tables, images, what the attributes can tell apart, and likely leaks.

    Decodes every image. Uses about 3 kB of memory per image.

    Args:
        folder: as in :func:`unseen.data.folder.load_folder`.
        workers: threads that decode; by default one per core.
        progress: called with the number of images done.
    """
    root = Path(folder)
    result = CheckResult(root)
    say = Recorder(result)
    classes = read_classes(root, say.errors)
    if classes is None:
        images = root / "images"
        files = tuple(find_files(images)[0]) if images.is_dir() else ()
        loose = Listing(images, None, files, np.zeros(len(files), np.int64), None)
        check_images(say, loose, scan_images(loose, workers or os.cpu_count() or 1, progress))
        return result
    listing = read_images(root, classes.names, say.errors, classes.path)
    result.encoding = classes.encoding
    found = () if listing is None else listing.notes
    for note in (*classes.notes, *(note for note in found if not is_about_others(note))):
        say("note", "reading the tables", root, note)
    drafted = [] if classes.frame is None else unchecked(root, classes.frame)
    if drafted:
        some = "1 cell was" if len(drafted) == 1 else f"{len(drafted)} cells were"
        what = f"{some} drafted by a program and not checked by anybody, first "
        hint = "check them, and say yes under checked in provenance.csv"
        say("warning", "cells that nobody has checked", root / "provenance.csv", what + ", ".join(drafted[0]), hint)
    for doubt in classes.doubts:
        say("warning", "cells that may be misread", doubt.where, doubt.problem, doubt.hint or "")
    if listing is None:
        result.classes = {"table": classes.path.name, "seen": [], "unseen": list(classes.names)}
        check_table(say, classes, np.zeros(len(classes.names), dtype=bool))
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
    if classes.taxonomy is not None:
        check_ranks(say, classes, classes.taxonomy)
        result.classes["ranks"] = {r: len(classes.taxonomy.names(i)) for i, r in enumerate(classes.taxonomy.ranks)}
    result.images = {name: int((split == name).sum()) for name in SPLITS}
    result.images["by"] = listing.path.name if listing.path else "folders"
    result.images["of each class"] = {n: int(c) for n, c in zip(classes.names, counts, strict=True) if c}
    check_counts(say, classes, seen, listing.labels[split == "trainval"])
    check_table(say, classes, seen)
    if not listing.images.is_dir():
        result.features = imported_names(root)
        say("note", "reading the tables", root, f"no images: the features in {FEATURES}/ are used instead")
        return result
    check_others(say, listing)
    scans = scan_images(listing, workers or os.cpu_count() or 1, progress)
    check_images(say, listing, scans)
    check_copies(say, classes, listing, split, scans, progress)
    return result
