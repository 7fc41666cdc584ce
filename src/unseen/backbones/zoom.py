"""More looks at an image: its maps are those of the whole image and of enlarged tiles, and of its mirror image.

With zoom z and a network for images of side S, the image has side z S. The network sees it reduced to S, and its z x z
tiles of side S. The maps of the tiles are assembled, averaged to the grid of the whole image's map and added to it,
each divided by the length of its mean region::

    F = m (F_whole / |mean F_whole| + F_tiles / |mean F_tiles|)      m: mean of both lengths, halved

So both have the same weight in the mean region of F, and every position of F is still a position of the image. After
multi-scale features of frozen networks (S2: Shi et al., ECCV 2024), which keep the scales as separate channels.

The maps of the mirror image, mirrored back, are averaged with those of the image. Testing on both is common since
Krizhevsky et al. (NeurIPS 2012), who average what the network predicts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def looks(zoom: int, mirror: bool = False) -> int:
    """How often the network sees an image: whole, and in tiles; and the same of its mirror image."""
    return (1 + zoom * zoom if zoom > 1 else 1) * (2 if mirror else 1)


def reduced(pixels: Tensor, zoom: int) -> Tensor:
    """Images ``(B, 3, z S, z S)`` with side S."""
    return F.avg_pool2d(pixels, zoom)


def tiles(pixels: Tensor, zoom: int) -> Tensor:
    """Images ``(B, 3, z S, z S)`` as ``(B z z, 3, S, S)``, the tiles of an image row by row."""
    channels, side = pixels.shape[1], pixels.shape[2] // zoom
    cut = pixels.reshape(-1, channels, zoom, side, zoom, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)


def assembled(maps: Tensor, zoom: int) -> Tensor:
    """Maps ``(B z z, C, h, w)`` of tiles as maps ``(B, C, h, w)`` of images."""
    _, channels, height, width = maps.shape
    grid = maps.reshape(-1, zoom, zoom, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return F.avg_pool2d(grid.reshape(-1, channels, zoom * height, zoom * width), zoom)


def together(whole: Tensor, near: Tensor) -> Tensor:
    """Sum of two maps ``(B, C, h, w)``, see the module's docstring."""
    lengths = [maps.mean(dim=(2, 3), keepdim=True).norm(dim=1, keepdim=True).clamp(min=1e-12) for maps in (whole, near)]
    result: Tensor = (whole / lengths[0] + near / lengths[1]) * ((lengths[0] + lengths[1]) / 4)
    return result


def stacked(whole: Tensor, near: Tensor, zoom: int) -> Tensor:
    """Maps ``(B, C, h, w)`` of images and ``(B z z, C, h, w)`` of their tiles below each other: ``(B, C, L h, w)``."""
    rows = near.unflatten(0, (-1, zoom * zoom)).transpose(1, 2).flatten(2, 3)
    return torch.cat([whole, rows], dim=2)


def unstacked(maps: Tensor, zoom: int) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`stacked`."""
    height = maps.shape[2] // looks(zoom)
    near = maps[:, :, height:].unflatten(2, (zoom * zoom, height)).transpose(1, 2).flatten(0, 1)
    return maps[:, :, :height], near


def beside(pixels: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)``, and after them their mirror images: ``(2 B, 3, H, W)``."""
    return torch.cat([pixels, pixels.flip(3)])


def merged(maps: Tensor) -> Tensor:
    """Maps ``(2 B, C, h, w)`` of images and mirror images as means ``(B, C, h, w)``, each at its place in the image."""
    both = maps.unflatten(0, (2, -1))  # exported to ONNX, unlike chunk
    result: Tensor = (both[0] + both[1].flip(3)) / 2
    return result
