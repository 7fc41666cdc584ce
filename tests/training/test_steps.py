"""A step as the same operations on the same memory, and what surrounds a CUDA graph of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.planted import Planted
from training.test_engine import RECIPE, assert_same, stage_of, weights
from unseen.data.samplers import random_images
from unseen.errors import UnseenError
from unseen.methods import METHODS, create_method, find_method
from unseen.methods.base import GradientMethod
from unseen.methods.msdn import RECOMMENDED
from unseen.methods.msdnpp import MSDNPPSettings
from unseen.training.divergence import WEIGHTS
from unseen.training.engine import train
from unseen.training.fabric import make_fabric
from unseen.training.steps import WARM_UP, Graph, Steps, check_graph, non_finite


def made(planted, accumulate=1, name="msdn", settings=None):
    stage = stage_of(planted, name=name, settings=settings)
    stage.method.train()
    optimizer = stage.recipe.make_optimizer(stage.method.parameters())
    fabric = make_fabric("cpu")
    parts = (stage.method, optimizer, planted, planted.labels, planted.classes, 10, accumulate, fabric)
    return stage, Steps(*parts)


def test_a_step_gives_its_terms_and_the_norm_of_the_weights():
    planted = Planted()
    stage, steps = made(planted)
    before = stage_of(planted).method
    images = random_images(60, 10, 3)(0)
    expected = before.loss(before(planted.batch(images)), torch.as_tensor(planted.labels[images]), planted.classes)
    numbers = steps(images).tolist()
    found = dict(zip(steps.terms, numbers, strict=True))
    assert tuple(found) == (*expected, WEIGHTS)
    for name, value in expected.items():
        assert found[name] == value.item()
    norm = sum(p.detach().double().square().sum() for p in stage.method.parameters()).sqrt().item()
    assert found[WEIGHTS] == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["msdn", "msdnpp", "global"])
def test_regions_read_ahead_and_gathered_in_the_step_give_the_same_bytes(name, accumulate):
    planted = Planted(channels=16)
    (first, gathered), (second, ahead) = made(planted, accumulate, name), made(planted, accumulate, name)
    sampler = random_images(60, 10, 3)
    for run, steps in ((gathered, gathered), (None, ahead)):
        torch.manual_seed(0)
        for step in range(6):
            images = sampler(step)
            pieces = [planted.batch(part) for part in np.array_split(images, accumulate)]
            steps(images, None if run else pieces)
    assert_same(weights(first), weights(second))


class Tape:
    """Stands for a CUDA graph."""

    def __init__(self, work):
        self.replay = work


@pytest.fixture
def taped(monkeypatch):
    """CUDA's streams and graphs stood for on the CPU; gives what happened, in order."""
    events = []

    class Stream:
        def __init__(self, device):
            assert device == torch.device("cpu")

        def wait_stream(self, other):
            events.append("wait")

    @contextmanager
    def stream(which):
        events.append("side")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)

    def capture(self):
        """As in a capture nothing is computed before the replay, whose result has one place."""
        events.append("capture")
        self._found = torch.zeros(0)

        def work():
            found = self._work()
            self._found.resize_(found.shape).copy_(found)
            events.append("replay")

        self._graph = Tape(work)

    monkeypatch.setattr(Graph, "_capture", capture)
    return events


def test_every_call_does_its_work_once_and_reads_the_buffers_as_they_are(taped):
    total, given = torch.zeros(1), torch.zeros(1)

    def work():
        total.add_(given)
        return total.clone()

    graph = Graph(work, torch.device("cpu"))
    seen = []
    for number in range(1, 8):
        given.fill_(number)
        seen.append(graph(0.1 if number < 6 else 0.01).item())
    assert seen == [1, 3, 6, 10, 15, 21, 28]
    assert taped.count("side") == WARM_UP
    # captured once after the warm-up, and anew at the other learning rate
    assert [event for event in taped if event in ("capture", "replay")] == [
        "capture",
        "replay",
        "replay",
        "capture",
        "replay",
        "replay",
    ]
    assert taped[:3] == ["wait", "side", "wait"]


@pytest.mark.parametrize("settings", [None, RECOMMENDED])
def test_a_training_through_a_graph_takes_the_same_steps(taped, tmp_path, monkeypatch, settings):
    """All but the capture itself: warm-up steps are real ones, the buffers are read, the rate falls."""
    recipe = replace(RECIPE, lr_every=2, lr_factor=0.5, average=0.9)
    plain, graphed = (stage_of(Planted(), recipe, settings=settings) for _ in range(2))
    records = train(plain, make_fabric("cpu"), tmp_path / "plain")
    monkeypatch.setattr("unseen.training.engine.check_graph", lambda *parts: None)
    monkeypatch.setattr(
        type(recipe),
        "make_optimizer",
        lambda self, p, capturable: torch.optim.RMSprop(p, lr=1, momentum=0.9, weight_decay=1e-4),
    )
    others = train(graphed, make_fabric("cpu"), tmp_path / "graphed", graph=True)
    assert_same(weights(plain), weights(graphed))
    assert [r["loss"] for r in records] == [r["loss"] for r in others]
    assert taped.count("capture") == 2
    assert taped.count("replay") == 24 - WARM_UP


def test_which_methods_can_be_captured():
    static = {}
    for name in METHODS:
        kind = find_method(name)
        if issubclass(kind, GradientMethod) and kind.stages == 1:
            vectors = torch.randn(6, 8)
            settings = next(iter(kind.presets.values())).settings
            static[name] = create_method(name, channels=16, vectors=vectors, settings=settings).static_step
    assert {name for name, can in static.items() if can} == {"anchored", "msdn", "msdnpp", "global"}
    shuffled = MSDNPPSettings(intervention="shuffled")
    assert not create_method("msdnpp", channels=16, vectors=torch.randn(6, 8), settings=shuffled).static_step


class _Device:
    def __init__(self, device, scaler=None):
        self.device = torch.device(device)
        self.strategy = type("S", (), {"precision": type("P", (), {"scaler": scaler})()})()


@pytest.mark.parametrize(
    ("fabric", "change", "reason"),
    [
        (_Device("cpu"), {}, "needs a CUDA device; this is cpu — omit --graph"),
        (_Device("cuda", scaler=1), {}, "float16 training skips steps — --precision bf16-mixed"),
        (_Device("cuda"), {"streams": True}, "do not fit into GPU memory"),
        (_Device("cuda"), {"method": "ale"}, "a step of ale synchronizes with the host"),
    ],
)
def test_where_there_can_be_no_graph_is_one_line(fabric, change, reason):
    planted = Planted()
    planted.streams = change.get("streams", False)
    settings = None if "method" not in change else next(iter(find_method("ale").presets.values())).settings
    method = stage_of(planted, name=change.get("method", "msdn"), settings=settings).method
    with pytest.raises(UnseenError, match=reason):
        check_graph(method, planted, fabric)


def test_a_graph_can_be_on_cuda():
    check_graph(stage_of(Planted()).method, Planted(), _Device("cuda"))


def test_the_first_tensor_that_is_not_finite():
    good = {"a": torch.ones(3), "count": torch.tensor(7), "b": torch.ones(2, dtype=torch.float64)}
    assert non_finite(good) is None
    assert non_finite({}) is None
    assert non_finite(good | {"c": torch.tensor([1.0, float("nan")]), "d": torch.tensor(float("inf"))}) == "c"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["msdn", "msdnpp", "global"])
def test_a_cuda_graph_takes_the_steps_of_the_plain_loop(tmp_path, name, precision):
    """On a GPU: captured and plain, resumed and not, end with nearly the same weights."""
    recipe = replace(RECIPE, epochs=6, lr=1e-3, lr_every=3, lr_factor=0.5)
    found = {}
    for kind in ("plain", "graph", "resumed"):
        planted = Planted()
        planted.tensor, planted.classes = planted.tensor.cuda(), planted.classes.to("cuda", torch.float32)
        planted.batch = lambda positions, kept=planted.tensor: kept[torch.as_tensor(positions, device="cuda")]
        for epochs in (3, 6) if kind == "resumed" else (6,):
            stage = stage_of(planted, recipe, epochs=epochs, name=name)
            stage.method.cuda()
            train(stage, make_fabric("cuda", precision), tmp_path / kind, graph=kind != "plain")
        found[kind] = weights(stage)
    for kind in ("graph", "resumed"):
        for key, value in found["plain"].items():
            torch.testing.assert_close(found[kind][key], value, rtol=1e-3, atol=1e-4)
