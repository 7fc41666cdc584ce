"""How images of classes count is chosen on validation images alone, and what images tell is used."""

from __future__ import annotations

import numpy as np
import pytest

from unseen.evaluation.shots import SHOTS, Episode
from unseen.model.support import SupportRule
from unseen.training.support import _Task, _weights, choose_support, mixed_scores
from unseen.training.temperature import Held

SEEN = np.array([True] * 6 + [False] * 4)


def draw(seed: int, clear: float, noise: float) -> tuple[Held, np.ndarray]:
    """Held-out images of 10 classes: scores that name a class as ``clear`` as asked, vectors around class means."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(10), 12)
    scores = rng.normal(size=(120, 10))
    scores[np.arange(120), labels] += clear
    means = np.random.default_rng(99).normal(size=(10, 32))
    vectors = means[labels] + noise * rng.normal(size=(120, 32))
    return Held(scores, labels, SEEN), (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_clear_images_are_used_and_empty_ones_are_not():
    draws, vectors = zip(*[draw(seed, 1.0, 0.3) for seed in range(2)], strict=True)
    found = choose_support(draws, vectors, 0.0, 1.0)
    assert list(found["shots"]) == [str(n) for n in SHOTS]
    assert found["shots"]["5"]["T1"] > 0.95
    assert found["shots"]["0"]["T1"] < 0.8
    draws, vectors = zip(*[draw(seed, 3.0, 30.0) for seed in range(2)], strict=True)
    empty = choose_support(draws, vectors, 0.0, 1.0)
    rule, useful = SupportRule(**empty["rule"]), SupportRule(**found["rule"])
    assert rule.terms(np.array([5]), np.ones(1, bool))[1] < 0.3 * useful.terms(np.array([5]), np.ones(1, bool))[1]
    assert empty["shots"]["5"]["T1"] > empty["shots"]["0"]["T1"] - 0.05


def test_without_two_images_a_class_there_is_no_rule():
    labels = np.arange(10)
    held = Held(np.eye(10), labels, SEEN)
    assert choose_support([held], [np.eye(10, dtype=np.float32)], 0.0, 1.0) is None


def test_classes_and_kinds_count_alike():
    labels = np.array([0, 0, 0, 1, 6, 7, 7])
    weights = _weights(labels, SEEN)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, [1 / 12] * 3 + [1 / 4, 1 / 4, 1 / 8, 1 / 8])


def test_mixed_scores_by_hand():
    held, vectors = draw(0, 1.0, 0.3)
    episode = Episode.draw(held.labels, np.array([7]), 2, np.random.default_rng(0))
    rule = SupportRule(2.0, 3.0, -1.0, 0.5, 1.0, 0.0)
    plain = mixed_scores(held.scores, SEEN, 0.4, rule, episode, vectors, 0)
    np.testing.assert_array_equal(plain, held.scores[episode.queries] - 0.4 * SEEN)
    mixed = mixed_scores(held.scores, SEEN, 0.4, rule, episode, vectors, 2)
    mean = vectors[episode.support[7]].mean(axis=0)
    cosine = vectors[episode.queries] @ mean / np.linalg.norm(mean)
    np.testing.assert_allclose(mixed[:, 7], plain[:, 7] / 2 + 1.5 * cosine - 0.5 + 0.125, rtol=1e-5)
    others = np.arange(10) != 7
    np.testing.assert_array_equal(mixed[:, others], plain[:, others])


def test_the_gradient_of_an_episode_is_that_of_differences():
    rng = np.random.default_rng(0)
    prior, cosines, target = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), np.arange(9) % 5 - 1
    weight = rng.dirichlet(np.ones(9))
    task = _Task(prior, rng.normal(size=9), cosines, np.ones(4), target, rng.normal(size=9), weight, np.zeros(4, bool))
    at = rng.normal(size=(3, 4))
    loss, gradient = task.loss(*at)
    scores = np.column_stack([at[0] * prior + at[1] * cosines + at[2], task.others])
    truth = np.where(target < 0, task.truth, scores[np.arange(9), target])
    assert loss == pytest.approx(weight @ (np.log(np.exp(scores).sum(axis=1)) - truth), abs=1e-12)
    for place in np.ndindex(3, 4):
        step = np.zeros((3, 4))
        step[place] = 1e-6
        slope = (task.loss(*(at + step))[0] - task.loss(*(at - step))[0]) / 2e-6
        assert gradient[place] == pytest.approx(slope, abs=1e-8)
