"""A saved folder, which may come from anybody: what may be in it, and how it is read. No pickle.

Its JSON is checked before anything is built from it, weights are safetensors, tables are CSV, and no file is opened but
those named here.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unseen.backbones.backbone import BackboneSpec
from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.towers import PREFIX, TEXTS
from unseen.backbones.vision import timm
from unseen.errors import RunError
from unseen.ground.files import read_json
from unseen.recognizer.parts import AGAIN, ENCODING, FACTS, LARGEST, Parts, alike, checked_settings, read_encoding

FORMAT = 1
WEIGHTS = "weights.safetensors"
BACKBONE = "backbone.safetensors"
TOWER = "backbone"
REFERENCES = "weights-references.npz"
CARD = "README.md"
FILES = (FACTS, WEIGHTS, "classes.csv", "attributes.csv", ENCODING, REFERENCES, TEXTS, BACKBONE, REDUCTION, CARD)
PATTERNS = (*FILES, *(f"{TOWER}/*.{kind}" for kind in ("json", "safetensors", "model", "txt")))
"""What is fetched from the hub, and what an upload replaces there."""
DTYPES = ("float32", "float16", "bfloat16")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def read_saved(folder: Path) -> Parts:
    """Those of a saved folder, checked.

    Raises:
        RunError: not a saved folder, of a newer version, or with something in it that does not belong there.
    """
    where = folder / FACTS
    facts = _Checked(read_json(where, RunError, "give a folder that `unseen save` wrote"), where)
    if (version := facts.whole("format", 1, LARGEST)) > FORMAT:
        raise RunError(f"format {version}, of a newer unseen", where=where, hint="pip install --upgrade unseen")
    method = facts.text("method")
    settings = checked_settings(method, facts.mapping("settings"), where)
    references = folder / REFERENCES
    return Parts(
        folder,
        _spec(facts.mapping("backbone"), folder),
        folder / WEIGHTS,
        references if references.is_file() else None,
        method,
        settings,
        facts.whole("vector_length", 1, LARGEST),
        facts.number("gamma", -math.inf),
        facts.number("temperature", 1e-12) if facts.has("temperature") else None,
        facts.number("threshold", 0, 1) if facts.has("threshold") else None,
        facts.text("store_dtype", DTYPES),
        facts.mapping("about"),
        read_encoding(folder),
        facts.numbers("typical") if facts.has("typical") else None,
        folder / REDUCTION if facts.has("reduce") else None,
        facts.mapping("tables") if facts.has("tables") else {},
    )


def _spec(values: Mapping[str, Any], folder: Path) -> BackboneSpec:
    """The backbone of a saved folder: a name that is fetched, or weights in that folder, and nothing elsewhere."""
    where = folder / FACTS
    facts = _Checked(values, where, "backbone.")
    name, weights = facts.text("name"), facts.text("weights", ("pretrained", "random", BACKBONE))
    tower = name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
    if tower not in (None, TOWER) and not HUB_ID.fullmatch(str(tower).partition("@")[0]):
        raise RunError(f"backbone.name {name[:60]!r} is outside the folder", where=where, hint=AGAIN)
    options = facts.mapping("options")
    reserved = set(inspect.signature(timm.create_model).parameters)
    for key, value in options.items():
        scalars = value if isinstance(value, list) and len(value) <= 16 else [value]
        fit = all(
            v is None or isinstance(v, str | bool) or (isinstance(v, int | float) and abs(v) <= 1e5) for v in scalars
        )
        if key in reserved or key.startswith("pretrained") or not fit:
            raise RunError(f"backbone.options.{key[:60]} is not let through", where=where, hint=AGAIN)
    facts.whole("image_size", 1, 4096)
    facts.whole("seed", 0, 2**63 - 1)
    facts.number("crop", 0, 1)
    stages = facts.values.get("stages")
    if not isinstance(stages, list) or len(stages) > 16 or not all(isinstance(s, str | int) for s in stages):
        raise RunError("backbone.stages is not a list of stages", where=where, hint=AGAIN)
    for key in ("mean", "std"):
        three = facts.values.get(key)
        if not isinstance(three, list) or not all(alike(v, 1.0) for v in three):
            raise RunError(f"backbone.{key} is not three numbers", where=where, hint=AGAIN)
    spec = BackboneSpec.from_json(values, where, AGAIN)
    if tower == TOWER:
        return replace(spec, name=PREFIX + str(folder / TOWER))
    return replace(spec, weights=str(folder / BACKBONE)) if weights == BACKBONE else spec


class _Checked:
    """Values of a JSON object, each of the kind asked for, or one line."""

    def __init__(self, values: Any, where: Path, prefix: str = "") -> None:
        if not isinstance(values, Mapping):
            raise RunError("not a JSON object", where=where, hint=AGAIN)
        self.values: Mapping[str, Any] = values
        self._where, self._prefix = where, prefix

    def _error(self, key: str, kind: str) -> RunError:
        return RunError(f"{self._prefix}{key} is not {kind}", where=self._where, hint=AGAIN)

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def text(self, key: str, allowed: Sequence[str] = ()) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or len(value) > 1000:
            raise self._error(key, "a text")
        if allowed and value not in allowed:
            raise self._error(key, f"one of {', '.join(allowed)}")
        return value

    def number(self, key: str, least: float, most: float = math.inf) -> float:
        value = self.values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._error(key, "a number")
        if not least <= value <= most:
            raise self._error(key, f"between {least:g} and {most:g}")
        return float(value)

    def numbers(self, key: str) -> np.ndarray:
        values = self.values.get(key)
        if not isinstance(values, list) or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise self._error(key, "a list of numbers")
        return np.array(values, dtype=np.float64)

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._error(key, f"a whole number from {least} to {most}")
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self._error(key, "a JSON object")
        return value
