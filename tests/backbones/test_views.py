"""Views of an image for training: mirrored, and random crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.transform import AREAS, RATIOS, Transform

SIZE = 32


def transform(view, fast=False):
    return Transform(SIZE, (0.5,) * 3, (0.5,) * 3, fast=fast, view=view)


def ramps(width=250, height=200, blue=0):
    """Red is x, green is y, so that a crop shows its place."""
    pixels = np.full((height, width, 3), blue, np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(pixels)


def box(view, image):
    """Left, right, top, bottom of a view's crop, to a pixel or two of its resize."""
    red, green = transform(view).cropped(image).double()[:2]
    columns, rows = red.mean(dim=0), green.mean(dim=1)
    half_x, half_y = (columns[-1] - columns[0]) / (SIZE - 1) / 2, (rows[-1] - rows[0]) / (SIZE - 1) / 2
    return [float(v) for v in (columns[0] - half_x, columns[-1] + half_x, rows[0] - half_y, rows[-1] + half_y)]


def test_the_first_views_are_the_center_crop_and_its_mirror_image():
    image = ramps()
    whole = transform(0).cropped(image)
    assert torch.equal(whole, Transform(SIZE, (0.5,) * 3, (0.5,) * 3).cropped(image))
    assert torch.equal(transform(1).cropped(image), whole.flip(2))


@pytest.mark.parametrize("fast", [False, True])
def test_others_are_random_crops_within_the_image_and_odd_ones_are_mirrored(fast):
    image, boxes = ramps(), []
    for view in range(2, 40):
        found = transform(view, fast).cropped(image)
        assert found.shape == (3, SIZE, SIZE)
        assert found.is_contiguous()
        left, right, top, bottom = box(view, image)
        assert (left > right) == bool(view % 2)
        left, right = sorted((left, right))
        assert min(left, top) > -3
        assert right < 253
        assert bottom < 203
        boxes.append((right - left, bottom - top))
    widths, heights = np.array(boxes).T
    share, ratio = widths * heights / (250 * 200), widths / heights
    assert AREAS[0] - 0.03 < share.min() < 0.5
    assert 0.75 < share.max() < AREAS[1] + 0.03
    assert RATIOS[0] - 0.05 < ratio.min() < 0.95
    assert 1.1 < ratio.max() < RATIOS[1] + 0.05


def test_a_crop_depends_on_view_and_pixels_alone(tmp_path):
    image = ramps()
    image.save(tmp_path / "ramps.png")
    assert torch.equal(transform(2).cropped(image), transform(2).cropped(tmp_path / "ramps.png"))
    assert not np.allclose(box(2, image), box(4, image), atol=5)
    other = ramps(blue=9)
    assert not np.allclose(box(2, image), box(2, other), atol=5)


def test_a_view_has_features_of_its_own():
    plain = BackboneSpec("test_resnet", image_size=64, weights="random")
    viewed = BackboneSpec("test_resnet", image_size=64, weights="random", view=3)
    assert "view" not in plain.to_json()
    assert BackboneSpec.from_json(viewed.to_json()) == viewed
    assert viewed.fingerprint() != plain.fingerprint()
    assert Backbone(viewed).transform.view == 3
