"""Figures of a run from its folder alone, without test images: training by epoch, and its class hold-outs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from unseen.errors import DataError
from unseen.explain.sheet import AGAINST, FOR, MUTED, Sheet, new_figure, style
from unseen.training.folder import Run

STAGES = {"validation": "validation stage", "final": "final training"}
METRICS = ("T1", "U", "S", "H")


def epochs(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``metrics.jsonl``; empty without one."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def training_sheet(run: Run, seed: int, origin: str) -> Sheet:
    """Loss and accuracy by epoch of one seed; raises :class:`DataError` for a method without epochs.

    Args:
        run: a finished run.
        seed: seed of the model.
        origin: description of the run for the caption.
    """
    folder = run.folder / f"seed-{seed}"
    rows = [
        {
            "stage": stage,
            "epoch": record["epoch"],
            "loss": record["loss"].get("total"),
            "T1": record["metrics"].get("T1"),
            "H": record["metrics"].get("best_H"),
        }
        for stage in STAGES
        for record in epochs(folder / stage / "metrics.jsonl")
    ]
    if not rows:
        raise DataError("the method is solved without epochs", where=run.folder, hint="omit this figure")
    numbers = pd.DataFrame(rows)
    with style():
        figure = new_figure(9, 3.4)
        loss, accuracy = figure.subplots(1, 2)
        for (stage, name), color in zip(STAGES.items(), (MUTED, FOR), strict=True):
            mine = numbers[numbers["stage"] == stage]
            loss.plot(mine["epoch"], mine["loss"], ".-", color=color, label=name)
            for metric, line in (("H", ".-"), ("T1", ".:")):
                if mine[metric].notna().any():
                    accuracy.plot(mine["epoch"], 100 * mine[metric], line, color=color, label=f"{metric}, {name}")
        loss.set(xlabel="epoch", ylabel="training loss")
        accuracy.set(xlabel="epoch", ylabel="accuracy in percent")
        for axis in (loss, accuracy):
            if axis.lines:
                axis.legend(frameon=False, fontsize=8)
    caption = f"Training loss and accuracy by epoch; H at its best calibration offset. {origin}."
    chosen = run.results["protocols"][run.protocol]["seeds"][str(seed)]["chosen"]
    return Sheet("training", caption, figure, numbers, {"chosen": chosen})


def holdouts_sheet(run: Run, origin: str) -> Sheet:
    """T1, U, S and H of each class hold-out, their mean and its interval; raises :class:`DataError` without any.

    Args:
        run: a finished run.
        origin: description of the run for the caption.
    """
    found: Mapping[str, Any] = run.results["protocols"][run.protocol].get("holdout") or {}
    if not found:
        raise DataError("the run has no class hold-outs", where=run.folder, hint="omit this figure")
    rows = [
        {"draw": i + 1, "classes": "; ".join(draw["classes"]), **{m: draw["metrics"][m] for m in METRICS}}
        for i, draw in enumerate(found["draws"])
    ]
    numbers = pd.DataFrame(rows)
    shown = [metric for metric in METRICS if found["metrics"][metric]["mean"] is not None]  # S needs test images
    with style():
        figure = new_figure(6.5, 3.0)
        axis = figure.subplots()
        for place, metric in enumerate(shown):
            entry, chance = found["metrics"][metric], found["chance"][metric]
            axis.plot([100 * entry["low"], 100 * entry["high"]], [place, place], color=FOR, linewidth=6, alpha=0.3)
            axis.plot(100 * numbers[metric].astype(float), [place] * len(numbers), "o", mfc="white", mec="black")
            axis.plot(100 * entry["mean"], place, "|", color=FOR, markersize=18, markeredgewidth=2.5)
            axis.plot([100 * chance] * 2, [place - 0.35, place + 0.35], ":", color=AGAINST)
        axis.set_yticks(range(len(shown)), shown)
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_xlim(-2, 102)
        axis.set_xlabel("accuracy in percent")
    aside = found["classes_set_aside"]
    caption = (
        f"Accuracy with {aside} seen classes set aside as if unseen: a circle per draw of classes, a bar for the 95% "
        f"interval of their mean, a dotted line for guessing. {origin}."
    )
    return Sheet("holdouts", caption, figure, numbers, {"metrics": {m: found["metrics"][m] for m in METRICS}})
