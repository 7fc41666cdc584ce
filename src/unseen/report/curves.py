"""Charts of a run: the seen-unseen curve, calibration, and the course of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unseen.evaluation.metrics import SeenUnseenCurve
from unseen.explain.courses import choice_sentence, chosen_epoch, mean_epochs
from unseen.report.charts import Axis, Chart, Dot, Line, Mark
from unseen.report.material import Material
from unseen.report.tables import percent


def seen_unseen_chart(material: Material) -> Chart | None:
    """U against S over gamma, with the chosen gamma of the first seed; ``None`` without images of both kinds."""
    lines: list[Line] = []
    mark: Mark | None = None
    for seed, d in material.decisions.items():
        if not (d.is_unseen.any() and (~d.is_unseen).any() and np.isfinite(d.offset).all()):
            continue
        curve, gamma = SeenUnseenCurve.of(d), material.gamma(seed)
        first = seed == material.seed
        name = "this model" if first else "other seeds" if len(lines) == 1 else ""
        lines.append(Line(curve.s.tolist(), curve.u.tolist(), name, "main" if first else "faint"))
        if first:
            at = max(int(np.searchsorted(curve.gamma, gamma, side="right")) - 1, 0)
            mark = Mark(float(curve.s[at]), float(curve.u[at]), f"chosen: γ = {gamma:.3g}")
    if mark is None:
        return None
    says = (
        "Accuracy on unseen classes against accuracy on seen classes. At the chosen offset, "
        f"accuracy is {percent(mark.y, 0)}% on unseen and {percent(mark.x, 0)}% on seen classes."
    )
    x, y = Axis("accuracy on seen classes (S)", 0, 1, True), Axis("accuracy on unseen classes (U)", 0, 1, True)
    return Chart("seen-unseen", "Unseen against seen classes", says, x, y, list(reversed(lines)), marks=[mark])


def reliability_chart(side: str, found: Mapping[str, Any]) -> Chart | None:
    """Accuracy by confidence; ``found`` is one side of the run's calibration."""
    bins = found.get("reliability") or {}
    rows = _rows(bins, ("confidence", "accuracy", "count"))
    rows = [(c, a, n) for c, a, n in rows if n]
    if not rows:
        return None
    total, most = sum(n for _, _, n in rows), max(n for _, _, n in rows)
    dots = []
    for confidence, accuracy, count in rows:
        said = f"{percent(confidence, 0)}% confidence: {percent(accuracy, 0)}% correct ({count:g} images)"
        dots.append(Dot(confidence, accuracy, confidence, count / most, said))
    largest = max(rows, key=lambda row: row[2])
    says = (
        f"How often answers of each confidence are correct, over {total:g} images. Larger dots "
        "mean more images; on the dashed line, accuracy equals confidence. The largest group "
        f"has about {percent(largest[0], 0)}% confidence, and {percent(largest[1], 0)}% of it is "
        "correct."
    )
    axes = Axis("confidence", 0, 1, True), Axis("accuracy", 0, 1, True)
    ideal = Line([0, 1], [0, 1], "accuracy = confidence", "ideal")
    title = "Reliability on test images" if side == "test" else "Reliability on validation images"
    return Chart(f"reliability-{side}", title, says, *axes, [ideal], dots)


def risk_coverage_chart(calibration: Mapping[str, Any]) -> Chart | None:
    """Share of wrong answers against the share of images answered, with the chosen threshold."""
    lines: list[Line] = []
    marks: list[Mark] = []
    says: list[str] = []
    threshold, highest = calibration.get("threshold"), 0.05
    for side, look in (("test", "main"), ("validation", "second")):
        found = calibration.get(side) or {}
        rows = sorted(_rows(found.get("risk_coverage") or {}, ("coverage", "risk")))
        if not rows:
            continue
        coverage, risk = zip(*rows, strict=True)
        lines.append(Line(coverage, risk, f"{side} images", look))
        highest = max(highest, *risk)
        says.append(
            f"If every image gets an answer, {percent(risk[-1], 0)}% of the answers on {side} images are wrong."
        )
        if threshold and not marks and found.get("accuracy_when_known") is not None:
            answered, wrong = found["coverage"], 1 - found["accuracy_when_known"]
            marks.append(Mark(answered, wrong, f"“unknown” below {percent(threshold, 0)}%"))
            says.append(
                f"With the chosen threshold, {percent(answered, 0)}% get an answer, and "
                f"{percent(wrong, 0)}% of those answers are wrong."
            )
    if not lines:
        return None
    x = Axis("share of images with an answer", 0, 1, True)
    y = Axis("share of wrong answers", 0, min(1.0, 1.1 * highest), True)
    title = "Errors against answers given"
    return Chart("risk-coverage", title, " ".join(says), x, y, list(reversed(lines)), marks=marks)


def _rows(columns: Mapping[str, Any], names: tuple[str, ...]) -> list[tuple[float, ...]]:
    """Columns of numbers as rows, without rows with a gap; empty if a column is missing."""
    if any(columns.get(name) is None for name in names):
        return []
    return [row for row in zip(*(columns[name] for name in names), strict=True) if None not in row]


def training_charts(material: Material) -> list[Chart]:
    """Loss and validation metrics by epoch, of the first seed; empty for closed forms."""
    folder = material.run.folder / f"seed-{material.seed}"
    stages = {stage: mean_epochs(folder, stage) for stage in ("validation", "final")}
    charts = []
    losses = [
        Line([r["epoch"] for r in records], [r["loss"] for r in records], name, look)
        for (stage, records), name, look in zip(
            stages.items(), ("validation stage", "final training"), ("second", "main"), strict=True
        )
        if records and records[0]["loss"] is not None
    ]
    if losses:
        last = max(line.x[-1] for line in losses)
        values = [v for line in losses for v in line.y]
        low, high = min(*values, 0), max(values)
        says = f"Training loss by epoch: from {losses[-1].y[0]:.3g} to {losses[-1].y[-1]:.3g} in the last training."
        axes = Axis("epoch", min(1, last - 1), last, False), Axis("training loss", low, high or 1.0, False)
        charts.append(Chart("loss", "Training loss", says, *axes, losses))
    named = (("H", "H at its best offset", "main"), ("T1", "T1", "second"))
    tested = [[r for r in stages[stage] if any(r[key] is not None for key, *_ in named)] for stage in stages]
    records = tested[0] or tested[1]
    lines = [
        Line([r["epoch"] for r in records], [r[key] for r in records], name, look)
        for key, name, look in named
        if records and all(r[key] is not None for r in records)
    ]
    if lines:
        chosen = material.found["seeds"][material.seed]["chosen"]
        epoch = chosen_epoch(chosen)
        marks = [
            Mark(epoch, line.y[list(line.x).index(epoch)], f"chosen: epoch {epoch}")
            for line in lines[:1]
            if epoch is not None and epoch in line.x
        ]
        what = "validation classes" if stages["validation"] else "test images"
        draws = records[0]["draws"]
        means = f", mean of {draws} draws" if draws > 1 else ""
        says = f"Accuracy on {what} by epoch{means}. {choice_sentence(material.run, material.seed)}"
        last = lines[0].x[-1]
        axes = Axis("epoch", min(1, last - 1), last, False), Axis(f"on {what}", 0, 1, True)
        charts.append(Chart("validation", f"Accuracy on {what}", says, *axes, list(reversed(lines)), marks=marks))
    return charts
