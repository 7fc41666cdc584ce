"""Figures of a run from its folder alone, without test images: training by epoch, and its class hold-outs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from unseen.errors import DataError
from unseen.evaluation.registry import HEADLINES
from unseen.explain.sheet import AGAINST, FOR, MUTED, Sheet, new_figure, style
from unseen.methods import find_method
from unseen.training.folder import Run

STAGES = {"validation": "validation stage", "final": "final training"}
METRICS = ("T1", "U", "S", "H")


def epochs(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``metrics.jsonl``; empty without one."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def mean_epochs(folder: Path, stage: str) -> list[dict[str, Any]]:
    """Loss, T1 and H of each epoch of a stage; those of the validation stage are means over its draws, which choose.

    Args:
        folder: folder of a run's seed.
        stage: key of :data:`STAGES`.

    Returns:
        For each epoch that all draws have: ``epoch``, ``draws``, and ``loss``, ``T1`` and ``H`` (at its best offset),
        which are ``None`` if unknown.
    """
    draws = [epochs(path) for path in sorted(folder.glob(f"{stage}*/metrics.jsonl"))]
    found = []
    for records in zip(*draws, strict=False):
        entry: dict[str, Any] = {"epoch": records[0]["epoch"], "draws": len(records)}
        for name, group, key in (("loss", "loss", "total"), ("T1", "metrics", "T1"), ("H", "metrics", "best_H")):
            values = [record[group].get(key) for record in records]
            entry[name] = None if None in values else sum(values) / len(values)
        found.append(entry)
    return found


def chosen_epoch(chosen: Mapping[str, Any]) -> int | None:
    """Epoch of the model of H, from what a protocol chose."""
    epoch: int | None = chosen.get(HEADLINES[-1], chosen).get("epoch")
    return epoch


def choice_sentence(run: Run, seed: str) -> str:
    """The chosen epoch of a seed, and what it was chosen by; empty for a method without epochs."""
    chosen = run.results["protocols"][run.protocol]["seeds"][seed]["chosen"]
    epoch = chosen_epoch(chosen)
    if epoch is None:
        return ""
    more = chosen.get(HEADLINES[-1], chosen).keys() - {"epoch", "by", "validation"}
    told = f"Epoch {epoch} was chosen{' together with hyperparameters' if more else ''} by "
    if "validation" not in chosen:
        sweeps = find_method(run.config.method).sweeps_gamma
        at = "its best calibration offset" if sweeps else "calibration offset 0"
        return f"{told}H on the test images at {at}, so the curves may peak at another epoch."
    draws, by = len(chosen["validation"]["draws"]), chosen["by"]
    if by != HEADLINES[-1]:
        told += f"{by} on validation classes" + (f", a mean over {draws} draws" if draws > 1 else "")
    elif draws > 1:
        told += f"H on validation classes at one calibration offset for all {draws} draws"
    else:
        told += "H on validation classes at its best calibration offset"
    alike = by == HEADLINES[-1] and draws == 1 and not more
    return told + ("." if alike else ", so the curves may peak at another epoch.")


def training_sheet(run: Run, seed: int, origin: str) -> Sheet:
    """Loss and accuracy by epoch of one seed; raises :class:`DataError` for a method without epochs.

    Args:
        run: a finished run.
        seed: seed of the model.
        origin: description of the run for the caption.
    """
    folder = run.folder / f"seed-{seed}"
    rows = [{"stage": stage, **record} for stage in STAGES for record in mean_epochs(folder, stage)]
    if not rows:
        raise DataError("the method is solved without epochs", where=run.folder, hint="omit this figure")
    numbers = pd.DataFrame(rows)
    chosen = run.results["protocols"][run.protocol]["seeds"][str(seed)]["chosen"]
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
        epoch = chosen_epoch(chosen)
        if epoch is not None and accuracy.lines:
            accuracy.axvline(epoch, color=AGAINST, linestyle=":", label=f"chosen: epoch {epoch}")
        for axis in (loss, accuracy):
            if axis.lines:
                axis.legend(frameon=False, fontsize=8)
    draws = max((row["draws"] for row in rows if row["stage"] == "validation"), default=1)
    means = f"; the validation stage is the mean of {draws} draws" if draws > 1 else ""
    told = choice_sentence(run, str(seed))
    caption = f"Training loss and accuracy by epoch; H at its best calibration offset{means}. {told} {origin}."
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
            axis.plot(
                [100 * entry["low"], 100 * entry["high"]],
                [place, place],
                color=FOR,
                linewidth=6,
                alpha=0.3,
                solid_capstyle="butt",
            )
            axis.plot(
                100 * numbers[metric].astype(float), [place] * len(numbers), "o", mfc="white", mec="black", zorder=4
            )
            axis.plot(100 * entry["mean"], place, "|", color=FOR, markersize=18, markeredgewidth=2.5)
            axis.plot([100 * chance] * 2, [place - 0.35, place + 0.35], ":", color=AGAINST)
        axis.set_yticks(range(len(shown)), shown)
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_xlim(-2, 102)
        axis.set_xlabel("accuracy in percent")
    aside = found["classes_set_aside"]
    caption = (
        f"Accuracy with {aside} seen classes set aside as if unseen: a circle per draw of classes, a line at their "
        f"mean, a bar for the 95% interval of the classes in use, a dotted line for guessing. {origin}."
    )
    return Sheet("holdouts", caption, figure, numbers, {"metrics": {m: found["metrics"][m] for m in METRICS}})
