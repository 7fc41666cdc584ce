"""What a model's learned parts attend to in a picture: the disentanglement of its regions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unseen.explain.figures import overlay
from unseen.files import write_with
from unseen.recognizer import PartMaps


def strongest_part(found: PartMaps, level: str) -> Image.Image:
    """The picture with every pixel in the colour of the part that it belongs to most.

    Args:
        found: from :meth:`unseen.Recognizer.parts`.
        level: one of its sub-nets.
    """
    colours = part_colours(len(found.maps[level]))
    left, top, right, bottom = (round(v) for v in found.crop)
    size = (max(right - left, 1), max(bottom - top, 1))
    shares = [
        np.asarray(Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for share in found.maps[level]
    ]
    painted = (255 * colours[np.argmax(shares, axis=0)]).astype(np.uint8)
    layer = Image.new("RGB", found.picture.size)
    layer.paste(Image.fromarray(painted), (left, top))
    grey = found.picture.convert("L").convert("RGB")
    return Image.blend(grey, layer, 0.5)


def part_colours(count: int) -> np.ndarray:
    """``(count, 3)`` colours of parts, each from 0 to 1."""
    import matplotlib

    return np.array([matplotlib.colormaps["tab10"](p % 10)[:3] for p in range(count)])


def parts_figure(found: PartMaps, path: Path) -> None:
    """A column a level, shallow to deep: the strongest part everywhere, then each part's share as a heat map, as PNG.

    A heat map runs from its own minimum to its maximum; the numbers above it are the least and the largest share of a
    position, since shares can be nearly even.

    Args:
        found: from :meth:`unseen.Recognizer.parts`.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels, most = list(found.maps), max(len(maps) for maps in found.maps.values())
    ratio = found.picture.height / found.picture.width
    figure = Figure(figsize=(2.6 * len(levels), (2.6 * min(max(ratio, 0.5), 2) + 0.35) * (most + 1)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(most + 1, len(levels), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for column, level in enumerate(levels):
        maps = found.maps[level]
        axes[0, column].imshow(strongest_part(found, level))
        axes[0, column].set_title(f"{level}, {maps.shape[1]} x {maps.shape[2]}", fontsize=13)
        for p, (share, colour) in enumerate(zip(maps, part_colours(len(maps)), strict=True)):
            axis = axes[p + 1, column]
            axis.imshow(overlay(found.picture, share, found.crop))
            said = f"part {p + 1}: {100 * share.min():.0f}-{100 * share.max():.0f}%"
            axis.set_title(said, fontsize=13, color=tuple(0.75 * colour), fontweight="bold")
    figure.tight_layout(pad=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
