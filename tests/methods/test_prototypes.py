"""The closed-form start and class scores of `head=prototypes`, against NumPy and loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.planted import Planted
from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.msdn import RECOMMENDED, MSDNSettings
from unseen.methods.prototypes import RIDGES, choose_ridge, class_means, ridge

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class Case:
    """A started method on planted regions, and the same quantities by NumPy."""

    def __init__(self, **settings):
        self.data = data = Planted(n=60, regions=4, channels=8, attributes=6, classes=7, unseen=2, dtype=torch.float64)
        self.method = create_method(
            "msdn", channels=8, vectors=data.vectors, settings=replace(RECOMMENDED, **settings), seed=1
        )
        self.labels = torch.as_tensor(data.labels)
        halves = [(data.tensor[part], self.labels[part]) for part in (slice(40), slice(40, None))]
        self.method.start(iter(halves), data.classes)
        self.x = data.tensor.mean(dim=1).numpy()
        self.mu, self.sigma = self.x.mean(0), self.x.std(0)
        self.g = (self.x - self.mu) / self.sigma
        self.rho = np.linalg.norm(self.g, axis=1).mean()
        z = unit(data.table)
        self.t = unit(z - z[:5].mean(0))
        self.means = np.stack([unit(self.g)[data.labels == c].mean(0) for c in range(5)])

    def rows(self, penalty):
        t = self.t[:5]
        return np.linalg.solve(t.T @ t + penalty * np.eye(6), t.T @ self.means)


def test_ridge_and_class_means():
    rng = np.random.default_rng(0)
    s, m = rng.standard_normal((4, 6)), rng.standard_normal((4, 3))
    primal = np.linalg.solve(s.T @ s + 0.3 * np.eye(6), s.T @ m)
    dual = torch.from_numpy(s).T @ ridge(torch.from_numpy(s), torch.from_numpy(m), 0.3)
    np.testing.assert_allclose(dual, primal, **TIGHT)
    means = class_means(torch.tensor([[1.0, 2], [3, 4], [10, 20]]), torch.tensor([1, 1, 0]), 2)
    assert means.tolist() == [[10, 20], [2, 3]]


def test_start_is_the_ridge_regression_of_mean_features():
    case = Case()
    head = case.method.prototypes
    np.testing.assert_allclose(head.mean, case.mu, **TIGHT)
    np.testing.assert_allclose(head.scale, case.sigma * case.rho, **TIGHT)
    np.testing.assert_allclose(head.centred(case.data.classes), case.t, **TIGHT)
    fits = [np.allclose(head.rows.detach(), case.rows(penalty), atol=1e-9) for penalty in RIDGES]
    assert sum(fits) == 1


def test_both_subnets_start_as_cosines_with_the_prototypes():
    case = Case()
    rows = case.method.prototypes.rows.detach().numpy()
    prototypes = case.t @ rows
    expected = 20 * (case.g / case.rho) @ unit(prototypes).T
    branches = case.method.eval()(case.data.tensor)
    for fusion in ((1.0, 0.0), (0.0, 1.0), (0.9, 0.1)):
        case.method.settings = replace(case.method.settings, fusion=fusion)
        branches = case.method(case.data.tensor)
        scores = case.method.class_scores(branches, case.data.classes)
        np.testing.assert_allclose(scores.detach(), expected, rtol=1e-7, atol=1e-9)


def test_scores_from_the_equations_once_attention_is_not_uniform():
    case = Case(subnets="a2v")
    rng = np.random.default_rng(3)
    method, head, f = case.method.eval(), case.method.prototypes, case.data.tensor.numpy()
    w2 = rng.standard_normal((8, 8))
    method.a2v_attention.data.copy_(torch.from_numpy(w2))
    rows, scale = head.rows.detach().numpy(), case.sigma * case.rho
    a = unit(case.data.vectors.numpy())
    psi = np.zeros((60, 6))
    for n in range(60):
        g = (f[n] - case.mu) / scale
        for k in range(6):
            logits = np.array([a[k] @ w2 @ (region / scale) for region in f[n]])
            attention = np.exp(logits) / np.exp(logits).sum()
            psi[n, k] = sum(attention[r] * (rows[k] @ g[r]) for r in range(4))
    length = np.linalg.norm(case.t[:5] @ rows, axis=1).mean()
    psi *= 20 / length
    branches = method(case.data.tensor)
    np.testing.assert_allclose(branches["a2v"].attribute_scores.detach(), psi, rtol=1e-7, atol=1e-9)
    prototypes = case.t @ rows
    expected = psi @ (case.t * length / np.linalg.norm(prototypes, axis=1, keepdims=True)).T
    np.testing.assert_allclose(
        method.class_scores(branches, case.data.classes).detach(), expected, rtol=1e-7, atol=1e-8
    )
    maps = method.maps(case.data.tensor)["a2v"]
    np.testing.assert_allclose(maps.contributions.sum(dim=2).detach(), psi, rtol=1e-7, atol=1e-9)


def test_the_penalty_is_that_of_leaving_classes_out():
    case = Case()
    labels, features = case.data.labels, unit(case.g)
    accuracy = []
    for penalty in RIDGES:
        total = 0.0
        for draw in range(3):
            order = torch.randperm(5, generator=torch.Generator().manual_seed(draw)).tolist()
            for fold in range(3):
                held, kept = sorted(order[fold::3]), sorted(set(range(5)) - set(order[fold::3]))
                t = case.t[kept]
                rows = np.linalg.solve(t.T @ t + penalty * np.eye(6), t.T @ case.means[kept])
                named = {
                    c: [
                        held[int(np.argmax([features[n] @ unit(case.t[h] @ rows) for h in held]))] == c
                        for n in range(60)
                        if labels[n] == c
                    ]
                    for c in held
                }
                total += np.mean([np.mean(right) for right in named.values()])
        accuracy.append(total)
    best = max(i for i, value in enumerate(accuracy) if value > max(accuracy) - 1e-9)
    arguments = [torch.from_numpy(v) for v in (case.t[:5], case.means, features)]
    assert choose_ridge(*arguments, torch.from_numpy(labels)) == RIDGES[best]


def test_a_class_more_changes_no_other_class():
    case = Case()
    before = case.method.class_vectors(case.data.classes)
    more = torch.cat([case.data.classes.vectors, torch.rand(1, 6, dtype=torch.float64)])
    seen = torch.cat([case.data.classes.seen, torch.tensor([False])])
    after = case.method.class_vectors(ClassSpace(more, seen))
    np.testing.assert_allclose(after[:-1].detach(), before.detach(), **TIGHT)


def test_unseen_classes_do_not_enter_the_cross_entropy_and_gradients_reach_everything():
    case = Case(attribute_dropout=0.0, lambda_dis=0.0)
    method = case.method.train()
    other = case.data.classes.vectors.clone()
    other[5:] = torch.rand(2, 6, dtype=torch.float64)
    spaces = (case.data.classes, ClassSpace(other, case.data.classes.seen))
    losses = [method.loss(method(case.data.tensor), case.labels, classes)["total"] for classes in spaces]
    assert losses[0].item() == losses[1].item()
    losses[0].backward()
    assert {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} >= {
        "prototypes.rows",
        "a2v_attention",
        "v2a_attention",
    }


def test_attributes_are_left_out_in_training_alone():
    case = Case(attribute_dropout=0.5)
    method, classes = case.method.train(), case.data.classes
    torch.manual_seed(0)
    kept = (torch.rand(6, dtype=torch.float64) >= 0.5).double() / 0.5
    torch.manual_seed(0)
    trained = method._trained_vectors(classes)
    masked = torch.from_numpy(case.t) * kept
    head = method.prototypes
    expected = head.length * masked / (masked @ head.rows).norm(dim=1, keepdim=True)
    torch.testing.assert_close(trained, expected)
    torch.testing.assert_close(method.eval()._trained_vectors(classes), method.class_vectors(classes))


def test_negative_values_are_cut_off_where_asked():
    case = Case(clip_negative=True)
    table = case.data.table.copy()
    table[5, 0] = -1
    found = case.method.class_vectors(ClassSpace(torch.from_numpy(table), case.data.classes.seen))
    table[5, 0] = 0
    expected = case.method.class_vectors(ClassSpace(torch.from_numpy(table), case.data.classes.seen))
    assert torch.equal(found, expected)


def test_a_channel_that_never_varies_does_no_harm():
    case = Case()
    regions = case.data.tensor.clone()
    regions[..., 3] = 0.5
    case.method.start([(regions, case.labels)], case.data.classes)
    assert case.method.class_scores(case.method(regions), case.data.classes).isfinite().all()


@pytest.mark.parametrize("settings", [{"head": "ridge"}, {"tau": 0.0}, {"attribute_dropout": 1.0}])
def test_wrong_settings(settings):
    with pytest.raises(UnseenError):
        MSDNSettings(**settings)
