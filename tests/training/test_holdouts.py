"""Classes set aside where no unseen class has images."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.folder import load_folder
from unseen.errors import DataError
from unseen.evaluation.metrics import Decisions
from unseen.report.material import recorded
from unseen.report.summary import advice, key_figures, sureness, verdict
from unseen.training.holdouts import counts, estimated, holdout_dataset, needs_holdouts, paired


@pytest.fixture(scope="module")
def without(tiny_guide, tmp_path_factory):
    """The tiny guide with no image of an unseen class."""
    folder = tmp_path_factory.mktemp("data") / "without"
    folder.mkdir()
    for name in ("classes.csv", "attributes.csv"):
        (folder / name).write_bytes((tiny_guide / name).read_bytes())
    (folder / "images").symlink_to(tiny_guide / "images")
    images = pd.read_csv(tiny_guide / "images.csv")
    images[images["split"] != "test_unseen"].to_csv(folder / "images.csv", index=False)
    return folder


def test_classes_set_aside_are_seen_ones_with_all_their_images(without, tiny_guide):
    dataset = load_folder(without)
    assert needs_holdouts(dataset)
    assert not needs_holdouts(load_folder(tiny_guide))
    made = holdout_dataset(dataset)
    seen = [name for name, kind in zip(dataset.table.names, dataset.table.seen, strict=True) if kind]
    aside = {made.table.names[c] for c in made.labels[made.split == "test_unseen"]}
    assert len(aside) == 2  # at least two
    # as many unseen classes as in use: real ones make up the number, and keep their rows
    unseen = [name for name in dataset.table.names if name not in seen]
    others = {name for name, kind in zip(made.table.names, made.table.seen, strict=True) if not kind} - aside
    assert len(unseen) > 2
    assert others < set(unseen)
    assert (~made.table.seen).sum() == len(unseen)
    assert set(made.table.names) == set(seen) | others
    for name in made.table.names:
        np.testing.assert_array_equal(
            made.table.values[made.table.names.index(name)], dataset.table.values[dataset.table.names.index(name)]
        )
    for i, file in enumerate(dataset.files):
        name = dataset.table.names[dataset.labels[i]]
        assert made.files[i] == file
        assert made.table.names[made.labels[i]] == name
        assert made.split[i] == ("test_unseen" if name in aside else dataset.split[i])
    assert holdout_dataset(dataset).fingerprint == made.fingerprint
    draws = [holdout_dataset(dataset, d) for d in range(12)]
    pairs = [{d.table.names[c] for c in d.labels[d.split == "test_unseen"]} for d in draws]
    assert len({frozenset(pair) for pair in pairs}) == 12  # none stands twice
    # every class is set aside before any is again, as far as pairs of them go round
    assert max(Counter(name for pair in pairs[: len(seen) // 2] for name in pair).values()) == 1
    # and every real unseen class takes part before any does again
    first = [name for d in draws[:2] for name in set(unseen) & set(d.table.names)]
    assert len(set(first)) == min(len(first), len(unseen))
    with pytest.raises(DataError, match="no hold-out is needed"):
        holdout_dataset(load_folder(tiny_guide))


def test_run_without_unseen_images_holds_classes_out(without, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "cache": tmp_path / "cache", "device": "cpu", "draws": 1}
    run = unseen.fit("eszsl", without, tmp_path / "run", holdouts=2, **options)
    found = run.results["protocols"]["honest"]
    assert found["metrics"]["T1"]["mean"] is None
    holdout = found["holdout"]
    assert holdout["classes_set_aside"] == 2
    assert holdout["classes_unseen"] == (~load_folder(without).table.seen).sum()
    assert holdout["chance"]["T1"] == 1 / holdout["classes_unseen"]
    assert holdout["chance"]["U"] == 1 / len(holdout_dataset(load_folder(without)).table)
    assert holdout["distinct_classes"] == 4
    assert holdout["metrics"]["T1"]["low"] <= holdout["metrics"]["T1"]["mean"] <= holdout["metrics"]["T1"]["high"]
    assert len(holdout["attributes"]["auroc"]) == len(load_folder(without).table.attributes)
    assert all(v is None or 0 <= v <= 1 for v in holdout["attributes"]["auroc"])
    assert any(v is not None for v in holdout["attributes"]["auroc"])
    at_family = []
    # the numbers are those of an ordinary run on each draw's data
    for draw, said in enumerate(holdout["draws"]):
        made = holdout_dataset(load_folder(without), draw)
        assert said["classes"] == [made.table.names[c] for c in np.unique(made.labels[made.split == "test_unseen"])]
        folder = tmp_path / f"as-a-folder-{draw}"
        folder.mkdir()
        made.table.to_csv(folder / "classes.csv")
        (folder / "images").symlink_to(made.images.resolve())
        names = [made.table.names[c] for c in made.labels]
        pd.DataFrame({"file": made.files, "class": names, "split": made.split}).to_csv(
            folder / "images.csv", index=False
        )
        usual = unseen.fit("eszsl", folder, tmp_path / f"usual-{draw}", **options).results["protocols"]["honest"]
        for name in ("T1", "U", "S", "H", "AUSUC"):
            assert said["metrics"][name] == pytest.approx(usual["metrics"][name]["mean"])
        family = usual["ranks"]["family"]
        for name in ("T1", "U", "S"):
            assert family[name]["mean"] >= usual["metrics"][name]["mean"]
        at_family.append(family)
        assert said["calibration"]["ranks"]["thresholds"].keys() == {"family"}
    for name in ("T1", "U", "S"):
        entry = holdout["ranks"]["family"][name]
        assert entry["mean"] == pytest.approx(np.mean([found[name]["mean"] for found in at_family]))
        assert entry["low"] <= entry["mean"] <= entry["high"]
    means = [draw["metrics"]["T1"] for draw in holdout["draws"]]
    assert holdout["metrics"]["T1"]["mean"] == pytest.approx(np.mean(means))
    lines = verdict(run)
    text = " ".join(lines)
    assert len(lines) <= 3
    assert lines[0].startswith("Estimate for unseen classes, among 3: ")
    assert "(guessing 33, 95% interval " in lines[0]
    assert lines[1].startswith("Estimate for unseen classes, among all 10: ")
    measured, every = run.results["protocols"]["honest"]["metrics"]["S"]["mean"], len(load_folder(without).table)
    assert lines[1].endswith(f"; seen {100 * measured:.0f} of 100, measured among all {every}.")
    (balance,) = (figure for figure in key_figures(recorded(run)) if figure.symbol == "H")
    u, s = (100 * holdout["metrics"][name]["mean"] for name in ("U", "S"))
    assert balance.means.endswith(f" Both are estimates here: U {u:.1f}%, S {s:.1f}%.")
    assert "None" not in text
    assert "nan" not in text


def test_holdouts_can_be_left_out(without, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "cache": tmp_path / "cache", "device": "cpu", "draws": 1}
    run = unseen.fit("eszsl", without, tmp_path / "run", holdouts=0, **options)
    assert "holdout" not in run.results["protocols"]["honest"]
    text = " ".join(verdict(run))
    assert "so the accuracy on them is unknown" in text
    told = " ".join(advice(recorded(run), [], None))
    assert "would measure this accuracy; --holdouts 3 would estimate it" in told
    assert "the estimate" not in told  # there is none


def test_verdict_says_the_run_s_numbers(tiny_guide, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "cache": tmp_path / "cache", "device": "cpu", "draws": 1}
    run = unseen.fit("eszsl", tiny_guide, tmp_path / "run", protocols=("honest", "paper"), **options)
    found = run.results["protocols"]["honest"]
    text = " ".join([*verdict(run), *sureness(recorded(run))])
    for name in ("T1", "U", "S"):
        assert f"{100 * found['metrics'][name]['mean']:.0f} of 100" in text
    calibration = found["seeds"]["0"]["calibration"]
    assert f"{100 * calibration['test']['ece']:.0f} points" in text
    assert json.loads((run.folder / "seed-0" / "honest-calibration.json").read_text())["calibration"] == calibration
    assert calibration["temperature"] == found["seeds"]["0"]["temperature"]
    assert calibration["test"]["images"] == (load_folder(tiny_guide).split != "trainval").sum()
    assert "calibration" not in run.results["protocols"]["paper"]["seeds"]["0"]


def test_calibration_is_measured_once_for_a_model(tiny_guide, tiny_backbone, tmp_path, monkeypatch):
    options = {"backbone": tiny_backbone, "cache": tmp_path / "cache", "device": "cpu", "draws": 1}
    options["recipe"] = {"epochs": "2", "batch_size": "8", "lr": "1e-3"}
    first = unseen.fit("global", tiny_guide, tmp_path / "run", **options).results["protocols"]["honest"]
    from unseen.training.stage import Stage

    calls = []
    answer = Stage.answers
    monkeypatch.setattr(Stage, "answers", lambda self, *a: calls.append(a) or answer(self, *a))
    again = unseen.fit("global", tiny_guide, tmp_path / "run", **options).results["protocols"]["honest"]
    assert not calls
    assert again["seeds"] == first["seeds"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_references_are_what_the_recognizer_reads_off_the_training_images(
    tiny_guide, tiny_backbone, tmp_path, precision
):
    options = {
        "backbone": tiny_backbone,
        "cache": tmp_path / "cache",
        "device": "cpu",
        "precision": precision,
        "draws": 1,
    }
    options["recipe"] = {"epochs": "2", "batch_size": "8", "lr": "1e-3"}
    run = unseen.fit("msdn", tiny_guide, tmp_path / "run", **options)
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    found = recognizer.references
    dataset = load_folder(tiny_guide)
    images = dataset.indices("trainval")
    assert list(found.files) == [dataset.files[i] for i in images]
    np.testing.assert_array_equal(found.labels, dataset.labels[images])
    look = recognizer.look(dataset.images / found.files[3])
    tolerance = 2e-3 if precision == "32-true" else 2e-2  # the file holds float16; regions were bfloat16
    np.testing.assert_allclose(found.attribute_scores[3], look.attribute_scores, rtol=tolerance, atol=tolerance)
    assert found.nearest(look.attribute_scores, 1)[0].file == found.files[3]


def test_a_hardly_varying_attribute_has_no_line():
    """A blank that was filled in gives one class another value, which is nothing to learn an attribute by."""
    from unseen.model.references import References

    rng = np.random.default_rng(0)
    values = np.array([[0.0, 0.0], [0.0, 1.0], [0.02, 0.0], [1.0, 1.0]])  # the last one has no images
    labels = np.repeat([0, 1, 2], 20)
    scores = np.stack([rng.normal(size=60) + 3 * (labels == 2), 2 * values[labels, 1]], axis=1).astype(np.float16)
    names = np.array(["a", "b", "c", "d"])
    fit = References(scores, labels, np.array(["x"] * 60), names, values).fit
    assert fit.learned.tolist() == [False, True]
    assert fit.slope[0] == 0
    assert fit.slope[1] == pytest.approx(2)


def drawn(shares, each, seen=2, gamma=0.0, names=None):
    """A hold-out of two seen classes, all right, and one unseen class for each share of right answers."""
    classes = seen + len(shares)
    labels = np.repeat(np.arange(classes), each)
    scores = np.zeros((len(labels), classes))
    for c in range(classes):
        mine = np.flatnonzero(labels == c)
        right = round(each * ([1.0] * seen + list(shares))[c])
        scores[mine[:right], c] = 2
        scores[mine[right:], 0 if c < seen else seen + (c - seen + 1) % len(shares)] = 1
    scores[:, :seen] += gamma
    return (
        Decisions.from_scores(scores, labels, np.arange(classes) < seen, 5),
        gamma,
        table(seen, names or new_names(shares)),
    )


NUMBER = count()


def new_names(classes):
    return tuple(f"class {next(NUMBER)}" for _ in classes)


def table(seen, names):
    every = (*(f"seen {c}" for c in range(seen)), *names)
    return ClassTable(every, Attributes(("a",)), np.arange(1.0, 1 + len(every))[:, None], np.arange(len(every)) < seen)


def test_the_interval_is_of_as_many_classes_as_are_in_use():
    """Classes are all right or all wrong, so images say nothing; by the binomial distribution."""
    found = [drawn((1.0, 0.0), 50), drawn((0.0, 1.0), 50, gamma=3.0), drawn((1.0, 0.0), 50)]
    one, many = (estimated(found, (2, n))["T1"] for n in (1, 400))
    assert one == pytest.approx(
        {"mean": 0.5, "std": 0, "low": 0, "high": 1, **{k: one[k] for k in ("low_mean", "high_mean")}}
    )
    # the mean of six classes, three of them right: 0.5 -+ 2 standard errors of 0.5 / sqrt(6)
    assert one["low_mean"] == pytest.approx(1 / 6, abs=0.01)
    assert one["high_mean"] == pytest.approx(5 / 6, abs=0.01)
    # many classes tell as much as their mean, which is as uncertain as before
    assert many["low"] == pytest.approx(many["low_mean"], abs=0.05)
    assert many["high"] == pytest.approx(many["high_mean"], abs=0.05)
    assert one["low_mean"] == many["low_mean"]


def test_each_draw_keeps_its_own_offset_and_classes():
    apart = [drawn((1.0, 0.5), 20, gamma=g) for g in (0.0, 3.0)]
    same = [drawn((1.0, 0.5), 20) for _ in range(2)]
    assert estimated(apart, (2, 2)) == estimated(same, (2, 2))
    assert estimated(apart, (2, 2))["U"]["mean"] == pytest.approx(0.75)


def test_a_class_of_several_draws_counts_once():
    once = [drawn((1.0, 0.0, 0.5), 40, names=("a", "b", "c"))]
    one, many = (estimated(once * n, (2, 3))["U"] for n in (1, 8))
    assert many["low_mean"] == pytest.approx(one["low_mean"], abs=0.06)
    assert many["high_mean"] == pytest.approx(one["high_mean"], abs=0.06)


def test_without_unseen_classes_the_interval_is_of_the_two_set_aside(without):
    classes = load_folder(without).table
    assert counts(classes) == (classes.seen.sum(), (~classes.seen).sum())
    known = classes.select(np.flatnonzero(classes.seen))
    assert counts(known) == (len(known), 2)


def test_differences_are_over_the_classes_of_all_draws():
    better = [drawn((1.0, 1.0), 40, names="ab"), drawn((1.0, 0.5), 40, names="cd")]
    worse = [drawn((0.5, 1.0), 40, names="ab"), drawn((0.5, 0.5), 40, names="cd")]
    gap = paired(better, worse, ("T1",))["T1"]
    assert gap["mean"] == pytest.approx(0.25)
    assert gap["low"] <= gap["low_images"] < 0.25 < gap["high_images"] <= gap["high"]
    assert gap["low"] == pytest.approx(0, abs=0.02)  # of four classes two gain 0.5: none of them in one of 16 samples
    same = paired(better, better, ("T1",))["T1"]
    assert same["mean"] == 0
    assert same["equal"]
    assert same["low"] < 0 < same["high"]


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_in_every_draw_has_wilson_s_interval(right):
    """At the images of a single share with the same variance: 16 of S in four classes and 11 of U, by hand."""

    def draw(each_seen, each_unseen):
        labels = np.repeat([0, 1, 6, 7], [each_seen, each_seen, each_unseen, each_unseen])
        seen, scores = np.arange(12) < 6, np.zeros((len(labels), 12))
        scores[np.arange(len(labels)), labels if right else labels ^ 1] = 1
        scores[seen[labels][:, None] != seen] -= 5
        return Decisions.from_scores(scores, labels, seen, 5), 0.0, table(6, new_names(range(6)))

    found = estimated([draw(3, 2), draw(5, 9)], (6, 6))
    z2 = 1.959963984540054**2
    images = {"S": 16 / (2 / 3 + 2 / 5), "U": 16 / (2 / 2 + 2 / 9), "T1": 16 / (2 / 2 + 2 / 9)}
    ends = {name: n / (n + z2) for name, n in images.items()}
    for name, end in ends.items():
        low, high = (end, 1) if right else (0, 1 - end)
        wanted = {"mean": float(right), "std": 0, "low": low, "high": high, "low_mean": low, "high_mean": high}
        assert found[name] == pytest.approx(wanted, abs=1e-12)
    if right:
        h = 2 * ends["S"] * ends["U"] / (ends["S"] + ends["U"])
        assert found["H"]["low"] == pytest.approx(h, abs=1e-12)
        assert found["H"]["high"] == pytest.approx(1, abs=1e-12)
    assert estimated([draw(5, 9), draw(3, 2)], (6, 6)) == found
