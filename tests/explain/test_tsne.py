"""t-SNE: who is drawn, how separation is counted, and that it repeats."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from unseen.errors import DataError, UnseenError
from unseen.explain.tsne import colors, draw, embed, separation, tsne_maps, tsne_sheet


def fake(seen, per_class, spread=0.1, predicted=None):
    """Images of classes that lie on the axes of a space."""
    labels = np.repeat(np.arange(len(seen)), per_class)
    table = SimpleNamespace(seen=np.array(seen), names=tuple(f"{c:03d}.Class_{c}" for c in range(len(seen))))
    values = np.eye(len(seen))[labels] + spread * np.random.default_rng(0).normal(size=(len(labels), len(seen)))
    files = tuple(f"{i}.jpg" for i in range(len(labels)))
    return SimpleNamespace(
        dataset=SimpleNamespace(name="fake", table=table, files=files),
        images=np.arange(len(labels)),
        labels=labels,
        unseen=~table.seen[labels],
        predicted=labels,
        attribute_scores=values,
        pooled=lambda positions: -values[positions],
        origin="by hand",
    )


def test_draw_takes_half_unseen_and_repeats():
    answers = fake([True] * 30 + [False] * 20, 3)
    classes, positions = draw(answers, 20, 1000, seed=1)
    assert (~answers.dataset.table.seen[classes]).tolist() == [True] * 10 + [False] * 10
    assert sorted(positions) == positions.tolist()
    assert set(answers.labels[positions]) == set(classes)
    assert len(positions) == 60
    again = draw(answers, 20, 1000, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip((classes, positions), again, strict=True))
    assert set(draw(answers, 20, 1000, seed=2)[0]) != set(classes)
    assert len(draw(answers, 20, 17, seed=1)[1]) == 17


@pytest.mark.parametrize(("seen", "unseen"), [(3, 30), (30, 3), (0, 25), (25, 0), (4, 5)], ids=str)
def test_draw_fills_up_with_the_other_kind(seen, unseen):
    answers = fake([True] * seen + [False] * unseen, 2)
    classes, _ = draw(answers, 20, 1000, seed=0)
    assert len(classes) == min(20, seen + unseen)
    assert answers.dataset.table.seen[classes].sum() == min(seen, max(10, 20 - unseen))


def test_separation_by_hand():
    # on a line: two pairs of one class far apart from two of the other, and one image among the wrong ones
    values = np.array([[0.0], [1], [2], [3], [10], [11], [12], [13], [1.5]])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    found = separation(values, values, labels, labels == 1)
    assert found.seen == 1  # 5 neighbours of each: the 3 others and at most 2 of class 1
    assert found.unseen == pytest.approx(4 / 5)
    assert found.chance == 0.5
    assert found.silhouette == found.silhouette_map
    expected = 0
    for x, c in zip(values[:, 0], labels, strict=True):
        near = np.abs(values[:, 0] - x)
        a = near[labels == c].sum() / ((labels == c).sum() - 1)
        b = near[labels != c].mean()
        expected += (b - a) / max(a, b) / len(labels)
    assert found.silhouette == pytest.approx(expected)


def test_separation_of_one_kind():
    values = np.random.default_rng(0).normal(size=(6, 2))
    found = separation(values, values, np.zeros(6, int), np.ones(6, bool))
    assert (found.seen, found.unseen, found.silhouette, found.chance) == (None, 1.0, None, 1.0)


def test_inputs_are_the_method_s_scores_and_the_backbone_s_features():
    answers = fake([True, True, False, False], 8)
    maps = tsne_maps(answers, images=20)
    np.testing.assert_array_equal(maps.inputs["attributes"], answers.attribute_scores[maps.positions])
    np.testing.assert_array_equal(maps.inputs["features"], answers.pooled(maps.positions))
    for space in ("features", "attributes"):
        np.testing.assert_array_equal(maps.coordinates[space], embed(maps.inputs[space], maps.perplexity, 0))
    assert maps.perplexity == 6  # a third of 20 images
    assert not np.array_equal(
        maps.coordinates["features"], tsne_maps(answers, images=20, seed=1).coordinates["features"]
    )


def test_numbers_and_marks():
    answers = fake([True, True, False, False], 5)
    maps = tsne_maps(answers, perplexity=4)
    sheet = tsne_sheet(answers, maps)
    assert "drawn with seed" not in sheet.caption
    assert "20 test images of 4 classes" in sheet.caption
    np.testing.assert_array_equal(sheet.numbers[["attributes_x", "attributes_y"]], maps.coordinates["attributes"])
    assert sheet.numbers["seen"].tolist() == [1] * 10 + [0] * 10
    assert sheet.numbers["file"].tolist() == list(answers.dataset.files)
    points = sheet.figure.axes[0].collections
    assert sum(len(p.get_offsets()) for p in points) == 20
    assert {len(p.get_paths()[0].vertices) for p in points} == {4, 26}  # triangles and circles
    assert [t.get_text() for t in sheet.figure.legends[0].get_texts()] == [
        "UNSEEN CLASSES", "Class 2", "Class 3", "SEEN CLASSES", "Class 0", "Class 1"
    ]  # fmt: skip


def test_only_seen_classes():
    sheet = tsne_sheet(answers := fake([True] * 3, 4), tsne_maps(answers))
    assert sheet.summary["separation"]["attributes"]["unseen"] is None
    assert sheet.figure.legends[0].get_texts()[0].get_text() == "SEEN CLASSES"


def test_a_draw_is_said():
    answers = fake([True] * 4 + [False] * 4, 6)
    sheet = tsne_sheet(answers, tsne_maps(answers, classes=4, images=15, seed=3), 3)
    assert "15 test images of 4 classes, drawn with seed 3 from 48 of 8" in sheet.caption


@pytest.mark.parametrize("values", [np.zeros((8, 3)), np.arange(8.0)[:, None]], ids=["equal", "one dimension"])
def test_without_a_pca_it_starts_at_random(values):
    mapped = embed(values, 2, 0)
    assert mapped.shape == (8, 2)
    assert np.isfinite(mapped).all()


@pytest.mark.parametrize("count", [1, 10, 20, 33])
def test_colours_differ(count):
    assert len({tuple(c) for c in colors(count)}) == count


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"perplexity": 20}, "perplexity 20 for 20 images — use 1 or more, and less than 20"),
        ({"perplexity": 0.5}, "perplexity 0.5"),
        ({"classes": 1}, "at least 2 classes"),
    ],
)
def test_what_does_not_fit_is_said(options, text):
    with pytest.raises(UnseenError, match=text):
        tsne_maps(fake([True, True, False, False], 5), **options)


def test_too_few_images():
    with pytest.raises(DataError, match="4 test images"):
        tsne_maps(fake([True, False], 2))
