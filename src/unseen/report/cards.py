"""The data card, the model card, and everything needed to repeat a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unseen.classes.naming import label
from unseen.data.catalogue import FIELDGUIDE
from unseen.explain.sheet import class_label
from unseen.ground.words import counted, size_text
from unseen.methods import find_method
from unseen.methods.base import Card
from unseen.report.command import train_command
from unseen.report.material import Material
from unseen.report.tables import validation_words

MOST_NAMED = 60
"""Number of classes, attributes or copies that are listed by name."""

LICENSES = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-nc-4.0": "CC BY-NC 4.0 (no commercial use)",
    "mit": "MIT",
}


@dataclass(frozen=True)
class Images:
    """Images of one split: their number, the number of classes, and fewest, median and most per class (if known)."""

    role: str
    images: int
    classes: int | None = None
    fewest: int | None = None
    middle: float | None = None
    most: int | None = None


@dataclass(frozen=True)
class DataCard:
    """What the run was trained and tested on."""

    name: str
    about: str
    splits: list[Images]
    groups: list[tuple[str, int, list[str]]]
    validation: list[str]
    validation_source: str
    set_aside: list[list[str]]
    unseen: list[str]
    warnings: list[str]
    twins: list[tuple[str, str]]
    copies: list[str]
    copies_across: int
    copies_known: bool
    fingerprint: str


ROLES = {
    "trainval": "training, seen classes",
    "test_seen": "test, seen classes",
    "test_unseen": "test, unseen classes",
}


def data_card(material: Material) -> DataCard:
    """Make the data card from the manifest, and from the dataset if it still exists."""
    manifest, dataset, table = material.manifest, material.dataset, material.table
    data, holdout = manifest["data"], material.found.get("holdout") or {}
    splits = []
    for split, role in ROLES.items():
        facts: dict[str, Any] = {}
        if dataset is not None and data[split]:
            counts = np.bincount(dataset.labels[dataset.indices(split)])
            counts = counts[counts > 0]
            facts = {
                "classes": len(counts),
                "fewest": int(counts.min()),
                "middle": float(np.median(counts)),
                "most": int(counts.max()),
            }
        splits.append(Images(role, data[split], **facts))
    names = table.attributes.names
    by_group = table.attributes.by_group().items()
    groups = [(label(g), len(ks), [label(names[k]).removeprefix(f"{label(g)}: ") for k in ks]) for g, ks in by_group]
    if len(groups) == len(names):  # every attribute is its own group
        groups = [("attributes", len(names), [label(name) for name in names])]
    copies, across = [], 0
    if dataset is not None:
        for group in material.copies:
            copies.append(" = ".join(f"{dataset.files[i]} ({dataset.split[i]})" for i in group))
            across += len({dataset.split[i] for i in group}) > 1
    drawn = data["name"] == FIELDGUIDE
    return DataCard(
        data["name"],
        "Birds of invented species, drawn by the program itself. No photos, no people, no third-party rights."
        if drawn
        else "A folder of images with a table of attributes. The folder does not record where the "
        "images come from, who may use them, and whether they show people; add this before you "
        "share the report.",
        splits,
        groups,
        [class_label(name) for name in manifest["splits"]["validation_classes"]],
        validation_words(manifest["splits"]),
        [[class_label(name) for name in draw["classes"]] for draw in holdout.get("draws", [])],
        [class_label(name) for name, seen in zip(table.names, table.seen, strict=True) if not seen],
        list(manifest["warnings"]),
        [(class_label(a), class_label(b)) for a, b in table.twins()],
        copies,
        across,
        dataset is not None,
        data["fingerprint"],
    )


@dataclass(frozen=True)
class ModelCard:
    """What the model is, and what it is for."""

    card: Card
    preset: str
    preset_source: str
    settings: dict[str, Any]
    recipe: dict[str, Any] | None
    backbone: list[tuple[str, str]]
    semantics: str
    chosen: list[tuple[str, str]]
    uses: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def model_card(material: Material) -> ModelCard:
    """Make the model card from the method's card, the manifest and the results."""
    manifest, found = material.manifest, material.found
    method = manifest["method"]
    return ModelCard(
        find_method(material.run.config.method).card,
        method["preset"],
        method["preset_source"],
        method["settings"],
        method["recipe"],
        _backbone(material),
        f"{manifest['semantics']['vectors']}, length {manifest['semantics']['vector_length']}",
        [(seed, _chosen(numbers)) for seed, numbers in found["seeds"].items()],
        _uses(material),
        _limits(material),
    )


def _chosen(numbers: dict[str, Any]) -> str:
    """The choice of a seed, as text."""
    chosen = numbers["chosen"]
    picked = [f"{name.replace('_', ' ')} {value:g}" for name, value in chosen.items() if isinstance(value, int | float)]
    by = f" (by {chosen['by']})" if chosen.get("by") else ""
    parts = [f"{', '.join(picked)}{by}" if picked else "", f"γ {numbers['gamma']:.4g}"]
    if numbers.get("temperature") is not None:
        parts.append(f"temperature {numbers['temperature']:.4g}")
    return "; ".join(p for p in parts if p)


def _backbone(material: Material) -> list[tuple[str, str]]:
    facts, spec = material.manifest["backbone"], material.run.config.backbone
    channels = facts["channels"]
    wide = " + ".join(map(str, channels)) if isinstance(channels, list) else str(channels)
    rows = [
        ("network", facts["name"]),
        ("weights", facts["weights"]),
        *([("image size", size)] if (size := size_text(facts["image_size"], facts["zoom"], facts["mirror"])) else []),
        ("features", f"{facts['regions']} regions of {wide} channels"),
        ("training", "frozen" if facts["frozen"] else "fine-tuned with the method"),
    ]
    license = _license(spec.name) if spec.weights == "pretrained" and spec.tower is None else None
    if license:
        rows.append(("license of the weights", license))
    elif facts["weights"] == "random":
        rows.append(("license of the weights", "none needed: random"))
    elif facts["name"] == "test_resnet" and facts["weights"] == "backbone.safetensors":
        rows.append(("license of the weights", "that of this program: trained on its own drawings"))
    else:
        rows.append(("license of the weights", "not recorded; see the source of the weights"))
    return [*rows, ("fingerprint", facts["fingerprint"])]


def _license(name: str) -> str | None:
    """License of a network's pretrained weights, according to timm."""
    import timm

    try:
        facts = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # a name that this timm does not know
        return None
    named = None if facts is None else facts.license
    return None if not named else LICENSES.get(named.lower(), named)


def _uses(material: Material) -> list[str]:
    data = material.manifest["data"]
    lines = ["Sorting and pre-labeling images like those it was tested on, with a person who checks what matters."]
    if data["classes_unseen"]:
        lines.append("Finding candidates of classes without training images, from their attributes.")
    lines.append("Explaining a prediction, attribute by attribute.")
    return lines


def _limits(material: Material) -> list[str]:
    data = material.manifest["data"]
    lines = [
        f"It always chooses among the {counted(data['classes_seen'] + data['classes_unseen'], 'class')} of "
        "its table. An image of anything else also gets one of these names, unless its "
        "confidence is below the threshold for “unknown”.",
        "It expects images like those of the training: the same kind of camera, distance, light "
        "and season. Other images were not tested.",
        "The model knows unseen classes only from their row in the table. A wrong entry leads "
        "to wrong answers, and classes with nearly equal rows are confused.",
        "Heat maps show what the model used. They do not prove that it used the right thing: "
        "attributes that often occur together in training are easily confused.",
        "Do not use it for decisions about people, their health or safety.",
        "The numbers hold for these images, this split and this backbone; they are not comparable with published ones.",
    ]
    if material.run.protocol == "paper":
        lines.append("Settings were chosen on the test images, so the accuracies are somewhat too high.")
    if data["name"] == FIELDGUIDE:
        lines.append("These are drawings. The numbers say nothing about photos.")
    return lines


@dataclass(frozen=True)
class Repeat:
    """How to repeat the run: ``facts`` in order, the command, the configuration and the manifest."""

    command: str
    facts: list[tuple[str, str]]
    config: str
    manifest: str


def repeat(material: Material) -> Repeat:
    """Make it from configuration, manifest and results."""
    manifest, run = material.manifest, material.run
    machine, results = manifest["machine"], run.results
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    seeds = list(material.found["seeds"])
    commit = f" (commit {manifest['git']})" if manifest["git"] else ""
    facts = [
        ("program", f"unseen {manifest['unseen']}{commit}"),
        ("versions", versions),
        ("machine", f"{machine['processor']}, {counted(machine['threads'], 'thread')}, {machine['device']}"),
        ("system", machine["system"]),
        ("seeds", "none: the method is deterministic" if material.found["deterministic"] else ", ".join(seeds)),
        ("protocols", ", ".join(results["protocols"])),
        ("data", f"{manifest['data']['name']}, fingerprint {manifest['data']['fingerprint']}"),
        ("splits", f"final {manifest['splits']['final']}, validation {manifest['splits']['validation']}"),
        ("validation classes", validation_words(manifest["splits"])),
        ("backbone", f"{manifest['backbone']['fingerprint']}, region store {manifest['backbone']['store']}"),
        ("time", f"{results['seconds']:g} s for the last call, peak memory {results['peak_memory_mb']:,} MB"),
    ]
    config, found = (json.dumps(part, indent=2, ensure_ascii=False) for part in (run.config.to_json(), manifest))
    return Repeat(train_command(run.config), facts, config, found)
