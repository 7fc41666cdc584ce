"""The command line that repeats a run, from its configuration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from unseen.backbones.spec import EXACT, FINAL, BackboneSpec
from unseen.data.catalogue import FIELDGUIDE
from unseen.methods import find_method
from unseen.training.config import RunConfig, read_by
from unseen.training.plan import default_backbone
from unseen.training.race import asked_for

WRITTEN = ("method", "dataset", "backbone", "preset", "settings", "recipe", "protocols", "seeds")
"""Entries with special options; any other entry has an option of its name and takes the value as it is."""


def train_words(config: RunConfig) -> list[str]:
    """``unseen train`` with every choice that differs from the command's defaults; always names the backbone."""
    config = asked_for(config)
    words = ["unseen", "train", config.dataset, "--method", config.method]
    if config.protocols != ("honest",):
        words += ["--protocol", "both" if len(config.protocols) > 1 else config.protocols[0]]
    if config.seeds != (0,):
        words += ["--seeds", _seeds(config.seeds)]
    if config.preset is not None:
        words += ["--preset", config.preset]
    for option, changes in (("--set", config.settings), ("--recipe", config.recipe)):
        for name, value in changes.items():
            words += [option, f"{name}={value}"]
    words += _backbone(config)
    for entry in fields(config):
        value = getattr(config, entry.name)
        if entry.name not in WRITTEN and value != entry.default:
            words += [f"--{entry.name.replace('_', '-')}", f"{value:g}s" if entry.name == "time" else str(value)]
    return words


def train_command(config: RunConfig) -> str:
    """The same as a line for a shell."""
    return shlex.join(train_words(config))


def _seeds(seeds: tuple[int, ...]) -> str:
    if seeds == tuple(range(len(seeds))):
        return str(len(seeds))
    return ",".join(str(s) for s in seeds) + ("," if len(seeds) == 1 else "")


def _backbone(config: RunConfig) -> list[str]:
    spec, own = config.backbone, default_backbone(FIELDGUIDE)
    words: list[str] = []
    if (spec.name, spec.weights, dict(spec.options)) == (own.name, own.weights, dict(own.options)):
        if config.dataset != FIELDGUIDE:
            words += ["--backbone", FIELDGUIDE]
        usual: BackboneSpec = own
    else:
        words += ["--backbone", spec.name]
        if spec.weights != "pretrained":
            words += ["--backbone-weights", spec.weights]
        for name, value in spec.options.items():
            words += ["--backbone-option", f"{name}={_option(value)}"]
        usual = BackboneSpec(name=spec.name)
    if spec.image_size is not None and spec.image_size != usual.image_size:
        words += ["--image-size", str(spec.image_size)]
    if spec.zoom != 1:
        words += ["--zoom", str(spec.zoom)]
    if spec.mirror:
        words += ["--mirror"]
    for name in ("mean", "std"):
        values: Sequence[float] | None = getattr(spec, name)
        if values is not None and values != getattr(usual, name):
            words += [f"--{name}", ",".join(repr(float(v)) for v in values)]
    if spec.crop != 1:
        words += ["--crop", repr(spec.crop)]
    if spec.pixels != EXACT:
        words += ["--pixels", spec.pixels]
    if spec.stages != read_by(find_method(config.method), replace(spec, stages=(FINAL,))).stages:
        words += ["--stage", ",".join(str(s) for s in spec.stages)]
    return words


def _option(value: Any) -> str:
    """A value as the option reads it: plain if that stays text, everything else as JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except json.JSONDecodeError:
            return value
    return json.dumps(value)
