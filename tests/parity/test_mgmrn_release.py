"""Mg-MRN equals what the authors' release (stage widths corrected) computes, on every golden file of its form."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from places import PARITY
from unseen.methods import ClassSpace
from unseen.methods.mgmrn import LEVELS, MgMRN, MgMRNSettings

FILES = sorted(PARITY.glob("mgmrn_*.npz")) if PARITY.is_dir() else []
pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden numbers at {PARITY} (set UNSEEN_PARITY)")
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
FLOAT32 = {"rtol": 3e-7, "atol": 1e-7}  # the release's losses were recorded in float32


def names(levels=LEVELS):
    """Parameter names, the release's to ours."""
    found = {}
    for level in levels:
        i, stage = level - 1, f"s{level + 2}"
        found[f"V_att_final_branch{level}"] = f"decoders.{i}.classifiers"
        for theirs, ours in (("QueryW", "query"), ("KeyW", "key"), ("ValueW", "value"), ("W_o", "output")):
            for kind in ("weight", "bias"):
                found[f"{theirs}{level}.{kind}"] = f"decoders.{i}.{ours}.{kind}"
        found[f"{stage}.group.weight"] = f"levels.{i}.grouping.centres"
        found[f"{stage}.group.smooth_factor"] = f"levels.{i}.grouping.smoothing"
        for block in range(2 if level == 1 else 1):
            theirs = f"{stage}.conv.block.{block}.block"
            found[f"{theirs}.0.weight"] = f"levels.{i}.convolutions.{block}.weight"
            for kind in ("weight", "bias"):
                found[f"{theirs}.1.{kind}"] = f"levels.{i}.norms.{block}.{kind}"
        if level < 3:
            found[f"lateral_conv{level}.conv.weight"] = f"refinements.{i}.mix.weight"
            found[f"lateral_conv{level}.s_attn.0.weight"] = f"refinements.{i}.spatial.weight"
            for layer in (0, 2):
                for kind in ("weight", "bias"):
                    theirs = f"lateral_conv{level}.c_attn.{layer}.{kind}"
                    found[theirs] = f"refinements.{i}.channel.{layer}.{kind}"
    return found


class Golden:
    def __init__(self, path):
        self.z = np.load(path, allow_pickle=False)
        self.cfg = cfg = json.loads(self.z["cfg"].item())
        self.settings = MgMRNSettings(
            parts=cfg["parts"],
            width=cfg["channels"],
            attention_width=cfg["mid"],
            tau=cfg["scale"],
            lambda_reg=cfg["lambda_reg"],
        )
        attributes = self.tensor("in.class_attributes")
        self.classes = ClassSpace(attributes, torch.arange(len(attributes)) < int(self.z["in.n_seen"]))
        self.labels = self.tensor("in.labels")

    def tensor(self, key):
        return torch.from_numpy(self.z[key])

    def stages(self, step):
        return [self.tensor(f"in.{name}")[step] for name in ("c3", "c4", "c5")]

    def network(self):
        channels = [s.shape[1] for s in self.stages(0)]
        made = MgMRN(channels, self.tensor("in.word_vectors").double(), self.settings)
        ours = dict(made.named_parameters())
        assert set(names().values()) == set(ours)
        assert set(names()) == {key.removeprefix("in.param.") for key in self.z if key.startswith("in.param.")}
        with torch.no_grad():
            for theirs, name in names().items():
                value = self.tensor(f"in.param.{theirs}")
                if name.endswith("centres"):
                    value = value[:, :, 0, 0]
                assert value.shape == ours[name].shape, theirs  # copy_ would broadcast
                ours[name].copy_(value)
        return made


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return Golden(request.param)


@torch.no_grad()
def test_outputs(golden):
    network, stages = golden.network(), golden.stages(0)
    features = network.features(stages)
    for level in LEVELS:
        np.testing.assert_allclose(features[level], golden.z[f"out.feat{level}"], **TIGHT)
    for level in (1, 2):
        own, refined = network.tokens(level, features)
        assert own is features[level]
        np.testing.assert_allclose(refined, golden.z[f"out.refine{level}"], **TIGHT)
    branches, maps = network(stages), network.maps(stages)
    for level in LEVELS:
        expected = golden.z[f"out.attribute_scores{level}"]
        for found in (branches, maps, network(stages, (level,))):
            np.testing.assert_allclose(found[f"level{level}"].attribute_scores, expected, **TIGHT)
    scores = network.class_scores(branches, golden.classes)
    np.testing.assert_allclose(scores, golden.z["out.class_scores_sum"], **TIGHT)


@pytest.mark.parametrize("schedule", ["progressive", "joint"])  # the same on frozen stages
def test_losses_and_steps(golden, schedule):
    golden.settings = replace(golden.settings, schedule=schedule)
    cfg, network = golden.cfg, golden.network()
    assert cfg["optimizer"] == "SGD"
    optimizer = torch.optim.SGD(
        network.parameters(), lr=cfg["lr"], momentum=cfg["momentum"], weight_decay=cfg["weight_decay"]
    )
    for step in range(cfg["steps"]):
        stages, labels = golden.stages(step), golden.labels[step]
        for levels in network.passes():
            terms = network.loss(network(stages, levels), labels, golden.classes)
            for level in levels:
                entropy, regression = golden.z["out.losses"][step, level - 1, :2]
                np.testing.assert_allclose(terms[f"cross_entropy_level{level}"].item(), entropy, **FLOAT32)
                np.testing.assert_allclose(terms[f"regression_level{level}"].item(), regression, **FLOAT32)
            totals = [golden.z["out.losses"][step, level - 1, 2] for level in levels]
            np.testing.assert_allclose(terms["total"].item(), sum(totals), **FLOAT32)
            terms["total"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    parameters = dict(network.named_parameters())
    for theirs, ours in names().items():
        after = golden.z[f"out.param_after.{theirs}"].reshape(tuple(parameters[ours].shape))
        np.testing.assert_allclose(parameters[ours].detach(), after, **TIGHT, err_msg=theirs)
        assert not np.allclose(golden.z[f"in.param.{theirs}"].ravel(), after.ravel(), rtol=1e-9, atol=1e-10), theirs
