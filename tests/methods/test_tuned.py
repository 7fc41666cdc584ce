"""Tuned: prototypes that stay, on a backbone whose last layers train."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.pooled import pool
from unseen.methods.settings import EndToEndRecipe
from unseen.methods.tuned import TunedSettings
from unseen.model.assembled import build_method
from unseen.training.config import RunConfig
from unseen.training.engine import Training, train
from unseen.training.fabric import make_fabric
from unseen.training.inputs import RunInputs
from unseen.training.plan import Plan

RESNET = BackboneSpec("test_resnet", image_size=64, weights="random", options={"output_stride": 16})
K, N, SEEN = 6, 5, 3


def classes(dtype=torch.float64):
    values = torch.rand(N, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return ClassSpace(values.to(dtype), torch.arange(N) < SEEN)


def maps_of(count, channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, 2, 3, generator=generator, dtype=torch.float64)


def candidate(features="whitened", rows="centred", own=0.5):
    return {"features": features, "rows": rows, "kernel": "linear", "ridge": 0.3, "share": 0.0, "own": own}


def started(channels=8, chosen=None, **settings):
    """The method, started on 30 maps; also those maps and their labels."""
    method = create_method("tuned", channels=channels, vectors=torch.rand(K, 2, dtype=torch.float64), **settings)
    method.candidate = chosen or candidate()
    total = channels if isinstance(channels, int) else sum(channels)
    labels = torch.arange(30) % SEEN
    maps = maps_of(30, total) + F.one_hot(labels, total)[:, :, None, None]
    method.start(((maps[i : i + 7], labels[i : i + 7]) for i in range(0, 30, 7)), classes())
    return method, maps, labels


@pytest.mark.parametrize(
    ("channels", "chosen"),
    [
        (8, candidate()),
        (8, candidate("root", "unit", 0.0)),
        ((3, 5), candidate("whitened+0.25")),
        (8, candidate() | {"share": 0.5, "gamma": 10.0, "lambda": 0.3}),
    ],
)
def test_before_the_first_step_it_is_prototypes(channels, chosen):
    method, maps, labels = started(channels, chosen)
    same = create_method("prototypes", channels=channels, vectors=torch.rand(K, 2, dtype=torch.float64))
    regions = maps.flatten(2).transpose(1, 2)
    same.fit(pool(regions), labels, classes())
    same.use(chosen)
    asked = maps_of(4, maps.shape[1], seed=5)
    scores = method.class_scores(method(asked), classes())
    torch.testing.assert_close(
        scores, same.class_scores(same(pool(asked.flatten(2).transpose(1, 2))), classes()), rtol=1e-12, atol=1e-14
    )
    assert scores.abs().max() <= 1 + 1e-12  # cosines


def test_contributions_of_positions_add_up():
    method, _, _ = started()
    asked = maps_of(3, 8, seed=7)
    looked = method.maps(asked)["linear"]
    assert looked.contributions.shape == (3, K, 6)
    torch.testing.assert_close(
        looked.contributions.sum(dim=2), method(asked)["linear"].attribute_scores, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_loss_by_hand(weight):
    method, maps, labels = started(lambda_described=weight, tau=7.0)
    terms = method.loss(method(maps[:4]), labels[:4], classes())
    g = method.features(pool(maps[:4].flatten(2).transpose(1, 2))[:, 0]).numpy()
    t = method.rows(classes().unit).numpy()[:SEEN]
    described, own = t @ method.weight.numpy(), method.own.rows.numpy()  # own rows already times their share

    def entropy(prototypes):
        unit = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
        scores = 7 * g @ unit.T
        return -np.mean([s[y] - np.log(np.exp(s).sum()) for s, y in zip(scores, labels[:4].numpy(), strict=True)])

    whole = entropy(0.5 * described + own)
    assert float(terms["cross_entropy"]) == pytest.approx(whole, rel=1e-9)
    assert float(terms["total"]) == pytest.approx(whole + weight * entropy(described), rel=1e-9)
    assert ("described" in terms) == (weight > 0)


def test_features_of_zero_have_a_gradient():
    method, maps, labels = started()
    zeros = maps[:4].clone()
    zeros[:, :3] = 0
    zeros.requires_grad_(True)
    method.loss(method(zeros), labels[:4], classes())["total"].backward()
    assert zeros.grad.isfinite().all()
    assert zeros.grad.any()


def test_the_root_of_features_is_the_same_with_a_gradient():
    method, maps, _ = started()
    pooled = pool(maps.flatten(2).transpose(1, 2))[:, 0]
    pooled[:, 0] = 0
    with_gradient = method.features(pooled.clone().requires_grad_(True))
    assert torch.equal(with_gradient.detach(), method.features(pooled))


def test_only_the_layers_after_the_last_stage_but_one_train():
    vectors = torch.rand(K, 2)
    model = build_method("tuned", Backbone(RESNET), vectors, TunedSettings(), layers="last")
    model.head.candidate = candidate()
    pixels, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % SEEN
    model.start([(pixels, labels)], classes(torch.float32))
    before = copy.deepcopy(model.state_dict())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    model.train().loss(model(pixels), labels, classes(torch.float32))["total"].backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name.split(".")[2] for name in changed} == {"layer4"}
    every = build_method("tuned", Backbone(RESNET), vectors, TunedSettings())
    assert all(p.requires_grad for p in every.backbone.parameters())


def test_a_network_without_named_stages_is_one_line(monkeypatch):
    backbone = Backbone(RESNET)
    monkeypatch.setattr(backbone.network, "feature_info", [])
    with pytest.raises(UnseenError, match=r"does not name its stages.*--recipe layers=all"):
        backbone.fine_tuned(layers="last")


class Pixels:
    """Twelve images of noise, four of each class in its own color."""

    def __init__(self):
        self.labels = np.arange(12) % SEEN
        self.pixels = torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        self.pixels[torch.arange(12), self.labels] += 1

    def __len__(self):
        return 12

    def batch(self, positions):
        return self.pixels[np.asarray(positions)]


@pytest.mark.parametrize("average", [0.5, 0.0])
@pytest.mark.parametrize("refit", [None, candidate("root", "unit", 0.25)])
def test_an_epoch_tests_prototypes_of_its_own_features(refit, average, tmp_path):
    vectors, images, space = torch.rand(K, 2), Pixels(), classes(torch.float32)
    recipe = EndToEndRecipe(epochs=2, batches=2, batch_size=6, optimizer="adamw", lr=0.05, average=average)
    model = build_method("tuned", Backbone(RESNET), vectors, TunedSettings(tau=1.0), layers="last")
    model.head.candidate, model.head.refit_candidate = candidate(), refit
    tested, at_start = [], []

    def on_epoch(epoch, method, earlier):
        assert method is not model
        again = create_method("tuned", channels=model.backbone.channels[0], vectors=vectors)
        again.candidate = refit or candidate()
        with torch.no_grad():
            again.start([(method.backbone.maps(images.pixels)[0], torch.as_tensor(images.labels))], space)
        tested.append(float((method.head.weight - again.weight).norm() / again.weight.norm()))
        at_start.append(torch.equal(model.head.weight, start.head.weight))
        return {}

    start = build_method("tuned", Backbone(RESNET), vectors, TunedSettings())
    start.head.candidate = candidate()
    start.load_state_dict(model.state_dict())
    start.eval().start([(images.pixels, torch.as_tensor(images.labels))], space)
    job = Training(model, images, images.labels, space, recipe, 0, 2, "pixels")
    train(job, make_fabric("cpu"), tmp_path, on_epoch=on_epoch)
    assert len(tested) == 3  # epoch 0 is before the first step
    assert max(tested) < 1e-5
    assert at_start == [True] * 3  # training goes on with the first ones
    assert not torch.equal(model.head.weight, start.head.weight)
    again = create_method("tuned", channels=model.backbone.channels[0], vectors=vectors)
    again.candidate = refit or candidate()
    with torch.no_grad():
        again.start([(model.backbone.maps(images.pixels)[0], torch.as_tensor(images.labels))], space)
    torch.testing.assert_close(model.head.weight, again.weight, rtol=1e-4, atol=1e-5)


def test_imported_features_have_nothing_to_train():
    imported = BackboneSpec("features:mine", weights="features/mine")
    with pytest.raises(UnseenError, match=r"features:mine: imported features have no network for tuned to train"):
        RunConfig(dataset="birds", method="tuned", backbone=imported)


@pytest.mark.parametrize("wrong", [{"earlier": "-0.1"}, {"features": "none"}, {"tau": 0.0}, {"lambda_described": -1.0}])
def test_wrong_settings_are_one_line(wrong):
    with pytest.raises(UnseenError, match=f"setting {next(iter(wrong))}"):
        TunedSettings(**wrong)


@pytest.mark.parametrize(
    ("method", "protocols", "said"),
    [
        ("tuned", ("paper",), True),
        ("tuned", ("honest", "paper"), False),
        ("tuned", ("honest",), False),
        ("anchored", ("paper",), False),
    ],
)
def test_what_paper_alone_solves_with_is_said(method, protocols, said):
    config = RunConfig(dataset="birds", method=method, backbone=RESNET, protocols=protocols)
    dataset = type("Data", (), {"warnings": ("a note",)})()
    notes = Plan(config, dataset, None, None, "recommended", None, "").notes
    line = (
        "tuned under the paper protocol alone is solved with the hyperparameters of its start, prototypes, after every "
        "epoch; only --protocol both chooses them anew, on validation classes"
    )
    assert notes == (("a note", line) if said else ("a note",))


def test_a_run_trains_the_backbone_as_its_recipe_says(monkeypatch):
    """Every entry of the recipe that is about the backbone reaches it."""
    asked = {}
    monkeypatch.setattr("unseen.training.inputs.Backbone", lambda spec: None)
    monkeypatch.setattr("unseen.training.inputs.build_method", lambda *a, **k: asked.update(k) or torch.nn.Identity())
    recipe = EndToEndRecipe(checkpointing=True, batch_norm="batch", layers="last")
    inputs = object.__new__(RunInputs)
    store = type("Images", (), {"spec": RESNET})()
    fabric = type("Fabric", (), {"device": torch.device("cpu")})()
    config = RunConfig(dataset="fieldguide", method="tuned", backbone=RESNET)
    more = {"store": store, "fabric": fabric, "recipe": recipe, "config": config, "vectors": np.zeros((K, 2))}
    for name, value in {**more, "settings": TunedSettings(), "start": None, "refit": None}.items():
        object.__setattr__(inputs, name, value)
    inputs.new_method(3)
    assert asked == {"seed": 3, "checkpointing": True, "batch_norm": "batch", "layers": "last"}
    assert config.draw_count == 3
