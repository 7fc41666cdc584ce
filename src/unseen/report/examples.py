"""Test images with the reasons for their answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unseen.classes.naming import label
from unseen.errors import UnseenError
from unseen.explain.answers import Answers
from unseen.explain.figures import account, overlay, said, thumbnail
from unseen.explain.sheet import class_label
from unseen.ground.progress import Progress, silent
from unseen.recognizer import Explanation
from unseen.report.images import data_uri
from unseen.report.material import Material

EXAMPLES = 6


@dataclass(frozen=True)
class Bar:
    """Evidence of one attribute: ``share`` from -1 to 1 of the strongest, positive if for the answer."""

    name: str
    value: float
    share: float


@dataclass(frozen=True)
class Heat:
    """A heat map of an attribute over the image."""

    name: str
    image: str


@dataclass(frozen=True)
class Answer:
    """A class that the model considered."""

    name: str
    seen: bool
    confidence: float
    true: bool


@dataclass(frozen=True)
class Example:
    """One test image, ready for the page.

    Args:
        file: file name.
        truth, truth_seen: true class, and whether it had training images.
        image: the image as a data URI.
        answers: best first.
        right: whether the first is correct.
        heats: where the model looked for the attributes with most evidence for its answer.
        bars: contributions to the lead of the answer over ``rival``; empty if attributes play no part in it.
        rival: the true class if the answer is wrong, else the runner-up.
    """

    file: str
    truth: str
    truth_seen: bool
    image: str
    answers: list[Answer]
    right: bool
    heats: list[Heat]
    bars: list[Bar]
    rival: str


@dataclass(frozen=True)
class Examples:
    """Images predicted correctly and wrongly; ``attention`` tells whether heat maps show attention or contributions."""

    right: list[Example]
    wrong: list[Example]
    attention: bool

    @property
    def by_attributes(self) -> bool:
        """Whether attributes play a part in any answer."""
        return any(e.bars for e in (*self.right, *self.wrong))


def choose(answers: Answers, number: int, seed: int = 0) -> list[int]:
    """Test images to show: ``number`` predicted correctly and as many wrongly, as positions in the dataset.

    Of unseen classes first, filled up with seen ones; drawn with a seed, taking classes in turn.
    """
    candidates = np.concatenate(
        [answers.in_turn(np.flatnonzero(answers.unseen), seed), answers.in_turn(np.flatnonzero(~answers.unseen), seed)]
    )
    right = answers.predicted[candidates] == answers.labels[candidates]
    return [int(i) for i in answers.images[np.concatenate([candidates[r][:number] for r in (right, ~right)])]]


def make_examples(material: Material, number: int = EXAMPLES, progress: Progress = silent) -> Examples | None:
    """Examples of a run; ``None`` without test images or data, or if none are requested."""
    if material.answers is None or not number:
        return None
    recognizer, dataset = material.answers.recognizer, material.answers.dataset
    chosen = choose(material.answers, number)
    made, attention = [], False
    for done, index in enumerate(chosen):
        progress("explaining examples", done, len(chosen))
        truth = dataset.table.names[dataset.labels[index]]
        path = dataset.images / dataset.files[index]
        try:
            found = recognizer.explain(path)
            named = found.target.name
            if named != truth:
                found = recognizer.explain(path, target=named, rival=truth)
        except UnseenError:  # it was readable for the region store, but is broken now
            continue
        attention = attention or bool(found.attention)
        made.append(_example(dataset.files[index], truth, bool(dataset.table.seen[dataset.labels[index]]), found))
    progress("explaining examples", len(chosen), len(chosen))
    return Examples([e for e in made if e.right], [e for e in made if not e.right], attention)


def _example(file: str, truth: str, truth_seen: bool, found: Explanation) -> Example:
    """An explanation in the form of a card."""
    strongest, rest = account(found, 6)
    bars = [(said(r), r.against) for r in sorted(strongest, key=lambda r: -r.against)]
    bars += [(name, against) for name, _, against in rest if strongest]
    largest = max((abs(value) for _, value in bars), default=0) or 1.0
    small = thumbnail(found.image, 240)
    ratio = small.width / found.image.width
    left, top, right, bottom = (ratio * v for v in found.crop)
    return Example(
        file,
        class_label(truth),
        truth_seen,
        data_uri(small),
        [Answer(class_label(c.name), c.seen, c.confidence, c.name == truth) for c in found.prediction.candidates[:3]],
        found.target.name == truth,
        [
            Heat(label(r.attribute), data_uri(overlay(small, found.heat(r.attribute), (left, top, right, bottom))))
            for r in found.looked_for(3)
        ],
        [Bar(name, value, value / largest) for name, value in bars],
        class_label(found.rival.name),
    )
