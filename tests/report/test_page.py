"""The report: what it says is what was measured, for every kind of run, and a browser shows and prints it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

import unseen
from pages import sound
from unseen.backbones.spec import BackboneSpec
from unseen.errors import RunError
from unseen.evaluation.metrics import SeenUnseenCurve
from unseen.ground.files import read_json, write_json
from unseen.model.ranks import RankThreshold
from unseen.recognizer import Recognizer
from unseen.report.page import write_report
from unseen.report.tables import percent, result_rows
from unseen.training.decisions import load_decisions
from unseen.training.folder import Run

RECIPE = {"epochs": "3", "lr": "1e-3"}
SMALL_MGMRN = {
    "preset": "recommended",
    "settings": {"width": "32", "attention_width": "8", "grouping": "parts"},
    "recipe": {"epochs": "2", "batch_size": "8", "batches": "2"},
}
HOSTILE = [
    '<script>alert("x")</script>',
    "\"quoted\" & 'single' <b>",
    "very " * 60 + "long",
    "טיט־נפה שחורת־כנף",
    "🐦 emoji bird",
    "{{ 7 * 7 }} {% raw %}",
    "a" * 300,
    "</title><img src=x onerror=alert(1)>",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def fit(home, tiny_guide, tiny_backbone):
    def run(method, name, dataset=tiny_guide, **options):
        options = {"backbone": tiny_backbone, "cache": home / "cache", "device": "cpu", "draws": 1, **options}
        return unseen.fit(method, dataset, home / name, **options)

    return run


@pytest.fixture(scope="module")
def write(home):
    def page(run, **options):
        return write_report(run, device="cpu", cache=home / "cache", **options)

    return page


@pytest.fixture(scope="module")
def both(fit):
    return fit("msdn", "msdn", recipe=RECIPE, seeds=(0, 3), protocols=("honest", "paper"))


@pytest.fixture(scope="module")
def closed(fit):
    return fit("eszsl", "eszsl")


@pytest.fixture(scope="module")
def page(both, closed, write):
    return write(both, others=[closed])


def changed(guide, folder, keep=lambda images: images["file"].notna(), rename=None):
    """A copy of a dataset folder with some images left out, and classes renamed."""
    shutil.copytree(guide, folder)
    images, classes = pd.read_csv(folder / "images.csv"), pd.read_csv(folder / "classes.csv")
    images = images[keep(images)]
    if rename is not None:
        names = dict(zip(classes["class"], [*rename, *classes["class"][len(rename) :]], strict=True))
        images["class"], classes["class"] = images["class"].map(names), classes["class"].map(names)
    images.to_csv(folder / "images.csv", index=False)
    classes.to_csv(folder / "classes.csv", index=False)
    (folder / "parts.csv").unlink(missing_ok=True)
    return folder


def edited(run, folder, edit):
    """A copy of a run whose honest results are changed by ``edit``."""
    shutil.copytree(run.folder, folder)
    results = read_json(folder / "results.json")
    edit(results["protocols"][run.protocol])
    write_json(folder / "results.json", results)
    return Run(folder)


def test_numbers_are_the_run_s(page, both):
    read = sound(page)
    found = both.results["protocols"]["honest"]["metrics"]
    words = read.words("summary")
    for name in ("T1", "U", "S", "H"):
        assert f"{percent(found[name]['mean'])}%" in words
        assert f"95% interval {percent(found[name]['low'])} to {percent(found[name]['high'])}" in words
    data = both.manifest["data"]
    assert f"Guessing: {percent(1 / data['classes_unseen'])}%" in words
    assert f"Guessing: {percent(1 / 12)}%" in words
    results = read.rows("results")
    assert [(row["method"], row["protocol"]) for row in results] == [
        ("eszsl", "honest"),
        ("msdn", "honest"),
        ("msdn", "paper"),
    ]
    assert results[1]["T1, %"].startswith(f"{percent(found['T1']['mean'])} ± {percent(found['T1']['std'])}")
    assert data["fingerprint"] in read.words("data")
    assert "not comparable with published ones" in read.words("results")


def test_classes_are_the_run_s(page, both, tiny_guide):
    read = sound(page)
    rows = {row["class"]: row for row in read.rows("classes")}
    images = pd.read_csv(tiny_guide / "images.csv")
    assert len(rows) == 12
    for entry in both.results["protocols"]["honest"]["per_class"]:
        row = rows[entry["class"]]
        assert row["kind"] == ("seen" if entry["seen"] else "unseen")
        assert row["test images"] == str(entry["images"])
        mine = images[images["class"] == entry["class"]]
        assert row["training images"] == str((mine["split"] == "trainval").sum())
        assert row["right among all classes"] == f"{percent(entry['among_all'], 0)}%"
    kinds = [row["kind"] for row in read.rows("classes")]
    assert kinds == sorted(kinds, reverse=True)
    assert read.sections["classes"].images == 12


def test_ranks_are_the_run_s(page, both):
    found = both.results["protocols"]["honest"]
    first, family = sound(page).rows("ranks")
    assert (first["rank"], family["rank"]) == ("class", "family")
    for row, metrics in ((first, found["metrics"]), (family, found["ranks"]["family"])):
        for name in ("T1", "U", "S", "H"):
            assert row[f"{name}, %"].startswith(percent(metrics[name]["mean"]))
            assert metrics[name]["low"] <= metrics[name]["mean"] <= metrics[name]["high"]
    assert all(found["ranks"]["family"][name]["mean"] >= found["metrics"][name]["mean"] for name in ("T1", "U", "S"))
    assert 0 <= found["metrics"]["hierarchical distance"]["mean"] <= 1


def test_a_run_has_thresholds_of_its_ranks(closed):
    (seed,) = closed.results["protocols"]["honest"]["seeds"].values()
    ranks = seed["calibration"]["ranks"]
    assert Recognizer.load(closed.folder, device="cpu").rank_thresholds == {
        rank: RankThreshold(**one) for rank, one in ranks["thresholds"].items()
    }
    assert list(ranks["thresholds"]) == ["family"]
    for numbers in (ranks["validation"], ranks["test"]):
        assert numbers["listed"]["images"] == numbers["missing"]["images"]


def test_mistakes_and_curve_are_the_decisions(page, both):
    read = sound(page)
    parts = [load_decisions(both.folder / f"seed-{s}" / "honest-H.npz") for s in (0, 3)]
    gammas = [both.results["protocols"]["honest"]["seeds"][s]["gamma"] for s in ("0", "3")]
    names = pd.read_csv(both.folder / "classes.csv")["class"]
    truth = np.concatenate([d.labels for d in parts])
    named = np.concatenate([d.predict(g) for d, g in zip(parts, gammas, strict=True)])
    for row in read.rows("classes"):
        mine = named[truth == names[names == row["class"]].index[0]]
        wrong = pd.Series(names[mine].to_numpy())
        wrong = wrong[wrong != row["class"]]
        if wrong.empty:
            assert row["most often taken for"] == "–"
        else:
            share = wrong.value_counts().max() / len(mine)
            assert row["most often taken for"].endswith(f"{percent(share, 0)}%")
            name = row["most often taken for"].removesuffix(f" {percent(share, 0)}%")
            assert wrong.value_counts()[name] == wrong.value_counts().max()
    curve = SeenUnseenCurve.of(parts[0])
    at = np.searchsorted(curve.gamma, gammas[0], side="right") - 1
    said = f"accuracy is {percent(curve.u[at], 0)}% on unseen and {percent(curve.s[at], 0)}% on seen classes"
    assert said in read.words("results")


def test_it_is_self_contained_and_guarded(page):
    text = page.read_text()
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"<script>.*?</script>|data:[^\"]*", "", text, flags=re.S))
    script = re.search(r"<script>(.*?)</script>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert text.count("data:image/jpeg;base64") >= 8
    assert len(text) < 1_500_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("no unseen", lambda images: images["split"] != "test_unseen"),
        ("no seen", lambda images: images["split"] != "test_seen"),
        ("no test", lambda images: images["split"] == "trainval"),
    ],
)
def test_images_that_are_missing_by_design(name, keep, fit, write, tiny_guide, tmp_path):
    run = fit("eszsl", f"eszsl {name}", changed(tiny_guide, tmp_path / "data", keep))
    read = sound(write(run))
    summary, classes = read.words("summary"), read.words("classes")
    metrics = run.results["protocols"]["honest"]["metrics"]
    if name == "no seen":
        assert f"{percent(metrics['T1']['mean'])}%" in summary
        assert "no test images of seen classes" in classes
    else:
        assert "There is no test image of the" in summary
        assert "Unseen classes have no test images" in classes
    if name == "no unseen":
        assert f"{percent(metrics['S']['mean'])}%" in summary
        assert read.sections["examples"].images > 0
    if name == "no test":
        assert "There are no test images" in read.words("examples")
        assert "There are no test images" in read.words("confusions")


def test_classes_set_aside_stand_for_unseen_ones(closed, write, tmp_path):
    entry = {"mean": 0.625, "std": 0.0, "low": 0.5, "high": 0.75, "per_seed": [0.625]}
    none = dict.fromkeys(entry)

    def edit(found):
        found["metrics"] |= {"T1": none, "U": none, "H": none, "AUSUC": none}
        draw = {"classes": ["one <b>", "two"], "images": 4, "metrics": {}, "calibration": None}
        metrics = {
            name: {**entry, "mean": mean} for name, mean in (("T1", 0.625), ("U", 0.375), ("S", 0.75), ("H", 0.4))
        }
        found["holdout"] = {"metrics": metrics, "classes_set_aside": 2, "classes_unseen": 5, "draws": [draw]}

    read = sound(write(edited(closed, tmp_path / "run", edit)))
    words = read.words("summary")
    assert words.count("estimated") == 3
    assert "Estimated by setting 2 of your classes aside" in words
    assert "62.5%" in words
    assert "37.5%" in words
    assert "Guessing: 20.0%. 95% interval 50.0 to 75.0" in words
    assert "right 62 of 100 times among 5 unseen classes (guessing: 20)" in words
    assert "one <b>" in read.words("data")
    assert "AUSUC" not in read.words("results")


def block(threshold=0.6, test=True):
    """A seed's calibration as a run writes it."""
    side = {
        "images": 40,
        "accuracy": 0.725,
        "confidence": 0.75,
        "ece": 0.0625,
        "auroc": 0.875,
        "coverage": 0.55,
        "accuracy_when_known": 0.9,
        "reliability": {"confidence": [0.25, 0.95], "accuracy": [0.2, 0.9], "count": [10, 30]},
        "risk_coverage": {"coverage": [0.25, 0.5, 1.0], "risk": [0.0, 0.05, 0.275], "threshold": [0.9, 0.7, 0.1]},
    }
    validation = {**side, "ece": 0.03125, "auroc": None, "images": 30}
    return {
        "temperature": 0.5,
        "gamma": 0.125,
        "threshold": threshold,
        "validation": validation,
        "test": side if test else {},
    }


def test_calibration_is_the_run_s(closed, write, tmp_path):
    def edit(found):
        found["seeds"]["0"]["calibration"] = block()

    read = sound(write(edited(closed, tmp_path / "run", edit)))
    test, validation = read.rows("calibration")
    assert test == {
        "images": "test (40)",
        "calibration error (ECE)": "6.2%",
        "seen/unseen AUROC": "87.5%",
        "accuracy without “unknown”": "72.5%",
        "answered at the threshold": "55.0%",
        "accuracy of these": "90.0%",
    }
    assert validation["calibration error (ECE)"] == "3.1%"
    assert validation["seen/unseen AUROC"] == "–"
    words = read.words("calibration")
    assert "below 60.0% confidence" in words
    assert "“unknown” below 60%" in words  # in the chart
    assert "With the chosen threshold, 55% get an answer, and 10% of those answers are wrong." in words
    assert "28% of the answers on test images are wrong" in words
    assert "The largest group has about 95% confidence, and 90% of it is correct" in words
    summary = read.words("summary")
    assert "off by 6 points on average" in summary
    assert "less than 60% confident, it answers “unknown”. So it answered for 55% of the images" in summary
    assert "and 90% of these answers were right" in summary
    assert "6.2%" in summary
    assert "87.5%" in summary


def test_calibration_without_test_images_or_threshold(closed, write, tmp_path):
    def edit(found):
        found["seeds"]["0"]["calibration"] = block(threshold=0.0, test=False)

    read = sound(write(edited(closed, tmp_path / "run", edit)))
    words = read.words("calibration")
    assert "no threshold was needed" in words
    assert "all of this is measured on the validation images" in words
    assert len(read.rows("calibration")) == 1
    assert "on the images it was fitted on" in read.words("summary")


def test_without_calibration_it_says_how_to_get_it(closed, fit, write, tmp_path):
    def edit(found):
        found["seeds"]["0"].pop("calibration", None)

    assert "train again into a new folder" in sound(write(edited(closed, tmp_path / "run", edit))).words("calibration")
    paper = fit("eszsl", "paper", protocols=("paper",))
    read = sound(write(paper))
    assert "--protocol honest" in read.words("calibration")
    assert "Choices were made on the test images" in read.words("summary")


def test_closed_forms_have_no_curves(closed, write):
    read = sound(write(closed))
    assert "without epochs" in read.words("training")
    assert "one step, in closed form" in read.words("model")
    assert "the method is deterministic" in read.words("repeat")


def test_training_curves_are_the_records(page, both):
    read = sound(page)
    records = [json.loads(x) for x in (both.folder / "seed-0/final/metrics.jsonl").read_text().splitlines()]
    first, last = records[0]["loss"]["total"], records[-1]["loss"]["total"]
    assert f"from {first:.3g} to {last:.3g} in the last training" in read.words("training")
    chosen = both.results["protocols"]["honest"]["seeds"]["0"]["chosen"]["epoch"]
    assert f"Epoch {chosen} was chosen" in read.words("training")


def test_end_to_end(fit, write):
    read = sound(write(fit("mgmrn", "mgmrn", **SMALL_MGMRN)))
    assert "fine-tuned with the method" in read.words("model")
    assert read.sections["examples"].images


@pytest.mark.parametrize("mode", ["names", "attributes"])
def test_text_methods(mode, fit, write, tiny_pairs):
    backbone = BackboneSpec(f"hf:{tiny_pairs['clip']}")
    read = sound(write(fit("clip", f"clip-{mode}", backbone=backbone, settings={"mode": mode}), examples=2))
    if mode == "names":
        assert "without attributes" in read.words("examples")
        assert "the model looked" not in read.words("examples")


ENTRY = {"mean": 0.5, "std": 0.0, "low": 0.4, "high": 0.6}
HOLDOUT = {
    "metrics": dict.fromkeys(("T1", "U", "S", "H"), ENTRY),
    "draws": [{"classes": ["a", "b"], "images": 4, "metrics": {}, "calibration": None}],
    "classes_set_aside": 2,
    "classes_unseen": 2,
    "attributes": {"auroc": [0.9, 0.7, None, *[0.55] * 47], "spearman": [0.5, 0.25, None, *[0.1] * 47]},
}


def test_a_dataset_that_is_gone(closed, fit, write, tiny_guide, tmp_path):
    run = fit("eszsl", "gone", changed(tiny_guide, tmp_path / "data"))
    there = sound(write(run))
    shutil.rmtree(tmp_path / "data")
    read = sound(write(run))
    assert "could not open the images" in read.words("summary")
    assert "Not available" in read.words("attributes")
    held_out = sound(write(edited(run, tmp_path / "held out", lambda found: found.update(holdout=HOLDOUT))))
    assert "could not open the images" in held_out.words("summary")
    assert "attribute quality" not in held_out.words("summary")  # which the results have
    words = held_out.words("attributes")
    assert (
        "Of 50 attributes, 1 is read well (0.8 or more), 1 fairly and 47 badly (below 0.6); 1 cannot be measured"
        in words
    )
    assert "over images of the classes held out" in words
    assert read.sections["examples"].images == 0
    assert [r["right among all classes"] for r in read.rows("classes")] == [
        r["right among all classes"] for r in there.rows("classes")
    ]
    assert read.words("repeat") == there.words("repeat")


def test_a_dataset_that_changed(fit, write, tiny_guide, tmp_path):
    run = fit("eszsl", "changed", changed(tiny_guide, tmp_path / "data"))
    classes = pd.read_csv(tmp_path / "data" / "classes.csv")
    classes.iloc[0, -1] += 1
    classes.to_csv(tmp_path / "data" / "classes.csv", index=False)
    read = sound(write(run))
    assert "the dataset has changed since the training" in read.words("summary")


def test_an_unfinished_run_is_refused(closed, write, tmp_path):
    shutil.copytree(closed.folder, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(RunError, match="repeat its command"):
        write(Run(tmp_path / "run"))


def test_hostile_names(fit, write, tiny_guide, tmp_path):
    data = changed(tiny_guide, tmp_path / "data", rename=HOSTILE)
    classes = pd.read_csv(data / "classes.csv")
    first = classes.columns[-1]
    classes = classes.rename(columns={first: '<i onclick="x">attribute</i> & "more"'})
    classes.to_csv(data / "classes.csv", index=False)
    (data / "attributes.csv").unlink(missing_ok=True)
    (data / "attribute_vectors.npy").unlink(missing_ok=True)
    run = fit("eszsl", "hostile", data)
    path = write(run, path=tmp_path / "page.html")
    read = sound(path)
    names = {row["class"] for row in read.rows("classes")}
    assert set(HOSTILE) <= names
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert not any("onerror" in a or "onclick" in a for _, a in read.tags)
    assert '<i onclick="x">attribute</i> & "more"' in read.words("attributes")


def test_examples_can_be_left_out(closed, write, tmp_path):
    read = sound(write(closed, path=tmp_path / "page.html", examples=0))
    assert read.sections["examples"].images == 0
    read = sound(write(closed, path=tmp_path / "page.html", examples=1))
    assert "Correct" in read.words("examples")


def test_copies_across_splits_are_told(fit, write, tiny_guide, tmp_path):
    data = changed(tiny_guide, tmp_path / "data")
    images = pd.read_csv(data / "images.csv")
    seen = images[images["split"] != "test_unseen"]
    a = seen[seen["split"] == "trainval"].iloc[0]["file"]
    b = seen[(seen["split"] == "test_seen")].iloc[0]["file"]
    folder = next(p.parent for p in data.rglob(a.rsplit("/", 1)[-1]) if p.as_posix().endswith(a))
    root = folder.as_posix().removesuffix("/" + a.rsplit("/", 1)[0]) if "/" in a else folder.as_posix()
    shutil.copyfile(f"{root}/{a}", f"{root}/{b}")
    read = sound(write(fit("eszsl", "copies", data)))
    assert "1 group of images with equal content, 1 across splits" in read.words("data")
    assert a in read.words("data")


def test_rows_say_data_backbone_protocol_seeds(closed):
    (row,) = result_rows([closed])
    assert row["protocol"] == "honest"
    assert row["seeds"] == "none"
    assert "test_resnet, 64 px, random, frozen" in row["backbone"]
    assert row["data"].startswith("tiny (")


def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here")
    return [found, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def browse(tmp_path, *options):
    command = [*chromium(), f"--user-data-dir={tmp_path / 'profile'}", *options]
    return subprocess.run(command, timeout=120, check=True, capture_output=True).stdout.decode()


def probed(page, tmp_path, script):
    """A page's own answer to a script, at phone width."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    (tmp_path / "inner.html").write_text(
        text.replace("</body>", f"<script>parent.postMessage(String({script}), '*')</script></body>")
    )
    (tmp_path / "outer.html").write_text(
        "<!doctype html><body><pre></pre><script>addEventListener('message', e => "
        "document.querySelector('pre').textContent = e.data)</script>"
        '<iframe src="inner.html" width="390" height="800" style="border:0"></iframe></body>'
    )
    dom = browse(tmp_path, "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "outer.html").as_uri())
    return re.search(r"<pre>(.*?)</pre>", dom, re.S).group(1)


@pytest.mark.browser
def test_a_browser_shows_it(page, tmp_path):
    shot = tmp_path / "shot.png"
    browse(tmp_path, "--window-size=1100,1400", f"--screenshot={shot}", page.as_uri())
    from PIL import Image

    with Image.open(shot) as seen:
        assert len(seen.convert("RGB").resize((110, 140)).getcolors(maxcolors=20000)) > 100  # not a blank page


@pytest.mark.browser
def test_a_phone_needs_no_sideways_scrolling(page, tmp_path):
    wide = probed(page, tmp_path, "document.documentElement.scrollWidth")
    assert int(wide) <= 390


@pytest.mark.browser
def test_tables_sort(page, tmp_path):
    script = """(() => {
      const table = document.querySelector('#classes table');
      const heads = [...table.tHead.rows[0].cells];
      const at = heads.findIndex(h => h.textContent.includes('right among all'));
      const values = () => [...table.tBodies[0].rows].map(r => Number(r.cells[at].dataset.value));
      heads[at].querySelector('[role=button]').click(); const up = values();
      const enter = new KeyboardEvent('keydown', {key: 'Enter', bubbles: true});
      heads[at].querySelector('[role=button]').dispatchEvent(enter);
      const down = values(), sorted = [...up].sort((a, b) => a - b);
      return [JSON.stringify(up) === JSON.stringify(sorted), JSON.stringify(down) === JSON.stringify(sorted.reverse()),
              heads[at].getAttribute('aria-sort')];
    })()"""
    assert probed(page, tmp_path, script) == "true,true,descending"


@pytest.mark.browser
def test_it_prints(page, tmp_path):
    paper = tmp_path / "page.pdf"
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 4 <= pages <= 24
