"""A review on disk: predictions of a batch of images, and a person's verdicts on them.

A folder holds ``review.json`` (classes, threshold, what made it), ``predictions.jsonl`` (a prediction a line, as
``unseen predict`` writes them) and ``verdicts.jsonl``, a journal: a verdict counts as soon as it is given, and the last
one on an image is the one that stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from unseen.classes.naming import label
from unseen.errors import RunError, UnseenError
from unseen.ground.files import read_json
from unseen.ground.journal import Journal
from unseen.model.predictions import UNKNOWN

FACTS, PREDICTIONS, VERDICTS = "review.json", "predictions.jsonl", "verdicts.jsonl"
LEVEL = 0.95
"""Of the interval of a measured accuracy."""


@dataclass(frozen=True)
class Verdict:
    """What a person says an image shows.

    Args:
        name: a class; ``None``: none of the classes.
    """

    name: str | None


@dataclass(frozen=True)
class Item:
    """An image of a review with its answer.

    Args:
        image: its path.
        known: whether the answer is a class, not "unknown".
        classes: candidates as ``(name, seen, confidence)``, best first; empty where the image could not be read.
        attributes: labels of the attributes that speak most for the best class.
        error: why it could not be read, or ``None``.
    """

    image: str
    known: bool
    classes: tuple[tuple[str, bool, float], ...]
    attributes: tuple[str, ...]
    error: str | None = None

    @property
    def answer(self) -> Verdict | None:
        """What the model says; ``None`` where the image could not be read."""
        return None if self.error is not None else Verdict(self.classes[0][0] if self.known else None)


@dataclass(frozen=True)
class Measured:
    """How many of a number of reviewed images the model has right.

    Args:
        reviewed, right: images.
        low, high: Wilson's 95% interval of the share; 0 and 1 where none was reviewed.
    """

    reviewed: int
    right: int
    low: float
    high: float

    @classmethod
    def of(cls, reviewed: int, right: int) -> Measured:
        """With its interval."""
        from scipy.stats import binomtest

        if not reviewed:
            return cls(0, 0, 0.0, 1.0)
        interval = binomtest(right, reviewed).proportion_ci(LEVEL, method="wilson")
        return cls(reviewed, right, float(interval.low), float(interval.high))

    @property
    def share(self) -> float:
        """Right among the reviewed; NaN where none was."""
        return self.right / self.reviewed if self.reviewed else float("nan")


class Review:
    """A review's folder, opened for one process; a context manager.

    Args:
        folder: with predictions, as :func:`unseen.review.begin.begin` leaves it.

    Attributes:
        items: the images in their order.
        classes: names of all classes of the model.
        used: positions of images that the model has as support images: they measure nothing.
        verdicts: the verdict on each reviewed image, by its position.

    Raises:
        RunError: no review, or a damaged one.
        UnseenError: another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / FACTS).is_file():
            raise RunError("not a review", where=self.folder, hint="start one with `unseen review RUN IMAGES`")
        self.facts: Mapping[str, Any] = read_json(self.folder / FACTS)
        self._lock = FileLock(self.folder / ".lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UnseenError("another process is using this review", where=self.folder, hint="close it") from None
        self.classes: tuple[str, ...] = tuple(self.facts["classes"])
        self.used = frozenset(self.facts.get("used", ()))
        self.items = tuple(read_items(self.folder / PREDICTIONS))
        self.verdicts: dict[int, Verdict] = {}
        self._journal = Journal(self.folder / VERDICTS)
        end = 0
        for record, end in self._journal.records():  # noqa: B007 - the last one's end is needed
            self._take(record)
        self._journal.cut(end)

    def __enter__(self) -> Review:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others open it."""
        self.close()

    def close(self) -> None:
        """Let others open it; all verdicts are on the disk already."""
        self._journal.__exit__(None, None, None)
        self._lock.release()

    def decide(self, rows: Sequence[int], verdict: Verdict | None) -> None:
        """Give one verdict on several images, or take theirs back with ``None``.

        Args:
            rows: positions of images.
            verdict: on all of them.

        Raises:
            UnseenError: no such image, or no class of that name.
        """
        wrong = [row for row in rows if not 0 <= row < len(self.items)]
        if wrong:
            raise UnseenError(f"no image {wrong[0]}", where=self.folder, hint=f"0 to {len(self.items) - 1}")
        if verdict is not None and verdict.name is not None and verdict.name not in self._names:
            raise UnseenError(f'no class "{verdict.name}"', where=self.folder, hint="choose one of the model's classes")
        record: dict[str, Any] = {"rows": [int(row) for row in rows], "undo": verdict is None}
        if verdict is not None:
            record["class"] = verdict.name
        self._journal.append(record)
        self._take(record)

    def is_right(self, row: int) -> bool:
        """Whether the answer is the verdict; an image that could not be read is never right."""
        return self.items[row].answer == self.verdicts[row]

    def reviewed(self) -> Measured:
        """Of all reviewed images, those used apart: not of the others, unless the order of review was random."""
        rows = [row for row in self.verdicts if row not in self.used]
        return Measured.of(len(rows), sum(map(self.is_right, rows)))

    def estimated(self) -> Measured:
        """Of the random sample: the reviewed images that come first in :attr:`order`, which stand for all others."""
        rows = list(takewhile(self.verdicts.__contains__, (row for row in self.order if row not in self.used)))
        return Measured.of(len(rows), sum(map(self.is_right, rows)))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """All positions in a random order that is always the same."""
        return tuple(int(row) for row in np.random.default_rng(0).permutation(len(self.items)))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.classes)

    def _take(self, record: Mapping[str, Any]) -> None:
        for row in record["rows"]:
            if record["undo"]:
                self.verdicts.pop(row, None)
            else:
                self.verdicts[row] = Verdict(record["class"])

    def final(self, row: int) -> str:
        """The verdict, else the answer, in words: a class, "unknown", or "" for an image that could not be read."""
        found = self.verdicts.get(row, self.items[row].answer)
        return "" if found is None else UNKNOWN if found.name is None else found.name


def read_items(path: Path) -> Iterator[Item]:
    """The images of a file of predictions (``.jsonl``); RunError where it is damaged."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                record = json.loads(line)
                yield Item(
                    record["image"],
                    record["known"],
                    tuple((c["name"], c["seen"], c["confidence"]) for c in record["classes"]),
                    tuple(label(entry["attribute"]) for entry in record["attributes"]),
                    record.get("error"),
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "delete it and repeat the command: it predicts again and keeps the verdicts"
        raise RunError(f"damaged ({error})", where=path, hint=hint) from None
