"""How well each attribute score separates images whose class has the attribute from the others.

There are no attribute labels per image, so the class table is the ground truth: an image has the values of its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unseen.classes.naming import label
from unseen.classes.presence import present
from unseen.classes.table import ClassTable
from unseen.errors import DataError
from unseen.evaluation.attributes import auroc, spearman
from unseen.explain.answers import Answers
from unseen.explain.sheet import AGAINST, FOR, Sheet, class_label, new_figure, shorten, style
from unseen.ground.extras import require
from unseen.ground.words import counted
from unseen.recognizer import Explanation

SIDES = ("unseen", "seen")
CHANCE = {"auroc": 0.5, "spearman": 0.0}


@dataclass(frozen=True, eq=False)
class AttributeQuality:
    """Quality of every attribute on the test images, separately for unseen and seen classes.

    If unseen classes have no test images, class hold-outs stand for them (:mod:`unseen.training.holdouts`).

    Args:
        table: one row per attribute: attribute, group, part, and for ``unseen_`` and ``seen_``: ``auroc`` (an image has
            the attribute if the class value is above half the attribute's largest), ``spearman`` (against the value
            itself), ``images`` and ``with`` (how many of them have it). NaN if the images' classes have only one value.
        measure: ``auroc`` if every attribute has at most two values, else ``spearman``: the measure in figures.
        constant: side to the number of attributes that cannot be measured.
        held_out: whether ``unseen_`` refers to the classes of hold-outs.
    """

    table: pd.DataFrame
    measure: str
    constant: dict[str, int]
    held_out: bool = False

    def groups(self) -> pd.DataFrame:
        """Mean of the measure by group, one column per side, the best unseen (else seen) first."""
        columns = [f"{side}_{self.measure}" for side in SIDES]
        means = self.table.groupby("group", sort=False)[columns].mean().dropna(how="all")
        return means.sort_values(columns, ascending=False, kind="stable")


def attribute_quality(answers: Answers, read: Mapping[str, Any] | None = None) -> AttributeQuality:
    """Measure every attribute score against the class table.

    Args:
        answers: answers of a run.
        read: ``auroc`` and ``spearman`` of each attribute over class hold-outs, see :func:`read_in_holdouts`.
    """
    found = {
        side: (answers.labels[rows], answers.attribute_scores[rows])
        for side, rows in (("unseen", answers.unseen), ("seen", ~answers.unseen))
    }
    return _quality(answers.dataset.table, found, read)


def held_out_quality(table: ClassTable, read: Mapping[str, Any] | None) -> AttributeQuality:
    """Quality over class hold-outs alone, for a run without test images or whose images are gone; see above."""
    nothing = np.zeros(0, int), np.zeros((0, len(table.attributes)))
    return _quality(table, {"unseen": nothing, "seen": nothing}, read)


def read_in_holdouts(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Quality of each attribute over a run's class hold-outs, from its results; ``None`` without hold-outs."""
    read: Mapping[str, Any] | None = (found.get("holdout") or {}).get("attributes")
    return read


def _quality(
    table: ClassTable, found: Mapping[str, tuple[np.ndarray, np.ndarray]], read: Mapping[str, Any] | None
) -> AttributeQuality:
    attributes, values = table.attributes, table.values
    has = present(values)
    columns: dict[str, Any] = {"attribute": attributes.names, "group": attributes.groups, "part": attributes.parts}
    measure = "auroc" if all(len(np.unique(column)) <= 2 for column in values.T) else "spearman"
    constant = {}
    held_out = read is not None and not len(found["unseen"][0])
    for side, (labels, scores) in found.items():
        columns[f"{side}_auroc"] = auroc(scores, has[labels])
        columns[f"{side}_spearman"] = spearman(scores, values[labels])
        columns[f"{side}_images"] = len(labels)
        columns[f"{side}_with"] = has[labels].sum(axis=0)
        if read is not None and held_out and side == "unseen":
            columns |= {f"unseen_{name}": np.array(read[name], dtype=np.float64) for name in CHANCE}
        constant[side] = int(np.isnan(columns[f"{side}_{measure}"]).sum())
    return AttributeQuality(pd.DataFrame(columns), measure, constant, held_out)


def quality_sheet(answers: Answers, quality: AttributeQuality, top: int = 12) -> Sheet:
    """Bars from chance level: groups, if any, on the left; the best and worst attributes on the right.

    Args:
        answers: answers of a run.
        quality: quality of these answers.
        top: number of best and of worst attributes.

    Raises:
        DataError: no attribute could be measured.
    """
    first, other = SIDES if quality.held_out or quality.table["unseen_images"].any() else SIDES[::-1]
    names = {"unseen": "held-out" if quality.held_out else "unseen", "seen": "seen"}
    column = f"{first}_{quality.measure}"
    ranked = quality.table.dropna(subset=[column]).sort_values(column, ascending=False, kind="stable")
    ranked = ranked.set_index("attribute")
    if ranked.empty:
        problem = "all classes with test images have the same attributes"
        if not quality.table[["unseen_images", "seen_images"]].to_numpy().any():
            problem = "there are no test images, and no class hold-outs"
        raise DataError(problem, where=answers.dataset.name, hint="use test images of more classes")
    groups = quality.groups().dropna(subset=[column])
    panels = [("attributes", ranked, top)]
    if len(groups) < len(ranked):
        panels.insert(0, ("groups (mean over their attributes)", groups, max(top, 16)))
    title = "AUROC" if quality.measure == "auroc" else "Spearman correlation"
    with style():
        rows = max(min(len(frame), 2 * most + 1) for _, frame, most in panels)
        figure = new_figure(6.5 * len(panels), 1.6 + 0.24 * max(rows, 6))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (what, frame, most) in zip(axes, panels, strict=True):
            every = len(frame) <= 2 * most
            shown = frame if every else pd.concat([frame.head(most), frame.tail(most)])
            _bars(axis, shown, quality.measure, first, other, gap=None if every else most)
            axis.set_title(what if every else f"the {most} best and {most} worst {what}")
            axis.set_xlabel(f"{title} of the attribute score over {'' if quality.held_out else 'test '}images")
        limits = [axis.get_xlim() for axis in axes]
        for axis in axes:
            axis.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
        handles = _legend(names[first], names[other], CHANCE[quality.measure])
        figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    counts = {side: int(quality.table[f"{side}_images"].iloc[0]) for side in SIDES}
    against = (
        "whether the image's class has the attribute; line: chance, 0.5"
        if quality.measure == "auroc"
        else "the value that the image's class has; line: no relation, 0"
    )
    measured = [side for side in SIDES if counts[side] or (quality.held_out and side == "unseen")]
    left_out = " and ".join(
        f"{quality.constant[side]} over {names[side]} classes" for side in measured if quality.constant[side]
    )
    unseen = (
        "Held-out classes stand in for unseen ones, each measured with a model trained without them"
        if quality.held_out
        else f"{counted(counts['unseen'], 'test image')} of unseen classes"
    )
    caption = (
        f"{title} of each fused attribute score against {against}. {unseen}"
        + (f", {counted(counts['seen'], 'test image')} of seen ones. " if counts["seen"] else ". ")
        + (f"Omitted, because all classes have the same value: {left_out}. " if left_out else "")
        + f"{answers.origin}."
    )
    means = {side: _mean(quality.table[f"{side}_{quality.measure}"]) for side in SIDES}
    summary = {
        "measure": quality.measure,
        "chance": CHANCE[quality.measure],
        "mean": means,
        "images": counts,
        "held_out": quality.held_out,
        "constant": quality.constant,
        "groups": [
            {"group": name, **{side: _number(row[f"{side}_{quality.measure}"]) for side in SIDES}}
            for name, row in groups.iterrows()
        ],
    }
    return Sheet("attributes", caption, figure, quality.table, summary)


def _legend(first: str, other: str, chance: float) -> list[Any]:
    require("matplotlib")
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    sides = ((FOR, "above"), (AGAINST, "below"))
    bars = [Patch(color=color, label=f"{first} classes, {where} {chance:g}") for color, where in sides]
    point = {"linestyle": "", "marker": "o", "mfc": "white", "mec": "black"}
    return [*bars, Line2D([], [], label=f"{other} classes", **point)]  # type: ignore[arg-type]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: pd.Series) -> float | None:
    return _number(float(values.mean()))


def _bars(  # type: ignore[no-untyped-def]
    axis, frame: pd.DataFrame, measure: str, first: str, other: str, gap: int | None = None
) -> None:
    """Horizontal bars of one side from chance level, the other side as points; a gap after the given number of rows."""
    chance = CHANCE[measure]
    names = [shorten(label(str(name))) for name in frame.index]
    places = np.arange(len(names), dtype=float)
    if gap is not None:
        places[gap:] += 1
        axis.text(chance, gap, "⋮", ha="center", va="center")
    values = frame[f"{first}_{measure}"].to_numpy(float)
    shown = [FOR if v >= chance else AGAINST for v in values]
    axis.barh(places, np.nan_to_num(values - chance), left=chance, color=shown, height=0.7)
    points = frame[f"{other}_{measure}"].to_numpy(float)
    if not np.isnan(points).all():
        axis.plot(points, places, "o", markersize=5, mfc="white", mec="black", mew=0.9)
    axis.axvline(chance, color="black", linewidth=0.7)
    axis.set_yticks(places, names, fontsize=8)
    axis.set_ylim(places[-1] + 0.6 if len(places) else 1, -0.6)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    every = np.concatenate([values, points, [chance]])
    low, high = np.nanmin(every), np.nanmax(every)
    room = 0.04 * max(high - low, 0.1)
    axis.set_xlim(low - room, high + room)


def image_sheet(explanation: Explanation, name: str, title: str, origin: str, top: int = 12) -> Sheet:
    """Attribute scores of one image beside the class table's values of the predicted class and its rival.

    Args:
        explanation: explanation of the image.
        name: name of the files.
        title: title above the figure.
        origin: description of the run for the caption.
        top: number of attributes, those that separate the two classes most in this image.
    """
    target, rival = explanation.target, explanation.rival
    order = explanation.order
    columns = ["attribute", "group", "part", "score", "typical", "value", "rival_value", "evidence", "against"]
    numbers = pd.DataFrame([vars(r) for r in sorted(explanation.reasons, key=lambda r: order[r.attribute])])[columns]
    typical = bool(numbers["typical"].any())
    shown = numbers.loc[[order[r.attribute] for r in explanation.strongest(top)]]
    places = np.arange(len(shown))
    a, b = class_label(target.name), class_label(rival.name)
    with style():
        figure = new_figure(13, 1.9 + 0.3 * max(len(shown), 6))
        image, scores, values, lead = figure.subplots(1, 4, width_ratios=[1, 1, 1.2, 1])
        image.imshow(explanation.image)
        image.axis("off")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        above = shown["score"] - shown["typical"]
        scores.barh(places, above, color=[FOR if v >= 0 else AGAINST for v in above], height=0.65)
        scores.set_title(f"attribute score{' above the average' if typical else ' of the image'}")
        scores.set_yticks(places, [shorten(label(x)) for x in shown["attribute"]], fontsize=8)
        values.barh(places - 0.2, shown["value"], height=0.36, color="#33566b", label=a)
        values.barh(places + 0.2, shown["rival_value"], height=0.36, color="#e0a83e", label=b)
        values.set_title("class vector of the method")
        values.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), frameon=False, fontsize=8)
        lead.barh(places, shown["against"], color=[FOR if v >= 0 else AGAINST for v in shown["against"]], height=0.65)
        lead.set_title("score × difference of vectors")
        for axis in (scores, values, lead):
            axis.set_ylim(len(shown) - 0.4, -0.6)
            axis.axvline(0, color="black", linewidth=0.7)
            axis.grid(axis="x", color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            if axis is not scores:
                axis.set_yticks(places, [""] * len(places))
    total = numbers["against"].sum()
    less = ", less that of an average training image" if typical else ""
    beside = "".join(f", {t.against:+.3g} by {t.name}" for t in explanation.terms if t.against)
    caption = (
        f"The {len(shown)} attributes that separate {a} (predicted) from {b} most. Score: the method's fused attribute "
        f"score of the image{less}; class vectors: the method's encoding of the class table; their product is "
        f"the lead of {a}: {shown['against'].sum():+.3g} by these attributes, {total:+.3g} by all {len(numbers)}"
        f"{beside}. {origin}."
    )
    summary = {
        "image": explanation.prediction.image,
        "target": vars(target),
        "rival": vars(rival),
        "terms": [vars(t) for t in explanation.terms],
        "shown": list(shown["attribute"]),
    }
    return Sheet(name, caption, figure, numbers, summary)
