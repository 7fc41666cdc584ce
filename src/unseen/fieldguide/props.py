"""Objects near the bird: what it stands on, and leaves and blades in front of it.

Positions and lengths are in supersampled pixels; `unit` is the scale of the bird, slightly more than its trunk.
"""

import math
from collections.abc import Callable

import numpy as np

from unseen.fieldguide.canvas import SUPERSAMPLING, Color, Layer, mix, spline

_LEAVES: tuple[Color, ...] = ((92, 124, 62), (124, 150, 78), (70, 104, 66), (150, 166, 84), (104, 132, 92))


def _leaf(layer: Layer, at: np.ndarray, angle: float, length: float, color: Color) -> None:
    """One pointed leaf with a midrib, from `at` in direction `angle` (radians)."""
    along = np.array([math.cos(angle), math.sin(angle)])
    side = np.array([-along[1], along[0]])
    shape = np.array([(0, 0), (0.25, 0.17), (0.55, 0.2), (1, 0), (0.55, -0.2), (0.25, -0.17)]) * length
    edge = at + shape[:, :1] * along + shape[:, 1:] * side
    layer.fill(spline(edge), color)
    layer.fill(spline(edge[:4], closed=False), mix(color, (255, 250, 200), 0.16))
    layer.stroke(np.stack([at, at + along * length * 0.95]), mix(color, (240, 240, 190), 0.4), length * 0.03)


def _branch(layer: Layer, rng: np.random.Generator, x0: float, y0: float, unit: float, tone: float) -> None:
    wide = layer.width
    bark = (112 + tone, 86 + tone, 64 + tone)
    slope, thick = float(rng.uniform(-0.2, 0.2)), unit * float(rng.uniform(0.07, 0.11))
    bend, girth = rng.uniform(-1, 1, (2, 9))
    xs = np.linspace(-0.05, 1.05, 9) * wide
    middle = y0 + thick * 0.9 + (xs - x0) * slope + bend * thick * 0.35
    upper, lower = middle - thick, middle + thick * (0.8 + 0.15 * girth)
    below = np.stack([xs, lower], 1)[::-1]
    layer.fill(np.vstack([np.stack([xs, upper], 1), below]), bark)
    shade = np.stack([xs, (upper + lower) / 2 + thick * 0.25], 1)
    layer.fill(np.vstack([shade, below]), mix(bark, (30, 24, 30), 0.4))
    for across, down, long, light in rng.random((40, 4)):
        x = across * wide
        y = np.interp(x, xs, middle) + (down - 0.6) * thick * 1.4
        streak = np.array([(x, y), (x + (0.05 + 0.12 * long) * unit, y + slope * 0.1 * unit)])
        layer.stroke(streak, mix(bark, (40, 30, 28) if light < 0.6 else (206, 190, 160), 0.4), unit * 0.012)
    for across, side, turn, long in rng.random((int(rng.integers(0, 4)), 4)):
        x = (0.04 + 0.2 * across + (0.7 if side > 0.5 else 0)) * wide
        angle = math.pi * ((1.2 if long > 0.4 else 0.2) + 0.6 * turn)
        color = _LEAVES[int(turn * len(_LEAVES))]
        _leaf(layer, np.array([x, np.interp(x, xs, middle)]), angle, unit * (0.24 + 0.12 * long), color)


def _post(layer: Layer, rng: np.random.Generator, x0: float, y0: float, unit: float, tone: float) -> None:
    wood = (150 + tone, 130 + tone, 106 + tone)
    half, foot = unit * float(rng.uniform(0.2, 0.28)), layer.width
    top = y0 - unit * 0.02

    def face(*corners: tuple[float, float]) -> np.ndarray:
        return np.array([(x0 + across * half, y) for across, y in corners])

    layer.fill(face((-1, top), (1, top), (1, foot), (-1, foot)), wood)
    layer.fill(face((0.35, top), (1, top), (1, foot), (0.5, foot)), mix(wood, (50, 40, 36), 0.35))
    rim = face((-1, top), (1, top), (0.9, top + half * 0.16), (-0.94, top + half * 0.2))
    layer.fill(rim, mix(wood, (240, 232, 210), 0.4))
    for across, down, long in rng.random((26, 3)):
        x, y = x0 + (across - 0.5) * 1.9 * half, top + half * 0.25 + down * (foot - top)
        grain = np.array([(x, y), (x + 1, y + (0.1 + 0.3 * long) * unit)])
        layer.stroke(grain, mix(wood, (60, 46, 40), 0.4), unit * 0.012)


def _stone(layer: Layer, rng: np.random.Generator, x0: float, y0: float, unit: float, tone: float) -> None:
    rock = (136 + tone, 132 + tone, 126 + tone)
    reach = unit * float(rng.uniform(0.5, 0.8))
    angles = np.linspace(0, math.pi, 9)
    out, up = 1 + rng.uniform(-1, 1, (2, 9)) * np.array([[0.08], [0.05]])
    rim = np.stack([x0 - np.cos(angles) * reach * out, y0 + reach * (0.5 - np.sin(angles) * 0.52 * up)], 1)
    foot = layer.width * 1.1
    layer.fill(spline(np.vstack([rim, [(x0 + reach * 0.9, foot), (x0 - reach * 0.9, foot)]])), rock)
    for across, down, wide, light in rng.random((40, 4)):
        at = np.array([x0 + (across - 0.5) * 1.6 * reach, y0 + reach * (0.12 + 0.9 * down)])
        speck = (74, 72, 74) if light < 0.6 else (196, 192, 176)
        layer.dot(at, mix(rock, speck, 0.5), unit * (0.008 + 0.018 * wide))


def _turf(layer: Layer, rng: np.random.Generator, x0: float, y0: float, unit: float, tone: float) -> None:
    turf = (118 + tone, 132 + tone, 70 + tone / 2)
    wide = layer.width
    xs = np.linspace(-0.05, 1.05, 9) * wide
    corners = [(wide * 1.05, wide * 1.05), (-wide * 0.05, wide * 1.05)]
    for depth, shade in ((0.0, 0.0), (0.14, 0.16), (0.34, 0.3)):
        bumps = rng.uniform(-1, 1, 9) * (0.02 + 0.1 * depth)
        ys = y0 + np.abs(xs - x0) * 0.06 + (depth + bumps) * unit
        ground = mix(turf, (56, 70, 40), shade)
        layer.fill(np.vstack([np.stack([xs, ys], 1), corners]), ground)
        for across, down, long, lean in rng.random((45, 4)):
            x, y = across * wide, float(np.interp(across * wide, xs, ys)) + 0.06 * down * unit
            blade = np.array([(x, y), (x + (lean - 0.5) * 0.12 * unit, y - (0.05 + 0.11 * long) * unit)])
            layer.stroke(blade, mix(ground, (196, 204, 120), 0.1 + 0.3 * lean), unit * 0.02)


STANDS: dict[str, Callable[[Layer, np.random.Generator, float, float, float, float], None]] = {
    "branch": _branch,
    "post": _post,
    "stone": _stone,
    "turf": _turf,
}


def stand(kind: str, rng: np.random.Generator, size: int, feet: np.ndarray, unit: float) -> Layer:
    """Something to stand on, one of `STANDS`, at the bird's feet."""
    layer = Layer(size)
    STANDS[kind](layer, rng, float(feet[0]), float(feet[1]), unit, float(rng.uniform(-14, 14)))
    return layer


def occluders(rng: np.random.Generator, size: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Leaves and blades in front of the bird, out of focus: results of `Layer.reduced`."""
    layer = Layer(size)
    wide = size * SUPERSAMPLING
    count = (0, 0, 1, 1, 2, 3)[int(rng.integers(6))]
    for across, down, turn, long, kind, pick, lean in rng.random((count, 7)):
        color = mix(_LEAVES[int(pick * len(_LEAVES))], (60, 84, 50) if lean < 0.5 else (170, 176, 90), 0.35)
        if kind < 0.65:
            start = np.array([across, down]) * wide
            angle = turn * 2 * math.pi
            twig = start - unit * 0.3 * np.array([math.cos(angle + 0.3), math.sin(angle + 0.3)])
            layer.stroke(np.stack([twig, start]), mix(color, (80, 60, 40), 0.6), unit * 0.03)
            _leaf(layer, start, angle, unit * (0.28 + 0.2 * long), color)
            _leaf(layer, twig, angle + 0.9, unit * (0.2 + 0.12 * long), mix(color, (40, 60, 40), 0.2))
        else:
            x, half = across * wide, unit * (0.02 + 0.025 * long)
            tip = (x + (lean - 0.5) * 0.5 * wide, (0.6 * down - 0.1) * wide)
            layer.fill(np.array([(x - half, wide), (x + half, wide), tip]), mix(color, (190, 170, 110), 0.4))
    return layer.reduced(size * 0.009)
