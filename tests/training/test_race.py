"""The race of auto: who wins, what time allows, and that the run goes on as the winner's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest

from unseen.data.catalogue import load_dataset
from unseen.errors import UnseenError
from unseen.ground.progress import silent
from unseen.recognizer import Recognizer
from unseen.report.command import train_words
from unseen.report.tables import race_rows, race_sentence
from unseen.training import race
from unseen.training.config import RunConfig
from unseen.training.run import fit


def test_a_gain_is_paired_and_has_an_error():
    assert race.gain([0.5, 0.7, 0.6], [0.4, 0.5, 0.5, 0.9, 0.9]) == pytest.approx((0.4 / 3, 0.1 / 3))
    assert race.gain([0.5], [0.4]) == (pytest.approx(0.1), math.inf)  # one draw proves nothing


def test_a_training_that_would_end_too_late_is_stopped(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    told = []
    clock = race.Clock(lambda *say: told.append(say), ends=100.0, trainings=4)
    now[0] = 10.0
    clock("draw 1", 50, 100)  # 4 trainings at 20 s each
    clock("draw 1", 100, 100)
    now[0] = 55.0
    with pytest.raises(race.OutOfTimeError):
        clock("draw 2", 50, 100)  # 1.5 trainings took 55 s, so that 4 take 147
    assert len(told) == 3


def test_the_table_says_why_each_method_was_kept_or_not():
    def entry(method, h, draws, **more):
        return {"method": method, "H": h, "draws": draws, "seconds": 7} | more

    def duel(method, against, difference, error):
        return {"method": method, "against": against, "difference": difference, "error": error}

    entries = [
        entry("eszsl (zoom 2)", 0.7, [0.71, 0.69]),
        entry("msdnpp", 0.66, [0.7, 0.62]),
        entry("eszsl", 0.65, [0.64, 0.66]),
        entry("prototypes", 0.6, [0.61, 0.59]),
        entry("sae", 0.5, None, stopped=1, of=2, behind=0.1),
        entry("tuned (zoom 2)", 0.7, [0.7, 0.7], untrained=True),
        entry("late", None, None),
        entry("worse", 0.4, [0.4, 0.4]),
    ]
    duels = [
        duel("msdnpp", "eszsl", 0.01, 0.05),
        duel("eszsl (zoom 2)", "eszsl", 0.05, 0.001),
        duel("worse", "eszsl (zoom 2)", -0.3, 0.01),
    ]
    rows = race_rows({"race": {"winner": "eszsl (zoom 2)", "entries": entries, "duels": duels}})
    assert {row["method"]: row["result"] for row in rows} == {
        "eszsl (zoom 2)": "kept",
        "msdnpp": "ahead of eszsl by 1.0 points, not by more than the error",
        "eszsl": "led until eszsl (zoom 2)",
        "prototypes": "validation chose eszsl among closed forms",
        "sae": "given up early",
        "tuned (zoom 2)": "training did not help",
        "late": "not ready in time",
        "worse": "30.0 points behind eszsl (zoom 2)",
    }
    assert rows[3]["H on each draw"] == "61.0 59.0"
    (alone, lone) = race_rows({"race": {"winner": "eszsl", "entries": entries[2:4], "duels": []}})
    assert (alone["result"], lone["result"]) == ("kept", "validation chose eszsl among closed forms")


class Found:
    """A validation whose best value after each draw is known."""

    def __init__(self, *values):
        self._values, self.value = iter(values), 0.0

    def best(self, inputs):
        self.value = next(self._values)


@pytest.mark.parametrize(
    ("values", "draws", "stops"),
    [
        ((0.54,), 3, 1),  # 6 points behind on the first draw
        ((0.56, 0.54), 3, 2),  # 4 behind, then 11 on the mean of two
        ((0.56, 0.61, 0.40), 3, None),  # after the last draw there is nothing to save
        ((0.40,), 1, None),
    ],
)
def test_a_method_far_behind_is_given_up(values, draws, stops):
    watch = race.Watch(SimpleNamespace(config=SimpleNamespace(draw_count=draws)), [0.6, 0.7, 0.7, 0.1, 0.1])
    validation = Found(*values)
    stopped = None
    for draw in range(1, len(values) + 1):
        try:
            watch(validation)
        except race.BehindError:
            stopped = draw
            break
    assert stopped == stops
    if stops == 2:
        assert watch.behind == pytest.approx(0.65 - 0.54)


@pytest.fixture
def config(tiny_guide, tiny_backbone):
    return RunConfig(method="auto", dataset=str(tiny_guide), backbone=tiny_backbone, holdouts=0, draws=2)


def run(config, folder, progress=silent):
    return fit(config, folder, cache=folder.parent / "cache", device="cpu", progress=progress)


@pytest.mark.parametrize("wins", [True, False])
def test_the_run_becomes_the_winner_s(config, tmp_path, monkeypatch, wins):
    monkeypatch.setattr(race, "TRAINED", "global")
    monkeypatch.setattr(race, "gain", lambda *_: (0.1, 0.05) if wins else (0.04, 0.05))
    monkeypatch.setattr(race, "BEHIND", 1.0)
    made = run(config, tmp_path / "run")
    found = made.results["race"]
    assert {entry["method"] for entry in found["entries"]} == {"eszsl", "prototypes", "global"}
    assert (found["winner"] == "global") == wins
    for entry in found["entries"][:3]:
        assert len(entry["draws"]) == 2
        assert np.mean(entry["draws"]) == pytest.approx(entry["H"])
    assert [row["method"] for row in race_rows(made.results) if row["result"] == "kept"] == [found["winner"]]
    assert made.config.method == ("global" if wins else "auto")
    assert made.config.raced == wins
    method = Recognizer.load(made.folder, device="cpu").method
    assert method.name == ("global" if wins else "auto")
    monkeypatch.setattr(race, "validate_seeds", None)  # the command, repeated, does not race again
    if wins:
        assert run(config, tmp_path / "run").results["protocols"] == made.results["protocols"]


def rig(monkeypatch, gains: Iterator[tuple[float, float]], helps: bool) -> None:
    """A race with a quick trained method, whose duels have these gains and errors; whether training helps `tuned`."""
    monkeypatch.setattr(race, "TRAINED", "global")
    monkeypatch.setattr(race, "gain", lambda *_: next(gains))
    monkeypatch.setattr(race, "BEHIND", 1.0)
    monkeypatch.setattr("unseen.training.refitted.gain", lambda *_: ({}, helps))


def confidence_of(answer, name):
    return next(candidate.confidence for candidate in answer.candidates if candidate.name == name)


def test_with_a_time_the_last_layers_may_win(config, tmp_path, monkeypatch):
    gains = iter([(0.01, 0.02), (0.015, 0.02), (0.015, 0.02), (0.03, 0.02)])
    rig(monkeypatch, gains, helps=True)
    config = replace(config, time=1e6)
    made = run(config, tmp_path / "run")
    found = made.results["race"]
    assert found["winner"] == made.config.method == "tuned"
    closed = max(("eszsl", "prototypes"), key=lambda n: next(e["H"] for e in found["entries"] if e["method"] == n))
    duels = [(duel["method"], duel["against"]) for duel in found["duels"]]
    assert (duels[0], duels[3]) == (("global", closed), ("tuned", closed))
    for duel, looks in zip(duels[1:3], ("mirrored", "zoom 2"), strict=True):
        assert duel in [(f"{name} ({looks})", closed) for name in ("eszsl", "prototypes")]
    told = race_sentence(made.results)
    assert f"the H of global is 1.0 points higher than that of {closed} (standard error 2.0)" in told
    assert f"the H of tuned is 3.0 points higher than that of {closed}" in told
    assert made.manifest["backbone"]["frozen"] is False
    number = made.results["protocols"]["honest"]["seeds"]["0"]  # trained methods keep the offset of validation
    assert number["gamma"] == number["chosen"]["validation"]["best_gamma"]
    recognizer = Recognizer.load(made.folder, device="cpu")
    assert recognizer.method.end_to_end
    # images of classes count by the features of the trained backbone
    dataset = load_dataset(config.dataset)
    unseen_class = next(name for name, seen in zip(dataset.table.names, dataset.table.seen, strict=True) if not seen)
    mine = [dataset.paths()[i] for i in np.flatnonzero(dataset.labels == dataset.table.index(unseen_class))][:3]
    before = next(iter(recognizer.predict(mine[0], top=len(dataset.table))))
    recognizer.add_images(unseen_class, mine)
    after = next(iter(recognizer.predict(mine[0], top=len(dataset.table))))
    assert confidence_of(after, unseen_class) > confidence_of(before, unseen_class)
    again = run(config, tmp_path / "run")  # the command, repeated, does not race again
    assert again.results["protocols"] == made.results["protocols"]


def test_with_a_time_the_last_layers_may_win_on_the_looks_that_lead(config, tmp_path, monkeypatch):
    rig(monkeypatch, iter([(0.01, 0.02), (0.03, 0.02), (0.03, 0.02), (0.04, 0.02)]), helps=True)
    asked = replace(config, time=1e6)
    made = run(asked, tmp_path / "run")
    found = made.results["race"]
    name = "tuned (zoom 2, mirrored)"
    assert found["winner"] == name
    assert found["entrant"] == ["mirrored", "zoomed", "tuned"]
    assert found["duels"][2]["against"].endswith(" (mirrored)")
    assert found["duels"][3]["against"].endswith(" (zoom 2, mirrored)")
    assert (made.config.method, made.config.backbone.looks, made.config.looked) == ("tuned", 10, ("mirror", "zoom"))
    assert [row["method"] for row in race_rows(made.results) if row["result"] == "kept"] == [name]
    assert train_words(made.config) == train_words(asked)
    assert Recognizer.load(made.folder, device="cpu").backbone.spec.zoom == 2
    monkeypatch.setattr(race, "validate_seeds", None)  # the command, repeated, does not race again
    assert run(asked, tmp_path / "run").results["protocols"] == made.results["protocols"]


def test_with_a_time_zoomed_images_may_win(config, tmp_path, monkeypatch):
    gains = iter([(0.01, 0.02), (-0.1, 0.02), (0.03, 0.02), (-0.1, 0.02), (-0.1, 0.02)])
    rig(monkeypatch, gains, helps=True)
    asked = replace(config, time=1e6)
    made = run(asked, tmp_path / "run")
    found = made.results["race"]
    assert found["winner"] in ("eszsl (zoom 2)", "prototypes (zoom 2)")
    assert [row["method"] for row in race_rows(made.results) if row["result"] == "kept"] == [found["winner"]]
    assert found["duels"][3]["against"] == found["winner"]
    assert (made.config.method, made.config.backbone.zoom, made.manifest["backbone"]["zoom"]) == ("auto", 2, 2)
    alone = run(replace(config, backbone=replace(config.backbone, zoom=2), time=0), tmp_path / "alone")
    mine, theirs = (one.results["protocols"]["honest"]["metrics"] for one in (made, alone))
    assert mine == theirs
    assert next(e["H"] for e in found["entries"] if e["method"] == found["winner"]) == pytest.approx(
        max(e["H"] for e in alone.results["race"]["entries"] if e["method"] in ("eszsl", "prototypes"))
    )
    assert "--zoom" not in train_words(made.config)
    assert train_words(made.config) == train_words(asked)
    assert Recognizer.load(made.folder, device="cpu").backbone.spec.zoom == 2
    monkeypatch.setattr(race, "validate_seeds", None)  # the command, repeated, does not race again
    assert run(asked, tmp_path / "run").results["protocols"] == made.results["protocols"]


def test_tuned_takes_no_part_if_training_does_not_help(config, tmp_path, monkeypatch):
    rig(monkeypatch, repeat((-0.1, 0.1)), helps=False)
    made = run(replace(config, time=1e6), tmp_path / "run")
    found = made.results["race"]
    assert [duel["method"].partition(" ")[2] for duel in found["duels"]] == ["", "(mirrored)", "(zoom 2)"]
    assert next(entry for entry in found["entries"] if entry["method"] == "tuned")["untrained"]
    row = next(row for row in race_rows(made.results) if row["method"] == "tuned")
    assert row["H on validation classes"].endswith("without training, which did not help")
    assert made.config.method == "auto"


def test_a_network_that_cannot_be_tuned_is_left_out(config, tmp_path, monkeypatch, caplog):
    def refuse(self):
        raise UnseenError("cannot", where="network")

    monkeypatch.setattr(race, "TRAINED", "global")
    monkeypatch.setattr("unseen.backbones.backbone.Backbone.skip_frozen", refuse)
    found = run(replace(config, time=1e6), tmp_path / "run").results["race"]
    assert {entry["method"].partition(" ")[2] or entry["method"] for entry in found["entries"]} == {
        *["eszsl", "prototypes", "global"],
        *["(mirrored)", "(zoom 2)"],
    }
    assert "tuned is left out of the race: network: cannot" in caplog.text


def test_no_time_leaves_the_closed_forms(config, tmp_path):
    made = run(replace(config, time=0.001), tmp_path / "run")
    found = made.results["race"]
    names = {race.TRAINED, race.TUNED, "closed forms (mirrored)", "closed forms (zoom 2)"}
    assert {entry["method"] for entry in found["entries"] if entry["H"] is None} == names
    assert found["winner"] in ("eszsl", "prototypes")
    with pytest.raises(UnseenError, match="tries nothing else"):
        replace(config, method="eszsl", time=5.0)


def test_given_up_early_says_so_and_trains_no_further(config, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "TRAINED", "global")
    monkeypatch.setattr(race, "BEHIND", -1.0)
    tasks = set()
    made = run(config, tmp_path / "run", lambda task, *_: tasks.add(task))
    assert {"closed forms, seed 0: validation", "global, seed 0: validation"} <= tasks
    found = made.results["race"]
    gone = next(entry for entry in found["entries"] if entry["method"] == "global")
    assert (gone["stopped"], gone["of"]) == (1, 2)
    assert gone["behind"] == pytest.approx(max(e["draws"][0] for e in found["entries"] if e["draws"]) - gone["H"])
    assert found["winner"] in ("eszsl", "prototypes")
    assert not (made.folder / "race" / "global" / "seed-0" / "validation-2").exists()
    row = next(row for row in race_rows(made.results) if row["method"] == "global")
    assert row["H on validation classes"].endswith("on 1 of 2 draws, then given up")
    assert "given up early: on the first draw" in race_sentence(made.results)
