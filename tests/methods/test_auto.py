"""The race is one grid: what is chosen answers just as the method alone would."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unseen.ground.threads import side_by_side
from unseen.methods import ClassSpace, create_method
from unseen.methods.auto import RACING
from unseen.methods.preparation import FeaturePreparation

SEEN = np.array([False, True, True, False, True, True, True])


def problem(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.flatnonzero(SEEN), 50)
    return torch.from_numpy(rng.standard_normal((50, 3, 8)) + 0.3), torch.from_numpy(labels), rng.random((7, 5)) + 0.1


def fitted(name):
    regions, labels, values = problem()
    classes = ClassSpace(torch.from_numpy(values), torch.from_numpy(SEEN))
    method = create_method(name, channels=8, vectors=torch.zeros(5, 2, dtype=torch.float64), settings=None)
    if name != "auto":
        kind = type(method)
        preset = kind.presets["recommended"].settings
        method = create_method(name, channels=8, vectors=torch.zeros(5, 2, dtype=torch.float64), settings=preset)
    method.fit(method.prepare(regions), labels, classes)
    return method, classes


def test_the_grid_is_that_of_all_methods():
    method, _ = fitted("auto")
    alone = [{"method": kind.name, **c} for kind in RACING for c in fitted(kind.name)[0].grid()]
    assert method.grid() == alone
    assert {"eszsl", "prototypes"} == {candidate["method"] for candidate in alone}


@pytest.mark.parametrize("kind", RACING, ids=lambda kind: kind.name)
def test_what_is_chosen_answers_as_the_method_alone(kind):
    auto, classes = fitted("auto")
    alone, _ = fitted(kind.name)
    candidate = alone.grid()[-1]
    auto.use({"method": kind.name, **candidate})
    alone.use(candidate)
    regions = problem(3)[0]
    for a, b in (
        (auto(auto.prepare(regions)), alone(alone.prepare(regions))),
        (auto.maps(regions), alone.maps(regions)),
    ):
        assert torch.equal(auto.fused_attribute_scores(a), alone.fused_attribute_scores(b))
        assert torch.equal(auto.class_scores(a, classes), alone.class_scores(b, classes))
    assert torch.equal(auto.class_vectors(classes), alone.class_vectors(classes))
    again = create_method("auto", channels=8, vectors=torch.zeros(5, 2, dtype=torch.float64))
    again.load_state_dict(auto.state_dict())
    branches = again(again.prepare(regions))
    assert torch.equal(again.class_scores(branches, classes), alone.class_scores(branches, classes))


def test_its_sweep_is_the_sweeps_of_all():
    auto, classes = fitted("auto")
    held_out = auto.prepare(problem(4)[0])
    found = list(auto.sweep(held_out, classes))
    assert [candidate for candidate, _ in found] == auto.grid()
    at = 0
    for kind in RACING:
        for _, scores in fitted(kind.name)[0].sweep(held_out, classes):
            assert torch.equal(found[at][1], scores)
            at += 1


def test_a_part_of_its_sweep_is_a_preparation_with_all_methods():
    auto, classes = fitted("auto")
    held_out = auto.prepare(problem(4)[0])
    plain = {str(candidate): scores for candidate, scores in auto.sweep(held_out, classes)}
    parts = list(side_by_side(list, fitted("auto")[0].sweep_parts(held_out, classes), 2))
    for part in parts:
        assert len({candidate["features"] for candidates, _ in part for candidate in candidates}) == 1
    found = {
        str(c): own for part in parts for candidates, scores in part for c, own in zip(candidates, scores, strict=True)
    }
    assert found.keys() == plain.keys()
    for candidate, scores in found.items():
        torch.testing.assert_close(scores, plain[candidate], rtol=1e-9, atol=1e-9)


def test_what_a_sweep_has_solved_is_used_without_the_training_images():
    """And the whitening that it has fitted is the one of its training images."""
    (swept, classes), (fresh, _) = fitted("auto"), fitted("auto")
    regions, labels, _ = problem()
    candidates = [found for found, _ in swept.sweep(swept.prepare(problem(3)[0]), classes)]
    assert candidates == swept.grid()
    assert swept.settle()
    for candidate in candidates[:: len(candidates) // 9]:
        for method in (swept, fresh):
            method.use(candidate)
        assert swept.state_dict().keys() == fresh.state_dict().keys()
        assert all(map(torch.equal, swept.state_dict().values(), fresh.state_dict().values()))
    preparation = FeaturePreparation()
    preparation.fit("whitened", swept.prepare(regions)[:, 0], labels)
    assert swept.whitened is not None
    assert torch.equal(swept.whitened.whitening, preparation.whitening)
