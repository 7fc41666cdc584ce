"""Soft, out-of-focus backgrounds, and what a bird can stand on in each."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from unseen.fieldguide.canvas import Color, smooth_noise

SCENES = ("sky", "forest", "reeds", "water", "meadow", "dusk")
_STANDS = {
    "sky": ("branch", "post"),
    "forest": ("branch",),
    "reeds": ("branch", "post"),
    "water": ("stone", "post"),
    "meadow": ("turf", "post", "stone"),
    "dusk": ("branch", "stone"),
}
_GREENS = ((92, 124, 62), (124, 150, 78), (70, 104, 66), (150, 166, 84), (104, 132, 92))


def _gradient(size: int, stops: tuple[Color, ...]) -> np.ndarray:
    rows = np.linspace(0, len(stops) - 1, size)
    columns = [np.interp(rows, range(len(stops)), [stop[i] for stop in stops]) for i in range(3)]
    return np.repeat(np.stack(columns, axis=-1)[:, None], size, axis=1).astype(np.float32)


def _discs(
    field: np.ndarray,
    rng: np.random.Generator,
    count: int,
    colors: tuple[Color, ...],
    radius: tuple[float, float],
    rows: tuple[float, float],
    soft: float,
    opacity: float,
) -> np.ndarray:
    """Out-of-focus discs of color over the field."""
    size = len(field)
    sheet = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(sheet)
    for across, down, wide, tall, pick in rng.random((count, 5)):
        x, y = across * size, (rows[0] + down * (rows[1] - rows[0])) * size
        r = (radius[0] + wide * (radius[1] - radius[0])) * size
        h = r * (0.8 + 0.4 * tall)
        c = colors[int(pick * len(colors))]
        ink = tuple(round(channel * opacity) for channel in c)
        pen.ellipse((x - r, y - h, x + r, y + h), fill=(*ink, round(255 * opacity)))
    drawn = np.asarray(sheet.filter(ImageFilter.GaussianBlur(soft * size)), dtype=np.float32)
    return field * (1 - drawn[..., 3:] / 255) + drawn[..., :3]


def _stripes(
    field: np.ndarray, rng: np.random.Generator, count: int, colors: tuple[Color, ...], width: float, soft: float
) -> np.ndarray:
    """Blurred stems that rise from the bottom."""
    size = len(field)
    sheet = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(sheet)
    for across, lean, top, wide, pick in rng.random((count, 5)):
        x, y = across * size, (top * 0.75 - 0.25) * size
        c = colors[int(pick * len(colors))]
        reach = (x, size, x + (lean - 0.5) * 0.35 * size, y)
        pen.line(reach, fill=(*(round(v) for v in c), 255), width=max(1, round(width * size * (0.5 + wide))))
    # Blurring color and cover alike keeps the color multiplied by its opacity.
    drawn = np.asarray(sheet.filter(ImageFilter.GaussianBlur(soft * size)), dtype=np.float32)
    return field * (1 - drawn[..., 3:] / 255) + drawn[..., :3]


def background(scene: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """A soft background, float32 (size, size, 3) in 0..1."""
    octaves = zip((0.55, 0.3, 0.15), ((4, 3), (9, 6), (18, 12)), strict=True)
    cloud = np.sum([share * smooth_noise(rng, cells, size) for share, cells in octaves], axis=0)[..., None]
    if scene == "sky":
        field = _gradient(size, ((142, 186, 220), (186, 214, 230), (228, 232, 226)))
        field += (250 - field) * np.clip(cloud * 2.8 - 1.15, 0, 0.9)
    elif scene == "forest":
        field = _gradient(size, ((112, 136, 84), (142, 160, 100), (78, 98, 62))) * (0.75 + 0.5 * cloud)
        field = _stripes(field, rng, 4, ((84, 72, 56), (104, 90, 68), (64, 68, 50)), 0.07, 0.03)
        field = _discs(field, rng, 22, _GREENS, (0.05, 0.14), (-0.1, 1.1), 0.045, 0.7)
        field = _discs(field, rng, 9, ((226, 226, 160), (198, 212, 140)), (0.02, 0.05), (0, 0.7), 0.01, 0.35)
    elif scene == "reeds":
        field = _gradient(size, ((226, 220, 190), (214, 200, 152), (168, 150, 96))) * (0.88 + 0.24 * cloud)
        field = _stripes(field, rng, 16, ((184, 166, 104), (150, 152, 92), (204, 188, 132)), 0.035, 0.03)
        field = _stripes(field, rng, 9, ((160, 146, 86), (134, 136, 78), (196, 172, 112)), 0.016, 0.01)
    elif scene == "water":
        field = _gradient(size, ((168, 192, 188), (124, 166, 178), (94, 140, 160), (70, 114, 138)))
        ripples = smooth_noise(rng, (26, 3), size)[..., None]
        field += (ripples - 0.5) * np.linspace(10, 60, size, dtype=np.float32)[:, None, None]
        field = _discs(
            field, rng, 14, ((104, 126, 84), (82, 108, 76), (134, 146, 96)), (0.08, 0.2), (-0.12, 0.06), 0.03, 1
        )
    elif scene == "meadow":
        field = _gradient(size, ((198, 220, 226), (222, 228, 202), (160, 178, 96), (112, 142, 66)))
        field *= 0.86 + 0.28 * cloud
        flowers = ((234, 206, 96), (226, 130, 120), (240, 236, 226), (160, 130, 190))
        field = _discs(field, rng, 18, flowers, (0.01, 0.03), (0.55, 1), 0.015, 0.8)
        field = _stripes(field, rng, 5, ((134, 160, 82), (158, 176, 100)), 0.012, 0.02)
    else:
        field = _gradient(size, ((124, 116, 156), (206, 150, 150), (240, 190, 140), (196, 152, 130)))
        field += (250 - field) * np.clip(cloud * 1.4 - 0.7, 0, 0.4)
        field = _discs(field, rng, 12, ((112, 96, 116), (94, 88, 104)), (0.12, 0.28), (0.92, 1.15), 0.025, 0.9)
    return field / 255


def stand_for(scene: str, rng: np.random.Generator) -> str:
    """Something to stand on that fits the scene."""
    choices = _STANDS[scene]
    return choices[int(rng.integers(len(choices)))]
