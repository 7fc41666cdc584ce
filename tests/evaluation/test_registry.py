"""Metrics of anybody's scores, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

import unseen.metrics
from unseen.errors import UnseenError
from unseen.evaluation import registry
from unseen.evaluation.bootstrap import resample
from unseen.evaluation.metrics import CORE, LEADING, Decisions, evaluate
from unseen.evaluation.registry import Decided, Metric, chosen_metrics, every_metric, measure, register_metric

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


def test_every_metric_says_what_it_is():
    known = every_metric()
    assert list(known)[: len(CORE)] == list(CORE) == chosen_metrics()
    assert all(metric.meaning and metric.name == name for name, metric in known.items())
    assert known["T1"].chance(40, 10) == 0.1
    assert known["U"].chance(40, 10) == 0.02
    assert known["T1"].chance(40, 0) is None
    assert not known["hierarchical distance"].higher_is_better


def test_the_registry_gives_the_numbers_of_evaluate():
    rng = np.random.default_rng(1)
    scores, labels, seen = rng.standard_normal((90, 9)), rng.integers(0, 9, 90), np.arange(9) < 6
    decisions = Decisions.from_scores(scores, labels, seen, LEADING)
    found = measure(Decided(decisions, 0.3))
    assert {k: v for k, v in found.items() if k in CORE} | {"gamma": 0.3} == evaluate(decisions, seen, 0.3).as_dict()
    drawn = resample([decisions], [0.3], samples=20)
    for name, value in found.items():
        np.testing.assert_allclose(drawn[name].measured, [value], rtol=1e-15)
    assert np.isfinite(drawn["top-5"].drawn).all()
    assert np.isnan(drawn["AUSUC"].drawn).all()


def test_without_images_nothing_is_measured():
    found = unseen.metrics.gzsl(np.zeros((0, 4)), [], SEEN)
    assert list(found) == list(every_metric())
    assert np.isnan(list(found.values())).all()


def test_columns_are_chosen_by_name():
    assert chosen_metrics("all") == list(every_metric())
    assert chosen_metrics("top-5, H") == ["top-5", "H"]
    with pytest.raises(UnseenError, match='no metric "top5" — did you mean "top-5"'):
        chosen_metrics("top5")


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))


@pytest.mark.usefixtures("mine")
def test_a_metric_of_ones_own():
    register_metric(Metric("images", "number of images", lambda d: len(d.labels)))
    register_metric(Metric("twice", "two of it", lambda images: 2 * images, of=("images",)))
    found = unseen.metrics.gzsl(SCORES, LABELS, SEEN)
    assert (found["images"], found["twice"]) == (4, 8)
    with pytest.raises(UnseenError, match='a metric "T1" already exists'):
        register_metric(Metric("T1", "another", lambda d: 0.0))
    with pytest.raises(UnseenError, match='made: no metric "nothing"'):
        register_metric(Metric("made", "of nothing", lambda n: n, of=("nothing",)))
    register_metric(Metric("broken", "none", lambda d: 1 / 0))
    with pytest.raises(UnseenError, match=r'the metric "broken" failed \(ZeroDivisionError: division by zero\)'):
        unseen.metrics.gzsl(SCORES, LABELS, SEEN)
    for given in (lambda d: 0.0, Metric("empty", "nothing", None)):
        with pytest.raises(UnseenError, match="is not a metric — pass Metric"):
            register_metric(given)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("shape", [(2,), (4, 2)])
def test_a_metric_has_one_number_or_one_for_each_image(shape):
    register_metric(Metric("odd", "of another shape", lambda d: np.ones(shape)))
    with pytest.raises(UnseenError, match=r'the metric "odd" returned \(.*\) numbers for 4 images'):
        unseen.metrics.gzsl(SCORES, LABELS, SEEN)


@pytest.mark.parametrize(
    ("scores", "labels", "seen", "problem"),
    [
        (SCORES[0], LABELS, SEEN, "do not match"),
        (SCORES, LABELS[:2], SEEN, "do not match"),
        (SCORES, LABELS + 1, SEEN, "labels go from 1 to 4"),
        (SCORES * np.nan, LABELS, SEEN, "not finite"),
        (SCORES, LABELS + 0.5, SEEN, "labels such as 0.5"),
        (SCORES, LABELS.astype(str), SEEN, "labels such as 0 — use positions"),
    ],
)
def test_mistakes_are_one_line(scores, labels, seen, problem):
    with pytest.raises(UnseenError, match=problem):
        unseen.metrics.gzsl(scores, labels, seen)


def test_accuracy_at_a_rank():
    decisions = Decisions.from_scores(SCORES.astype(float), LABELS, SEEN, LEADING)
    taxa = np.array([[0], [1], [0], [-1]])  # 2 taken for 0 is right, 1 taken for 2 is not, 3 does not count
    decided = Decided(decisions, 0.0, taxa, 0)
    assert np.array_equal(decided.right, [1, 0, 1, np.nan], equal_nan=True)
    found = measure(decided)
    assert [found[name] for name in ("T1", "U", "S")] == [1.0, 1.0, 0.5]
    assert found["H"] == pytest.approx(2 / 3)
    plain, itself = measure(Decided(decisions)), measure(Decided(decisions, 0.0, LABELS[:, None], 0))
    assert all(itself[name] == plain[name] for name in ("T1", "U", "S", "H", "macro-F1"))


def test_unknown_taxa_do_not_count_in_the_hierarchical_distance():
    known = unseen.metrics.gzsl(SCORES, LABELS, SEEN, taxonomy=[["a"], ["b"], ["c"], ["d"]])
    none = unseen.metrics.gzsl(SCORES, LABELS, SEEN, taxonomy=[[""], [""], [""], [""]])
    assert known["hierarchical distance"] == pytest.approx(np.mean(np.argmax(SCORES, axis=1) != np.array(LABELS)))
    assert np.isnan(none["hierarchical distance"])
