"""Runs of an anchored method: what it falls back to, the rule, and a saved model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

import unseen
from unseen.recognizer import Recognizer
from unseen.training import anchored
from unseen.training.decisions import decisions_path, load_decisions

RECIPE = {"epochs": "2", "batches": "3"}


@pytest.fixture(scope="module")
def fit(tmp_path_factory, tiny_guide, tiny_backbone):
    cache = tmp_path_factory.mktemp("anchored-cache")

    def run(method, joined=False, **options):
        backbone = replace(tiny_backbone, stages=("-2+final",)) if joined else tiny_backbone
        options = {"draws": 2, "recipe": RECIPE} | options if method == "anchored" else {"draws": 2} | options
        folder = tmp_path_factory.mktemp("anchored") / "run"
        return unseen.fit(method, tiny_guide, folder, backbone=backbone, cache=cache, device="cpu", **options)

    return run


@pytest.fixture(scope="module")
def half(fit):
    """A run in which the trained parts and an earlier map count, whatever validation says."""
    settings = {"attention": "0.5", "residual": "0.5", "earlier": "0.25", "features": "whitened"}
    return fit("anchored", joined=True, settings=settings)


@pytest.mark.parametrize("name", ["prototypes", "eszsl"])
def test_with_shares_of_0_a_run_is_that_of_its_start_to_the_bit(fit, name):
    prepared = {"features": "whitened", "rows": "centred"}
    start = fit(name, settings=prepared)
    mine = fit("anchored", settings=prepared | {"start": name, "attention": "0", "residual": "0"})
    for metric in ("T1", "H"):
        one, other = (load_decisions(decisions_path(run.folder, 0, "honest", metric)) for run in (start, mine))
        for key, array in one.arrays().items():
            assert np.array_equal(array, other.arrays()[key])
    chosen = [json.loads((run.folder / "seed-0" / "choice.json").read_text()) for run in (start, mine)]
    assert chosen[1]["pick"] == chosen[0]["pick"] | {"method": name, "epoch": 0, "attention": 0.0, "residual": 0.0}
    assert chosen[1]["metrics"] == chosen[0]["metrics"]
    kept = [json.loads((run.folder / "seed-0" / "honest-calibration.json").read_text()) for run in (start, mine)]
    assert kept[0]["calibration"] == kept[1]["calibration"]
    assert not (mine.folder / "seed-0" / "validation" / "metrics.jsonl").exists()  # nothing was trained


def test_what_is_trained_counts_in_every_number(half):
    kept = json.loads((half.folder / "seed-0" / "choice.json").read_text())
    assert (kept["pick"]["attention"], kept["pick"]["residual"]) == (0.5, 0.5)
    assert kept["pick"]["epoch"] in (1, 2)
    model = Recognizer.load(half.folder, device="cpu")
    assert model.method.name == "anchored"
    assert model.method.directions.attention.tolist() == model.method.directions.residual.tolist() == [0.5]
    assert model.backbone.parts == [(192, 96)]
    assert kept["pick"]["features"] == "whitened+0.25"
    assert model.method.linear.features.factors.tolist() == pytest.approx([0.5, 0.75**0.5])
    assert model.method.a2v.abs().sum() > 0
    assert model.method.residual.abs().sum() > 0


def test_its_model_predicts_looks_and_takes_classes(half, tiny_guide):
    model = Recognizer.load(half.folder, device="cpu")
    image = sorted((tiny_guide / "images").rglob("*.*"))[0]
    prediction = model.predict([image])[0]
    look = model.look(image)
    assert look.prediction() == prediction
    explanation = model.explain(image)
    assert set(explanation.attention) == {"a2v", "v2a"}
    assert explanation.contributions.sum(axis=(1, 2)) == pytest.approx(look.attribute_scores, abs=1e-4)
    values = dict(zip(model.table.attributes.names, model.table.values[0].tolist(), strict=True))
    before = {c.name: c.score for c in model.predict([image], top=len(model.table))[0].candidates}
    model.add_class("new one", values)
    after = {c.name: c.score for c in model.predict([image], top=len(model.table))[0].candidates}
    assert set(after) == {*before, "new one"}


def test_the_rule_asks_for_more_than_one_standard_error(monkeypatch):
    class Kind:
        trained_parts: ClassVar = {"attention": (1.0,)}

        @staticmethod
        def fixed_shares(settings):
            return {}

    monkeypatch.setattr(anchored, "_kind", lambda inputs: Kind)
    inputs = type("Inputs", (), {})()
    inputs.recipe, inputs.start, inputs.settings = type("R", (), {"epochs": 1})(), {"ridge": 1.0}, None
    inputs.config = type("C", (), {"select": "T1"})()
    for gains, taken in (([0.1, 0.1, 0.1], True), ([0.2, -0.1, 0.1], False), ([0.2, 0.0, 0.1], True)):
        validation = anchored.Validation(0, None)
        validation._stages = [(i, None, np.array([True, False])) for i in range(len(gains))]
        monkeypatch.setattr(
            anchored, "values_of", lambda d, *_, gains=gains: np.array([0.5 + gains[i] * s["attention"] for i, s in d])
        )
        monkeypatch.setattr(anchored, "Decisions", type("D", (), {"from_scores": staticmethod(lambda s, *_: s)}))
        monkeypatch.setattr(
            validation,
            "_mixed",
            lambda i, labels, seen, epoch, shares: type("H", (), {"scores": (i, shares), "labels": 0, "seen": 0})(),
        )
        pick = validation.best(inputs)
        assert pick == {"ridge": 1.0, "epoch": int(taken), "attention": float(taken)}
        assert validation.study["gain"] == pytest.approx(np.mean(gains))
        assert validation.study["standard_error"] == pytest.approx(np.std(gains, ddof=1) / 3**0.5)


def test_one_draw_shows_no_error_so_that_the_start_stands(fit):
    run = fit("anchored", draws=1)
    pick = json.loads((run.folder / "seed-0" / "choice.json").read_text())["pick"]
    assert (pick["epoch"], pick["attention"], pick["residual"]) == (0, 0.0, 0.0)
