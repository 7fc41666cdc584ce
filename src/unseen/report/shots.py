"""Curves of accuracy against images per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unseen.evaluation.registry import HEADLINES, REGISTRY
from unseen.ground.files import write_with

LINES = {
    "attributes": ("attributes alone", "#8a8f94", ":"),
    "images": ("images alone", "#b5533c", "--"),
    "both": ("both", "#1f6f54", "-"),
}
METRICS = {name: f"{REGISTRY[name].title} ({name})" for name in HEADLINES}


def write_curves(found: dict[str, Any], path: Path) -> None:
    """Draw T1 and H of every run against images per class, as PNG and SVG.

    Args:
        found: content of ``shots.json``.
        path: path of the files, without suffix.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["name"] for row in found["rows"]))
    figure = Figure(figsize=(9, 3.4 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), len(METRICS), squeeze=False)
    for name, line in zip(names, axes, strict=True):
        rows = [row for row in found["rows"] if row["name"] == name]
        for (metric, title), axis in zip(METRICS.items(), line, strict=True):
            for kind, (label, color, style) in LINES.items():
                points = [(row["shots"], row[kind][metric]) for row in rows if kind in row]
                if points:
                    x, entries = zip(*points, strict=True)
                    mean, spread = ([100 * e[key] for e in entries] for key in ("mean", "sd"))
                    axis.errorbar(
                        x,
                        mean,
                        yerr=spread,
                        color=color,
                        linestyle=style,
                        marker="o",
                        markersize=4,
                        capsize=2,
                        label=label,
                    )
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xticks(found["shots"], [str(n) for n in found["shots"]])
            axis.set_xlabel("images a class")
            axis.set_ylabel("%")
            axis.set_title(f"{name}: {title}", fontsize=10, loc="left")
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=9)
    with matplotlib.rc_context({"svg.hashsalt": "unseen"}):
        write_with(path.with_name(f"{path.name}.png"), lambda file: figure.savefig(file, dpi=150, format="png"))
        write_with(
            path.with_name(f"{path.name}.svg"),
            lambda file: figure.savefig(file, format="svg", metadata={"Date": None}),
        )
