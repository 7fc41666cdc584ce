"""The real split files of five datasets: counts, names, parts, fingerprints and their known traps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from places import DATA
from tiny_benchmarks import cells, save, text
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset, final_partition, validation_partition
from unseen.errors import DataError
from unseen.formats.pickles import read_array
from unseen.formats.xlsa17 import SPLITS, numbered, read_split
from unseen.releases import BENCHMARKS, prepare
from unseen.releases.facts import FACTS, looks_like
from unseen.releases.needs import digest
from unseen.releases.tables import check_matrix, check_names, read_numbered, read_numbers

REAL = DATA / "proposed_split"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no real split files at {REAL} (UNSEEN_DATA)"),
]
KEYS = ["CUB", "SUN", "AWA2", "APY", "FLO"]
LABELLED = ["CUB", "SUN", "AWA2", "FLO"]


def labels_of(key):
    """int64 (M,) positions in allclasses_names; those of the flowers are in another file."""
    if key == "FLO":
        frame = pd.read_csv(DATA / "flo64" / "images.csv").sort_values("ps_row")
        return frame["class"].to_numpy(dtype=int) - 1
    return np.load(REAL / key / "labels_0based.npy")


def dataset_of(key, **changes):
    split, labels = read_split(REAL / key / "att_splits.mat"), labels_of(key)
    parts = split.parts()
    seen = ~np.isin(np.arange(len(split.names)), labels[parts == "test_unseen"])
    validation, _ = split.validation_classes(labels)
    table = ClassTable(split.names, numbered(split.values.shape[1]), split.values, seen, validation)
    files = tuple(f"{i:05d}.jpg" for i in range(len(labels)))
    return Dataset(key, REAL, table, files, labels, parts, **changes)


@pytest.mark.parametrize("key", KEYS)
def test_counts_are_those_of_the_paper(key):
    split, facts = read_split(REAL / key / "att_splits.mat"), FACTS[key]
    assert split.values.shape == split.unit.shape == (facts.classes, facts.attributes)
    assert [len(split.rows[s]) for s in SPLITS] == [facts.trainval, facts.test_seen, facts.test_unseen]
    assert split.count == facts.images
    assert looks_like(images=split.count) == key
    parts = split.parts()  # every row in one part
    assert [np.sum(parts == s) for s in SPLITS] == [facts.trainval, facts.test_seen, facts.test_unseen]
    assert np.allclose(np.linalg.norm(split.unit, axis=1), 1)
    norms = np.linalg.norm(split.values, axis=1, keepdims=True)
    assert np.allclose(split.unit, split.values / norms)  # the same, in rows of unit length
    assert split.named == (key != "FLO")


@pytest.mark.parametrize("key", LABELLED)
def test_unseen_classes_have_no_training_image(key):
    dataset, facts = dataset_of(key), FACTS[key]
    assert dataset.describe()["classes_seen"] == facts.seen
    assert dataset.describe()["classes_unseen"] == facts.unseen


@pytest.mark.parametrize(
    ("key", "name", "held", "leaks"),
    [
        ("SUN", "att_splits.mat", 65, (2320, 260)),
        ("AWA2", "att_splits.mat", 13, (4031, 1851)),
        ("FLO", "att_splits.mat", 20, (1173, 230)),
        ("CUB", "sent_splits.mat", 50, (1173, 591)),
    ],
)
def test_validation_lists_hold_test_images_that_are_left_out(key, name, held, leaks):
    split, labels = read_split(REAL / key / name), labels_of(key)
    for list_name, count in zip(("train", "val"), leaks, strict=True):
        assert len(np.intersect1d(split.rows[list_name], split.rows["test_seen"])) == count
    classes, notes = split.validation_classes(labels)
    assert classes.sum() == held
    assert [f"lists {count:,} test-seen" in note for count, note in zip(leaks, notes, strict=True)] == [True, True]


def test_birds_and_attributed_pascal_have_no_validation_lists():
    for key in ("CUB", "APY"):
        assert read_split(REAL / key / "att_splits.mat").validation_classes(np.zeros(1, int)) == (None, [])


@pytest.mark.parametrize("key", LABELLED)
def test_validation_never_sees_a_test_image(key):
    dataset = dataset_of(key)
    stage = validation_partition(dataset, seed=0)
    used = np.concatenate([stage.train, stage.test_seen, stage.test_unseen])
    assert set(dataset.split[used]) == {"trainval"}
    assert len(np.unique(used)) == len(used)
    offered = dataset.table.validation is not None
    assert stage.source == ("given validation classes" if offered else "38 validation classes, draw 1 with seed 0")
    assert not set(dataset.labels[stage.test_unseen]) & set(dataset.labels[stage.train])


def test_fingerprints_name_the_split():
    """Fixed by the real files: another split, or another order, is another fingerprint."""
    birds = dataset_of("CUB")
    assert final_partition(birds).fingerprint(birds) == final_partition(dataset_of("CUB")).fingerprint(birds)
    swapped = birds.split.copy()
    a, b = np.flatnonzero(swapped == "trainval")[0], np.flatnonzero(swapped == "test_seen")[0]
    swapped[[a, b]] = swapped[[b, a]]
    other = Dataset("CUB", REAL, birds.table, birds.files, birds.labels, swapped)
    assert other.fingerprint != birds.fingerprint
    assert final_partition(other).fingerprint(other) != final_partition(birds).fingerprint(birds)
    prints = {key: dataset_of(key).fingerprint for key in LABELLED}
    assert len(set(prints.values())) == len(LABELLED)


def test_birds_are_not_in_the_official_order():
    split = read_split(REAL / "CUB" / "att_splits.mat")
    numbers = [int(name[:3]) for name in split.names]
    assert sorted(numbers) == list(range(1, 201))
    assert numbers != list(range(1, 201))
    # joined by name, the attributes are those of the images' own table
    frame = pd.read_csv(DATA / "cub50" / "classes.csv").set_index("class")
    own = frame.drop(columns=["seen"]).to_numpy()
    position = {name: i for i, name in enumerate(split.names)}
    joined = split.values[[position[name] for name in frame.index]]
    assert np.abs(joined - own).max() < 0.01
    assert np.abs(split.values[:50] - own).max() > 10  # by number they are not
    assert list(frame.columns[1:]) == list(read_numbered(REAL / "CUB" / "attributes.txt"))


def test_rows_are_the_images_of_the_birds():
    """Labels by row are the class of the image that stands in that row."""
    names, labels = read_split(REAL / "CUB" / "att_splits.mat").names, labels_of("CUB")
    parts = read_split(REAL / "CUB" / "att_splits.mat").parts()
    frame = pd.read_csv(DATA / "cub50" / "images.csv")
    assert [names[labels[row]] for row in frame["ps_row"]] == list(frame["class"])
    assert list(parts[frame["ps_row"]]) == list(frame["split"])


def test_animals_agree_with_their_official_tables():
    split = read_split(REAL / "AWA2" / "att_splits.mat")
    names = read_numbered(REAL / "AWA2" / "classes.txt")
    assert "grizzly+bear" in names
    assert "grizzly+bear" in split.names
    check_names(names, split.names, REAL, split.path)
    path = REAL / "AWA2" / "predicate-matrix-continuous.txt"
    held = check_matrix(read_numbers(path), names, split.values, split.names, path, split.path)
    assert "largest difference 0)" in held or "e-" in held
    binary = read_numbers(REAL / "AWA2" / "predicate-matrix-binary.txt")
    assert set(np.unique(binary)) == {0.0, 1.0}
    assert len(read_numbered(REAL / "AWA2" / "predicates.txt")) == 85
    rolled = np.roll(read_numbers(path), 1, axis=0)
    with pytest.raises(DataError, match="the attributes of 50 classes match another class better"):
        check_matrix(rolled, names, split.values, split.names, path, split.path)


@pytest.mark.parametrize(("key", "zero"), [("CUB", []), ("SUN", [88]), ("AWA2", [])])
def test_word_vectors_and_the_one_that_is_zero(key, zero):
    vectors = read_array(REAL / key / f"{key}_attribute.pkl")
    assert vectors.shape == (FACTS[key].attributes, 300)
    assert np.flatnonzero(~vectors.any(axis=1)).tolist() == zero


def test_sentences_are_of_the_same_classes_and_split():
    plain, sentences = (read_split(REAL / "CUB" / f"{name}.mat") for name in ("att_splits", "sent_splits"))
    assert plain.names == sentences.names
    assert sentences.values.shape == (200, 1024)
    assert all((np.sort(plain.rows[s]) == np.sort(sentences.rows[s])).all() for s in SPLITS)


def test_attributed_pascal_is_no_yes_or_no():
    values = read_split(REAL / "APY" / "att_splits.mat").values
    assert values.min() >= 0
    assert values.max() <= 1
    assert len(np.unique(values)) > 2


@pytest.mark.parametrize("key", KEYS)
def test_the_real_files_are_known_and_checked_without_images(key):
    """`unseen prepare` on what is there: the split holds, and what is missing is named."""
    outcome = prepare(BENCHMARKS[key.lower()], REAL, verify=True)
    assert outcome.problems == []
    found = {state.need.name: state for state in outcome.states if state.path is not None}
    assert found["split"].note == "an edition that this version was tested with"
    assert any("each in one part" in line for line in outcome.held)
    assert not outcome.ready
    assert {state.need.name for state in outcome.lacking} & {"images", "pascal"}
    for state in found.values():
        if state.need.editions:
            assert (state.path.stat().st_size, digest(state.path)) in state.need.editions


def test_the_split_of_another_dataset_is_called_so():
    (state,) = [s for s in prepare(BENCHMARKS["sun"], REAL).states if s.need.name == "split"]
    assert state.path == REAL / "SUN" / "att_splits.mat"  # each its own, in one root
    from unseen.releases.benchmark import Found, examine

    wrong = examine(BENCHMARKS["sun"], Found("SUN", {"split": REAL / "AWA2" / "att_splits.mat"}), "attributes")
    (problem,) = map(str, wrong.findings.problems)
    assert "85 attributes of 50 classes; SUN has 102 of 717 — it looks like AWA2; use xlsa17/data/SUN/" in problem
    wrong = examine(BENCHMARKS["awa1"], Found("AWA1", {"split": REAL / "AWA2" / "att_splits.mat"}), "attributes")
    (problem,) = map(str, wrong.findings.problems)
    assert "a split of 37,322 images; AWA1 has 30,475 — it looks like AWA2" in problem


def release(key, root):
    """A full-size release around the real split: real labels, attributes and vectors, images that are only names."""
    split, labels = read_split(REAL / key / "att_splits.mat"), labels_of(key)
    folder = root / ("cvpr18xian" if key == "FLO" else "xlsa17") / "data" / key
    folder.mkdir(parents=True)
    (folder / "att_splits.mat").symlink_to(REAL / key / "att_splits.mat")
    if key == "FLO":
        frame = pd.read_csv(DATA / "flo64" / "images.csv").sort_values("ps_row")
        numbers = frame["file"].str.extract(r"(\d+)")[0].to_numpy(dtype=int)
        own = np.zeros(len(numbers), dtype=np.uint8)
        own[numbers - 1] = labels + 1
        sets = zip(("trnid", "valid", "tstid"), np.split(numbers, [1020, 2040]), strict=True)
        save(root / "setid.mat", {name: part[None] for name, part in sets})
        save(root / "imagelabels.mat", {"labels": own[None]})
        (root / "jpg").symlink_to(DATA / "flo64" / "images")
        return
    prefix = {
        "CUB": "CUB_200_2011/images/{0}/{0}_{1:05d}.jpg",
        "SUN": "images/{2}/{0}/sun_{1:05d}.jpg",
        "AWA2": "Animals_with_Attributes2/JPEGImages/{0}/{0}_{1:05d}.jpg",
    }[key]
    places = [prefix.format(split.names[c], i, split.names[c][0]) for i, c in enumerate(labels)]
    for parent in {(root / place).parent for place in places}:
        parent.mkdir(parents=True)
    for place in places:
        (root / place).touch()
    save(folder / "res101.mat", {"labels": labels[:, None] + 1.0, "image_files": cells([f"/BS/{p}" for p in places])})
    (root / f"{key}_attribute.pkl").symlink_to(REAL / key / f"{key}_attribute.pkl")
    if key == "CUB":
        base = root / "CUB_200_2011"
        order = np.argsort(split.names)
        text(base / "classes.txt", [f"{i + 1} {split.names[c]}" for i, c in enumerate(order)])
        text(base / "images.txt", [f"{i + 1} {p.split('/', 2)[2]}" for i, p in enumerate(sorted(places))])
        table = base / "attributes" / "class_attribute_labels_continuous.txt"
        text(table, [" ".join(map(str, split.values[c])) for c in order])
        (root / "attributes.txt").symlink_to(REAL / "CUB" / "attributes.txt")
        (folder / "sent_splits.mat").symlink_to(REAL / "CUB" / "sent_splits.mat")
    elif key == "SUN":
        save(root / "SUNAttributeDB" / "attributes.mat", {"attributes": cells([f"sign {k}" for k in range(102)])})
    else:
        for file in REAL.joinpath("AWA2").glob("*.txt"):
            (root / "Animals_with_Attributes2" / file.name).symlink_to(file)


@pytest.mark.parametrize(
    ("key", "validation"), [("CUB", 50), ("SUN", 65), pytest.param("AWA2", 13, marks=pytest.mark.slow), ("FLO", 20)]
)
def test_a_release_of_full_size_becomes_a_dataset(tmp_path, key, validation):
    release(key, tmp_path / "root")
    outcome = prepare(BENCHMARKS[key.lower()], tmp_path / "root", tmp_path / "out")
    assert outcome.problems == []
    facts, counts = FACTS[key], outcome.dataset.describe()
    assert [counts[s] for s in SPLITS] == [facts.trainval, facts.test_seen, facts.test_unseen]
    assert (counts["classes_seen"], counts["classes_unseen"]) == (facts.seen, facts.unseen)
    assert int(outcome.dataset.table.validation.sum()) == validation
    assert np.array_equal(outcome.dataset.labels, labels_of(key))
    assert np.allclose(outcome.dataset.table.values, read_split(REAL / key / "att_splits.mat").values)
    if key == "SUN":
        assert 'the word vector of "sign 88" (row 89) is all zero' in outcome.notes
    if key == "FLO":
        assert set(outcome.dataset.files) == {p.name for p in (DATA / "flo64" / "images").iterdir()}
