"""Ablations that methods declare, and sweeps."""

from __future__ import annotations

import json

import matplotlib
import pytest

from unseen.backbones.spec import BackboneSpec
from unseen.errors import UnseenError
from unseen.experiments import ablate as ablating
from unseen.experiments import compare as comparing
from unseen.experiments import worker
from unseen.experiments.ablate import ablation_variants, distinct, sweep_variants
from unseen.experiments.compare import Comparison
from unseen.experiments.variants import parse_variant
from unseen.methods import METHODS
from unseen.report.comparison import COLORS
from unseen.report.sweep import axis_scale, write_sweep
from unseen.training.plan import resolve_settings

SPEC = BackboneSpec(name="resnet18", weights="random")
DECLARED = [name for name, method in METHODS.items() if method.ablations]


def resolved(variant):
    return resolve_settings(variant.config({"dataset": "x", "backbone": SPEC}), "x")


@pytest.mark.parametrize("name", DECLARED)
def test_every_ablation_changes_something_of_some_preset(name):
    said = {}
    for preset in METHODS[name].presets:
        lines = []
        rows = ablation_variants(parse_variant(f"{name}@{preset}"))
        kept = distinct(rows, {"dataset": "x", "backbone": SPEC}, lines.append)
        assert kept[0].name == "full"
        assert len({(row.method, *resolved(row)[1:]) for row in kept}) == len(kept) == len(rows) - len(lines)
        said |= {row.name: row.says for row in kept}
    assert set(said) == {row.name for row in rows}
    assert all(said.values())


def test_rows_without_anything_to_take_away_are_left_out():
    lines = []
    rows = distinct(ablation_variants(parse_variant("msdn@cub")), {"dataset": "x", "backbone": SPEC}, lines.append)
    assert not {"no prototypes", "no averaging"} & {row.name for row in rows}
    assert "no averaging: skipped, equal to full with these settings" in lines


def test_ablations_of_msdnpp():
    rows = {row.name: row for row in ablation_variants(parse_variant("msdnpp@sun:epochs=3"))}
    for row in rows.values():
        if row.method == "msdnpp":
            assert resolved(row)[0] == "sun"
            assert resolved(row)[2].epochs == (1 if row.name == "start alone" else 3)
    settings = {name: resolved(row)[1] for name, row in rows.items()}
    assert settings["no causal term"].lambda_causal == 0
    assert settings["uniform intervention"].intervention == "uniform"
    assert (settings["effect only"].lambda_score, settings["effect only"].lambda_causal) == (0, 1)
    assert settings["permuted_channels intervention"].intervention == "permuted_channels"
    cal, cvsc = settings["CAL's weighing"], settings["CVsC's reading"]
    assert (cal.lambda_score, cal.lambda_causal) == (1 / 3, 1)
    assert (cvsc.intervention, cvsc.counterfactual_gradient, cvsc.lambda_semantic) == ("permuted", True, 1)
    assert settings["a2v alone"].subnets == "a2v"
    assert settings["no calibration"].lambda_cal == 0
    assert settings["no distillation"].distillation == "none"
    assert rows["global features"].method == "global"


def test_ablations_of_mgmrn_are_what_a_preset_is_not_yet():
    released = {"released grouping", "progressive", "released initial weights", "batch statistics"}
    ours = {"parts grouping", "joint", "plain initial weights", "frozen statistics"}
    for preset, absent in (("cub", released), ("recommended", ours)):
        declared = ablation_variants(parse_variant(f"mgmrn@{preset}"))
        rows = {r.name: r for r in distinct(declared, {"dataset": "x", "backbone": SPEC}, lambda line: None)}
        assert {row.name for row in declared} - set(rows) == absent
        settings = {name: resolved(row)[1] for name, row in rows.items()}
        assert [settings[f"level {m} alone"].used for m in (1, 2, 3)] == [(1,), (2,), (3,)]
        assert settings["no refinement"].refining(1) == ()
        assert settings["full"].refining(1) == (2, 3)


def test_a_method_without_parts():
    with pytest.raises(UnseenError, match="eszsl: has no ablations"):
        ablation_variants(parse_variant("eszsl"))


def test_sweep_from_text():
    key, values, rows = sweep_variants(parse_variant("msdn@sun"), "lambda_cal=0,0.1,1e1")
    assert (key, values) == ("lambda_cal", [0, 0.1, 10])
    assert [resolved(row)[1].lambda_cal for row in rows] == values
    for wrong in ("lambda_cal", "lambda_cal=", "lambda_cal=a", "=1", "lambda_cal=1,1.0"):
        with pytest.raises(UnseenError, match="is not a sweep"):
            sweep_variants(parse_variant("msdn"), wrong)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.1, 1, 10], "log"), ([0, 0.1, 1], "symlog"), ([1, 2, 3], "linear"), ([-1, 100], "linear"), ([0], "linear")],
)
def test_axis(values, scale):
    assert axis_scale(values)[0] == scale


@pytest.mark.parametrize(
    ("view", "more", "bars"),
    [
        ("honest", {}, "(mean ± spread of 2 seeds)"),
        ("hold-outs", {"draws": 3}, "(mean ± spread of 3 hold-outs)"),
        ("hold-outs", {"draws": 1}, None),
        ("validation", {}, "(mean ± spread of 2 seeds)"),
    ],
)
def test_a_sweep_is_drawn_of_every_view(tmp_path, view, more, bars):
    assert view in COLORS
    metrics = {"T1": {"mean": 0.5, "std": 0.1}, "H": {"mean": None, "std": None}}
    rows = [{"error": None, "seeds": [0, 1], view: {"metrics": metrics, **more}} for _ in range(2)]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        svg = write_sweep({"title": "msdn on x", "views": [view], "rows": rows}, "k", [1, 2], tmp_path / "sweep")
    assert f"T1, {view}" in svg
    assert f"H, {view}" not in svg
    assert (bars or "msdn on x") in svg
    assert ("spread" in svg) == (bars is not None)


def test_a_sweep_on_validation_classes(tiny_guide, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "run_worker", worker.work)
    base = {"dataset": str(tiny_guide), "backbone": tiny_backbone, "protocols": ("honest",), "seeds": (0, 1)}
    asked = Comparison(
        [], base, {"epochs": "2", "batch_size": "8"}, validation_only=True, cache=tmp_path / "cache", device="cpu"
    )
    found = ablating.ablate(asked, tmp_path / "out", base=parse_variant("msdnpp"), sweep="lambda_causal=0,1")
    assert [row["name"] for row in found["rows"]] == ["lambda_causal=0", "lambda_causal=1"]
    assert [row["settings"]["lambda_causal"] for row in found["rows"]] == [0, 1]
    out = tmp_path / "out"
    assert not list(out.glob("*/results.json"))
    assert (out / "sweep-validation.png").read_bytes().startswith(b"\x89PNG")
    svg = (out / "sweep-validation.svg").read_text()
    assert "<svg" in (out / "compare-validation.html").read_text()
    assert json.loads((out / "compare-validation.json").read_text()) == found
    again = ablating.ablate(asked, out, base=parse_variant("msdnpp"), sweep="lambda_causal=0,1")
    assert again == found
    assert (out / "sweep-validation.svg").read_text() == svg
