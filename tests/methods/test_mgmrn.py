"""Mg-MRN against loops written from its equations, what reaches which parameter, and what is computed at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unseen.errors import UnseenError
from unseen.methods import ClassSpace
from unseen.methods.mgmrn import LEVELS, PRESETS, MgMRN, MgMRNSettings
from unseen.methods.mgmrn.decoder import Decoder
from unseen.methods.mgmrn.grouping import PartGrouping, ReleasedGrouping
from unseen.methods.mgmrn.losses import semantic_regression
from unseen.methods.mgmrn.refinement import Level, Refinement

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
K, D, N = 5, 4, 6
SEEN = torch.tensor([True, False, True, True, False, True])


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def filled(module, seed=0):
    """The module in float64, every parameter random."""
    module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(0.3 * random(*parameter.shape, seed=seed + i))
    return module


class Case:
    """A small network, stages, labels and classes."""

    def __init__(self, channels=(3, 4, 6), sizes=((8, 8), (4, 4), (2, 2)), dtype=torch.float64, **settings):
        self.settings = MgMRNSettings(**({"width": 32, "attention_width": 6, "parts": 3} | settings))
        generator = torch.Generator().manual_seed(0)
        self.network = MgMRN(channels, random(K, D).to(dtype), self.settings, generator)
        self.stages = [
            random(3, c, *size, seed=i).to(dtype) for i, (c, size) in enumerate(zip(channels, sizes, strict=True))
        ]
        self.labels = torch.tensor([0, 3, 5])
        self.classes = ClassSpace(random(N, K).to(dtype), SEEN)

    def loss(self, levels=LEVELS):
        return self.network.loss(self.network(self.stages, levels), self.labels, self.classes)

    def gradients(self, levels=LEVELS):
        self.network.zero_grad(set_to_none=True)
        self.loss(levels)["total"].backward()
        return {name: p.grad.clone() for name, p in self.network.named_parameters() if p.grad is not None}


# grouping


def literal_grouping(x, centres, smoothing):
    """The release's, region by region: the assignment, and the mean over parts of assignment times region."""
    b, _, h, w = x.shape
    out = torch.zeros_like(x)
    for n, i, j in np.ndindex(b, h, w):
        region = x[n, :, i, j]
        logits = [
            min(0, -(region - d).square().sum()) / (1 / (1 + math.exp(-s)))
            for d, s in zip(centres, smoothing, strict=True)
        ]
        assignment = torch.softmax(torch.stack([torch.as_tensor(v) for v in logits]), dim=0)
        out[n, :, i, j] = torch.stack([a * region for a in assignment]).mean(dim=0)
    return out


def test_released_grouping_is_a_division_that_trains_nothing():
    grouping = filled(ReleasedGrouping(4, 5))
    x = random(2, 4, 3, 2, seed=9).requires_grad_()
    out = grouping(x)
    torch.testing.assert_close(out, literal_grouping(x.detach(), *[p.detach() for p in grouping.parameters()]), **TIGHT)
    torch.testing.assert_close(out, x / 5, **TIGHT)
    weights = random(*out.shape, seed=8)
    (out * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights / 5, **TIGHT)
    for parameter in grouping.parameters():  # zero and not None: weight decay goes on
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_part_grouping_equals_its_loops():
    grouping = filled(PartGrouping(4, 3))
    centres, smoothing = grouping.centres.detach(), grouping.smoothing.detach()
    x = random(2, 4, 3, 2, seed=9)
    assignment, expected = np.zeros((2, 3, 3, 2)), x.clone()
    for n, i, j in np.ndindex(2, 3, 2):
        squares = [sum((x[n, c, i, j] - centres[p, c]) ** 2 for c in range(4)) for p in range(3)]
        near = [-squares[p] / math.sqrt(4) * (1 + math.exp(-smoothing[p])) for p in range(3)]
        assignment[n, :, i, j] = np.exp(near) / np.exp(near).sum()
    places = list(np.ndindex(3, 2))
    for n in range(2):
        mean = sum(x[n, :, i, j] for i, j in places) / 6
        for p in range(3):
            own = sum(assignment[n, p, i, j] * x[n, :, i, j] for i, j in places) / assignment[n, p].sum()
            for i, j in places:
                expected[n, :, i, j] += assignment[n, p, i, j] * (own - mean)
    with torch.no_grad():
        found = grouping.assignment(x)
        np.testing.assert_allclose(found, assignment, **TIGHT)
        np.testing.assert_allclose(found.sum(dim=1), 1, **TIGHT)
        torch.testing.assert_close(grouping(x), expected, **TIGHT)


def test_part_grouping_trains_centres_and_smoothing():
    grouping = filled(PartGrouping(4, 3))
    names = [name for name, _ in grouping.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(grouping, dict(zip(names, values, strict=True)), x)

    values = [p.detach().clone().requires_grad_() for p in grouping.parameters()]
    assert torch.autograd.gradcheck(run, (random(2, 4, 3, 2, seed=9).requires_grad_(), *values))
    case = Case(grouping="parts")
    gradients = case.gradients()
    for i in range(3):
        for name in ("centres", "smoothing"):
            assert (gradients[f"levels.{i}.grouping.{name}"] != 0).all()


def test_a_part_without_regions_is_no_trouble():
    grouping = filled(PartGrouping(4, 2)).float()
    with torch.no_grad():
        grouping.centres[1] = 1e4
    x = random(1, 4, 2, 2).float().requires_grad_()
    out = grouping(x)
    out.square().sum().backward()
    assert grouping.assignment(x)[:, 1].max() == 0
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in (x, *grouping.parameters()))


# levels, refinement, decoder: loops


def convolve(x, weight):
    """3x3, padded, without bias: ``(B, C, h, w)`` and ``(O, C, 3, 3)`` arrays."""
    b, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((b, len(weight), h, w))
    for i, j, u, v in np.ndindex(h, w, 3, 3):
        out[:, :, i, j] += padded[:, :, i + u, j + v] @ weight[:, :, u, v].T
    return out


def normalise(x, scale, shift, groups=32, eps=1e-5):
    out = np.zeros_like(x)
    size = x.shape[1] // groups
    for n, g in np.ndindex(len(x), groups):
        own = slice(g * size, (g + 1) * size)
        values = x[n, own]
        unit = (values - values.mean()) / math.sqrt(values.var() + eps)
        out[n, own] = unit * scale[own, None, None] + shift[own, None, None]
    return out


def resize(x, size):
    """Bilinear, corners on corners."""
    h, w = x.shape[2:]
    out = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        y = i * (h - 1) / (size[0] - 1) if size[0] > 1 else 0.0
        z = j * (w - 1) / (size[1] - 1) if size[1] > 1 else 0.0
        for a, b in np.ndindex(h, w):
            out[:, :, i, j] += max(0, 1 - abs(y - a)) * max(0, 1 - abs(z - b)) * x[:, :, a, b]
    return out


@pytest.mark.parametrize(("blocks", "sizes"), [(1, []), (1, [(2, 3)]), (2, [(4, 3), (2, 2)])])
def test_a_level_equals_its_loops(blocks, sizes):
    level = filled(Level(2, blocks, MgMRNSettings(width=64, parts=3)))
    x = random(2, 2, 7, 6, seed=9)
    expected = x.numpy() / 3
    for i in range(blocks):
        scale, shift = (p.detach().numpy() for p in level.norms[i].parameters())
        expected = normalise(convolve(expected, level.convolutions[i].weight.detach().numpy()), scale, shift)
        expected = np.maximum(expected, 0)
        if sizes:
            expected = resize(expected, sizes[i])
    np.testing.assert_allclose(level(x, sizes).detach(), expected, **TIGHT)


def test_resizing_is_the_factor_of_the_release_where_stages_halve():
    level = filled(Level(2, 2, MgMRNSettings(width=32)))
    x = random(1, 2, 12, 8, seed=9)
    expected = level.grouping(x)
    for convolution, norm in zip(level.convolutions, level.norms, strict=True):
        expected = F.relu(norm(convolution(expected)))
        expected = F.interpolate(expected, scale_factor=0.5, mode="bilinear", align_corners=True)
    torch.testing.assert_close(level(x, [(6, 4), (3, 2)]), expected, rtol=0, atol=0)


def test_refinement_equals_its_loops():
    refinement = filled(Refinement(2, 3))
    weights = {name: p.detach().numpy() for name, p in refinement.named_parameters()}
    x = random(2, 6, 3, 4, seed=9).numpy()
    expected = np.zeros((2, 3, 3, 4))
    for n in range(2):
        y = np.zeros((3, 3, 4))
        for c, i, j in np.ndindex(3, 3, 4):
            y[c, i, j] = sum(weights["mix.weight"][c, m, 0, 0] * x[n, m, i, j] for m in range(6))
        hidden = np.maximum(0, weights["channel.0.weight"] @ y.mean(axis=(1, 2)) + weights["channel.0.bias"])
        channel = 1 / (1 + np.exp(-(weights["channel.2.weight"] @ hidden + weights["channel.2.bias"])))
        spatial = 1 / (1 + np.exp(-convolve(y[None], weights["spatial.weight"])[0]))
        for c, i, j in np.ndindex(3, 3, 4):
            expected[n, c, i, j] = y[c, i, j] * channel[c] * spatial[c, i, j]
    np.testing.assert_allclose(refinement(torch.from_numpy(x)).detach(), expected, **TIGHT)


def decode(decoder, vectors, tokens):
    """Attention ``(B, K, R)`` and attribute scores ``(B, K)`` of tokens ``(B, R, C)``, projection by projection."""
    weights = {name: p.detach().numpy() for name, p in decoder.named_parameters()}

    def project(name, x):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]

    attention, scores = np.zeros((len(tokens), K, tokens.shape[1])), np.zeros((len(tokens), K))
    for n, image in enumerate(tokens):
        keys, values = [project("key", t) for t in image], [project("value", t) for t in image]
        for k in range(K):
            query = project("query", vectors[k])
            powers = [math.exp(sum(q * v for q, v in zip(query, key, strict=True))) for key in keys]
            attention[n, k] = [p / sum(powers) for p in powers]
            found = [sum(a * v[m] for a, v in zip(attention[n, k], values, strict=True)) for m in range(len(values[0]))]
            output = project("output", found)
            scores[n, k] = sum(o * u for o, u in zip(output, weights["classifiers"][k], strict=True))
    return attention, scores


@pytest.mark.parametrize("maps", [1, 2])
def test_the_folded_decoder_equals_its_loops(maps):
    decoder = filled(Decoder(D, K, 7, 3))
    vectors, tokens = random(K, D), [random(2, 7, 3, 2, seed=9 + i) for i in range(maps)]
    flat = torch.cat([t.flatten(2) for t in tokens], dim=2).transpose(1, 2)
    attention, scores = decode(decoder, vectors.numpy(), flat.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(decoder(vectors, tokens), scores, **TIGHT)
        branch = decoder.maps(vectors, tokens)
    np.testing.assert_allclose(branch.attribute_scores, scores, **TIGHT)
    np.testing.assert_allclose(branch.contributions.sum(dim=2), scores, **TIGHT)
    by_position = attention.reshape(2, K, maps, 6).sum(axis=2)
    np.testing.assert_allclose(branch.attention, by_position, **TIGHT)
    np.testing.assert_allclose(branch.attention.sum(dim=2), 1, **TIGHT)


def test_the_decoder_multiplies_tokens_by_2k_rows():
    decoder, (b, c, h, w, width) = Decoder(D, K, 64, 48), (2, 64, 3, 3, 48)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(random(K, D).float(), [torch.zeros(b, c, h, w)] * 2)
    tokens = 2 * b * 2 * h * w * c * 2 * K
    folding = 2 * K * width * (D + 3 * c)  # query, key, output, value; matrix-vector products of biases apart
    assert tokens + folding <= counter.get_total_flops() <= tokens + folding + 2 * K * (2 * width + c)


# losses and scores


def test_losses_and_scores_by_hand():
    case = Case(lambda_reg=0.7, tau=9.0)
    branches = case.network(case.stages)
    terms = case.network.loss(branches, case.labels, case.classes)
    z = case.classes.vectors.numpy()
    total, summed = 0.0, np.zeros((3, N))
    assert set(branches) == {f"level{level}" for level in LEVELS}
    for name, branch in branches.items():
        psi = branch.attribute_scores.detach().numpy()
        cosines = psi @ z.T / np.linalg.norm(psi, axis=1)[:, None] / np.linalg.norm(z, axis=1)
        summed += 9 * cosines
        entropy = regression = 0.0
        for n, y in enumerate(case.labels.tolist()):
            entropy += (math.log(sum(math.exp(9 * cosines[n, c]) for c in range(N) if SEEN[c])) - 9 * cosines[n, y]) / 3
            regression += 2 * (1 - cosines[n, y]) / K / 3
        assert terms[f"cross_entropy_{name}"].item() == pytest.approx(entropy, rel=1e-9)
        assert terms[f"regression_{name}"].item() == pytest.approx(regression, rel=1e-9)
        total += entropy + 0.7 * regression
    assert terms["total"].item() == pytest.approx(total, rel=1e-9)
    assert len(terms) == 7
    np.testing.assert_allclose(case.network.class_scores(branches, case.classes).detach(), summed, **TIGHT)
    one = {"level2": branches["level2"]}
    assert set(case.network.loss(one, case.labels, case.classes)) == {
        "total", "cross_entropy_level2", "regression_level2",
    }  # fmt: skip


def test_regression_is_the_angle():
    psi, classes = random(4, K, seed=3), ClassSpace(random(N, K), SEEN)
    labels = torch.tensor([0, 2, 3, 5])
    cosines = F.cosine_similarity(psi, classes.vectors[labels])
    expected = (2 * (1 - cosines) / K).mean()
    assert semantic_regression(psi, labels, classes).item() == pytest.approx(expected.item(), rel=1e-12)
    assert semantic_regression(7 * classes.vectors[labels], labels, classes).item() == pytest.approx(0, abs=1e-15)


def test_training_knows_nothing_of_unseen_classes():
    case = Case()
    before = case.loss()["total"]
    values = case.classes.vectors.clone()
    values[~SEEN] = 100 * random(2, K, seed=5)
    case.classes = ClassSpace(values, SEEN)
    assert case.loss()["total"] == before
    values[0] += 1
    case.classes = ClassSpace(values, SEEN)
    assert case.loss()["total"] != before


def test_contributions_add_up():
    case = Case()
    network = case.network
    branches, maps = network(case.stages), network.maps(case.stages)
    fused = network.fused_attribute_scores(branches)
    contributions = network.fused_contributions(maps)
    assert contributions.shape == (3, K, 4)
    torch.testing.assert_close(contributions.sum(dim=2), fused, **TIGHT)
    scores = fused @ network.class_vectors(case.classes).T
    torch.testing.assert_close(network.class_scores(branches, case.classes), scores, **TIGHT)
    for branch in maps.values():
        torch.testing.assert_close(branch.attention.sum(dim=2), torch.ones(3, K).double(), **TIGHT)


# without some of it


def test_without_refinement_a_level_has_its_own_tokens_alone():
    whole, bare = Case(), Case(refinement=False)
    weights = whole.network.state_dict()
    bare.network.load_state_dict({name: w for name, w in weights.items() if not name.startswith("refinements")})
    with torch.no_grad():
        features, found = whole.network.features(whole.stages), bare.network(bare.stages)
        assert list(found) == ["level1", "level2", "level3"]
        for m, branch in zip(LEVELS, found.values(), strict=True):
            expected = whole.network.decoders[m - 1](whole.network.vectors, [features[m]])
            torch.testing.assert_close(branch.attribute_scores, expected, **TIGHT)
            torch.testing.assert_close(bare.network.maps(bare.stages)[f"level{m}"].attribute_scores, expected, **TIGHT)
        refined = whole.network(whole.stages)
    assert [torch.equal(refined[n].attribute_scores, b.attribute_scores) for n, b in found.items()] == [False] * 2 + [
        True
    ]
    bare.stages[1:] = [torch.full_like(s, float("nan")) for s in bare.stages[1:]]
    assert torch.isfinite(bare.loss((1,))["total"])  # and deeper levels are not computed for it


@pytest.mark.parametrize("schedule", ["progressive", "joint"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_alone(level, schedule):
    settings = {"schedule": schedule, "grouping": "parts"}
    whole, alone = Case(**settings), Case(**settings, levels=str(level))
    weights, own = whole.network.state_dict(), ("vectors", f"levels.{level - 1}.", f"decoders.{level - 1}.")
    alone.network.load_state_dict({name: w for name, w in weights.items() if name.startswith(own)})
    assert alone.network.passes() == ((level,),)
    with torch.no_grad():
        feature = whole.network.features(whole.stages)[level]
        psi = F.normalize(whole.network.decoders[level - 1](whole.network.vectors, [feature]), dim=1)
        unit = F.normalize(alone.classes.vectors, dim=1)
        for m in LEVELS:
            if m != level:
                alone.stages[m - 1] = torch.full_like(alone.stages[m - 1], float("nan"))
        found = alone.network(alone.stages)
        scores = alone.network.class_scores(found, alone.classes)
        torch.testing.assert_close(scores, 20 * psi @ unit.T, **TIGHT)
        target = torch.tensor([SEEN[:y].sum() for y in alone.labels])
        expected = F.cross_entropy(scores[:, SEEN], target) + 0.1 * F.mse_loss(psi, unit[alone.labels])
        torch.testing.assert_close(alone.loss(None)["total"], expected, rtol=1e-6, atol=1e-6)
        for answers in (found, alone.network.maps(alone.stages), alone.network.parts(alone.stages)):
            assert set(answers) == {f"level{level}"}
    assert set(alone.gradients(None)) == {name for name, _ in alone.network.named_parameters()}


# what reaches what

REACH = {  # level: parts of the network that its loss moves, and stages that it reaches
    1: ({"levels.0", "refinements.0", "decoders.0"}, [True, False, False]),
    2: ({"levels.1", "refinements.1", "decoders.1"}, [False, True, False]),
    3: ({"levels.2", "decoders.2"}, [False, False, True]),
}


@pytest.mark.parametrize("grouping", ["released", "parts"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_moves_only_what_it_reaches(level, grouping):
    case = Case(grouping=grouping)
    parts, reached = REACH[level]
    for stage in case.stages:
        stage.requires_grad_()
    optimizer = torch.optim.SGD(case.network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    own = {name for name, _ in case.network.named_parameters() if ".".join(name.split(".")[:2]) in parts}
    assert len(own) > 10
    gradients = case.gradients((level,))
    assert set(gradients) == own
    assert [stage.grad is not None and bool(stage.grad.any()) for stage in case.stages] == reached
    idle = ("grouping.centres", "grouping.smoothing") if grouping == "released" else ()
    for name, gradient in gradients.items():
        assert bool(gradient.any()) != name.endswith(idle or "none"), name
    before = {name: p.detach().clone() for name, p in case.network.named_parameters()}
    optimizer.step()
    moved = {name for name, p in case.network.named_parameters() if not torch.equal(p, before[name])}
    assert own - moved <= {f"levels.{level - 1}.grouping.smoothing"}  # zero at the start, so decay leaves it there
    assert moved <= own


def test_the_joint_gradient_is_the_sum_of_the_levels():
    case = Case(grouping="parts")
    for stage in case.stages:
        stage.requires_grad_()
    joint = case.gradients()
    whole = [stage.grad.clone() for stage in case.stages]
    assert set(joint) == {name for name, _ in case.network.named_parameters()}
    sums = {}
    for stage in case.stages:
        stage.grad = None
    for level in LEVELS:
        for name, gradient in case.gradients((level,)).items():
            sums[name] = sums.get(name, 0) + gradient
    for name, gradient in joint.items():
        torch.testing.assert_close(gradient, sums[name], **TIGHT)
    for stage, gradient in zip(case.stages, whole, strict=True):
        torch.testing.assert_close(stage.grad, gradient, **TIGHT)
    terms = [case.loss((level,))["total"] for level in LEVELS]
    torch.testing.assert_close(case.loss()["total"], sum(terms), **TIGHT)


def test_the_key_bias_cancels():
    case = Case()
    before = case.network(case.stages)
    for name, gradient in case.gradients().items():
        if name.endswith("key.bias"):
            assert gradient.abs().max() < 1e-12
    with torch.no_grad():
        for decoder in case.network.decoders:
            decoder.key.bias += 3
    for name, branch in case.network(case.stages).items():
        torch.testing.assert_close(branch.attribute_scores, before[name].attribute_scores, **TIGHT)


def flops(case, levels, grad=False):
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(grad):
        terms = case.network.loss(case.network(case.stages, levels), case.labels, case.classes)
        if grad:
            terms["total"].backward()
    return counter.get_total_flops()


def test_a_pass_computes_what_its_level_needs():
    case = Case(channels=(8, 16, 32), sizes=((16, 16), (8, 8), (4, 4)))
    own, b, w = {}, 3, 32
    own[1] = 2 * b * 9 * w * (8 * 256 + w * 64)
    own[2] = 2 * b * 9 * w * 16 * 64
    own[3] = 2 * b * 9 * w * 32 * 16
    refine = {1: 2 * b * w * w * (2 * 16 + 9 * 16 + 2), 2: 2 * b * w * w * (16 + 9 * 16 + 2), 3: 0}
    decoder = {m: flops_of_decoder(case, 2 if m < 3 else 1) for m in LEVELS}
    scores = 2 * b * K * N
    for level in LEVELS:
        below = sum(own[m] for m in LEVELS if m >= level)
        assert flops(case, (level,)) == below + refine[level] + decoder[level] + scores
    together = sum(own.values()) + sum(refine.values()) + sum(decoder.values()) + 3 * scores
    assert flops(case, LEVELS) == together
    # with gradients: what only refines is not differentiated, nor kept for it
    kept = {m: f.requires_grad for m, f in case.network.features(case.stages, (1, 3)).items()}
    assert kept == {1: True, 2: False, 3: True}
    assert flops(case, (1,), True) <= own[2] + own[3] + 3 * (own[1] + refine[1] + decoder[1] + scores)
    case.stages[0] = torch.full_like(case.stages[0], float("nan"))
    assert torch.isfinite(case.loss((2, 3))["total"])


def flops_of_decoder(case, maps):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        case.network.decoders[0](case.network.vectors, [torch.zeros(3, 32, 4, 4).double()] * maps)
    return counter.get_total_flops()


# sizes, settings, start


@pytest.mark.parametrize(
    ("channels", "sizes"),
    [
        ((32, 96, 1280), ((28, 28), (14, 14), (7, 7))),  # a MobileNet
        ((3, 4, 6), ((15, 13), (8, 7), (4, 4))),  # odd, rounded up
        ((3, 4, 6), ((13, 9), (6, 4), (3, 2))),  # odd, rounded down
        ((3, 4, 6), ((8, 8), (4, 4), (4, 4))),  # a dilated last stage
        ((3, 4, 6), ((4, 4), (2, 2), (1, 1))),
    ],
)
@pytest.mark.parametrize("grouping", ["released", "parts"])
def test_stages_of_other_shapes(channels, sizes, grouping):
    case = Case(channels, sizes, torch.float32, width=64, grouping=grouping)
    features = case.network.features(case.stages)
    assert {f.shape for f in features.values()} == {(3, 64, *sizes[-1])}
    assert case.network.maps(case.stages)["level1"].attention.shape == (3, K, math.prod(sizes[-1]))
    gradients = case.gradients()
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert gradients["levels.0.convolutions.0.weight"].any()


def test_settings_that_do_not_fit():
    with pytest.raises(
        UnseenError,
        match=r"setting width: 100 channels is not a multiple of the 32 normalization groups — use a multiple of 32",
    ):
        MgMRNSettings(width=100)
    with pytest.raises(
        UnseenError, match='setting grouping: "none" is not a valid choice — use one of released, parts'
    ):
        MgMRNSettings(grouping="none")
    with pytest.raises(
        UnseenError, match='setting schedule: "both" is not a valid choice — use one of progressive, joint'
    ):
        MgMRNSettings(schedule="both")
    with pytest.raises(UnseenError, match='setting levels: "4" is not a valid choice — use one of all, 1, 2, 3'):
        MgMRNSettings(levels="4")
    for wrong in ({"width": 0}, {"parts": 0}, {"attention_width": 0}, {"tau": 0.0}, {"lambda_reg": -1.0}):
        with pytest.raises(UnseenError):
            MgMRNSettings(**wrong)
    with pytest.raises(UnseenError, match="Mg-MRN: 2 stages — pass three"):
        MgMRN((3, 4), random(K, D), MgMRNSettings(width=32))
    changed = MgMRNSettings.changed(PRESETS["sun"].settings, {"width": "64", "schedule": "joint"})
    assert changed == MgMRNSettings(width=64, schedule="joint", tau=25.0, lambda_reg=1.0)


def test_presets_are_the_release_s():
    """The released settings."""
    found = {}
    for name in ("cub", "sun", "awa2"):
        s, f = PRESETS[name].settings, PRESETS[name].recipe
        assert (s.parts, s.width, s.attention_width, s.grouping, s.schedule) == (
            5,
            2048,
            1024,
            "released",
            "progressive",
        )
        assert (f.optimizer, f.momentum, f.weight_decay, f.lr_every, f.epochs, f.batches) == (
            "sgd", 0.9, 1e-5, 10, 30, 300,
        )  # fmt: skip
        assert (f.sampler, round(448 * f.resize), f.flip) == ("classes", 512, True)
        assert (s.initial, f.batch_norm) == ("released", "batch")
        expected = [f.lr * f.lr_factor ** (epoch // 10) for epoch in range(1, 31)]  # falls at 10, 20 and 30
        assert [f.lr_of(epoch) for epoch in range(1, 31)] == pytest.approx(expected, rel=1e-12)
        found[name] = (s.tau, s.lambda_reg, f.lr, f.lr_factor, f.batch_size // f.shots, f.shots)
    assert found == {
        "cub": (20, 0.1, 5e-4, 0.1, 8, 2),
        "sun": (25, 1, 5e-4, 0.5, 8, 2),
        "awa2": (20, 1, 5e-5, 0.5, 16, 2),
    }


def test_presets_of_ours_say_what_differs():
    recommended, recipe = PRESETS["recommended"].settings, PRESETS["recommended"].recipe
    assert (recommended.initial, recipe.batch_norm, recipe.lr_early) == ("plain", "frozen", 0)
    assert [recipe.lr_of(e) for e in (1, 6, 7, 8)] == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5])


def test_released_initial_weights():
    """Kaiming's: uniform in +-sqrt(3/inputs) where r is mixed; normal with variance 2/C, at least 1e-5, for centres."""
    channels, vectors = (512, 1024, 2048), random(6, D).float()
    network = MgMRN(channels, vectors, MgMRNSettings(width=128, parts=50), torch.Generator().manual_seed(0))
    for level, c in zip(network.levels, channels, strict=True):
        centres = level.grouping.centres.detach()
        assert centres.min().item() == pytest.approx(1e-5)
        assert (centres == centres.min()).double().mean().item() == pytest.approx(0.5, abs=0.02)
        above = centres[centres > centres.min()]
        assert above.square().mean().sqrt().item() == pytest.approx((2 / c) ** 0.5, rel=0.03)
        assert above.mean().item() == pytest.approx((2 / c) ** 0.5 * (2 / np.pi) ** 0.5, rel=0.03)
    for refinement, inputs in zip(network.refinements[:2], (256, 128), strict=True):
        weight, bound = refinement.mix.weight, (3 / inputs) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(inputs**-0.5, rel=0.02)  # of a uniform distribution
        assert refinement.spatial.weight.abs().max() <= (9 * 128) ** -0.5


def test_initial_weights_come_from_the_generator():
    vectors = random(40, D).float()

    def make(seed):
        settings = MgMRNSettings(width=64, initial="plain")
        return MgMRN((3, 4, 6), vectors, settings, torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    first, again, other = make(0), make(0), make(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.decoders[0].key.weight, other.decoders[0].key.weight)
    assert torch.equal(first.vectors, vectors)
    assert first.vectors.data_ptr() != vectors.data_ptr()
    assert "vectors" in first.state_dict()
    seen = set()
    for module in first.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            for p in module.parameters():
                seen.add(p)
                assert 0.8 * bound < p.abs().max() <= bound
                assert p.unique().numel() > 1
        elif isinstance(module, nn.GroupNorm):
            seen.update(module.parameters())
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    for decoder, level in zip(first.decoders, first.levels, strict=True):
        seen.update((decoder.classifiers, level.grouping.centres, level.grouping.smoothing))
        assert 0.9 < decoder.classifiers.std() < 1.1
        assert level.grouping.centres.unique().numel() == level.grouping.centres.numel()
        assert not level.grouping.smoothing.any()
    assert seen == set(first.parameters())


def train(case, steps, backbone=None):
    """SGD steps on the case's one batch, the schedule's passes each; the backbone, if any, is trained along."""
    stages = case.stages
    parameters = [*case.network.parameters(), *(backbone.parameters() if backbone else ())]
    optimizer = torch.optim.SGD(parameters, lr=0.005, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        for levels in case.network.passes():
            case.stages = [backbone(stage) for stage in stages] if backbone else stages
            case.loss(levels)["total"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def test_parts_are_the_assignments_of_the_stages():
    case = Case(grouping="parts")
    with torch.no_grad():
        for m, (name, found) in zip(LEVELS, case.network.parts(case.stages).items(), strict=True):
            grouping = case.network.levels[m - 1].grouping
            assert name == f"level{m}"
            torch.testing.assert_close(found, grouping.assignment(case.stages[m - 1]), rtol=0, atol=0)
    assert Case(grouping="released").network.parts(case.stages) == {}


def test_passes():
    assert Case().network.passes() == ((1,), (2,), (3,))
    assert Case(schedule="joint").network.passes() == ((1, 2, 3),)


@pytest.mark.parametrize("trained", [False, True])
def test_schedules_differ_by_the_backbone_alone(trained):
    cases = [Case(schedule=schedule, grouping="parts") for schedule in ("progressive", "joint")]
    for case in cases:
        train(case, 3, filled(nn.PReLU()) if trained else None)  # one parameter, which all stages share
    first, second = (dict(case.network.named_parameters()) for case in cases)
    apart = max((p - second[name]).abs().max().item() for name, p in first.items())
    assert apart > 1e-5 if trained else apart < 1e-12


@pytest.mark.parametrize("grouping", ["released", "parts"])
def test_training_learns_the_batch(grouping):
    case = Case(dtype=torch.float32, grouping=grouping)
    with torch.no_grad():
        before = case.loss()["total"].item()
    train(case, 30)
    with torch.no_grad():
        assert case.loss()["total"].item() < 0.2 * before
        scores = case.network.class_scores(case.network(case.stages), case.classes)
    assert scores.masked_fill(~SEEN, -99).argmax(dim=1).tolist() == case.labels.tolist()
