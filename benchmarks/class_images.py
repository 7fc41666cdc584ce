"""Time from the features of images to answers that count them: adding images and classes to a served model.

    python -m benchmarks.class_images runs/eszsl-fieldguide --output benchmarks/results/class_images.json

Per row: images given to one class, how many all classes have then, the time of the server's own method that adds them
(or the class), that of ranking an image again from its features, and their sum, which has to stay below 10 ms. The
floor is the arithmetic that no implementation can omit, in numpy: whiten the new images, average them, compare the
image with every prototype, and take a softmax. Medians over repeats; the bar is 10 ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measured import finish
from unseen.model.support import Support, SupportImage
from unseen.recognizer import Recognizer
from unseen.serve import schema
from unseen.serve.classes import Classes
from unseen.serve.examples import Examples
from unseen.serve.settings import Settings
from unseen.serve.supporting import Read, SupportImages

BAR = 10.0
"""Largest time of a change and the answer after it, in ms."""
GIVEN = (1, 3, 10, 40)
EACH = 20
"""Images that every class has in the second half of the rows."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", "-o", type=Path)
    chosen, began = parser.parse_args(), time.monotonic()
    recognizer = Recognizer.load(chosen.run, device="cpu", as_trained=True)
    rows = list(measured(recognizer, chosen.repeats))
    size = {"classes": len(recognizer.table), "channels": recognizer.space.channels}
    finish(chosen.output, {"from features to answers": rows}, began=began, bar_ms=BAR, **size)


def measured(recognizer: Recognizer, repeats: int) -> Iterator[dict[str, Any]]:
    """Rows for a model without support images, then for one with :data:`EACH` per class."""
    settings, rng = Settings(support_images=10**6), np.random.default_rng(0)
    classes = Classes(recognizer, settings, Examples(recognizer, settings.max_pixels))
    support, names = SupportImages(classes), recognizer.table.names
    look = recognizer.look(Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)))

    def images(count: int) -> list[Read | schema.FailedImage]:
        features = rng.random((count, recognizer.space.channels), dtype=np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return [Read(SupportImage("x.jpg", rng.bytes(16).hex(), ""), row[None], b"") for row in features]

    def answer() -> object:
        return recognizer.reading(look.attribute_scores, look.query, look.pooled).prediction()

    by_attributes = schema.NewClass(name="new", values=dict.fromkeys(recognizer.table.attributes.names[:3], 1.0))
    table, own = recognizer.table, Support()
    for each in (0, EACH):
        for name in names if each else ():
            support.add(name, images(each))
        own = recognizer.support

        def timed(
            what: str, change: Callable[[list[Any]], object], count: int, own: Support = own, each: int = each
        ) -> dict[str, Any]:
            changes, answers, floors = [], [], []
            for _ in range(repeats + 1):
                recognizer.table, recognizer.support = table, own
                given = images(count)
                start = time.perf_counter()
                change(given)
                middle = time.perf_counter()
                answer()
                end = time.perf_counter()
                changes.append(middle - start)
                answers.append(end - middle)
                floors.append(floor(recognizer, given, look.pooled))
            spent = {"change ms": changes, "answer ms": answers, "floor ms": floors}
            row = {name: 1000 * median(times[1:]) for name, times in spent.items()}  # the first warms up
            total = row["change ms"] + row["answer ms"]
            counts = {"given": count, "images of every class": each}
            return {"change": what, **counts, **row, "both ms": total, "times the floor": total / row["floor ms"]}

        for count in GIVEN:
            yield timed("images to a class", lambda given: support.add(names[-1], given), count)
        yield timed("a class by images", lambda given: support.add("new", given, new=True), GIVEN[1])
        yield timed("a class by attributes", lambda given: classes.add(by_attributes), 0)
    recognizer.table, recognizer.support = table, Support()


def floor(recognizer: Recognizer, given: list[Any], pooled: np.ndarray | None) -> float:
    """Seconds of the arithmetic that nobody can omit, for features of new images and the image to rank."""
    rng, channels = np.random.default_rng(1), recognizer.space.channels
    whiten = rng.random((channels, channels), dtype=np.float32)
    prototypes = rng.random((len(recognizer.table), channels), dtype=np.float32)
    scores, features = rng.random(len(prototypes)), [one.features for one in given]
    start = time.perf_counter()
    if features:
        mean = (np.concatenate(features) @ whiten).mean(axis=0)
        prototypes[-1] = mean / np.linalg.norm(mean)
    vector = np.asarray(pooled).reshape(-1) @ whiten
    raised = np.exp(scores + prototypes @ (vector / np.linalg.norm(vector)))
    raised /= raised.sum()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
