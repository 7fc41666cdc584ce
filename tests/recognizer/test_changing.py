"""Classes that change while others use the recognizer, and arguments of the wrong type."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import UnseenError
from unseen.methods import create_method
from unseen.recognizer import Recognizer

ROWS = {"only": ["d", "b"], "batch_size": 1, "workers": 0}


@pytest.fixture(scope="module")
def parts(tiny_backbone):
    backbone = Backbone(tiny_backbone)
    table = ClassTable(
        tuple("abcd"),
        Attributes(("x", "y", "z")),
        np.random.default_rng(0).random((4, 3)),
        np.array([1, 1, 0, 0], bool),
    )
    method = create_method("sje", channels=backbone.channels[0], vectors=torch.eye(3), seed=1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return backbone, method, table


@pytest.fixture
def recognizer(parts):
    return Recognizer(*parts, gamma=0.3, device="cpu")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]


def test_a_stream_answers_among_the_classes_at_its_call(recognizer, images):
    expected = list(recognizer.predict(images, **ROWS))
    stream = recognizer.iter_predict(images, **ROWS)
    found = [next(stream)]
    recognizer.remove_class("a")  # all later classes move
    found.append(next(stream))
    recognizer.add_class("e", [1, 0, 0])
    recognizer.rename_class("b", "c2")
    found += stream
    assert found == expected
    assert {c.name for c in recognizer.predict(images[0])[0].candidates} == {"c2", "c", "d", "e"}


def test_every_thread_s_change_counts(recognizer, images):
    """While others predict: each answer is among whole tables, and equal scores for the classes that stay."""
    expected = recognizer.scores(images)
    stop, wrong = threading.Event(), []

    def predicts():
        while not stop.is_set():
            found = recognizer.scores(images)
            if not np.array_equal(found[:, :4], expected):
                wrong.append(found)

    with ThreadPoolExecutor(6) as threads:
        readers = [threads.submit(predicts) for _ in range(2)]
        writers = [
            threads.submit(lambda k=k: [recognizer.add_class(f"{k}-{j}", [k, j, 1]) for j in range(12)])
            for k in range(4)
        ]
        try:
            for one in writers:
                one.result()
        finally:
            stop.set()
        for one in readers:
            one.result()
    assert not wrong
    assert sorted(recognizer.classes[4:]) == sorted(f"{k}-{j}" for k in range(4) for j in range(12))
    unit = recognizer.table.values / np.linalg.norm(recognizer.table.values, axis=1, keepdims=True)
    np.testing.assert_allclose(recognizer.class_vectors, unit, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0 — use a whole number, 1 or more"),
        ({"batch_size": -3}, "batch_size is -3"),
        ({"batch_size": "4"}, "batch_size is '4'"),
        ({"workers": -1}, "workers is -1 — use a whole number, 0 or more"),
        ({"top": 0}, "top is 0"),
        ({"top": 2.5}, "top is 2.5"),
        ({"top": None}, "top is None"),
        ({"prior": 5}, "int is not a prior"),
    ],
)
def test_a_number_of_the_wrong_kind_is_one_line(recognizer, images, change, message):
    with pytest.raises(UnseenError, match=message):
        recognizer.predict(images, **change)
    if "batch_size" in change:
        for call in (recognizer.scores, recognizer.embed):
            with pytest.raises(UnseenError, match=message):
                call(images, **change)


def test_numbers_of_numpy_are_numbers(recognizer, images):
    assert len(recognizer.predict(images, top=np.int64(2))[0].candidates) == 2


def test_an_answer_is_shown_in_a_line(recognizer, images):
    why = recognizer.explain(images[0], target="c", rival="a")
    first = why.reasons[0]
    assert repr(why).startswith(f"<Explanation: c rather than a, by {first.attribute} {first.evidence:+.3g}, ")
    assert len(repr(why)) < 200
    assert repr(recognizer.embed(images)) == "<Embeddings: 4 images, 96 pooled features, 3 attributes>"


def test_a_class_of_the_training_that_comes_back_is_seen_again(recognizer, images):
    before, row = recognizer.scores(images), recognizer.table.values[0]
    recognizer.remove_class("a")
    recognizer.add_class("a", row)
    assert (recognizer.classes, recognizer.table.seen.tolist()) == (("b", "c", "d", "a"), [True, False, False, True])
    assert recognizer.table.images_of[-1] == 0
    np.testing.assert_array_equal(recognizer.scores(images), before[:, [1, 2, 3, 0]])
    recognizer.rename_class("a", "z")  # its images are in use: another class of this name is new
    recognizer.add_class("a", row)
    assert not recognizer.table.seen[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.add_class(5, [1, 2, 3]), "5 is not a class name — pass text"),
        (lambda r: r.rename_class("a", None), "None is not a class name"),
        (lambda r: r.add_class("e", "abc"), 'class "e": str is no row of attribute values — pass 3 numbers'),
        (lambda r: r.add_class("e", [[1], [2, 3]]), 'class "e": list is no row'),
        (lambda r: [r.remove_class(c) for c in "abcd"] and r.predict("x.jpg"), "the table has no class — add one"),
    ],
)
def test_what_is_no_class_is_one_line(recognizer, change, message):
    with pytest.raises(UnseenError, match=message):
        change(recognizer)
