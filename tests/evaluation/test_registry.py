"""Metrics of anybody's scores, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

import unseen.metrics
from unseen.errors import UnseenError
from unseen.evaluation.metrics import METRICS
from unseen.evaluation.registry import REGISTRY, Metric, register_metric

SEEN = np.array([True, True, False, False])
SCORES = np.array(
    [
        [4, 1, 0, 0],  # class 0: right
        [0, 1, 3, 0],  # class 1: taken for 2
        [5, 0, 4, 1],  # class 2: among unseen right, among all taken for 0
        [0, 0, 2, 3],  # class 3: right
    ]
)
LABELS = np.arange(4)


def test_by_hand():
    found = unseen.metrics.gzsl(SCORES, LABELS, SEEN)
    assert found["T1"] == 1.0
    assert found["U"] == 0.5
    assert found["S"] == 0.5
    assert found["H"] == 0.5
    assert found["top-5"] == 1.0
    # named 0, 2, 0, 3: F1 of 0 is 2/3, of 1 is 0, of 2 is 0, of 3 is 1
    assert found["macro-F1"] == pytest.approx((2 / 3 + 0 + 0 + 1) / 4)
    assert np.isnan(found["hierarchical distance"])
    calibrated = unseen.metrics.gzsl(SCORES, LABELS, SEEN, gamma=1.5)
    assert calibrated["U"] == 1.0
    assert unseen.metrics.curve(SCORES, LABELS, SEEN).area == pytest.approx(found["AUSUC"])


def test_hierarchical_distance_counts_ranks():
    """Classes 0 and 2 share the order alone, 1 and 2 both ranks."""
    taxonomy = [["bird", "owl"], ["bird", "jay"], ["bird", "jay"], ["mammal", "bat"]]
    found = unseen.metrics.gzsl(SCORES, LABELS, SEEN, taxonomy=taxonomy)
    assert found["hierarchical distance"] == pytest.approx((0 + 0 + 0.5 + 0) / 4)  # 2 taken for 0: jay for owl


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((200, 9)), rng.integers(0, 9, 200)
    seen = np.arange(9) < 6
    found = unseen.metrics.gzsl(scores, labels, seen)
    assert found["macro-F1"] == pytest.approx(f1_score(labels, scores.argmax(1), average="macro"))
    best = np.argsort(-scores, axis=1)[:, :5]
    shares = [(best[labels == c] == c).any(axis=1).mean() for c in range(9)]
    assert found["top-5"] == pytest.approx(np.mean(shares))


def test_every_column_of_tables_is_registered_with_its_meaning():
    assert list(REGISTRY)[: len(METRICS)] == list(METRICS)
    assert all(metric.meaning and metric.name == name for name, metric in REGISTRY.items())
    assert REGISTRY["T1"].chance(40, 10) == 0.1
    assert REGISTRY["U"].chance(40, 10) == 0.02
    assert REGISTRY["T1"].chance(40, 0) is None
    assert not REGISTRY["hierarchical distance"].higher_is_better


def test_a_metric_of_ones_own(monkeypatch):
    monkeypatch.setattr("unseen.evaluation.registry.REGISTRY", dict(REGISTRY))
    register_metric(Metric("images", "number of images", lambda scored: len(scored.labels)))
    assert unseen.metrics.gzsl(SCORES, LABELS, SEEN)["images"] == 4
    with pytest.raises(UnseenError, match='there is a metric "T1"'):
        register_metric(REGISTRY["T1"])


@pytest.mark.parametrize(
    ("scores", "labels", "seen", "problem"),
    [
        (SCORES[0], LABELS, SEEN, "do not fit"),
        (SCORES, LABELS[:2], SEEN, "do not fit"),
        (SCORES, LABELS + 1, SEEN, "labels go from 1 to 4"),
        (SCORES * np.nan, LABELS, SEEN, "not finite"),
    ],
)
def test_mistakes_are_one_line(scores, labels, seen, problem):
    with pytest.raises(UnseenError, match=problem):
        unseen.metrics.gzsl(scores, labels, seen)
