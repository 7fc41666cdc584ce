"""A look at an image: ranked, corrected and explained from attribute scores alone, and as predict has it."""

from __future__ import annotations

import json
import statistics
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import DataError, UnseenError
from unseen.explain.figures import account, said
from unseen.methods import create_method
from unseen.model.predictions import AVERAGE, UNSEEN_BONUS
from unseen.model.references import References
from unseen.recognizer import Reading, Recognizer

ATTRIBUTES = Attributes(("crown::red", "crown::blue", "size"))
TABLE = ClassTable(
    ("a", "b", "c", "d"),
    ATTRIBUTES,
    np.array([[100.0, 0, 40], [0, 100, 20], [100, 0, 90], [50, 50, 0]]),
    np.array([1, 1, 0, 0], bool),
)


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    backbone = Backbone(tiny_backbone)
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return Recognizer(backbone, method, TABLE, gamma=0.3, temperature=0.7, device="cpu")


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def as_before(recognizer):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 30)
    scores = (0.03 * TABLE.values[labels] + rng.standard_normal((30, 3))).astype(np.float16)
    files = np.array([f"{i}.jpg" for i in range(30)])
    recognizer.references = References(scores, labels, files, np.array(TABLE.names), np.array(TABLE.values))
    recognizer.table = TABLE


def test_a_look_ranks_as_predict_does(recognizer, image):
    look = recognizer.look(image)
    for among in ("all", "seen", "unseen"):
        ranked, predicted = look.rank(among=among), recognizer.predict([image], top=9, among=among)[0].candidates
        assert [c.name for c in ranked] == [c.name for c in predicted]
        np.testing.assert_allclose([c.score for c in ranked], [c.score for c in predicted], atol=1e-5)
        np.testing.assert_allclose([c.confidence for c in ranked], [c.confidence for c in predicted], atol=1e-5)
    assert {c.name for c in look.rank(only=["a", "d"])} == {"a", "d"}
    assert {c.name for c in look.rank(exclude=["a"], among="seen")} == {"b"}
    with pytest.raises(UnseenError, match="no candidate class remains"):
        look.rank(exclude=["a", "b"], among="seen")


def test_a_look_scores_to_the_bit_as_predict_does(recognizer, image):
    predicted = recognizer.predict([image], top=9, batch_size=1)[0].candidates
    assert [(c.name, c.score) for c in recognizer.look(image).rank()] == [(c.name, c.score) for c in predicted]


def test_a_reading_is_a_look_without_image(recognizer, image):
    look = recognizer.look(image)
    sent = json.loads(json.dumps({"psi": look.attribute_scores.tolist(), "query": look.query.tolist()}))
    for reading in (recognizer.reading(sent["psi"]), recognizer.reading(sent["psi"], sent["query"])):
        for corrections in ({}, {"crown::red": 0.0}):
            assert reading.rank(corrections) == look.rank(corrections)
            why = look.explanation(corrections, target="b", rival="c", exclude=["a"])
            assert vars(reading.compare(corrections, target="b", rival="c", exclude=["a"])).items() <= vars(why).items()
            assert reading.nearest(3, corrections) == look.nearest(3, corrections)
        np.testing.assert_array_equal(reading.estimates(), look.estimates())
        assert reading.prediction(only=["a", "b"], top=1) == look.prediction(only=["b", "a"], top=1)
    for numbers, told in ((([1.0],), "1 attribute scores — pass 3"), ((sent["psi"], [1.0]), "1 query numbers")):
        with pytest.raises(UnseenError, match=told):
            recognizer.reading(*numbers)
    with pytest.raises(UnseenError, match='"a" is the only candidate class'):
        look.compare(only=["a"])
    with pytest.raises(UnseenError, match='"a" is not a candidate class'):
        look.compare(target="a", exclude=["a"])


def test_a_correction_moves_every_class_by_its_vector(recognizer, image):
    look = recognizer.look(image)
    fit = recognizer.references.fit
    corrections = {"crown::red": 0.0, "size": 90.0}
    expected = look.attribute_scores.copy()
    expected[0], expected[2] = fit.intercept[0], fit.intercept[2] + 90 * fit.slope[2]
    np.testing.assert_allclose(look.corrected(corrections), expected)
    unit = TABLE.values / np.linalg.norm(TABLE.values, axis=1, keepdims=True)
    moved = look.class_scores() + unit @ (expected - look.attribute_scores)
    np.testing.assert_allclose(look.class_scores(corrections), moved, atol=1e-6)
    np.testing.assert_allclose(
        sorted((c.score for c in look.rank(corrections)), reverse=True), np.sort(moved)[::-1], atol=1e-6
    )
    before, after = recognizer.correct(image, corrections)
    assert before == look.prediction()
    assert after == look.prediction(corrections)
    # what speaks for the best class is told with the corrected scores
    best = TABLE.index(after.best.name)
    for name, value in after.attributes:
        k = ATTRIBUTES.index(name)
        assert value == pytest.approx((expected[k] - recognizer.typical[k]) * unit[best, k], abs=1e-6)


def test_corrections_that_cannot_be_made(recognizer, image):
    look = recognizer.look(image)
    with pytest.raises(DataError, match="crown::red: 500 is outside 0 to 100"):
        look.rank({"crown::red": 500})
    with pytest.raises(DataError, match='no attribute "crown::rde" — did you mean crown::red'):
        look.rank({"crown::rde": 0})
    recognizer.references = None
    with pytest.raises(UnseenError, match="train again"):
        look.rank({"crown::red": 0})
    assert look.nearest() == []


def test_a_method_without_attribute_scores_says_so():
    whole = SimpleNamespace(table=TABLE, class_vectors=np.zeros((4, 3)), method=SimpleNamespace(name="clip"))
    look = Reading(whole, np.zeros(3), np.zeros(8))
    with pytest.raises(UnseenError, match="does not score attributes"):
        look.corrected({"crown::red": 0})


def test_estimates_are_the_line_of_value_on_score(recognizer, image):
    look = recognizer.look(image)
    references = recognizer.references
    values, scores = TABLE.values[references.labels], references.attribute_scores.astype(float)
    for k in range(3):
        slope, intercept = np.polyfit(scores[:, k], values[:, k], 1)
        expected = np.clip(intercept + slope * look.attribute_scores[k], 0, TABLE.values[:, k].max())
        assert look.estimates()[k] == pytest.approx(expected)


@pytest.mark.parametrize("pair", [("a", "b"), ("d", "a"), ("c", "d")])
@pytest.mark.parametrize("corrections", [{}, {"crown::blue": 100.0}])
def test_evidence_against_the_average_image_adds_up(recognizer, image, pair, corrections):
    look = recognizer.look(image)
    why = look.explanation(corrections, target=pair[0], rival=pair[1])
    mean = recognizer.references.fit.mean
    psi = look.corrected(corrections)
    unit = TABLE.values / np.linalg.norm(TABLE.values, axis=1, keepdims=True)
    c, j = (TABLE.index(name) for name in pair)
    for r in why.reasons:
        k = ATTRIBUTES.index(r.attribute)
        assert r.typical == pytest.approx(mean[k])
        assert r.evidence == pytest.approx((psi[k] - mean[k]) * unit[c, k], abs=1e-6)
        assert r.against == pytest.approx((psi[k] - mean[k]) * (unit[c, k] - unit[j, k]), abs=1e-6)
        assert said(r).endswith("(absent)") == (psi[k] < mean[k])
    assert sum(r.evidence for r in why.reasons) + sum(t.evidence for t in why.terms) == pytest.approx(
        why.target.score, abs=1e-5
    )
    lead = why.target.score - why.rival.score - 0.3 * (int(why.target.seen) - int(why.rival.seen))
    shown, rest = account(why, 2)
    assert sum(r.against for r in shown) + sum(a for _, _, a in rest) == pytest.approx(lead, abs=1e-5)
    bonus = [UNSEEN_BONUS] if why.target.seen != why.rival.seen else []
    assert [t.name for t in why.terms] == [AVERAGE, "seen/unseen offset", *bonus]
    assert bool(why.before) == bool(corrections)
    assert len(why.nearest) == 6
    assert why.as_dict()["corrections"] == corrections


def test_without_attention_heat_is_what_exceeds_the_typical_share(recognizer, image):
    from dataclasses import replace

    why = recognizer.look(image).explanation()
    bare = replace(why, attention={})
    reason = why.reasons[0]
    maps = why.contributions[ATTRIBUTES.index(reason.attribute)]
    np.testing.assert_allclose(bare.heat(reason.attribute), np.maximum(maps - reason.typical / maps.size, 0))
    assert maps.sum() == pytest.approx(reason.score, abs=1e-5)


def test_a_image_is_not_its_own_neighbour(recognizer, image, tmp_path):
    image.save(tmp_path / "7.jpg")
    recognizer.about["data"] = {"images": str(tmp_path)}
    try:
        look = recognizer.look(tmp_path / "7.jpg")
        every = {n.file for n in look.nearest(30)}
    finally:
        del recognizer.about["data"]
    assert every == {f"{i}.jpg" for i in range(30)} - {"7.jpg"}


def test_a_look_follows_classes_that_come_and_go(recognizer, image):
    look = recognizer.look(image)
    before = {c.name: c.score for c in look.rank()}
    recognizer.add_class("e", {"crown::blue": 100.0})
    assert {c.name for c in look.rank()} == {*before, "e"}
    recognizer.edit_class("e", {"crown::red": 100.0})
    np.testing.assert_array_equal(recognizer.table.values[4], [100, 100, 30])  # what is not said is the mean
    edited = {c.name: c.score for c in look.rank()}
    unit = np.array([100, 100, 30]) / np.linalg.norm([100, 100, 30])
    margin = before["d"] - look.attribute_scores @ (np.array([1, 1, 0]) / np.sqrt(2))  # d is unseen too
    assert edited["e"] == pytest.approx(look.attribute_scores @ unit + margin, abs=1e-5)
    recognizer.remove_class("e")
    assert {c.name: c.score for c in look.rank()} == before
    recognizer.remove_class("a")
    recognizer.add_class("a", [1, 2, 3], trained=recognizer.table.back_from(TABLE, "a"))
    assert recognizer.table.seen[-1]


def test_saving_keeps_references_and_the_classes_in_use(recognizer, image, tmp_path):
    recognizer.remove_class("a")
    folder = recognizer.save(tmp_path / "model", include_references=True)
    (folder / "classes-in-use.csv").write_text("something older")
    recognizer.save(folder, include_references=True)
    loaded = Recognizer.load(folder, device="cpu")
    assert loaded.table.names == ("b", "c", "d")
    corrections = {"crown::red": 100.0}
    assert loaded.look(image).rank(corrections) == recognizer.look(image).rank(corrections)
    assert loaded.references.nearest(np.zeros(3), 4) == recognizer.references.nearest(np.zeros(3), 4)


def test_add_class_takes_less_than_10_ms(tiny_backbone):
    """200 classes x 312 attributes, with the table's checks; and a new ranking of an image."""
    rng = np.random.default_rng(0)
    attributes = Attributes(tuple(f"group {k // 4}::value {k}" for k in range(312)))
    values = rng.random((200, 312)) * 100
    table = ClassTable(tuple(f"class {i}" for i in range(200)), attributes, values, np.arange(200) < 150)
    backbone = Backbone(tiny_backbone)
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(312, 8), seed=1)
    recognizer = Recognizer(backbone, method, table, device="cpu")
    look = recognizer.look(Image.new("RGB", (64, 64)))
    new = dict(zip(attributes.names, rng.random(312) * 100, strict=True))
    adding, ranking = [], []
    for i in range(30):
        start = time.perf_counter()
        recognizer.add_class(f"new {i}", new)
        middle = time.perf_counter()
        look.rank()
        adding.append(middle - start)
        ranking.append(time.perf_counter() - middle)
    assert statistics.median(adding) < 0.010
    assert statistics.median(ranking) < 0.050
