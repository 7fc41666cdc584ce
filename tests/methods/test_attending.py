"""Attention pooled as one function, against the operators that it stands for."""

from __future__ import annotations

import pytest
import torch

from unseen.methods import attending
from unseen.methods.attending import Look, attend

B, R, K = 5, 4, 3
OWN = (Look(logits=2, scores=0, axis=1), Look(logits=3, scores=1, axis=2))
SHARED = (Look(logits=1, scores=0, axis=1), Look(logits=2, scores=0, axis=2))


@pytest.fixture(params=["an image at a time", "two at a time", "all at once"])
def pieces(request, monkeypatch):
    images = {"an image at a time": 1, "two at a time": 2, "all at once": B}[request.param]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(attending, "PIECE", images * R * 4 * K)


def made(looks, dtype=torch.float64, others=True):
    generator = torch.Generator().manual_seed(0)
    count = 1 + max(look.logits for look in looks)
    maps = torch.randn(B, R, count * K, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return maps, [torch.rand(B, R, K, generator=generator, dtype=torch.float64).to(dtype) for _ in looks if others]


def by_operators(maps, looks, others):
    parts = maps.to(torch.promote_types(maps.dtype, torch.float32)).split(K, dim=2)
    pooled = [(parts[look.logits].softmax(dim=look.axis) * parts[look.scores]).sum(dim=1) for look in looks]
    return pooled + [(o * parts[look.scores]).sum(dim=1) for look, o in zip(looks, others, strict=False)]


@pytest.mark.parametrize("looks", [OWN, SHARED, OWN[:1]], ids=["own scores", "shared scores", "one look"])
@pytest.mark.parametrize("others", [True, False], ids=["counterfactual", "attention alone"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("pieces")
def test_equals_the_operators(looks, others, dtype):
    if looks == OWN[:1]:
        looks = (Look(logits=1, scores=0, axis=1),)
    maps, others = made(looks, dtype, others)
    found, counterfactual = attend(maps.clone(), K, looks, others)
    assert (len(found), len(counterfactual)) == (len(looks), len(others))
    expected = by_operators(maps, looks, others)
    weights = [torch.randn_like(psi) for psi in expected]
    torch.testing.assert_close([*found, *counterfactual], expected)
    of_expected = torch.autograd.grad(expected, maps, weights)[0]
    of_found = torch.autograd.grad([*found, *counterfactual], maps, weights)[0]
    assert of_found.dtype == dtype
    torch.testing.assert_close(of_found, of_expected)


@pytest.mark.parametrize("looks", [OWN, SHARED], ids=["own scores", "shared scores"])
@pytest.mark.usefixtures("pieces")
def test_gradients_equal_finite_differences(looks):
    maps, others = made(looks)

    def pooled(maps):
        found, counterfactual = attend(maps.clone(), K, looks, others)
        return (*found, *counterfactual)

    assert torch.autograd.gradcheck(pooled, (maps,))


def test_large_logits_stay_finite():
    maps, _ = made(OWN, torch.float32)
    found, _ = attend(maps * 1e4, K, OWN)
    assert all(torch.isfinite(psi).all() for psi in found)


def test_nothing_of_the_maps_size_is_kept_but_the_maps():
    maps, others = made(OWN)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        attend(maps, K, OWN, others)
    assert set(kept) == {t.data_ptr() for t in (maps, *others)}


@pytest.mark.parametrize(("trains", "dtype"), [(True, torch.float32), (False, torch.float32), (True, torch.bfloat16)])
def test_attentions_replace_the_logits_if_a_gradient_needs_them_exactly(trains, dtype):
    maps = made(OWN, dtype)[0].detach().requires_grad_(trains)
    before = maps.detach().clone().split(K, dim=2)
    attend(maps, K, OWN)
    after = maps.detach().split(K, dim=2)
    for i in range(2):
        assert torch.equal(after[i], before[i])
    for look in OWN:
        replaced = trains and dtype == torch.float32
        expected = before[look.logits].softmax(dim=look.axis) if replaced else before[look.logits]
        torch.testing.assert_close(after[look.logits], expected)


def test_maps_that_another_gradient_needs_are_not_overwritten_unnoticed():
    maps, _ = made(OWN)
    needed = (maps * maps).sum()
    found, _ = attend(maps, K, OWN)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (needed + found[0].sum()).backward()


def test_compilers_see_operators_alone(monkeypatch):
    maps, others = made(OWN)
    expected = attend(maps.clone(), K, OWN, others)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(attending, "_Attend", None)
    torch.testing.assert_close(attend(maps, K, OWN, others), expected)
