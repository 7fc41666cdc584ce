"""Classes set aside where no unseen class has images."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.data.folder import load_folder
from unseen.errors import DataError
from unseen.evaluation.metrics import Decisions
from unseen.report.material import recorded
from unseen.report.summary import advice, sureness, verdict
from unseen.training.holdouts import HoldOut, _over_draws, holdout_dataset, needs_holdouts


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
    assert list(made.table.names) == seen
    aside = {made.table.names[c] for c in np.flatnonzero(~made.table.seen)}
    assert len(aside) == 2  # a quarter of 8 or 9
    for i, file in enumerate(dataset.files):
        name = dataset.table.names[dataset.labels[i]]
        assert made.files[i] == file
        assert made.table.names[made.labels[i]] == name
        assert made.split[i] == ("test_unseen" if name in aside else dataset.split[i])
    assert holdout_dataset(dataset).fingerprint == made.fingerprint
    draws = [holdout_dataset(dataset, d).table.seen for d in range(12)]
    assert len({tuple(draw) for draw in draws}) == 12  # none stands twice
    # every class is set aside before any is again, as far as pairs of them go round
    assert sum(~draw for draw in draws[: len(seen) // 2]).max() == 1
    with pytest.raises(DataError, match="no hold-out is needed"):
        holdout_dataset(load_folder(tiny_guide))


def test_run_without_unseen_images_holds_classes_out(without, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "cache": tmp_path / "cache", "device": "cpu", "draws": 1}
    run = unseen.fit("eszsl", without, tmp_path / "run", holdouts=2, **options)
    found = run.results["protocols"]["honest"]
    assert found["metrics"]["T1"]["mean"] is None
    holdout = found["holdout"]
    assert holdout["chance"]["T1"] == 0.5
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
        assert said["classes"] == [made.table.names[c] for c in np.flatnonzero(~made.table.seen)]
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
        estimated = holdout["ranks"]["family"][name]
        assert estimated["mean"] == pytest.approx(np.mean([found[name]["mean"] for found in at_family]))
        assert estimated["low"] <= estimated["mean"] <= estimated["high"]
    means = [draw["metrics"]["T1"] for draw in holdout["draws"]]
    assert holdout["metrics"]["T1"]["mean"] == pytest.approx(np.mean(means))
    lines = verdict(run)
    text = " ".join(lines)
    assert len(lines) <= 3
    assert lines[0].startswith("Estimate for unseen classes, among 2: ")
    assert "(guessing 50, 95% interval " in lines[0]
    assert lines[1].startswith("Estimate for unseen classes, among all 9: ")
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


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_in_every_draw_has_wilson_s_interval(right):
    """As wide as that of the draw with the fewest images: S of 6 and U of 4 images of the first, by hand."""

    def draw(each_seen, each_unseen):
        labels = np.repeat([0, 1, 6, 7], [each_seen, each_seen, each_unseen, each_unseen])
        seen, scores = np.arange(12) < 6, np.zeros((len(labels), 12))
        scores[np.arange(len(labels)), labels if right else labels ^ 1] = 1
        scores[seen[labels][:, None] != seen] -= 5
        decisions = Decisions.from_scores(scores, labels, seen, 5)
        dataset = SimpleNamespace(table=SimpleNamespace(taxonomy=None))
        return HoldOut(dataset, SimpleNamespace(gzsl=decisions, gamma=0.0), np.zeros(0), np.zeros(0))

    found = _over_draws([draw(3, 2), draw(5, 9)])
    z2 = 1.959963984540054**2
    ends = {"S": 6 / (6 + z2), "U": 4 / (4 + z2), "T1": 4 / (4 + z2)}
    for name, end in ends.items():
        low, high = (end, 1) if right else (0, 1 - end)
        assert found[name] == pytest.approx({"mean": float(right), "std": 0, "low": low, "high": high}, abs=1e-12)
    if right:
        h = 2 * ends["S"] * ends["U"] / (ends["S"] + ends["U"])
        assert found["H"] == pytest.approx({"mean": 1, "std": 0, "low": h, "high": 1}, abs=1e-12)
    assert _over_draws([draw(5, 9), draw(3, 2)]) == found
