"""Facts about a model in plain words: what it is, where it comes from, how well it performs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unseen.evaluation.registry import every_metric, sentence
from unseen.ground.files import read_json
from unseen.recognizer import Recognizer
from unseen.serve.schema import Metric
from unseen.serve.settings import Settings
from unseen.version import __version__


def metrics_of(folder: Path) -> list[Metric]:
    """Test metrics of a run in plain words; empty if the folder holds no run."""
    if not (folder / "results.json").is_file():
        return []
    protocols = read_json(folder / "results.json")["protocols"]
    measured = (protocols.get("honest") or next(iter(protocols.values())))["metrics"]
    return [
        Metric(name=sentence(m.title), value=found["mean"], low=found["low"], high=found["high"], meaning=m.meaning)
        for name, m in every_metric().items()
        if m.title and (found := measured.get(name)) and found["mean"] is not None
    ]


def prior_of(settings: Settings) -> dict[str, Any]:
    """What the page can choose of the server's prior."""
    prior = settings.prior
    if prior is None:
        return {}
    place, month = prior.place, str(prior.month or "")
    return {"prior": True, "places": prior.places, "months": prior.months, "place": place, "month": month}


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
