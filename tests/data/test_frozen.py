"""Outputs of frozen layers as input for training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import TRUNK, BackboneSpec
from unseen.data.frozen import FrozenSource, FrozenStore
from unseen.features.extract import extract
from unseen.training.steps import AugmentedFeatures, read_ahead

SPEC = BackboneSpec("test_resnet", image_size=64, weights="random")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def store(images, tmp_path_factory):
    cache, backbone = tmp_path_factory.mktemp("cache"), Backbone(SPEC)
    views = [
        extract(
            images,
            Backbone(replace(backbone.spec, stages=(TRUNK,), view=view)),
            cache,
            names=[path.name for path in images],
            dtype="float32",
            engine="torch",
        )
        for view in range(3)
    ]
    return FrozenStore(views, backbone)


def test_it_holds_the_maps_of_the_stage(store, images):
    frozen = Backbone(replace(SPEC, stages=(TRUNK,), view=2))
    pixels = torch.stack([frozen.transform(images[i]) for i in (4, 1)])
    torch.testing.assert_close(store.read([4, 1], view=2), frozen.maps(pixels)[0], rtol=1e-5, atol=1e-6)
    final = Backbone(SPEC)
    assert (store.grid(), store.channels()) == (final.grids[0], tuple(final.channels))
    assert len(store) == 6


def test_testing_reads_the_first_view(store):
    source = FrozenSource(store, np.array([5, 0, 3]))
    assert torch.equal(source.batch(np.array([2, 0])), store.read([3, 5]))
    assert isinstance(source, AugmentedFeatures)
    assert read_ahead(source)
    assert len(source) == 3


def test_training_draws_a_view_of_each_image_by_key_and_image(store):
    source, positions = FrozenSource(store, np.array([5, 0, 3, 1])), np.array([3, 0, 1])
    drawn = []
    for step in range(30):
        found = source.augmented(positions, (7, step))
        assert torch.equal(found, source.augmented(positions, (7, step)))
        alone = source.augmented(positions[1:2], (7, step))
        assert torch.equal(found[1], alone[0])  # whoever else is in the batch
        for row, index in zip(found, (1, 5, 0), strict=True):
            same = [view for view in range(3) if torch.equal(row, store.read([index], view)[0])]
            drawn += same
    assert len(drawn) == 90
    assert set(drawn) == {0, 1, 2}


def test_views_and_backbone_make_the_fingerprint(store):
    backbone = Backbone(SPEC)
    assert FrozenStore(store.views, backbone).fingerprint == store.fingerprint
    assert FrozenStore(store.views[:2], backbone).fingerprint != store.fingerprint
    other = Backbone(replace(SPEC, seed=1))
    assert FrozenStore(store.views, other).fingerprint != store.fingerprint


def test_training_sees_whole_images_and_testing_their_tiles_too(images, tmp_path):
    zoomed, names = Backbone(replace(SPEC, zoom=2)), [path.name for path in images]
    specs = (replace(zoomed.spec, stages=(TRUNK,)), replace(SPEC, stages=(TRUNK,), view=1))
    views = [extract(images, Backbone(s), tmp_path, names=names, dtype="float32", engine="torch") for s in specs]
    store = FrozenStore(views, zoomed)
    source = FrozenSource(store, np.arange(6))
    assert source.batch(np.arange(2)).shape[2] == 5 * views[1].grid()[0]
    drawn = source.augmented(np.arange(6), (0, 0))
    whole = store.read(range(6))[:, :, : views[1].grid()[0]]
    either = [
        torch.equal(found, a) or torch.equal(found, b)
        for found, a, b in zip(drawn, whole, store.read(range(6), 1), strict=True)
    ]
    assert all(either)
    assert store.grid() == zoomed.grids[0]
