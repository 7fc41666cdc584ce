"""ESZSL against a direct solution of its closed form, and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unseen.methods import ClassSpace, create_method
from unseen.methods.eszsl import ESZSL

UNIT = {"features": "unit", "rows": "unit"}


def fitted(regions, labels, values, seen, dtype=torch.float64, preset="paper"):
    values = torch.from_numpy(values).to(dtype)
    method = create_method(
        "eszsl",
        channels=regions.shape[-1],
        vectors=torch.zeros(values.shape[1], 3, dtype=dtype),
        settings=ESZSL.presets[preset].settings,
    )
    classes = ClassSpace(values, torch.from_numpy(seen))
    method.fit(method.prepare(torch.from_numpy(regions).to(dtype)), torch.from_numpy(labels), classes)
    return method, classes


def problem(n=40, r=4, c=7, k=5, seed=0):
    """Seen classes are not the first ones."""
    rng = np.random.default_rng(seed)
    seen = np.array([False, True, True, False, True, False, True])
    labels = rng.choice(np.flatnonzero(seen), n)
    return rng.standard_normal((n, r, c)) + 0.5, labels, rng.standard_normal((7, k)) * 10, seen


@pytest.mark.parametrize("shape", [{}, {"n": 5, "c": 12}, {"k": 2}, {"k": 9}], ids=["tall", "n < C", "k < N", "k > N"])
def test_every_grid_point_equals_a_direct_solution(shape):
    regions, labels, values, seen = problem(**shape)
    method, classes = fitted(regions, labels, values, seen)
    x = regions.mean(axis=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    s = values[seen] / np.linalg.norm(values[seen], axis=1, keepdims=True)
    y = np.where(np.flatnonzero(seen) == labels[:, None], 1.0, -1.0)
    grid = method.grid()
    assert sorted((g["gamma"], g["lambda"]) for g in grid) == sorted(
        (10.0**a, 10.0**b) for a in range(-3, 4) for b in range(-3, 4)
    )
    test = np.random.default_rng(9).standard_normal((6, *regions.shape[1:]))
    pooled = test.mean(axis=1) / np.linalg.norm(test.mean(axis=1), axis=1, keepdims=True)
    for candidate in grid:
        method.use(candidate)
        left = x.T @ x + candidate["gamma"] * np.eye(x.shape[1])
        right = s.T @ s + candidate["lambda"] * np.eye(s.shape[1])
        v = np.linalg.solve(right.T, np.linalg.solve(left, x.T @ y @ s).T).T
        np.testing.assert_allclose(method.weight.numpy().T, v, rtol=1e-8, atol=1e-10 * abs(v).max())
        scores = method.class_scores(method(method.prepare(torch.from_numpy(test))), classes)
        z = values / np.linalg.norm(values, axis=1, keepdims=True)
        np.testing.assert_allclose(scores.numpy(), pooled @ v @ z.T, rtol=1e-8, atol=1e-10)


def test_a_case_by_hand():
    """X = S = I: V = Y / ((1 + gamma) (1 + lambda)) with Y = 2I - 1."""
    method, _ = fitted(np.eye(3)[:, None] * 5.0, np.arange(3), np.eye(3) * 2, np.ones(3, bool))
    method.use({**UNIT, "gamma": 1.0, "lambda": 3.0})
    np.testing.assert_allclose(method.weight.numpy(), (2 * np.eye(3) - 1) / 8, atol=1e-14)


def test_unseen_classes_are_recognised_where_features_are_attributes():
    rng = np.random.default_rng(1)
    values = rng.random((30, 12))
    seen = np.arange(30) % 3 > 0
    labels = rng.choice(np.flatnonzero(seen), 400)
    mix = np.linalg.qr(rng.standard_normal((16, 12)))[0]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    method, classes = fitted((unit @ mix.T)[labels][:, None], labels, values, seen)
    method.use({**UNIT, "gamma": 1e-3, "lambda": 1e-3})
    features = torch.from_numpy((unit @ mix.T)[~seen][:, None])
    scores = method.class_scores(method(method.prepare(features)), classes)
    assert (scores[:, ~seen].argmax(dim=1).numpy() == np.arange(10)).all()


def test_it_is_solved_in_float64_whatever_the_features():
    """Float32 normal equations would be off by far more than the rounding of features and answer."""
    regions, labels, values, seen = problem(n=200, c=30)
    regions = regions + np.linspace(0, 30, 30)  # badly conditioned
    regions = regions.astype(np.float32).astype(np.float64)
    exact, _ = fitted(regions, labels, values, seen)
    single, _ = fitted(regions, labels, values, seen, torch.float32)
    for method in (exact, single):
        method.use({**UNIT, "gamma": 1e-3, "lambda": 1e-3})
    assert single.weight.dtype == torch.float32
    error = (single.weight.double() - exact.weight).norm() / exact.weight.norm()
    assert error < 1e-3


def test_candidates_can_be_used_in_any_order():
    method, _ = fitted(*problem())
    first, last = method.grid()[0], method.grid()[-1]
    method.use(first)
    weight = method.weight.clone()
    method.use(last)
    assert not torch.equal(method.weight, weight)
    method.use(first)
    assert torch.equal(method.weight, weight)
    assert {k for k, v in method.state_dict().items() if v.numel() > 1} == {"weight"}
    assert not list(method.parameters())


def test_contributions_sum_to_the_scores():
    regions, *rest = problem()
    method, _ = fitted(regions, *rest)
    method.use({**UNIT, "gamma": 1.0, "lambda": 1.0})
    raw = torch.from_numpy(regions)
    maps, branches = method.maps(raw), method(method.prepare(raw))
    assert maps["linear"].attention is None
    assert maps["linear"].contributions.shape == (40, 5, 4)
    expected = branches["linear"].attribute_scores
    torch.testing.assert_close(maps["linear"].contributions.sum(2), expected)
    torch.testing.assert_close(method.fused_contributions(maps).sum(2), method.fused_attribute_scores(branches))


def test_own_answers_share_in_the_scores_of_seen_classes():
    """Half of the weights over one-vs-rest answers, at mean length 1, moves to the class's own answer."""
    regions, labels, values, seen = problem()
    method, classes = fitted(regions, labels, values, seen, preset="recommended")
    x = regions.mean(1) / np.linalg.norm(regions.mean(1), axis=1, keepdims=True)
    g = x - x.mean(0)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    z = values / np.linalg.norm(values, axis=1, keepdims=True)
    s = z[seen]
    y = np.where(np.flatnonzero(seen) == labels[:, None], 1.0, -1.0)
    gamma = 3.0 * ((g - g.mean(0)) ** 2).sum() / g.shape[1]
    answers = g @ np.linalg.solve(g.T @ g + gamma * np.eye(g.shape[1]), g.T @ y)
    strength = 0.3 * ((s - s.mean(0)) ** 2).sum() / len(s)
    w = z @ s.T @ np.linalg.inv(s @ s.T + strength * np.eye(len(s)))
    w /= np.linalg.norm(w[seen], axis=1).mean()
    w[seen] = 0.5 * w[seen] + 0.5 * np.eye(len(s))
    method.use({"features": "centred", "rows": "unit", "gamma": 3.0, "lambda": 0.3, "own": 0.5})
    branches = method(method.prepare(torch.from_numpy(regions)))
    np.testing.assert_allclose(method.class_scores(branches, classes).numpy(), answers @ w.T, atol=1e-10)
    other = create_method("eszsl", channels=7, vectors=torch.zeros(5, 3, dtype=torch.float64))
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.class_scores(branches, classes), method.class_scores(branches, classes))


def test_the_recommended_sweep_says_what_single_solutions_say():
    method, classes = fitted(*problem(), preset="recommended")
    held_out = method.prepare(torch.from_numpy(problem(seed=5)[0]))
    swept = list(method.sweep(held_out, classes))
    assert [candidate for candidate, _ in swept] == method.grid()
    assert {candidate["own"] for candidate, _ in swept} == {0.0, 0.5}
    for candidate, scores in swept[::29]:
        method.use(candidate)
        torch.testing.assert_close(method.class_scores(method(held_out), classes), scores, rtol=1e-6, atol=1e-8)
