"""One callback for whatever listens to a run: what it is told, and what each tracker makes of it."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from lightning_fabric import Fabric

import unseen
from unseen.errors import UnseenError
from unseen.integrations.trackers import TRACKERS, create_tracker
from unseen.training.records import Record


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fit(tiny_guide, tiny_backbone, cache):
    def run(method, folder, **options):
        where = {"backbone": tiny_backbone, "device": "cpu", "cache": cache, "draws": 1}
        return unseen.fit(method, tiny_guide, folder, **where, **options)

    return run


RECIPE = {"batch_size": 8, "lr": 1e-3}


def test_what_a_run_tells(fit, tmp_path):
    told: list[Record] = []
    run = fit("global", tmp_path / "run", recipe=RECIPE, epochs=3, on_record=told.append)
    assert told[0].kind == "run"
    assert told[0].about["method"] == "global"
    results = [r for r in told if r.kind == "result"]
    assert [(r.seed, r.stage) for r in results] == [(0, "honest")]
    numbers = run.results["protocols"]["honest"]["seeds"]["0"]
    assert {k: v for k, v in results[0].values.items() if k in ("T1", "U", "S", "H")} == {
        k: numbers[k] for k in ("T1", "U", "S", "H") if numbers[k] is not None
    }
    for stage in {r.stage for r in told if r.kind == "epoch"}:
        lines = [json.loads(x) for x in (tmp_path / "run/seed-0" / stage / "metrics.jsonl").read_text().splitlines()]
        mine = [r for r in told if r.kind == "epoch" and r.stage == stage]
        assert [(r.epoch, r.step, r.values["loss/total"]) for r in mine] == [
            (x["epoch"], x["step"], x["loss"]["total"]) for x in lines
        ]
    again: list[Record] = []
    fit("global", tmp_path / "run", recipe=RECIPE, epochs=3, on_record=again.append)
    assert [r.kind for r in again] == ["run", "result"]  # epochs are told once


def test_a_closed_form_tells_its_result(fit, tmp_path):
    told: list[Record] = []
    fit("eszsl", tmp_path / "run", on_record=told.append)
    assert [r.kind for r in told] == ["run", "result"]


def test_a_fabric_of_one_s_own(fit, tmp_path):
    ours = fit("global", tmp_path / "a", recipe=RECIPE, epochs=2)
    theirs = fit("global", tmp_path / "b", recipe=RECIPE, epochs=2, fabric=Fabric(accelerator="cpu", devices=1))
    assert ours.results["protocols"] == theirs.results["protocols"]
    with pytest.raises(UnseenError, match="the Fabric has precision bf16-mixed, but the run has 32-true"):
        fit("global", tmp_path / "c", fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))


RECORDS = (
    Record("run", about={"method": "msdn", "seeds": [0], "preset": None}),
    Record("epoch", 0, "final", 1, 12, {"loss/total": 2.5, "metrics/H": 0.25}),
    Record("epoch", 0, "final", 2, 24, {"loss/total": 1.5}),
    Record("result", 0, "honest", values={"H": 0.5, "AUSUC@k": 0.1}),
)


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with create_tracker("tensorboard", tmp_path) as tracker:
        for record in RECORDS:
            tracker(record)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard/seed-0/final")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/total")] == [(12, 2.5), (24, 1.5)]


class StandIn(types.ModuleType):
    """wandb's and trackio's calls, written down."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def init(self, **options):
        self.calls.append(("init", options))
        return self

    def log(self, values):
        self.calls.append(("log", values))

    def finish(self):
        self.calls.append(("finish",))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio(name, tmp_path, monkeypatch):
    library = StandIn(name)
    monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "birds")
    with create_tracker([name], tmp_path / "first") as tracker:
        for record in RECORDS:
            tracker(record)
    about = {"method": "msdn", "seeds": [0]}
    assert library.calls == [
        ("init", {"config": about, "project": "birds", "name": "first"}),
        ("log", {"seed-0/final/loss/total": 2.5, "seed-0/final/metrics/H": 0.25, "seed-0/final/step": 12}),
        ("log", {"seed-0/final/loss/total": 1.5, "seed-0/final/step": 24}),
        ("log", {"seed-0/honest/H": 0.5, "seed-0/honest/AUSUC@k": 0.1, "seed-0/honest/step": 0}),
        ("finish",),
    ]


def test_mlflow(tmp_path, monkeypatch):
    mlflow = types.ModuleType("mlflow")
    calls = []
    for name in ("start_run", "log_params", "log_metrics", "end_run"):
        setattr(mlflow, name, lambda *a, _name=name, **k: calls.append((_name, a, k)) or True)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    with create_tracker("mlflow", tmp_path / "first") as tracker:
        for record in RECORDS:
            tracker(record)
    assert calls[0] == ("start_run", (), {"run_name": "first"})
    assert calls[1] == ("log_params", ({"method": "msdn", "seeds": "[0]"},), {})
    assert calls[2] == (
        "log_metrics",
        ({"seed-0/final/loss/total": 2.5, "seed-0/final/metrics/H": 0.25},),
        {"step": 12},
    )
    assert calls[4][1] == ({"seed-0/honest/H": 0.5, "seed-0/honest/AUSUC_at_k": 0.1},)
    assert calls[-1] == ("end_run", (), {})


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    extra = "tracking" if name == "tensorboard" else name
    with pytest.raises(UnseenError, match=rf"needs {name}, which is not installed — .*unseen\[{extra}\]"):
        create_tracker(name, tmp_path)
    with pytest.raises(UnseenError, match='unknown tracker "comet"'):
        create_tracker("comet", tmp_path)


def test_torch_is_as_it_was(fit, tmp_path):
    """A callback draws no random numbers of the training's."""
    plain = fit("global", tmp_path / "a", recipe=RECIPE, epochs=2)
    told = fit("global", tmp_path / "b", recipe=RECIPE, epochs=2, on_record=lambda record: torch.rand(3))
    assert plain.results["protocols"] == told.results["protocols"]
