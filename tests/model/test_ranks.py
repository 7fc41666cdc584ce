"""Confidence per rank, coarser answers and priors, against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.prior import Prior
from unseen.classes.table import ClassTable
from unseen.classes.taxonomy import Taxonomy
from unseen.errors import UnseenError
from unseen.methods import create_method
from unseen.model.predictions import Extent, Prediction, columns
from unseen.model.ranks import Choice, RankThreshold, by_taxon, probabilities, required
from unseen.recognizer import Recognizer
from unseen.recognizer.coarser import why_coarser

TAXA = Taxonomy(("family", "genus"), (("F", "a"), ("F", "a"), ("F", "b"), ("G", "c"), ("", "")))
SEEN = np.array([True, True, True, False, False])
TABLE = ClassTable(
    ("a1", "a2", "b1", "c1", "lone"),
    Attributes(("crown::red", "size::small", "wing::long")),
    np.random.default_rng(0).random((5, 3)),
    SEEN,
    taxonomy=TAXA,
)
EVERY = np.arange(5)


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    backbone = Backbone(tiny_backbone)
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    return Recognizer(backbone, method, TABLE, device="cpu", temperature=2.0, gamma=0.5, threshold=0.5)


def scores_of(*shares):
    """Scores of which these are the confidences, at the recognizer's gamma and temperature."""
    return 2.0 * np.log(np.array([shares])) + 0.5 * SEEN


def ask(recognizer, scores, *, top=5, allowed=EVERY, threshold=0.5, rank=None, weights=None, ranks=None):
    choice = Choice(top, allowed, threshold, recognizer.rank_of(rank, allowed), ranks or {})
    given = None if weights is None else np.array([weights], dtype=float)
    (found,) = recognizer.respond(["x.jpg"], scores, np.zeros((1, 3)), choice, given)
    assert Prediction.from_dict(found.as_dict()) == found
    assert list(found.row()) == list(columns(found.extent))
    return found


def test_confidence_of_a_taxon_is_the_sum_of_its_classes(recognizer):
    found = ask(recognizer, scores_of(0.3, 0.25, 0.1, 0.2, 0.15))
    family, genus = found.ranks
    assert (family.rank, family.name, genus.rank, genus.name) == ("family", "F", "genus", "a")
    assert family.confidence == pytest.approx(0.65)
    assert genus.confidence == pytest.approx(0.55)
    assert (family.probably, genus.probably) == ("a1", "a1")
    assert found.row()["family"] == "F"
    assert found.row()["genus_confidence"] == genus.confidence
    few = ask(recognizer, scores_of(0.3, 0.25, 0.1, 0.2, 0.15), allowed=np.array([2, 3]))
    assert [t.name for t in few.ranks] == ["G", "c"]
    assert few.ranks[0].confidence == pytest.approx(2 / 3)


def test_the_finest_rank_that_stands_out_is_the_answer(recognizer):
    # threshold 0.5 of 5 classes: a class exceeds guessing by (0.5 - 0.2) / 0.8 = 0.375 of what it can;
    # genus a, 2 of 5 classes: 0.4 + 0.375 * 0.6 = 0.625; family F, 3 of 5: 0.6 + 0.375 * 0.4 = 0.75
    assert required(0.5, np.array([0.2, 0.4, 0.6, 1.0]), 5).tolist() == pytest.approx([0.5, 0.625, 0.75, math.inf])
    sure = ask(recognizer, scores_of(0.4, 0.3, 0.1, 0.1, 0.1))
    assert (sure.name, sure.answer, sure.answer_rank) == ("unknown", "a", "genus")
    assert sure.said == "a (genus), probably a1"
    coarser = ask(recognizer, scores_of(0.4, 0.2, 0.2, 0.1, 0.1))
    assert (coarser.answer, coarser.answer_rank) == ("F", "family")
    assert not coarser.ranks[1].sure
    none = ask(recognizer, scores_of(0.3, 0.2, 0.2, 0.15, 0.15))
    assert (none.answer, none.answer_rank, none.said) == ("unknown", "", "unknown")
    known = ask(recognizer, scores_of(0.6, 0.1, 0.1, 0.1, 0.1))
    assert (known.answer, known.answer_rank, known.coarser) == ("a1", "class", None)


def test_chosen_thresholds_of_ranks_take_the_place_of_that_of_classes(recognizer):
    # genus a: 0.7, guessing 0.4, so 0.5 above chance; family F: 0.8, guessing 0.6, so 0.5 too
    scores = scores_of(0.4, 0.3, 0.1, 0.1, 0.1)

    def answer(family, genus, **options):
        given = {"family": RankThreshold(*family), "genus": RankThreshold(*genus)}
        return ask(recognizer, scores, ranks=given, **options)

    assert answer((0, 0.4), (0, 0.4)).answer_rank == "genus"
    assert answer((0, 0.4), (0, 0.6)).answer_rank == "family"
    assert answer((0, 0.6), (0, None)).answer == "unknown"  # a rank that never is an answer
    assert answer((0.4, None), (0.6, None), rank="family").known
    assert not answer((0.4, None), (0.6, None), rank="genus").known
    assert ask(recognizer, scores, ranks={"genus": RankThreshold(0, None)}).answer_rank == "family"  # others follow it
    assert ask(recognizer, scores, rank="genus", ranks={"genus": RankThreshold(None, None)}).known


def test_a_coarser_answer_is_explained_in_words(recognizer):
    choice = Choice(5, EVERY, 0.5, None, {"genus": RankThreshold(0, None)})
    psi = recognizer.typical + np.array([1.0, 0.0, -1.0])

    def why(*shares):
        (found,) = recognizer.respond(["x.jpg"], scores_of(*shares), np.zeros((1, 3)), choice)
        return why_coarser(recognizer, found, choice, psi)

    first, genus, family, *shared = why(0.4, 0.3, 0.15, 0.1, 0.05)
    assert first == "no class reaches the threshold: a1 has 40%, and 50% is needed"
    assert genus.startswith("genus a: 70% over its 2 candidate classes; but too few answers")
    assert family == (
        "family F: 85% over its 3 candidate classes, where 75% is needed and guessing gives 60%, "
        "so it is the answer; probably a1"
    )
    vectors = recognizer.class_vectors
    lead = vectors[:3].mean(axis=0)[0] - vectors[3:].mean(axis=0)[0]
    expected = [f"what sets F apart from the other classes: crown red ({lead:+.2g})"] if lead > 0 else []
    assert shared == expected or (lead > 0 and shared[0].startswith("what sets F apart"))
    assert why(0.3, 0.2, 0.2, 0.2, 0.1)[-1] == "so the answer is unknown"
    assert why(0.6, 0.1, 0.1, 0.1, 0.1) == []


def test_chosen_thresholds_belong_to_the_automatic_one(tiny_backbone):
    backbone, chosen = Backbone(tiny_backbone), {"family": RankThreshold(0.1, 0.2)}
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    made = Recognizer(backbone, method, TABLE, device="cpu", threshold=0.5, rank_thresholds=chosen)
    assert made.choice(5, EVERY).ranks == chosen
    assert made.choice(5, EVERY, 0.7).ranks == made.choice(5, EVERY, "off").ranks == {}


def test_a_rank_can_be_asked_for(recognizer):
    found = ask(recognizer, scores_of(0.2, 0.15, 0.4, 0.15, 0.1), rank="Genus")
    assert [(c.name, c.seen) for c in found.candidates] == [("b", True), ("a", True), ("c", False)]
    assert [c.confidence for c in found.candidates] == pytest.approx([0.4, 0.35, 0.15])
    assert (found.rank, found.known, found.answer) == ("genus", False, "F")
    assert found.row()["rank"] == "genus"
    family = ask(recognizer, scores_of(0.2, 0.15, 0.4, 0.15, 0.1), rank="family")
    assert (family.name, family.best.confidence) == ("F", pytest.approx(0.75))
    assert ask(recognizer, scores_of(0.2, 0.15, 0.4, 0.15, 0.1), rank="genus", threshold=0.0).known
    with pytest.raises(UnseenError, match=r'no rank "famly" — did you mean "family"'):
        recognizer.rank_of("famly", EVERY)
    with pytest.raises(UnseenError, match="there is nothing to choose"):
        recognizer.rank_of("family", np.array([0, 1]))
    extent = recognizer.extent(5, rank="genus")
    assert extent == Extent(3, ranks=("family", "genus"), rank=True)


def test_a_prior_is_bayes_rule_beside_the_images_own_answer(recognizer):
    found = ask(recognizer, scores_of(0.4, 0.3, 0.1, 0.1, 0.1), weights=[1, 3, 0, 1, 1], threshold=0.0)
    # 0.4, 0.9, 0, 0.1, 0.1 over 1.5
    assert [c.name for c in found.candidates[:2]] == ["a2", "a1"]
    assert [c.confidence for c in found.candidates] == pytest.approx([0.6, 4 / 15, 1 / 15, 1 / 15, 0])
    assert found.candidates[0].score == pytest.approx(2 * math.log(0.3) + 0.5)
    assert found.weighed.without.name == "a1"
    assert found.weighed.without.confidence == pytest.approx(0.4)
    assert found.weighed.prior == pytest.approx(0.5)
    assert found.ranks[0].confidence == pytest.approx(13 / 15)
    row = found.row()
    assert (row["class"], row["class_without_prior"], row["prior"]) == ("a2", "a1", pytest.approx(0.5))
    at_rank = ask(recognizer, scores_of(0.4, 0.1, 0.1, 0.3, 0.1), weights=[1, 1, 1, 6, 1], rank="family", threshold=0.0)
    assert (at_rank.best.name, at_rank.weighed.without.name) == ("G", "F")
    assert at_rank.weighed.without.confidence == pytest.approx(0.6)
    assert at_rank.weighed.prior == pytest.approx(0.6)
    with pytest.raises(UnseenError, match="every candidate class a weight of 0"):
        ask(recognizer, scores_of(0.4, 0.3, 0.1, 0.1, 0.1), weights=[1, 1, 0, 0, 0], allowed=np.array([2, 3]))


def test_equal_weights_change_nothing(recognizer):
    scores = np.random.default_rng(1).normal(size=(6, 5))
    for row in scores:
        plain, even = ask(recognizer, row[None]), ask(recognizer, row[None], weights=[7, 7, 7, 7, 7])
        assert [c.name for c in plain.candidates] == [c.name for c in even.candidates]
        assert [c.confidence for c in plain.candidates] == pytest.approx([c.confidence for c in even.candidates])
        assert even.weighed.without == plain.best


def test_classes_are_the_same_to_the_bit_with_and_without_ranks(recognizer):
    scores, psi = np.random.default_rng(2).normal(size=(4, 5)), np.zeros((4, 3))
    with_ranks = recognizer.respond(list("abcd"), scores, psi, Choice(5, EVERY, 0.5))
    best = recognizer.rank(scores, 5, EVERY)
    without = recognizer.predictions(list("abcd"), best, psi, 0.5)
    assert [p.candidates for p in with_ranks] == [p.candidates for p in without]
    for i in range(4):  # nor does the batch matter
        (alone,) = recognizer.respond(["x"], scores[i : i + 1], psi[:1], Choice(5, EVERY, 0.5))
        assert alone.ranks == with_ranks[i].ranks


def test_sums():
    p = probabilities(np.log([[1.0, 2, 5]]) * 3 + 0.25 * np.array([1, 0, 1]), np.array([1, 0, 1]), 0.25, 3.0)
    assert p == pytest.approx(np.array([[1, 2, 5]]) / 8)
    assert by_taxon(p, np.array([1, -1, 1]), 2) == pytest.approx(np.array([[0, 0.75]]))


def test_through_the_network(recognizer, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 255, (2, 80, 80, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    prior = Prior.of({"c1": 5.0, "a1": 1.0})
    found = recognizer.predict(images, prior=prior, rank="family", workers=0)
    looked = recognizer.look(images[0]).prediction(prior=prior, rank="family")
    assert found[0] == looked
    frame = found.to_frame()
    assert set(frame["rank"]) == {"family"}
    assert {"answer", "family_confidence", "confidence_without_prior"} <= set(frame.columns)
    each = recognizer.predict(images, prior=lambda image: prior if image is images[0] else Prior.of({"a1": 1.0}))
    assert each[0].best.confidence != each[1].best.confidence
    assert each[1].weighed.prior == pytest.approx(0.2)
