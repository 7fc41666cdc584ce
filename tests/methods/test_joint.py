"""Joined maps: each prepared by itself, a share of the inner product, exact contributions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.joint import JointPreparation, JointSettings, new_preparation
from unseen.methods.pooled import pool
from unseen.methods.preparation import FEATURES, FeaturePreparation

SIZES = (3, 2, 5)


def images(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    return torch.randn(n, 6, sum(SIZES), generator=generator, dtype=torch.float64) + 0.3 * labels[:, None, None], labels


def fitted(kind):
    regions, labels = images()
    found = JointPreparation(SIZES)
    found.fit(kind, pool(regions)[:, 0], labels)
    return found


@pytest.mark.parametrize("kind", FEATURES)
def test_an_inner_product_is_the_average_of_those_of_the_maps(kind):
    joint, (regions, labels), others = fitted(f"{kind}+0.25"), images(), images(seed=1)[0]
    expected = 0
    for part, weight in zip(range(3), (0.125, 0.125, 0.75), strict=True):
        alone = FeaturePreparation()
        mine = [pool(r.split(SIZES, dim=2)[part])[:, 0] for r in (regions, others)]
        alone.fit(kind, mine[0], labels)
        expected = expected + weight * alone(mine[1]) @ alone(mine[1]).T
    found = joint(pool(others)[:, 0])
    assert torch.allclose(found @ found.T, expected, atol=1e-9)
    assert torch.allclose(found.norm(dim=1), torch.ones(40).double(), atol=1e-9)


@pytest.mark.parametrize("kind", ["unit", "root+0.5", "whitened+0.25"])
def test_contributions_add_up(kind):
    joint, regions = fitted(kind), images(seed=1)[0]
    weight = torch.randn(7, sum(SIZES), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = joint.contributions(regions, weight)
    assert found.shape == (40, 7, 6)
    assert torch.allclose(found.sum(dim=2), joint(pool(regions)[:, 0]) @ weight.T, atol=1e-9)


def test_without_a_share_the_last_map_is_alone():
    joint, regions = fitted("whitened"), images(seed=1)[0]
    found = joint(pool(regions)[:, 0])
    assert not found[:, :5].any()
    changed = regions.clone()
    changed[:, :, :5] += 1
    assert torch.allclose(joint(pool(changed)[:, 0]), found, atol=1e-12)


@pytest.mark.parametrize("name", ["eszsl", "prototypes", "auto"])
def test_scores_of_the_sweep_are_those_of_use_and_every_share_is_tried(name):
    regions, labels = images()
    values = torch.rand(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classes = ClassSpace(values, torch.tensor([True] * 4 + [False] * 2))
    method = create_method(name, channels=SIZES, vectors=torch.zeros(4, 1, dtype=torch.float64), features="whitened")
    method.fit(method.prepare(regions), labels, classes)
    held = method.prepare(images(seed=1)[0])
    swept = list(method.sweep(held, classes))
    assert {c["features"] for c, _ in swept} == {"whitened", "whitened+0.25", "whitened+0.5"}
    for candidate, scores in swept[:: len(swept) // 5]:
        method.use(candidate)
        assert torch.allclose(method.class_scores(method(held), classes), scores, atol=1e-7)


def test_other_methods_take_joined_maps_as_one():
    assert create_method("sae", channels=SIZES, vectors=torch.zeros(4, 1)).weight.shape == (4, 10)
    assert isinstance(new_preparation(5), FeaturePreparation)
    only = create_method("eszsl", channels=(5,), vectors=torch.zeros(4, 1))
    assert isinstance(only.features, FeaturePreparation)


def test_a_fixed_share_is_the_only_candidate():
    assert JointSettings(features="unit", earlier="0").kinds_of((2, 3))[0] == ("unit",)
    assert JointSettings(features="unit", earlier="0.4").kinds_of((2, 3))[0] == ("unit+0.4",)
    assert JointSettings(features="unit").kinds_of(3)[0] == ("unit",)
    for wrong in ("some", "1", "-0.5"):
        with pytest.raises(UnseenError, match="setting earlier"):
            JointSettings(earlier=wrong)


def test_weights_are_loaded():
    joint, regions = fitted("root+0.5"), images(seed=1)[0]
    again = JointPreparation(SIZES).double()
    again.load_state_dict(joint.state_dict())
    pooled = F.normalize(regions.mean(dim=1), dim=1)
    assert torch.equal(again(pooled), joint(pooled))
