"""What makes up a step: the same for a seed and step, nothing twice, everything in the long run."""

from __future__ import annotations

import numpy as np
import pytest

from unseen.data.samplers import create_sampler, images_of_classes, random_images
from unseen.errors import UnseenError

LABELS = np.array([0, 0, 0, 0, 2, 2, 5, 5, 5, 7, 9, 9])


@pytest.mark.parametrize("name", ["random", "classes"])
def test_a_step_depends_on_seed_and_step_alone(name):
    sampler = create_sampler(name, LABELS, 4, seed=3)
    forwards = [sampler(step) for step in range(20)]
    other = create_sampler(name, LABELS, 4, seed=3)
    backwards = [other(step) for step in reversed(range(20))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert len({tuple(step) for step in forwards}) == 20
    elsewhere = create_sampler(name, LABELS, 4, seed=4)
    # nor is one seed's sequence a part of another's
    assert len({tuple(elsewhere(step)) for step in range(20)} & {tuple(step) for step in forwards}) < 8


@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_random_images_are_different_ones(batch_size):
    sampler = random_images(12, batch_size, seed=0)
    for step in range(50):
        drawn = sampler(step)
        assert len(drawn) == len(np.unique(drawn)) == min(batch_size, 12)
        assert drawn.min() >= 0
        assert drawn.max() < 12


@pytest.mark.parametrize("batch_size", [1, 3, 5, 40])
def test_one_image_of_different_classes(batch_size):
    sampler = images_of_classes(LABELS, batch_size, seed=0)
    for step in range(50):
        classes = LABELS[sampler(step)]
        assert len(classes) == len(np.unique(classes)) == min(batch_size, 5)


@pytest.mark.parametrize(("batch_size", "shots", "ways"), [(4, 2, 2), (9, 3, 3), (40, 2, 5)])
def test_episodes_of_ways_and_shots(batch_size, shots, ways):
    sampler = create_sampler("classes", LABELS, batch_size, 0, shots)
    for step in range(50):
        drawn = sampler(step).reshape(-1, shots)
        classes = LABELS[drawn]
        assert (classes == classes[:, :1]).all()
        assert len(np.unique(classes)) == len(drawn) == ways
        for row, own in zip(drawn, classes[:, 0], strict=True):
            assert len(np.unique(row)) == shots or shots > (own == LABELS).sum()  # class 7 has one image


def test_random_images_come_equally_often():
    sampler = random_images(12, 4, seed=1)
    counts = np.bincount(np.concatenate([sampler(step) for step in range(3000)]), minlength=12)
    np.testing.assert_allclose(counts / 3000, 4 / 12, atol=5 * np.sqrt(1 / 3 * 2 / 3 / 3000))


def test_classes_come_equally_often_and_so_do_their_images():
    sampler = images_of_classes(LABELS, 2, seed=1)
    counts = np.bincount(np.concatenate([sampler(step) for step in range(3000)]), minlength=len(LABELS))
    size = np.bincount(LABELS)[LABELS]
    np.testing.assert_allclose(counts / 3000, 2 / 5 / size, atol=5 * np.sqrt(0.25 / 3000))


def test_unknown_sampler():
    with pytest.raises(UnseenError, match='unknown sampler "pairs" — use random or classes'):
        create_sampler("pairs", LABELS, 4, 0)
