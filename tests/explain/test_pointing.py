"""The pointing game of runs, and its command."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import unseen
from unseen import cli
from unseen.evaluation.localisation import pointing_game
from unseen.explain.pointing import run_pointing
from unseen.training.run import reopen


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(tiny_guide, tiny_backbone, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "msdn"
    options = {"backbone": tiny_backbone, "seeds": (0, 1), "recipe": {"epochs": "2"}, "cache": cache, "device": "cpu"}
    return unseen.fit("msdn", tiny_guide, folder, **options)


def test_means_over_seeds_of_the_game(run, cache):
    found = run_pointing(run, device="cpu", cache=cache)
    inputs = reopen(run, device="cpu", cache=cache)
    games = []
    for seed in (0, 1):
        recognizer = unseen.Recognizer.load(run.folder, seed=seed, device="cpu")
        images = inputs.dataset.indices("test_unseen")
        games.append(
            pointing_game(recognizer.method, inputs.dataset, inputs.store, recognizer.backbone.transform, images)
        )
    assert list(found) == ["a2v", "v2a"]
    for name, entry in found.items():
        hits = [game[name].hits for game in games]
        assert entry["hits"] == pytest.approx(np.mean(hits))
        assert entry["std"] == pytest.approx(np.std(hits, ddof=1))
        assert entry["chance"] == games[0][name].chance
        cases = sum(group["cases"] for group in entry["by_group"].values())
        total = sum(group["hits"] * group["cases"] for group in entry["by_group"].values())
        assert entry["hits"] == pytest.approx(total / cases)  # groups make up the whole


def test_the_command(run, cache, monkeypatch, capsys):
    for extra in (["--json"], ["--by-group"]):
        monkeypatch.setattr(sys, "argv", ["unseen", "pointing", str(run.folder), "--cache", str(cache), *extra])
        cli.main()
        text = capsys.readouterr().out
        if extra == ["--json"]:
            assert json.loads(text) == {"json_version": 1, str(run.folder): run_pointing(run, cache=cache)}
        else:
            assert "msdn a2v" in text
            assert "chance" in text
