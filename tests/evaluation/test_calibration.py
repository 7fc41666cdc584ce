import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from unseen.evaluation.calibration import Answers


def answers(confidence, right, unseen=None, offset=None):
    m = len(confidence)
    return Answers(
        np.array(confidence, dtype=float),
        np.array(right, dtype=bool),
        np.zeros(m, bool) if unseen is None else np.array(unseen, dtype=bool),
        np.zeros(m) if offset is None else np.array(offset, dtype=float),
    )


def test_from_scores_equals_softmax_of_calibrated_scores():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 6)), rng.integers(0, 6, 30)
    seen = np.array([True, True, False, True, False, True])
    found = Answers.from_scores(scores.astype(np.float32), labels, seen, 0.4, 0.7)
    expected = softmax((scores.astype(np.float32) - 0.4 * seen) / 0.7, axis=1)
    np.testing.assert_allclose(found.confidence, expected.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found.right, expected.argmax(axis=1) == labels)
    np.testing.assert_array_equal(found.unseen, ~seen[labels])
    best = scores[:, seen].max(axis=1) - scores[:, ~seen].max(axis=1)
    np.testing.assert_allclose(found.offset, best, atol=1e-6)
    assert found.auroc() == pytest.approx(roc_auc_score(seen[labels], best))


def test_batches_joined_are_the_whole():
    rng = np.random.default_rng(1)
    scores, labels, seen = rng.normal(size=(9, 4)), rng.integers(0, 4, 9), np.array([True, False, True, False])
    whole = Answers.from_scores(scores, labels, seen, 0.1, 0.5)
    parts = [Answers.from_scores(scores[i : i + 4], labels[i : i + 4], seen, 0.1, 0.5) for i in (0, 4, 8)]
    assert Answers.joined(parts).summary() == whole.summary()


def test_ece_by_hand():
    # 15 bins: 0.5 and 0.52 lie in the eighth one (0.4667 to 0.5333), 0.95 in the last, and 1.0 with it
    found = answers([0.5, 0.52, 0.95, 1.0], [True, False, True, False])
    assert found.reliability() == {
        "confidence": pytest.approx([0.51, 0.975]),
        "accuracy": pytest.approx([0.5, 0.5]),
        "count": [2, 2],
    }
    assert found.ece() == pytest.approx((0.01 + 0.475) / 2)


def test_risk_coverage_by_hand():
    coverage, risk, threshold = answers([0.9, 0.6, 0.6, 0.2], [True, True, False, False]).risk_coverage()
    np.testing.assert_allclose(coverage, [0.25, 0.75, 1.0])  # the two of 0.6 come together
    np.testing.assert_allclose(risk, [0, 1 / 3, 0.5])
    np.testing.assert_allclose(threshold, [0.9, 0.6, 0.2])


def test_threshold_halves_the_risk_or_leaves_half_of_the_images():
    falling = np.arange(80, 0, -1) / 100
    # answering always: 20 of 80 wrong; from 0.13 on: 8 of 68, less than an eighth; from 0.12 on: 9 of 69, more
    halved = answers(falling, [True] * 60 + [False] * 20)
    assert halved.threshold() == pytest.approx(0.13)
    hopeless = answers(falling, [False] * 40 + [True] * 40)
    assert hopeless.threshold() == pytest.approx(0.41)  # half of the images
    few = answers(np.arange(100, 0, -1) / 100, [True] * 98 + [False] * 2)
    assert few.threshold() == pytest.approx(0.06)  # 95 of 100


def test_threshold_against_brute_force():
    rng = np.random.default_rng(2)
    confidence = rng.random(200).round(2)
    right = rng.random(200) < confidence**0.5
    risk = 1 - right.mean()
    enough = [t for t in np.unique(confidence) if (confidence >= t).mean() >= 0.5]
    halved = [t for t in enough if 1 - right[confidence >= t].mean() <= risk / 2]
    assert answers(confidence, right).threshold() == pytest.approx(min(halved, default=max(enough)))


def test_summary_at_a_threshold():
    found = answers([0.9, 0.6, 0.2], [True, False, False], [True, False, False], [-1, 2, 3]).summary(0.5)
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["accuracy_when_known"] == pytest.approx(0.5)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["auroc"] == 1.0
    assert answers([], []).summary(0.5) == {}


def test_auroc_needs_both_kinds():
    assert answers([0.5, 0.6], [True, True], [True, True], [0, 1]).auroc() is None
    assert answers([0.5, 0.6], [True, True], [True, False], [np.inf, 1]).auroc() is None


def test_curves_stay_short():
    rng = np.random.default_rng(3)
    curve = answers(rng.random(5000), rng.random(5000) < 0.5).summary()["risk_coverage"]
    assert len(curve["coverage"]) == 101
    assert curve["coverage"][-1] == 1.0
