"""A review is started once and resumed with the same model and images only."""

from __future__ import annotations

import json

import pytest

from review_tools import draw_images, model
from unseen.errors import RunError
from unseen.recognizer.stream import Options
from unseen.review import Verdict
from unseen.review.begin import begin
from unseen.review.book import read_items
from unseen.review.sheet import item_data


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    return model(tiny_backbone)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    found = draw_images(tmp_path / "images", 4)
    found[2].write_bytes(b"no image")
    return found


def test_answers_are_the_recognizers_and_verdicts_are_resumed(recognizer, images, tmp_path):
    told = []
    with begin(recognizer, images, tmp_path / "r", Options(top=2), broken=told.append) as review:
        assert [item.image for item in review.items] == [str(image) for image in images]
        found = recognizer.predict([images[0]], top=2)[0]
        assert [c[:2] for c in review.items[0].classes] == [(c.name, c.seen) for c in found.candidates]
        assert [c[2] for c in review.items[0].classes] == pytest.approx([c.confidence for c in found.candidates], 1e-6)
        assert review.items[2].answer is None
        review.decide([0], Verdict("Rook"))
    assert len(told) == 1
    before = (tmp_path / "r/predictions.jsonl").read_bytes()
    with begin(recognizer, images, tmp_path / "r", Options(top=2)) as review:
        assert review.verdicts == {0: Verdict("Rook")}
    assert (tmp_path / "r/predictions.jsonl").read_bytes() == before


def test_another_model_choice_or_image_is_not_mixed_in(recognizer, tiny_backbone, images, tmp_path):
    begin(recognizer, images, tmp_path / "r").close()
    with pytest.raises(RunError, match="a review with other images"):
        begin(recognizer, images[:3], tmp_path / "r")
    with pytest.raises(RunError, match="a review with other class selection"):
        begin(recognizer, images, tmp_path / "r", Options(only=("Rook", "Raven")))
    with pytest.raises(RunError, match="a review with other model"):
        begin(model(tiny_backbone, temperature=1.0), images, tmp_path / "r")
    with pytest.raises(RunError, match="the folder is not empty and contains no review"):
        begin(recognizer, images, tmp_path / "images")


def test_an_answer_above_the_class_is_on_the_sheet(tmp_path):
    record = {
        "image": "a.jpg",
        "known": False,
        "classes": [{"name": "Night Heron", "seen": True, "confidence": 0.4, "score": 1.0}],
        "attributes": [],
        "ranks": [{"rank": "family", "name": "Ardeidae", "confidence": 0.9, "probably": "Night Heron", "sure": True}],
    }
    unsure = record | {"ranks": [record["ranks"][0] | {"sure": False}]}
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, (record, unsure))))
    first, second = read_items(tmp_path / "p.jsonl")
    assert (first.coarser, second.coarser) == ("Ardeidae (family), probably Night Heron", "")
    assert item_data(0, first)["coarser"] == first.coarser
