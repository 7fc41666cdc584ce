"""DAP's classifiers against scikit-learn, its class scores against the sum written out, and cases known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from unseen.methods import ClassSpace, create_method
from unseen.methods.dap import LogisticRegressions

SEEN = np.array([False, True, True, False, True, True, False, True])


def problem(n=60, c=6, k=5, seed=0):
    """Seen classes are not the first ones; attribute 1 is the same for all of them, but not for the unseen ones."""
    rng = np.random.default_rng(seed)
    values = rng.random((8, k)) * 100
    values[SEEN, 1] = 30.1
    labels = np.concatenate([np.flatnonzero(SEEN), rng.choice(np.flatnonzero(SEEN), n - 5)])
    return rng.standard_normal((n, 3, c)) + 0.5, labels, values


def fitted(regions, labels, values, dtype=torch.float64, seen=SEEN):
    classes = ClassSpace(torch.from_numpy(values).to(dtype), torch.from_numpy(seen))
    method = create_method("dap", channels=regions.shape[-1], vectors=torch.zeros(values.shape[1], 1, dtype=dtype))
    method.fit(method.prepare(torch.from_numpy(regions).to(dtype)), torch.from_numpy(labels), classes)
    return method, classes


def pooled(regions):
    x = regions.mean(axis=1)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def binary(values):
    """At the mean over the seen classes."""
    return (values > values[SEEN].mean(axis=0)).astype(float)


@pytest.mark.parametrize("shape", [{}, {"n": 12, "c": 20}, {"k": 12}], ids=["tall", "n < C", "many attributes"])
def test_classifiers_equal_scikit_learn(shape):
    regions, labels, values = problem(**shape)
    method, _ = fitted(regions, labels, values)
    x, y = pooled(regions), binary(values)[labels]
    new = pooled(np.random.default_rng(9).standard_normal((7, *regions.shape[1:])))
    for candidate in method.grid():
        method.use(candidate)
        strength = 1 / (candidate["lambda"] * len(x))
        logits = method.forward(torch.from_numpy(new[:, None]))["linear"].attribute_scores.numpy()
        for k in set(range(values.shape[1])) - {1}:
            model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x, y[:, k])
            scale = max(1, abs(model.coef_).max())
            np.testing.assert_allclose(method.weight[k].numpy(), model.coef_[0], atol=1e-4 * scale)
            np.testing.assert_allclose(method.intercept[k].item(), model.intercept_[0], atol=1e-4 * scale)
            np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, k])), model.predict_proba(new)[:, 1], atol=1e-4)


def test_every_classifier_is_at_its_optimum():
    """The gradient of mean log-loss + lambda/2 ||w||^2 vanishes, on separable data and with the weakest lambda too."""
    rng = np.random.default_rng(3)
    values = rng.random((8, 9))
    labels = np.flatnonzero(SEEN)[np.arange(50) % 5]
    regions = (values[labels] + 0.01 * rng.random((50, 9)))[:, None]
    method, _ = fitted(regions, labels, values)
    x, y = pooled(regions), binary(values)[labels]
    for candidate in method.grid():
        method.use(candidate)
        w, b = method.weight.numpy(), method.intercept.numpy()
        error = 1 / (1 + np.exp(-(x @ w.T + b))) - y
        assert abs(error.T @ x / len(x) + candidate["lambda"] * w).max() < 1e-10
        assert abs(error.mean(axis=0)).max() < 1e-10
    assert (np.sign(x @ w.T + b) == 2 * y - 1).all()


@pytest.mark.parametrize("seed", [6, 16, 49])
def test_outliers_do_not_throw_it_off(seed):
    """Features with heavy tails, on which Newton's full steps diverge."""
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(6, 30, (1,), generator=generator))
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64) ** 5
    y = (torch.rand(n, 30, generator=generator) < 0.25).double()
    y[0], y[1] = 1, 0
    weight, intercept = LogisticRegressions(x, y)(1e-6)
    error = (x @ weight.T + intercept).sigmoid() - y
    assert (error.T @ x / n + 1e-6 * weight).abs().max() < 1e-9
    assert error.mean(dim=0).abs().max() < 1e-9


@pytest.mark.parametrize("candidate", [{"features": "unit", "lambda": 1e-1}, {"features": "unit", "lambda": 1e-5}])
def test_class_scores_are_the_sum_over_attributes(candidate):
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values)
    method.use(candidate)
    branches = method(method.prepare(torch.from_numpy(regions)))
    found = method.class_scores(branches, classes).numpy()
    x, z = pooled(regions), binary(values)
    for i in range(len(x)):
        absent = 0.0  # log p of a class without any attribute
        literal = [0.0] * 8
        for k in (0, 2, 3, 4):
            p = 1 / (1 + math.exp(-float(method.weight[k].numpy() @ x[i]) - method.intercept[k].item()))
            prior = z[SEEN, k].mean()
            absent += math.log(1 - p)
            for c in range(8):
                literal[c] += math.log(p if z[c, k] else 1 - p) - math.log(prior if z[c, k] else 1 - prior)
        # attribute 1, classifier and prior at 1/2: its terms cancel, but for the constant
        np.testing.assert_allclose(found[i] - found[i, 0], np.array(literal) - literal[0], atol=1e-10)
        np.testing.assert_allclose(found[i] - math.log(2), np.array(literal) - absent, atol=1e-10)


def test_a_case_by_hand():
    """All images alike: the classifiers can only learn how many of them have the attribute."""
    values = np.array([[9.0, 0.0], [2.0, 0.0], [1.0, 6.0]])
    labels = np.array([0] * 6 + [1] * 1 + [2] * 1)
    method, classes = fitted(np.ones((8, 2, 3)), labels, values, seen=np.ones(3, bool))
    np.testing.assert_array_equal(method.class_vectors(classes), [[1, 0], [0, 0], [0, 1]])
    np.testing.assert_allclose(method.threshold, [4, 2])
    np.testing.assert_allclose(method.prior, [1 / 3, 1 / 3])
    for candidate in method.grid():
        method.use(candidate)
        branches = method(method.prepare(torch.ones(1, 2, 3, dtype=torch.float64)))
        psi = branches["linear"].attribute_scores[0]
        np.testing.assert_allclose(psi, [math.log(6 / 2), math.log(1 / 7)], atol=1e-9)
        expected = [math.log(3 / (2 / 9)), math.log(1 / (4 / 9)), math.log((1 / 7) / (2 / 9))]
        np.testing.assert_allclose(method.class_scores(branches, classes)[0], expected, atol=1e-9)


def test_an_attribute_without_variation_says_nothing():
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values)
    kept = [0, 2, 3, 4]
    without, fewer = fitted(regions, labels, values[:, kept])
    for m in (method, without):
        m.use({"features": "unit", "lambda": 1e-3})
    assert not method.weight[1].any()
    assert method.intercept[1] == 0
    full = method.class_scores(method(method.prepare(torch.from_numpy(regions))), classes)
    part = without.class_scores(without(without.prepare(torch.from_numpy(regions))), fewer)
    torch.testing.assert_close(full - math.log(2), part)  # -log 1/2, whichever value a class has
    assert len(set(values[:, 1])) > 1


def test_added_classes_are_read_with_the_training_thresholds():
    """Neither unseen nor added classes move thresholds or priors."""
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values)
    moved = values.copy()
    moved[~SEEN] += 1000
    other, _ = fitted(regions, labels, moved)
    for m in (method, other):
        m.use({"features": "unit", "lambda": 1e-2})
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), other.state_dict().values(), strict=True)
    )
    extra = torch.full((1, 5), 1e4, dtype=torch.float64)
    more = ClassSpace(torch.cat([classes.vectors, extra]), torch.tensor([*SEEN, False]))
    assert method.class_vectors(more)[-1].all()
    branches = method(method.prepare(torch.from_numpy(regions)))
    torch.testing.assert_close(method.class_scores(branches, more)[:, :-1], method.class_scores(branches, classes))


def test_seen_classes_without_images_do_not_count():
    regions, labels, values = problem()
    left_out = SEEN.copy()
    left_out[7] = False
    there = labels != 7
    counted, _ = fitted(regions[there], labels[there], values)
    expected, _ = fitted(regions[there], labels[there], values, seen=left_out)
    for m in (counted, expected):
        m.use({"features": "unit", "lambda": 1e-2})
    torch.testing.assert_close(dict(counted.state_dict()), dict(expected.state_dict()))


def test_candidates_can_be_used_in_any_order_and_precision_is_that_of_float64():
    regions, labels, values = problem()
    method, _ = fitted(regions, labels, values)
    other, _ = fitted(regions, labels, values)
    states = {}
    for candidate in method.grid():
        method.use(candidate)
        states[candidate["lambda"]] = method.weight.clone()
    for candidate in reversed(other.grid()):
        other.use(candidate)
        assert torch.equal(other.weight, states[candidate["lambda"]])
    single, _ = fitted(regions.astype(np.float32), labels, values, torch.float32)
    single.use({"features": "unit", "lambda": 1e-6})
    assert single.weight.dtype == torch.float32
    # the features are rounded, the solution is not
    assert (single.weight.double() - states[1e-6]).norm() < 1e-4 * states[1e-6].norm()
    kept = {k for k, v in method.state_dict().items() if v.numel() > 1}
    assert kept == {"weight", "intercept", "threshold", "prior"}


def test_contributions_sum_to_the_scores():
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values)
    method.use({"features": "unit", "lambda": 1e-4})
    raw = torch.from_numpy(regions)
    maps, branches = method.maps(raw), method(method.prepare(raw))
    assert maps["linear"].attention is None
    assert maps["linear"].contributions.shape == (60, 5, 3)
    torch.testing.assert_close(maps["linear"].contributions.sum(2), branches["linear"].attribute_scores)
    torch.testing.assert_close(method.fused_contributions(maps).sum(2), method.fused_attribute_scores(branches))
    offset = (
        method.class_scores(branches, classes)
        - method.fused_attribute_scores(branches) @ method.class_vectors(classes).T
    )
    torch.testing.assert_close(offset, offset[:1].expand(60, 8))  # the classes' prior: the same for every image
