"""The engine: the steps it takes, and that nothing is lost when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from training.planted import Planted
from unseen.data.samplers import random_images
from unseen.errors import RunError, UnseenError
from unseen.ground.stopping import stop_on_signal
from unseen.methods import create_method
from unseen.methods.msdn import RECOMMENDED, MSDNSettings
from unseen.methods.settings import Recipe
from unseen.model import scoring
from unseen.training.checkpoints import load_checkpoint, read_info, save_checkpoint
from unseen.training.deciding import decide
from unseen.training.divergence import DivergedError
from unseen.training.engine import Interrupted, Training, epoch_ends, train
from unseen.training.fabric import make_fabric

RECIPE = Recipe(epochs=4, batch_size=10, lr=1e-2)


@pytest.fixture
def planted():
    return Planted()


def stage_of(planted, recipe=RECIPE, epochs=None, seed=3, settings=None, name="msdn"):
    method = create_method(name, channels=16, vectors=planted.vectors, settings=settings, seed=seed)
    return Training(method, planted, planted.labels, planted.classes, recipe, seed, epochs or recipe.epochs)


def weights(stage):
    return {k: v.detach().clone() for k, v in stage.method.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_epoch_ends():
    assert epoch_ends(7057, Recipe(epochs=30, batch_size=50))[-1] == 7057 * 30 // 50
    # AWA2: a batch of 40 counts for 50 images in the release's number of steps
    assert epoch_ends(23527, Recipe(epochs=50, batch_size=40, step_images=50))[-1] == 23527 * 50 // 50
    assert epoch_ends(7, Recipe(epochs=3, batch_size=50)) == [1, 2, 3]
    assert epoch_ends(7, Recipe(epochs=3, batches=5)) == [5, 10, 15]


def test_same_steps_as_a_plain_loop(planted, tmp_path):
    stage = stage_of(planted)
    records = train(stage, make_fabric("cpu"), tmp_path)
    method = create_method("msdn", channels=16, vectors=planted.vectors, seed=3).train()
    optimizer = torch.optim.RMSprop(method.parameters(), lr=1e-2, weight_decay=1e-4, momentum=0.9)
    sampler = random_images(60, 10, 3)
    losses = []
    for step in range(24):
        positions = sampler(step)
        terms = method.loss(method(planted.batch(positions)), torch.as_tensor(planted.labels[positions]), stage.classes)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        losses.append(terms["total"].item())
    assert_same(weights(stage), dict(method.state_dict()))
    assert [r["step"] for r in records] == [6, 12, 18, 24]
    np.testing.assert_allclose([r["loss"]["total"] for r in records], np.reshape(losses, (4, 6)).mean(1), rtol=1e-6)


def test_learns(planted, tmp_path):
    stage = stage_of(planted, replace(RECIPE, epochs=20))
    records = train(stage, make_fabric("cpu"), tmp_path)
    assert records[-1]["loss"]["total"] < 0.5 * records[0]["loss"]["total"]


def test_the_average_is_what_is_tested_and_kept(planted, tmp_path):
    recipe = replace(RECIPE, epochs=2, average=0.9)
    stage, tested = stage_of(planted, recipe), []
    train(
        stage,
        make_fabric("cpu"),
        tmp_path / "average",
        on_epoch=lambda epoch, method, earlier: tested.append(dict(method.state_dict())) or {},
    )
    plain = stage_of(planted, replace(recipe, average=0.0))
    steps = [plain.method.a2v_score.detach().clone()]

    def after_step(task, done, total, note=""):
        steps.append(plain.method.a2v_score.detach().clone())

    train(plain, make_fabric("cpu"), tmp_path / "plain", progress=after_step)
    average = steps[1]
    for step in steps[2:13]:
        average = 0.9 * average + 0.1 * step
    torch.testing.assert_close(stage.method.a2v_score.detach(), average)
    assert_same(weights(stage), tested[-1])


def test_a_closed_form_start_and_averages_resume_to_the_same_bytes(planted, tmp_path):
    def make():
        return stage_of(planted, replace(RECIPE, average=0.9), settings=RECOMMENDED)

    whole = make()
    train(whole, make_fabric("cpu"), tmp_path / "whole")

    def interrupt(task, done, total, note=""):
        if done == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(make(), make_fabric("cpu"), tmp_path / "cut", progress=interrupt)
    resumed = make()
    resumed.method.start = lambda *args: pytest.fail("started again")
    train(resumed, make_fabric("cpu"), tmp_path / "cut")
    assert_same(weights(whole), weights(resumed))


# msdnpp draws a random intervention every step: the random state is resumed too
@pytest.mark.parametrize(("stop_at", "name"), [(1, "msdn"), (6, "msdn"), (7, "msdnpp"), (23, "msdnpp")])
def test_interrupted_run_ends_with_the_same_bytes(planted, tmp_path, stop_at, name):
    whole = stage_of(planted, name=name)
    all_records = train(whole, make_fabric("cpu"), tmp_path / "whole")

    def interrupt(task, done, total, note=""):
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(stage_of(planted, name=name), make_fabric("cpu"), tmp_path / "cut", progress=interrupt)
    resumed = stage_of(planted, name=name)
    steps = []
    records = train(
        resumed, make_fabric("cpu"), tmp_path / "cut", progress=lambda task, done, total, note="": steps.append(done)
    )
    assert_same(weights(whole), weights(resumed))
    assert steps[0] in (stop_at + 1, stop_at + 2)  # the signal is seen at the same or the next step
    plain = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    assert plain == [{k: v for k, v in r.items() if k != "seconds"} for r in all_records]
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_signal_ends_the_test_of_an_epoch_at_once(planted, tmp_path, epoch):
    """Its steps are kept, and the test alone is done again."""

    def test(stop_in):
        def on_epoch(number, method, earlier):
            done.append(number)
            if number == stop_in:
                os.kill(os.getpid(), signal.SIGTERM)
                raise AssertionError("the signal came later")
            return {"T1": next(method.parameters()).sum().item()}

        return on_epoch

    done, whole = [], stage_of(planted, name="msdnpp")
    all_records = train(whole, make_fabric("cpu"), tmp_path / "whole", on_epoch=test(None))
    done.clear()
    with pytest.raises(Interrupted, match="stopped in the test after step"):
        train(stage_of(planted, name="msdnpp"), make_fabric("cpu"), tmp_path / "cut", on_epoch=test(epoch))
    resumed, steps = stage_of(planted, name="msdnpp"), []
    records = train(
        resumed,
        make_fabric("cpu"),
        tmp_path / "cut",
        on_epoch=test(None),
        progress=lambda task, step, total, note="": steps.append(step),
    )
    assert_same(weights(whole), weights(resumed))
    assert done == [*range(1, epoch + 1), *range(epoch, 5)]
    assert steps[0] > epoch * 4
    plain = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    assert plain == [{k: v for k, v in r.items() if k != "seconds"} for r in all_records]


KILLED = """
import sys, os, signal
from pathlib import Path
sys.path.insert(0, {tests!r})
from training.planted import Planted
from training.test_engine import stage_of
from unseen.training.engine import train
from unseen.training.fabric import make_fabric
def kill(task, done, total, note=""):
    if done == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
train(stage_of(Planted()), make_fabric("cpu"), Path({folder!r}), progress=kill, checkpoint_seconds=0)
"""


def test_killed_run_ends_with_the_same_bytes(planted, tmp_path):
    whole = stage_of(planted)
    train(whole, make_fabric("cpu"), tmp_path / "whole")
    code = KILLED.format(tests=str(Path(__file__).parents[1]), at=11, folder=str(tmp_path / "cut"))
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert read_info(tmp_path / "cut" / "checkpoint.safetensors")["step"] == 10
    resumed = stage_of(planted)
    train(resumed, make_fabric("cpu"), tmp_path / "cut")
    assert_same(weights(whole), weights(resumed))


def test_finished_training_is_not_done_again(planted, tmp_path):
    first = stage_of(planted)
    train(first, make_fabric("cpu"), tmp_path)
    again = stage_of(planted)
    calls = []
    train(again, make_fabric("cpu"), tmp_path, on_epoch=lambda *args: calls.append(args) or {})
    assert not calls
    assert_same(weights(first), weights(again))


@pytest.mark.parametrize("change", ["seed", "recipe", "settings", "labels"])
def test_checkpoint_of_another_training_is_not_used(planted, tmp_path, change):
    train(stage_of(planted), make_fabric("cpu"), tmp_path)
    if change == "labels":
        planted.labels = (planted.labels + 1) % 3
    other = stage_of(
        planted,
        recipe=replace(RECIPE, lr=2e-2) if change == "recipe" else RECIPE,
        seed=4 if change == "seed" else 3,
        settings=MSDNSettings(lambda_cal=0.5) if change == "settings" else None,
    )
    steps = []
    train(other, make_fabric("cpu"), tmp_path, progress=lambda task, done, total, note="": steps.append(done))
    assert steps[0] == 1


def test_shorter_training_is_a_prefix(planted, tmp_path):
    """The honest protocol reads its number off a longer training; that is only right if this holds."""
    at_two = {}

    def keep(epoch, method, earlier):
        if epoch == 2:
            at_two.update({k: v.detach().clone() for k, v in method.state_dict().items()})
        return {}

    train(stage_of(planted), make_fabric("cpu"), tmp_path / "long", on_epoch=keep)
    short = stage_of(planted, epochs=2)
    train(short, make_fabric("cpu"), tmp_path / "short")
    assert_same(at_two, weights(short))


def test_accumulation_equals_one_batch_without_calibration(tmp_path):
    planted = Planted(dtype=torch.float64)
    settings = MSDNSettings(lambda_cal=0.0)
    runs = []
    for name, accumulate in (("one", 1), ("many", 5)):
        stage = stage_of(planted, settings=settings)
        train(stage, make_fabric("cpu", "64-true"), tmp_path / name, accumulate=accumulate)
        runs.append(weights(stage))
    for name in runs[0]:
        torch.testing.assert_close(runs[0][name], runs[1][name], rtol=1e-9, atol=1e-12)


def test_bfloat16_stays_near_float32(planted, tmp_path):
    exact, rough = stage_of(planted), stage_of(planted)
    a = train(exact, make_fabric("cpu"), tmp_path / "a")
    b = train(rough, make_fabric("cpu", "bf16-mixed"), tmp_path / "b")
    np.testing.assert_allclose(a[-1]["loss"]["total"], b[-1]["loss"]["total"], rtol=0.05)
    assert all(p.dtype == torch.float32 for p in rough.method.parameters())


def test_divergence_is_named_and_the_last_checkpoint_stands(planted, tmp_path):
    def poison(task, done, total, note=""):
        if done == 8:
            planted.tensor[:] = float("nan")

    with pytest.raises(DivergedError, match=r"is nan at step 9"):
        train(stage_of(planted), make_fabric("cpu"), tmp_path, progress=poison, checkpoint_seconds=0)
    assert read_info(tmp_path / "checkpoint.safetensors")["step"] == 8


def test_global_random_state_is_left_alone(planted, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(stage_of(planted), make_fabric("cpu"), tmp_path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd", "adamw"])
def test_checkpoint_round_trip(tmp_path, planted, optimizer):
    method = stage_of(planted).method
    made = replace(RECIPE, optimizer=optimizer).make_optimizer(method.parameters())
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    save_checkpoint(tmp_path / "c.safetensors", method, made, {"step": 7})
    other = stage_of(planted, seed=9).method
    again = replace(RECIPE, optimizer=optimizer).make_optimizer(other.parameters())
    load_checkpoint(tmp_path / "c.safetensors", other, again)
    assert read_info(tmp_path / "c.safetensors") == {"step": 7}
    for a, b in ((method, made), (other, again)):
        for parameter in a.parameters():
            parameter.grad = torch.ones_like(parameter)
        b.step()
    assert_same(dict(method.state_dict()), dict(other.state_dict()))
    with safe_open(tmp_path / "c.safetensors", "pt") as opened:
        assert "rng/cpu" in opened.keys()  # noqa: SIM118 - not a dict


def test_damaged_checkpoint_is_one_line(tmp_path, planted):
    train(stage_of(planted), make_fabric("cpu"), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: damaged checkpoint.*delete it"):
        train(stage_of(planted), make_fabric("cpu"), tmp_path)


def test_decide_in_batches_equals_at_once(planted):
    method = stage_of(planted).method.eval()
    fabric = make_fabric("cpu")
    whole = decide(method, planted, planted.labels, planted.classes, fabric, batch_size=60)
    parts = decide(method, planted, planted.labels, planted.classes, fabric, batch_size=7)
    assert (whole.best_seen == parts.best_seen).all()
    np.testing.assert_allclose(whole.offset, parts.offset, atol=1e-5)


def test_decide_in_blocks_of_classes_equals_at_once(planted, monkeypatch):
    method, fabric = stage_of(planted).method.eval(), make_fabric("cpu")
    whole = decide(method, planted, planted.labels, planted.classes, fabric)
    monkeypatch.setattr(scoring, "BLOCK", 3)
    blocks = decide(method, planted, planted.labels, planted.classes, fabric)
    assert (whole.best_seen == blocks.best_seen).all()
    assert (whole.best_unseen == blocks.best_unseen).all()
    np.testing.assert_allclose(whole.offset, blocks.offset, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "precision", "hint"),
    [("tpu9", "32-true", "use auto, cpu"), ("cpu", "8-bit", "32-true"), ("cpu", "16-mixed", "bf16-mixed")],
)
def test_impossible_devices_are_one_line(device, precision, hint):
    with pytest.raises(UnseenError, match=hint):
        make_fabric(device, precision)


def test_second_signal_stops_at_once():
    with stop_on_signal() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
