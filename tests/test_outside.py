"""Methods of a package outside the tree, everywhere that a method of ours works."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import unseen
from outside import write_package
from unseen import cli
from unseen.cli.comparing import print_comparison
from unseen.errors import UnseenError
from unseen.evaluation import registry as metrics
from unseen.experiments import compare as comparing
from unseen.experiments import worker
from unseen.experiments.ablate import ablate
from unseen.experiments.compare import Comparison, compare
from unseen.experiments.variants import Variant, parse_variants
from unseen.methods import METHODS, registry
from unseen.methods.base import Branch
from unseen.report.page import write_report
from unseen.report.tables import result_rows
from unseen.serve.about import metrics_of
from unseen.training.config import RunConfig
from unseen.training.folder import Run

SRC = str(Path(unseen.__file__).parents[1])
BACKBONE = ["--backbone", "test_resnet", "--image-size", "32", "--backbone-weights", "random", "--device", "cpu"]


@pytest.fixture
def registered():
    """What a test registers is forgotten after it."""
    kept = [(known, dict(known)) for known in (METHODS, registry._GIVEN, metrics.REGISTRY)]
    metrics._installed.cache_clear()
    yield
    metrics._installed.cache_clear()
    for known, old in kept:
        known.clear()
        known.update(old)
    for name in [n for n in sys.modules if n.split(".")[0] in ("birdkit", "otherkit")]:
        del sys.modules[name]


@pytest.fixture
def birdkit(tmp_path, monkeypatch, registered):
    folder = write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), SRC]))
    return folder


def test_a_class_goes_all_the_way(birdkit, tiny_guide, tiny_backbone, tmp_path):
    from birdkit.methods import Ridge, RidgeSettings

    options = {"backbone": tiny_backbone, "device": "cpu", "cache": tmp_path / "cache", "draws": 1}
    run = unseen.fit(Ridge, tiny_guide, tmp_path / "run", **options)
    assert run.config.method == "birdkit.methods:Ridge"
    assert json.loads((run.folder / "config.json").read_text())["method"] == "birdkit.methods:Ridge"
    assert run.manifest["method"]["name"] == "ridge"
    numbers = unseen.evaluate(run, device="cpu", cache=tmp_path / "cache")
    assert numbers["seeds"]["0"]["H"] == run.results["protocols"]["honest"]["seeds"]["0"]["H"]

    image = next((tiny_guide / "images").rglob("*.*"))
    loaded = unseen.Recognizer.load(run.folder, device="cpu")
    answer = loaded.predict([image])[0]
    saved = loaded.save(tmp_path / "saved", include_backbone=True)
    again = unseen.Recognizer.load(saved or tmp_path / "saved", device="cpu")
    assert again.predict([image])[0].best == answer.best
    assert json.loads((tmp_path / "saved" / "recognizer.json").read_text())["method"] == "birdkit.methods:Ridge"

    typed = unseen.fit(RidgeSettings(strength=0.5), tiny_guide, tmp_path / "typed", **options)
    assert typed.config.method == run.config.method
    assert typed.config.settings == {"strength": "0.5", "bias": "false"}
    named = unseen.fit(
        "birdkit.methods:Ridge", tiny_guide, tmp_path / "named", settings={"strength": 0.5, "bias": False}, **options
    )
    assert named.config.to_json() == typed.config.to_json()


def test_a_class_that_says_nothing_of_itself_trains(birdkit, tiny_guide, tiny_backbone, tmp_path):
    from birdkit.methods import Mean

    assert "mean" not in unseen.list_methods()
    run = unseen.fit(
        Mean, tiny_guide, tmp_path / "run", epochs=2, recipe={"lr": 1e-2}, backbone=tiny_backbone, device="cpu"
    )
    assert run.config.recipe == {"lr": "0.01", "epochs": "2"}
    assert run.manifest["method"]["preset"] == "default"
    assert Mean.card.title == "One linear map, trained"


@pytest.mark.slow
def test_rows_of_a_comparison_are_processes_that_find_it(birdkit, tiny_guide, tiny_backbone, tmp_path):
    base = {"dataset": str(tiny_guide), "backbone": tiny_backbone, "protocols": ("honest",), "seeds": (0,)}
    method = "birdkit.methods:Ridge"
    rows = parse_variants([method, f"mild={method}:strength=10"])
    asked = Comparison(rows, base, device="cpu", cache=tmp_path / "cache", validation_only=True)
    found = compare(asked, tmp_path / "all")["rows"]
    assert [(row["name"], row["error"]) for row in found] == [("ridge", None), ("mild", None)]
    assert found[1]["settings"] == {"strength": 10.0, "bias": False}
    found = ablate(asked, tmp_path / "parts", base=rows[0])["rows"]
    assert [(row["name"], row["error"]) for row in found] == [("full", None), ("weak", None)]


def test_a_row_may_name_a_module_that_is_called_like_its_method(tmp_path, monkeypatch):
    """As in the guide: ``ridge:Ridge`` is the method "ridge"."""
    guide = (Path(__file__).parents[1] / "docs" / "how-to" / "add-method.md").read_text()
    (tmp_path / "ridge.py").write_text(guide.split('title="ridge.py"\n')[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    try:
        rows = parse_variants(["ridge:Ridge", "strong=ridge:Ridge:strength=5"])
        assert [(row.name, row.method, row.changes) for row in rows] == [
            ("ridge", "ridge:Ridge", {}),
            ("strong", "ridge:Ridge", {"strength": "5"}),
        ]
    finally:
        METHODS.pop("ridge", None)
        sys.modules.pop("ridge", None)


def test_a_command_takes_a_path_and_a_folder_is_not_trusted(commands, tiny_guide, tmp_path):
    def command(*words, path):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([*path, SRC])}
        return commands.call(tmp_path, *words, environment=environment, safe_path=True)

    folder = write_package(tmp_path / "site")
    words = ["train", tiny_guide, "--method", "birdkit.methods:Ridge", *BACKBONE, "--draws", "1", "--no-report"]
    words += ["--cache", "cache"]
    status, _, err = command(*words, path=[str(folder)])
    assert status == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("Ridge-")
    # the receiver has not installed it; that it lies beside the folder is not enough
    shutil.copytree(folder / "birdkit", tmp_path / "birdkit")
    image = next((tiny_guide / "images").rglob("*.*"))
    status, out, err = command("predict", run, image, "--device", "cpu", path=[])
    assert (status, out) == (2, "")
    line = " ".join(err.split())
    assert 'its method is code that is not installed: no module "birdkit.methods"' in line
    assert "install the package of birdkit.methods:Ridge" in line


def test_an_entry_point_is_a_name_like_ours(tiny_guide, tiny_backbone, tmp_path, monkeypatch, registered):
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "site", entry_point=True)))
    assert "ridge" in unseen.list_methods()
    made = unseen.create_method("ridge", channels=4, vectors=np.eye(3), strength=2)
    assert made.settings.strength == 2.0
    run = unseen.fit("ridge", tiny_guide, tmp_path / "run", backbone=tiny_backbone, device="cpu", draws=1)
    assert run.config.method == "ridge"
    with pytest.raises(UnseenError, match='did you mean "ridge"'):
        unseen.create_method("rigde", channels=4, vectors=np.eye(3))


def test_a_metric_of_an_installed_package_is_wherever_ours_are(
    tiny_guide, tiny_backbone, tmp_path, monkeypatch, registered, capsys
):
    """In results.json, the tables of a comparison and of a run, what `evaluate` gives, the report and the page."""
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "site", entry_point=True)))
    monkeypatch.setattr(comparing, "run_worker", worker.work)
    monkeypatch.setattr(cli.out, "_width", 200)
    base = {
        "dataset": str(tiny_guide),
        "backbone": tiny_backbone,
        "protocols": ("honest",),
        "seeds": (0,),
        "draws": 1,
    }
    asked = Comparison(parse_variants(["eszsl"]), base, device="cpu", cache=tmp_path / "cache")
    found = compare(asked, tmp_path / "all")
    run = Run(tmp_path / "all" / "eszsl")
    results = run.results["protocols"]["honest"]
    entry = results["metrics"]["recall-at-2"]
    assert entry["mean"] == pytest.approx(results["seeds"]["0"]["recall-at-2"], abs=1e-12)
    assert entry["low"] <= entry["mean"] <= entry["high"]
    cell = f"{100 * entry['mean']:.1f}"
    print_comparison(found)
    table = capsys.readouterr().out
    assert ("recall-at-2" in table, "top-5" in table, cell in table) == (True, False, True)
    assert result_rows([run])[0]["recall-at-2"].startswith(cell)
    assert f"| {cell} [" in (tmp_path / "all" / "compare.md").read_text()
    assert "honest_recall-at-2_mean" in (tmp_path / "all" / "compare.csv").read_text()
    again = unseen.evaluate(run, device="cpu", cache=tmp_path / "cache")["seeds"]["0"]
    assert again["recall-at-2"] == results["seeds"]["0"]["recall-at-2"]
    page = write_report(run, device="cpu", cache=tmp_path / "cache").read_text()
    assert page.count("right at the first or second guess") == 1
    assert page.count("recall-at-2") >= 3  # the figure, the table of results, what the terms mean
    assert [m.name for m in metrics_of(run.folder)][-1] == "Right at the first or second guess"


def test_what_is_only_in_this_process_stays_in_it(tiny_guide, tiny_backbone, tmp_path, registered):
    eszsl = METHODS["eszsl"]

    @unseen.register_method
    class Mine(eszsl):
        """Mine."""

        name = "mine"

    run = unseen.fit("mine", tiny_guide, tmp_path / "run", backbone=tiny_backbone, device="cpu", draws=1)
    assert run.config.method.endswith("<locals>.Mine")
    assert unseen.evaluate(run, device="cpu")["protocol"] == "honest"
    asked = Comparison(
        [Variant("mine", "mine")],
        {"dataset": str(tiny_guide), "backbone": tiny_backbone, "protocols": ("honest",), "seeds": (0,)},
    )
    with pytest.raises(UnseenError, match=r"other processes cannot import it — move it into a module"):
        compare(asked, tmp_path / "rows")
    METHODS.pop("mine")
    registry._GIVEN.clear()
    with pytest.raises(UnseenError, match="other processes cannot import it"):
        unseen.Recognizer.load(run.folder, device="cpu")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (dict, "dict: is not a method — pass a subclass"),
        (type("Odd", (METHODS["eszsl"],), {"name": "a b"}), "'a b' is not a valid method name"),
        (
            type("ESZSL", (METHODS["eszsl"],), {"name": "eszsl"}),
            'method "eszsl" already exists: unseen.methods.eszsl:ESZSL',
        ),
    ],
)
def test_what_is_no_method_is_refused(kind, message, registered):
    with pytest.raises(UnseenError, match=message):
        unseen.register_method(kind)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.at:All", 'method nowhere.at:All: no module "nowhere"'),
        ("birdkit.methods:Nothing", '"birdkit.methods" has no "Nothing"'),
        ("birdkit.broken:Any", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("json:JSONDecoder", "json:JSONDecoder: is not a method"),
    ],
)
def test_what_cannot_be_imported_is_one_line(birdkit, path, message):
    (birdkit / "birdkit" / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UnseenError, match=message) as caught:
        unseen.create_method(path, channels=2, vectors=np.eye(2))
    assert "\n" not in str(caught.value)


def test_a_file_imports_nothing_that_does_not_speak_of_unseen(birdkit, tmp_path):
    (birdkit / "birdkit" / "bomb.py").write_text("raise SystemExit(3)\n")
    config = RunConfig(method="eszsl", dataset="x", backbone=unseen.BackboneSpec(name="resnet18", weights="random"))
    data = config.to_json() | {"method": "birdkit.bomb:Bomb"}
    with pytest.raises(UnseenError, match="does not belong to unseen"):
        RunConfig.from_json(data, tmp_path / "config.json")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lambda_ca": 1}, 'no setting "lambda_ca" — did you mean "lambda_cal"'),
        ({"renormalize_vectors": 3}, '"3" has the wrong type — use true or false'),
        ({"lambda_cal": [1, 2]}, '"1,2" has the wrong type — use a number'),
        ({"lambda_cal": None}, "setting lambda_cal: None has the wrong type"),
    ],
)
def test_settings_of_the_wrong_kind_are_one_line(asked, message):
    with pytest.raises(UnseenError, match=message):
        unseen.create_method("msdn", channels=2, vectors=np.eye(2), **asked)


def test_settings_are_typed(tmp_path):
    made = unseen.create_method(
        "msdn", channels=2, vectors=np.eye(2), renormalize_vectors=True, fusion=(0.25, 0.75), lambda_cal=np.float32(0.5)
    )
    assert (made.settings.renormalize_vectors, made.settings.fusion, made.settings.lambda_cal) == (
        True,
        (0.25, 0.75),
        0.5,
    )
    assert made.vectors.dtype == torch.float32
    with pytest.raises(UnseenError, match='fit has no argument "epoch" — pass settings='):
        unseen.fit("msdn", "fieldguide", tmp_path, epoch=3)
    for entries, message in (
        ({"seeds": 3}, r"seeds is 3 — pass several: range\(3\), or \(3,\) for this one"),
        ({"seeds": ["a"]}, "seeds is 'a' — use a whole number, 0 or more"),
        ({"seeds": [-1]}, "seeds is -1"),
        ({"split_seed": 1.5}, "split_seed is 1.5"),
        ({"draws": "a"}, "draws is 'a'"),
        ({"time": "x"}, "time is 'x'"),
        ({"settings": 5}, "int holds no settings — pass a dict"),
        ({"recipe": 5}, "int holds no settings"),
        ({"device": None}, "None is not a device — use auto"),
        ({"image_size": "a", "backbone": "resnet18"}, "image size a is not between 1 and 8192"),
    ):
        with pytest.raises(UnseenError, match=message):
            unseen.fit("eszsl", "fieldguide", tmp_path, **entries)
    with pytest.raises(UnseenError, match="CompatibilitySettings are the settings of ale and devise and sje"):
        unseen.fit(METHODS["ale"].settings_class(), "fieldguide", tmp_path)


def test_every_tensor_of_a_branch_is_changed():
    from dataclasses import dataclass

    @dataclass
    class Mine(Branch):
        extra: torch.Tensor | None = None
        note: str = "kept"

    branch = Mine(torch.ones(2, 3), embedding=torch.ones(2, 4), extra=torch.ones(2, 5))
    branch.change(lambda t: 2 * t)
    assert [t.sum() for t in (branch.attribute_scores, branch.embedding, branch.extra)] == [12, 16, 20]
    assert (branch.note, branch.attention) == ("kept", None)
