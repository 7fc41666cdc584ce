"""Heat maps over images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unseen.classes.naming import label
from unseen.errors import DataError
from unseen.explain.sheet import AGAINST, FOR, class_label, new_figure, shorten, style
from unseen.ground.extras import require
from unseen.ground.files import write_with
from unseen.ground.images import open_image
from unseen.model.predictions import AVERAGE
from unseen.model.references import Neighbour
from unseen.recognizer import Candidate, Explanation, Reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

ENDINGS = ("png", "jpg", "jpeg", "pdf", "svg")
WIDTH = 11.0
"""Width of the figure of an explanation, in inches."""
DRAWN = 700
"""Longer side of images in it, in pixels."""
ELONGATED = 1.8
"""Images with a larger ratio of sides have a layout of their own."""


def overlay(
    image: Image.Image, heat: np.ndarray, crop: tuple[float, float, float, float], strength: float = 0.5
) -> Image.Image:
    """A heat map over what the network saw of an image; the rest is dimmed.

    Args:
        image: upright RGB.
        heat: ``(h, w)``; its minimum is transparent, its maximum has full strength.
        crop: left, top, right, bottom in pixels.
        strength: opacity at the maximum.
    """
    require("matplotlib")
    import matplotlib

    left, top, right, bottom = (round(v) for v in crop)
    size = (max(right - left, 1), max(bottom - top, 1))
    scaled = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    full = np.zeros((image.height, image.width), dtype=np.float32)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    full[y0:y1, x0:x1] = smooth[y0 - top : y1 - top, x0 - left : x1 - left]
    inside = np.zeros_like(full)
    inside[y0:y1, x0:x1] = 1
    pixels = np.asarray(image, dtype=np.float32) / 255 * (0.45 + 0.55 * inside[..., None])
    colors = matplotlib.colormaps["inferno"](full)[..., :3]
    opacity = (strength * full)[..., None]
    return Image.fromarray((255 * (pixels * (1 - opacity) + colors * opacity)).astype(np.uint8))


def said(reason: Reason) -> str:
    """An attribute with its role in the decision: ``(absent)`` if its score is below that of an average image."""
    return label(reason.attribute) + (" (absent)" if reason.score < reason.typical else "")


def account(explanation: Explanation, count: int) -> tuple[list[Reason], list[tuple[str, float, float]]]:
    """The strongest attributes and the remainder: (name, evidence, against) of the others and of every term.

    Evidence sums to the target's class score, ``against`` to its lead over the rival.
    """
    shown = explanation.strongest(count)
    others = [r for r in explanation.strongest(len(explanation.reasons)) if r not in shown]
    rest = []
    if others:
        name = _others(len(others))
        rest.append((name, sum(r.evidence for r in others), sum(r.against for r in others)))
    return shown, rest + [(term.name, term.evidence, term.against) for term in explanation.terms]


def _others(count: int) -> str:
    return f"{count} other attribute{'' if count == 1 else 's'}"


def _signed(value: float) -> str:
    """Two digits after the point, or three for small scores."""
    return f"{value:+.3f}" if abs(value) < 0.095 else f"{value:+.2f}"


def neighbours(explanation: Explanation, images: Path | None) -> list[tuple[Neighbour, Image.Image | None]]:
    """Thumbnails of the nearest training images; ``None`` for one that cannot be read.

    Args:
        explanation: the explanation.
        images: folder of the training images, if it exists.
    """
    found: list[tuple[Neighbour, Image.Image | None]] = []
    for near in explanation.nearest:
        try:
            found.append((near, None if images is None else thumbnail(open_image(images / near.file))))
        except DataError:
            found.append((near, None))
    return found


def attribute_maps(explanation: Explanation, folder: Path) -> list[Path]:
    """Write a heat map over the image for every attribute, as PNG; file names start with the attribute's position."""
    image, crop = _smaller(explanation)
    paths = []
    for name, k in explanation.order.items():
        stem = re.sub(r"[^\w.-]+", "-", name)
        path = folder / f"{k + 1:03d}-{stem}.png"
        drawn = overlay(image, explanation.heat(name), crop)
        write_with(path, lambda temporary, drawn=drawn: drawn.save(temporary, "PNG"))  # type: ignore[misc]
        paths.append(path)
    return paths


def explanation_figure(
    explanation: Explanation,
    path: Path,
    top: int = 6,
    nearest: Sequence[tuple[Neighbour, Image.Image | None]] = (),
) -> None:
    """Image, evidence, lead over the rival, a heat map for each of the strongest attributes, and similar images.

    Args:
        explanation: from :meth:`unseen.Recognizer.explain`.
        path: file to write; its extension is one of :data:`ENDINGS`.
        top: number of attributes.
        nearest: see :func:`neighbours`; leaves out those without an image.
    """
    image, crop = _smaller(explanation)
    shape = image.width / image.height
    reasons = explanation.looked_for(top)
    shown = [(near, small) for near, small in nearest if small is not None]
    maps = [_map(explanation, reason, image, crop) for reason in reasons]
    columns = 3 if maps and maps[0].width >= 0.8 * maps[0].height else 4
    rows = -(-len(reasons) // columns)
    heights = {"wide": min(WIDTH / shape, 4.0) + 0.6} if shape > ELONGATED else {}
    heights |= {"evidence": max(3.4, 0.19 * (2 * top + 3)) + 0.5}
    heights |= {"heat": rows * (WIDTH / columns * maps[0].height / maps[0].width + 0.3) + 0.3} if rows else {}
    heights |= {"nearest": 2.0} if shown else {}
    with style():
        figure = new_figure(WIDTH, sum(heights.values()))
        bands = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=list(heights.values())).ravel()
        band = dict(zip(heights, bands, strict=True))
        if "wide" in band:
            _image(band["wide"].subplots(), explanation, image, crop)
            left, right = band["evidence"].subplots(1, 2)
        else:
            axis, left, right = band["evidence"].subplots(1, 3, width_ratios=[1.1, 1, 1])
            _image(axis, explanation, image, crop)
        _evidence(left, explanation, 2 * top)
        _lead(right, explanation, 2 * top)
        if rows:
            _heat_maps(band["heat"], reasons, maps, (rows, columns))
        if shown:
            _nearest(band["nearest"], shown)
        form = path.suffix.lower().lstrip(".")
        unstamped = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        write_with(
            path, lambda temporary: figure.savefig(temporary, format=form, dpi=110, metadata=unstamped.get(form))
        )


def _smaller(explanation: Explanation) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The image at drawing size, and the crop on it."""
    small = thumbnail(explanation.image, DRAWN)
    scale = small.width / explanation.image.width
    left, top, right, bottom = (scale * v for v in explanation.crop)
    return small, (left, top, right, bottom)


def _sure(candidate: Candidate) -> str:
    return f"{class_label(candidate.name)} ({100 * candidate.confidence:.0f}%{'' if candidate.seen else ', unseen'})"


def _image(axis: Axes, explanation: Explanation, image: Image.Image, crop: tuple[float, float, float, float]) -> None:
    require("matplotlib")
    from matplotlib.patches import Rectangle

    axis.imshow(image)
    left, top, right, bottom = crop
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, linestyle="--", edgecolor="white"))
    axis.set_xlim(-0.5, image.width - 0.5)  # a crop may extend beyond the image
    axis.set_ylim(image.height - 0.5, -0.5)
    lines = [_sure(explanation.target), f"instead of {_sure(explanation.rival)}"]
    if explanation.coarser or not explanation.prediction.known:
        answer, rank = explanation.prediction.answer, explanation.prediction.answer_rank
        lines.insert(0, f"answer: {answer} ({rank})" if rank else f"answer: {answer}")
    if explanation.before:
        lines.append(f"before correction: {_sure(explanation.before[0])}")
        lines += [f"corrected: {label(name)} = {value:g}" for name, value in explanation.corrections.items()]
    axis.set_title("\n".join(shorten(line, 46) for line in lines), fontsize=8, loc="left")
    axis.axis("off")


def _evidence(axis: Axes, explanation: Explanation, count: int) -> None:
    """Contributions to the score of the class: attributes for and against it."""
    strongest = sorted((r for r in explanation.reasons if r.evidence), key=lambda r: -abs(r.evidence))
    shown, others = strongest[:count], strongest[count:]
    bars = [(_others(len(others)), sum(r.evidence for r in others))] if others else []
    bars += [(said(r), r.evidence) for r in sorted(shown, key=lambda r: r.evidence)]
    bars += [(term.name, term.evidence) for term in explanation.terms if term.evidence and term.name != AVERAGE]
    _bars(axis, bars, f"for {class_label(explanation.target.name)}")
    for term in explanation.terms:
        if term.name == AVERAGE:  # it would dwarf the bars, and separates no classes
            axis.set_xlabel(f"{term.name}: {term.evidence:+.3f}", fontsize=7)


def _lead(axis: Axes, explanation: Explanation, count: int) -> None:
    """Contributions to the lead of the class over its rival."""
    shown, rest = account(explanation, count)
    terms = {term.name for term in explanation.terms}
    bars = [(name, against) for name, _, against in rest if name not in terms]
    bars += [(said(r), r.against) for r in sorted(shown, key=lambda r: r.against)]
    bars += [(name, against) for name, _, against in reversed(rest) if name in terms and against]
    _bars(axis, bars, f"over {class_label(explanation.rival.name)}")


def _bars(axis: Axes, bars: Sequence[tuple[str, float]], title: str) -> None:
    """Bars to the right for, and to the left against."""
    places = range(len(bars))
    axis.barh(places, [value for _, value in bars], color=[FOR if value > 0 else AGAINST for _, value in bars])
    axis.set_yticks(places, [shorten(name, 34) for name, _ in bars])
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_title(shorten(title, 36), fontsize=9)
    axis.tick_params(labelsize=7)
    axis.locator_params(axis="x", nbins=4)


def _map(
    explanation: Explanation, reason: Reason, image: Image.Image, crop: tuple[float, float, float, float]
) -> Image.Image:
    """The heat map of an attribute; for elongated images only of what the network saw."""
    drawn = overlay(image, explanation.heat(reason.attribute), crop)
    if 1 / ELONGATED <= image.width / image.height <= ELONGATED:
        return drawn
    left, top, right, bottom = (round(v) for v in crop)
    return drawn.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))


def _heat_maps(band: SubFigure, reasons: Sequence[Reason], maps: Sequence[Image.Image], grid: tuple[int, int]) -> None:
    band.suptitle("where the model looked", fontsize=10, fontweight="bold")
    axes = band.subplots(*grid, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, reason, drawn in zip(axes, reasons, maps, strict=False):
        axis.imshow(drawn)
        axis.set_title(f"{shorten(label(reason.attribute), 34)}  {_signed(reason.evidence)}", fontsize=9)


def _nearest(band: SubFigure, shown: Sequence[tuple[Neighbour, Image.Image]]) -> None:
    band.suptitle("training images with the most similar attribute scores", fontsize=10, fontweight="bold")
    for axis, (near, small) in zip(band.subplots(1, max(len(shown), 6), squeeze=False).ravel(), shown, strict=False):
        axis.imshow(small)
        axis.set_title(f"{shorten(class_label(near.name), 22)}\n{near.similarity:.2f}", fontsize=8)
    for axis in band.axes:
        axis.axis("off")


def thumbnail(image: Image.Image, size: int = 200) -> Image.Image:
    """A copy no larger than ``size`` on either side."""
    small = image.copy()
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    return small
