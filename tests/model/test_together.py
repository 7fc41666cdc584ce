"""A batch as a whole: what is gained, what stays as it was, and that it is said."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from scipy.special import softmax

import unseen
from unseen.errors import UnseenError
from unseen.evaluation.mixtures import KINDS, SMALL, accuracy, draw_mixture
from unseen.model.support import SupportRule
from unseen.model.together import together
from unseen.recognizer import Recognizer
from unseen.recognizer.stream import Options, predict_to_file

RULE = SupportRule(2.0, 8.0, -3.0, 0.0, 1.0, 0.0)
SEEN = np.array([True, True, False, False, False])


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clear clusters of images of unseen classes, with scores that tell them poorly."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([2, 3, 4], 20)
    vectors = np.eye(16)[labels] + 0.1 * rng.normal(size=(60, 16))
    scores = rng.normal(size=(60, 5))
    scores[np.arange(60), labels] += 1.0
    scores[:, SEEN] -= 3
    return scores, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def test_clusters_are_named_by_their_evidence_together():
    scores, vectors, labels = batch()
    moved = together(scores, vectors, SEEN, RULE, 1.0, 1.0)
    assert (moved.argmax(1) == labels).mean() > 0.95
    assert (scores.argmax(1) == labels).mean() < 0.85


def test_seen_classes_and_the_share_of_unseen_ones_stay():
    scores, vectors, _ = batch()
    moved = together(scores, vectors, SEEN, RULE, 0.5, 0.7)
    np.testing.assert_array_equal(moved[:, SEEN], scores[:, SEEN])
    before, after = softmax(scores / 0.7, axis=1), softmax(moved / 0.7, axis=1)
    np.testing.assert_allclose(after[:, ~SEEN].sum(1), before[:, ~SEEN].sum(1), rtol=1e-9)


def test_one_image_nothing_unseen_or_no_weight_changes_nothing():
    scores, vectors, _ = batch()
    assert together(scores[:1], vectors[:1], SEEN, RULE, 1.0, 1.0) is not None
    for args in ((scores[:1], vectors[:1], SEEN, RULE, 1.0), (scores, vectors, SEEN | True, RULE, 1.0)):
        np.testing.assert_array_equal(together(*args, 1.0), args[0])
    np.testing.assert_array_equal(together(scores, vectors, SEEN, RULE, 0.0, 1.0), scores)


def test_one_round_by_hand():
    scores, vectors, _ = batch()
    scores, vectors = scores[:3], vectors[:3]
    moved = together(scores, vectors, SEEN, RULE, 0.5, 1.0, rounds=1)
    q = softmax(scores, axis=1)
    sums = q[1, 2] * vectors[1] + q[2, 2] * vectors[2]  # of the other two images
    n = 0.5 * (q[1, 2] + q[2, 2])
    cosine = vectors[0] @ sums / np.linalg.norm(sums)
    raw = 2 / (n + 2) * scores[0, 2] + n / (n + 2) * (8 * cosine - 3)
    other = together(scores, vectors, SEEN, RULE, 0.5, 1.0, rounds=1)[0, 3]
    q3 = q[1, 3] * vectors[1] + q[2, 3] * vectors[2]
    n3 = 0.5 * (q[1, 3] + q[2, 3])
    raw3 = 2 / (n3 + 2) * scores[0, 3] + n3 / (n3 + 2) * (8 * (vectors[0] @ q3 / np.linalg.norm(q3)) - 3)
    assert moved[0, 2] - other == pytest.approx(raw - raw3)


def test_batches_are_what_they_say():
    labels, seen = np.repeat(np.arange(6), [9, 8, 12, 6, 10, 11]), np.array([True] * 2 + [False] * 4)
    for kind in KINDS:
        found = draw_mixture(kind, "unseen", labels, seen, np.random.default_rng(0))
        counts = np.bincount(labels[found.images], minlength=6)
        assert not counts[:2].any()
        expected = {
            "balanced": [6, 6, 6, 6],
            "as it is": [6, 10, 11, 12],
            "partly unknown": [6, 10, 11, 12],
        }
        if kind in expected:
            assert sorted(counts[2:]) == expected[kind]
        if kind == "few classes":
            assert (counts > 0).sum() == 2
        if kind == "small":
            assert counts.sum() == SMALL
        assert len(found.classes) == (3 if kind == "partly unknown" else 4)
    whole = draw_mixture("as it is", "all", labels, seen, np.random.default_rng(0))
    perfect = np.eye(6)[labels[whole.images]]
    assert accuracy(perfect, labels, whole, seen, "all") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_guide, tiny_backbone):
    folder = tmp_path_factory.mktemp("together")
    options = {"backbone": tiny_backbone, "cache": folder / "c", "device": "cpu", "draws": 1}
    return unseen.fit("eszsl", tiny_guide, folder / "run", **options)


def test_predictions_say_that_they_are_together(run, tiny_guide, tmp_path):
    from dataclasses import replace

    from unseen.data.folder import load_folder

    recognizer = Recognizer.load(run.folder, device="cpu")
    files = load_folder(tiny_guide).paths()[-12:]
    space = recognizer.space
    recognizer._space = replace(space, rule=replace(space.rule, together=0.0))
    with pytest.raises(UnseenError, match="gained nothing on validation batches"):
        recognizer.predict(files, together=True)
    recognizer._space = replace(space, rule=replace(space.rule, together=0.5))
    found = recognizer.predict(files, together=True, batch_size=5)
    assert all(p.together for p in found)
    assert [p.image for p in found] == [str(f) for f in files]
    assert found != recognizer.predict(files)
    crops = torch.stack([recognizer.backbone.transform.cropped(f) for f in files])
    inputs = recognizer.inputs(crops)
    plain = recognizer.class_scores(recognizer.answer(inputs).query)
    moved = recognizer.together(plain, recognizer.pooled(inputs), recognizer.allowed())
    expected = recognizer.rank(moved, 5, recognizer.allowed())
    assert [p.best.name for p in found] == [recognizer.classes[c] for c in expected.index[:, 0]]
    predict_to_file(recognizer, files, tmp_path / "found.csv", Options(together=True))
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["together"] for row in rows} == {"1"}
    assert [row["best_class"] for row in rows] == [p.best.name for p in found]
    assert "together" not in recognizer.predict(files[:1]).to_frame()
