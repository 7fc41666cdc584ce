"""The data model: what it refuses, what its fingerprints depend on, and that validation never peeks at the test."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset, digest, final_partition, validation_partition
from unseen.data.folder import load_folder
from unseen.errors import DataError
from unseen.vectors.sources import attribute_vectors, word_vectors


def make_dataset(trainval=(5, 4, 3, 6), test_seen=1, unseen=(2, 2), validation=None, **changes):
    """``trainval`` images of each seen class, then the unseen classes; images are mixed up."""
    seen = np.array([True] * len(trainval) + [False] * len(unseen))
    labels, split = [], []
    for c, count in enumerate((*trainval, *unseen)):
        if seen[c]:
            labels += [c] * (count + test_seen)
            split += ["trainval"] * count + ["test_seen"] * test_seen
        else:
            labels += [c] * count
            split += ["test_unseen"] * count
    order = np.random.default_rng(3).permutation(len(labels))
    values = np.random.default_rng(4).uniform(1, 2, (len(seen), 3))
    names = tuple(f"class {c}" for c in range(len(seen)))
    if validation is not None:
        validation = np.isin(np.arange(len(seen)), validation)
    made = {
        "name": "made",
        "images": Path("images"),
        "table": ClassTable(names, Attributes(("a", "b", "c")), values, seen, validation),
        "files": tuple(f"{i}.jpg" for i in range(len(labels))),
        "labels": np.array(labels)[order],
        "split": np.array(split, dtype=object)[order],
    }
    return Dataset(**(made | changes))


def test_indices_and_counts():
    data = make_dataset()
    assert data.describe() | {"fingerprint": ""} == {
        "name": "made",
        "classes_seen": 4,
        "classes_unseen": 2,
        "attributes": 3,
        "trainval": 18,
        "test_seen": 4,
        "test_unseen": 4,
        "fingerprint": "",
    }
    for split in ("trainval", "test_seen", "test_unseen"):
        assert set(data.split[data.indices(split)]) == {split}


def first(data, split):
    return int(data.indices(split)[0])


def moved(data, i, split):
    changed = data.split.copy()
    changed[i] = split
    return replace(data, split=changed)


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda d: replace(d, files=d.files[1:]), "25 files, 26 labels, 26 splits"),
        (lambda d: replace(d, split=d.split[1:]), "26 files, 26 labels, 25 splits"),
        (lambda d: replace(d, labels=d.labels - 1), r"images\.csv, row \d+ \(\d+\.jpg\): label -1 for 6 classes"),
        (lambda d: replace(d, labels=d.labels + 1), r"images\.csv, row \d+ \(\d+\.jpg\): label 6 for 6 classes"),
        (lambda d: moved(d, 3, "train"), 'unknown split "train" — use one of trainval, test_seen, test_unseen'),
        (lambda d: make_dataset(trainval=(4, 0, 3, 6)), 'row 3: the seen class "class 1" has no image in trainval'),
        (lambda d: make_dataset(trainval=(4, 3)), "2 seen classes — training needs at least 3"),
        (lambda d: replace(d, attribute_vectors=np.ones((4, 2))), r"attribute vectors have shape \(4, 2\)"),
        (lambda d: replace(d, attribute_vectors=np.ones(3)), r"attribute vectors have shape \(3,\)"),
        (lambda d: replace(d, attribute_vectors=np.diag([1, np.nan, 1])), 'the vector of "b" is not finite'),
    ],
)
def test_inconsistent_datasets_are_refused(break_it, text):
    data = make_dataset()
    with pytest.raises(DataError, match=text):
        break_it(data)


@pytest.mark.parametrize(
    ("of", "to", "kind"),
    [
        ("trainval", "test_unseen", "seen"),
        ("test_seen", "test_unseen", "seen"),
        ("test_unseen", "trainval", "unseen"),
        ("test_unseen", "test_seen", "unseen"),
    ],
)
def test_images_in_the_wrong_split_are_refused(of, to, kind):
    data = make_dataset()
    i = first(data, of)
    name = data.table.names[data.labels[i]]
    text = rf'images\.csv, row {i + 2} \({i}\.jpg\): an image of the {kind} class "{name}" has split {to} — set its '
    with pytest.raises(DataError, match=text):
        moved(data, i, to)


# fingerprints


def relevant_changes(data):
    table = data.table
    swapped = data.labels.copy()
    i, j = first(data, "trainval"), int(np.flatnonzero((data.split == "trainval") & (data.labels != data.labels[0]))[0])
    j = next(n for n in data.indices("trainval") if data.labels[n] != data.labels[i])
    swapped[[i, j]] = swapped[[j, i]]
    values = table.values.copy()
    values[0, 0] = np.nextafter(values[0, 0], 9)
    attributes = Attributes(("a", "b", "d"))
    more = (table.seen, table.validation)
    yield replace(data, files=("other.jpg", *data.files[1:]))
    yield replace(data, labels=swapped)
    yield moved(data, first(data, "test_seen"), "trainval")
    yield replace(data, table=table.renamed("class 5", "class five"))
    yield replace(data, table=ClassTable(table.names, table.attributes, values, *more))
    yield replace(data, table=ClassTable(table.names, attributes, table.values, *more))
    yield replace(data, table=table.with_class("new", [1, 1, 1]))
    yield replace(data, table=replace(table, validation=np.arange(6) == 2))
    yield replace(data, table=replace(table, names=("class 0\nclass", *table.names[1:])))


def test_the_fingerprint_changes_with_everything_relevant():
    data = make_dataset()
    found = [data.fingerprint, *(changed.fingerprint for changed in relevant_changes(data))]
    assert len(set(found)) == len(found) == 10


def test_the_fingerprint_changes_with_nothing_else():
    data = make_dataset()
    table = data.table
    other = replace(
        data,
        name="other",
        images=Path("elsewhere"),
        labels=data.labels.astype(np.int32),
        split=data.split.astype(str),
        table=ClassTable(
            table.names, Attributes(("a", "b", "c"), parts=("x", "y", "z")), np.asfortranarray(table.values), table.seen
        ),
        attribute_vectors=np.ones((3, 2)),
        warnings=("careful",),
    )
    assert other.fingerprint == data.fingerprint
    assert other.fingerprint == make_dataset().fingerprint
    assert validation_partition(other).fingerprint(other) == validation_partition(data).fingerprint(data)


def test_names_that_run_together_have_their_own_fingerprints():
    data = make_dataset()
    a = replace(data.table, names=("x\ny", "z", *data.table.names[2:]))
    b = replace(data.table, names=("x", "y\nz", *data.table.names[2:]))
    assert replace(data, table=a).fingerprint != replace(data, table=b).fingerprint
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")


def test_the_partition_fingerprint_follows_its_images():
    data = make_dataset()
    part = validation_partition(data)
    found = {
        part.fingerprint(data),
        replace(part, train=part.train[1:]).fingerprint(data),
        replace(part, test_seen=part.train, train=part.test_seen).fingerprint(data),
        replace(part, seen=~part.seen).fingerprint(data),
        replace(part, classes=part.classes[::-1]).fingerprint(data),
        final_partition(data).fingerprint(data),
        part.fingerprint(replace(data, files=tuple(f"x{f}" for f in data.files))),
    }
    assert len(found) == 7
    assert replace(part, source="said otherwise").fingerprint(data) == part.fingerprint(data)


# partitions


def test_the_final_partition_is_the_proposed_split():
    data = make_dataset()
    part = final_partition(data)
    np.testing.assert_array_equal(part.classes, range(6))
    np.testing.assert_array_equal(part.seen, data.table.seen)
    for role, split in ((part.train, "trainval"), (part.test_seen, "test_seen"), (part.test_unseen, "test_unseen")):
        np.testing.assert_array_equal(role, np.flatnonzero(data.split == split))


@pytest.mark.parametrize(
    ("seen", "unseen", "held"),
    [(4, 2, 1), (6, 2, 2), (9, 9, 3), (3, 1, 1), (5, 0, 1), (12, 1, 1), (150, 50, 38), (40, 10, 8), (82, 20, 16)],
)
def test_validation_classes_are_to_training_classes_as_unseen_to_seen_but_a_third_at_most(seen, unseen, held):
    data = make_dataset(trainval=[2] * seen, unseen=[1] * unseen)
    assert (~validation_partition(data).seen).sum() == held


def test_given_validation_classes_are_taken():
    data = make_dataset(validation=[1, 3])
    for seed in range(5):
        part = validation_partition(data, seed)
        np.testing.assert_array_equal(part.classes[~part.seen], [1, 3])
        assert part.source == "given validation classes"
    assert len(validation_partition(make_dataset(validation=[])).classes[~part.seen]) > 0
    with pytest.raises(DataError, match="fewer than 2 seen classes remain"):
        validation_partition(make_dataset(validation=[0, 1, 3]))


def test_the_seed_decides_classes_and_images():
    data = make_dataset(trainval=[6] * 9)
    again = [validation_partition(data, seed) for seed in (*range(10), *range(10))]
    found = [part.fingerprint(data) for part in again]
    assert found[:10] == found[10:]
    assert len(set(found)) == 10
    assert len({tuple(part.classes[~part.seen]) for part in again}) > 5
    given = make_dataset(trainval=[6] * 9, validation=[0])
    assert len({validation_partition(given, seed).fingerprint(given) for seed in range(10)}) == 10


def held(data, part):
    return {data.table.names[c] for c in part.classes[~part.seen]}


@pytest.mark.parametrize(("seen", "count"), [(9, 3), (12, 4), (10, 3)])
def test_draws_go_through_all_classes_before_one_comes_again(seen, count):
    data = make_dataset(trainval=[6] * seen, unseen=[1] * seen)
    draws = [held(data, validation_partition(data, 3, draw=d)) for d in range(2 * seen // count)]
    assert all(len(one) == count for one in draws)
    times = Counter(name for one in draws for name in one)
    assert max(times.values()) - min(times.values()) <= 1
    assert len(set(map(frozenset, draws))) == len(draws)
    assert draws == [held(data, validation_partition(data, 3, draw=d)) for d in range(len(draws))]
    assert draws != [held(data, validation_partition(data, 4, draw=d)) for d in range(len(draws))]


def test_draws_along_axes_hold_out_both_ends_of_each_axis():
    data = make_dataset(trainval=[6] * 6, unseen=[1] * 3)
    values = np.zeros((9, data.table.values.shape[1]))
    values[:6, 0] = 10 * np.arange(1, 7)  # units do not matter, and neither do unseen classes
    values[:6, 1] = [0, 0, 1, 0, 0, 1]
    values[6:] = 1e6
    data = replace(data, table=replace(data.table, values=values))
    draws = [validation_partition(data, 5, draw=d, folds="axes") for d in range(4)]
    ends = [set(part.classes[~part.seen]) for part in draws]
    standard = (values[:6, :2] - values[:6, :2].mean(0)) / values[:6, :2].std(0)
    for axis, (low, high) in zip((standard.sum(1), standard[:, 0] - standard[:, 1]), (ends[:2], ends[2:]), strict=True):
        order = np.argsort(axis, kind="stable")
        assert {frozenset(low), frozenset(high)} == {frozenset(order[:2]), frozenset(order[-2:])}
    assert draws[1].source == "2 validation classes, draw 2 along the axes of the class table"
    assert all(len(np.intersect1d(part.train, part.test_seen)) == 0 for part in draws)
    with pytest.raises(DataError, match=r"axes for 4 draws of validation classes, not 5.*--draws 4 or --folds random"):
        validation_partition(data, 5, draw=4, folds="axes")


def test_only_the_first_draw_takes_the_given_classes():
    data = make_dataset(trainval=[6] * 9, validation=[0, 1])
    first, second = (validation_partition(data, 0, draw=d) for d in (0, 1))
    assert first.source == "given validation classes"
    assert "draw 2 with seed 0" in second.source
    np.testing.assert_array_equal(first.classes[~first.seen], [0, 1])


def test_the_held_out_share():
    data = make_dataset(trainval=[1, 2, 10, 12, 3], validation=[0])
    part = validation_partition(data)
    counts = np.bincount(data.labels[part.test_seen], minlength=7)
    np.testing.assert_array_equal(counts, [0, 1, 2, 2, 1, 0, 0])
    part = validation_partition(data, held_out=0.99)
    np.testing.assert_array_equal(np.bincount(data.labels[part.train], minlength=7), [0, 1, 1, 1, 1, 0, 0])


@st.composite
def datasets(draw):
    trainval = draw(st.lists(st.integers(1, 7), min_size=3, max_size=8))
    unseen = draw(st.lists(st.integers(0, 3), max_size=4))
    most = len(trainval) - 2
    validation = draw(st.none() | st.lists(st.integers(0, len(trainval) - 1), max_size=most, unique=True))
    return make_dataset(trainval, draw(st.integers(0, 2)), unseen, validation)


@settings(max_examples=150, deadline=None)
@given(data=datasets(), seed=st.integers(0, 2**32), held_out=st.floats(0, 1))
def test_validation_never_peeks(data, seed, held_out):
    part = validation_partition(data, seed, held_out)
    roles = np.concatenate([part.train, part.test_seen, part.test_unseen])
    # every trainval image in one role, and no other image in any
    np.testing.assert_array_equal(np.sort(roles), data.indices("trainval"))
    # no unseen class anywhere
    np.testing.assert_array_equal(part.classes, np.flatnonzero(data.table.seen))
    held = part.classes[~part.seen]
    trained = part.classes[part.seen]
    assert len(held) >= 1
    assert len(trained) >= 2
    assert set(data.labels[part.test_unseen]) == set(held)
    assert set(data.labels[part.train]) == set(trained)  # at least one training image each
    assert set(data.labels[part.test_seen]) <= set(trained)
    for c in trained:
        if (data.labels[data.indices("trainval")] == c).sum() > 1:
            assert c in data.labels[part.test_seen]
    if data.table.validation is not None and data.table.validation.any():
        np.testing.assert_array_equal(held, np.flatnonzero(data.table.validation))
    for role in (part.train, part.test_seen, part.test_unseen):
        np.testing.assert_array_equal(role, np.unique(role))
    assert validation_partition(data, seed, held_out).fingerprint(data) == part.fingerprint(data)


@settings(max_examples=30, deadline=None)
@given(data=datasets(), seed=st.integers(0, 100), where=st.randoms(use_true_random=False))
def test_validation_does_not_depend_on_the_test(data, seed, where):
    """Whatever stands in the test splits, the validation images are the same."""
    part = validation_partition(data, seed)
    train = data.indices("trainval")
    bare = replace(data, files=tuple(data.files[i] for i in train), labels=data.labels[train], split=data.split[train])
    assert validation_partition(bare, seed).fingerprint(bare) == part.fingerprint(data)


def test_cub50_validation(real_data):
    data = load_folder(real_data / "cub50")
    part = validation_partition(data)
    assert (len(part.classes), int((~part.seen).sum())) == (40, 8)
    assert len(part.train) + len(part.test_seen) + len(part.test_unseen) == 1837
    share = len(part.test_seen) / (len(part.train) + len(part.test_seen))
    assert share == pytest.approx(0.2, abs=0.01)


# attribute vectors


def test_word_vectors_sum_the_words():
    both, red, bill = word_vectors(("Bill::red", "red", "bill"), 50)
    np.testing.assert_allclose(both, red + bill, rtol=1e-12)
    np.testing.assert_array_equal(word_vectors(("red",), 50)[0], red)
    many = word_vectors(tuple(f"word{i}" for i in range(200)), 50)
    assert abs(many.mean()) < 0.05
    assert many.std() == pytest.approx(1, abs=0.05)
    assert word_vectors(("::", "red_"), 4)[0].any()


def test_which_vectors_a_method_starts_from():
    plain, given = make_dataset(), make_dataset(attribute_vectors=np.eye(3, 2))
    assert attribute_vectors(given.table.attributes, given.attribute_vectors)[1] == "given vectors (2-d)"
    np.testing.assert_array_equal(attribute_vectors(given.table.attributes, given.attribute_vectors)[0], np.eye(3, 2))
    vectors, label = attribute_vectors(plain.table.attributes, plain.attribute_vectors, dim=7)
    assert label == "hashed words (7-d)"
    np.testing.assert_array_equal(vectors, word_vectors(("a", "b", "c"), 7))
    random, label = attribute_vectors(given.table.attributes, given.attribute_vectors, "random", dim=7, seed=1)
    assert (random.shape, label) == ((3, 7), "random, learned (7-d)")
    again, _ = attribute_vectors(given.table.attributes, given.attribute_vectors, "random", dim=7, seed=2)
    assert (random != again).all()
    with pytest.raises(Exception, match="no attribute vectors"):
        attribute_vectors(plain.table.attributes, plain.attribute_vectors, "given")
    with pytest.raises(Exception, match='unknown attribute vectors "glove" — use one of auto, given, words, random'):
        attribute_vectors(plain.table.attributes, plain.attribute_vectors, "glove")
