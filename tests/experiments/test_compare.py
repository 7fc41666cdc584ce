"""Comparisons on a tiny drawn dataset: tables equal the runs, rows fail alone, repeating goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from unseen.data.folder import load_folder
from unseen.errors import RunError, UnseenError
from unseen.evaluation.bootstrap import Resampled, difference, resample
from unseen.evaluation.metrics import Decisions, harmonic
from unseen.experiments import compare as comparing
from unseen.experiments import worker
from unseen.experiments.compare import Comparison, compare
from unseen.experiments.variants import Variant, parse_variant, parse_variants
from unseen.experiments.worker import WorkerError
from unseen.report.comparison import level_rows
from unseen.training.decisions import decisions_path, load_decisions
from unseen.training.folder import Run

ROWS = ["eszsl", "no cal=msdn:lambda_cal=0", "msdn:lr=1e30"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("msdn", Variant("msdn", "msdn")),
        ("msdn@sun", Variant("msdn@sun", "msdn", "sun")),
        ("two=msdn:fusion=0.5,0.5,epochs=3", Variant("two", "msdn", None, {"fusion": "0.5,0.5", "epochs": "3"})),
        ("no cal=msdn@sun:lambda_cal=0", Variant("no cal", "msdn", "sun", {"lambda_cal": "0"})),
    ],
)  # fmt: skip
def test_a_row_as_text(text, expected):
    assert parse_variant(text) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["msdn:0.5"], 'cannot read "msdn:0.5"'),
        (["a=b=msdn"], "cannot read"),
        (["mdsn"], 'did you mean "msdn"'),
        (["msdn", "msdn"], '"msdn" appears twice'),
        (["a b=msdn", "a-b=eszsl"], '"a-b" appears twice'),
        ([], "nothing to compare"),
    ],
)
def test_rows_that_cannot_be_read(texts, message):
    with pytest.raises(UnseenError, match=message):
        parse_variants(texts)


def test_changes_are_settings_or_recipe_entries(tiny_backbone):
    config = parse_variant("msdn@sun:lambda_cal=0.3,lr=1e-2").config(
        {"dataset": "x", "backbone": tiny_backbone}, {"epochs": "2", "lr": "5"}
    )
    assert (config.preset, config.settings) == ("sun", {"lambda_cal": "0.3"})
    assert config.recipe == {"epochs": "2", "lr": "1e-2"}
    assert parse_variant("eszsl").config({"dataset": "x", "backbone": tiny_backbone}, {"epochs": "2"}).recipe == {}
    with pytest.raises(UnseenError, match=r'msdn:lambda=1: no setting or recipe entry "lambda" — did you mean'):
        parse_variant("msdn:lambda=1").config({"dataset": "x", "backbone": tiny_backbone})


@pytest.fixture(scope="module")
def here():
    """Workers that work in this process: importing torch anew takes seconds."""

    def run(task):
        try:
            worker.work(task)
        except UnseenError as error:
            raise WorkerError(str(error)) from None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "run_worker", run)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def asked(tiny_guide, tiny_backbone, cache):
    def make(rows, **options):
        base = {"dataset": str(tiny_guide), "backbone": tiny_backbone, "protocols": ("honest", "paper"), "draws": 2}
        options = {"recipe": {"epochs": "3", "batch_size": "8", "lr": "1e-3"}, **options}
        return Comparison(parse_variants(rows), {**base, "seeds": (0, 1)}, cache=cache, device="cpu", **options)

    return make


@pytest.fixture(scope="module")
def done(here, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    said = []
    return folder, compare(asked(ROWS), folder, say=said.append), said


def test_tables_hold_the_numbers_of_the_runs(done):
    folder, found, _ = done
    assert json.loads((folder / "compare.json").read_text()) == found
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO((folder / "compare.csv").read_text()))}
    text, page = (folder / "compare.md").read_text(), (folder / "compare.html").read_text()
    for row in found["rows"][:2]:
        results = json.loads((folder / row["folder"] / "results.json").read_text())["protocols"]
        for protocol in ("honest", "paper"):
            assert row[protocol]["metrics"] == results[protocol]["metrics"]
            for metric, entry in results[protocol]["metrics"].items():
                told = rows[row["name"]][f"{protocol}_{metric}_mean"]
                assert (float(told) if told else None) == entry["mean"]
                for form in (text, page):
                    assert metric not in found["metrics"] or f"{100 * entry['mean']:.1f}" in form
            family = results[protocol]["ranks"]["family"]
            assert row[protocol]["ranks"] == {"family": family}
            for metric in ("T1", "U", "S", "H"):
                assert float(rows[row["name"]][f"{protocol}_family_{metric}_mean"]) == family[metric]["mean"]
        (level,) = [level for level in level_rows(found) if (level["method"], level["rank"]) == (row["name"], "family")]
        assert level["honest T1"].startswith(f"{100 * results['honest']['ranks']['family']['T1']['mean']:.1f}")
        for form in (text, page):
            assert level["paper H"].split("\n")[-1] in form
        gap = row["paper_minus_honest"]["T1"]["mean"]
        assert gap == pytest.approx(
            results["paper"]["metrics"]["T1"]["mean"] - results["honest"]["metrics"]["T1"]["mean"]
        )
        assert row["seconds"] > 0
        assert row["peak_memory_mb"] > 50
    table = [line for line in (folder / "compare.tex").read_text().splitlines() if not line.startswith("%")]
    assert table[0] == r"\begin{tabular}{l" + "r" * 2 * len(found["metrics"]) + "}"
    for row in found["rows"][:2]:
        (line,) = [line for line in table if line.startswith(f"{row['name']} & ")]
        cells = [re.sub(r"\\textbf\{(.*)\}", r"\1", cell) for cell in line.removesuffix(r" \\").split(" & ")[1:]]
        entries = [row[view]["metrics"][m] for view in found["views"] for m in found["metrics"]]
        spread = [rf" $\pm$ {100 * e['std']:.1f}" if e["std"] else "" for e in entries]
        assert cells == [f"{100 * e['mean']:.1f}{more}" for e, more in zip(entries, spread, strict=True)]
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_row_that_fails_stands_in_the_table(done):
    folder, found, said = done
    (row,) = [r for r in found["rows"] if r["name"] == "msdn:lr=1e30"]
    assert "lower the learning rate" in row["error"]
    assert "lower the learning rate" in (folder / "compare.md").read_text()
    assert "lower the learning rate" in (folder / "compare.html").read_text()
    assert [line for line in said if "failed" in line] == [said[-1]]
    assert all(r["error"] is None for r in found["rows"][:2])


def test_a_finished_run_is_not_done_again(done, asked, monkeypatch):
    folder, found, _ = done
    tasks = []
    monkeypatch.setattr(comparing, "run_worker", tasks.append)
    again = compare(asked(ROWS[:2]), folder)
    assert tasks == []
    assert again["rows"] == found["rows"][:2]
    with pytest.raises(UnseenError, match="contains a run with different settings"):
        compare(asked(["eszsl", "no cal=msdn:lambda_cal=0.5"]), folder)
    with pytest.raises(UnseenError, match='"much" has the wrong type'):
        compare(asked(["eszsl", "new=msdn:lambda_cal=much"]), folder)
    assert tasks == []


def test_a_row_trained_on_images_stands_beside_one_on_regions(asked, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(
        comparing, "run_worker", lambda task: (done.append((task.what, task.config.method)), work(task))
    )
    work, rows = worker.work, ["mgmrn:width=32,attention_width=8,batches=2", "eszsl"]
    both, alone = asked(rows), asked(rows[:1])
    for one in (both, alone):
        one.base.update(protocols=("honest",), seeds=(0,))
    found = compare(alone, tmp_path)
    assert done == [("fit", "mgmrn")]
    assert "regions of [48, 192, 96] channels, fine-tuned." in (tmp_path / "compare.md").read_text()
    found = compare(both, tmp_path)
    assert done[1:] == [("extract", "eszsl"), ("fit", "eszsl")]
    assert [row["error"] for row in found["rows"]] == [None, None]
    assert f"regions of 96 channels, frozen; fine-tuned by {rows[0]}." in (tmp_path / "compare.md").read_text()


def test_differences_are_those_of_the_same_draws(done, asked):
    """Every resample by hand: the same images for both rows, T1 and H of each, then the quantiles."""
    folder, found, _ = done
    rows = {row["name"]: row for row in found["rows"][:2]}
    for view in ("honest", "paper"):
        for metric in ("T1", "H"):
            best = max(rows.values(), key=lambda r: r[view]["metrics"][metric]["mean"])
            (other,) = [r for r in rows.values() if r is not best]
            gap = other[view]["against"][metric]
            assert best[view]["against"][metric] is None
            assert gap["reference"] == best["name"]
            drawn = []
            for row in (other, best):
                seeds = row[view]["seeds"]
                ds = [load_decisions(decisions_path(folder / row["folder"], s, view, metric)) for s in seeds]
                drawn.append(_by_hand(ds, [e["gamma"] for e in seeds.values()], metric).mean(axis=1))
            low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
            assert (gap["low_images"], gap["high_images"]) == pytest.approx((low, high), abs=1e-12)
            expected = other[view]["metrics"][metric]["mean"] - best[view]["metrics"][metric]["mean"]
            assert gap["mean"] == pytest.approx(expected, abs=1e-12)


def _by_hand(decisions, gammas, metric, samples=1000):
    rng = np.random.default_rng(0)
    first = decisions[0]
    parts = []
    for images, kind in ((first.is_unseen, "T1"), (first.is_unseen, "gzsl"), (~first.is_unseen, "gzsl")):
        accuracies = np.zeros((samples, len(decisions)))
        classes = np.unique(first.labels[images])
        for c in classes:
            mine = np.flatnonzero(images & (first.labels == c))
            counts = rng.multinomial(len(mine), [1 / len(mine)] * len(mine), size=samples)
            for s, (d, gamma) in enumerate(zip(decisions, gammas, strict=True)):
                answers = d.best_unseen if kind == "T1" else np.where(d.offset > gamma, d.best_seen, d.best_unseen)
                accuracies[:, s] += counts @ (answers[mine] == c) / len(mine) / len(classes)
        parts.append(accuracies)
    return parts[0] if metric == "T1" else harmonic(parts[1], parts[2])


def test_difference_over_seeds():
    """With a method whose two seeds are 0 and 1 on every draw, a third of the resampled means is 0, half, and so on."""
    sure = Resampled(np.array([0.5]), np.full((4000, 1), 0.5))
    torn = Resampled(np.array([0.0, 1.0]), np.tile([0.0, 1.0], (4000, 1)))
    assert (difference(torn, sure).low, difference(torn, sure).high) == (0, 0)
    wide = difference(torn, sure, over_seeds=True)
    assert (wide.mean, wide.low, wide.high) == (0, -0.5, 0.5)
    means = torn.means(np.random.default_rng(3))
    assert [np.mean(means == v) for v in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_difference_over_classes():
    """Two rows that differ on all images of one of four unseen classes: by how often that class is drawn."""
    labels, seen = np.repeat(np.arange(2, 6), 3), np.arange(6) < 2

    def row(right):
        answers = np.where(np.isin(labels, right), labels, 7 - labels)  # another unseen class
        return resample([Decisions.from_scores(np.eye(6)[answers], labels, seen)], [0.0], names=["T1", "U", "S", "H"])

    less, more = row([2, 3]), row([2, 3, 4])
    over_images = difference(less["T1"], more["T1"])
    assert (over_images.mean, over_images.high) == (-0.25, pytest.approx(-0.25 + 0.242494, abs=1e-6))
    drawn = -4 * (less["T1"].means(over_classes=True) - more["T1"].means(over_classes=True))
    counts = np.bincount(drawn.round().astype(int), minlength=5) / len(drawn)
    assert counts == pytest.approx([0.316, 0.422, 0.211, 0.047, 0.004], abs=0.05)  # binomial, 4 of 1/4
    both = difference(less["T1"], more["T1"], over_classes=True)
    assert (both.low, both.high) == (-0.75, 0.0)
    assert difference(more["T1"], more["T1"], over_classes=True).mean == 0
    assert np.isnan(less["H"].means(over_classes=True)).all()  # no image of a seen class


def test_a_lead_that_other_classes_may_turn_is_said():
    gap = {"mean": -0.04, "low": -0.07, "high": -0.01, "equal": False}

    def row(name, **ends):
        against = dict.fromkeys(("T1", "H"), gap | ends if ends else None)
        return {"name": name, "honest": {"metrics": {m: {"mean": 0.5} for m in ("T1", "H")}, "against": against}}

    rows = [row("a"), row("b", low_classes=-0.09, high_classes=0.012), row("c", low_classes=-0.08, high_classes=-0.001)]
    said = comparing._statements(rows, ["honest"], {("honest", m): "a" for m in ("T1", "H")})
    assert said[0] == (
        "T1, honest: a has 50.0. Significantly lower: b (-4.0 [-7.0, -1.0]), c (-4.0 [-7.0, -1.0]). "
        "Not significant over classes: b [-9.0, +1.2]."
    )


def test_what_cannot_be_measured_has_no_spread():
    found = Resampled(np.array([np.nan]), np.full((9, 1), np.nan)).interval().as_dict()
    assert found == {"mean": None, "std": None, "low": None, "high": None, "per_seed": [None]}


def test_the_interval_over_seeds_is_no_narrower_than_that_over_images():
    """Rows that agree on every image, with seeds that differ by 0.1: less than what 20 images leave open."""
    z2 = 1.959963984540054**2
    row = Resampled(np.array([0.35, 0.45]), np.tile([0.35, 0.45], (500, 1)), images=20.0)
    images, both = (difference(row, row, over_seeds=over) for over in (False, True))
    assert (images.low, images.high) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)), abs=1e-12)
    assert (both.low, both.high) == (images.low, images.high)
    wide = Resampled(np.array([0.0, 1.0]), np.tile([0.0, 1.0], (500, 1)), images=20.0)
    assert (difference(wide, wide, over_seeds=True).low, difference(wide, wide, over_seeds=True).high) == (-1, 1)


def test_a_difference_that_no_resample_changes_is_not_known_exactly():
    """No image of n tells the methods apart: the share that would is up to z^2 / (n + z^2), by Wilson's interval."""
    z2 = 1.959963984540054**2
    labels, seen = np.repeat([0, 1, 2], [10, 6, 20]), np.array([True, True, False])
    n = {"S": 4 / (1 / 10 + 1 / 6), "U": 20, "T1": 20}  # images of one share with the same variance
    some = np.arange(36) % 3 > 0
    for right in (np.ones(36, bool), np.zeros(36, bool), some):
        scores = np.zeros((36, 3))
        scores[np.arange(36), np.where(right, labels, (labels + 1) % 3)] = 1
        scores[~right & (labels == 2), 1] += 1  # wrong among the seen
        one = resample([Decisions.from_scores(scores, labels, seen)], [0.0], names=("T1", "U", "S", "H"), samples=60)
        for name in ("U", "S"):
            found = difference(one[name], one[name], over_seeds=True)
            end = z2 / (n[name] + z2)
            assert (found.mean, found.low, found.high) == pytest.approx((0, -end, end), abs=1e-12)
        u, s = (float(one[name].measured[0]) for name in ("U", "S"))
        h = difference(one["H"], one["H"])
        means = [
            harmonic(*(min(max(v + k * z2 / (n[m] + z2), 0), 1) for m, v in (("U", u), ("S", s)))) for k in (-1, 1)
        ]
        assert h.high == -h.low == pytest.approx(max(abs(m - harmonic(u, s)) for m in means), abs=1e-12)
        assert h.high > 0.05


def test_all_right_against_all_wrong_keeps_within_one():
    z2 = 1.959963984540054**2
    sides = [Resampled(np.array([v]), np.full((50, 1), v), images=12.0) for v in (1.0, 0.0)]
    found = difference(*sides)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1 - z2 / (12 + z2), 1), abs=1e-12)
    assert difference(*sides[::-1]).as_dict()["low"] == -1


def test_the_draws_are_the_same_for_the_same_images():
    rng = np.random.default_rng(0)
    labels, seen = rng.integers(6, size=200), np.array([True] * 4 + [False] * 2)
    one = Decisions.from_scores(rng.normal(size=(200, 6)), labels, seen)
    # right wherever the other is, and on half of the rest: no draw can have it behind
    scores = rng.normal(size=(200, 6))
    better = np.where((one.best_unseen == labels) | (rng.random(200) < 0.5), labels, one.best_unseen)
    scores[np.arange(200), better] += 100
    two = Decisions.from_scores(scores, labels, seen)
    a, b = (resample([d], [0.0], names=["T1"])["T1"] for d in (one, two))
    assert (b.drawn >= a.drawn).all()
    gap = difference(b, a)
    assert gap.low > 0
    assert gap.high - gap.low < (b.interval().high - b.interval().low) + (a.interval().high - a.interval().low)


def test_stopped_and_repeated_is_as_if_never_stopped(done, asked, tmp_path, monkeypatch):
    """Stop in the second row's training; the tables then hold the first row; repeating gives the same numbers."""
    folder, found, _ = done
    count = 0

    def stop_later(task):
        nonlocal count
        count += 1
        if count == 3:

            def progress(name, step, total, note=""):
                if name == "seed 1: final" and step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

            from unseen.training.run import fit

            fit(task.config, task.folder, cache=task.cache, device="cpu", progress=progress)
        worker.work(task)

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "run_worker", stop_later)
        with pytest.raises(KeyboardInterrupt):
            compare(asked(ROWS[:2]), tmp_path)
    cut = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [row["error"] for row in cut] == [None, "unfinished; repeat the command to resume"]
    said = []
    again = compare(asked(ROWS[:2]), tmp_path, say=said.append)
    assert said == ["finished, not trained again: eszsl", "no cal (1 of 1)"]

    def numbers(rows):
        return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} for row in rows]

    assert numbers(again["rows"]) == numbers(found["rows"][:2])
    for file in ("no-cal/seed-1/honest.safetensors", "no-cal/seed-1/paper-T1.npz"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_rows_on_other_attribute_vectors_are_done_again(done, asked, tmp_path, monkeypatch):
    shutil.copytree(done[0], tmp_path / "all")
    asked_for = []
    monkeypatch.setattr(comparing, "run_worker", lambda task: asked_for.append((task.what, task.folder.name)))
    rows = ROWS[:2]
    compare(asked(rows), tmp_path / "all")
    assert not asked_for
    monkeypatch.setattr(comparing, "vectors_digest", lambda vectors: "of other vectors")
    compare(asked(rows), tmp_path / "all")
    assert [name for what, name in asked_for if what == "fit"] == ["eszsl", "no-cal"]


@pytest.fixture(scope="module")
def blind_guide(tiny_guide, tmp_path_factory):
    """The tiny dataset without any image of an unseen class."""
    folder = tmp_path_factory.mktemp("blind") / "blind"
    shutil.copytree(tiny_guide, folder, ignore=shutil.ignore_patterns("parts.csv"))
    table = load_folder(folder).table
    listed = list(csv.DictReader((folder / "images.csv").open()))
    unseen = {name for name, seen in zip(table.names, table.seen, strict=True) if not seen}
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(row for row in listed if row["class"] not in unseen)
    return folder


def test_class_hold_outs_stand_for_missing_test_images(here, asked, blind_guide, tmp_path):
    """On as many as every row has: a closed form runs five, a gradient method three."""
    make = asked(["eszsl", "msdn:epochs=1"], recipe={"batch_size": "8"})
    base = {**make.base, "dataset": str(blind_guide), "protocols": ("honest",), "draws": 1, "seeds": (0,)}
    found = compare(replace(make, base=base), tmp_path)
    assert (found["views"], found["warnings"]) == (["hold-outs"], [])
    own = {
        row["name"]: Run(tmp_path / row["folder"]).results["protocols"]["honest"]["holdout"] for row in found["rows"]
    }
    assert [len(block["draws"]) for block in own.values()] == [5, 3]
    closed, trained = (row["hold-outs"] for row in found["rows"])
    assert (closed["draws"], trained["draws"]) == (3, 3)
    assert (trained["metrics"], trained["ranks"]) == (own["msdn:epochs=1"]["metrics"], own["msdn:epochs=1"]["ranks"])
    for metric in ("T1", "H"):
        drawn = [[d["metrics"][metric] for d in block["draws"][:3]] for block in own.values()]
        assert closed["metrics"][metric]["mean"] == pytest.approx(np.mean(drawn[0]))
        gap = next(filter(None, (row["against"][metric] for row in (closed, trained))))
        assert abs(gap["mean"]) == pytest.approx(abs(np.mean(drawn[0]) - np.mean(drawn[1])))
        assert gap["low"] <= gap["mean"] <= gap["high"] <= 0 or gap["low"] <= gap["mean"] <= 0
    text = (tmp_path / "compare.md").read_text()
    assert "hold-outs T1" in text
    assert "means over 3 such draws" in text
    none = compare(replace(make, base={**base, "holdouts": 0}, variants=make.variants[:1]), tmp_path / "none")
    assert none["views"] == ["honest"]
    assert "T1, U and H are unknown" in none["warnings"][-1]


def test_a_protocol_without_images_is_refused_before_any_work(asked, blind_guide, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "run_worker", None)
    make = asked(["eszsl"])
    with pytest.raises(UnseenError, match=r"paper protocol needs held-out images of unseen .*--protocol honest"):
        compare(replace(make, base={**make.base, "dataset": str(blind_guide)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_signal_during_a_workers_imports_stops_it_in_silence(asked, tmp_path, monkeypatch, capfd):
    make, popen = asked(["eszsl"]), subprocess.Popen

    def interrupted(*args, **options):
        process = popen(*args, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.run_worker(make.task("fit", make.variants[0].config(make.base), tmp_path / "row"))
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "row").exists()


def test_tables_without_a_single_number(asked, tmp_path, monkeypatch):
    def stop(task):
        task.folder.mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "run_worker", stop)
    with pytest.raises(KeyboardInterrupt):
        compare(asked(ROWS[:2]), tmp_path / "out")
    assert (tmp_path / "out" / "compare.html").read_text().count("unfinished; repeat") == 2
    assert (tmp_path / "out" / "compare.md").read_text().count("unfinished; repeat") == 2


def test_validation_only_never_reads_a_test_image(here, asked, tiny_guide, tiny_backbone, cache, tmp_path):
    from unseen.features.store import RegionStore

    dataset, read = load_folder(tiny_guide), []
    original = RegionStore.read

    def watched(self, indices, *args, **kwargs):
        read.extend(np.asarray(indices).tolist())
        return original(self, indices, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegionStore, "read", watched)
        found = compare(asked(ROWS[:2], validation_only=True), tmp_path)
    assert set(read) <= set(dataset.indices("trainval").tolist())
    assert len(set(read)) == len(dataset.indices("trainval"))
    full = compare(asked(ROWS[:2]), tmp_path)
    for row, whole in zip(found["rows"], full["rows"], strict=True):
        for seed, entry in row["validation"]["seeds"].items():
            chosen = whole["honest"]["seeds"][seed]["chosen"]
            assert entry["gamma"] == pytest.approx(chosen["validation"]["best_gamma"], abs=1e-12)
            assert entry["H"] == pytest.approx(harmonic(entry["U"], entry["S"]), abs=1e-12)  # of classes of all draws
            assert entry["T1"] == pytest.approx(chosen["validation"]["T1"], abs=1e-12)
            assert entry["chosen"].get("epoch") == chosen.get("epoch")
        family, own = row["validation"]["ranks"]["family"], row["validation"]["metrics"]
        assert all(own[name]["mean"] <= family[name]["mean"] <= 1 for name in ("T1", "U", "S"))
    assert (tmp_path / "compare-validation.md").is_file()


def test_two_at_once_on_one_folder(asked, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(RunError, match="another process is working on this comparison"):
        compare(asked(ROWS[:2]), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


WAIT = "import sys; from unseen.experiments.worker import Task, run_worker; run_worker(Task.from_json(sys.argv[1]))"


@pytest.mark.slow
def test_workers_in_their_own_process(asked, done, tmp_path):
    """A worker's mistake is its message; killed with its parent, it stops by itself."""
    make = asked(["msdn"], recipe={"epochs": "100000", "batch_size": "8"})
    config = make.variants[0].config(make.base, make.recipe)
    bad = parse_variant("msdn:lambda_cal=much").config(make.base)
    with pytest.raises(WorkerError, match=r'^setting lambda_cal: "much" has the wrong type — use a number$'):
        worker.run_worker(make.task("fit", bad, tmp_path / "bad"))
    task = make.task("fit", config, tmp_path / "long")
    parent = subprocess.Popen([sys.executable, "-c", WAIT, task.to_json()], stderr=subprocess.DEVNULL)
    steps = tmp_path / "long" / "seed-0" / "validation" / "metrics.jsonl"
    _wait_for(lambda: steps.is_file() and steps.stat().st_size > 0)
    parent.kill()
    parent.wait()
    checkpoint = steps.parent / "checkpoint.safetensors"
    _wait_for(checkpoint.is_file)  # stopped by request: the next one would be a minute away
    usage = tmp_path / "long" / "usage.json"
    _wait_for(usage.is_file)
    assert json.loads(usage.read_text())["peak_memory_mb"] > 50


def _wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_that_was_stopped_early_leaves_the_folder_empty(asked, tmp_path, monkeypatch):
    """Else the next one finds a folder that holds something and no run."""

    def stopped(config, folder, **_):
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("unseen.training.run.fit", stopped)
    comparison = asked(ROWS[:1])
    variant = comparison.variants[0]
    task = comparison.task("fit", variant.config(comparison.base, comparison.recipe), tmp_path / "row")
    with pytest.raises(KeyboardInterrupt):
        worker.work(task)
    assert list((tmp_path / "row").iterdir()) == []
