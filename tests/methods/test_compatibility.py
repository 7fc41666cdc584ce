"""ALE, DeViSE and SJE: losses against loops, and training against optima known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from unseen.errors import UnseenError
from unseen.methods import METHODS, ClassSpace, create_method
from unseen.methods.compatibility import (
    CompatibilitySettings,
    hinges,
    largest_loss,
    summed_loss,
    weighted_rank_loss,
)
from unseen.training.engine import Training, train
from unseen.training.fabric import make_fabric

NAMES = ("ale", "devise", "sje")
SEEN = np.array([False, True, True, False, True, False, True, True])


def literal(name, scores, labels, margin):
    """From the papers' formulas; scores of the seen classes."""
    total = 0.0
    for row, y in zip(scores, labels, strict=True):
        costs = []
        for c, score in enumerate(row):
            if c != y:
                costs.append(max(0.0, margin + score - row[y]))
        if name == "devise":
            total += sum(costs)
        elif name == "sje":
            total += max(costs)
        else:
            rank = sum(cost > 0 for cost in costs)
            beta = sum(1 / j for j in range(1, rank + 1))
            total += beta / rank * sum(costs) if rank else 0.0
    return total / len(labels)


def case(name, margin=1.0, seed=0):
    rng = np.random.default_rng(seed)
    method = create_method(
        name,
        channels=6,
        vectors=torch.zeros(4, 2, dtype=torch.float64),
        settings=CompatibilitySettings(margin=margin),
    )
    with torch.no_grad():
        method.weight.copy_(torch.from_numpy(rng.standard_normal((4, 6))))
    values, regions = rng.standard_normal((8, 4)) * 5, rng.standard_normal((9, 3, 6))
    return method, regions, rng.choice(np.flatnonzero(SEEN), 9), values


def loss_of(method, regions, labels, values):
    classes = ClassSpace(torch.from_numpy(values), torch.from_numpy(SEEN))
    branches = method(method.prepare(torch.from_numpy(regions)))
    return method.loss(branches, torch.from_numpy(labels), classes)["total"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("margin", [0.1, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_loops(name, margin, seed):
    method, regions, labels, values = case(name, margin, seed)
    x = regions.mean(axis=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = values / np.linalg.norm(values, axis=1, keepdims=True)
    scores = x @ method.weight.detach().numpy().T @ z[SEEN].T
    expected = literal(name, scores, [np.flatnonzero(SEEN).tolist().index(y) for y in labels], margin)
    assert expected > 0.1
    assert loss_of(method, regions, labels, values).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    method, regions, labels, values = case(name)
    classes = ClassSpace(torch.from_numpy(values), torch.from_numpy(SEEN))
    prepared, targets = method.prepare(torch.from_numpy(regions)), torch.from_numpy(labels)

    def of_weight(weight):
        branches = torch.func.functional_call(method, {"weight": weight}, (prepared,))
        return method.loss(branches, targets, classes)["total"]

    assert torch.autograd.gradcheck(of_weight, (method.weight.detach().clone().requires_grad_(),))


def test_hinges_and_losses_by_hand():
    scores = torch.tensor([[3.0, 2.5, 4.0, 0.0], [5.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = hinges(scores, torch.tensor([0, 0, 3]), 1.0)
    expected = torch.tensor([[0.0, 0.5, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    assert torch.equal(found, expected)
    ranked = (1.5 / 2 * 2.5 + 0 + (1 + 1 / 2 + 1 / 3) / 3 * 3) / 3
    assert weighted_rank_loss(found).item() == pytest.approx(ranked)
    assert summed_loss(found).item() == pytest.approx((2.5 + 0 + 3) / 3)
    assert largest_loss(found).item() == pytest.approx((2 + 0 + 1) / 3)


@pytest.mark.parametrize("loss", [weighted_rank_loss, summed_loss, largest_loss])
def test_one_violation_costs_the_same_in_all_three(loss):
    assert loss(torch.tensor([[0.0, 0.75, 0.0]])).item() == 0.75


@pytest.mark.parametrize("name", NAMES)
def test_no_loss_and_no_gradient_once_margins_are_met(name):
    """Even where they are met exactly."""
    values = np.eye(8)
    labels = np.flatnonzero(SEEN)
    method = create_method(name, channels=8, vectors=torch.zeros(8, 1, dtype=torch.float64))
    for scale, met in ((1.0, True), (7.0, True), (0.99, False)):
        with torch.no_grad():
            method.weight.copy_(torch.eye(8) * scale * method.settings.margin)
        method.weight.grad = None
        loss = loss_of(method, np.eye(8)[labels][:, None], labels, values)
        loss.backward()
        assert (loss.item() == 0) == met
        assert (not method.weight.grad.any()) == met


@pytest.mark.parametrize("name", NAMES)
def test_unseen_classes_take_no_part(name):
    method, regions, labels, values = case(name)
    results = []
    for filling in (values, np.where(SEEN[:, None], values, values[1])):
        method.weight.grad = None
        loss = loss_of(method, regions, labels, filling)
        loss.backward()
        results.append((loss.item(), method.weight.grad.clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    # images where only an unseen class is too near: nothing to learn
    table = np.vstack(
        [np.eye(4)[[0]], np.eye(4)[[0, 1]], np.eye(4)[[1]], np.eye(4)[[2]], np.eye(4)[[3]], np.eye(4)[:2]]
    )
    table[6:] = [[0, 0, 1, 1], [1, 1, 0, 0]]
    with torch.no_grad():
        method.weight.copy_(torch.eye(4, 6) * 100)
    method.weight.grad = None
    alike = np.eye(6)[[0, 1, 2]][:, None]
    loss = loss_of(method, alike, np.array([1, 2, 4]), table)
    loss.backward()
    assert loss.item() == 0
    assert not method.weight.grad.any()


@pytest.mark.parametrize("name", ["devise", "sje"])
def test_descent_finds_the_optimum_of_a_linear_program(name):
    """Both losses are convex and piecewise linear; the data cannot be ranked without loss."""
    _, regions, labels, values = case(name, seed=4)
    regions, values = regions[:, :, :2], values[:, :2]
    seen = np.flatnonzero(SEEN)
    x = regions.mean(axis=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = values / np.linalg.norm(values, axis=1, keepdims=True)
    pairs = [(i, c) for i in range(len(x)) for c in seen if c != labels[i]]
    # slack a pair (sum) or an image (maximum): slack >= 1 + x' W (z_c - z_y)
    slacks = list(range(len(pairs))) if name == "devise" else [i for i, _ in pairs]
    count = max(slacks) + 1
    left, right = np.zeros((len(pairs), 4 + count)), -np.ones(len(pairs))
    for row, ((i, c), slack) in enumerate(zip(pairs, slacks, strict=True)):
        left[row, :4] = np.outer(z[c] - z[labels[i]], x[i]).ravel()
        left[row, 4 + slack] = -1
    cost = np.r_[np.zeros(4), np.ones(count)] / len(x)
    best = linprog(cost, left, right, bounds=[(None, None)] * 4 + [(0, None)] * count).fun
    method = create_method(name, channels=2, vectors=torch.zeros(2, 1, dtype=torch.float64))
    method.settings = CompatibilitySettings(margin=1.0)
    start = loss_of(method, regions, labels, values).item()
    lowest = start
    for step in range(600):
        method.weight.grad = None
        loss = loss_of(method, regions, labels, values)
        lowest = min(lowest, loss.item())
        loss.backward()
        with torch.no_grad():
            method.weight -= method.weight.grad * 2 / (1 + step) ** 0.7
    assert 0 < best < 0.95 * start
    assert lowest >= best - 1e-9
    assert lowest == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_full_batch_descent_meets_every_margin_that_can_be_met(name):
    """Down to exactly 0, for ALE too, whose loss jumps."""
    rng = np.random.default_rng(2)
    values, labels = rng.standard_normal((8, 6)), np.repeat(np.flatnonzero(SEEN), 4)
    regions = (values[labels] + 0.1 * rng.standard_normal((20, 6)))[:, None]
    method = create_method(name, channels=6, vectors=torch.zeros(6, 1, dtype=torch.float64))
    for _ in range(500):
        method.weight.grad = None
        loss = loss_of(method, regions, labels, values)
        loss.backward()
        with torch.no_grad():
            method.weight -= method.weight.grad * method.settings.margin
    assert loss.item() == 0
    assert method.weight.any()


class Images:
    def __init__(self, regions):
        self.regions = regions

    def __len__(self):
        return len(self.regions)

    def batch(self, positions):
        return self.regions[torch.as_tensor(positions)]


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_learns_what_can_be_learned(name, tmp_path):
    """Features are mixed attributes: the preset's training meets nearly all margins and names unseen classes."""
    rng = np.random.default_rng(1)
    values = rng.choice([0.0, 1.0], (24, 16))
    seen = np.arange(24) % 4 > 0
    mix = np.linalg.qr(rng.standard_normal((32, 16)))[0]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    labels = rng.choice(np.flatnonzero(seen), 400)
    method = create_method(name, channels=32, vectors=torch.zeros(16, 1))
    classes = ClassSpace(torch.from_numpy(values).float(), torch.from_numpy(seen))
    features = torch.from_numpy(unit @ mix.T).float()[:, None]
    recipe = METHODS[name].presets["default"].recipe
    stage = Training(method, Images(method.prepare(features[labels])), labels, classes, recipe, 0, recipe.epochs)
    records = train(stage, make_fabric("cpu"), tmp_path)
    assert records[-1]["loss"]["total"] < 0.05 * records[0]["loss"]["total"]
    with torch.no_grad():
        scores = method.class_scores(method(method.prepare(features)), classes)
    unseen = ~seen
    assert (scores[unseen][:, unseen].argmax(dim=1).numpy() == np.arange(6)).all()


@pytest.mark.parametrize("name", NAMES)
def test_contributions_sum_to_the_scores(name):
    method, regions, _, values = case(name)
    raw = torch.from_numpy(regions)
    branches, maps = method(method.prepare(raw)), method.maps(raw)
    assert maps["linear"].attention is None
    assert maps["linear"].contributions.shape == (9, 4, 3)
    torch.testing.assert_close(maps["linear"].contributions.sum(2), branches["linear"].attribute_scores)
    torch.testing.assert_close(method.fused_contributions(maps).sum(2), method.fused_attribute_scores(branches))
    classes = ClassSpace(torch.from_numpy(values), torch.from_numpy(SEEN))
    expected = branches["linear"].attribute_scores @ classes.unit.T
    torch.testing.assert_close(method.class_scores(branches, classes), expected)


def test_margins():
    margins = {name: METHODS[name].presets["default"].settings.margin for name in NAMES}
    assert margins == {"ale": 1.0, "devise": 0.1, "sje": 1.0}
    with pytest.raises(UnseenError, match="use more than 0"):
        CompatibilitySettings.changed(CompatibilitySettings(), {"margin": "0"})
