"""Checks for images that are copies or near copies of others."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from unseen.data.checks.findings import Recorder
from unseen.data.checks.images import Scan
from unseen.data.folder import (
    Classes,
)
from unseen.data.folder_images import Listing
from unseen.ground.progress import Progress

ALIKE = 0.975
"""Smallest correlation of two thumbnails at which images count as near copies.

Recompressing, halving and brightening stay above it. Of 2,889 photographs of CUB three pairs reach it, each of one bird
on one occasion; of 2,400 drawn birds none.
"""
_BLOCK = 128


def check_copies(
    say: Recorder, classes: Classes, listing: Listing, split: np.ndarray, scans: list[Scan], progress: Progress
) -> None:
    """Report copies and near copies; most serious are copies with two classes, and copies in both training and test."""
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
            continue  # summarized above in one finding
        _say_copy(say, classes, listing, split, firsts[b], firsts[a], exact=False)


def _say_copy(
    say: Recorder, classes: Classes, listing: Listing, split: np.ndarray, this: int, first: int, *, exact: bool
) -> None:
    """Report an image as a copy of an earlier one, with the consequence."""
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
