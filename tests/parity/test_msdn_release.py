"""MSDN equals what the authors' release computes, on every golden file of its form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from places import PARITY
from unseen.methods import ClassSpace
from unseen.methods.losses import seen_margin
from unseen.methods.msdn import MSDN, MSDNSettings
from unseen.methods.settings import Recipe

FILES = sorted(PARITY.glob("msdn_*.npz")) if PARITY.is_dir() else []
pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden numbers at {PARITY} (set UNSEEN_PARITY)")
PARAMETERS = {
    "attribute_vectors": "vectors",
    "a2v_score": "a2v_score",
    "a2v_attention": "a2v_attention",
    "v2a_score": "v2a_score",
    "v2a_attention": "v2a_attention",
}
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
FLOAT32 = {"rtol": 3e-7, "atol": 1e-7}  # the release's losses were recorded in float32


class Golden:
    def __init__(self, path):
        self.z = np.load(path, allow_pickle=False)
        self.cfg = cfg = json.loads(self.z["cfg"].item())
        renormalize = cfg["normalize_word_vectors_in_forward"]
        self.settings = MSDNSettings(
            lambda_cal=cfg["lambda_calibration"],
            lambda_dis=cfg["lambda_distillation"],
            fusion=tuple(cfg["fusion"]),
            renormalize_vectors=renormalize,
            margin=cfg["unseen_margin"],
        )
        attributes = self.tensor("in.class_attributes")
        seen = torch.zeros(len(attributes), dtype=torch.bool)
        seen[self.tensor("in.seen_classes")] = True
        self.classes = ClassSpace(attributes, seen)
        self.features = self.tensor("in.features").flatten(3).transpose(2, 3)  # steps, B, R, C
        self.labels = self.tensor("in.labels")

    def tensor(self, key):
        return torch.from_numpy(self.z[key])

    def method(self):
        made = MSDN(self.features.shape[-1], self.tensor("in.word_vectors"), self.settings)
        with torch.no_grad():
            np.testing.assert_allclose(made.vectors, self.z["in.param.attribute_vectors"], **TIGHT)
            for theirs, ours in PARAMETERS.items():
                getattr(made, ours).copy_(self.tensor(f"in.param.{theirs}"))
        return made


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return Golden(request.param)


def test_outputs(golden):
    method = golden.method()
    regions = golden.features[0]
    with torch.no_grad():
        branches = method(method.prepare(regions))
        maps = method.maps(regions)
    z, margin = method.class_vectors(golden.classes), seen_margin(method.settings.margin, golden.classes)
    for name in ("a2v", "v2a"):
        scores = branches[name].attribute_scores @ z.T + margin
        np.testing.assert_allclose(scores, golden.z[f"out.{name}.class_scores"], **TIGHT)
        np.testing.assert_allclose(maps[name].attribute_scores, branches[name].attribute_scores, **TIGHT)
    np.testing.assert_allclose(branches["a2v"].attribute_scores, golden.z["out.a2v.attribute_scores"], **TIGHT)
    np.testing.assert_allclose(maps["a2v"].attention, golden.z["out.a2v.attention"], **TIGHT)
    method.eval()
    with torch.no_grad():
        fused = method.class_scores(method(method.prepare(regions)), golden.classes)
    np.testing.assert_allclose(fused, golden.z["out.fused_class_scores"], **TIGHT)


def test_gradients_losses_and_steps(golden):
    cfg, z = golden.cfg, golden.z
    method = golden.method().train()
    recipe = Recipe(
        optimizer=cfg["optimizer"].lower(), lr=cfg["lr"], weight_decay=cfg["weight_decay"], momentum=cfg["momentum"]
    )
    optimizer = recipe.make_optimizer(method.parameters())
    for step in range(cfg["steps"]):
        branches = method(method.prepare(golden.features[step]))
        terms = method.loss(branches, golden.labels[step], golden.classes)
        optimizer.zero_grad()
        terms["total"].backward()
        if step == 0:
            for theirs, ours in PARAMETERS.items():
                np.testing.assert_allclose(getattr(method, ours).grad, z[f"out.grad.{theirs}"], **TIGHT)
        got = {name: term.item() for name, term in terms.items()}
        np.testing.assert_allclose(got["total"], z["out.loss.total"][step], **FLOAT32)
        np.testing.assert_allclose(got["distillation"], z["out.loss.distillation"][step], **FLOAT32)
        for i, name in enumerate(("a2v", "v2a")):
            np.testing.assert_allclose(got[f"cross_entropy_{name}"], z["out.loss.cross_entropy"][step, i], **FLOAT32)
            np.testing.assert_allclose(
                got[f"self_calibration_{name}"], z["out.loss.self_calibration"][step, i], **FLOAT32
            )
        optimizer.step()
    for theirs, ours in PARAMETERS.items():
        np.testing.assert_allclose(getattr(method, ours).detach(), z[f"out.param_after.{theirs}"], **TIGHT)
