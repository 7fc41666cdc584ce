"""SAE against its objective, its Sylvester equation, SciPy, and limits whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import solve_sylvester

from unseen.methods import ClassSpace, create_method

UNIT = {"features": "unit", "rows": "unit"}
SEEN = np.array([False, True, True, False, True, False, True])


def problem(n=40, r=4, c=7, k=3, seed=0):
    """Seen classes are not the first ones."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.flatnonzero(SEEN), n)
    return rng.standard_normal((n, r, c)) + 0.5, labels, rng.standard_normal((7, k)) * 10


def fitted(regions, labels, values, dtype=torch.float64):
    classes = ClassSpace(torch.from_numpy(values).to(dtype), torch.from_numpy(SEEN[: len(values)]))
    method = create_method("sae", channels=regions.shape[-1], vectors=torch.zeros(values.shape[1], 1, dtype=dtype))
    method.fit(method.prepare(torch.from_numpy(regions).to(dtype)), torch.from_numpy(labels), classes)
    return method, classes


def matrices(regions, labels, values):
    """X ``(C, n)`` and S ``(K, n)``, columns of unit length."""
    x, s = regions.mean(axis=1), values[labels]
    return tuple((m / np.linalg.norm(m, axis=1, keepdims=True)).T for m in (x, s))


SHAPES = {"unique": {}, "n < C": {"n": 5, "c": 12}, "k > N": {"k": 9}, "both": {"n": 6, "c": 12, "k": 9}}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_candidate_solves_the_equation_and_minimises_the_objective(shape):
    case = problem(**shape)
    method, _ = fitted(*case)
    x, s = matrices(*case)
    assert [c["lambda"] for c in method.grid()] == [10.0**e for e in range(-3, 7)]
    for candidate in method.grid():
        method.use(candidate)
        balance, w = candidate["lambda"], method.weight.numpy()
        right = (1 + balance) * s @ x.T
        residual = s @ s.T @ w + w @ (balance * x @ x.T) - right
        assert np.linalg.norm(residual) < 1e-10 * np.linalg.norm(right)
        weight, features, table = method.weight.clone().requires_grad_(), torch.from_numpy(x), torch.from_numpy(s)
        decoded, encoded = features - weight.T @ table, weight @ features - table
        (decoded.square().sum() + balance * encoded.square().sum()).backward()
        assert weight.grad.norm() < 1e-10 * np.linalg.norm(right)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_scipy_where_the_solution_is_unique(seed):
    case = problem(seed=seed)
    method, _ = fitted(*case)
    x, s = matrices(*case)
    for candidate in method.grid():
        method.use(candidate)
        balance = candidate["lambda"]
        expected = solve_sylvester(s @ s.T, balance * x @ x.T, (1 + balance) * s @ x.T)
        np.testing.assert_allclose(method.weight, expected, rtol=1e-8, atol=1e-9 * abs(expected).max())


def test_where_it_is_not_unique_the_shortest_solution_is_taken():
    case = problem(n=6, c=12, k=9)
    method, _ = fitted(*case)
    x, s = matrices(*case)
    method.use({**UNIT, "lambda": 10.0})
    w = method.weight.numpy()
    # nothing outside the span of the features and of the attribute vectors
    np.testing.assert_allclose(w @ x @ np.linalg.pinv(x), w, atol=1e-10 * abs(w).max())
    np.testing.assert_allclose(s @ np.linalg.pinv(s) @ w, w, atol=1e-10 * abs(w).max())


def test_limits():
    """Much lambda: least squares of attributes on features. Little: the transpose of features on attributes."""
    case = problem()
    method, _ = fitted(*case)
    x, s = matrices(*case)
    for balance, expected in ((1e10, s @ np.linalg.pinv(x)), (1e-10, (x @ np.linalg.pinv(s)).T)):
        method.use({**UNIT, "lambda": balance})
        np.testing.assert_allclose(method.weight, expected, atol=1e-6 * abs(expected).max())


def test_a_case_by_hand():
    """X = I, S = I: W = I for every lambda. Twice the images change nothing."""
    for labels in (np.arange(3), np.arange(6) % 3):
        method, _ = fitted(np.eye(3)[labels][:, None] * 5, labels, np.eye(3) * 2)
        for candidate in method.grid():
            method.use(candidate)
            np.testing.assert_allclose(method.weight, np.eye(3), atol=1e-12)


def test_scores_are_cosines():
    case = problem()
    method, classes = fitted(*case)
    method.use({**UNIT, "lambda": 10.0})
    test = np.random.default_rng(9).standard_normal((6, 4, 7))
    found = method.class_scores(method(method.prepare(torch.from_numpy(test))), classes).numpy()
    for i, image in enumerate(test):
        code = method.weight.numpy() @ image.mean(axis=0)
        for c, z in enumerate(case[2]):
            assert found[i, c] == pytest.approx(code @ z / np.linalg.norm(code) / np.linalg.norm(z), abs=1e-12)
    assert np.ptp(found) > 0.5
    nothing = method.class_scores(method(method.prepare(torch.zeros(1, 4, 7, dtype=torch.float64))), classes)
    assert not nothing.any()


def test_unseen_classes_are_recognised_where_features_are_attributes():
    rng = np.random.default_rng(1)
    values = rng.random((7, 4))
    mix = np.linalg.qr(rng.standard_normal((9, 4)))[0]
    features = values / np.linalg.norm(values, axis=1, keepdims=True) @ mix.T
    labels = rng.choice(np.flatnonzero(SEEN), 100)
    method, classes = fitted(features[labels][:, None], labels, values)
    for candidate in method.grid():
        method.use(candidate)
        scores = method.class_scores(method(method.prepare(torch.from_numpy(features[:, None]))), classes)
        assert (scores.argmax(dim=1).numpy() == np.arange(7)).all()


def test_unseen_classes_do_not_take_part():
    regions, labels, values = problem()
    method, _ = fitted(regions, labels, values)
    other, _ = fitted(regions, labels, np.where(SEEN[:, None], values, 7.0))
    for m in (method, other):
        m.use({**UNIT, "lambda": 1.0})
    assert torch.equal(method.weight, other.weight)


def test_order_and_precision():
    regions, labels, values = problem(n=200, c=30)
    regions = (regions + np.linspace(0, 30, 30)).astype(np.float32).astype(np.float64)  # badly conditioned
    method, _ = fitted(regions, labels, values)
    single, _ = fitted(regions, labels, values, torch.float32)
    method.use({**UNIT, "lambda": 1e6})
    weight = method.weight.clone()
    method.use({**UNIT, "lambda": 1e-3})
    assert not torch.equal(method.weight, weight)
    method.use({**UNIT, "lambda": 1e6})
    assert torch.equal(method.weight, weight)
    single.use({**UNIT, "lambda": 1e6})
    assert single.weight.dtype == torch.float32
    assert (single.weight.double() - weight).norm() < 1e-2 * weight.norm()
    assert {k for k, v in method.state_dict().items() if v.numel() > 1} == {"weight"}


def test_contributions_sum_to_the_scores():
    regions, *rest = problem()
    method, _ = fitted(regions, *rest)
    method.use({**UNIT, "lambda": 1.0})
    raw = torch.from_numpy(regions) * torch.rand(40, 1, 1).double() * 10  # whatever the features' length
    maps, branches = method.maps(raw), method(method.prepare(raw))
    assert maps["linear"].attention is None
    assert maps["linear"].contributions.shape == (40, 3, 4)
    expected = branches["linear"].attribute_scores
    torch.testing.assert_close(maps["linear"].attribute_scores, expected)
    torch.testing.assert_close(maps["linear"].contributions.sum(2), expected)
    torch.testing.assert_close(method.fused_contributions(maps).sum(2), method.fused_attribute_scores(branches))
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(40, dtype=torch.float64))
