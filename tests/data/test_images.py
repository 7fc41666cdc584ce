"""Images for end-to-end training: their values, whatever reads or keeps them, and the draw of crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.data.images import ImageSource, ImageStore
from unseen.errors import DataError

SIZES = [(90, 70), (64, 64), (70, 130), (50, 60)]


@pytest.fixture(scope="module")
def backbone():
    return Backbone(BackboneSpec(name="test_resnet", weights="random", image_size=64, stages=(-3, "final")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(len(SIZES))]
    for path, (width, height) in zip(paths, SIZES, strict=True):
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return paths


def store_of(files, backbone, tmp_path, **options):
    return ImageStore(files, backbone, tmp_path, names=[f.name for f in files], **options)


def test_tested_images_are_the_transform_s(files, backbone, tmp_path):
    store = store_of(files, backbone, tmp_path)
    source = ImageSource(store, np.array([2, 0, 3]))
    expected = torch.stack([backbone.transform(files[i]) for i in (3, 2)])
    for _ in range(2):  # read, then kept
        assert torch.equal(source.batch(np.array([2, 0])), expected)
    assert len(source) == 3
    assert store.grid() == backbone.grids[-1]
    assert store.channels() == tuple(backbone.channels)


def test_trained_images_are_crops_of_resized_ones(files, backbone, tmp_path):
    """Every crop is found in the image resized to the wanted short side, mirrored or not."""
    source = ImageSource(store_of(files, backbone, tmp_path), np.arange(4), resize=1.25, flip=True)
    places, mirrored = set(), 0
    for i, path in enumerate(files):
        whole = TF.pil_to_tensor(TF.resize(Image.open(path), [80], InterpolationMode.BICUBIC, antialias=True))
        assert min(whole.shape[1:]) == 80
        pixels = backbone.transform.normalized(whole)
        windows = pixels.unfold(1, 64, 1).unfold(2, 64, 1)
        for step in range(4):
            crop = source.augmented(np.array([i]), (5, step))[0]
            found = [
                (flip, *spot)
                for flip in (False, True)
                for spot in np.argwhere(
                    (windows == (crop.flip(2) if flip else crop)[:, None, None]).all(0).all(-1).all(-1).numpy()
                )
            ]
            assert len(found) == 1
            mirrored += found[0][0]
            places.add(tuple(int(v) for v in found[0]))
    assert 3 <= mirrored <= 13
    assert len(places) > 12


def test_a_crop_depends_on_image_seed_and_step_alone(files, backbone, tmp_path):
    plain = ImageSource(store_of(files, backbone, tmp_path), np.arange(4), resize=1.25, flip=True)
    # another order and number of images, threads, nothing kept
    store = store_of(files, backbone, tmp_path, workers=3, budget_bytes=0)
    other = ImageSource(store, np.array([3, 1, 0, 2]), resize=1.25, flip=True)
    for step in range(3):
        first = plain.augmented(np.array([0, 1, 2, 3, 1]), (7, step))
        assert torch.equal(first, other.augmented(np.array([2, 1, 3, 0, 1]), (7, step)))
        assert torch.equal(first[1], first[4])
    assert not torch.equal(plain.augmented(np.arange(4), (7, 0)), plain.augmented(np.arange(4), (7, 1)))
    assert not torch.equal(plain.augmented(np.arange(4), (7, 0)), plain.augmented(np.arange(4), (8, 0)))
    assert store.nbytes == 0


def test_without_augmentation_a_square_is_the_tested_image(files, backbone, tmp_path):
    source = ImageSource(store_of(files, backbone, tmp_path), np.array([1]))
    assert torch.equal(source.augmented(np.array([0]), (0, 0)), source.batch(np.array([0])))


def test_what_is_kept_fits_the_budget(files, backbone, tmp_path):
    one = 3 * 64 * 64
    store = store_of(files, backbone, tmp_path, budget_bytes=2 * one + 5)
    before = store.read([0, 1, 2, 3])
    assert torch.equal(before[2], backbone.transform(files[2]))
    assert store.nbytes == 2 * one
    for path in files[2:]:
        path.rename(path.with_suffix(".away"))
    try:
        assert torch.equal(store.read([1, 0]), before[[1, 0]])
        with pytest.raises(DataError, match=r"2\.png: no such image"):
            store.read([2])
    finally:
        for path in files[2:]:
            path.with_suffix(".away").rename(path)


def test_fingerprint_is_of_images_and_backbone(files, backbone, tmp_path):
    first = store_of(files, backbone, tmp_path).fingerprint
    assert store_of(files, backbone, tmp_path / "elsewhere").fingerprint == first
    assert store_of(files[::-1], backbone, tmp_path).fingerprint != first
    other = Backbone(BackboneSpec(name="test_resnet", weights="random", image_size=64, stages=(-3, "final"), seed=1))
    assert store_of(files, other, tmp_path).fingerprint != first
