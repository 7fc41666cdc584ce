"""MSDN++ against numpy written from its equations, and the facts that its causal term must obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.msdn import AXIS, MSDN
from unseen.methods.msdnpp import (
    FOLLOWED,
    INTERVENTIONS,
    MSDNPP,
    PERMUTED,
    MSDNPPSettings,
    intervene,
    semantic_loss,
    standardised,
)

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


class Operators(TorchDispatchMode):
    """Lists operators with the shapes and dtypes of their tensors."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ran.append((func, [(tuple(t.shape), t.dtype) for t in args if isinstance(t, torch.Tensor)]))
        return func(*args, **(kwargs or {}))


def test_inference_runs_the_operators_of_msdn_in_bfloat16_too(problem):
    regions, _, _ = problem
    ran = []
    for cls in (MSDNPP, MSDN):
        method = made(cls=cls).float().eval()
        with torch.inference_mode(), Operators() as operators, torch.autocast("cpu", torch.bfloat16):
            method(regions.bfloat16())
        ran.append(operators.ran)
    assert ran[0] == ran[1]
    assert any(torch.bfloat16 in [dtype for _, dtype in tensors] for _, tensors in ran[0])


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


@pytest.mark.parametrize("kind", [kind for kind in INTERVENTIONS if kind not in PERMUTED])
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
    only = made(intervention="reversed", lambda_causal=1.0, lambda_score=0.0)
    b = only.loss(only(regions), labels, classes)
    raw = sum(a[f"cross_entropy_{name}"].item() for name in AXIS)
    assert b["total"].item() == pytest.approx(a["total"].item() - raw, abs=1e-12)
    distilled = made(intervention="reversed", distil_effects=True)
    branches = distilled(regions)
    z = classes.unit
    effects = [(branch.attribute_scores - branch.counterfactual) @ z.T for branch in branches.values()]
    terms = distilled.loss(branches, labels, classes)
    assert terms["distillation"].item() == pytest.approx(distilled._distillation(*effects).item(), abs=1e-12)


def test_wrong_settings_are_one_line():
    with pytest.raises(UnseenError, match="one of random, uniform, reversed, shuffled, permuted, permuted_batch"):
        MSDNPPSettings(intervention="none")
    with pytest.raises(UnseenError, match=r"lambda_score: no cross-entropy term remains.*lambda_causal to more than 0"):
        MSDNPPSettings(lambda_score=0.0, lambda_causal=0.0)
    for name in ("lambda_causal", "lambda_semantic", "lambda_score"):
        with pytest.raises(UnseenError, match=f"{name}.*0 or more"):
            MSDNPPSettings(**{name: -1.0})
    for kind in set(INTERVENTIONS) - set(FOLLOWED):
        with pytest.raises(UnseenError, match=f'no gradient passes through "{kind}".*reversed, permuted'):
            MSDNPPSettings(intervention=kind, counterfactual_gradient=True)


def test_whose_reading_a_preset_is():
    weights = {name: preset.settings.lambda_causal for name, preset in MSDNPP.presets.items()}
    assert weights == {"cub": 1.0, "sun": 1.0, "awa2": 1.0, "recommended": 0.01}
    assert "Rao et al., ICCV 2021" in MSDNPP.presets["cub"].source
    assert "ours, chosen on validation classes" in MSDNPP.presets["recommended"].source
    for preset in MSDNPP.presets.values():  # the rest is neither CVsC's nor ours
        s = preset.settings
        assert (s.intervention, s.counterfactual_gradient, s.lambda_semantic, s.lambda_score) == ("random", False, 0, 1)


def rows_of(method):
    """Score and attention weights ``(K, C)`` by sub-net, what is subtracted from a region first, and V2A's factor."""
    vectors, attention = method.vectors, {"a2v": method.a2v_attention, "v2a": method.v2a_attention}
    if method.prototypes is None:
        scores = {"a2v": vectors @ method.a2v_score, "v2a": vectors @ method.v2a_score.T}
        return scores, {name: vectors @ w for name, w in attention.items()}, lambda f: f, 1.0
    p = method.prototypes
    scores = dict.fromkeys(AXIS, p.rows * p.tau / p.length)
    return scores, {n: vectors @ w / p.scale for n, w in attention.items()}, lambda f: (f - p.mean) / p.scale, K / R


def by_loops(method, regions, orders):
    """Factual and counterfactual attribute scores of each sub-net, image by image and attribute by attribute.

    Args:
        method: ``reversed`` or permuted.
        regions: ``(B, R, C)``.
        orders: by sub-net, of the batch, of attributes and of channels.
    """
    scores, attends, region_of, factor = rows_of(method)
    found = {}
    for name, (images, attributes, channels) in orders.items():
        attended, other = {}, {}
        for b in range(B):
            logits = torch.stack([torch.stack([attends[name][k] @ regions[b, r] for k in range(K)]) for r in range(R)])
            attention = logits.softmax(0 if name == "a2v" else 1)
            kept = logits if method.settings.counterfactual_gradient else logits.detach()
            if method.settings.intervention == "reversed":
                kept = -kept
            changed = kept.softmax(0 if name == "a2v" else 1)
            for k in range(K):
                attended[b, k] = sum(attention[r, k] * region_of(regions[b, r]) for r in range(R))
                other[b, k] = sum(changed[r, k] * region_of(regions[b, r]) for r in range(R))
        times = factor if name == "v2a" else 1.0
        rows = scores[name]
        psi = [[times * (rows[k] @ attended[b, k]) for k in range(K)] for b in range(B)]
        psibar = [
            [times * (rows[k] @ other[int(images[b]), int(attributes[k])][channels]) for k in range(K)]
            for b in range(B)
        ]
        found[name] = tuple(torch.stack([torch.stack(row) for row in rows]) for rows in (psi, psibar))
    return found


def drawn(kind, seed):
    """What a step permutes by, drawn as the method draws it."""
    torch.manual_seed(seed)
    axes, orders = PERMUTED.get(kind, ()), {name: [torch.arange(n) for n in (B, K, C)] for name in AXIS}
    for name in AXIS:
        for place, axis, count in ((1, "attributes", K), (2, "channels", C)):
            if axis in axes:
                orders[name][place] = torch.randperm(count)
    for name in AXIS:
        if "batch" in axes:
            orders[name][0] = torch.randperm(B)
    return orders


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("kind", FOLLOWED)
@pytest.mark.parametrize("head", ["released", "prototypes"])
def test_followed_interventions_against_loops(problem, head, kind, through):
    """Both effects' losses and all gradients, from attended features permuted one by one."""
    regions, labels, classes = problem
    weights = {"lambda_causal": 0.7, "lambda_semantic": 0.3, "lambda_score": 1 / 3, "lambda_dis": 0.0}
    method = made(intervention=kind, counterfactual_gradient=through, head=head, **weights)
    with torch.no_grad():
        if head == "prototypes":
            method.prototypes.fit([(regions, labels)], classes)
            method.prototypes.rows.add_(0.1)
    torch.manual_seed(11)
    branches = method(regions)
    terms = method.loss(branches, labels, classes)
    terms["total"].backward()
    ours = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()

    total = 0.0
    z, seen = method.class_vectors(classes), classes.seen
    for name, (psi, psibar) in by_loops(method, regions, drawn(kind, 11)).items():
        torch.testing.assert_close(branches[name].attribute_scores, psi, rtol=1e-9, atol=1e-12)
        raw = causal = semantic = calibration = 0.0
        for b in range(B):
            kept = torch.ones(N, dtype=torch.bool) if head == "released" else seen
            for weight, score in (("raw", psi[b] @ z.T), ("causal", (psi[b] - psibar[b]) @ z.T)):
                loss = score[kept].exp().sum().log() - score[labels[b]]
                raw, causal = (raw + loss / B, causal) if weight == "raw" else (raw, causal + loss / B)
            shifted = psi[b] @ z.T + torch.where(seen, -1.0, 1.0)
            calibration = calibration + shifted.softmax(0)[~seen].sum() / B
        for k in range(K):
            both = torch.cat([psi[:, k], psibar[:, k]])
            p = (both - both.mean()) / (both.var(correction=0) + 1e-5).sqrt()
            g = classes.vectors[labels, k] / classes.vectors[seen].max()
            g = (g - g.mean()) / (g.var(correction=0) + 1e-5).sqrt()
            semantic = semantic + sum(abs(g[b] - (p[b] - p[B + b])) for b in range(B)) / (B * K)
        for term, value in (("cross_entropy", raw), ("causal", causal), ("semantic", semantic)):
            assert terms[f"{term}_{name}"].item() == pytest.approx(value.item(), rel=1e-9)
        total = total + raw / 3 + 0.7 * causal + 0.3 * semantic - 0.1 * calibration.log()
    assert terms["total"].item() == pytest.approx(total.item(), rel=1e-9)
    total.backward()
    for name, p in method.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-8, atol=1e-10)


def test_gradient_through_the_counterfactual_matters(problem):
    regions, labels, classes = problem
    found = []
    for through in (False, True):
        method = made(intervention="permuted_attributes", counterfactual_gradient=through)
        torch.manual_seed(3)
        terms = method.loss(method(regions), labels, classes)
        terms["total"].backward()
        found.append((terms["total"].item(), method.a2v_attention.grad, method.a2v_score.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)  # the same loss
    assert not torch.allclose(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2])  # the score map is always trained through


@pytest.mark.parametrize("kind", PERMUTED)
def test_permutations_are_drawn_anew_and_keep_what_is_attended(problem, kind):
    regions, _, _ = problem
    method = made(intervention=kind)
    draws = {tuple(method._counterfactual(method(regions)["a2v"]).flatten().tolist()) for _ in range(6)}
    assert len(draws) > 1
    if kind == "permuted_batch":  # every image gets another's attribute scores
        branch = method(regions)["a2v"]
        other = method._counterfactual(branch)
        assert sorted(map(tuple, other.tolist())) == sorted(map(tuple, branch.attribute_scores.tolist()))


def test_semantic_loss_by_hand():
    """Two images, two attributes; the standardised values are +-1 and +-1/sqrt(2) up to the 1e-5 of batch norm."""
    classes = ClassSpace(torch.tensor([[10.0, 0.0], [0.0, 0.0]], dtype=torch.float64), torch.tensor([True, True]))
    psi = torch.tensor([[300.0, 1.0], [100.0, 1.0]], dtype=torch.float64)
    psibar = torch.tensor([[100.0, 1.0], [300.0, 1.0]], dtype=torch.float64)
    # attribute 1: z = (1, -1), psi = (1, -1), psibar = (-1, 1): |1 - 2| and |-1 + 2|; attribute 2: all zero
    found = semantic_loss(psi, psibar, torch.tensor([0, 1]), classes)
    assert found.item() == pytest.approx((1 + 1 + 0 + 0) / 4, abs=1e-4)
    assert semantic_loss(psi[:1], psibar[:1], torch.tensor([0]), classes).isfinite()
    percent = ClassSpace(classes.vectors * 100, classes.seen)  # the unit of a table does not matter
    assert semantic_loss(psi, psibar, torch.tensor([0, 1]), percent).item() == pytest.approx(found.item(), abs=1e-12)
    values = standardised(torch.arange(6.0, dtype=torch.float64).view(3, 2) * 1000)
    torch.testing.assert_close(values.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(values.square().mean(0), torch.ones(2, dtype=torch.float64), atol=1e-9, rtol=0)
