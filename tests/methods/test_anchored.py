"""Anchored: its start to the bit, uniform attention at the first step, shares, and exact heat maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method, find_method
from unseen.methods.anchored import PARTS, AnchoredSettings

SEEN = np.array([False, True, True, False, True, True, True])
CANDIDATE = {
    "method": "prototypes",
    "features": "whitened",
    "rows": "centred",
    "kernel": "linear",
    "ridge": 0.1,
    "share": 0.0,
}
WITH_ESZSL = {**CANDIDATE, "share": 0.25, "gamma": 10.0, "lambda": 0.3}
ESZSL = {"method": "eszsl", "features": "whitened", "rows": "centred", "gamma": 1.0, "lambda": 0.3}
JOINED = CANDIDATE | {"features": "whitened+0.25"}


def problem(seed=0, n=60, r=4, c=8, k=5):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.flatnonzero(SEEN), n)
    regions = rng.standard_normal((n, r, c)) + 0.3 + labels[:, None, None] * 0.1
    return torch.from_numpy(regions), torch.from_numpy(labels), torch.from_numpy(rng.random((7, k)) + 0.1)


def channels_of(candidate):
    """Of two maps where the candidate gives the earlier one a share."""
    return (3, 5) if "+" in candidate["features"] else 8


def begun(candidate=CANDIDATE, **settings):
    regions, labels, values = problem()
    classes = ClassSpace(values, torch.from_numpy(SEEN))
    vectors = torch.zeros(values.shape[1], 2, dtype=torch.float64)
    method = create_method("anchored", channels=channels_of(candidate), vectors=vectors, **settings)
    method.candidate = candidate
    with torch.no_grad():
        method.start(((regions[i : i + 25], labels[i : i + 25]) for i in range(0, 60, 25)), classes)
    return method.eval(), classes


def alone(candidate):
    regions, labels, values = problem()
    classes = ClassSpace(values, torch.from_numpy(SEEN))
    name, vectors = candidate["method"], torch.zeros(5, 2, dtype=torch.float64)
    settings = find_method(name).presets["recommended"].settings
    method = create_method(name, channels=channels_of(candidate), vectors=vectors, settings=settings)
    method.fit(method.prepare(regions), labels, classes)
    method.use({key: value for key, value in candidate.items() if key != "method"})
    return method


def moved(method):
    """The method with weights that are not 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name in ("a2v", "v2a", "residual"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return method


@pytest.mark.parametrize("own", [0.0, 0.5])
@pytest.mark.parametrize("candidate", [CANDIDATE, WITH_ESZSL, ESZSL, JOINED], ids=["plain", "mixed", "eszsl", "joined"])
def test_without_shares_it_is_its_start_to_the_bit(candidate, own):
    method, classes = begun(candidate | {"own": own})
    moved(method)
    start, regions = alone(candidate | {"own": own}), problem(3)[0]
    for mine, theirs in (
        (method(method.prepare(regions)), start(start.prepare(regions))),
        (method.maps(regions), start.maps(regions)),
    ):
        assert torch.equal(method.class_scores(mine, classes), start.class_scores(theirs, classes))
        assert torch.equal(method.fused_attribute_scores(mine), start.fused_attribute_scores(theirs))


def test_before_the_first_step_attention_is_uniform_and_everything_is_the_start():
    method, classes = begun(WITH_ESZSL | {"own": 0.5})
    regions = problem(3)[0]
    start = method.class_scores(method(regions), classes)
    method.set_shares({"attention": 1.0, "residual": 1.0})
    branches = method.maps(regions)
    assert torch.allclose(branches["a2v"].attention, torch.tensor(1 / 4).double())
    assert torch.allclose(branches["v2a"].attention, torch.tensor(1 / 5).double())
    for found in (branches, method(regions)):
        assert torch.allclose(method.class_scores(found, classes), start, rtol=0, atol=1e-9)


def test_formulas_written_out():
    method, _ = begun()
    moved(method).set_shares({"attention": 0.5, "residual": 0.25})
    regions = problem(3)[0]
    basis, rows = method.directions.basis, method.directions.rows
    assert torch.allclose(rows @ basis, method.linear.weight, atol=1e-9)
    g = method.linear.features(torch.nn.functional.normalize(regions.mean(1), dim=1))
    psi = g @ method.linear.weight.T
    h = method.linear.features.contributions(regions, basis).transpose(1, 2)
    m = rows.shape[1]
    assert m < method.settings.width
    q = rows / rows.norm(dim=1, keepdim=True)
    c = torch.einsum("brm,km->brk", h, rows)
    a2v = (4 * torch.einsum("brm,mn,kn->brk", h, method.a2v[:m, :m], q)).softmax(1)
    v2a = (4 * torch.einsum("brm,mn,kn->brk", h, method.v2a[:m, :m], q)).softmax(2)
    attended = (4 * (a2v * c).sum(1) + 5 * (v2a * c).sum(1)) / 2
    expected = psi + 0.5 * (attended - psi) + 0.25 * (g @ basis.T @ (0.1 * method.residual[:, :m]).T)
    assert torch.allclose(method.fused_attribute_scores(method(regions)), expected, atol=1e-9)


@pytest.mark.parametrize("features", ["unit", "standardised", "root", "whitened", "root+0.25", "whitened+0.5"])
def test_contributions_of_regions_add_up(features):
    method, _ = begun(CANDIDATE | {"features": features, "own": 0.5})
    moved(method).set_shares({"attention": 0.5, "residual": 0.5})
    regions = problem(3)[0]
    scores = method.fused_attribute_scores(method(regions))
    assert torch.allclose(method.fused_contributions(method.maps(regions)).sum(2), scores, atol=1e-9)


def test_class_scores_are_linear_in_the_shares():
    method, classes = begun(WITH_ESZSL | {"own": 0.5})
    moved(method)
    regions = problem(3)[0]

    def scores(**shares):
        method.set_shares(shares)
        return method.class_scores(method(regions), classes)

    start = scores()
    mixed = start + 0.25 * (scores(attention=1.0) - start) + 0.5 * (scores(residual=1.0) - start)
    assert torch.allclose(scores(attention=0.25, residual=0.5), mixed, atol=1e-9)


def test_weights_come_back_with_their_shares():
    method, classes = begun(WITH_ESZSL | {"own": 0.5})
    moved(method).set_shares({"attention": 0.5})
    again = create_method("anchored", channels=8, vectors=torch.zeros(5, 2, dtype=torch.float64))
    again.load_state_dict(method.state_dict())
    regions = problem(3)[0]
    assert list(again.eval()(regions)) == ["linear", "a2v", "v2a"]
    expected = method.class_scores(method(regions), classes)
    assert torch.equal(again.class_scores(again(regions), classes), expected)


def test_only_what_is_trained_gets_a_gradient_and_the_terms_are_named():
    regions, labels, _ = problem()
    for settings, trained, terms in (
        ({}, {"a2v", "v2a", "residual"}, {"cross_entropy_residual", "causal_v2a", "distillation"}),
        ({"attention": "0"}, {"residual"}, {"cross_entropy_residual"}),
        ({"residual": "0", "subnets": "a2v", "lambda_causal": 0}, {"a2v"}, {"cross_entropy_a2v"}),
    ):
        method, classes = begun(**settings)
        method.train()
        found = method.loss(method(regions), labels, classes)
        found["total"].backward()
        assert {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0} == trained
        assert terms <= set(found)
        assert ("distillation" in found) == (settings == {})


def test_at_the_start_the_loss_is_that_of_the_closed_form():
    method, classes = begun(residual="0", lambda_causal=0, attribute_dropout=0)
    regions, labels, _ = problem()
    t = method.linear.rows(classes.unit)
    z = t / (t @ method.linear.weight).norm(dim=1, keepdim=True)
    scores = 20 * (method.closed(method.closed.prepare(regions))["linear"].attribute_scores @ z.T)
    expected = torch.nn.functional.cross_entropy(scores[:, SEEN], (torch.cumsum(classes.seen, 0) - 1)[labels])
    terms = method.train().loss(method(regions), labels, classes)
    for name in ("a2v", "v2a"):
        assert terms[f"cross_entropy_{name}"].item() == pytest.approx(expected.item(), abs=1e-9)
    assert terms["distillation"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_a_share_that_is_none(name):
    for wrong in ("much", "1.5", "-0.1"):
        with pytest.raises(UnseenError, match=f"setting {name}"):
            AnchoredSettings(**{name: wrong})


def test_without_a_closed_form_it_cannot_start():
    method = create_method("anchored", channels=8, vectors=torch.zeros(5, 2))
    with pytest.raises(UnseenError, match="closed form was not chosen"):
        method.start([], ClassSpace(torch.ones(2, 5), torch.tensor([True, False])))
