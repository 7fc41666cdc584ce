"""Backbone and method trained together: gradients, passes, memory options, resuming, the saved model."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

import unseen
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.data.images import ImageSource, ImageStore
from unseen.data.samplers import images_of_classes
from unseen.errors import UnseenError
from unseen.explain.answers import answers_of
from unseen.explain.gallery import run_figures
from unseen.explain.parts import DARK, lit_by, part_colors, parts_figure, shares_over_image, strongest_part
from unseen.methods import ClassSpace
from unseen.methods.base import GradientMethod, Method
from unseen.methods.mgmrn import MgMRNSettings
from unseen.methods.settings import EndToEndRecipe
from unseen.model.assembled import EndToEnd, build_method, method_hooks
from unseen.training.checkpoints import load_checkpoint
from unseen.training.engine import Interrupted, Training, train
from unseen.training.fabric import make_fabric

RESNET = BackboneSpec("test_resnet", (-3, -2, "final"), image_size=64, weights="random", options={"output_stride": 16})
VIT = BackboneSpec("test_vit", (-2, -1, "final"), image_size=64, weights="random")
SETTINGS = MgMRNSettings(width=32, attention_width=8, grouping="parts", parts=3)
K, N = 6, 5
CLASSES = ClassSpace(torch.rand(N, K, generator=torch.Generator().manual_seed(1)), torch.arange(N) < 3)
LABELS = torch.tensor([0, 2, 1, 0])


def model_of(spec=RESNET, dtype=torch.float32, settings=SETTINGS, seed=0, **options):
    vectors = torch.randn(K, 4, generator=torch.Generator().manual_seed(2)).to(dtype)
    return build_method("mgmrn", Backbone(spec), vectors, settings, seed=seed, **options)


def pixels_of(dtype=torch.float32, size=64, count=4):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3)).to(dtype)


def gradients(model, dtype=torch.float32, trained=(1, 2, 3)):
    model.zero_grad(set_to_none=True)
    classes = CLASSES.to("cpu", dtype)
    model.train().loss(model.forward_pass(pixels_of(dtype), trained), LABELS, classes)["total"].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


OWN = {"end_to_end", "static_step", "prepare"}
"""What a joined method says of itself: its features are images."""
IMAGES = {"start", "refit", "forward", "forward_pass", "maps", "answers_and_maps", "parts"}
"""Hooks that take features, which the head is given as maps."""


def test_every_hook_reaches_the_head():
    """A hook added to a method is the head's, or this test names it."""
    hooks = method_hooks()
    assert {"class_scores", "by_attributes", "offset_name", "loss", "passes", "card", "presets", "counted"} < hooks
    assert hooks == {n for k in (Method, GradientMethod) for n in {**vars(k), **k.__annotations__} if n[0] != "_"}

    class Head(nn.Module):
        """Answers every hook with its own name and what it was asked with."""

        def __getattr__(self, name):
            return lambda *given: (name, *given)

    model = model_of()
    model._modules["head"] = Head()
    model._maps = lambda pixels: ("maps of", pixels)
    for name in hooks - OWN - IMAGES:
        assert getattr(model, name)("given") == (name, "given"), name
    for name in ("start", "refit"):
        model._modules["head"] = Head()
        given = []
        setattr(model.head, name, lambda batches, classes, given=given: given.extend([*batches, classes]))
        getattr(model, name)([("pixels", "labels")], "classes")
        assert given == [(("maps of", "pixels"), "labels"), "classes"]
    for name in IMAGES - {"start", "refit", "forward", "answers_and_maps"}:
        assert getattr(model, name)(*["pixels", (1,)][: 1 + (name == "forward_pass")])[:2] == (
            name,
            ("maps of", "pixels"),
        )
    assert all(name in vars(EndToEnd) for name in hooks)


def test_a_joined_method_is_asked_as_its_head_is():
    model = model_of()
    assert (model.name, model.card.title, model.stages) == ("mgmrn", model.head.card.title, 3)
    assert model.end_to_end
    assert not model.static_step
    assert model.settings is model.head.settings


@pytest.mark.parametrize("spec", [RESNET, VIT], ids=["resnet", "vit"])
def test_everything_trains_but_the_statistics(spec):
    model = model_of(spec)
    with torch.no_grad():  # away from the zeros that networks end their blocks with at the start
        for parameter in model.backbone.parameters():
            parameter.add_(0.01)
    before = {name: b.clone() for name, b in model.named_buffers()}
    found = gradients(model)
    trained = {n for n, p in model.backbone.named_parameters() if f"backbone.{n}" in found}
    assert len(trained) == len(list(model.backbone.parameters()))
    assert all(found[f"backbone.{name}"].isfinite().all() for name in trained)
    assert sum(bool(found[f"backbone.{name}"].any()) for name in trained) > 0.9 * len(trained)
    assert not any(module.training for module in model.backbone.modules())
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    grids = model.backbone.grids
    assert {name: p.shape[1:] for name, p in model.parts(pixels_of()).items()} == {
        f"level{m}": (3, *grid) for m, grid in enumerate(grids, start=1)
    }


def test_a_level_reaches_the_backbone_up_to_its_stage():
    model = model_of(settings=replace(SETTINGS, schedule="progressive"))
    assert model.passes() == ((1,), (2,), (3,))
    for trained, deepest in zip(model.passes(), ("layer2", "layer3", "layer4"), strict=True):
        found = gradients(model, trained=trained)
        layers = {n.split(".")[2] for n in found if n.startswith("backbone.model.layer")}
        assert max(layers) == deepest


def normalisations(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_batch_norm_of_each_batch_moves_its_running_averages(checkpointing):
    model = model_of(dtype=torch.float64, checkpointing=checkpointing, batch_norm="batch")
    layers, inputs = normalisations(model), {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].detach().clone()}))
    model.train()
    assert all(layer.training for layer in layers.values())
    assert not any(m.training for m in model.backbone.modules() if m not in layers.values())
    for _ in range(2):
        inputs.clear()
        before = {name: (m.running_mean.clone(), m.running_var.clone()) for name, m in layers.items()}
        model.zero_grad(set_to_none=True)
        terms = model.loss(model.forward_pass(pixels_of(torch.float64), (1,)), LABELS, CLASSES.to("cpu", torch.float64))
        terms["total"].backward()  # computes activations again with checkpointing, and counts them once
        for name, layer in layers.items():
            mean, var = inputs[name].mean((0, 2, 3)), inputs[name].transpose(0, 1).flatten(1).var(1)
            for new, old, batch in (
                (layer.running_mean, before[name][0], mean),
                (layer.running_var, before[name][1], var),
            ):
                torch.testing.assert_close(new, 0.9 * old + 0.1 * batch, rtol=1e-9, atol=1e-12)
    model.eval()
    state = {n: b.clone() for n, b in model.named_buffers()}
    with torch.no_grad():
        alone = model(pixels_of(torch.float64, count=2))["level3"].attribute_scores
        together = model(pixels_of(torch.float64))["level3"].attribute_scores
    torch.testing.assert_close(alone, together[:2], rtol=1e-9, atol=1e-12)  # tests use the averages, not the batch
    assert all(torch.equal(b, state[n]) for n, b in model.named_buffers())


def test_batch_norm_of_each_batch_has_the_same_gradients_with_checkpointing():
    found = []
    for again in (False, True):
        model = model_of(dtype=torch.float64, checkpointing=again, batch_norm="batch")
        found.append(gradients(model, torch.float64))
    frozen = gradients(model_of(dtype=torch.float64), torch.float64)
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-6, atol=1e-12)
    assert not torch.allclose(found[0]["backbone.model.conv1.0.weight"], frozen["backbone.model.conv1.0.weight"])


def test_batch_norm_of_each_batch_is_for_one_process(monkeypatch):
    monkeypatch.setattr("unseen.backbones.backbone.processes", lambda: 2)
    with pytest.raises(UnseenError, match=r"each of 2 processes.*--recipe batch_norm=frozen, or use one process"):
        Backbone(RESNET).fine_tuned(batch_norm="batch")
    Backbone(VIT).fine_tuned(batch_norm="batch")  # which has none


def test_frozen_backbones_stay_frozen():
    backbone = Backbone(RESNET)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(m.requires_grad is False for m in backbone.maps(pixels_of()))
    for regions, found in zip(backbone(pixels_of()), backbone.maps(pixels_of()), strict=True):
        assert torch.equal(regions, found.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("spec", [RESNET, VIT], ids=["resnet", "vit"])
def test_checkpointing_keeps_less_and_has_the_same_gradients(spec):
    saved, found = [], []
    for checkpointing in (False, True):
        model, kept = model_of(spec, torch.float64, checkpointing=checkpointing), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):  # noqa: B023
            model.backbone.maps(pixels_of(torch.float64))
        saved.append(sum(kept))
        found.append(gradients(model, torch.float64))
    assert saved[1] < 0.6 * saved[0]  # two or three blocks; a deep network saves more
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-6, atol=1e-12)


def test_networks_without_checkpointing_are_one_line(monkeypatch):
    backbone = Backbone(RESNET)
    monkeypatch.delattr(type(backbone.model), "set_grad_checkpointing")
    with pytest.raises(UnseenError, match=r"test_resnet: timm has no gradient checkpointing.*checkpointing=false"):
        backbone.fine_tuned(checkpointing=True)


def test_channels_last_is_a_layout_alone():
    model = model_of(dtype=torch.float64).eval()
    pixels = pixels_of(torch.float64)
    maps = model.backbone.maps(pixels)
    kernels = [p for p in model.parameters() if p.ndim == 4]
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (*maps, *kernels))
    final, found = model.backbone.model.forward_intermediates(pixels, indices=[2, 3])  # timm alone, contiguous
    for ours, theirs in zip(maps, (*found, final), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        contiguous = model.head([m.contiguous() for m in maps])
        for name, branch in model(pixels).items():
            expected = contiguous[name].attribute_scores
            torch.testing.assert_close(branch.attribute_scores, expected, rtol=1e-9, atol=1e-12)


def test_answers_and_maps_take_one_pass_through_the_backbone(monkeypatch):
    model, pixels = model_of(dtype=torch.float64).eval(), pixels_of(torch.float64)
    passes, maps = [], model.backbone.maps
    monkeypatch.setattr(model.backbone, "maps", lambda pixels: passes.append(1) or maps(pixels))
    with torch.no_grad():
        answers, looked = model.answers_and_maps(pixels)
        assert len(passes) == 1
        for name, branch in model(pixels).items():
            assert torch.equal(answers[name].attribute_scores, branch.attribute_scores)
        for name, branch in model.maps(pixels).items():
            assert torch.equal(looked[name].contributions, branch.contributions)


# training

RECIPE = EndToEndRecipe(
    epochs=3, batches=2, sampler="classes", batch_size=6, shots=2, optimizer="sgd", lr=1e-2, lr_factor=0.1, lr_every=2
)


class Images:
    """Images of plain colours, one a class, with noise."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.labels = np.repeat(np.arange(3), 5)
        files = []
        for i, label in enumerate(self.labels):
            colour = np.eye(3)[label] * 160 + 40
            noise = rng.normal(0, 25, (70, 80, 3))
            files.append(folder / f"{i}.png")
            Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(files[-1])
        store = ImageStore(files, Backbone(RESNET), folder, names=[f.name for f in files])
        self.source = ImageSource(store, np.arange(15), resize=8 / 7, flip=True)

    def stage(self, recipe=RECIPE, epochs=3, **settings):
        options = {"checkpointing": recipe.checkpointing, "batch_norm": recipe.batch_norm}
        model = model_of(settings=replace(SETTINGS, **settings), **options)
        return Training(model, self.source, self.labels, CLASSES, recipe, 4, epochs, "images")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return Images(tmp_path_factory.mktemp("colours"))


def state(stage):
    return {k: v.clone() for k, v in stage.method.state_dict().items()}


@pytest.mark.parametrize("schedule", ["progressive", "joint"])
def test_same_steps_as_a_plain_loop(images, tmp_path, schedule):
    stage = images.stage(schedule=schedule)
    records = train(stage, make_fabric("cpu"), tmp_path)
    model = model_of(settings=replace(SETTINGS, schedule=schedule)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-4)
    sampler, totals = images_of_classes(images.labels, 6, 4, shots=2), []
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 1e-2 if step < 4 else 1e-3
        pixels = images.source.augmented(sampler(step), (4, step))
        labels, total = torch.as_tensor(images.labels[sampler(step)]), 0.0
        for levels in ((1,), (2,), (3,)) if schedule == "progressive" else ((1, 2, 3),):
            loss = model.head.loss(model.head(model.backbone.maps(pixels), levels), labels, CLASSES)["total"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item()
        totals.append(total)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(stage.method.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose([r["loss"]["total"] for r in records], np.reshape(totals, (3, 2)).mean(1), rtol=1e-5)
    assert [r["step"] for r in records] == [2, 4, 6]


def test_schedules_and_augmentation_matter_to_the_backbone(images, tmp_path):
    found = []
    recipes = (RECIPE, RECIPE, replace(RECIPE, flip=False, resize=1.0))
    for i, (schedule, recipe) in enumerate(zip(("progressive", "joint", "joint"), recipes, strict=True)):
        stage = images.stage(recipe, schedule=schedule)
        if not recipe.flip:
            stage.features = ImageSource(images.source._store, np.arange(15))
        train(stage, make_fabric("cpu"), tmp_path / str(i))
        found.append(state(stage)["backbone.model.conv1.0.weight"])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_the_moving_average_is_of_the_backbone_too(images, tmp_path):
    plain, steps = images.stage(), []
    train(plain, make_fabric("cpu"), tmp_path / "plain", progress=lambda *told: steps.append(state(plain)))
    averaged = images.stage(replace(RECIPE, average=0.75))
    train(averaged, make_fabric("cpu"), tmp_path / "averaged")
    expected = steps[0]
    for after in steps[1:6]:  # the first step's weights are the average's start
        expected = {n: 0.75 * v + 0.25 * after[n] if v.is_floating_point() else after[n] for n, v in expected.items()}
    for name, value in state(averaged).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
    assert not torch.equal(expected["backbone.model.conv1.0.weight"], state(plain)["backbone.model.conv1.0.weight"])


@pytest.mark.parametrize(
    ("stop_at", "average", "batch_norm"),
    [(1, 0.0, "frozen"), (4, 0.0, "frozen"), (4, 0.9, "frozen"), (4, 0.9, "batch")],
)
def test_interrupted_training_ends_with_the_same_bytes(images, tmp_path, stop_at, average, batch_norm):
    recipe = replace(RECIPE, average=average, batch_norm=batch_norm)
    whole = images.stage(recipe, schedule="progressive")
    train(whole, make_fabric("cpu"), tmp_path / "whole")

    def interrupt(task, done, total, note=""):
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(images.stage(recipe, schedule="progressive"), make_fabric("cpu"), tmp_path / "cut", progress=interrupt)
    resumed, steps = images.stage(recipe, schedule="progressive"), []
    train(resumed, make_fabric("cpu"), tmp_path / "cut", progress=lambda task, done, *rest: steps.append(done))
    assert steps[0] > stop_at
    first, second = state(whole), state(resumed)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_momentum_of_a_checkpoint_is_laid_out_as_the_weights(images, tmp_path):
    """A fused step reads both in the order they have in memory, and does not say where that differs."""
    stage = images.stage()
    train(stage, make_fabric("cpu"), tmp_path)
    model = images.stage().method
    optimizer = RECIPE.make_optimizer(model.parameters())
    load_checkpoint(tmp_path / "checkpoint.safetensors", model, optimizer)
    momenta = {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}
    assert all(momenta[name].stride() == p.stride() for name, p in model.named_parameters())
    assert momenta["backbone.model.conv1.0.weight"].abs().max() > 0


def test_killed_training_ends_with_the_same_bytes(images, tmp_path):
    """What a kill leaves is the last checkpoint: take the one of step 3 and go on."""
    whole = images.stage()

    def keep(task, done, total, note=""):
        if done == 4:  # told before this step's checkpoint is written
            (tmp_path / "cut").mkdir()
            shutil.copy(tmp_path / "whole" / "checkpoint.safetensors", tmp_path / "cut")

    train(whole, make_fabric("cpu"), tmp_path / "whole", progress=keep, checkpoint_seconds=0)
    resumed, steps = images.stage(), []
    train(resumed, make_fabric("cpu"), tmp_path / "cut", progress=lambda task, done, *rest: steps.append(done))
    assert steps[0] == 4
    first, second = state(whole), state(resumed)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    "changed",
    [
        {"flip": False},
        {"resize": 1.25},
        {"lr_factor": 0.5},
        {"lr_early": 1},
        {"shots": 3},
        {"checkpointing": True},
        {"batch_norm": "batch"},
        {"layers": "last"},
    ],
)
def test_checkpoint_of_another_recipe_is_not_used(images, changed):
    assert images.stage().fingerprint() == images.stage().fingerprint()
    assert images.stage(replace(RECIPE, **changed)).fingerprint() != images.stage().fingerprint()


class InDoublePrecision:
    """Features in float64."""

    def __init__(self, features):
        self._features = features

    def __len__(self):
        return len(self._features)

    def batch(self, positions):
        return self._features.batch(positions).double()

    def augmented(self, positions, key):
        return self._features.augmented(positions, key).double()


def test_accumulation_equals_one_batch(images, tmp_path):
    """In float64: steps from random weights amplify float32's rounding, 1e-6 of a gradient, a thousandfold."""
    found = []
    for accumulate in (1, 3):
        stage = images.stage(schedule="progressive")
        double = replace(
            stage,
            method=stage.method.double(),
            features=InDoublePrecision(stage.features),
            classes=stage.classes.to("cpu", torch.float64),
        )
        fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
        train(double, fabric, tmp_path / str(accumulate), accumulate=accumulate)
        found.append(state(double))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-12)


def test_bfloat16_with_checkpointing_learns_the_colours(images, tmp_path):
    recipe = replace(RECIPE, epochs=5, batches=6, lr=5e-3, lr_factor=1.0, checkpointing=True)
    stage = images.stage(recipe, epochs=5, schedule="joint")
    records = train(stage, make_fabric("cpu", "bf16-mixed"), tmp_path)
    assert records[-1]["loss"]["total"] < 0.5 * records[0]["loss"]["total"]
    assert all(p.dtype == torch.float32 for p in stage.method.parameters())


# runs

OPTIONS = {
    "preset": "recommended",
    "settings": {"width": "32", "attention_width": "8", "grouping": "parts", "parts": "4"},
    "recipe": {"epochs": "2", "batches": "2", "batch_size": "4"},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run(tiny_guide, tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return unseen.fit("mgmrn", tiny_guide, folder / "run", backbone=tiny_backbone, cache=folder / "cache", **OPTIONS)


def test_stages_are_the_last_three_or_those_named(run, tiny_guide, tiny_backbone, tmp_path):
    assert run.config.backbone.stages == (-3, -2, "final")
    assert run.manifest["backbone"]["stages"] == [-3, -2, "final"]
    assert run.manifest["backbone"]["channels"] == [48, 192, 96]
    assert run.manifest["backbone"]["frozen"] is False
    for stages in ((1, 2), (0, 1, 2, 3)):
        with pytest.raises(
            UnseenError, match=f"backbone: {len(stages)} stages — pass 3 stages for mgmrn, shallow to deep"
        ):
            unseen.fit("mgmrn", tiny_guide, tmp_path / "no", backbone=replace(tiny_backbone, stages=stages))
    with pytest.raises(UnseenError, match="hf:some/model: has one stage; mgmrn needs 3 — use a timm model"):
        unseen.training.config.RunConfig(method="mgmrn", dataset="x", backbone=BackboneSpec("hf:some/model"))
    named = replace(tiny_backbone, stages=(1, 2, 3))
    assert unseen.training.config.RunConfig(method="mgmrn", dataset="x", backbone=named).backbone == named


def test_nothing_is_extracted_and_the_weights_hold_the_backbone(run, tiny_backbone):
    assert not list(run.folder.parent.rglob("stage0.bin"))
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    start = Backbone(replace(tiny_backbone, stages=(-3, -2, "final"))).state_dict()
    found = recognizer.backbone.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(found[name], value)}
    norms = {n for n, m in recognizer.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(moved) > 0.9 * len(list(recognizer.backbone.parameters()))
    assert moved <= {name for name, _ in recognizer.backbone.named_parameters()}
    assert norms  # whose statistics are those of the start


def test_weights_of_the_start_are_not_needed_any_more(tiny_guide, tiny_backbone, tmp_path):
    from safetensors.torch import save_file

    made = Backbone(tiny_backbone)
    save_file({k: v.contiguous() for k, v in made.model.state_dict().items()}, tmp_path / "start.safetensors")
    spec = replace(tiny_backbone, weights=str(tmp_path / "start.safetensors"))
    run = unseen.fit("mgmrn", tiny_guide, tmp_path / "run", backbone=spec, cache=tmp_path / "cache", **OPTIONS)
    (tmp_path / "start.safetensors").unlink()
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    saved = recognizer.save(tmp_path / "saved")
    assert not (saved / "backbone.safetensors").exists()
    image = Image.open(next((tiny_guide / "images").rglob("*.*g")))
    first, second = (r.predict([image])[0].as_dict() for r in (recognizer, unseen.Recognizer.load(saved)))
    assert first == second


def test_where_it_looks_can_be_measured(run, tiny_guide):
    from unseen.data.folder import load_folder
    from unseen.evaluation.localisation import pointing_game

    recognizer, dataset = unseen.Recognizer.load(run.folder, device="cpu"), load_folder(tiny_guide)
    folder = run.folder.parent / "cache"
    store = ImageStore(dataset.paths(), recognizer.backbone, folder, names=dataset.files)
    found = pointing_game(recognizer.method, dataset, store, recognizer.backbone.transform, range(4))
    assert set(found) == {"level1", "level2", "level3"}
    # the maps of an image read so are those of its explanation
    maps = recognizer.method.maps(store.read([3]))
    why = recognizer.explain(dataset.paths()[3])
    for name, branch in maps.items():
        attention = branch.attention[0].detach().numpy().reshape(why.attention[name].shape)
        np.testing.assert_allclose(attention, why.attention[name], rtol=1e-4, atol=1e-7)


def test_figures_are_of_the_fine_tuned_backbone(run, tiny_guide, tmp_path):
    options = {"cache": run.folder.parent / "cache", "device": "cpu"}
    answers, recognizer = answers_of(run, **options), unseen.Recognizer.load(run.folder, device="cpu")
    paths = [answers.dataset.paths()[i] for i in answers.images[[0, -1]]]
    pixels = torch.stack([recognizer.backbone.transform(path) for path in paths])
    with torch.no_grad():
        means = recognizer.backbone.maps(pixels)[-1].mean(dim=(2, 3))
    expected = means / means.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(answers.pooled(np.array([0, len(answers.images) - 1])), expected, atol=1e-5)
    drawn = run_figures(run, tmp_path, examples=1, formats=("png",), **options)
    assert not drawn.notes
    assert {name.split("-")[0] for name in drawn.figures} == {"tsne", "attributes", "attention", "training"}
    assert all("random, fine-tuned; honest protocol" in caption for caption in drawn.captions.values())


def test_what_parts_attend_to(run, tiny_guide, tmp_path):
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    image = Image.new("RGB", (100, 60), "white")
    found = recognizer.parts(image)
    assert {name: maps.shape for name, maps in found.maps.items()} == {
        "level1": (4, 8, 8), "level2": (4, 4, 4), "level3": (4, 4, 4),
    }  # fmt: skip
    assert found.crop == pytest.approx((20, 0, 80, 60), abs=0.5)
    for maps in found.maps.values():
        np.testing.assert_allclose(maps.sum(axis=0), 1, rtol=1e-5)
    parts_figure(found, tmp_path / "parts.png")
    assert Image.open(tmp_path / "parts.png").height > Image.open(tmp_path / "parts.png").width
    left = np.zeros((4, 8, 8))
    left[2, :, :4], left[1, :, 4:] = 1, 1
    shares = shares_over_image(replace(found, maps={"level1": left}), "level1")
    assert shares.shape == (4, 60, 100)
    painted = np.asarray(strongest_part(shares, image)).astype(int)
    white, colours = 255, 255 * part_colors(4)
    np.testing.assert_allclose(painted[30, 25], (white + colours[2]) / 2, atol=1)
    np.testing.assert_allclose(painted[30, 75], (white + colours[1]) / 2, atol=1)
    np.testing.assert_allclose(painted[30, 5], white / 2, atol=1)  # outside the crop
    lit = np.asarray(lit_by(shares[2], image)).astype(int)
    np.testing.assert_allclose(lit[30, 25], white, atol=1)
    np.testing.assert_allclose([lit[30, 75], lit[30, 5]], white * DARK, atol=1)


def test_models_without_parts_say_so(tiny_backbone):
    from unseen.classes.attributes import Attributes
    from unseen.classes.table import ClassTable

    backbone = Backbone(tiny_backbone)
    method = unseen.create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(2, 4))
    table = ClassTable(("a", "b", "c", "d"), Attributes(("x", "y")), np.random.rand(4, 2), np.array([1, 1, 1, 0], bool))
    with pytest.raises(
        UnseenError, match=r"msdn: this model has no learned parts — train mgmrn with --set grouping=parts"
    ):
        unseen.Recognizer(backbone, method, table, device="cpu").parts(Image.new("RGB", (64, 64)))
