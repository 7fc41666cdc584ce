"""Heat maps over pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unseen.files import write_with
from unseen.recognizer import Explanation, Reason


def overlay(
    picture: Image.Image, heat: np.ndarray, crop: tuple[float, float, float, float], strength: float = 0.5
) -> Image.Image:
    """A heat map laid over what the network saw of a picture; the rest is dimmed.

    Args:
        picture: upright RGB.
        heat: ``(h, w)``; its own minimum is shown as nothing, its maximum in full.
        crop: left, top, right, bottom in pixels.
        strength: opacity at the maximum.
    """
    import matplotlib

    left, top, right, bottom = (round(v) for v in crop)
    size = (max(right - left, 1), max(bottom - top, 1))
    scaled = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
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


def said(reason: Reason) -> str:
    """An attribute as it bears on the decision: ``(not seen)`` where its score is negative."""
    return label(reason.attribute) + (" (not seen)" if reason.score < 0 else "")


def account(explanation: Explanation, count: int) -> tuple[list[Reason], list[tuple[str, float, float]]]:
    """The strongest attributes, and what remains: (name, evidence, against) of the others and of the offset.

    Evidence adds up to the target's class score, ``against`` to its lead over the rival.
    """
    shown = explanation.strongest(count)
    others = [r for r in explanation.strongest(len(explanation.reasons)) if r not in shown]
    rest = []
    if others:
        name = f"{len(others)} other attributes"
        rest.append((name, sum(r.evidence for r in others), sum(r.against for r in others)))
    if max(abs(explanation.offset), abs(explanation.lead_offset)) > 1e-6:
        rest.append((explanation.offset_name, explanation.offset, explanation.lead_offset))
    return shown, rest


def explanation_figure(explanation: Explanation, path: Path, top: int = 6) -> None:
    """Picture, evidence bars and a heat map for each of the strongest attributes, as PNG.

    Args:
        explanation: from :meth:`unseen.Recognizer.explain`.
        path: the PNG to write.
        top: how many attributes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reasons = explanation.looked_for(top)
    columns = 3
    rows = -(-len(reasons) // columns)
    figure = Figure(figsize=(11, 3.6 * (1 + rows)), layout="constrained")
    FigureCanvasAgg(figure)
    above, *below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, rows]).ravel() if rows else [figure]
    axis, bars = above.subplots(1, 2, width_ratios=[1, 2])
    axis.imshow(explanation.picture)
    left, top_edge, right, bottom = explanation.crop
    axis.add_patch(_rectangle(left, top_edge, right, bottom))
    best = explanation.target
    axis.set_title(f"{best.name} ({100 * best.confidence:.0f}%{'' if best.seen else ', unseen'})", fontsize=10)
    axis.axis("off")
    _bars(bars, explanation, 2 * top)
    grid = below[0].subplots(rows, columns, squeeze=False).ravel() if below else []
    for axis in grid:
        axis.axis("off")
    for axis, reason in zip(grid, reasons, strict=False):
        axis.imshow(overlay(explanation.picture, explanation.heat(reason.attribute), explanation.crop))
        axis.set_title(f"{label(reason.attribute)}  {reason.evidence:+.2f}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def _rectangle(left: float, top: float, right: float, bottom: float):  # type: ignore[no-untyped-def]
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), right - left, bottom - top, fill=False, linestyle="--", edgecolor="white")


def _bars(axis, explanation: Explanation, count: int) -> None:  # type: ignore[no-untyped-def]
    """What makes up the lead of the class over its rival."""
    shown, rest = account(explanation, count)
    bars = [(name, against) for name, _, against in reversed(rest)]
    bars += [(said(r), r.against) for r in sorted(shown, key=lambda r: r.against)]
    colours = ["#2a7f62" if value > 0 else "#b5533c" for _, value in bars]
    axis.barh([name for name, _ in bars], [value for _, value in bars], color=colours)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_title(f"evidence for {explanation.target.name} against {explanation.rival.name}", fontsize=10)
    axis.tick_params(labelsize=8)


def thumbnail(picture: Image.Image, size: int = 200) -> Image.Image:
    """A copy no larger than ``size`` on either side."""
    small = picture.copy()
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    return small
