"""How T1 and H depend on a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unseen.evaluation.registry import HEADLINES
from unseen.ground.extras import require
from unseen.ground.files import write_with

METRIC_COLORS = dict(zip(HEADLINES, ("#1f6f54", "#b5533c"), strict=True))
STYLES = {"paper": ":"}
"""Of views that are not solid."""


def axis_scale(values: list[float]) -> tuple[str, dict[str, float]]:
    """Matplotlib's scale for the values of a setting: logarithmic if they span decades, with 0 allowed."""
    positive = [v for v in values if v > 0]
    if not positive or min(values) < 0 or max(positive) < 10 * min(positive):
        return "linear", {}
    return ("log", {}) if len(positive) == len(values) else ("symlog", {"linthresh": min(positive)})


def _spread(views: list[str], rows: list[dict[str, Any]]) -> str:
    """What the bars show, if anything: the spread over seeds or over class hold-outs."""
    held = "hold-outs" in views
    count = max((row["hold-outs"]["draws"] if held else len(row["seeds"]) for row in rows), default=1)
    return f" (mean ± spread of {count} {'hold-outs' if held else 'seeds'})" if count > 1 else ""


def write_sweep(found: dict[str, Any], key: str, values: list[float], path: Path) -> str:
    """Draw mean and spread over seeds (or class hold-outs) of T1 and H against a setting, as PNG and SVG.

    Args:
        found: content of ``compare.json``, with one row per value.
        key: name of the setting.
        values: values in the order of the rows.
        path: path of the files, without suffix.

    Returns:
        The SVG element.
    """
    require("matplotlib")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    done = [(value, row) for value, row in zip(values, found["rows"], strict=True) if row["error"] is None]
    done.sort(key=lambda pair: pair[0])
    for view in found["views"]:
        for metric, color in METRIC_COLORS.items():
            entries = [(value, row[view]["metrics"][metric]) for value, row in done]
            points = [(v, 100 * e["mean"], 100 * e["std"]) for v, e in entries if e["mean"] is not None]
            if points:
                x, mean, spread = zip(*points, strict=True)
                axes.errorbar(
                    x, mean, yerr=spread, color=color, linestyle=STYLES.get(view, "-"), marker="o", markersize=5,
                    capsize=3, label=f"{metric}, {view}",
                )  # fmt: skip
    scale, options = axis_scale(values)
    axes.set_xscale(scale, **options)
    axes.set_xticks(values, [f"{v:g}" for v in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(key)
    axes.set_ylabel("%")
    axes.set_title(found["title"] + _spread(found["views"], [row for _, row in done]), fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if done:
        axes.legend(frameon=False, fontsize=9)
    with matplotlib.rc_context({"svg.hashsalt": "unseen"}):
        write_with(path.with_name(f"{path.name}.png"), lambda file: figure.savefig(file, dpi=150, format="png"))
        vector = path.with_name(f"{path.name}.svg")
        write_with(vector, lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
    text = vector.read_text(encoding="utf-8")
    return text[text.index("<svg") :]
