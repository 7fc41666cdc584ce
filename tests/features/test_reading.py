"""Images are decoded ahead, in order, in bounded memory; a broken one is its error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from unseen.backbones.transform import Transform
from unseen.errors import DataError
from unseen.features.reading import AHEAD, read_batches, stacked

TRANSFORM = Transform(16, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.png" for i in range(7)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file)
    files[4].write_bytes(b"nothing")
    return files


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_pixels_in_order_and_errors_in_their_place(files, threads):
    batches = [files[:3], files[3:5], files[5:]]
    found = list(read_batches(batches, TRANSFORM, threads))
    assert [batch for batch, _ in found] == batches
    pixels = [p for _, read in found for p in read]
    assert isinstance(pixels[4], DataError)
    assert "4.png" in str(pixels[4])
    for i in (0, 1, 2, 3, 5, 6):
        assert torch.equal(pixels[i], TRANSFORM.cropped(files[i]))


@pytest.mark.parametrize("threads", [0, 2])
def test_no_more_is_begun_than_needed(files, threads):
    asked = []

    def batches():
        for file in files[:4]:
            asked.append(file)
            yield [file]

    reading = read_batches(batches(), TRANSFORM, threads)
    assert asked == []
    next(reading)
    assert len(asked) == (AHEAD if threads else 1)
    reading.close()


def test_a_image_in_memory_may_be_there_twice(files):
    with Image.open(files[0]) as image:
        ((_, (first, second)),) = read_batches([[image, image]], TRANSFORM, 2)
    assert torch.equal(first, second)


@pytest.mark.parametrize("crop", [1.0, 0.8])
@pytest.mark.parametrize("size", [(20, 31), (33, 20), (16, 16)])
def test_pixels_are_torchvisions_and_contiguous(size, crop):
    """Cropped before they become a tensor, which changes none."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    transform = Transform(16, (0.5,) * 3, (0.5,) * 3, crop)
    small = TF.resize(image, [transform.short_side], TF.InterpolationMode.BICUBIC, antialias=True)
    found = transform.cropped(image)
    assert torch.equal(found, TF.center_crop(TF.pil_to_tensor(small), [16, 16]))
    assert found.is_contiguous()
    assert torch.equal(stacked([found, found.flip(2)]), torch.stack([found, found.flip(2)]))
