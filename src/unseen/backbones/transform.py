"""The image transform of a network: resize, crop, normalize; and the mapping of points."""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.backbones.vision import InterpolationMode
from unseen.backbones.vision import transforms as TF
from unseen.errors import DataError
from unseen.ground.images import EncodedImage, is_elongated, open_image, upright_rgb

AREAS, RATIOS = (0.35, 1.0), (3 / 4, 4 / 3)
"""Area of a random crop, as a share of the image, and its ratio of width to height: the ranges they are drawn from."""
REDUCED = 2
"""Least short side of an image decoded at a reduced size, in short sides of the resized image."""


@dataclass(frozen=True)
class Transform:
    """Image to network input: upright, RGB, short side resized (bicubic, antialiased), center crop, normalized.

    Attributes:
        size: side of the square input.
        mean: per-channel mean.
        std: per-channel deviation.
        crop: fraction of the resized short side that the crop keeps.
        fast: compute other pixels in less time: JPEGs decoded at a reduced size, at least twice the short side, and
            torch's resize for bytes, which is Pillow's with shorter weights.
        view: 0 for the center crop; otherwise a view for training: odd ones are mirrored, and from 2 on a random crop
            is resized instead. View and pixels determine the crop.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    fast: bool = False
    view: int = 0

    def __call__(self, image: Image.Image | str | os.PathLike[str]) -> Tensor:
        """An image, or the image in a file, as floats (3, size, size)."""
        return self.normalized(self.cropped(image))

    def cropped(self, image: Image.Image | EncodedImage | str | os.PathLike[str]) -> Tensor:
        """The first half: resized and cropped as the view says, as contiguous bytes (3, size, size)."""
        found = self._random_crop(image) if self.view > 1 else self._center_crop(image)
        return found.flip(2) if self.view % 2 else found

    def _center_crop(self, image: Image.Image | EncodedImage | str | os.PathLike[str]) -> Tensor:
        small = self._small(image, self.short_side)
        if isinstance(small, Tensor):
            result: Tensor = TF.center_crop(small, [self.size, self.size]).contiguous()
            return result
        left, top = (round((side - self.size) / 2) for side in small.size)
        return _as_bytes(small.crop((left, top, left + self.size, top + self.size)))

    def _random_crop(self, image: Image.Image | EncodedImage | str | os.PathLike[str]) -> Tensor:
        upright = self._upright(image, None)
        width, height = upright.size
        row = upright.crop((0, height // 2, width, height // 2 + 1)).tobytes()
        rng = np.random.default_rng([self.view, width, height, zlib.crc32(row)])
        area = rng.uniform(*AREAS) * width * height
        ratio = math.exp(rng.uniform(*np.log(RATIOS)))
        w, h = min(width, round(math.sqrt(area * ratio))), min(height, round(math.sqrt(area / ratio)))
        left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        box = (left, top, left + w, top + h)
        return _as_bytes(upright.resize((self.size, self.size), Image.Resampling.BICUBIC, box))

    def normalized(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The second half: bytes (..., 3, h, w) as network input."""
        result: Tensor = TF.normalize(TF.to_dtype(pixels, dtype, scale=True), list(self.mean), list(self.std))
        return result

    def resized(self, image: Image.Image | EncodedImage | str | os.PathLike[str], short: int) -> Tensor:
        """Upright RGB with this short side in pixels, as bytes (3, h, w)."""
        small = self._small(image, short)
        result: Tensor = small if isinstance(small, Tensor) else TF.pil_to_tensor(small)
        return result

    def _small(self, image: Image.Image | EncodedImage | str | os.PathLike[str], short: int) -> Tensor | Image.Image:
        """Upright RGB with this short side, in the form that the resize returns."""
        upright = self._upright(image, REDUCED * short if self.fast else None)
        if self.fast:
            fast: Tensor = TF.resize(TF.pil_to_tensor(upright), [short], InterpolationMode.BICUBIC, antialias=True)
            return fast
        return upright.resize(self._resized(*upright.size, short), Image.Resampling.BICUBIC)

    @staticmethod
    def _upright(image: Image.Image | EncodedImage | str | os.PathLike[str], least: int | None) -> Image.Image:
        """Upright RGB, decoded with at least this short side, or whole."""
        if isinstance(image, EncodedImage):
            upright = image.open(least)
        else:
            upright = upright_rgb(image) if isinstance(image, Image.Image) else open_image(image, least)
        if is_elongated(*upright.size):
            where = getattr(image, "filename", "image") if isinstance(image, Image.Image) else image
            raise DataError(
                f"{upright.width} x {upright.height} pixels is too narrow", where=where, hint="crop the image"
            )
        return upright

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an upright image that the network sees: (left, top, right, bottom) in the image's pixels."""
        new_width, new_height = self._resized(width, height, self.short_side)
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        x, y = width / new_width, height / new_height
        return left * x, top * y, (left + self.size) * x, (top + self.size) * y

    def to_input(self, x: float, y: float, width: int, height: int) -> tuple[float, float]:
        """Position in the input of a point of an upright image; outside [0, size] if it is cropped away."""
        left, top, right, bottom = self.crop_box(width, height)
        return (x - left) / (right - left) * self.size, (y - top) / (bottom - top) * self.size

    def to_image(self, x: float, y: float, width: int, height: int) -> tuple[float, float]:
        """Position in the upright image of a point of the input: the inverse of `to_input`."""
        left, top, right, bottom = self.crop_box(width, height)
        return left + x / self.size * (right - left), top + y / self.size * (bottom - top)

    @property
    def short_side(self) -> int:
        """Short side in pixels to which an image is resized before the crop."""
        return round(self.size / self.crop)

    @staticmethod
    def _resized(width: int, height: int, short: int) -> tuple[int, int]:
        """Size after torchvision's resize of the short side."""
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short


def _as_bytes(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))
