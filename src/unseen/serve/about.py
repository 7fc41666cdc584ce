"""Facts about a model in plain words: what it is, where it comes from, how well it performs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unseen.classes.naming import label
from unseen.evaluation.registry import every_metric, sentence
from unseen.ground.files import read_json
from unseen.ground.words import counted, size_text
from unseen.recognizer import Recognizer
from unseen.serve.schema import AttributeEntry, Metric
from unseen.serve.settings import Settings
from unseen.version import __version__


def metrics_of(folder: Path) -> list[Metric]:
    """Metrics of a run in plain words, measured or else estimated by class hold-outs; empty if it holds no run."""
    if not (folder / "results.json").is_file():
        return []
    protocols = read_json(folder / "results.json")["protocols"]
    block = protocols.get("honest") or next(iter(protocols.values()))
    holdout = block.get("holdout") or {"metrics": {}}
    found = []
    for name, metric in every_metric().items():
        entry, meaning, estimated = block["metrics"].get(name) or {}, metric.meaning, False
        if entry.get("mean") is None:
            entry, estimated = holdout["metrics"].get(name) or {}, True
            meaning = f"estimated by setting {holdout.get('classes_set_aside')} of the classes aside: {meaning}"
        if metric.title and entry.get("mean") is not None:
            value, low, high = entry["mean"], entry["low"], entry["high"]
            found.append(
                Metric(
                    name=sentence(metric.title), value=value, low=low, high=high, meaning=meaning, estimated=estimated
                )
            )
    return found


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
    known = (
        f"{data['name']}: {counted(data['trainval'], 'training image')}"
        if "trainval" in data
        else data.get("name", "unknown")
    )
    how = "fine-tuned" if recognizer.method.end_to_end else "frozen"
    card = recognizer.method.card
    return {
        "model": name,
        "method": f"{recognizer.method.name} ({card.title})",
        "backbone": f"{spec.name}, {size_text(spec.image_size, spec.zoom, spec.mirror)}, {how}",
        "data": known,
        "protocol": about.get("protocol", "unknown"),
        "version": __version__,
        "calibrated": recognizer.temperature is not None,
        "threshold": recognizer.threshold,
        "metrics": metrics,
    }


def attributes_of(recognizer: Recognizer) -> list[AttributeEntry]:
    """All attributes, in table order."""
    table, references = recognizer.table, recognizer.references
    values = table.values if references is None else references.class_values
    low, high = values.min(axis=0).clip(max=0), values.max(axis=0).clip(min=0)
    least, most = _range(table.values)
    means = table.unknown
    a = table.attributes
    return [
        AttributeEntry(
            name=a.names[k],
            label=label(a.names[k]),
            group=label(a.groups[k]),
            part=a.parts[k],
            low=low[k],
            high=high[k],
            least=least[k],
            most=most[k],
            mean=means[k],
        )
        for k in range(len(a))
    ]


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest meaningful value of each attribute: of a share or percentage, else the table's own."""
    low, high = values.min(axis=0).clip(max=0), values.max(axis=0).clip(min=0)
    if low.min() >= 0 and high.max() <= 100:
        high = np.full_like(high, 1.0 if high.max() <= 1 else 100.0)
    return low, high
