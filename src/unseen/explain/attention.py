"""Attention of each sub-net for an attribute, side by side, with the annotated part if there is one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from unseen.backbones.transform import Transform
from unseen.classes.naming import label
from unseen.data.dataset import Dataset
from unseen.errors import DataError
from unseen.evaluation.localisation import parts_of, region_centres
from unseen.explain.figures import overlay
from unseen.explain.sheet import Sheet, class_label, new_figure, style
from unseen.ground.extras import require
from unseen.ground.words import counted
from unseen.recognizer import Explanation

FUSED = "contribution"
"""Column of each region's contribution to the fused attribute score."""


@dataclass(frozen=True)
class Parts:
    """Visible annotated points of one image.

    Args:
        points: attribute to the (part, x, y) that it refers to, in pixels of the upright image.
    """

    points: Mapping[str, list[tuple[str, float, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, file: str) -> Parts:
        """Points of a dataset's image; empty without annotations."""
        try:
            named = parts_of(dataset)
        except DataError:
            return cls()
        frame = dataset.part_positions
        assert frame is not None
        mine = frame[(frame["file"] == file) & frame["visible"].astype(bool)]
        spots = [(p, float(x), float(y)) for p, x, y in zip(mine["part"], mine["x"], mine["y"], strict=True)]
        names = dataset.table.attributes.names
        found = {name: [s for s in spots if s[0] in parts] for name, parts in zip(names, named, strict=True)}
        return cls({name: points for name, points in found.items() if points})


def sub_net_label(name: str) -> str:
    """``a2v`` becomes ``A2V``; longer names stay unchanged."""
    return name.upper() if len(name) <= 3 else name.replace("_", " ")


def signed_overlay(image: Image.Image, heat: np.ndarray, crop: tuple[float, float, float, float]) -> Image.Image:
    """Contributions of regions over what the network saw: red adds, blue subtracts, on a gray image.

    Args:
        image: upright RGB.
        heat: ``(h, w)``; scaled by its largest absolute value.
        crop: left, top, right, bottom in pixels.
    """
    require("matplotlib")
    import matplotlib

    left, top, right, bottom = (round(v) for v in crop)
    size = (max(right - left, 1), max(bottom - top, 1))
    scaled = heat / max(float(np.abs(heat).max()), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(-1, 1)
    full = np.zeros((image.height, image.width), dtype=np.float32)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    full[y0:y1, x0:x1] = smooth[y0 - top : y1 - top, x0 - left : x1 - left]
    grey = 0.3 + 0.6 * np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    colors = matplotlib.colormaps["RdBu_r"](full / 2 + 0.5)[..., :3]
    opacity = 0.8 * np.abs(full)[..., None] ** 0.7
    return Image.fromarray((255 * (grey * (1 - opacity) + colors * opacity)).astype(np.uint8))


def attention_sheet(
    explanation: Explanation,
    transform: Transform,
    parts: Parts,
    name: str,
    title: str,
    origin: str,
    top: int = 5,
) -> Sheet:
    """One row per attribute: the image, the attention of every sub-net, and contributions to the fused score.

    Args:
        explanation: explanation of the image, by a method with attention.
        transform: transform of the backbone.
        parts: annotated points of the image.
        name: name of the files.
        title: title above the figure.
        origin: description of the run for the caption.
        top: number of attributes: among those that are evidence for the predicted class, those that separate it from
            its rival most.
    """
    reasons = explanation.looked_for(top) or explanation.strongest(top)
    maps = {**explanation.attention, FUSED: explanation.contributions}
    image = explanation.image
    grids = {kind: (every.shape[1], every.shape[2]) for kind, every in maps.items()}
    centres = {kind: region_centres(transform, grid, *image.size) for kind, grid in grids.items()}
    shape = np.clip(image.height / image.width, 0.5, 1.5)
    with style():
        figure = new_figure(2.0 + 2.3 * (1 + len(maps)), 1.9 + len(reasons) * (2.3 * shape + 0.2))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        axes = figure.subplots(len(reasons), 1 + len(maps), squeeze=False)
        rows: list[dict[str, Any]] = []
        for i, (line, reason) in enumerate(zip(axes, reasons, strict=True)):
            points = parts.points.get(reason.attribute, [])
            text = "\n".join(textwrap.wrap(label(reason.attribute), 22))
            line[0].set_ylabel(
                f"{text}\nscore {reason.score:+.2f}\nevidence {reason.evidence:+.2f}",
                rotation=0,
                ha="right",
                va="center",
                labelpad=8,
            )
            line[0].imshow(image)
            if i == 0:
                line[0].set_title("image" + (" and annotated part" if parts.points else ""))
            for axis, (kind, every) in zip(line[1:], maps.items(), strict=True):
                heat = every[explanation.order[reason.attribute]]
                lay = signed_overlay if kind == FUSED else overlay
                axis.imshow(lay(image, heat, explanation.crop))
                peak = centres[kind][int(heat.argmax())]
                axis.plot(*peak, "x", color="black", markersize=7, markeredgewidth=3.2)
                axis.plot(*peak, "x", color="#39ff14", markersize=6.5, markeredgewidth=1.6)
                axis.set_title(f"{_column(kind, explanation)}\n" * (i == 0) + f"highest {heat.max():.3g}", fontsize=9)
                rows += _rows(reason.attribute, kind, heat, centres[kind])
            for axis in line:
                for _, x, y in points:
                    axis.plot(x, y, "o", markersize=13, mfc="none", mec="black", mew=3)
                    axis.plot(x, y, "o", markersize=13, mfc="none", mec="white", mew=1.4)
                axis.set(xticks=[], yticks=[], xlim=(-0.5, image.width - 0.5), ylim=(image.height - 0.5, -0.5))
                axis.spines[:].set_visible(False)
        _scales(figure, axes)
    looked = ", ".join(sub_net_label(kind) for kind in explanation.attention)
    target, rival = class_label(explanation.target.name), class_label(explanation.rival.name)
    uncounted = [sub_net_label(kind) for kind in explanation.attention if kind not in explanation.counted]
    caption = (
        f"Attention of {looked} and each region's contribution to the fused attribute score, for "
        f"the {counted(len(reasons), 'attribute')} with the most evidence for {target} over {rival}. Each "
        "map has its own scale; the number above it is its maximum. Cross: strongest region. "
        + ("Ring: annotated part of the attribute. " if parts.points else "")
        + (f"{', '.join(uncounted)}: not part of the class score. " if uncounted else "")
        + f"Evidence: score times class value. {origin}."
    )
    summary = {
        "image": explanation.prediction.image,
        "target": vars(explanation.target),
        "rival": vars(explanation.rival),
        "crop": list(explanation.crop),
        "grids": {kind: list(grid) for kind, grid in grids.items()},
        "counted": list(explanation.counted),
        "attributes": [
            {
                **vars(reason),
                "parts": [{"part": p, "x": x, "y": y} for p, x, y in parts.points.get(reason.attribute, [])],
                "highest": {
                    kind: _peak(every[explanation.order[reason.attribute]], centres[kind])
                    for kind, every in maps.items()
                },
            }
            for reason in reasons
        ],
    }
    return Sheet(name, caption, figure, pd.DataFrame(rows), summary, dpi=110)


def _column(kind: str, explanation: Explanation) -> str:
    if kind == FUSED:
        return "contribution, fused"
    return f"{sub_net_label(kind)} attention" + ("" if kind in explanation.counted else " (not in the score)")


def _peak(heat: np.ndarray, centres: np.ndarray) -> dict[str, float]:
    x, y = centres[int(heat.argmax())]
    return {"x": float(x), "y": float(y), "value": float(heat.max())}


def _rows(attribute: str, kind: str, heat: np.ndarray, centres: np.ndarray) -> list[dict[str, Any]]:
    """One row per region: position of its center in the image, and its value."""
    return [
        {"attribute": attribute, "map": kind, "row": row, "column": column, "x": x, "y": y, "value": float(value)}
        for ((row, column), value), (x, y) in zip(np.ndenumerate(heat), centres, strict=True)
    ]


def _scales(figure, axes: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Color bars under the attention columns and under the contributions."""
    require("matplotlib")
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    attention = ScalarMappable(Normalize(0, 1), "inferno")
    bar = figure.colorbar(attention, ax=axes[:, 1:-1], location="bottom", shrink=0.6, aspect=35, pad=0.01)
    bar.set_ticks([0, 1], labels=["lowest (original image)", "highest"])
    contribution = ScalarMappable(Normalize(-1, 1), "RdBu_r")
    bar = figure.colorbar(contribution, ax=axes[:, -1], location="bottom", shrink=0.9, aspect=20, pad=0.01)
    bar.set_ticks([-1, 0, 1], labels=["lowers", "0", "raises"])
