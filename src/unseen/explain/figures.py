"""Heat maps over pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unseen.files import write_with
from unseen.recognizer import Explanation


def overlay(
    picture: Image.Image, heat: np.ndarray, crop: tuple[float, float, float, float], strength: float = 0.6
) -> Image.Image:
    """A heat map laid over what the network saw of a picture; the rest is dimmed.

    Args:
        picture: upright RGB.
        heat: ``(h, w)``, not negative; scaled to its own maximum.
        crop: left, top, right, bottom in pixels.
        strength: opacity at the maximum.
    """
    import matplotlib

    left, top, right, bottom = (round(v) for v in crop)
    size = (max(right - left, 1), max(bottom - top, 1))
    scaled = heat / max(float(heat.max()), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    full = np.zeros((picture.height, picture.width), dtype=np.float32)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    full[y0:y1, x0:x1] = smooth[y0 - top : y1 - top, x0 - left : x1 - left]
    inside = np.zeros_like(full)
    inside[y0:y1, x0:x1] = 1
    pixels = np.asarray(picture, dtype=np.float32) / 255 * (0.45 + 0.55 * inside[..., None])
    colours = matplotlib.colormaps["inferno"](full)[..., :3]
    opacity = (strength * full)[..., None]
    return Image.fromarray((255 * (pixels * (1 - opacity) + colours * opacity)).astype(np.uint8))


def label(name: str) -> str:
    """An attribute as people write it: ``has_bill_shape::hooked`` becomes ``bill shape: hooked``."""
    return name.removeprefix("has_").replace("::", ": ").replace("_", " ")


def explanation_figure(explanation: Explanation, path: Path, top: int = 6) -> None:
    """Picture, evidence bars and a heat map for each of the strongest attributes, as PNG.

    Args:
        explanation: from :meth:`unseen.Recognizer.explain`.
        path: the PNG to write.
        top: how many attributes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reasons = [r for r in explanation.reasons if r.evidence > 0][:top]
    columns = 3
    rows = 1 + -(-max(len(reasons), 1) // columns)
    figure = Figure(figsize=(11, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, columns)
    axis = figure.add_subplot(grid[0, 0])
    axis.imshow(explanation.picture)
    left, top_edge, right, bottom = explanation.crop
    axis.add_patch(_rectangle(left, top_edge, right, bottom))
    best = explanation.target
    axis.set_title(f"{best.name} ({100 * best.confidence:.0f}%{'' if best.seen else ', unseen'})", fontsize=10)
    axis.axis("off")
    _bars(figure.add_subplot(grid[0, 1:]), explanation, 2 * top)
    for i, reason in enumerate(reasons):
        axis = figure.add_subplot(grid[1 + i // columns, i % columns])
        axis.imshow(overlay(explanation.picture, explanation.heat(reason.attribute), explanation.crop))
        axis.set_title(f"{label(reason.attribute)}  {reason.evidence:+.2f}", fontsize=10)
        axis.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def _rectangle(left: float, top: float, right: float, bottom: float):  # type: ignore[no-untyped-def]
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), right - left, bottom - top, fill=False, linestyle="--", edgecolor="white")


def _bars(axis, explanation: Explanation, count: int) -> None:  # type: ignore[no-untyped-def]
    """Evidence for the class against its rival, strongest either way."""
    chosen = sorted(explanation.reasons, key=lambda r: -abs(r.against))[:count]
    chosen.sort(key=lambda r: r.against)
    colours = ["#2a7f62" if r.against > 0 else "#b5533c" for r in chosen]
    axis.barh([label(r.attribute) for r in chosen], [r.against for r in chosen], color=colours)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_title(f"evidence for {explanation.target.name} against {explanation.rival.name}", fontsize=10)
    axis.tick_params(labelsize=8)


def thumbnail(picture: Image.Image, size: int = 200) -> Image.Image:
    """A copy no larger than ``size`` on either side."""
    small = picture.copy()
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    return small
