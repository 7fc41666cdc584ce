"""Draw one bird from its attributes, with random pose, plumage, light and camera."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from unseen.fieldguide import props, scenery, shapes
from unseen.fieldguide.attributes import Appearance
from unseen.fieldguide.canvas import (
    SUPERSAMPLING,
    Color,
    Frame,
    Layer,
    Points,
    mix,
    relief,
    smooth_noise,
    soften,
    spline,
)

_COLORS: dict[str, dict[str, Color]] = {
    "bill_color": {"red": (206, 48, 40), "yellow": (246, 194, 44), "black": (40, 38, 44), "blue": (104, 150, 196)},
    "crown_color": {"red": (198, 46, 40), "black": (38, 36, 44), "white": (246, 242, 232), "blue": (52, 104, 186)},
    "throat_color": {"white": (248, 246, 238), "black": (40, 38, 44), "orange": (238, 130, 40)},
    "belly_color": {
        "white": (244, 238, 226),
        "yellow": (244, 208, 92),
        "rust": (206, 116, 66),
        "gray": (166, 172, 178),
    },
    "back_color": {"brown": (140, 102, 70), "green": (116, 144, 72), "slate": (96, 116, 138), "black": (58, 56, 64)},
    "wing_color": {"rufous": (176, 92, 50), "green": (92, 130, 62), "blue": (58, 112, 176), "black": (54, 52, 60)},
    "leg_color": {"yellow": (242, 184, 48), "black": (46, 42, 46), "pink": (232, 138, 138)},
}
_DARK: Color = (34, 28, 34)
_LIGHT: Color = (255, 251, 240)


class Part(NamedTuple):
    """Position of a body part in pixels, and whether it is visible."""

    x: float
    y: float
    visible: bool


class Box(NamedTuple):
    """The bird's bounding box in pixels, clipped to the image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class _Pose:
    """Everything about an image of a bird that its attributes do not determine."""

    flip: bool
    x: float
    y: float
    scale: float
    tilt: float
    foreshortening: float
    slope: float
    head_tilt: float
    head_turn: float
    wing: float
    tail: float
    plump: float
    tint: np.ndarray
    light: tuple[float, float]
    gain: float
    cast: np.ndarray
    softness: float
    grain: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "_Pose":
        return cls(
            flip=bool(rng.random() < 0.5),
            x=0.5 + rng.uniform(-0.06, 0.06),
            y=0.49 + rng.uniform(-0.05, 0.05),
            scale=rng.uniform(0.47, 0.58),
            tilt=rng.uniform(-7, 7),
            foreshortening=rng.uniform(0.88, 1.0),
            slope=rng.uniform(26, 46),
            head_tilt=rng.uniform(-16, 20),
            head_turn=rng.uniform(0.0, 0.28),
            wing=rng.uniform(-8, 9),
            tail=rng.uniform(-14, 16),
            plump=rng.uniform(0.95, 1.06),
            tint=rng.uniform(-10, 10, 3),
            light=(rng.uniform(-0.7, 0.7), -rng.uniform(0.6, 1.0)),
            gain=rng.uniform(0.82, 1.12),
            cast=1 + rng.uniform(-0.06, 0.06) * np.array([1.0, 0.0, -1.0]) + rng.uniform(-0.02, 0.02, 3),
            softness=rng.uniform(0.0, 0.75),
            grain=rng.uniform(0.006, 0.024),
        )


class _Bird:
    """The drawn bird: layers from back to front, and positions of its parts (supersampled pixels)."""

    def __init__(self, appearance: Appearance, pose: _Pose, rng: np.random.Generator, size: int) -> None:
        self.looks = appearance
        self.size = size
        self.rng = rng
        small = appearance["size"] == "small"
        unit = size * SUPERSAMPLING * pose.scale * (0.9 if small else 1.08)
        across = -1.0 if pose.flip else 1.0
        self.long = 0.36 if small else 0.45
        self.deep = (0.285 if small else 0.25) * pose.plump
        self.head_radius = 0.225 if small else 0.175
        base = Frame(
            np.array([pose.x, pose.y]) * size * SUPERSAMPLING,
            np.array([across * unit * pose.foreshortening, 0.0]),
            np.array([0.0, -unit]),
        )
        self.local = base.child((0, 0), pose.tilt)
        self.trunk = self.local.child((0, 0), pose.slope)
        self.head = self.local.child(tuple(self._head_place(pose.slope)), pose.head_tilt)
        self.wing = self.trunk.child((0.5 * self.long, -0.03), pose.wing)
        self.tail = self.local.child(tuple(self._tail_place(pose.slope)), 180 + 0.45 * pose.slope + pose.tail)
        self.pose = pose
        self.unit = self.local.scale
        self.colors = {
            group: tuple(channel + shift for channel, shift in zip(choices[appearance[group]], pose.tint, strict=True))
            for group, choices in _COLORS.items()
        }
        self.parts: dict[str, np.ndarray] = {}

    def _turned(self, u: float, v: float, slope: float) -> np.ndarray:
        c, s = np.cos(np.radians(slope)), np.sin(np.radians(slope))
        return np.array([u * c - v * s, u * s + v * c])

    def _head_place(self, slope: float) -> np.ndarray:
        return self._turned(0.9 * self.long, 0.93 * self.deep, slope)

    def _tail_place(self, slope: float) -> np.ndarray:
        return self._turned(-1.0 * self.long, -0.08 * self.deep, slope)

    def _body(self, points: Points) -> np.ndarray:
        """Pixel positions of points given in shares of the trunk's half length and half depth."""
        return self.trunk(np.asarray(points) * (self.long, self.deep))

    def _face(self, points: Points) -> np.ndarray:
        """Pixel positions of points on the head, in shares of its radius, foreshortened by the head's turn."""
        p = np.array(points) * self.head_radius
        p[:, 0] *= 1 - 0.35 * self.pose.head_turn
        return self.head(p)

    def feet(self) -> np.ndarray:
        """Base of the bird: the midpoint between its feet."""
        result: np.ndarray = self._legs().mean(axis=0)[2]
        return result

    def _legs(self) -> np.ndarray:
        """Hip, heel and foot of the far and the near leg, of shape (2, 3, 2)."""
        length = 0.2 if self.looks["leg_length"] == "short" else 0.42
        legs = []
        for place, step in ((0.22, 0.07), (-0.05, 0.0)):
            hip = self._turned(place * self.long, -0.7 * self.deep, self.pose.slope)
            legs.append(hip + np.array([(0, 0), (-0.045, -0.5 * length), (0.02 + step, -length)]))
        return self.local(np.array(legs))

    def limbs(self) -> Layer:
        """Draw what is behind the body: tail, legs, bill and crest."""
        layer = Layer(self.size)
        self._draw_tail(layer)
        self._draw_legs(layer)
        self._draw_bill(layer)
        if self.looks["crest"] == "crested":
            self._draw_crest(layer)
        self.parts["crown"] = self._face([(-0.05, 0.85)])[0]
        return layer

    def _draw_tail(self, layer: Layer) -> None:
        color = mix(self.colors["wing_color"], self.colors["back_color"], 0.35)
        shape = shapes.TAIL[self.looks["tail_shape"]]
        outline = self.tail(shape) if self.looks["tail_shape"] in ("square", "forked") else spline(self.tail(shape))
        layer.fill(outline, mix(color, _DARK, 0.25))
        for reach in np.linspace(-0.8, 0.8, 5):
            ends = np.array([(0.0, reach * 0.05), (0.26, reach * 0.085)])
            layer.stroke(self.tail(ends), mix(color, _DARK, 0.6), self.unit * 0.012)
            layer.stroke(self.tail(ends + np.array((0, 0.012))), mix(color, _LIGHT, 0.25), self.unit * 0.01)
        rim = np.vstack([outline, outline[:1]])
        layer.stroke(rim, mix(color, _DARK, 0.55), self.unit * 0.012)
        self.parts["tail"] = self.tail([(0.28, 0.0)])[0]

    def _draw_legs(self, layer: Layer) -> None:
        color = self.colors["leg_color"]
        thick = self.unit * 0.036
        for leg, shade in zip(self._legs(), (0.35, 0.0), strict=True):
            ink = mix(color, _DARK, shade)
            layer.stroke(leg, ink, thick)
            layer.dot(leg[1], mix(ink, _DARK, 0.12), thick * 0.62)
            for toe in ((0.12, -0.025), (0.085, -0.05), (0.04, -0.06), (-0.085, -0.035)):
                tip = leg[2] + toe[0] * self.local.across + toe[1] * self.local.up
                layer.stroke(np.stack([leg[2], tip]), ink, thick * 0.72)
                layer.dot(tip, mix(ink, _DARK, 0.45), thick * 0.3)
            layer.dot(leg[2], ink, thick * 0.55)
        self.parts["leg"] = self._legs()[1, 1:].mean(axis=0)

    def _draw_bill(self, layer: Layer) -> None:
        color = self.colors["bill_color"]
        upper, lower = shapes.BILL[self.looks["bill_shape"]]
        start = (0.86 * self.head_radius * (1 - 0.35 * self.pose.head_turn), -0.1 * self.head_radius)
        frame = self.head.child(start, 0.0, 1 - 0.5 * self.pose.head_turn)
        top = spline(np.vstack([[(-0.05, upper[0, 1])], upper]), closed=False)
        bottom = spline(np.vstack([lower, [(-0.05, lower[-1, 1])]]), closed=False)
        layer.fill(frame(np.vstack([top, bottom])), color)
        gape = (upper[:-1] + lower[::-1][: len(upper) - 1]) / 2
        under = np.vstack([bottom, spline(gape, closed=False)])
        layer.fill(frame(under), mix(color, _DARK, 0.28))
        shine = 0.55 * upper[:-1] + 0.45 * gape
        layer.stroke(frame(spline(shine[:2], closed=False)), mix(color, _LIGHT, 0.5), self.unit * 0.014)
        layer.stroke(frame(spline(gape, closed=False)), mix(color, _DARK, 0.55), self.unit * 0.01)
        self.parts["bill"] = frame(gape[1:2])[0]

    def _draw_crest(self, layer: Layer) -> None:
        color = self.colors["crown_color"]
        for degrees, length, root in ((162, 1.15, -0.72), (142, 1.35, -0.5), (124, 1.3, -0.22), (108, 1.05, 0.08)):
            shade = (degrees - 108) / 250
            plume = self.head.child((root * self.head_radius, 0.72 * self.head_radius), degrees)
            outline = spline(plume(shapes.PLUME * (length * self.head_radius, self.head_radius)))
            layer.fill(outline, mix(color, _DARK, shade))
            layer.stroke(np.vstack([outline, outline[:1]]), mix(color, _DARK, shade + 0.25), self.unit * 0.01)
            quill = np.array([(0.2, 0), (0.6, 0.05), (0.98, 0.03)]) * (length * self.head_radius, self.head_radius)
            layer.stroke(plume(quill), mix(color, _DARK, shade + 0.3), self.unit * 0.01)

    def silhouette(self) -> Layer:
        """The outline of head and trunk, one smooth curve."""
        layer = Layer(self.size)
        polar = np.radians([-35, 0, 40, 80, 120, 152])
        reach = np.array([0.98, 1.0, 1.03, 1.05, 1.03, 0.99]) * self.head_radius
        head = self.head(np.stack([np.cos(polar) * reach, np.sin(polar) * reach], axis=1))
        trunk = self._body(shapes.TRUNK)
        layer.fill(spline(np.vstack([head, trunk])), (255, 255, 255))
        self.parts["body"] = self._body([(0.0, 0.0)])[0]
        return layer

    def underparts(self) -> Layer:
        """The lower side of the trunk, which has the belly's color."""
        layer = Layer(self.size)
        layer.fill(self._body(shapes.UNDERPARTS), (255, 255, 255))
        return layer

    def cheek(self) -> Layer:
        """The sides of the head, paler than the back."""
        layer = Layer(self.size)
        layer.fill(spline(self._face(shapes.CHEEK)), (255, 255, 255))
        return layer

    def plumage(self) -> Layer:
        """Marks on head and trunk: feathers, breast pattern, throat, crown, stripe and eye."""
        layer = Layer(self.size)
        unit = self.unit
        starts = self.rng.uniform((-1.0, -1.0), (0.9, 1.0), (90, 2))
        for feather in self._body(np.stack([starts, starts - (0.09, 0.03)], axis=1)):
            light = self.rng.random() > 0.5
            layer.stroke(feather, _LIGHT if light else _DARK, unit * 0.012, 0.22 if light else 0.16)
        self._draw_breast(layer)
        layer.fill(spline(self._face(shapes.THROAT)), self.colors["throat_color"])
        self.parts["throat"] = self._face([(0.55, -0.75)])[0]
        crown = self.colors["crown_color"]
        layer.fill(spline(self._face(shapes.CAP)), crown)
        for u in (-0.7, -0.35, 0.0, 0.35):
            layer.stroke(self._face([(u + 0.2, 0.92), (u - 0.12, 0.72)]), mix(crown, _DARK, 0.22), unit * 0.012)
        if self.looks["eye_stripe"] == "striped":
            layer.fill(spline(self._face(shapes.STRIPE)), _DARK)
        self._draw_eye(layer)
        self.parts["breast"] = self._body([(0.72, -0.2)])[0]
        self.parts["belly"] = self._body([(0.12, -0.7)])[0]
        self.parts["back"] = self._body([(-0.05, 0.68)])[0]
        return layer

    def _draw_breast(self, layer: Layer) -> None:
        pattern, unit = self.looks["breast_pattern"], self.unit
        ink = mix(self.colors["belly_color"], _DARK, 0.8)
        jitter = self.rng.uniform(-0.035, 0.035, (5, 6, 2))
        if pattern == "banded":
            layer.fill(spline(self._body(shapes.BAND)), ink)
        elif pattern != "plain":
            for row in range(5):
                for column in range(6):
                    u = 0.86 - 0.2 * row + jitter[row, column, 0]
                    v = 0.18 - 0.2 * column - (0.1 if row % 2 else 0) + jitter[row, column, 1] - 0.12 * row
                    if pattern == "spotted":
                        layer.dot(self._body([(u, v)])[0], ink, unit * 0.024)
                    else:
                        layer.stroke(self._body([(u + 0.09, v + 0.02), (u - 0.11, v - 0.02)]), ink, unit * 0.02)

    def _draw_eye(self, layer: Layer) -> None:
        at, unit = self._face([(0.36 - 0.2 * self.pose.head_turn, 0.1)])[0], self.unit
        if self.looks["eye_ring"] == "ringed":
            layer.dot(at, _LIGHT, unit * 0.085)
        radius = unit * 0.05
        layer.dot(at, (92, 58, 36), radius)
        layer.dot(at, (18, 14, 18), radius * 0.8)
        layer.dot(at + radius * np.array([-0.3, -0.38]), (255, 255, 255), radius * 0.34)
        self.parts["eye"] = at

    def folded_wing(self) -> Layer:
        """The near wing, resting on the side."""
        layer = Layer(self.size)
        unit, color = self.unit, self.colors["wing_color"]
        stretch = np.array([self.long / 0.42, self.deep / 0.27])
        layer.fill(spline(self.wing(shapes.WING * stretch)), color)
        flight = mix(color, _DARK, 0.35)
        layer.fill(spline(self.wing(shapes.FLIGHT * stretch)), flight)
        for share in np.linspace(0, 1, 6):
            start = (-0.31, 0.08 - 0.21 * share)
            end = (-0.56 - 0.14 * (1 - abs(share - 0.45)), 0.02 - 0.09 * share)
            line = np.array([start, end]) * stretch
            layer.stroke(self.wing(line), mix(color, _LIGHT, 0.22), unit * 0.011)
            layer.stroke(self.wing(line + np.array((0, -0.014))), mix(color, _DARK, 0.65), unit * 0.012)
        for row, (u, count) in enumerate(((-0.05, 3), (-0.12, 4), (-0.19, 5))):
            for k in range(count):
                v = (k + 0.5) / count * 0.22 - 0.125
                arc = np.array([(u, v + 0.022), (u - 0.03, v + 0.012), (u - 0.03, v - 0.012), (u, v - 0.022)]) * stretch
                layer.stroke(self.wing(arc), mix(color, _DARK if row % 2 else _LIGHT, 0.3), unit * 0.012)
        if self.looks["wing_bars"] == "barred":
            for u in (-0.15, -0.31):
                bar = [(u + 0.03, 0.11), (u - 0.02, 0.06), (u - 0.035, -0.02), (u - 0.01, -0.1), (u + 0.01, -0.145)]
                layer.stroke(spline(self.wing(np.array(bar) * stretch), closed=False), _LIGHT, unit * 0.045)
        self.parts["wing"] = self.wing(np.array([(-0.33, -0.03)]) * stretch)[0]
        return layer


def _over(field: np.ndarray, color: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Blend a color (already multiplied by its cover) over a field."""
    result: np.ndarray = field * (1 - cover) + color
    return result


def _shaded(color: np.ndarray, cover: np.ndarray, light: tuple[float, float], size: int) -> np.ndarray:
    """Shade a layer to look round: light from one side, a darker rim."""
    round_, rim = relief(cover[..., 0], light, size * 0.045), relief(cover[..., 0], light, size * 0.016)
    result: np.ndarray = np.minimum(color * (1 + np.clip(0.75 * round_ + 0.4 * rim, -0.42, 0.3))[..., None], cover)
    return result


def _flat(color: Color) -> np.ndarray:
    return np.clip(np.array(color, dtype=np.float32) / 255, 0, 1)


def draw(appearance: Appearance, rng: np.random.Generator, size: int = 128) -> tuple[Image.Image, dict[str, Part], Box]:
    """Draw one image of a bird with the given appearance.

    The same generator state gives the same image; another appearance keeps pose, light and surroundings.

    Args:
        appearance: the value of every group of `attributes.GROUPS`.
        rng: source of pose, light and surroundings.
        size: side of the square image in pixels.

    Returns:
        The image, the position of every part, and the bird's bounding box.
    """
    pose_rng, plumage_rng, scene_rng, front_rng, grain_rng = (
        np.random.default_rng(int(seed)) for seed in rng.integers(2**63, size=5)
    )
    pose = _Pose.sample(pose_rng)
    bird = _Bird(appearance, pose, plumage_rng, size)
    scene = scenery.SCENES[int(scene_rng.integers(len(scenery.SCENES)))]
    field = scenery.background(scene, scene_rng, size)

    support = props.stand(scenery.stand_for(scene, scene_rng), scene_rng, size, bird.feet(), bird.unit)
    for layer in (support, bird.limbs()):
        color, limbs_cover = layer.reduced()
        field = _over(field, _shaded(color, limbs_cover, pose.light, size), limbs_cover)

    outline = bird.silhouette().reduced()[1]
    soft = size * 0.01
    back, belly = _flat(bird.colors["back_color"]), _flat(bird.colors["belly_color"])
    coat = back + (belly - back) * bird.underparts().reduced(soft)[1]
    face = _flat(mix(mix(bird.colors["back_color"], bird.colors["belly_color"], 0.5), _LIGHT, 0.45))
    coat = coat + (face - coat) * bird.cheek().reduced(soft)[1]
    coat = coat * (0.94 + 0.12 * smooth_noise(plumage_rng, (24, 24), size)[..., None])
    coat = _over(coat, *bird.plumage().reduced())
    wing_color, wing_cover = bird.folded_wing().reduced()
    drop = max(1, round(size * 0.016))
    coat = coat * (1 - 0.38 * np.roll(soften(wing_cover[..., 0], size * 0.015), drop, axis=0)[..., None])
    body = _shaded(coat * outline, outline, pose.light, size)
    field = _over(field, body, outline)
    field = _over(field, _shaded(wing_color, wing_cover, pose.light, size), wing_cover)

    bird_cover = np.max([outline, wing_cover, limbs_cover], axis=0)[..., 0]
    front_color, front_cover = props.occluders(front_rng, size, bird.unit)
    field = _over(field, front_color, front_cover)
    image = _photograph(field, pose, grain_rng)

    parts = {
        name: _located(place / SUPERSAMPLING, front_cover[..., 0], size) for name, place in sorted(bird.parts.items())
    }
    return image, parts, _bounds(bird_cover)


def _photograph(field: np.ndarray, pose: _Pose, rng: np.random.Generator) -> Image.Image:
    """Light, focus and sensor."""
    size = len(field)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    fall = 1 - 0.1 * (axis[:, None] ** 2 + axis[None] ** 2)
    slant = 1 + 0.1 * (axis[None] * pose.light[0] + axis[:, None] * pose.light[1])
    field = field * (fall * slant)[..., None] * (pose.gain * pose.cast).astype(np.float32)
    near = (field + np.roll(field, 1, 0) + np.roll(field, -1, 0) + np.roll(field, 1, 1) + np.roll(field, -1, 1)) / 5
    field = field + (near - field) * pose.softness * min(1.0, size / 128)
    field = field + rng.standard_normal(field.shape, dtype=np.float32) * pose.grain
    return Image.fromarray((np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8))


def _located(place: np.ndarray, front: np.ndarray, size: int) -> Part:
    """Whether a part is visible: inside the image, and nothing in front covers more than half of it."""
    x, y = float(place[0]), float(place[1])
    inside = 0 <= x < size and 0 <= y < size
    reach = max(1, size // 64)
    row, column = int(np.clip(y, 0, size - 1)), int(np.clip(x, 0, size - 1))
    near = front[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    return Part(x, y, bool(inside and near.mean() < 0.5))


def _bounds(cover: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(cover.max(axis=1) > 0.5), np.flatnonzero(cover.max(axis=0) > 0.5)
    x, y = int(columns[0]), int(rows[0])
    return Box(x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
