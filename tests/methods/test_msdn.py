"""MSDN against loops written from its equations, and what a training step may cost."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.base import Branch
from unseen.methods.losses import cubed_distance, jensen_shannon, posterior_distance, self_calibration
from unseen.methods.msdn import MSDN, MSDNSettings

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
# B, R, C, K, D: the vectors are folded into the weights in the first (K small), not in the second (D small)
FOLDED, UNFOLDED = (3, 4, 6, 3, 5), (3, 4, 6, 7, 2)
SEEN = np.array([True, False, True, True, False])


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def subnet(m, f, weights, a):
    """Attention (B, K, R) of a sub-network and its attribute scores (B, K), number by number."""
    (batch, count, channels), (attributes, dim) = np.shape(f), np.shape(a)

    def bilinear(name, k, region):  # a_k' W f_r
        return sum(a[k][i] * weights[name][i][j] * region[j] for i in range(dim) for j in range(channels))

    def transposed(name, k, region):  # f_r' W a_k
        return sum(region[j] * weights[name][j][i] * a[k][i] for i in range(dim) for j in range(channels))

    attention, psi = np.zeros((batch, attributes, count)), np.zeros((batch, attributes))
    for n in range(batch):
        score = bilinear if m == "a2v" else transposed
        s = np.array([[score(f"{m}_score", k, region) for region in f[n]] for k in range(attributes)])
        e = np.array([[bilinear(f"{m}_attention", k, region) for region in f[n]] for k in range(attributes)])
        attention[n] = [softmax(row) for row in e] if m == "a2v" else np.transpose([softmax(row) for row in e.T])
        for k in range(attributes):
            psi[n, k] = sum(attention[n, k, r] * s[k, r] for r in range(count))
    return attention, psi


def distillation(first, second, kind):
    """The loss between two sub-networks' class scores (B, C), image by image."""
    distance, jsd, batch = 0.0, 0.0, len(first)
    for one, two in zip(first, second, strict=True):
        p, q = softmax(one), softmax(two)
        d = [x - y for x, y in zip(one, two, strict=True)]
        if kind == "released":
            distance += sum(abs(x) ** 3 for x in d) / math.sqrt(sum(x * x for x in d)) / batch
        else:
            distance += sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) / batch
        for x, y in zip(p, q, strict=True):
            mixture = (x + y) / 2
            jsd += (x * math.log(x / mixture) + y * math.log(y / mixture)) / 2 / batch
    return distance + jsd


def loops(regions, labels, values, weights, cfg, subnets=("a2v", "v2a")):
    """MSDN from its equations, one number at a time: attention, attribute scores, class scores and losses."""
    batch, classes = len(regions), len(values)
    f = [[r / math.sqrt(sum(x * x for x in r)) for r in image] for image in regions]
    z = np.maximum(values, 0) if cfg.clip_negative else values
    z = [row / math.sqrt(sum(x * x for x in row)) for row in z]
    a = weights["vectors"]
    if cfg.renormalize_vectors:
        a = [row / math.sqrt(sum(x * x for x in row)) for row in a]
    b = [-cfg.margin if seen else cfg.margin for seen in SEEN]

    out = {"attention": {}, "psi": {}, "plain": {}, "scores": {}}
    terms = {}
    for m in subnets:
        attention, psi = subnet(m, f, weights, a)
        plain = [[sum(psi[n, k] * z[c][k] for k in range(len(a))) for c in range(classes)] for n in range(batch)]
        out["attention"][m], out["psi"][m], out["plain"][m] = attention, psi, np.array(plain)
        out["scores"][m] = np.array([[plain[n][c] + b[c] for c in range(classes)] for n in range(batch)])
        terms[f"cross_entropy_{m}"] = np.mean([-math.log(softmax(out["plain"][m][n])[labels[n]]) for n in range(batch)])
        mass = [sum(softmax(out["scores"][m][n])[c] for c in range(classes) if not SEEN[c]) for n in range(batch)]
        terms[f"self_calibration_{m}"] = -math.log(sum(mass) / batch)
    out["terms"] = terms
    if len(subnets) == 2:
        terms["distillation"] = distillation(out["scores"]["a2v"], out["scores"]["v2a"], cfg.distillation)
        out["fused"] = sum(w * out["scores"][m] for w, m in zip(cfg.fusion, subnets, strict=True))
    else:
        out["fused"] = out["scores"][subnets[0]]
    return out


class Case:
    """A method with random weights, random regions, labels and classes."""

    def __init__(self, size=FOLDED, seed=0, **settings):
        rng = np.random.default_rng(seed)
        b, r, c, k, d = size
        self.settings = MSDNSettings(**({"lambda_cal": 0.3, "lambda_dis": 0.2, "fusion": (0.7, 0.3)} | settings))
        self.method = MSDN(c, torch.from_numpy(rng.standard_normal((k, d))), self.settings)
        with torch.no_grad():
            for parameter in self.method.parameters():
                parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape))))
        self.regions = torch.from_numpy(rng.standard_normal((b, r, c)))
        self.labels = torch.from_numpy(rng.choice(np.flatnonzero(SEEN), b))
        self.values = rng.standard_normal((len(SEEN), k))
        self.values[:, 0] = abs(self.values[:, 0])  # something is left where the negative ones are cut off
        self.classes = ClassSpace(torch.from_numpy(self.values), torch.from_numpy(SEEN))

    def loops(self):
        weights = {name: p.detach().numpy() for name, p in self.method.named_parameters()}
        subnets = ("a2v", "v2a") if self.settings.subnets == "both" else (self.settings.subnets,)
        return loops(self.regions.numpy(), self.labels.numpy(), self.values, weights, self.settings, subnets)

    def run(self, regions=None):
        branches = self.method(self.method.prepare(self.regions if regions is None else regions))
        return branches, self.method.loss(branches, self.labels, self.classes)


CASES = {
    "released": {},
    "paper": {"distillation": "paper"},
    "awa2": {"renormalize_vectors": True, "clip_negative": True, "fusion": (1.0, 0.0)},
    "wide margin": {"margin": 2.5},
    "a2v alone": {"subnets": "a2v"},
    "v2a alone": {"subnets": "v2a"},
    "no calibration": {"lambda_cal": 0.0},
    "no distillation": {"distillation": "none"},
    "distillation of weight 0": {"lambda_dis": 0.0},
}


@pytest.mark.parametrize("size", [FOLDED, UNFOLDED], ids=["folded", "unfolded"])
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_outputs_and_losses_equal_the_loops(size, changes):
    case = Case(size, **changes)
    expected = case.loops()
    branches, terms = case.run()
    assert set(branches) == set(expected["psi"])
    for name, psi in expected["psi"].items():
        np.testing.assert_allclose(branches[name].attribute_scores.detach(), psi, **TIGHT)
    maps = case.method.maps(case.regions)
    for name, attention in expected["attention"].items():
        np.testing.assert_allclose(maps[name].attention.detach(), attention, **TIGHT)
    scores = case.method.class_scores(branches, case.classes)
    np.testing.assert_allclose(scores.detach(), expected["fused"], **TIGHT)

    cfg = case.settings
    weights = {"cross_entropy": 1, "self_calibration": cfg.lambda_cal, "distillation": cfg.lambda_dis}
    if cfg.distillation == "none":
        weights["distillation"] = 0
    total = 0.0
    for name, value in expected["terms"].items():
        weight = next(w for start, w in weights.items() if name.startswith(start))
        total += weight * value
        assert (name in terms) == (weight != 0)
        if name in terms:
            assert terms[name].item() == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert terms["total"].item() == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert len(terms) == 1 + sum(name in terms for name in expected["terms"])


@pytest.mark.parametrize("size", [FOLDED, UNFOLDED], ids=["folded", "unfolded"])
@pytest.mark.parametrize("changes", [{}, {"distillation": "paper"}, CASES["awa2"]], ids=["released", "paper", "awa2"])
def test_gradients_equal_finite_differences(size, changes):
    case = Case((2, 3, *size[2:]), **changes)
    names = [name for name, _ in case.method.named_parameters()]
    regions = case.method.prepare(case.regions)

    def total(*values):
        branches = functional_call(case.method, dict(zip(names, values, strict=True)), (regions,))
        return case.method.loss(branches, case.labels, case.classes)["total"]

    values = tuple(p.detach().clone().requires_grad_() for p in case.method.parameters())
    assert torch.autograd.gradcheck(total, values, fast_mode=True)


def test_the_sizes_choose_the_contraction():
    """Which of the two orders runs shows in the rows of the product with the regions: 4K or 4D."""
    for size in (FOLDED, UNFOLDED):
        case = Case(size)
        b, r, c, k, d = size
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            case.method(case.regions)
        big = 2 * b * r * c * 4
        small = 4 * 2 * k * d * c if size == FOLDED else 2 * b * r * 4 * d * k
        assert counter.get_total_flops() == big * (k if size == FOLDED else d) + small


def test_one_subnet_of_two_equals_it_alone():
    both, alone = Case(), {name: Case(subnets=name) for name in ("a2v", "v2a")}
    branches, terms = both.run()
    for name, case in alone.items():
        case.method.load_state_dict(both.method.state_dict(), strict=False)
        case.regions, case.labels, case.classes = both.regions, both.labels, both.classes
        mine, its = case.run()
        torch.testing.assert_close(mine[name].attribute_scores, branches[name].attribute_scores, **TIGHT)
        for term in ("cross_entropy", "self_calibration"):
            torch.testing.assert_close(its[f"{term}_{name}"], terms[f"{term}_{name}"], **TIGHT)
        assert {n for n, _ in case.method.named_parameters()} == {"vectors", f"{name}_score", f"{name}_attention"}


def test_initial_weights():
    method = create_method("msdn", channels=400, vectors=torch.arange(1, 601.0).reshape(20, 30), seed=5)
    torch.testing.assert_close(method.vectors.norm(dim=1), torch.ones(20))
    torch.testing.assert_close(method.vectors[3] * 91, torch.arange(91.0, 121) * method.vectors[3, 0])
    assert method.a2v_score.mean().abs() < 0.05
    assert method.a2v_score.std().item() == pytest.approx(1, abs=0.03)
    for name in ("a2v_attention", "v2a_score", "v2a_attention"):
        assert not getattr(method, name).any()
    again = create_method("msdn", channels=400, vectors=torch.ones(20, 30), seed=5)
    other = create_method("msdn", channels=400, vectors=torch.ones(20, 30), seed=6)
    assert torch.equal(method.a2v_score, again.a2v_score)
    assert not torch.equal(method.a2v_score, other.a2v_score)


# distillation


@pytest.mark.parametrize("distillation", ["released", "paper"])
@pytest.mark.parametrize("level", [0.0, 1.7])
def test_subnets_that_agree_have_nothing_to_distil(distillation, level):
    case = Case(distillation=distillation)
    scores = torch.full((3, 3), level, dtype=torch.float64) * torch.arange(3)
    one, two = (scores.clone().requires_grad_() for _ in range(2))
    terms = case.method.loss({"a2v": Branch(one), "v2a": Branch(two)}, case.labels, case.classes)
    assert terms["distillation"].item() == pytest.approx(0, abs=1e-15)
    terms["distillation"].backward()
    for gradient in (one.grad, two.grad):
        np.testing.assert_allclose(gradient, 0, atol=1e-15)
    # one image of agreement among others does not disturb theirs
    other = (scores + torch.tensor([[0.0], [1.0], [2.0]])).requires_grad_()
    value = cubed_distance(scores, other)
    value.backward()
    assert torch.isfinite(other.grad).all()
    assert not other.grad[0].any()
    assert other.grad[1:].all()


@pytest.mark.parametrize("distillation", ["released", "paper"])
def test_a_method_of_zeros_can_be_trained(distillation):
    """Both sub-nets then say 0 for everything, exactly."""
    case = Case(distillation=distillation)
    with torch.no_grad():
        for name, parameter in case.method.named_parameters():
            if name != "vectors":
                parameter.zero_()
    _, terms = case.run()
    assert terms["distillation"] == 0
    terms["total"].backward()
    for parameter in case.method.parameters():
        assert torch.isfinite(parameter.grad).all()
    assert case.method.a2v_score.grad.any()


def test_losses_by_hand():
    scores = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=torch.float64)
    # softmax: (1/4, 3/4) and (1/2, 1/2)
    assert self_calibration(scores, torch.tensor([1])).item() == pytest.approx(-math.log((3 / 4 + 1 / 2) / 2))
    assert self_calibration(scores, torch.tensor([0, 1])).item() == pytest.approx(0)
    certain = torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]])
    assert jensen_shannon(*certain).item() == pytest.approx(math.log(2))
    assert posterior_distance(*certain).item() == pytest.approx(2)
    first, second = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 8.0], [1.0, 1.0]])
    assert cubed_distance(first, second).item() == pytest.approx((27 + 64) / 5 / 2)
    for distance in (jensen_shannon, posterior_distance, cubed_distance):
        assert distance(first, second).item() == pytest.approx(distance(second, first).item())


# maps, margin, fusion, invariance


@pytest.mark.parametrize("size", [FOLDED, UNFOLDED])
@pytest.mark.parametrize("changes", [{}, {"subnets": "v2a"}, {"fusion": (1.0, 0.0)}])
def test_contributions_sum_to_the_scores(size, changes):
    case = Case(size, **changes)
    branches, _ = case.run()
    maps = case.method.maps(case.regions)
    assert set(maps) == set(branches)
    b, r, _, k, _ = size
    for name, branch in maps.items():
        assert branch.attention.shape == branch.contributions.shape == (b, k, r)
        torch.testing.assert_close(branch.contributions.sum(2), branches[name].attribute_scores, **TIGHT)
        torch.testing.assert_close(branch.attribute_scores, branches[name].attribute_scores, **TIGHT)
        axis = 2 if name == "a2v" else 1  # over regions, over attributes
        one = torch.ones(b, k if axis == 2 else r, dtype=torch.float64)
        torch.testing.assert_close(branch.attention.sum(axis), one)
        assert (branch.attention > 0).all()
        assert not torch.allclose(branch.attention.sum(3 - axis), torch.ones(()).double())
    fused = case.method.fused_contributions(maps)
    assert fused.shape == (b, k, r)
    torch.testing.assert_close(fused.sum(2), case.method.fused_attribute_scores(branches), **TIGHT)


def test_the_margin_moves_unseen_against_seen_classes():
    none, some = Case(margin=0.0), Case(margin=0.8)
    (branches, plain), (_, moved) = none.run(), some.run()
    difference = some.method.class_scores(branches, some.classes) - none.method.class_scores(branches, none.classes)
    expected = torch.where(torch.from_numpy(SEEN), -0.8, 0.8).double().expand(3, 5)  # fusion sums to 1
    torch.testing.assert_close(difference, expected)
    for name in ("a2v", "v2a"):
        torch.testing.assert_close(plain[f"cross_entropy_{name}"], moved[f"cross_entropy_{name}"])
        assert moved[f"self_calibration_{name}"] < plain[f"self_calibration_{name}"]
    doubled = replace(some.settings, fusion=(1.4, 0.6))
    some.method.settings = doubled
    torch.testing.assert_close(
        some.method.class_scores(branches, some.classes),
        2 * (none.method.class_scores(branches, none.classes) + expected),
    )


def test_classes_without_unseen_ones_have_no_calibration():
    case = Case()
    case.classes = ClassSpace(torch.from_numpy(case.values), torch.ones(5, dtype=torch.bool))
    _, terms = case.run()
    assert not any(name.startswith("self_calibration") for name in terms)
    assert torch.isfinite(terms["total"])


@pytest.mark.parametrize(("fusion", "left"), [((1.0, 0.0), "a2v"), ((0.0, 1.0), "v2a")])
def test_a_subnet_without_weight_is_skipped_in_evaluation(fusion, left):
    case = Case(fusion=fusion)
    whole, _ = case.run()
    assert set(whole) == {"a2v", "v2a"}
    case.method.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        some = case.method(case.method.prepare(case.regions))
    assert set(some) == {left}
    b, r, c, k, d = FOLDED
    assert counter.get_total_flops() == 2 * (2 * b * r * c * k + 2 * k * d * c)
    torch.testing.assert_close(
        case.method.class_scores(some, case.classes), case.method.class_scores(whole, case.classes), **TIGHT
    )
    assert set(case.method.maps(case.regions)) == {"a2v", "v2a"}


def test_some_subnet_must_have_weight():
    with pytest.raises(UnseenError, match="setting fusion: both sub-nets have weight 0"):
        MSDNSettings(fusion=(0.0, 0.0))
    assert MSDNSettings(fusion=(0.0, 0.0), subnets="a2v").subnets == "a2v"
    with pytest.raises(UnseenError, match='setting subnets: "c2v" is not a valid choice — use one of both, a2v, v2a'):
        MSDNSettings(subnets="c2v")
    with pytest.raises(UnseenError, match='setting distillation: "old" is not a valid choice'):
        MSDNSettings(distillation="old")


@pytest.mark.parametrize("size", [FOLDED, UNFOLDED])
def test_region_order_and_feature_scale_do_not_matter(size):
    case = Case(size)
    expected, _ = case.run()
    order = torch.randperm(size[1], generator=torch.Generator().manual_seed(1))
    scale = torch.rand(*size[:2], 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 9 + 0.1
    for regions in (case.regions[:, order], case.regions * scale):
        found, _ = case.run(regions)
        for name, branch in expected.items():
            torch.testing.assert_close(found[name].attribute_scores, branch.attribute_scores, **TIGHT)
    maps, moved = case.method.maps(case.regions), case.method.maps(case.regions[:, order])
    torch.testing.assert_close(moved["a2v"].contributions, maps["a2v"].contributions[:, :, order], **TIGHT)


def test_class_vectors():
    case = Case()
    values = torch.tensor([[3.0, -4.0, 0.0], [-1.0, -1.0, 2.0]])
    classes = ClassSpace(values, torch.tensor([True, False]))
    torch.testing.assert_close(case.method.class_vectors(classes)[0], torch.tensor([0.6, -0.8, 0.0]))
    case.method.settings = replace(case.settings, clip_negative=True)
    torch.testing.assert_close(case.method.class_vectors(classes), torch.tensor([[1.0, 0, 0], [0, 0, 1]]))


# gradients reach everything, at the cost of two products


def test_every_parameter_learns():
    """At the start v2a_score is zero, so where V2A looks changes nothing: its attention learns from the second step."""
    vectors = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    method = create_method("msdn", channels=6, vectors=vectors)
    case = Case()
    classes = case.classes.to("cpu", torch.float32)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    start = {name: p.detach().clone() for name, p in method.named_parameters()}
    reached = []
    for _ in range(2):
        optimizer.zero_grad()
        method.loss(method(method.prepare(case.regions.float())), case.labels, classes)["total"].backward()
        reached.append({name for name, p in method.named_parameters() if p.grad.any()})
        optimizer.step()
    assert reached[0] == {"vectors", "a2v_score", "a2v_attention", "v2a_score"}
    assert reached[1] == set(start)
    assert all((p != start[name]).all() for name, p in method.named_parameters())


class Made(TorchDispatchMode):
    """Sizes of the tensors that are made, views of what was there before apart."""

    def __init__(self, *given):
        super().__init__()
        self.given = {t.untyped_storage().data_ptr() for t in given}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.given:
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("distillation", ["released", "paper"])
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(
    ("b", "r", "c", "k", "d", "folded"),
    [
        (4, 49, 64, 6, 20, True),
        (4, 49, 64, 20, 6, False),
        (2, 9, 256, 8, 12, False),
        (2, 49, 256, 8, 12, True),
        (20, 9, 16, 30, 5, False),
    ],
)
def test_a_step_costs_two_products_and_no_larger_tensor(b, r, c, k, d, folded, renormalize, distillation):
    n = 1000
    generator = torch.Generator().manual_seed(0)
    settings = MSDNSettings(renormalize_vectors=renormalize, distillation=distillation)
    method = create_method("msdn", channels=c, vectors=torch.randn(k, d, generator=generator), settings=settings)
    regions = method.prepare(torch.randn(b, r, c, generator=generator))
    classes = ClassSpace(torch.randn(n, k, generator=generator), torch.arange(n) % 4 > 0)
    labels = torch.ones(b, dtype=torch.long)
    assert classes.unit.numel()
    assert classes.unseen_indices.numel()  # kept from step to step
    given = (regions, classes.unit, classes.vectors, *method.parameters())
    with FlopCounterMode(display=False) as flops, Made(*given) as made:
        method.loss(method(regions), labels, classes)["total"].backward()
    weights = 4 * c * (k if folded else d)
    scores = 2 * b * n  # of both sub-nets
    assert made.largest <= max(b * r * 4 * k, b * r * 4 * d * (not folded), weights, scores)
    assert made.largest < b * k * n
    rows = k if folded else d
    products = 2 * (2 * b * r * c * 4 * rows)  # forward, and the weights' gradient
    vectors = 3 * (4 * 2 * k * d * c if folded else 2 * b * r * 4 * d * k)
    scores = 2 * (2 * 2 * b * k * n)  # of both sub-nets, forward and backward
    assert flops.get_total_flops() == products + vectors + scores
