"""A model in plain words: what it is, where it comes from, how well it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unseen.ground.files import read_json
from unseen.recognizer import Recognizer
from unseen.serve.schema import Metric
from unseen.version import __version__

MEANINGS = {
    "T1": ("Unseen classes among themselves", "images of unseen classes named right, choosing among unseen classes"),
    "U": ("Unseen classes among all", "images of unseen classes named right, choosing among all classes"),
    "S": ("Seen classes among all", "new images of seen classes named right, choosing among all classes"),
    "H": ("Balance of the two", "harmonic mean of the two before: high only if both are"),
}


def metrics_of(folder: Path) -> list[Metric]:
    """The test metrics of a run in plain words; none where the folder holds no run."""
    if not (folder / "results.json").is_file():
        return []
    protocols = read_json(folder / "results.json")["protocols"]
    measured = (protocols.get("honest") or next(iter(protocols.values())))["metrics"]
    return [
        Metric(name=name, value=found["mean"], low=found["low"], high=found["high"], meaning=meaning)
        for key, (name, meaning) in MEANINGS.items()
        if (found := measured.get(key)) and found["mean"] is not None
    ]


def describe(recognizer: Recognizer, name: str, metrics: list[Metric]) -> dict[str, Any]:
    """What stays the same while the server runs."""
    about = recognizer.about
    data, spec = about.get("data", {}), recognizer.backbone.spec
    known = f"{data['name']}: {data['trainval']} training images" if "trainval" in data else data.get("name", "unknown")
    how = "fine-tuned" if recognizer.method.end_to_end else "frozen"
    card = recognizer.method.card
    return {
        "model": name,
        "method": f"{recognizer.method.name} ({card.title})",
        "backbone": f"{spec.name}, {spec.image_size} pixels, {how}",
        "data": known,
        "protocol": about.get("protocol", "unknown"),
        "version": __version__,
        "calibrated": recognizer.temperature is not None,
        "threshold": recognizer.threshold,
        "metrics": metrics,
    }
