"""All methods, by name. Modules of this package are discovered automatically."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unseen.errors import UnseenError
from unseen.ground.checked import whole
from unseen.methods.base import Branch, ClosedFormMethod, GradientMethod, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.registry import (
    METHODS,
    discover,
    every_method,
    find_method,
    method_of_settings,
    method_reference,
    register_method,
)
from unseen.methods.settings import Ablation, Preset, Recipe, Settings

RECOMMENDED = "recommended"
"""Preset for users' own data."""

__all__ = [
    "METHODS",
    "Ablation",
    "Branch",
    "ClassSpace",
    "ClosedFormMethod",
    "GradientMethod",
    "Method",
    "Preset",
    "Recipe",
    "Settings",
    "create_method",
    "every_method",
    "find_method",
    "find_preset",
    "method_of_settings",
    "method_reference",
    "register_method",
]


def find_preset(method: type[Method], dataset: str, preset: str | None = None) -> tuple[str, Preset]:
    """Settings for a dataset: those of the named preset, else of the dataset's own, else of ours, else of the first."""
    if preset is not None and preset not in method.presets:
        raise UnseenError(f'{method.name} has no preset "{preset}"', hint=f"use one of {', '.join(method.presets)}")
    choices = [preset, dataset.lower(), RECOMMENDED, next(iter(method.presets))]
    name = next(choice for choice in choices if choice in method.presets)
    return name, method.presets[name]


def create_method(
    method: str | type[Method],
    *,
    channels: int | Sequence[int],
    vectors: Tensor | np.ndarray,
    preset: str | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    **changes: Any,
) -> Method:
    """Create a method with initial weights.

    Args:
        method: as in :func:`find_method`.
        channels: number of channels C of the regions; for several stages, or maps joined to one, a number for each.
        vectors: ``(K, D)`` attribute vectors; the weights take their dtype (float32 for arrays).
        preset: name of the preset whose settings to start from; by default the method's first.
        settings: settings of the method, instead of those of a preset.
        seed: seed of the initial weights.
        changes: settings to change, by name: ``lambda_cal=0.2``.

    Raises:
        UnseenError: no such method, preset or setting, or a value of the wrong kind.
    """
    kind = find_method(method)
    if settings is not None and preset is not None:
        raise UnseenError("settings and a preset", where=kind.name, hint="pass one of them, and changes by name")
    chosen = settings or find_preset(kind, "", preset or next(iter(kind.presets)))[1].settings
    chosen = type(chosen).changed(chosen, changes)
    table = vectors if isinstance(vectors, Tensor) else torch.as_tensor(np.asarray(vectors, np.float32))
    if not isinstance(channels, Sequence):
        channels = whole(channels, "channels", 1)
    elif kind.stages == 1:
        channels = tuple(channels) if kind.joins and len(channels) > 1 else sum(channels)
    seed = whole(seed, "seed", 0)
    generator = torch.Generator(device=table.device).manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers of torch, such as nn.Linear, draw from the global generator
        torch.default_generator.manual_seed((seed + 2**40) % 2**63)
        return kind(channels, table, chosen, generator)


discover(__name__, __path__)
