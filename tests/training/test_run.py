"""Whole runs on a tiny drawn dataset: what they write, that they resume, and that protocols keep their word."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import unseen
from unseen.backbones.spec import BackboneSpec
from unseen.classes.attributes import write_attributes
from unseen.classes.changes import IMAGES, IN_USE, table_in_use
from unseen.data.dataset import final_partition, validation_partition
from unseen.data.folder import load_folder
from unseen.errors import DataError, RunError, UnseenError
from unseen.explain.answers import answers_of
from unseen.features.source import RegionSource
from unseen.ground.files import write_json
from unseen.methods import METHODS
from unseen.methods.eszsl import Features
from unseen.model.support import ClassImages, Support, SupportImage
from unseen.training.config import RunConfig
from unseen.training.divergence import DivergedError
from unseen.training.engine import Interrupted
from unseen.training.folder import Run
from unseen.training.plan import Plan
from unseen.training.run import _same_data, _stale, earlier_config

RECIPE = {"epochs": "4", "batch_size": "8", "lr": "1e-3"}
SMALLER = {  # methods whose presets are too large for tests
    "mgmrn": {
        "preset": "recommended",
        "settings": {"width": "32", "attention_width": "8", "grouping": "parts"},
        "recipe": {**RECIPE, "batches": "3"},
    },
    "tuned": {"recipe": {**RECIPE, "batches": "3"}, "draws": 2},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def do(request, tiny_guide, tiny_backbone, cache):
    def run(method, folder, dataset=tiny_guide, **options):
        if METHODS[method].reads_text:
            options.setdefault("backbone", BackboneSpec(f"hf:{request.getfixturevalue('tiny_pairs')['clip']}"))
        if not METHODS[method].closed_form:
            options.setdefault("recipe", RECIPE)
        else:
            options.setdefault("draws", 1)
        options = {"device": "cpu", "cache": cache, "backbone": tiny_backbone, **options, **SMALLER.get(method, {})}
        return unseen.fit(method, dataset, folder, **options)

    return run


@pytest.fixture(scope="module")
def both(do, tmp_path_factory):
    return do("msdn", tmp_path_factory.mktemp("runs") / "both", protocols=("honest", "paper"), seeds=(0, 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_table_where_nothing_varies_is_one_line(method, do, tiny_guide, tmp_path):
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "images").symlink_to(tiny_guide / "images")
    shutil.copy(tiny_guide / "images.csv", tmp_path / "birds")
    table = pd.read_csv(tiny_guide / "classes.csv")
    table.iloc[:, 3:] = table.iloc[0, 3:].to_numpy()
    table.to_csv(tmp_path / "birds" / "classes.csv", index=False)
    with pytest.raises(UnseenError) as caught:
        do(method, tmp_path / "run", tmp_path / "birds")
    seen = int(table["seen"].sum())
    assert str(caught.value) == (
        f"{tmp_path}/birds/classes.csv: the {seen} seen classes all have the same attributes, "
        "so nothing can be learned — add attributes that separate them"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_evaluates_predicts_explains_adds_saves_loads(method, do, cache, tiny_guide, tmp_path):
    run = do(method, tmp_path / "run")
    metrics = run.results["protocols"]["honest"]["metrics"]
    assert all(0 <= metrics[m]["mean"] <= 1 for m in ("T1", "U", "S", "H", "AUSUC"))
    again = unseen.evaluate(run, cache=cache, device="cpu")["seeds"]["0"]
    for name in ("T1", "U", "S", "H", "AUSUC"):
        assert again[name] == pytest.approx(metrics[name]["mean"], abs=1e-12)
    dataset = load_folder(tiny_guide)
    images = dataset.paths()[:3]
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    first = list(recognizer.predict(images, top=4))
    assert [len(p.candidates) for p in first] == [4, 4, 4]
    why = recognizer.explain(images[0])
    assert why.target.name == first[0].best.name
    assert why.target.score == pytest.approx(first[0].best.score, abs=1e-5, rel=1e-6)
    assert why.target.confidence == pytest.approx(first[0].best.confidence, abs=1e-5)
    assert sum(r.evidence for r in why.reasons) + sum(t.evidence for t in why.terms) == pytest.approx(
        why.target.score, abs=1e-5
    )
    gamma = recognizer.gamma
    lead = (why.target.score - gamma * why.target.seen) - (why.rival.score - gamma * why.rival.seen)
    assert sum(r.against for r in why.reasons) + sum(t.against for t in why.terms) == pytest.approx(lead, abs=1e-5)
    k = dataset.table.attributes.index(why.reasons[0].attribute)
    assert why.contributions[k].sum() == pytest.approx(why.reasons[0].score, rel=1e-4, abs=1e-6)
    answers = answers_of(run, cache=cache, device="cpu")  # what figures are drawn from
    why = recognizer.explain(dataset.paths()[answers.images[-1]])
    scores = {r.attribute: r.score for r in why.reasons}
    expected = [scores[a] for a in dataset.table.attributes.names]
    np.testing.assert_allclose(answers.attribute_scores[-1], expected, rtol=1e-4, atol=1e-5)
    assert dataset.table.names[answers.predicted[-1]] == why.target.name
    recognizer.add_class("Night Heronette", dataset.table.values[0] * 0.5 + dataset.table.values[1])
    saved = recognizer.save(tmp_path / "saved")
    shutil.rmtree(run.folder)
    loaded = unseen.Recognizer.load(saved, device="cpu")
    assert "Night Heronette" in loaded.table.names
    assert [p.as_dict() for p in loaded.predict(images)] == [p.as_dict() for p in recognizer.predict(images)]
    loaded.remove_class("Night Heronette")
    assert [p.as_dict() for p in loaded.predict(images, top=4)] == [p.as_dict() for p in first]


def test_shared_training_equals_separate_ones(do, both, tmp_path):
    """Honest numbers read off the paper protocol's training are those of an honest run alone, and vice versa."""
    for protocol in ("honest", "paper"):
        alone = do("msdn", tmp_path / protocol, protocols=(protocol,), seeds=(0, 1))
        found, shared = (r.results["protocols"][protocol]["seeds"] for r in (alone, both))
        assert found == shared


def test_paper_is_the_best_epoch_on_the_test_set(both):
    for seed in ("0", "1"):
        lines = (both.folder / f"seed-{seed}" / "final" / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line)["metrics"] for line in lines]
        found = both.results["protocols"]["paper"]["seeds"][seed]
        assert found["T1"] == max(m["T1"] for m in metrics)
        assert found["H"] == max(m["H"] for m in metrics)
        assert found["gamma"] == 0  # MSDN's own protocol sweeps no offset


def test_honest_chooses_by_validation_alone(do, both, tmp_path):
    one = do("msdn", tmp_path / "one", draws=1)
    lines = (one.folder / "seed-0" / "validation" / "metrics.jsonl").read_text().splitlines()
    best = [json.loads(line)["metrics"]["best_H"] for line in lines]
    chosen = one.results["protocols"]["honest"]["seeds"]["0"]["chosen"]
    assert chosen["epoch"] == 1 + int(np.argmax(best))
    assert chosen["validation"]["best_H"] == pytest.approx(max(best))
    for seed in ("0", "1"):
        chosen = both.results["protocols"]["honest"]["seeds"][seed]["chosen"]
        pooled, own = chosen["validation"], []
        for draw in ("validation", "validation-2", "validation-3"):
            lines = (both.folder / f"seed-{seed}" / draw / "metrics.jsonl").read_text().splitlines()
            own.append(json.loads(lines[chosen["epoch"] - 1])["metrics"])
        assert pooled["T1"] == pytest.approx(np.mean([metrics["T1"] for metrics in own]))
        # each draw's own best gamma is at least as good for it as the gamma that is best for all
        assert pooled["best_H"] <= np.mean([metrics["best_H"] for metrics in own]) + 1e-9
        assert pooled["best_H"] == pytest.approx(np.mean([draw["H"] for draw in pooled["draws"]]))
        assert len({draw["gamma"] for draw in pooled["draws"]}) == 1
    assert not list(both.folder.glob("seed-*/validation*/scores-*"))


def test_unseen_images_never_reach_training_or_choice(do, tiny_guide, cache, tmp_path):
    """Black out every test image: the weights, gamma and temperature of an honest run stay the same to the bit."""
    from PIL import Image

    spoiled = tmp_path / "spoiled"
    shutil.copytree(tiny_guide, spoiled)
    dataset = load_folder(spoiled)
    for split in ("test_seen", "test_unseen"):
        for i in dataset.indices(split):
            Image.new("RGB", (64, 64)).save(dataset.paths()[i])
    a, b = do("msdn", tmp_path / "a"), do("msdn", tmp_path / "b", dataset=spoiled)
    assert (a.folder / "seed-0" / "honest.safetensors").read_bytes() == (
        b.folder / "seed-0" / "honest.safetensors"
    ).read_bytes()
    one, two = (r.results["protocols"]["honest"]["seeds"]["0"] for r in (a, b))
    assert (one["gamma"], one["temperature"], one["chosen"]) == (two["gamma"], two["temperature"], two["chosen"])
    assert a.results["protocols"]["honest"]["metrics"]["U"] != b.results["protocols"]["honest"]["metrics"]["U"]


def test_partitions_of_the_guide(tiny_guide):
    dataset = load_folder(tiny_guide)
    validation, final = validation_partition(dataset), final_partition(dataset)
    assert set(validation.test_unseen) <= set(dataset.indices("trainval"))
    assert not set(final.train) & set(final.test_unseen)


def test_choices_are_made_on_draws_along_axes(do, tiny_guide, tmp_path):
    run, other = (do("eszsl", tmp_path / folds, folds=folds, draws=3) for folds in ("axes", "random"))
    plan = Plan.of(run.config, tmp_path)
    for draw in range(3):
        wanted = validation_partition(plan.dataset, draw=draw, folds="axes")
        assert plan.validation(draw).fingerprint(plan.dataset) == wanted.fingerprint(plan.dataset)
    assert run.manifest["splits"]["validation_folds"] == "axes"
    found, theirs = (r.results["protocols"]["honest"]["seeds"]["0"]["chosen"]["validation"] for r in (run, other))
    assert len(found["draws"]) == 3
    assert found["draws"] != theirs["draws"]


def test_manifest_says_what_the_numbers_depend_on(both, tiny_guide):
    manifest = both.manifest
    dataset = load_folder(tiny_guide)
    assert manifest["data"]["fingerprint"] == dataset.fingerprint
    assert manifest["backbone"]["regions"] == "4x4"
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["method"]["recipe"]["epochs"] == 4
    assert set(manifest["splits"]["validation_classes"]) == {
        n for n, v in zip(dataset.table.names, dataset.table.validation, strict=True) if v
    }


def test_more_seeds_are_added_and_old_ones_kept(do, tmp_path):
    first = do("msdn", tmp_path / "run", seeds=(0,))
    stamp = (first.folder / "seed-0" / "honest.safetensors").stat().st_mtime_ns
    before = first.results["protocols"]["honest"]["seeds"]["0"]
    more = do("msdn", tmp_path / "run", seeds=(0, 5))
    found = more.results["protocols"]["honest"]
    assert list(found["seeds"]) == ["0", "5"]
    assert found["seeds"]["0"] == before
    assert (first.folder / "seed-0" / "honest.safetensors").stat().st_mtime_ns == stamp
    t1 = [found["seeds"][s]["T1"] for s in ("0", "5")]
    assert found["metrics"]["T1"]["mean"] == pytest.approx(np.mean(t1))
    assert found["metrics"]["T1"]["std"] == pytest.approx(np.std(t1, ddof=1))


@pytest.mark.parametrize("first", ["honest", "paper"])
def test_the_other_protocol_is_added(do, both, tmp_path, first):
    """An earlier run of one protocol kept too little for the other: the result is as if both had been asked for."""
    do("msdn", tmp_path / "run", protocols=(first,), seeds=(0, 1))
    other = {"honest": "paper", "paper": "honest"}[first]
    added = do("msdn", tmp_path / "run", protocols=(other,), seeds=(0, 1))
    assert added.results["protocols"] == both.results["protocols"]
    for name in ("honest", "paper"):
        file = f"seed-1/{name}.safetensors"
        assert (added.folder / file).read_bytes() == (both.folder / file).read_bytes()


def test_several_stages_are_refused(do, tiny_backbone, tmp_path):
    with pytest.raises(UnseenError, match="these methods use one"):
        do("msdn", tmp_path / "run", backbone=replace(tiny_backbone, stages=("final", 2)))


def test_what_differs_is_told_from_the_default_and_from_none(tiny_backbone, tmp_path):
    config = RunConfig(method="eszsl", dataset="birds", backbone=tiny_backbone)
    write_json(tmp_path / "config.json", config.to_json())
    for changed, told in (("holdouts", 0), "the default, now 0"), (("reduce", "pca:8"), "none, now pca:8"):
        with pytest.raises(RunError, match=rf"different {changed[0]} \({told}\)"):
            earlier_config(tmp_path, replace(config, **dict([changed])))


def test_another_configuration_is_refused(do, both, tmp_path):
    with pytest.raises(RunError, match=r"different settings"):
        do("msdn", both.folder, settings={"lambda_cal": "0.3"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"contains no run"):
        do("msdn", tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_changed_images_are_noticed_when_evaluating(do, tiny_guide, cache, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_guide, copy)
    run = do("eszsl", tmp_path / "run", dataset=copy)
    (copy / "parts.csv").unlink()
    frame = pd.read_csv(copy / "images.csv")
    frame[frame["split"] != "test_seen"].to_csv(copy / "images.csv", index=False)
    with pytest.raises(RunError, match="the dataset has changed"):
        unseen.evaluate(run, cache=cache, device="cpu")
    copy.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="copy: no such folder — move the dataset back to it, or train again where"):
        unseen.evaluate(run, cache=cache, device="cpu")


CHANGED = "the images or the table have changed since the last training; starting over without its results"
FINISHED = "already finished: nothing is trained now; to train anew, choose another --output"


def test_data_that_changed_start_over_as_in_a_new_folder(do, tiny_guide, cache, tmp_path, caplog):
    """Test images exchanged, then removed: never two states in the results, nor files of an earlier one."""
    from PIL import Image

    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_guide, data, ignore=shutil.ignore_patterns("parts.csv"))
    listed = pd.read_csv(data / "images.csv")
    of_test = listed["split"] == "test_unseen"

    def notes(**options):
        caplog.clear()
        return do("eszsl", folder, dataset=data, holdouts=0, **options), caplog.messages

    def equals_a_new_one(run, name):
        fresh = do("eszsl", tmp_path / name, dataset=data, holdouts=0, protocols=run.config.protocols)
        assert run.results["protocols"] == fresh.results["protocols"]
        assert (run.config, run.manifest["data"]) == (fresh.config, fresh.manifest["data"])
        kept = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        assert kept - {"classes-in-use.csv"} == {str(p.relative_to(fresh.folder)) for p in fresh.folder.rglob("*")}

    first, said = notes(protocols=("honest", "paper"))
    assert (set(first.results["protocols"]), said) == ({"honest", "paper"}, [])
    before = first.results["protocols"]
    again, said = notes()  # a protocol of those done
    assert (again.results["protocols"], said) == (before, [FINISHED])

    for file in listed["file"][of_test]:  # the weights stay the same, but nothing that is measured
        Image.new("RGB", (64, 64)).save(data / "images" / file)
    weights = (folder / "seed-0" / "honest.safetensors").read_bytes()
    run, said = notes()
    assert ((folder / "seed-0" / "honest.safetensors").read_bytes() == weights, said) == (True, [])
    equals_a_new_one(run, "exchanged")

    shutil.copy(folder / "classes.csv", folder / "classes-in-use.csv")
    listed[~of_test].to_csv(data / "images.csv", index=False)
    run, said = notes()
    reset = f"unseen classes reset {folder}"
    in_use = f"classes changed with `unseen classes` stay in use; `{reset}` restores those of the table"
    assert (set(run.results["protocols"]), said) == ({"honest"}, [CHANGED, in_use])
    assert run.results["protocols"]["honest"]["metrics"]["U"]["mean"] is None
    equals_a_new_one(run, "fewer")

    table = pd.read_csv(data / "classes.csv").iloc[::-1]  # the same classes in another order, and one gone
    table.to_csv(data / "classes.csv", index=False)
    run, said = notes()
    kept = folder / "earlier-classes-in-use.csv"
    put_aside = (
        f"classes changed with `unseen classes` no longer fit the table: they are kept in {kept}; change them again"
    )
    assert said == [CHANGED, put_aside]
    assert kept.is_file()
    assert table_in_use(folder).names == tuple(table["class"])
    kept.unlink()
    equals_a_new_one(run, "reversed")

    plan = Plan.of(run.config, cache)
    assert _same_data(folder, plan)
    assert not _same_data(folder, replace(plan, vectors=plan.vectors + 1))
    table = pd.read_csv(data / "classes.csv")
    table.iloc[0, -1] += 1
    table.to_csv(data / "classes.csv", index=False)
    assert _same_data(folder, Plan.of(run.config, cache)) is False


@pytest.mark.parametrize(
    ("method", "time", "kept_classes", "described", "same", "stale"),
    [
        ("eszsl", 0, True, True, True, []),
        ("eszsl", 0, True, True, False, [IN_USE]),  # a class in use is one row of the table that was
        ("eszsl", 0, False, True, False, [IN_USE, IMAGES]),  # images of a class that is no longer there
        ("eszsl", 0, True, False, False, [IN_USE, IMAGES]),  # a class of images alone is only in the table in use
        ("tuned", 0, True, True, True, [IMAGES]),  # another network
        ("auto", 60, True, True, True, [IMAGES]),
        ("auto", 60, True, False, True, [IN_USE, IMAGES]),
        ("auto", 0, True, True, True, []),
    ],
)
def test_which_changes_fit_other_data(tiny_guide, cache, tmp_path, method, time, kept_classes, described, same, stale):
    dataset = load_folder(tiny_guide)
    table = dataset.table if same else dataset.table.without(dataset.table.names[-1])
    table.to_csv(tmp_path / "classes.csv")
    write_attributes(tmp_path / "attributes.csv", table.attributes)
    table.to_csv(tmp_path / IN_USE)
    name = dataset.table.names[0] if kept_classes else "gone"
    images = (SupportImage("a.jpg", "0" * 64, "2026-01-01T00:00:00"),)
    Support({name: ClassImages(images, np.zeros((1, 3), np.float32), described)}).save(tmp_path / IMAGES)
    plan = SimpleNamespace(dataset=dataset, config=SimpleNamespace(method=method, time=time))
    assert _stale(tmp_path, plan) == stale


def test_notes_reach_python(do, both, tiny_guide, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(tiny_guide, data)
    vectors = np.eye(len(load_folder(data).table.attributes))
    vectors[1] = 0
    np.save(data / "attribute_vectors.npy", vectors)
    noted = load_folder(data).warnings
    assert len(noted) == 1
    run = do("eszsl", tmp_path / "run", dataset=data)
    assert tuple(caplog.messages) == run.notes == noted
    assert both.notes == ()


def test_a_manifest_without_the_digest_of_the_vectors_is_one_line(both, cache, tmp_path):
    folder = shutil.copytree(both.folder, tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["semantics"]["digest"], manifest["sha256 of the rest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="has changed since the training — train again"):
        unseen.evaluate(folder, device="cpu", cache=cache)


def test_stopped_run_resumes_to_the_same_bytes(do, both, tmp_path):
    """SIGTERM in the middle of the second seed's validation stage, then the same call again."""

    def stop(task, done, total, note=""):
        if task == "seed 1: validation" and done == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    options = {"protocols": ("honest", "paper"), "seeds": (0, 1)}
    with pytest.raises(Interrupted):
        do("msdn", tmp_path / "cut", progress=stop, **options)
    with pytest.raises(RunError, match=r"results\.json: no such file"):
        _ = Run(tmp_path / "cut").results
    resumed = do("msdn", tmp_path / "cut", **options)
    for seed in (0, 1):
        for name in ("honest", "paper"):
            file = f"seed-{seed}/{name}.safetensors"
            assert (resumed.folder / file).read_bytes() == (both.folder / file).read_bytes()
    assert resumed.results["protocols"] == both.results["protocols"]


def test_two_processes_on_one_run(do, both, tiny_guide, tiny_backbone, cache, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr("unseen.training.run.PATIENCE", 0.1)
    with FileLock(both.folder / ".lock"), pytest.raises(RunError, match="another process"):
        do("msdn", both.folder, protocols=("honest", "paper"), seeds=(0, 1))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"protocols": ("best",)}, 'use "honest", "paper", or both'),
        ({"select": "acc"}, "H, T1, AUSUC"),
        ({"settings": {"lamda_cal": "1"}}, 'did you mean "lambda_cal"'),
        ({"recipe": {"epoch": "1"}}, 'no recipe entry "epoch".*did you mean "epochs"'),
        ({"settings": {"lambda_cal": "much"}}, "use a number"),
        ({"settings": {"fusion": "1"}}, "2 values"),
        ({"recipe": {"epochs": "0"}}, "1 or more"),
        ({"recipe": {"optimizer": "adagrad"}}, "rmsprop, sgd, adamw"),
        ({"folds": "axis"}, "random or axes"),
        ({"folds": "axes", "draws": 99}, "--draws .* or --folds random"),
        ({"preset": "imagenet"}, "cub, sun, awa2"),
        ({"vectors": "given"}, 'use "words"'),
        ({"seeds": (1, 1)}, "list each seed once"),
    ],
)
def test_wrong_options_are_one_line_and_cost_nothing(do, tmp_path, options, hint):
    with pytest.raises(UnseenError, match=hint) as caught:
        do("msdn", tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_importing_unseen_is_light():
    code = "import sys, unseen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_temperature_recovers_a_known_one_and_stays_sane_on_little_data():
    from unseen.training.temperature import Held, fit_temperature

    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(4000, 6, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((scores / 2.5).softmax(dim=1), 1, generator=generator)[:, 0].numpy()
    seen = np.array([True] * 3 + [False] * 3)
    every = Held(scores.numpy(), labels, seen)
    assert fit_temperature([every], 0.0) == pytest.approx(2.5, rel=0.1)
    halves = [Held(scores.numpy()[i::2], labels[i::2], seen) for i in (0, 1)]
    assert fit_temperature(halves, 0.0) == pytest.approx(fit_temperature([every], 0.0), rel=1e-3)
    # four images, all right: without a prior the temperature would fall to 0 and every answer be "100%"
    few = torch.eye(6, dtype=torch.float64)[:4]
    found = fit_temperature([Held(few.numpy(), np.arange(4), seen)], 0.0)
    assert 0.05 < found < 1


def _hurt(monkeypatch, image):
    """Features of one image of the dataset read as NaN, as from a damaged store."""
    plain = RegionSource._compute

    def compute(self, indices):
        found = plain(self, indices)
        found[np.asarray(indices) == image] = float("nan")
        return found

    monkeypatch.setattr(RegionSource, "_compute", compute)


@pytest.mark.parametrize("method", ["eszsl", "sae", "dap", "msdn"])
def test_features_that_are_no_numbers_are_said_with_the_image(do, tiny_guide, tmp_path, monkeypatch, method):
    dataset = load_folder(tiny_guide)
    image = int(validation_partition(dataset, 0).train[3])
    _hurt(monkeypatch, image)
    with pytest.raises(DivergedError, match=f"features of {dataset.files[image]} are not finite — extract or import"):
        do(method, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_candidates_without_a_solution_are_left_out(do, tmp_path, monkeypatch):
    plain = Features.left

    def left(self, gamma):
        found = plain(self, gamma)
        return found * float("nan") if gamma < bad else found

    monkeypatch.setattr(Features, "left", left)
    bad = 1.0
    run = do("eszsl", tmp_path / "some")
    assert run.results["protocols"]["honest"]["seeds"]["0"]["chosen"]["gamma"] >= 1
    bad = 1e9
    with pytest.raises(DivergedError, match=r"eszsl: none of \d+ hyperparameter candidates has a finite solution"):
        do("eszsl", tmp_path / "none")


def test_a_run_whose_loss_grew_says_so(do, tmp_path, caplog):
    good = do("global", tmp_path / "good", recipe={"epochs": "2"})
    assert good.results["warnings"] == []
    caplog.clear()
    run = do("global", tmp_path / "bad", recipe={"epochs": "2", "lr": "20"})
    assert caplog.messages == list(run.notes) == run.results["warnings"]
    assert any("seed-0/validation: the loss grew from " in note for note in run.results["warnings"])


def test_a_graph_needs_a_gpu(do, tmp_path):
    with pytest.raises(UnseenError, match="--graph: needs a CUDA device; this is cpu — omit --graph"):
        do("msdn", tmp_path / "run", graph=True, device="cpu")


def test_what_a_killed_process_left_is_no_obstacle(do, tmp_path):
    """Killed while it wrote the first file of the folder, which is a temporary one then."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.json.abc123.tmp").write_text("{")
    made = do("eszsl", folder)
    assert made.results["protocols"]["honest"]
    assert not list(folder.glob(".*.tmp"))
