"""Write a folder that another machine can read: weights, classes, backbone, model card; no pickle."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.towers import PREFIX, TEXTS, model_files
from unseen.classes.attributes import write_attributes
from unseen.classes.changes import ENCODING, reset, table_digests
from unseen.ground.files import new_folder, write_json, write_text
from unseen.methods import Method, method_reference
from unseen.model.support import keep_support
from unseen.model.trained import TrainedModel
from unseen.model.weights import save_weights
from unseen.recognizer.card import CardFields, model_card
from unseen.recognizer.names import BACKBONE, CARD, FACTS, FILES, FORMAT, REFERENCES, SPACE, TOWER, WEIGHTS


def save(model: TrainedModel, folder: Path, include_backbone: bool, include_references: bool, card: CardFields) -> Path:
    """See :meth:`unseen.recognizer.recognizer.Recognizer.save`."""
    folder = new_folder(folder, _saved_before, "saved model")
    method, table = model.method, model.table
    spec, stored = _save_backbone(model, folder, include_backbone)
    save_weights(folder / WEIGHTS, method)
    if method.reads_text:
        model.text_tower.save(folder / TEXTS)
    if model.takes_images:
        model.space.save(folder / SPACE)
    reset(folder)  # save the classes in use
    keep_support(folder, model.support, names_only=True)
    table.to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", table.attributes)
    references = model.references if include_references else None
    if references is not None:
        references.save(folder / REFERENCES)
    if model.encoding is not None:
        write_json(folder / ENCODING, model.encoding.to_json(), sealed=True)
    reduction = model.backbone.reduction
    if reduction is not None:
        reduction.save(folder / REDUCTION)
    for name, there in (
        (ENCODING, model.encoding is not None),
        (REFERENCES, references is not None),
        (BACKBONE, stored == "file"),
        (REDUCTION, reduction is not None),
        (SPACE, model.takes_images),
    ):
        if not there:
            (folder / name).unlink(missing_ok=True)  # of an earlier save
    facts = {
        "format": FORMAT,
        "method": method_reference(getattr(method, "head", method)),
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in vars(method.settings).items()},
        "vector_length": _vector_length(method),
        "backbone": spec.to_json(),
        "gamma": model.gamma,
        "temperature": model.temperature,
        "threshold": model.threshold,
        "rank_thresholds": {rank: vars(one) for rank, one in model.rank_thresholds.items()},
        "store_dtype": model.store_dtype,
        "reduce": None if reduction is None else str(reduction.spec),
        "typical": model.typical.tolist() if model.typical.any() else None,
        "about": without_paths(model.about),
        "tables": table_digests(folder),
    }
    write_text(folder / CARD, model_card(model, card, backbone_stored=stored is not None))
    write_json(folder / FACTS, facts, sealed=True)
    return folder


def _saved_before(inside: set[str]) -> bool:
    begun = inside <= {*FILES, TOWER} and bool(inside & {WEIGHTS, BACKBONE, TOWER})  # left by an interrupted save
    return begun or FACTS in inside


def without_paths(value: Any) -> Any:
    """JSON without the folders of this machine: absolute paths are reduced to file names."""
    if isinstance(value, Mapping):
        return {k: without_paths(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(v) for v in value]
    if isinstance(value, str) and re.match(r"(/|~|\\\\|[A-Za-z]:[\\/])", value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _save_backbone(model: TrainedModel, folder: Path, include: bool) -> tuple[BackboneSpec, str | None]:
    """Store what another machine cannot download, or everything; returns the spec to write, and how it was stored."""
    spec = model.backbone.spec
    if model.method.end_to_end:  # the method's weights include it
        return replace(spec, weights="random"), "weights"
    if spec.tower is not None:
        if not include and not Path(spec.tower).is_dir():
            return spec, None
        (folder / TOWER).mkdir(exist_ok=True)
        for source in model_files(spec.tower):
            target = folder / TOWER / source.name
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        return replace(spec, name=PREFIX + TOWER), "folder"
    if spec.weights == "pretrained" and not spec.is_own and not include:
        return spec, None
    save_weights(folder / BACKBONE, model.backbone.network)
    return replace(spec, weights=BACKBONE), "file"


def _vector_length(method: Method) -> int:
    vectors = getattr(method, "vectors", None)
    return int(vectors.shape[1]) if isinstance(vectors, torch.Tensor) else 1
