"""What a model's learned parts attend to in an image: how its regions are separated."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unseen.ground.extras import require
from unseen.ground.files import write_with
from unseen.recognizer import PartMaps

DARK = 0.15
"""Brightness where a part has no share."""


def shares_over_image(found: PartMaps, level: str) -> np.ndarray:
    """``(P, height, width)`` shares of every pixel of the image, 0 outside of what the network saw.

    Args:
        found: from :meth:`unseen.Recognizer.parts`.
        level: name of a sub-net.
    """
    left, top, right, bottom = (round(v) for v in found.crop)
    size = (max(right - left, 1), max(bottom - top, 1))
    full = []
    for share in found.maps[level]:
        layer = Image.new("F", found.image.size)
        layer.paste(Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BICUBIC), (left, top))
        full.append(np.asarray(layer).clip(0, 1))
    return np.stack(full)


def part_colors(count: int) -> np.ndarray:
    """``(count, 3)`` colors of parts, each from 0 to 1."""
    require("matplotlib")
    import matplotlib

    return np.array([matplotlib.colormaps["tab10"](p % 10)[:3] for p in range(count)])


def strongest_part(shares: np.ndarray, image: Image.Image) -> Image.Image:
    """The image in gray, with every pixel tinted in the color of its strongest part.

    Args:
        shares: ``(P, height, width)``; pixels without any stay gray and dark.
        image: image of that size.
    """
    colors = part_colors(len(shares))[shares.argmax(axis=0)] * (shares.sum(axis=0) > 0)[..., None]
    grey = image.convert("L").convert("RGB")
    return Image.blend(grey, Image.fromarray((255 * colors).astype(np.uint8)), 0.5)


def lit_by(share: np.ndarray, image: Image.Image) -> Image.Image:
    """The image, as bright as a part's share ``(height, width)`` of every pixel."""
    light = DARK + (1 - DARK) * share[..., None]
    return Image.fromarray((np.asarray(image) * light).astype(np.uint8))


def parts_figure(found: PartMaps, path: Path) -> None:
    """One column per level, shallow to deep: the strongest part everywhere, then the image lit by each part, as PNG.

    Brightness is the share itself, not rescaled; the number above is the largest share of any position.

    Args:
        found: from :meth:`unseen.Recognizer.parts`.
        path: PNG file to write.
    """
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels, most = list(found.maps), max(len(maps) for maps in found.maps.values())
    ratio = min(max(found.image.height / found.image.width, 0.5), 2)
    figure = Figure(figsize=(2.6 * len(levels), (2.6 * ratio + 0.35) * (most + 1)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(most + 1, len(levels), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for column, level in zip(axes.T, levels, strict=True):
        maps, shares = found.maps[level], shares_over_image(found, level)
        column[0].imshow(strongest_part(shares, found.image))
        column[0].set_title(f"{level}, {maps.shape[1]} x {maps.shape[2]}", fontsize=13)
        for p, color in enumerate(part_colors(len(maps))):
            column[p + 1].imshow(lit_by(shares[p], found.image))
            title = f"part {p + 1}: up to {100 * maps[p].max():.0f}%"
            column[p + 1].set_title(title, fontsize=13, color=tuple(0.75 * color), fontweight="bold")
    figure.tight_layout(pad=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
