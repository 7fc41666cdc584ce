"""Experiment files: all load, their settings fit, and what a run measures is written as it was measured."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from unseen.backbones.spec import BackboneSpec
from unseen.errors import UnseenError
from unseen.evaluation.metrics import harmonic
from unseen.experiments import files
from unseen.experiments.files import DATASETS, HOME, experiment_names, load_experiment, record, recorded_names
from unseen.experiments.reproduce import Reproduction, comparison_table, measured_block, reproduce
from unseen.methods import METHODS
from unseen.methods.msdn import MSDN
from unseen.training.plan import resolve_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_tests_a_card_a_page_and_experiments(name):
    """What a method must bring along: see docs/how-to/add-method.md."""
    method = METHODS[name]
    tests = [p for p in (ROOT / "tests" / "methods").glob("test_*.py") if p.name != "test_registry.py"]
    assert any(re.search(rf'\b{method.__name__}\b|"{name}"', p.read_text()) for p in tests), "no test"
    assert all(text.strip() for text in vars(method.card).values()), "card not complete"
    assert re.search(r"arXiv \d{4}\.\d{4,5}|\b(19|20)\d\d\b", method.card.paper), "no citation"
    assert all(preset.source for preset in method.presets.values()), "preset without source"
    pages = [
        p
        for p in (ROOT / "docs" / "reference" / "methods").glob("*.md")
        if re.search(rf"`{name}`|--method {name}\b", p.read_text())
    ]
    assert pages, "no page"
    nav = (ROOT / "mkdocs.yml").read_text()
    assert any(f"methods/{p.name}" in nav for p in pages), "page not in the site"
    for dataset in DATASETS:
        found = load_experiment(f"{name}/{dataset}")
        found.check()
        assert found.facts.comparable or not found.reported
        assert all(s.source for s in (*found.settings.values(), *found.recipe.values())), "a value without source"


@pytest.mark.parametrize("name", recorded_names())
def test_a_file_stands_for_a_published_or_measured_number(name):
    found = load_experiment(name)
    assert found.reported or found.measured


def test_every_method_has_an_experiment_on_every_dataset_without_a_file():
    assert experiment_names() == [f"{method}/{dataset}" for method in METHODS for dataset in DATASETS]
    made = load_experiment("mgmrn/fieldguide")
    assert made.path is None
    assert (made.preset, made.protocols, made.seeds) == ("fieldguide", ("honest", "paper"), (0, 1, 2, 3, 4))
    _, settings, recipe = resolve_settings(made.config("fieldguide", made.spec()), "x")
    preset = METHODS["mgmrn"].presets["fieldguide"]
    assert (settings, recipe) == (preset.settings, preset.recipe)
    assert {s.source for s in made.settings.values()} == {preset.source}


def test_a_file_needs_only_what_has_a_source_of_its_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "method: msdn\ndataset: cub\nsources: {me: a note}\nsettings: {lambda_cal: {value: 0.5, source: me}}\n"
    )
    found = load_experiment(str(path))
    assert (found.settings["lambda_cal"].value, found.settings["lambda_cal"].source) == (0.5, "a note")
    assert found.settings["lambda_dis"].source == MSDN.presets["cub"].source
    _, settings, recipe = resolve_settings(found.config("x", BackboneSpec(name="resnet18", weights="random")), "x")
    assert settings == replace(MSDN.presets["cub"].settings, lambda_cal=0.5)
    assert recipe == MSDN.presets["cub"].recipe


def test_recording_makes_the_file_of_an_experiment_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "HOME", tmp_path)
    shutil.copytree(HOME / "datasets", tmp_path / "datasets")
    made = load_experiment("eszsl/flo64")
    block = {"date": "2026-01-01", "numbers": {"honest": {"T1": {"mean": 50.0}}}, "data": "x"}
    assert record(made, block) == tmp_path / "files" / "eszsl" / "flo64.yaml"
    again = load_experiment("eszsl/flo64")
    assert (again.measured, again.settings, again.preset) == ((block,), made.settings, made.preset)


@pytest.mark.parametrize("name", recorded_names())
def test_every_file_holds_together(name):
    found = load_experiment(name)
    assert found.name == name
    assert set(found.protocols) == {"honest", "paper"}
    for block in found.reported:
        t1, u, s, h = (block.numbers[k] for k in ("T1", "U", "S", "H"))
        assert t1 is not None or h is not None
        if u is not None and s is not None:
            assert h == pytest.approx(float(harmonic(u, s)), abs=0.06)
    for block in found.measured:
        assert set(block) >= {
            "date",
            "command",
            "numbers",
            "data",
            "splits",
            "backbone",
            "machine",
            "versions",
            "seeds",
        }
        assert not re.search(r"/\w+/", block["command"].replace(name, ""))
    if not found.facts.comparable:
        assert found.reported == ()
        assert "be compared with" in found.facts.note
    if found.method in METHODS:
        found.check()
        config = found.config("fieldguide", BackboneSpec(name="resnet18", weights="random"))
        _, settings, recipe = resolve_settings(config, "x")
        assert set(vars(settings)) == set(found.settings), "a setting without source"
        assert (set() if recipe is None else set(vars(recipe))) == set(found.recipe), "a recipe entry without source"


def test_settings_of_a_file_are_the_release(tmp_path):
    config = load_experiment("msdn/awa2").config("fieldguide", BackboneSpec(name="resnet18", weights="random"))
    _, settings, recipe = resolve_settings(config, "x")
    assert (settings, recipe) == (MSDN.presets["awa2"].settings, MSDN.presets["awa2"].recipe)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset: cub", "dataset: cub51", 'no dataset "cub51"'),
        ("{value: 1.0, source: paper}", "1.0", r"settings.margin: is not an object"),
        (
            "{value: 1.0, source: paper}",
            "{value: 1.0, source: me}",
            "margin.source: is not one of the sources — use one of paper, ours",
        ),
        ("{value: 1.0, source: paper}", "{value: 1.0}", "settings.margin.source: is missing"),
        ("seeds: [0, 1, 2, 3, 4]", "seeds: [a]", r"seeds.0: is not a valid integer \('a'\)"),
        ("seeds: [0, 1, 2, 3, 4]", "seeds: []", "seeds: .* at least 1 item"),
        (
            "protocols: [honest, paper]",
            "protocols: [honest, papers]",
            r"protocols.1: is not 'honest' or 'paper' \('papers'\)",
        ),
        ("notes:", "note: x\nnotes:", "note: unknown entry"),
        ("dataset: cub", "dataset: cub50", "nothing is published on cub50"),
        ("U: 23.7", "U: 237", r"reported.0.U: is not less than or equal to 100 \(237\)"),
        ("method: ale", "method: [", "not valid YAML"),
        ("method: ale", "method: b" + "9" * 30, r'mine.yaml: no method "b9+"'),
        ("method: ale", "method: ale@paper", r'mine.yaml: no method "ale@paper" — pass the preset separately'),
        ("preset: default", "preset: defalt", r'mine.yaml: .*no preset "defalt"'),
    ],
)
def test_mistakes_in_a_file_are_one_line(tmp_path, old, new, message):
    text = (HOME / "files" / "ale" / "cub.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UnseenError, match=message) as caught:
        load_experiment(str(path))
    assert "\n" not in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_unknown_names_and_settings(tmp_path):
    with pytest.raises(UnseenError, match='did you mean "msdn/cub50"'):
        load_experiment("msdn/cub5")
    path = tmp_path / "mine.yaml"
    path.write_text((HOME / "files/ale/cub.yaml").read_text().replace("  margin:", "  margins:"))
    with pytest.raises(UnseenError, match=r'mine.yaml: no setting "margins"'):
        load_experiment(str(path)).check()


def test_what_is_needed_is_asked_for(tmp_path):
    with pytest.raises(UnseenError, match=r"msdn/cub needs Caltech.*no dataset folder — pass --data FOLDER"):
        reproduce(Reproduction(load_experiment("msdn/cub"), None, tmp_path / "run"))
    with pytest.raises(UnseenError, match=r"msdn/cub50: this experiment needs a weights file — --backbone-weights"):
        load_experiment("msdn/cub50").spec()
    spec = load_experiment("msdn/cub50").spec("mine.safetensors")
    assert (spec.image_size, spec.mean, spec.weights) == (224, (0.5, 0.5, 0.5), "mine.safetensors")
    assert load_experiment("msdn/fieldguide").spec().image_size == 128


def test_reproduce_sets_numbers_side_by_side_and_records_them(tiny_guide, tiny_backbone, tmp_path_factory, tmp_path):
    path = tmp_path / "mine.yaml"
    shutil.copy(HOME / "files" / "eszsl" / "cub.yaml", path)
    before = path.read_text()
    experiment = load_experiment(str(path))
    asked = Reproduction(
        experiment, tiny_guide, tmp_path / "run", backbone=tiny_backbone, cache=tmp_path / "cache", device="cpu"
    )
    run, differs = reproduce(asked)
    rows = comparison_table(experiment, run)
    assert [(row[""], row["protocol"]) for row in rows] == [
        ("reported", "honest"),
        ("measured", "honest"),
        ("measured", "paper"),
    ]
    assert (rows[0]["T1"], rows[0]["H"], rows[0]["AUSUC"]) == ("53.9", "21.0", "–")
    measured = run.results["protocols"]["paper"]["metrics"]
    assert rows[2]["T1"] == f"{100 * measured['T1']['mean']:.1f}"
    assert "data: 9 classes seen, 150 in CUB" in differs
    assert "backbone name: test_resnet here, resnet101.tv_in1k in the file" in differs
    assert not [line for line in differs if line.startswith(("seeds", "protocols"))]
    for _ in range(2):  # the same run again is the same block
        files.record(load_experiment(str(path)), measured_block(run, "unseen reproduce mine.yaml", differs))
    text = path.read_text()
    assert text.startswith(before.partition("\nmeasured:")[0] + "\nmeasured:\n")
    again = load_experiment(str(path))
    assert (again.settings, again.reported, again.notes) == (experiment.settings, experiment.reported, experiment.notes)
    (block,) = again.measured
    assert block["numbers"]["paper"]["T1"]["mean"] == pytest.approx(100 * measured["T1"]["mean"], abs=0.005)
    assert block["data"] == run.manifest["data"]["fingerprint"]
    assert block["differs"] == differs
    assert reproduce(asked)[0].results["protocols"] == run.results["protocols"]
