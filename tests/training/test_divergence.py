"""Numbers that are none: found in the step, said with its images, never written."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from training.planted import Planted
from training.test_engine import RECIPE, assert_same, stage_of, weights
from unseen.data.samplers import random_images
from unseen.methods.msdn import RECOMMENDED
from unseen.training import engine
from unseen.training.checkpoints import read_info
from unseen.training.deciding import decide
from unseen.training.divergence import DivergedError, diverged, grown_losses, growth, not_finite, some
from unseen.training.engine import train
from unseen.training.fabric import make_fabric

NAMES = [f"birds/{i}.jpg" for i in range(60)]
NAN = float("nan")


def named(planted, recipe=RECIPE, **more):
    return replace(stage_of(planted, recipe, **more), names=NAMES)


def run(stage, folder, **more):
    return train(stage, make_fabric("cpu"), folder, checkpoint_seconds=0, **more)


def weights_after(steps, folder):
    """Of the same training without a fault."""
    kept = {}

    def keep(task, done, total, note=""):
        if done == steps:
            kept.update(weights(stage))

    stage = named(Planted())
    run(stage, folder, progress=keep)
    return kept


def assert_stands(folder, step, clean):
    """The checkpoint is that of the step, and none of its numbers is broken."""
    path = folder / "checkpoint.safetensors"
    assert read_info(path)["step"] == step
    tensors = load_file(path)
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    assert_same({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}, clean)


def bad_loss(stage, at):
    """One term is NaN in a step."""
    plain, count = stage.method.loss, iter(range(1, 100))

    def loss(*parts):
        terms = plain(*parts)
        if next(count) == at:
            terms["distillation"] = terms["distillation"] * NAN
            terms["total"] = terms["total"] + terms["distillation"]
        return terms

    stage.method.loss = loss


def bad_gradient(stage, at):
    """The loss is finite in every step, the gradient of one weight is not in one."""
    count = iter(range(1, 100))
    stage.method.v2a_score.register_hook(lambda g: g * NAN if next(count) == at else g)


@pytest.mark.parametrize("at", [1, 9])
@pytest.mark.parametrize(
    ("plant", "term", "said"),
    [
        (bad_loss, "distillation", "distillation is nan at step {at} (epoch {epoch}), on birds/"),
        (bad_gradient, "weights", "v2a_score is not finite after step {at} (epoch {epoch}), at a loss of "),
    ],
)
def test_planted(tmp_path, plant, term, said, at):
    stage = named(Planted())
    plant(stage, at)
    with pytest.raises(DivergedError) as caught:
        run(stage, tmp_path / "bad")
    error = caught.value
    assert said.format(at=at, epoch=(at - 1) // 6 + 1) in str(error)
    assert (error.term, error.step, error.epoch) == (term, at, (at - 1) // 6 + 1)
    assert error.images == tuple(NAMES[i] for i in random_images(60, 10, 3)(at - 1))
    assert "and 7 more — lower the learning rate: --recipe lr=0.001, with another --output; the same command " in str(
        error
    )
    if at == 1:
        assert "the same command starts over and meets the same steps" in str(error)
        assert not (tmp_path / "bad" / "checkpoint.safetensors").exists()
    else:
        assert "the same command resumes from the checkpoint of step 8 and meets the same steps" in str(error)
        assert_stands(tmp_path / "bad", 8, weights_after(8, tmp_path / "good"))


def test_features_of_one_image(tmp_path):
    planted = Planted()
    planted.tensor[17, 3, 2] = NAN
    stage = named(planted)
    first = next(step for step in range(24) if 17 in random_images(60, 10, 3)(step)) + 1
    with pytest.raises(DivergedError, match=r"features of birds/17\.jpg are not finite — extract or import") as e:
        run(stage, tmp_path)
    assert (e.value.step, e.value.images) == (first, ("birds/17.jpg",))


def test_features_that_a_start_reads(tmp_path):
    planted = Planted()
    planted.tensor[40, 0, 0] = math.inf
    with pytest.raises(DivergedError, match=r"features of birds/40\.jpg are not finite — extract") as caught:
        run(named(planted, settings=RECOMMENDED), tmp_path)
    assert caught.value.step == 0


def test_a_rate_much_too_high(tmp_path):
    with pytest.raises(DivergedError, match=r"lr=1e\+0[78]") as caught:
        run(named(Planted(), replace(RECIPE, lr=1e9, optimizer="sgd")), tmp_path)
    step = caught.value.step
    found = tmp_path / "checkpoint.safetensors"
    assert (read_info(found)["step"] if found.exists() else 0) == step - 1


def test_the_same_command_ends_at_the_same_step(tmp_path):
    totals, errors = [], []

    def watched(stage, below):
        plain = stage.method.loss

        def loss(*parts):
            terms = plain(*parts)
            totals.append(terms["total"].item())
            return {name: value * NAN for name, value in terms.items()} if totals[-1] < below else terms

        stage.method.loss = loss
        return stage

    run(watched(named(Planted()), -1.0), tmp_path / "good")
    fallen = min(totals[:9]) + 1e-6  # by the weights' own doing, so that a resumed training comes to it too
    for _ in range(2):
        with pytest.raises(DivergedError) as caught:
            run(watched(named(Planted()), fallen), tmp_path / "bad")
        errors.append((caught.value.step, caught.value.images))
    assert errors[0] == errors[1]
    assert read_info(tmp_path / "bad" / "checkpoint.safetensors")["step"] == errors[0][0] - 1 > 0


def test_no_checkpoint_of_a_state_that_is_not_finite(tmp_path):
    stage = named(Planted(), replace(RECIPE, optimizer="sgd"))
    step = torch.optim.SGD.step

    class Spoiled(torch.optim.SGD):
        def step(self, *parts):
            found = step(self, *parts)
            if self.taken == 5:
                next(iter(self.state.values()))["momentum_buffer"][0] = math.inf
            self.taken += 1
            return found

    made = Spoiled([p for p in stage.method.parameters() if p.requires_grad], lr=1e-2, momentum=0.9)
    made.taken = 1
    stage.recipe = replace(stage.recipe)
    object.__setattr__(stage.recipe, "make_optimizer", lambda *parts, **more: made)
    with pytest.raises(DivergedError, match=r"optimizer state momentum_buffer of vectors is not finite after step 5"):
        run(stage, tmp_path)
    assert read_info(tmp_path / "checkpoint.safetensors")["step"] == 4


def test_scores_that_are_not_numbers_end_the_epoch_before_its_checkpoint(tmp_path):
    planted, other = Planted(), Planted()
    other.tensor[5] = NAN

    def on_epoch(epoch, method, earlier):
        decide(method, other, other.labels, other.classes, make_fabric("cpu"))

    with pytest.raises(DivergedError, match="msdn: class scores of 1 of 60 images are not finite"):
        run(named(planted), tmp_path, on_epoch=on_epoch)
    assert read_info(tmp_path / "checkpoint.safetensors")["step"] == 5


class _Scaler:
    """Of float16: Fabric's plugin has one, and it leaves out steps."""


def test_float16_may_leave_out_steps_but_not_for_ever(tmp_path, monkeypatch):
    fabric = make_fabric("cpu")
    monkeypatch.setattr(type(fabric.strategy.precision), "scaler", _Scaler(), raising=False)

    def skipping(bad):
        stage = named(Planted())
        plain, count = stage.method.loss, iter(range(1, 100))
        monkeypatch.setattr(stage.method, "loss", lambda *parts: _too_large(plain(*parts), next(count) in bad))
        return stage

    def _too_large(terms, now):
        # no gradient comes of it, as where the scaler leaves a step out
        zero = {k: v.detach() * NAN for k, v in terms.items()}
        return zero | {"total": zero["total"] + 0 * terms["total"].detach()} if now else terms

    monkeypatch.setattr(fabric, "backward", lambda total: total.backward() if total.isfinite() else None)
    monkeypatch.setattr(torch.optim.RMSprop, "step", _unless_left_out(torch.optim.RMSprop.step))
    records = train(skipping({2, 3, 9}), fabric, tmp_path / "few")
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert all(np.isfinite(r["loss"]["total"]) for r in records)
    clean = train(named(Planted()), make_fabric("cpu"), tmp_path / "clean")
    assert records[0]["start"] == clean[0]["start"]
    monkeypatch.setattr(engine, "PATIENCE", 4)
    with pytest.raises(DivergedError, match="is nan at step 7 "):
        train(skipping(set(range(3, 20))), fabric, tmp_path / "many")


def _unless_left_out(step):
    def maybe(self, *parts, **more):
        if any(p.grad is not None for g in self.param_groups for p in g["params"]):
            return step(self, *parts, **more)
        return None

    return maybe


def test_a_loss_that_grew_is_said(tmp_path):
    record = {"epoch": 3, "loss": {"total": 40.0}}
    assert growth([]) is None
    assert growth([{"epoch": 1, "start": 5.0, "loss": {"total": 4.0}}]) is None
    assert growth([{"start": 21.0, "loss": {"total": 4.0}, "epoch": 1}, record]) is None
    note = "the loss grew from 5 at the first step to 40 in epoch 3: the learning rate is too high"
    found = [{"start": 5.0, "loss": {"total": 4.0}, "epoch": 1}, record]
    assert growth(found) == note
    folder = tmp_path / "seed-7" / "final"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    assert grown_losses(tmp_path) == [f"seed-7/final: {note}"]


def test_a_training_that_blows_up_without_a_nan_is_said(tmp_path):
    folder = tmp_path / "seed-3" / "final"
    records = train(named(Planted(), replace(RECIPE, lr=30.0)), make_fabric("cpu"), folder)
    assert records[0]["start"] < records[-1]["loss"]["total"]
    assert len(grown_losses(tmp_path)) == 1


def test_names_and_hints():
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert not_finite(torch.tensor([[1.0], [NAN], [math.inf], [2.0]])).tolist() == [1, 2]
    where = {"step": 2, "epoch": 1, "names": ["a"], "broken": [], "weights": None, "folder": "run", "kept": None}
    error = diverged({"total": NAN, "weights": NAN}, **where, lr=0.01, precision="bf16-mixed")
    assert str(error) == (
        "run: total is nan at step 2 (epoch 1), on a — lower the learning rate: --recipe lr=0.001 or "
        "--precision 32-true, with another "
        "--output; the same command starts over and meets the same steps"
    )
    assert diverged({"total": NAN, "part": NAN, "weights": 1.0}, **where, lr=1, precision="32-true").term == "part"
