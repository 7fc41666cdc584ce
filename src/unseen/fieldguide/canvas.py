"""Curves, frames and layers for drawing birds and their surroundings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLING = 4
Color = tuple[float, float, float]
Points = Sequence[tuple[float, float]] | np.ndarray


@dataclass(frozen=True)
class Frame:
    """A frame of reference on the image: an origin and two axes, in pixels (y down)."""

    origin: np.ndarray
    across: np.ndarray
    up: np.ndarray

    def __call__(self, points: Points | tuple[float, float]) -> np.ndarray:
        """Pixel positions of points given in this frame, of shape (..., 2)."""
        p = np.asarray(points, dtype=np.float64)
        result: np.ndarray = self.origin + p[..., :1] * self.across + p[..., 1:] * self.up
        return result

    def child(self, at: tuple[float, float], degrees: float = 0.0, stretch: float = 1.0) -> "Frame":
        """A frame at a point of this one, rotated counter-clockwise; `stretch` scales its first axis."""
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        across, up = c * self.across + s * self.up, c * self.up - s * self.across
        return Frame(self(at), across * stretch, up)

    @property
    def scale(self) -> float:
        """Pixels per unit along the second axis."""
        return float(np.hypot(*self.up))


@cache
def _catmull_rom(steps: int) -> np.ndarray:
    t = np.arange(steps)[:, None] / steps
    return 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])


def spline(points: Points, *, closed: bool = True, steps: int = 8) -> np.ndarray:
    """A smooth curve through the points (Catmull-Rom)."""
    p = np.asarray(points, dtype=np.float64)
    ring = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([p[:1], p, p[-1:]])
    spans = np.stack([ring[i : len(ring) - 3 + i] for i in range(4)], axis=1)
    curve = (_catmull_rom(steps)[None, :, :, None] * spans[:, None]).sum(axis=2).reshape(-1, 2)
    return curve if closed else np.vstack([curve, p[-1:]])


def mix(a: Color, b: Color, share: float) -> Color:
    """The color at `share` of the way from `a` to `b`."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


class Layer:
    """A transparent layer, drawn at several times the image's size and then reduced."""

    def __init__(self, size: int) -> None:
        self.width = size * SUPERSAMPLING
        self.image = Image.new("CMYK", (self.width, self.width))  # four plain channels: red, green, blue, cover
        self._pen = ImageDraw.Draw(self.image)

    @staticmethod
    def _ink(color: Color, opacity: float) -> tuple[int, int, int, int]:
        """Colors are premultiplied by their opacity, so that reducing the layer mixes them correctly."""
        r, g, b = (min(255, max(0, round(channel * opacity))) for channel in color)
        return r, g, b, round(255 * opacity)

    def fill(self, points: np.ndarray, color: Color, opacity: float = 1.0) -> None:
        """Fill the polygon through pixel positions (already supersampled)."""
        self._pen.polygon(points.ravel().tolist(), fill=self._ink(color, opacity))

    def stroke(self, points: np.ndarray, color: Color, width: float, opacity: float = 1.0) -> None:
        """Draw a line through pixel positions."""
        wide = max(1, round(width))
        joint = "curve" if wide > 4 and len(points) > 2 else None
        self._pen.line(points.ravel().tolist(), fill=self._ink(color, opacity), width=wide, joint=joint)

    def dot(self, at: np.ndarray, color: Color, radius: float, opacity: float = 1.0) -> None:
        """Draw a filled circle."""
        x, y = float(at[0]), float(at[1])
        self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=self._ink(color, opacity))

    def reduced(self, soft: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The layer at the image's size, blurred by `soft` pixels.

        Returns:
            Color times cover (H, W, 3) and cover (H, W, 1), both 0..1.
        """
        image = self.image.reduce(SUPERSAMPLING)
        if soft:
            image = image.filter(ImageFilter.GaussianBlur(soft))
        sheet = np.asarray(image, dtype=np.float32) / 255
        return sheet[..., :3], sheet[..., 3:]


def soften(field: np.ndarray, radius: float) -> np.ndarray:
    """A field (H, W) in 0..1, blurred."""
    image = Image.fromarray((np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Soft noise in 0..1 of shape (size, size), with the given number of cells down and across."""
    coarse = Image.fromarray(rng.random(cells, dtype=np.float32))
    result: np.ndarray = np.clip(np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)
    return result


def relief(mask: np.ndarray, light: tuple[float, float], radius: float) -> np.ndarray:
    """Shading of a round body with this outline: above 0 towards the light, below 0 away from it."""
    down, across = np.gradient(soften(mask, radius))
    result: np.ndarray = -(across * light[0] + down * light[1]) * radius
    return result
