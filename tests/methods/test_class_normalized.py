"""``cn`` against loops written from the paper's formulas, and what its normalisation must obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.class_normalized import ClassNormalized, ClassNormalizedSettings

B, C, K, N = 6, 5, 4, 8
SEEN = torch.arange(N) < 5
SETTINGS = ClassNormalizedSettings(hidden=7, scale=3.0)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(settings=SETTINGS, seed=1):
    return create_method("cn", channels=C, vectors=random(K, 3), settings=settings, seed=seed)


CLASSES = ClassSpace(random(N, K, seed=2).abs(), SEEN)
REGIONS = random(B, 9, C, seed=3)
LABELS = torch.tensor([0, 4, 2, 1, 0, 3])


def by_loops(method, vectors, statistics=None):
    """Unit prototypes, unit by unit; and mean and variance of both layers, of these vectors unless they are given."""
    p = {name: value.detach().numpy() for name, value in method.named_parameters()}
    values, used = [v / np.linalg.norm(v) for v in vectors.numpy()], []

    def normalised(rows, place):
        out = np.zeros_like(rows)
        for j in range(rows.shape[1]):
            column = rows[:, j]
            mean, var = (column.mean(), column.var()) if statistics is None else (s[j] for s in statistics[place])
            used.append((mean, column.var(ddof=1) if len(column) > 1 else 0.0))
            out[:, j] = (column - mean) / np.sqrt(var + 1e-5)
        return out

    first = np.stack([np.maximum(p["first.weight"] @ v + p["first.bias"], 0) for v in values])
    second = np.stack([p["second.weight"] @ h + p["second.bias"] for h in first])
    hidden = normalised(np.maximum(normalised(second, 0), 0), 1)
    out = np.stack([p["last.weight"] @ h + p["last.bias"] for h in hidden])
    return out / np.linalg.norm(out, axis=1, keepdims=True), used


def test_training_loss_and_running_averages_by_loops():
    method = made().train()
    total = method.loss(method(method.prepare(REGIONS)), LABELS, CLASSES)["total"].item()
    prototypes, used = by_loops(method, CLASSES.vectors[SEEN])
    expected = 0.0
    for image, label in zip(REGIONS.numpy(), LABELS.tolist(), strict=True):
        x = image.mean(axis=0)
        scores = np.array([9.0 * (x / np.linalg.norm(x)) @ p for p in prototypes])
        expected += (np.log(np.exp(scores).sum()) - scores[label]) / B
    assert total == pytest.approx(expected, rel=1e-9)
    for layer, found in ((method.inner, used[:7]), (method.outer, used[7:])):
        for j, (mean, var) in enumerate(found):
            assert layer.mean[j].item() == pytest.approx(0.1 * mean, rel=1e-9, abs=1e-12)
            assert layer.variance[j].item() == pytest.approx(0.9 + 0.1 * var, rel=1e-9)


def test_class_scores_by_loops_and_a_class_alone():
    method = made().train()
    for _ in range(3):
        method.loss(method(method.prepare(REGIONS)), LABELS, CLASSES)
    method.eval()
    layers = [(m.mean.numpy(), m.variance.numpy()) for m in (method.inner, method.outer)]
    prototypes, _ = by_loops(method, CLASSES.vectors, layers)
    with torch.no_grad():
        scores = method.class_scores(method(method.prepare(REGIONS)), CLASSES).numpy()
        alone = method.class_embeddings(ClassSpace(CLASSES.vectors[6:7], SEEN[6:7]))
        together = method.class_embeddings(CLASSES)[6:7]
    x = F.normalize(REGIONS.mean(dim=1), dim=1).numpy()
    np.testing.assert_allclose(scores, 9 * x @ prototypes.T, rtol=1e-9)
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


def test_initial_weights():
    method = create_method("cn", channels=512, vectors=torch.zeros(30, 3), seed=0)
    weight = method.last.weight
    assert weight.var().item() == pytest.approx(1 / (512 * 1024), rel=0.01)  # the paper's
    assert weight.abs().max().item() == pytest.approx((3 / 512 / 1024) ** 0.5, rel=0.01)
    again = create_method("cn", channels=512, vectors=torch.zeros(30, 3), seed=0)
    assert torch.equal(weight, again.last.weight)
    assert not any(layer.bias.any() for layer in (method.first, method.second, method.last))


def test_hidden_values_of_seen_classes_have_mean_0_and_variance_1():
    method, kept = made().train(), []
    method.outer.register_forward_hook(lambda _, __, out: kept.append(out))
    method.loss(method(method.prepare(REGIONS)), LABELS, CLASSES)
    torch.testing.assert_close(kept[0].mean(0), torch.zeros(7, dtype=torch.float64), atol=1e-12, rtol=0)
    variance = kept[0].var(0, correction=0)
    assert ((variance - 1).abs() < 1e-3).logical_or(variance < 1e-9).all()  # a unit may be off for all classes


def test_without_normalisation_it_is_the_plain_network():
    method = made(ClassNormalizedSettings(hidden=7, normalize=False)).train()
    before = method.inner.mean.clone()
    found = method.prototypes(CLASSES.unit)
    h = F.relu(method.second(F.relu(method.first(CLASSES.unit))))
    torch.testing.assert_close(found, F.normalize(method.last(h), dim=1))
    assert torch.equal(method.inner.mean, before)


def test_it_learns_classes_from_their_attributes():
    generator = torch.Generator().manual_seed(5)
    vectors = torch.rand(30, 12, generator=generator)
    world = torch.randn(12, 24, generator=generator)
    seen = torch.arange(30) < 24
    labels = torch.arange(24).repeat(10)
    regions = (vectors @ world)[labels][:, None] + 0.1 * torch.randn(240, 1, 24, generator=generator)
    classes = ClassSpace(vectors, seen)
    method = create_method("cn", channels=24, vectors=vectors.T.contiguous(), seed=0, hidden=64).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        method.loss(method(method.prepare(regions)), labels, classes)["total"].backward()
        optimizer.step()
    method.eval()
    unseen = (vectors @ world)[24:][:, None]
    with torch.no_grad():
        scores = method.class_scores(method(method.prepare(unseen)), classes)[:, 24:]
    assert (scores.argmax(dim=1) == torch.arange(6)).float().mean() >= 4 / 6  # by chance 1/6


def test_wrong_settings_are_one_line():
    with pytest.raises(UnseenError, match="hidden is 0"):
        ClassNormalizedSettings(hidden=0)
    assert ClassNormalized.presets["default"].settings.scale == 5


def test_directions_of_attributes_are_made_for_testing_and_kept():
    """What a saved graph multiplies with is a table: no difference of prototypes is rounded in it."""
    method = made().train()
    method.loss(method(method.prepare(REGIONS)), LABELS, CLASSES)
    assert not method.directions.any()
    method.eval()
    average = method.mean[None]
    for k in range(K):
        moved = average.clone()
        moved[0, k] += K**-0.5
        found = 9 * (method.prototypes(moved) - method.prototypes(average))[0]
        torch.testing.assert_close(method.directions[k], found.detach())
    again = made(seed=2)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.eval().directions, method.directions)
    branches, maps = method(method.prepare(REGIONS)), method.maps(REGIONS)
    torch.testing.assert_close(maps["prototypes"].attribute_scores, branches["prototypes"].attribute_scores)
    torch.testing.assert_close(method.fused_contributions(maps).sum(2), method.fused_attribute_scores(branches))
