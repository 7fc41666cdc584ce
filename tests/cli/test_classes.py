"""``unseen classes`` and ``unseen explain`` as a person uses them, on a small closed-form run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import unseen as package
from unseen import Recognizer
from unseen.classes.attributes import Attributes, write_attributes
from unseen.classes.changes import ATTRIBUTES, ENCODING, TRAINED
from unseen.classes.spreadsheets.columns import Column, Encoding
from unseen.classes.table import ClassTable
from unseen.ground.files import SEAL, write_json
from unseen.model.references import make_references, references_beside
from unseen.model.weights import load_weights
from unseen.training.batches import batches
from unseen.training.folder import Run
from unseen.training.run import reopen
from unseen.training.stage import Stage

BACKBONE = ["--backbone", "test_resnet", "--backbone-weights", "random", "--image-size", "64"]
BACKBONE += ["--backbone-option", "output_stride=16"]


@pytest.fixture(scope="module")
def fitting(tiny_guide, tiny_backbone, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    options = {"backbone": tiny_backbone, "cache": cache, "device": "cpu", "draws": 1}
    return tmp_path_factory.mktemp("run") / "eszsl", options


@pytest.fixture(scope="module")
def finished(fitting, tiny_guide):
    """A run with its references and the place of its images."""
    folder, options = fitting
    run = package.fit("eszsl", tiny_guide, folder, **options)
    inputs = reopen(run, cache=options["cache"], device="cpu")
    hand, weights = Stage(inputs, "final"), folder / "seed-0" / "honest.safetensors"
    method = inputs.new_method(0)
    load_weights(weights, method)
    method.eval()
    train, dataset = hand.partition.train, inputs.dataset
    asked = (hand.train.batch(rows) for rows in batches(len(train)))
    files = [dataset.files[i] for i in train]
    make_references(method, asked, dataset.labels[train], files, dataset.table).save(references_beside(weights))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["data"]["images"] = str(dataset.images.resolve())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def run(finished):
    yield finished
    (finished / "classes-in-use.csv").unlink(missing_ok=True)


@pytest.fixture
def names(run):
    return Recognizer.load(run, device="cpu").table.names


def images(run):
    return sorted(Path(json.loads((run / "manifest.json").read_text())["data"]["images"]).rglob("*.jpg"))


def test_remove_and_add_again_from_a_file(unseen, run, names, tmp_path):
    before = Recognizer.load(run, device="cpu")
    gone = next(n for n, seen in zip(names, before.table.seen, strict=True) if not seen)
    status, out, _ = unseen("classes", "show", run, gone, "-o", tmp_path / "one.csv")
    assert status == 0
    assert "all 50 values" in out
    assert unseen("classes", "remove", run, gone)[0] == 0
    _, text, _ = unseen("classes", "list", run, "--json")
    listed = json.loads(text)
    assert gone not in [c["class"] for c in listed["classes"]]
    assert listed["removed"] == [gone]
    status, out, err = unseen("classes", "add", run, gone, "--attributes", tmp_path / "one.csv")
    assert status == 0, err
    assert f"added: {gone}" in out
    after = Recognizer.load(run, device="cpu")
    assert after.table.names[-1] == gone
    image = images(run)[0]
    one, two = ({c.name: c for c in r.predict(image, top=99)[0].candidates} for r in (before, after))
    assert set(one) == set(two)
    for name, candidate in one.items():
        assert two[name].score == pytest.approx(candidate.score, abs=1e-6)
        assert two[name].seen == candidate.seen
    order = [after.table.index(name) for name in names]
    np.testing.assert_array_equal(after.table.values[order], before.table.values)  # to the bit


def test_a_table_of_several_classes_and_a_seen_one_coming_back(unseen, run, names, tmp_path):
    table = Recognizer.load(run, device="cpu").table
    back = names[int(np.flatnonzero(table.seen)[0])]
    rows = (run / "classes.csv").read_text().splitlines()
    old = next(row for row in rows if row.startswith(f"{back},"))
    new = "New bird,0," + old.split(",", 2)[2]
    (tmp_path / "more.csv").write_text("\n".join([rows[0], old, new]) + "\n")
    unseen("classes", "remove", run, back)
    status, out, err = unseen("classes", "add", run, "--attributes", tmp_path / "more.csv")
    assert status == 0
    assert f"added: {back}" in out
    assert "is a seen class again" in err
    assert f'"New bird" is nearly equal to "{back}" (cosine 1.000, differing in 0 attributes)' in err
    found = Recognizer.load(run, device="cpu").table
    assert found.seen[found.index(back)]
    assert not found.seen[found.index("New bird")]
    # Recognizer.load can still be told to have those of the training
    assert Recognizer.load(run, device="cpu", as_trained=True).table.names == table.names


def test_set_like_edit_rename_reset(unseen, run, names):
    status, text, _ = unseen(
        "classes", "add", run, "Night bird", "--like", names[0], "--set", "crown_color::red=33", "--json"
    )
    assert status == 0
    told = json.loads(text)
    assert told["added"] == ["Night bird"]
    assert told["nearest"]["Night bird"][0]["name"] == names[0]
    assert told["notes"]
    table = Recognizer.load(run, device="cpu").table
    k = table.attributes.index("crown_color::red")
    expected = table.values[0].copy()
    expected[k] = 33
    np.testing.assert_array_equal(table.values[-1], expected)
    status, out, _ = unseen("classes", "edit", run, "Night bird", "--set", "crown_color::red=44")
    assert status == 0
    assert "edited: Night bird" in out
    assert Recognizer.load(run, device="cpu").table.values[-1][k] == 44
    unseen("classes", "rename", run, names[1], "Renamed bird")
    unseen("classes", "edit", run, names[0], "--like", "Night bird")
    listed = json.loads(unseen("classes", "list", run, "--json")[1])["classes"]
    changes = {c["class"]: c["change"] for c in listed if c["change"]}
    assert changes == {names[0]: "edited", "Renamed bird": f"was {names[1]}", "Night bird": "added"}
    _, _, err = unseen("classes", "edit", run, "Night bird", "--set", "crown_color::red=1e5")
    assert "check the unit" in err
    assert "restored the 12 classes" in unseen("classes", "reset", run)[1]
    assert "no changes to undo" in unseen("classes", "reset", run)[1]
    assert Recognizer.load(run, device="cpu").table.names == names


def test_resuming_a_run_keeps_the_classes_in_use(unseen, run, names, fitting, tiny_guide):
    unseen("classes", "remove", run, names[0])
    results = Run(run).results["protocols"]
    folder, options = fitting
    manifest = (run / "manifest.json").read_text()
    package.fit("eszsl", tiny_guide, folder, **options)
    (run / "manifest.json").write_text(manifest)
    assert Run(run).results["protocols"] == results  # measured on the classes of the training
    assert Recognizer.load(run, device="cpu").table.names == names[1:]
    evaluated = package.evaluate(Run(run), cache=options["cache"], device="cpu")
    assert len(evaluated["per_class"]) == len(names)


def test_saved_folders_follow_the_same_rule(unseen, run, names, tmp_path):
    saved = Recognizer.load(run, device="cpu").save(tmp_path / "saved")
    before = (saved / "classes.csv").read_bytes()
    assert unseen("classes", "remove", saved, names[2])[0] == 0
    assert (saved / "classes.csv").read_bytes() == before
    assert names[2] not in Recognizer.load(saved, device="cpu").table.names
    unseen("classes", "reset", saved)
    assert Recognizer.load(saved, device="cpu").table.names == names


def test_advice(unseen, run, names):
    found = json.loads(unseen("classes", "closest", run, names[0], "--top", "3", "--json")[1])
    assert len(found["nearest"]) == 3
    assert {"name", "cosine", "differing", "nearly_equal"} <= set(found["nearest"][0])
    everything = json.loads(unseen("classes", "closest", run, "--json")[1])
    assert everything["pairs"][0]["cosine"] >= everything["pairs"][-1]["cosine"]
    assert everything["confused"] == Run(run).results["protocols"]["honest"]["confusions"][:10]
    assert "nearest by attributes" in unseen("classes", "closest", run)[1]
    apart = json.loads(unseen("classes", "separate", run, names[0], names[1], "--json")[1])
    assert apart["today"][0]["first_value"] != apart["today"][0]["second_value"]
    status, out, _ = unseen("classes", "separate", run, names[0], names[1])
    assert status == 0
    assert "attributes that separate them" in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["add", "{run}"], "the class has no name"),
        (["add", "{run}", "x"], "the class has no attribute values"),
        (["add", "{run}", "x", "--set", "crown_colour::red=1"], "did you mean crown_color::red"),
        (["add", "{run}", "x", "--set", "crown_color::red"], "is not ATTRIBUTE=VALUE"),
        (["add", "{run}", "x", "--set", "crown_color::red=lots"], "not a finite number"),
        (["add", "{run}", "x", "--attributes", "none.csv"], "no such file"),
        (["edit", "{run}", "x"], "nothing to change"),
        (["edit", "{run}", "x", "--set", "crown_color::red=1"], 'no class "x"'),
        (["remove", "{run}", "x"], 'no class "x"'),
        (["list", "none"], "not a run folder"),
        (["separate", "{run}", "x", "y"], 'no class "x"'),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(unseen, run, arguments, hint):
    status, out, err = unseen("classes", *(a.replace("{run}", str(run)) for a in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert hint in err
    assert len(err.strip().splitlines()) == 1
    assert not (run / "classes-in-use.csv").exists()


def test_explain_with_corrections_and_neighbours(unseen, run, tmp_path):
    image = images(run)[0]
    arguments = ["explain", run, image, "--device", "cpu", "--correct", "crown_color::red=100"]
    status, out, err = unseen(*arguments, "-o", tmp_path / "why.png")
    assert (status, err) == (0, "")
    assert "corrected" in out
    assert "crown color: red = 100" in out
    assert re.search(r"similar: .*\.jpg \(", out)
    assert Image.open(tmp_path / "why.png").width > 800
    found = json.loads(unseen(*arguments, "-o", tmp_path / "why.svg", "--json")[1])
    assert found["corrections"] == {"crown_color::red": 100}
    assert len(found["nearest"]) == 6
    assert len(found["before"]) == 5
    assert len(found["reasons"]) == 50
    look = Recognizer.load(run, device="cpu").look(image)
    assert [c["name"] for c in found["classes"]] == [c.name for c in look.rank({"crown_color::red": 100})[:5]]
    assert [c["name"] for c in found["before"]] == [c.name for c in look.rank()[:5]]
    assert (tmp_path / "why.svg").read_text().startswith("<?xml")
    assert "is not ATTRIBUTE=VALUE" in unseen("explain", run, image, "--correct", "crown_color::red")[2]
    assert "is not a number" in unseen("explain", run, image, "--correct", "crown_color::red=much")[2]


def test_explain_several_images_and_every_attribute(unseen, run, tmp_path):
    one, two = images(run)[0], images(run)[7]
    Image.open(one).resize((300, 40)).save(tmp_path / "wide.png")
    Image.open(one).resize((40, 300)).save(tmp_path / "tall.png")
    (tmp_path / "broken.jpg").write_bytes(b"x")
    files = [one, two, tmp_path / "wide.png", tmp_path / "tall.png", tmp_path / "broken.jpg"]
    few = ["--top", "2", "--nearest", "1"]
    status, _, err = unseen(
        "explain", run, *files, *few, "-o", tmp_path / "out", "--all-attributes", tmp_path / "maps", "--device", "cpu"
    )
    assert status == 1  # the broken one
    assert "broken.jpg" in err
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert made == sorted([f"{one.stem}-why.png", f"{two.stem}{'-2' if two.stem == one.stem else ''}-why.png",
                           "tall-why.png", "wide-why.png"])  # fmt: skip
    assert len(list((tmp_path / "maps" / "wide").iterdir())) == 50
    assert (tmp_path / "maps" / "wide" / "009-crown_color-red.png").is_file()
    status, _, err = unseen("explain", run, one, two, "-o", tmp_path / "x.png")
    assert "pass a folder to -o" in err


def test_explain_says_in_a_line_what_is_missing(unseen, run, tmp_path):
    references = run / "seed-0" / "honest-references.npz"
    kept = references.rename(run / "kept.npz")
    try:
        status, out, err = unseen("explain", run, images(run)[0], "-o", tmp_path / "a.png", "--device", "cpu")
        assert status == 0
        assert "no nearest training images" in err
        assert "similar:" not in out
        status, _, err = unseen("explain", run, images(run)[0], "--correct", "size::large=0", "-o", tmp_path / "a.png")
        assert status == 2
        assert "train again" in err
    finally:
        kept.rename(references)
    before = (run / "manifest.json").read_text()
    image = images(run)[0]
    gone = json.loads(before.replace(str(Path(image).parents[1]), "/gone"))
    del gone[SEAL]  # edited on purpose
    (run / "manifest.json").write_text(json.dumps(gone))
    try:
        status, out, err = unseen("explain", run, image, "-o", tmp_path / "a.png", "--device", "cpu")
        assert "listed by name" in err
        assert "similar:" in out
    finally:
        (run / "manifest.json").write_text(before)


def test_classes_have_ranks(run, unseen, tmp_path):
    table = Recognizer.load(run, device="cpu").table
    family = table.taxonomy.taxa[0][0]
    assert set(table.taxonomy.names(0)) <= {"Finches", "Warblers", "Shrikes", "Sunbirds"}
    first = table.attributes.names[0]
    assert unseen("classes", "add", run, "Night Heron", "--set", f"{first}=1", "--rank", f"family={family}")[0] == 0
    assert unseen("classes", "edit", run, table.names[0], "--rank", "family=Herons")[0] == 0
    assert f"family {family}" in unseen("classes", "show", run, "Night Heron")[1]
    assert json.loads(unseen("classes", "show", run, table.names[0], "--json")[1])["ranks"] == {"family": "Herons"}
    assert f"ranks: family ({len(table.taxonomy.names(0)) + 1})" in unseen("classes", "list", run)[1]
    found = Recognizer.load(run, device="cpu")
    assert np.array_equal(found.table.values[: len(table)], table.values)
    assert found.save(tmp_path / "saved")
    assert Recognizer.load(tmp_path / "saved").table.taxonomy == found.table.taxonomy
    status, _, err = unseen("classes", "edit", run, table.names[0], "--rank", "famly=Herons")
    assert status == 2
    assert 'no rank "famly" — did you mean "family"?' in err
    (tmp_path / "ranks.csv").write_text(f"class,genus\n{table.names[0]},Ardea\n")
    status, out, err = unseen("classes", "edit", run, "--attributes", tmp_path / "ranks.csv")
    assert status == 0
    assert "no threshold for genus: coarser answers follow that of classes until you train again" in out + err
    changed = Recognizer.load(run, device="cpu").table
    assert changed.taxa(0) == {"family": "Herons", "genus": "Ardea"}
    assert np.array_equal(changed.values[0], table.values[0])


def test_check_says_which_ranks_it_read(unseen, tiny_guide):
    status, said, _ = unseen("check", tiny_guide)
    assert status == 0
    assert "ranks: family (" in said


def test_show_answers_in_the_words_of_the_table(unseen, tmp_path):
    size = Column("size", "number", low=10.0, high=30.0, unit="mm", fill=(0.5, 0.5))
    columns = (Column("color", "categories", steps=("red", "blue"), fill=(0.5, 0.5)), size)
    columns += (Column("crest", "yes/no", fill=(0.2,)), Column("song", "ignored"))
    encoding = Encoding(columns)
    row = encoding.encode({"color": "blue", "size": "25 mm", "crest": "no"})
    table = ClassTable(("Avocet", "Bittern"), Attributes(encoding.names), np.stack([row, row]), np.array([True, False]))
    table.to_csv(tmp_path / TRAINED)
    write_attributes(tmp_path / ATTRIBUTES, table.attributes)
    write_json(tmp_path / ENCODING, encoding.to_json(), sealed=True)
    status, out, _ = unseen("classes", "show", tmp_path, "Avocet", "-o", tmp_path / "avocet.csv")
    assert status == 0
    assert re.findall(r"│ (color|size|crest|song) +│ (.*\S) +│", out) == [
        ("color", "blue"),
        ("size", "25 mm"),
        ("crest", "no"),
    ]
    written = pd.read_csv(tmp_path / "avocet.csv").set_index("attribute")["value"]
    assert written.to_dict() == dict(zip(encoding.names, row, strict=True))  # as exact values
    found = json.loads(unseen("classes", "show", tmp_path, "Avocet", "--json")[1])
    assert found["cells"] == {"color": "blue", "size": "25 mm", "crest": "no"}
    assert found["attributes"]["size::high"] == 0.75
