"""MSDN++ against numpy written from its equations, and the facts that its causal term must obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.msdn import AXIS, MSDN
from unseen.methods.msdnpp import INTERVENTIONS, MSDNPP, MSDNPPSettings, intervene

B, R, C, K, D, N = 5, 6, 8, 4, 3, 7
SEEN = torch.arange(N) < 5


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    regions = F.normalize(torch.rand(B, R, C, generator=generator, dtype=torch.float64), dim=-1)
    labels = torch.randint(0, 5, (B,), generator=generator)
    classes = ClassSpace(torch.rand(N, K, generator=generator, dtype=torch.float64), SEEN)
    return regions, labels, classes


def made(random_weights=True, cls=MSDNPP, **settings):
    vectors = torch.randn(K, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chosen = cls.settings_class(**settings)
    method = create_method(cls.name, channels=C, vectors=vectors, settings=chosen, seed=2).train()
    if random_weights:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return method


def reference(method, regions):
    """Logits, score maps and plain class scores in numpy, from the formulas."""
    p = {name: value.detach().numpy() for name, value in method.named_parameters()}
    f, a = regions.numpy(), p["vectors"]
    found = {
        "a2v": (
            np.einsum("kd,dc,brc->brk", a, p["a2v_attention"], f),
            np.einsum("kd,dc,brc->brk", a, p["a2v_score"], f),
        ),
        "v2a": (
            np.einsum("kd,dc,brc->brk", a, p["v2a_attention"], f),
            np.einsum("brc,cd,kd->brk", f, p["v2a_score"], a),
        ),
    }
    return found


@pytest.mark.parametrize("intervention", ["uniform", "reversed"])
def test_causal_loss_by_hand(problem, intervention):
    regions, labels, classes = problem
    method = made(intervention=intervention, lambda_causal=0.4)
    terms = method.loss(method(regions), labels, classes)
    z = classes.unit.numpy()
    expected = 0.0
    for name, (logits, scores) in reference(method, regions).items():
        attention = softmax(logits, AXIS[name])
        count = R if name == "a2v" else K
        other = np.full_like(attention, 1 / count) if intervention == "uniform" else softmax(-logits, AXIS[name])
        effect = ((attention - other) * scores).sum(axis=1) @ z.T
        loss = -np.log(softmax(effect, 1)[np.arange(B), labels.numpy()]).mean()
        assert terms[f"causal_{name}"].item() == pytest.approx(loss, abs=1e-12)
        expected += 0.4 * loss
    without = made(cls=MSDN)
    rest = without.loss(without(regions), labels, classes)["total"].item()
    assert terms["total"].item() == pytest.approx(rest + expected, abs=1e-12)


def test_without_the_causal_term_it_is_msdn(problem):
    regions, labels, classes = problem
    ours, msdn = made(lambda_causal=0.0), made(cls=MSDN)
    for method in (ours, msdn):
        method.loss(method(regions), labels, classes)["total"].backward()
    for name, parameter in msdn.named_parameters():
        assert torch.equal(parameter.grad, ours.get_parameter(name).grad)


def test_inference_is_msdn(problem):
    regions, _, classes = problem
    ours, msdn = made().eval(), made(cls=MSDN).eval()
    assert torch.equal(ours.class_scores(ours(regions), classes), msdn.class_scores(msdn(regions), classes))
    assert all(branch.counterfactual is None for branch in ours(regions).values())


def test_effect_is_zero_where_the_intervention_changes_nothing(problem, monkeypatch):
    """Abar = A: the effect is 0, so its cross-entropy is log N."""
    regions, labels, classes = problem
    monkeypatch.setattr("unseen.methods.msdnpp.intervene", lambda kind, logits, axis: logits.softmax(dim=axis).detach())
    method = made()
    terms = method.loss(method(regions), labels, classes)
    for name in AXIS:
        assert terms[f"causal_{name}"].item() == pytest.approx(np.log(N), abs=1e-12)


def test_uniform_intervention_at_the_zero_start(problem):
    """Attention weights start at 0, so attention is uniform: no effect, and the causal loss gives V2A no gradient."""
    regions, labels, classes = problem
    method = made(random_weights=False, intervention="uniform", lambda_causal=1.0)
    branches = method(regions)
    for branch in branches.values():
        torch.testing.assert_close(branch.counterfactual, branch.attribute_scores, rtol=0, atol=1e-12)
    terms = method.loss(branches, labels, classes)
    terms["causal_v2a"].backward(retain_graph=True)
    assert method.v2a_score.grad.abs().max() < 1e-12
    assert method.v2a_attention.grad.abs().max() < 1e-12
    method.zero_grad()
    terms["causal_a2v"].backward()
    assert method.a2v_attention.grad.abs().max() > 0  # A2V has score weights from the start


def test_the_margin_cancels_in_the_effect(problem):
    regions, labels, classes = problem
    values = [
        made(intervention="reversed", margin=m).loss(made(intervention="reversed", margin=m)(regions), labels, classes)
        for m in (0.0, 5.0)
    ]
    for name in AXIS:
        assert values[0][f"causal_{name}"].item() == pytest.approx(values[1][f"causal_{name}"].item(), abs=1e-12)


@pytest.mark.parametrize("kind", INTERVENTIONS)
@pytest.mark.parametrize("axis", [1, 2])
def test_interventions(kind, axis):
    torch.manual_seed(0)
    logits = torch.randn(64, 49, 20, dtype=torch.float64, requires_grad=True)
    other = intervene(kind, logits, axis)
    assert not other.requires_grad
    count = logits.shape[axis]
    assert other.min() >= 0
    if kind == "random":
        assert other.max() <= 2 / count
        assert other.mean().item() == pytest.approx(1 / count, rel=0.01)
        assert not torch.equal(other, intervene(kind, logits, axis))  # drawn anew
    else:
        torch.testing.assert_close(other.sum(dim=axis), torch.ones_like(other.sum(dim=axis)))
    if kind == "reversed":
        assert torch.equal(other.argmin(dim=axis), logits.argmax(dim=axis))
    if kind == "shuffled":
        own = logits.softmax(dim=axis)
        rows = {tuple(row.flatten()[:5].tolist()) for row in own}
        assert {tuple(row.flatten()[:5].tolist()) for row in other} == rows  # the same attentions ...
        assert not (other == own).all(dim=(1, 2)).any()  # ... each with another image


def test_effect_only_and_distilled_effects(problem):
    regions, labels, classes = problem
    causal = made(intervention="reversed", lambda_causal=1.0)
    a = causal.loss(causal(regions), labels, classes)
    only = made(intervention="reversed", lambda_causal=0.0, effect_only=True)
    b = only.loss(only(regions), labels, classes)
    for name in AXIS:
        assert b[f"cross_entropy_{name}"].item() == pytest.approx(a[f"causal_{name}"].item(), abs=1e-12)
    assert not any(name.startswith("causal") for name in b)
    distilled = made(intervention="reversed", distil_effects=True)
    branches = distilled(regions)
    z = classes.unit
    effects = [(branch.attribute_scores - branch.counterfactual) @ z.T for branch in branches.values()]
    terms = distilled.loss(branches, labels, classes)
    assert terms["distillation"].item() == pytest.approx(distilled._distillation(*effects).item(), abs=1e-12)


def test_wrong_settings_are_one_line():
    with pytest.raises(UnseenError, match="one of random, uniform, reversed, shuffled"):
        MSDNPPSettings(intervention="none")
    with pytest.raises(UnseenError, match="lambda_causal=0"):
        MSDNPPSettings(effect_only=True)
    with pytest.raises(UnseenError, match="0 or more"):
        MSDNPPSettings(lambda_causal=-1)
