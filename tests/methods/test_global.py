"""The global-feature baseline against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unseen.methods import ClassSpace, create_method
from unseen.methods.global_linear import GlobalSettings
from unseen.methods.pooled import pool

SEEN = np.array([True, False, True, False])


def case(**settings):
    rng = np.random.default_rng(0)
    method = create_method(
        "global", channels=6, vectors=torch.zeros(3, 2, dtype=torch.float64), settings=GlobalSettings(**settings)
    )
    with torch.no_grad():
        method.weight.copy_(torch.from_numpy(rng.standard_normal((3, 6))))
    values = rng.standard_normal((4, 3)) * 5
    classes = ClassSpace(torch.from_numpy(values), torch.from_numpy(SEEN))
    return method, torch.from_numpy(rng.standard_normal((5, 7, 6))), torch.tensor([0, 2, 2, 0, 2]), classes


def test_pooling_by_hand():
    regions = torch.tensor([[[1.0, 0.0], [5.0, 8.0]]])  # mean (3, 4)
    torch.testing.assert_close(pool(regions), torch.tensor([[[0.6, 0.8]]]))
    assert not pool(torch.zeros(1, 2, 2)).any()


@pytest.mark.parametrize("settings", [{}, {"lambda_cal": 0.7, "margin": 2.0}, {"lambda_cal": 0.0}])
def test_scores_and_losses_equal_the_formula(settings):
    method, regions, labels, classes = case(**settings)
    x = regions.numpy().mean(axis=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = classes.vectors.numpy() / np.linalg.norm(classes.vectors.numpy(), axis=1, keepdims=True)
    plain = x @ method.weight.detach().numpy().T @ z.T
    margin = settings.get("margin", 1.0) * np.where(SEEN, -1, 1)
    branches = method(method.prepare(regions))
    np.testing.assert_allclose(method.class_scores(branches, classes).detach(), plain + margin, rtol=1e-12)

    def softmax(scores):
        powers = np.exp(scores)
        return powers / powers.sum(axis=1, keepdims=True)

    terms = {name: term.item() for name, term in method.loss(branches, labels, classes).items()}
    cross = -np.log(softmax(plain)[np.arange(5), labels]).mean()
    calibration = -np.log(softmax(plain + margin)[:, ~SEEN].sum(axis=1).mean())
    weight = settings.get("lambda_cal", 0.1)
    expected = {"total": cross + weight * calibration, "cross_entropy": cross}
    if weight:
        expected["self_calibration"] = calibration
    assert terms == pytest.approx(expected, rel=1e-12)


def test_contributions_sum_to_the_scores():
    method, regions, _, _ = case()
    branches, maps = method(method.prepare(regions)), method.maps(regions)
    assert maps["linear"].contributions.shape == (5, 3, 7)
    torch.testing.assert_close(maps["linear"].contributions.sum(2), branches["linear"].attribute_scores)
    torch.testing.assert_close(method.fused_contributions(maps).sum(2), method.fused_attribute_scores(branches))


def test_it_starts_at_zero_and_learns_from_the_first_step():
    method = create_method("global", channels=6, vectors=torch.zeros(3, 2, dtype=torch.float64))
    assert not method.weight.any()
    _, regions, labels, classes = case()
    method.loss(method(method.prepare(regions)), labels, classes)["total"].backward()
    assert method.weight.grad.all()
