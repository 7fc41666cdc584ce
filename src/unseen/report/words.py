"""A run's result in plain words, for people who do not know the metrics."""

from __future__ import annotations

from typing import Any

from unseen.explain.sheet import class_label
from unseen.report.tables import chance, percent
from unseen.training.run import Run

FEW_CLASSES, FEW_PICTURES = 20, 10
"""Below these, more seen classes, or more pictures of each, is what helps first. Ours."""


def verdict(run: Run) -> str:
    """One paragraph: how well it names seen and unseen classes, how sure it is, and what would help."""
    found = run.results["protocols"][run.protocol]
    return " ".join([*_seen(found), *_unseen(run, found), *_sure(found), _help(run, found)])


def _share(value: float) -> str:
    return f"{percent(value, 0)}%"


def _seen(found: dict[str, Any]) -> list[str]:
    s = found["metrics"]["S"]["mean"]
    if s is None:
        return ["How well it names classes it was trained on was not measured: none of their pictures were kept apart."]
    return [f"It names {_share(s)} of the new pictures of classes it was trained on."]


def _unseen(run: Run, found: dict[str, Any]) -> list[str]:
    metrics, among = found["metrics"], run.manifest["data"]["classes_unseen"]
    if metrics["T1"]["mean"] is not None:
        everything = metrics["U"]["mean"]
        other = "" if everything is None else f", and {_share(everything)} when any class may be the answer"
        return [
            f"Of pictures of the {among} unseen classes it names {_share(metrics['T1']['mean'])} when told that the "
            f"class is an unseen one (guessing: {_share(chance(run))}){other}."
        ]
    rehearsal = found.get("rehearsal")
    if rehearsal is None:
        return ["How well it names unseen classes was not measured: there are no pictures of any."]
    count, numbers = rehearsal["classes_set_aside"], rehearsal["metrics"]
    return [
        f"There are no pictures of unseen classes to test on, so {count} of the seen classes were set aside as if "
        f"unseen and everything was repeated without them: it then named {_share(numbers['T1']['mean'])} of their "
        f"pictures when told that the class is one of those {count} (guessing: {_share(rehearsal['chance'])}), and "
        f"{_share(numbers['U']['mean'])} when any class may be the answer."
    ]


def _sure(found: dict[str, Any]) -> list[str]:
    first = next(iter(found["seeds"].values()))
    calibration = first.get("calibration")
    if calibration is None:
        return ["Its confidence is not calibrated, since no validation classes were used."]
    rehearsed = [draw["calibration"]["test"] for draw in found.get("rehearsal", {}).get("draws", [])]
    measured = rehearsed or [calibration["test"] or calibration["validation"]]
    which = " with the classes set aside" if rehearsed else ""
    if not calibration["test"]:
        which = " on the pictures that it was calibrated on"
    points = round(100 * _mean(measured, "ece"))
    sentence = f"Its confidence is {points} point{'' if points == 1 else 's'} off on average{which}"
    if calibration["threshold"] and all(m["accuracy_when_known"] is not None for m in measured):
        level = calibration["threshold"]
        least = _share(level) if level < 0.99 else f"{percent(level)}%"
        sentence += (
            f"; when it is less than {least} sure it says unknown, and of the {_share(_mean(measured, 'coverage'))} "
            f"that it does name {_share(_mean(measured, 'accuracy_when_known'))} are right"
        )
    return [sentence + "."]


def _mean(measured: list[dict[str, Any]], name: str) -> float:
    return sum(m[name] for m in measured) / len(measured)


def _help(run: Run, found: dict[str, Any]) -> str:
    data, metrics = run.manifest["data"], found["metrics"]
    advice = []
    if data["classes_seen"] < FEW_CLASSES:
        advice.append(f"pictures of more classes (there are {data['classes_seen']} seen ones)")
    if data["trainval"] < FEW_PICTURES * data["classes_seen"]:
        advice.append(f"more pictures a class (there are about {data['trainval'] // max(data['classes_seen'], 1)})")
    twins = [w for w in run.manifest["warnings"] if "cannot be told apart" in w]
    if twins:
        advice.append(f"attributes that tell classes apart ({twins[0]})")
    elif found.get("confusions") and found["confusions"][0]["share"] >= 0.3:
        worst = found["confusions"][0]
        advice.append(
            f"an attribute that tells {class_label(worst['class'])} from {class_label(worst['taken_for'])}, which it "
            f"is taken for in {_share(worst['share'])} of its pictures"
        )
    t1, u = metrics["T1"]["mean"], metrics["U"]["mean"]
    if t1 is not None and u is not None and t1 - u > 0.15:
        advice.append("saying so (--among unseen) where you know that a picture shows an unseen class")
    if not advice:
        advice.append("a test on new pictures, taken as you will take them later")
    return f"What would help most: {'; '.join(advice[:3])}."
