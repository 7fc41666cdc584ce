"""A review on disk: predictions for a batch of images, and a person's verdicts on them.

A folder holds ``review.json`` (classes, threshold, origin), ``predictions.jsonl`` (one prediction per line, as from
``unseen predict``) and ``verdicts.jsonl``, a journal: a verdict is stored at once, and the last one on an image counts.
"""

from __future__ import annotations

import json
from collections import Counter
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
from unseen.model.predictions import UNKNOWN, Prediction

FACTS, PREDICTIONS, VERDICTS = "review.json", "predictions.jsonl", "verdicts.jsonl"
LEVEL = 0.95
"""Level of the interval of a measured accuracy."""


@dataclass(frozen=True)
class Verdict:
    """A person's verdict on an image.

    Args:
        name: a class; ``None``: none of the classes.
    """

    name: str | None


@dataclass(frozen=True)
class Item:
    """An image of a review with its answer.

    Args:
        image: path of the image.
        known: whether the answer is a class, not "unknown".
        classes: candidates as ``(name, seen, confidence)``, best first; empty if the image could not be read.
        attributes: labels of the attributes with most evidence for the best class.
        error: why it could not be read, or ``None``.
        coarser: answer above the class in words, or ``""``.
        alone: best candidate without the prior in words, or ``""`` if there is no prior.
    """

    image: str
    known: bool
    classes: tuple[tuple[str, bool, float], ...]
    attributes: tuple[str, ...]
    error: str | None = None
    coarser: str = ""
    alone: str = ""

    @property
    def answer(self) -> Verdict | None:
        """The model's answer; ``None`` if the image could not be read."""
        return None if self.error is not None else Verdict(self.classes[0][0] if self.known else None)


@dataclass(frozen=True)
class Measured:
    """Number of correct answers among reviewed images.

    Args:
        reviewed, right: numbers of images.
        low, high: Wilson's 95% interval of the share; 0 and 1 if none was reviewed.
    """

    reviewed: int
    right: int
    low: float
    high: float

    @classmethod
    def of(cls, reviewed: int, right: int) -> Measured:
        """The accuracy with its interval."""
        from scipy.stats import binomtest

        if not reviewed:
            return cls(0, 0, 0.0, 1.0)
        interval = binomtest(right, reviewed).proportion_ci(LEVEL, method="wilson")
        return cls(reviewed, right, float(interval.low), float(interval.high))

    @property
    def share(self) -> float:
        """Share of correct answers; NaN if none was reviewed."""
        return self.right / self.reviewed if self.reviewed else float("nan")


class Review:
    """A review's folder, open for one process; a context manager.

    Args:
        folder: folder with predictions from :func:`unseen.review.begin.begin`.

    Attributes:
        items: images in order.
        classes: names of all classes of the model.
        used: positions of the model's support images, which do not count in the accuracy.
        verdicts: verdict on each reviewed image, by position; a renamed class has its current name.

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
        self._now: Mapping[str, str] = self.facts["origins"]
        self._origin = {now: origin for origin, now in self._now.items()}
        self.items = tuple(read_items(self.folder / PREDICTIONS))
        self.verdicts: dict[int, Verdict] = {}
        self._journal = Journal(self.folder / VERDICTS)
        end = 0
        for record, end in self._journal.records():  # noqa: B007 - the last one's end is needed
            self._take(record)
        self._journal.cut(end)

    def __enter__(self) -> Review:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the review, so that other processes can open it."""
        self.close()

    def close(self) -> None:
        """Close the review; all verdicts are on disk already."""
        self._journal.__exit__(None, None, None)
        self._lock.release()

    def decide(self, rows: Sequence[int], verdict: Verdict | None) -> None:
        """Give one verdict on several images, or withdraw theirs with ``None``.

        Args:
            rows: positions of images.
            verdict: verdict on all of them.

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
            record["class"] = None if verdict.name is None else self._origin[verdict.name]
        self._journal.append(record)
        self._take(record)

    def is_right(self, row: int) -> bool:
        """Whether the answer equals the verdict; false for an image that could not be read."""
        return self.items[row].answer == self.verdicts[row]

    def reviewed(self) -> Measured:
        """Accuracy on all reviewed images except used ones; represents others only after review in random order."""
        rows = [row for row in self.verdicts if row not in self.used]
        return Measured.of(len(rows), sum(map(self.is_right, rows)))

    def estimated(self) -> Measured:
        """Accuracy on the random sample: reviewed images that come first in :attr:`order`; represents all images."""
        rows = list(takewhile(self.verdicts.__contains__, (row for row in self.order if row not in self.used)))
        return Measured.of(len(rows), sum(map(self.is_right, rows)))

    def removed(self) -> dict[str, int]:
        """Number of verdicts on each class that the model no longer has; they count as wrong answers."""
        return dict(Counter(v.name for v in self.verdicts.values() if v.name is not None and v.name not in self._names))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """All positions in a fixed random order."""
        return tuple(int(row) for row in np.random.default_rng(0).permutation(len(self.items)))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.classes)

    def _named(self, origin: str | None) -> str | None:
        """Current name of a class by its first one (:attr:`ClassTable.origins`); of a removed class a name of none."""
        if origin is None or origin in self._now:
            return origin if origin is None else self._now[origin]
        return f"{origin} (removed)" if origin in self._names else origin

    def _take(self, record: Mapping[str, Any]) -> None:
        for row in record["rows"]:
            if record["undo"]:
                self.verdicts.pop(row, None)
            else:
                self.verdicts[row] = Verdict(self._named(record["class"]))

    def final(self, row: int) -> str:
        """The verdict, or else the answer, in words: a class, "unknown", or "" for an image that could not be read."""
        found = self.verdicts.get(row, self.items[row].answer)
        return "" if found is None else UNKNOWN if found.name is None else found.name


def read_items(path: Path) -> Iterator[Item]:
    """Images of a file of predictions (``.jsonl``); RunError if it is damaged."""
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
                    _coarser(record),
                    _alone(record),
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "delete it and repeat the command: it predicts again and keeps the verdicts"
        raise RunError(f"damaged ({error})", where=path, hint=hint) from None


def _coarser(record: Mapping[str, Any]) -> str:
    """The taxon that is the answer to an image, in words; empty if there is none."""
    if "error" in record or not record.get("ranks"):
        return ""
    found = Prediction.from_dict(record)
    return "" if found.coarser is None else found.said


def _alone(record: Mapping[str, Any]) -> str:
    """The best candidate by the image alone, if a prior counted."""
    if "without_prior" not in record:
        return ""
    return f"{record['without_prior']['name']} ({100 * record['without_prior']['confidence']:.0f}%)"
