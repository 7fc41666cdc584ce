"""Small benchmarks in the official formats: what comes out, and what each kind of damage is called."""

from __future__ import annotations

import json
import pickle
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tiny_benchmarks import CLASSES, EACH, ORDER, Tiny, cells, image, text
from unseen.cli import main
from unseen.data.checks import check_folder
from unseen.data.dataset import validation_partition
from unseen.data.folder import load_folder
from unseen.releases import BENCHMARKS, benchmark_in, prepare
from unseen.releases.facts import FACTS, looks_like
from unseen.releases.needs import Download, Need, look

WITH_IMAGES = ["cub", "sun", "awa2", "apy", "flo"]


def run(tiny: Tiny, output=None, **options):
    return prepare(tiny.write(), tiny.root, output, **options)


def test_import_and_prepare_refer_to_each_other(unseen, tmp_path):
    tiny = Tiny("cub", tmp_path / "root", False)
    tiny.write()
    assert benchmark_in(tiny.root).name == "cub"
    assert benchmark_in(tmp_path) is None
    for source in (tiny.root, tiny.root / "CUB_200_2011"):
        status, _, err = unseen("import", source, tmp_path / "out", width=400)
        assert (status, f"unseen prepare cub --root {tiny.root}" in err) == (2, True)
    status, _, err = unseen("prepare", "coco.json", "--root", tmp_path, width=400)
    assert (status, "`unseen import` reads exports of other tools" in err) == (2, True)


@pytest.mark.parametrize("v73", [False, True], ids=["v5", "v7.3"])
@pytest.mark.parametrize("name", WITH_IMAGES)
def test_a_release_becomes_a_dataset_folder(tmp_path, name, v73):
    tiny = Tiny(name, tmp_path / "root", v73)
    outcome = run(tiny, tmp_path / "out")
    assert outcome.problems == []
    assert outcome.ready
    dataset = load_folder(tmp_path / "out")
    assert dataset.fingerprint == outcome.dataset.fingerprint
    assert [len(dataset.indices(s)) for s in ("trainval", "test_seen", "test_unseen")] == [24, 6, 10]
    # row i of the split is image i, by name
    assert [dataset.table.names[c] for c in dataset.labels] == [
        tiny.official[c if name == "flo" else ORDER[c]] for c in tiny.images["labels"].ravel().astype(int) - 1
    ]
    if name != "apy":
        assert [f.rsplit("/", 1)[-1] for f in dataset.files] == [p.rsplit("/", 1)[-1] for p in tiny.places]
        assert (tmp_path / "out" / "images").is_symlink()
    expected = tiny.split["att"].T if name == "flo" else tiny.values[ORDER]
    assert np.allclose(dataset.table.values, expected)
    assert (dataset.attribute_vectors is not None) == (name in ("cub", "sun", "awa2"))
    if name == "apy":  # it has no lists of validation classes
        assert dataset.table.validation is None
        assert "with seed" in validation_partition(dataset).source
    else:
        assert np.flatnonzero(dataset.table.validation).tolist() == [4, 5]
        assert validation_partition(dataset).source == "given validation classes"
        assert "train_loc lists 4 test-seen images; they are excluded from validation" in outcome.notes


def test_the_same_dataset_from_both_versions_of_matlab(tmp_path):
    prints = set()
    for v73 in (False, True):
        outcome = run(Tiny("cub", tmp_path / str(v73), v73), tmp_path / f"out{v73}")
        prints.add(outcome.dataset.fingerprint)
    assert len(prints) == 1


def test_birds_have_parts_boxes_and_official_attribute_names(tmp_path):
    run(Tiny("cub", tmp_path / "root"), tmp_path / "out")
    dataset = load_folder(tmp_path / "out")
    assert dataset.table.attributes.names[0] == "has_bill_shape::kind_(0)"
    parts = dataset.part_positions
    assert set(parts["part"]) == {"beak"}  # the only visible one
    assert len(parts) == CLASSES * EACH
    assert (parts["x"] == 3).all()
    assert (parts["y"] == 4.5).all()
    assert len(pd.read_csv(tmp_path / "out" / "boxes.csv")) == CLASSES * EACH


def test_objects_are_cut_out_of_photographs(tmp_path):
    tiny = Tiny("apy", tmp_path / "root")
    outcome = run(tiny, tmp_path / "out")
    dataset = load_folder(tmp_path / "out")
    with Image.open(dataset.paths()[0]) as cut:
        assert cut.size == (9, 14)  # corners 1, 2 and 9, 15, counted from 1
    assert len(set(dataset.files)) == CLASSES * EACH
    assert any("share image and class" in note for note in outcome.notes)


def test_other_semantics(tmp_path):
    outcome = run(Tiny("awa2", tmp_path / "root"), tmp_path / "out", semantics="binary")
    assert set(np.unique(outcome.dataset.table.values)) == {0.0, 1.0}
    tiny = Tiny("cub", tmp_path / "birds")
    with pytest.raises(Exception, match='CUB has no semantics "binary" — use one of attributes, sentences'):
        run(tiny, semantics="binary")


def test_sentences_are_joined_by_class_name(tmp_path):
    import scipy.io

    tiny = Tiny("cub", tmp_path / "root")
    tiny.write()
    shuffled = list(reversed(range(CLASSES)))
    names = tiny.split["allclasses_names"][shuffled]
    content = {**tiny.split, "allclasses_names": names, "att": np.arange(CLASSES * 4.0).reshape(CLASSES, 4).T}
    del content["original_att"]
    scipy.io.savemat(tmp_path / "root" / "sent_splits.mat", content)
    outcome = prepare(tiny.benchmark, tmp_path / "root", tmp_path / "out", semantics="sentences")
    assert outcome.problems == []
    table = outcome.dataset.table
    assert table.values[0].tolist() == [28, 29, 30, 31]
    assert table.names[0] == tiny.official[ORDER[0]]


def test_a_folder_is_replaced_only_if_it_was_prepared(tmp_path):
    tiny = Tiny("cub", tmp_path / "root")
    first = run(tiny, tmp_path / "out")
    (tmp_path / "out" / "features").mkdir()
    (tmp_path / "root" / "CUB_200_2011" / "parts" / "parts.txt").unlink()
    again = run_again(tiny, tmp_path / "out")
    assert again.dataset.fingerprint == first.dataset.fingerprint
    assert (tmp_path / "out" / "features").is_dir()
    assert not (tmp_path / "out" / "parts.csv").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").write_text("mine")
    refused = run_again(tiny, tmp_path / "other")
    assert refused.problems == [f"{tmp_path / 'other'}: the folder holds something else — choose another --output"]
    assert (tmp_path / "other" / "diary.txt").read_text() == "mine"


def run_again(tiny: Tiny, output):
    return prepare(tiny.benchmark, tiny.root, output)


def zero_based(tiny):
    for name in list(tiny.split):
        if name.endswith("_loc"):
            tiny.split[name] = tiny.split[name].astype(int) - 1


def twice(tiny):
    tiny.split["test_seen_loc"][0] = tiny.split["trainval_loc"][0]


def other_sizes(tiny):
    moved = tiny.split["test_seen_loc"][0]
    tiny.split["trainval_loc"] = np.vstack([tiny.split["trainval_loc"], moved[None]])
    tiny.split["test_seen_loc"] = tiny.split["test_seen_loc"][1:]


def leak(tiny):
    a, b = tiny.split["trainval_loc"], tiny.split["test_unseen_loc"]
    a[0], b[0] = b[0].copy(), a[0].copy()


def official_numbers(tiny):
    tiny.images["labels"] = np.array([ORDER[int(v) - 1] + 1 for v in tiny.images["labels"].ravel()], dtype=float)


def swapped_names(tiny):
    names = tiny.split["allclasses_names"]
    names[[0, 1]] = names[[1, 0]]


def renamed(tiny):
    tiny.split["allclasses_names"][0, 0] = "009.Newt"


def labels_from_zero(tiny):
    tiny.images["labels"] = tiny.images["labels"] - 1


def fewer_labels(tiny):
    tiny.images["labels"] = tiny.images["labels"][:-1]


def fewer_rows(tiny):
    for name, axis in (("labels", 0), ("image_files", 0), ("features", 1)):
        tiny.images[name] = np.delete(tiny.images[name], -1, axis=axis)


def one_image_twice(tiny):
    tiny.images["image_files"][1] = tiny.images["image_files"][0]


def more_attributes(tiny):
    tiny.split["att"] = tiny.split["original_att"] = np.ones((7, CLASSES))


def not_whole(tiny):
    tiny.split["trainval_loc"] = tiny.split["trainval_loc"] + 0.5


def no_part(tiny):
    del tiny.split["test_seen_loc"]


def mixed_attributes(tiny):
    tiny.split["original_att"] = tiny.split["original_att"][:, [1, 2, 3, 4, 5, 6, 7, 0]]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (zero_based, "the indices start at 0 instead of 1 — use att_splits.mat of the release"),
        (twice, "1 image in both trainval_loc and test_seen_loc"),
        (other_sizes, "25 images in trainval_loc, not 24 — this is not the Proposed Split"),
        (leak, "has images both in training"),
        (official_numbers, "the labels follow the official numbering, not allclasses_names"),
        (swapped_names, "10 labels differ from the class of the image"),
        (renamed, 'att_splits.mat: no class ".*", which .*classes.txt has'),
        (labels_from_zero, "labels start at 0"),
        (fewer_labels, "40 image_files for 39 labels"),
        (fewer_rows, "39 images, but att_splits.mat splits 40"),
        (one_image_twice, "appears 2 times"),
        (more_attributes, "7 attributes of 8 classes; CUB has 6 of 8"),
        (not_whole, "`trainval_loc` contains a value that is not an integer"),
        (no_part, "no `test_seen_loc`"),
        (mixed_attributes, "the attributes of 8 classes match another class better"),
    ],
)
def test_each_kind_of_damage_has_its_line(tmp_path, spoil, problem):
    tiny = Tiny("cub", tmp_path / "root")
    spoil(tiny)
    outcome = run(tiny, tmp_path / "out")
    assert not outcome.ready
    assert not (tmp_path / "out").exists()
    lines = [line for line in outcome.problems if re.search(problem, line)]
    assert lines, outcome.problems
    assert all(" — " in line and "\n" not in line for line in outcome.problems)


def remove_image(tiny):
    (tiny.root / "CUB_200_2011" / tiny.places[3]).unlink()


def copy_images(tiny):
    shutil.copytree(tiny.root / "CUB_200_2011" / "images", tiny.root / "CUB_200_2011" / "images" / "copy")


def gap(tiny):
    text(tiny.root / "attributes.txt", ["1 one", "3 three"])


def few_names(tiny):
    text(tiny.root / "attributes.txt", ["1 one", "2 two"])


def ragged(tiny):
    text(tiny.root / "CUB_200_2011/attributes/class_attribute_labels_continuous.txt", ["1 2 3", "1 2"])


def vectors_of_others(tiny):
    (tiny.root / "CUB_attribute.pkl").write_bytes(pickle.dumps(np.ones((3, 5))))


def unknown_part(tiny):
    text(tiny.root / "CUB_200_2011/parts/part_locs.txt", ["1 9 2.0 3.0 1"])


def damaged_split(tiny):
    path = tiny.root / "xlsa17/data/CUB/att_splits.mat"
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (remove_image, r"images: 1 of 40 images are missing, the first .* — unpack CUB_200_2011.tgz again"),
        (copy_images, "may be .* — keep one copy"),
        (gap, 'line 2 is "3 three" — it should be "2 NAME"'),
        (few_names, "2 attribute names for 6 columns of att_splits.mat"),
        (ragged, "line 2 has 2 numbers, not 3"),
        (vectors_of_others, "3 word vectors for 6 attributes"),
        (unknown_part, 'line 1 names part "9"'),
        (damaged_split, "not a valid MATLAB file"),
    ],
)
def test_damage_of_the_official_files(tmp_path, spoil, problem):
    tiny = Tiny("cub", tmp_path / "root")
    tiny.write()
    spoil(tiny)
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out")
    assert not outcome.ready
    assert any(re.search(problem, line) for line in outcome.problems), outcome.problems


def test_the_split_of_another_dataset_is_recognised(tmp_path):
    """Features of AWA2 with the split of AWA1 and the like, told by their counts."""
    assert looks_like(images=30475) == "AWA1"
    assert looks_like(images=37322, classes=50) == "AWA2"
    assert looks_like(classes=50) is None  # both
    tiny = Tiny("cub", tmp_path / "root")
    count = FACTS["FLO"].images
    tiny.split["test_unseen_loc"] = np.arange(31, count + 1)[:, None]
    outcome = run(tiny)
    assert any("8,189 images; CUB has 40 — it looks like FLO" in line for line in outcome.problems)


def test_extra_images_are_left_out_and_said(tmp_path):
    tiny = Tiny("awa2", tmp_path / "root")
    tiny.write()
    image(tmp_path / "root/Animals_with_Attributes2/JPEGImages/ant/extra.jpg")
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out")
    assert outcome.ready
    assert len(outcome.dataset.files) == 40
    assert any(note.startswith("1 image in") and note.endswith('"ant/extra.jpg"') for note in outcome.notes)


@pytest.mark.parametrize("key", ["awa2", "flo", "apy"])
def test_files_that_are_no_images_are_counted_and_named(key, tmp_path):
    tiny = Tiny(key, tmp_path / "root")
    tiny.write()
    folder = next(path for path in (tmp_path / "root").rglob("*.jpg")).parent
    for i in range(4):
        (folder / f"{i}.CR2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out")
    assert outcome.ready
    (note,) = (note for note in outcome.notes if "ignored, " in note)
    assert "4 files ignored, .cr2, a camera raw file: export it as JPEG or PNG: " in note
    assert note.count(".CR2") == 3


def test_flowers_without_a_list_follow_the_official_sets(tmp_path):
    tiny = Tiny("flo", tmp_path / "root")
    tiny.write()
    (tmp_path / "root/cvpr18xian/data/FLO/res101.mat").unlink()
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out")
    assert outcome.ready
    assert outcome.dataset.files[0] == f"image_{tiny.numbers[0]:05d}.jpg"
    # labels in the order of the image number do not fit the split
    import scipy.io

    scipy.io.savemat(tmp_path / "root/setid.mat", {"trnid": [range(1, 41)], "valid": [[]], "tstid": [[]]})
    again = prepare(tiny.benchmark, tiny.root, tmp_path / "out2")
    assert any("rows follow trnid, valid, tstid, not the image number" in line for line in again.problems)


def test_a_named_validation_list_stands_in_for_row_lists(tmp_path):
    tiny = Tiny("cub", tmp_path / "root")
    del tiny.split["train_loc"], tiny.split["val_loc"]
    tiny.write()
    held = tiny.official[ORDER[2]]
    text(tmp_path / "root/xlsa17/data/CUB/valclasses1.txt", [held])
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out")
    table = outcome.dataset.table
    assert [table.names[c] for c in np.flatnonzero(table.validation)] == [held]


def test_archives_are_checked_by_size_and_sum(tmp_path):
    sha = "sha256:" + "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"
    need = Need("x", "test", ("folder/",), Download("x.tgz", "url", "page", "tar -xzf x.tgz", 5, checksum=sha))
    assert look(need, tmp_path).state == "missing"
    assert look(need, tmp_path).next == (
        f"download x.tgz from page into {tmp_path}, then: cd {tmp_path} && tar -xzf x.tgz"
    )
    (tmp_path / "x.tgz").write_text("hell")
    assert look(need, tmp_path).state == "wrong size"
    (tmp_path / "x.tgz").write_text("jello")
    assert look(need, tmp_path).state == "packed"
    assert look(need, tmp_path, verify=True).state == "checksum differs"
    (tmp_path / "x.tgz").write_text("hello")
    assert look(need, tmp_path, verify=True).next == f"cd {tmp_path} && tar -xzf x.tgz"
    (tmp_path / "folder").mkdir()
    assert look(need, tmp_path, verify=True).state == "found"


def command(capsys, *arguments):
    import sys
    from unittest import mock

    with mock.patch.object(sys, "argv", ["unseen", *map(str, arguments)]):
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_the_command_says_what_to_get(tmp_path, capsys, name):
    status, said, _ = command(capsys, "prepare", name, "--root", tmp_path, "--json")
    assert status == 2
    found = json.loads(said)
    assert not found["ready"]
    assert {f["state"] for f in found["files"]} == {"missing"}
    for file in found["files"]:
        assert file["page"].startswith("http")
        assert bool(file["checksum"]) <= bool(file["source"])  # no sum without who says so
    status, said, _ = command(capsys, "prepare", name, "--root", tmp_path)
    assert "Missing files:" in said
    assert "att_splits.mat" in said


def test_the_command_writes_the_folder(tmp_path, capsys, monkeypatch):
    tiny = Tiny("awa2", tmp_path / "root")
    monkeypatch.setitem(BENCHMARKS, "awa2", tiny.write())
    status, said, _ = command(capsys, "prepare", "awa2", "--root", tmp_path / "root", "-o", tmp_path / "out")
    assert status == 0
    assert load_folder(tmp_path / "out").fingerprint in said
    shutil.rmtree(tmp_path / "out")
    status, said, _ = command(capsys, "prepare", "awa2", "--root", tmp_path / "root", "--check")
    assert status == 0
    assert "all checks passed" in said
    (tmp_path / "root/xlsa17/data/AWA2/res101.mat").unlink()
    status, said, _ = command(capsys, "prepare", "awa2", "--root", tmp_path / "root", "-o", tmp_path / "out")
    assert status == 2
    assert "not ready: 1 required file missing" in said


def test_names_with_folders_of_another_machine_are_found(tmp_path):
    tiny = Tiny("sun", tmp_path / "root")
    tiny.images["image_files"] = cells(["C:\\data\\SUN\\" + p.replace("/", "\\") for p in tiny.places])
    assert run(tiny, tmp_path / "out").ready


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_any_file_may_be_missing(tmp_path, name):
    """Whatever is not there, the rest is looked at, and the outcome names it."""
    tiny = Tiny(name, tmp_path / "root")
    benchmark = tiny.write()
    whole = prepare(benchmark, tiny.root)
    assert whole.lacking == []
    for state in whole.states:
        if state.path is None:
            continue
        away = tmp_path / "away"
        state.path.rename(away)
        for semantics in benchmark.semantics:
            outcome = prepare(benchmark, tiny.root, tmp_path / "out", semantics=semantics)
            assert [s.need.name for s in outcome.lacking] == [state.need.name] * state.need.required
            assert outcome.ready == (not outcome.lacking and not outcome.problems)
        away.rename(state.path)


def test_the_split_alone_is_enough_without_images(tmp_path):
    tiny = Tiny("cub", tmp_path / "root")
    tiny.write()
    shutil.rmtree(tmp_path / "root/CUB_200_2011")
    (tmp_path / "root/attributes.txt").unlink()
    outcome = prepare(tiny.benchmark, tiny.root, tmp_path / "out", features_only=True)
    assert check_folder(tmp_path / "out").ready
    assert outcome.ready
    assert outcome.dataset.table.attributes.names[0] == "0001"
    assert "attributes are numbered, because the file of their names is missing" in outcome.notes
