"""The methods, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from unseen.errors import UnseenError
from unseen.methods.base import Branch, ClassSpace, Method, Preset, Recipe, Settings
from unseen.methods.clip import CLIP
from unseen.methods.compatibility import ALE, SJE, DeViSE
from unseen.methods.dap import DAP
from unseen.methods.eszsl import ESZSL
from unseen.methods.global_linear import GlobalLinear
from unseen.methods.mgmrn import MgMRN
from unseen.methods.msdn import MSDN
from unseen.methods.msdnpp import MSDNPP
from unseen.methods.sae import SAE

RECOMMENDED = "recommended"
"""The preset for people's own data."""
METHODS: dict[str, type[Method]] = {
    method.name: method for method in (MSDN, MSDNPP, MgMRN, GlobalLinear, ESZSL, DAP, SAE, ALE, DeViSE, SJE, CLIP)
}

__all__ = [
    "METHODS",
    "Branch",
    "ClassSpace",
    "Method",
    "Preset",
    "Recipe",
    "Settings",
    "create_method",
    "find_method",
    "find_preset",
]


def find_method(name: str) -> type[Method]:
    """The class of a method; raises :class:`UnseenError` with near names for an unknown one."""
    if name in METHODS:
        return METHODS[name]
    base, at, preset = name.partition("@")
    if at and base in METHODS:
        raise UnseenError(f'no method "{name}"', hint=f"here a preset stands by itself: {base} --preset {preset}")
    near = difflib.get_close_matches(name.lower(), METHODS, 1)
    hint = f'did you mean "{near[0]}"?' if near else f"one of {', '.join(METHODS)}"
    raise UnseenError(f'no method "{name}"', hint=hint)


def find_preset(method: type[Method], dataset: str, preset: str | None = None) -> tuple[str, Preset]:
    """A method's settings for a dataset: the preset named, else the dataset's own, else ours, else the first."""
    if preset is not None and preset not in method.presets:
        raise UnseenError(f'{method.name} has no preset "{preset}"', hint=f"one of {', '.join(method.presets)}")
    choices = [preset, dataset.lower(), RECOMMENDED, next(iter(method.presets))]
    name = next(choice for choice in choices if choice in method.presets)
    return name, method.presets[name]


def create_method(
    name: str,
    *,
    channels: int | Sequence[int],
    vectors: Tensor,
    settings: Settings | None = None,
    seed: int = 0,
) -> Method:
    """A method with fresh weights.

    Args:
        name: as in :data:`METHODS`.
        channels: C of the regions it will see; for a method of several stages, of each.
        vectors: ``(K, D)`` attribute vectors; their dtype is the weights'.
        settings: the method's; default the first preset's.
        seed: of the initial weights.
    """
    method = find_method(name)
    chosen = settings if settings is not None else next(iter(method.presets.values())).settings
    generator = torch.Generator(device=vectors.device).manual_seed(seed)
    return method(channels, vectors, chosen, generator)
