"""A comparison as terminal table, Markdown, LaTeX, CSV, JSON and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from unseen.evaluation.registry import HEADLINES, every_metric
from unseen.ground.files import write_json, write_text
from unseen.ground.words import counted
from unseen.report.latex import latex
from unseen.report.tables import metric_cell, metrics_legend, percent, pixels, rank_rows, validation_words

COLORS = {"honest": "#1f6f54", "paper": "#c07a1c", "validation": "#3b5f8a", "hold-outs": "#7a4f8a"}
EXPLAINED = {
    "honest": "honest: epoch or hyperparameters and calibration are chosen on validation classes; the "
    "test set is used once.",
    "paper": "paper: the best epoch, or hyperparameters, are chosen on the test images, separately for T1 and H, as "
    "much released code does.",
    "validation": "validation: measured on validation classes drawn from the seen classes, at their best "
    "epoch (or hyperparameters) and calibration; no test image is used. For choosing, not "
    "for reporting.",
    "hold-outs": "hold-outs: no unseen class has test images, so some seen classes stand in for them. Without their "
    "images, each row is chosen, calibrated and trained again with its first seed, and then tested on them once.",
}


OVER_CLASSES = (
    " These intervals are for the tested classes. Over classes: the classes are resampled too; with few unseen "
    "classes, which row leads depends on which ones they are."
)


RANKS = "How often the predicted class has the right taxon of each rank:"
"""Title of the table of :func:`level_rows`."""


def signed_cell(entry: dict[str, Any] | None) -> str:
    """A difference in points with its interval."""
    if entry is None or entry["mean"] is None:
        return "–"
    span = "" if entry["low"] is None else f"\n[{points(entry['low'])}, {points(entry['high'])}]"
    return f"{points(entry['mean'])}{span}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def number_cell(row: dict[str, Any], view: str, metric: str) -> str:
    """A metric of a row: mean, spread over seeds or hold-outs, and interval."""
    return metric_cell(row[view]["metrics"].get(metric), row[view].get("draws", len(row["seeds"])))


def resampled_over(found: dict[str, Any]) -> str:
    """What the intervals of a comparison are over."""
    return "images and classes" if "hold-outs" in found["views"] else "images"


def memory_cell(row: dict[str, Any]) -> str:
    """Peak memory in MB."""
    return f"{row['peak_memory_mb']:,}"


def time_cell(seconds: float) -> str:
    """Readable duration."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def against_what(found: dict[str, Any]) -> str:
    """What the rows are compared with, for a column's title."""
    return "best" if found["reference"] is None else str(found["reference"])


def metric_columns(found: dict[str, Any], view: str) -> dict[str, str]:
    """Column of :func:`comparison_rows` to metric, for one protocol."""
    return {f"{view} {metric}": metric for metric in found["metrics"]}


def difference_columns(found: dict[str, Any]) -> list[str]:
    """Columns of :func:`comparison_rows` with differences."""
    names = ["paper − honest"] if {"honest", "paper"} <= set(found["views"]) else []
    names += [f"{view} − {against_what(found)}" for view in found["views"]]
    return [f"{metric}, {name}" for name in names for metric in HEADLINES]


def comparison_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """One row of text per finished variant: the protocols side by side, their differences, and the cost.

    Args:
        found: content of ``compare.json``.
    """
    rows = []
    for row in found["rows"]:
        if row["error"] is not None:
            continue
        cells = {"method": row["name"]}
        for view in found["views"]:
            for column, metric in metric_columns(found, view).items():
                cells[column] = number_cell(row, view, metric)
        gaps = [row["paper_minus_honest"]] if "paper_minus_honest" in row else []
        gaps += [row[view]["against"] for view in found["views"]]
        values = [gap[metric] for gap in gaps for metric in HEADLINES]
        cells |= {name: signed_cell(gap) for name, gap in zip(difference_columns(found), values, strict=True)}
        cells |= {
            "chosen": chosen_cell(row[found["views"][0]]["seeds"]),
            "time": time_cell(row["seconds"]),
            "peak MB": memory_cell(row),
            "preset": row["preset"],
            "seeds": seeds_cell(row),
        }
        rows.append(cells)
    return rows


def level_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """T1, U, S and H of each row at the class and each rank, finest first; empty if the classes have no ranks."""
    rows: list[dict[str, str]] = []
    for row in found["rows"]:
        if row["error"] is not None:
            continue
        views = {view: rank_rows(row[view], row[view].get("draws")) for view in found["views"]}
        for levels in zip(*views.values(), strict=True):
            cells = {
                f"{view} {metric}": text
                for view, level in zip(views, levels, strict=True)
                for metric, text in level.items()
                if metric != "rank"
            }
            rows.append({"method": row["name"], "rank": levels[0]["rank"], **cells})
    return rows


def failures(found: dict[str, Any]) -> list[str]:
    """One line per row without numbers."""
    return [f"{row['name']}: {row['error']}" for row in found["rows"] if row["error"] is not None]


def chosen_cell(seeds: dict[str, Any]) -> str:
    """The epoch of each seed, or the hyperparameters of a closed form; under ``paper`` those of H."""
    texts = []
    for entry in seeds.values():
        picked = {k: v for k, v in entry["chosen"].items() if k not in ("by", "validation")}
        picked = picked.get(HEADLINES[-1], picked)
        epoch = picked.get("epoch")
        said = [f"{k} {v}" if isinstance(v, str) else f"{k} {v:g}" for k, v in picked.items()]
        texts.append(str(epoch) if epoch is not None else " ".join(said))
    return ("epoch " if texts and texts[0].isdigit() else "") + ", ".join(texts)


def seeds_cell(row: dict[str, Any]) -> str:
    """The seeds, or that there is no randomness."""
    return "none" if row["deterministic"] else ", ".join(str(s) for s in row["seeds"])


def legend(found: dict[str, Any]) -> list[str]:
    """What readers of a table must know."""
    data, backbone = found["data"], found["backbone"]
    lines = [
        f"Data: {data['name']} ({data['fingerprint']}): {data['classes_seen']} seen and "
        f"{counted(data['classes_unseen'], 'unseen class')}, {counted(data['attributes'], 'attribute')}; "
        f"{data['trainval']} training, {data['test_seen']} + {counted(data['test_unseen'], 'test image')}.",
        f"Backbone: {backbone['name']}, weights {backbone['weights']}{pixels(backbone)}"
        + (f", {backbone['regions']} regions of {backbone['channels']} channels" if "regions" in backbone else "")
        + f", {_trained(found)}.",
    ]
    if found["splits"] is not None:
        splits = found["splits"]
        drawn = validation_words(splits, "each row's draws")
        lines.append(f"Splits: final {splits['final']}, validation {splits['validation']} ({drawn}).")
    lines += [EXPLAINED[view] for view in found["views"]]
    if draws := {row["hold-outs"]["draws"] for row in found["rows"] if "hold-outs" in row}:
        lines[-1] += (
            f" The numbers are means over {counted(max(draws), 'such draw')} of classes, the same for every row."
        )
    held_out = "hold-outs" in found["views"]
    spread, resampled = ("hold-outs", "classes") if held_out else ("seeds", "seeds")
    lines.append(
        f"Percent. {metrics_legend(found['metrics'])}. ±: standard deviation over {spread}; [ ]: "
        f"95% interval over {resampled_over(found)}. Differences between rows: paired bootstrap over images and "
        f"{resampled}, not corrected for the number of rows; if no resample of the images changes a difference, at "
        "least by Wilson's 95% limit of the images on which the rows may differ." + ("" if held_out else OVER_CLASSES)
    )
    lines.append(
        "Time and peak memory are those of each row's own process, without the shared feature "
        "extraction; memory includes the pages of the region store that were read. The numbers "
        "hold for this data and backbone only."
    )
    return lines


def _trained(found: dict[str, Any]) -> str:
    """Whether the backbone is trained, and in which rows."""
    how = {row["name"]: row["end_to_end"] for row in found["rows"] if row["error"] is None}
    if not any(how.values()):
        return "frozen"
    return "fine-tuned" if all(how.values()) else f"frozen; fine-tuned by {', '.join(n for n, e in how.items() if e)}"


def markdown(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = comparison_rows(found)
    names = list(rows[0]) if rows else ["method"]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    lines = [f"# {found['title']}", "", line(names), line(["---"] * len(names))]
    lines += [line([row[n] for n in names]) for row in rows]
    if levels := level_rows(found):
        columns = list(levels[0])
        lines += ["", RANKS, "", line(columns), line(["---"] * len(columns))]
        lines += [line([level[n] for n in columns]) for level in levels]
    lines += ["", *(f"- {text}" for text in (*found["statements"], *failures(found))), ""]
    said = [f"- {row['name']}: {row['says']}" for row in found["rows"] if row["says"]]
    lines += [*said, ""] if said else []
    lines += [f"{text}\n" for text in (*legend(found), *found["warnings"])]
    return "\n".join(lines)


def flat_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per variant with every number in its own column, as fractions."""
    rows = []
    for row in found["rows"]:
        flat = {key: row[key] for key in ("name", "method", "says", "error")}
        if row["error"] is None:
            flat |= {"preset": row["preset"], "seeds": seeds_cell(row)}
            flat["changes"] = " ".join(f"{k}={v}" for k, v in row["changes"].items())
            for view in found["views"]:
                for metric, entry in row[view]["metrics"].items():
                    for key in ("mean", "std", "low", "high"):
                        flat[f"{view}_{metric}_{key}"] = entry[key]
                for rank, metrics in row[view].get("ranks", {}).items():
                    for metric, entry in metrics.items():
                        flat |= {f"{view}_{rank}_{metric}_{key}": entry[key] for key in ("mean", "std", "low", "high")}
                for metric, gap in row[view]["against"].items():
                    for key in ("mean", "low", "high", "low_images", "high_images", "low_classes", "high_classes"):
                        flat[f"{view}_{metric}_against_{key}"] = None if gap is None else gap.get(key)
                    flat[f"{view}_{metric}_against"] = None if gap is None else gap["reference"]
            for metric, gap in row.get("paper_minus_honest", {}).items():
                for key in ("mean", "low", "high"):
                    flat[f"paper_minus_honest_{metric}_{key}"] = gap[key]
            flat["chosen"] = chosen_cell(row[found["views"][0]]["seeds"])
            flat |= {"seconds": row["seconds"], "peak_memory_mb": row["peak_memory_mb"]}
        rows.append(flat)
    return rows


def comma_separated(found: dict[str, Any]) -> str:
    """The comparison as CSV."""
    rows = flat_rows(found)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _axis(values: list[float], ticks: int = 6) -> tuple[float, float, list[float]]:
    """Low and high end in percent, and positions of the numbers."""
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    step = next((s for s in (1, 2, 5, 10, 20) if (high - low) / s <= ticks), 20)
    start, end = step * int(low // step), step * int(-(-high // step))
    end = max(end, start + step)
    return float(start), float(end), [float(t) for t in range(start, end + 1, step)]


def dot_plot(found: dict[str, Any], metric: str) -> dict[str, Any]:
    """Positions of a metric's dots and intervals, in percent of the axis."""
    points = []
    for row in found["rows"]:
        if row["error"] is not None:
            continue
        marks = []
        for view in found["views"]:
            entry = row[view]["metrics"][metric]
            if entry["mean"] is not None:
                numbers = {key: 100 * entry[key] for key in ("mean", "low", "high")}
                marks.append({"view": view, "color": COLORS[view], "text": percent(entry["mean"]), **numbers})
        points.append({"name": row["name"], "marks": marks})
    every = [mark[key] for point in points for mark in point["marks"] for key in ("low", "high")]
    low, high, ticks = _axis(every)
    for point in points:
        for mark in point["marks"]:
            for key in ("mean", "low", "high"):
                mark[key] = round(100 * (mark[key] - low) / (high - low), 2)
    places = [{"text": f"{t:g}", "at": round(100 * (t - low) / (high - low), 2)} for t in ticks]
    return {"metric": metric, "points": points, "ticks": places}


def html(found: dict[str, Any], figures: Sequence[str] = ()) -> str:
    """The comparison as one self-contained page.

    Args:
        found: content of ``compare.json``.
        figures: SVG texts to show.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unseen.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("comparison.html").render(
        found=found,
        metrics=found["metrics"],
        headlines={name: every_metric()[name].alone for name in HEADLINES},
        views=found["views"],
        both="honest" in found["views"] and "paper" in found["views"],
        against=against_what(found),
        cell=number_cell,
        over=resampled_over(found),
        signed=signed_cell,
        time=time_cell,
        memory=memory_cell,
        seeds=seeds_cell,
        chosen=chosen_cell,
        plots=[dot_plot(found, metric) for metric in HEADLINES],
        colors=COLORS,
        levels=level_rows(found),
        ranks=RANKS,
        legend=legend(found),
        figures=figures,
    )


def write_comparison(found: dict[str, Any], folder: Path, name: str, figures: Sequence[str] = ()) -> None:
    """Write ``NAME.json``, ``.csv``, ``.md``, ``.tex`` and ``.html`` into a folder."""
    write_json(folder / f"{name}.json", found)
    write_text(folder / f"{name}.csv", comma_separated(found))
    write_text(folder / f"{name}.md", markdown(found))
    write_text(folder / f"{name}.tex", latex(found, [found["title"], *legend(found), *found["warnings"]]))
    write_text(folder / f"{name}.html", html(found, figures))
