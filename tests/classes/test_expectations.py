"""What to expect of unseen classes, by hand-made tables."""

from __future__ import annotations

import numpy as np

from unseen.classes.attributes import Attributes
from unseen.classes.expectations import expectations
from unseen.classes.table import ClassTable

ATTRIBUTES = Attributes(("flippers", "ocean", "furry", "big"))


def table(rows, seen):
    return ClassTable(tuple(rows), ATTRIBUTES, np.array(list(rows.values()), float), np.array(seen, bool))


ANIMALS = {
    "dog": [0, 0, 80, 20],
    "horse": [5, 0, 40, 90],
    "mouse": [0, 0, 90, 0],
    "dolphin": [90, 100, 0, 50],
    "bear": [0, 10, 95, 100],
    "plain": [0, 0, 70, 40],
}


def test_what_no_class_with_images_has_is_foreseen():
    dolphin, bear, plain = expectations(table(ANIMALS, [1, 1, 1, 0, 0, 0]))
    assert dolphin.telling == ("ocean", "flippers")  # 100/100 and (90 - 5/3)/90 above the mean; big is not present
    assert dolphin.missing == ("ocean", "flippers")
    assert dolphin.trouble
    assert dolphin.text == "low accuracy expected: ocean and flippers occur in no class with images"
    assert bear.telling == ("big",)  # 100 against a mean of 110/3; furry 95 against 70 is too near
    assert bear.missing == ()  # the horse is big
    assert bear.text == "its one distinctive attribute occurs in classes with images"
    assert plain.text == "no attribute separates it from the classes with images"


def test_classes_of_the_training_count_though_no_longer_there():
    trained = table(ANIMALS | {"seal": [100, 90, 60, 40]}, [1, 1, 1, 0, 0, 0, 1])
    now = table(ANIMALS, [1, 1, 1, 0, 0, 0])
    assert expectations(now, trained)[0].missing == ()
    assert expectations(now)[0].missing == ("ocean", "flippers")


def test_the_unit_does_not_matter():
    rows = {name: [v / 100 for v in row] for name, row in ANIMALS.items()}
    assert expectations(table(rows, [1, 1, 1, 0, 0, 0])) == expectations(table(ANIMALS, [1, 1, 1, 0, 0, 0]))


def test_without_seen_classes_nothing_is_expected():
    assert expectations(table(ANIMALS, [0] * 6)) == []
