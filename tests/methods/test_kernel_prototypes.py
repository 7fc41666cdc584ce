"""Prototypes against scikit-learn's kernel ridge, written-out formulas, and the sweep against single solutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import pairwise_kernels

from unseen.methods import ClassSpace, create_method

SEEN = np.array([False, True, True, False, True, True, True])
BASE = {"features": "standardised", "rows": "centred", "share": 0.0}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def problem(n=60, r=3, c=8, k=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.flatnonzero(SEEN), n)
    return rng.standard_normal((n, r, c)) + 0.3 + labels[:, None, None] * 0.1, labels, rng.random((7, k)) + 0.1


def fitted(regions, labels, values, dtype=torch.float64, **settings):
    classes = ClassSpace(torch.from_numpy(values).to(dtype), torch.from_numpy(SEEN))
    vectors = torch.zeros(values.shape[1], 2, dtype=dtype)
    method = create_method("prototypes", channels=regions.shape[-1], vectors=vectors, **settings)
    method.fit(method.prepare(torch.from_numpy(regions).to(dtype)), torch.from_numpy(labels), classes)
    return method, classes


def prepared(regions, labels, values):
    x = unit(regions.mean(1))
    g = unit((x - x.mean(0)) / x.std(0))
    z = unit(values)
    return g, unit(z - z[np.unique(labels)].mean(0))


def scores_of(method, classes, regions):
    return method.class_scores(method(method.prepare(torch.from_numpy(regions))), classes).numpy()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_prototypes_are_scikit_learns_kernel_ridge(kernel):
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values, kernel=kernel)
    g, t = prepared(regions, labels, values)
    seen = np.unique(labels)
    means = np.stack([g[labels == c].mean(0) for c in seen])
    apart = [((a - b) ** 2).sum() for i, a in enumerate(t[seen]) for j, b in enumerate(t[seen]) if i != j]
    options = (
        {"kernel": "linear"}
        if kernel == "linear"
        else {"kernel": "rbf", "gamma": 1 / (2.0 * torch.tensor(apart).median().item())}
    )
    gram = pairwise_kernels(
        t[seen], metric=options["kernel"], **({"gamma": options["gamma"]} if "gamma" in options else {})
    )
    middle = np.eye(len(gram)) - 1 / len(gram)
    level = np.trace(middle @ gram @ middle) / len(gram)  # mean eigenvalue of the centred kernel
    theirs = KernelRidge(alpha=0.3 * level, **options).fit(t[seen], means).predict(t)
    method.use(BASE | {"kernel": kernel, "ridge": 0.3} | ({"width": 2.0} if kernel == "rbf" else {}))
    np.testing.assert_allclose(scores_of(method, classes, regions), g @ unit(theirs).T, atol=1e-10)
    assert method.by_attributes == (kernel == "linear")


def test_eszsl_shares_in_them():
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values)
    g, t = prepared(regions, labels, values)
    seen = np.unique(labels)
    means, s = np.stack([g[labels == c].mean(0) for c in seen]), t[seen]
    gram, level = s @ s.T, ((s - s.mean(0)) ** 2).sum() / len(s)
    q = t @ s.T @ np.linalg.solve(gram + 0.1 * level * np.eye(len(s)), means)
    y = np.where(seen == labels[:, None], 1.0, -1.0)
    gamma = 10.0 * ((g - g.mean(0)) ** 2).sum() / g.shape[1]
    left = np.linalg.solve(g.T @ g + gamma * np.eye(g.shape[1]), g.T @ y @ s)
    v = left @ np.linalg.inv(s.T @ s + 1.0 * level * np.eye(s.shape[1]))
    e = t @ v.T

    def rms(p):
        return np.sqrt((p[seen] ** 2).sum(1).mean())

    p = 0.75 * q / rms(q) + 0.25 * e / rms(e)
    method.use(BASE | {"kernel": "linear", "ridge": 0.1, "share": 0.25, "gamma": 10.0, "lambda": 1.0})
    np.testing.assert_allclose(scores_of(method, classes, regions), g @ unit(p).T, atol=1e-9)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_own_images_share_in_the_prototypes_of_seen_classes(kernel):
    """A quarter of the regression is left, the rest is the class's mean feature; others are as without."""
    regions, labels, values = problem()
    candidate = BASE | {"kernel": kernel, "ridge": 0.1} | ({"width": 2.0} if kernel == "rbf" else {})
    method, classes = fitted(regions, labels, values, kernel=kernel)
    method.use(candidate)
    t = method.rows(classes.unit)
    q = (method.kernel(t) if kernel == "rbf" else t @ method.weight).numpy()  # of root mean square length 1
    plain = scores_of(method, classes, regions)
    g, _ = prepared(regions, labels, values)
    seen = np.flatnonzero(SEEN)
    means = np.stack([g[labels == c].mean(0) for c in seen])
    p = q.copy()
    p[seen] = 0.25 * q[seen] + 0.75 * means / np.sqrt((means**2).sum(1).mean())
    method.use(candidate | {"own": 0.75})
    mixed = scores_of(method, classes, regions)
    np.testing.assert_allclose(mixed, g @ unit(p).T, atol=1e-10)
    np.testing.assert_allclose(mixed[:, ~SEEN], plain[:, ~SEEN], atol=1e-12)
    moved = ClassSpace(classes.vectors[[4, 0]], torch.tensor([True, False]), None, torch.tensor([2, -1]))
    found = method.class_scores(method(method.prepare(torch.from_numpy(regions))), moved).numpy()
    np.testing.assert_allclose(found, mixed[:, [4, 0]], atol=1e-12)  # whichever place a class has in a table


@pytest.mark.parametrize(
    "settings", [{"kernel": "auto", "features": "whitened"}, {"kernel": "linear", "eszsl": False, "own": False}]
)
def test_the_sweep_says_what_single_solutions_say(settings):
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values, **settings)
    held_out = method.prepare(torch.from_numpy(problem(seed=5)[0]))
    swept = list(method.sweep(held_out, classes))
    assert [candidate for candidate, _ in swept] == method.grid()
    for candidate, scores in swept[:: max(1, len(swept) // 60)]:
        method.use(candidate)
        torch.testing.assert_close(method.class_scores(method(held_out), classes), scores, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("own", [0.0, 0.5])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_evidence_adds_up_and_weights_are_loaded(kernel, own):
    regions, labels, values = problem()
    method, classes = fitted(regions, labels, values, kernel=kernel)
    method.use(next(c for c in method.grid() if c["features"] == "whitened" and c["share"] and c["own"] == own))
    raw = torch.from_numpy(regions)
    maps, branches = method.maps(raw), method(method.prepare(raw))
    torch.testing.assert_close(maps["linear"].attribute_scores, branches["linear"].attribute_scores)
    if kernel == "linear":
        evidence = branches["linear"].attribute_scores[:, None] * method.class_vectors(classes)
        images = method.query(branches)[:, 5:] @ method.class_embeddings(classes)[:, 5:].T
        assert images.shape[1] == 7
        assert (images != 0).any() == (own > 0)
        assert (method.own_query is not None) == (own > 0)
        assert not images[:, ~SEEN].any()
        torch.testing.assert_close(evidence.sum(2) + images, method.class_scores(branches, classes))
    other = create_method("prototypes", channels=8, vectors=torch.zeros(5, 2, dtype=torch.float64), kernel=kernel)
    other.load_state_dict(method.state_dict())
    np.testing.assert_array_equal(scores_of(method, classes, regions), scores_of(other, classes, regions))


def test_unseen_classes_are_recognised_where_features_are_attributes():
    rng = np.random.default_rng(1)
    values = rng.random((7, 5))
    labels = rng.choice(np.flatnonzero(SEEN), 200)
    mix = np.linalg.qr(rng.standard_normal((8, 5)))[0]
    features = unit(values) @ mix.T
    noisy = (features[labels] + 0.01 * rng.standard_normal((200, 8)))[:, None]
    method, classes = fitted(noisy, labels, values)
    method.use({"features": "centred", "rows": "centred", "kernel": "linear", "ridge": 0.01, "share": 0.0})
    scores = scores_of(method, classes, features[~SEEN][:, None])
    assert (scores[:, ~SEEN].argmax(1) == np.arange(2)).all()
