"""What a user may set: a method's settings and its training recipe, as values or as text."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import nn

from unseen.errors import UnseenError


def check_choice(settings: object, name: str, allowed: tuple[str, ...]) -> None:
    """Raise an :class:`UnseenError` where a setting is none of the texts allowed."""
    value = getattr(settings, name)
    if value not in allowed:
        raise UnseenError(
            f'"{value}" is not a valid choice', where=f"setting {name}", hint=f"use one of {', '.join(allowed)}"
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training recipe of a gradient method.

    Args:
        epochs: passes over the training images; steps = images * epochs // batch_size.
        batch_size: images per step.
        step_images: images that a step counts for in that formula where a release counts other than the batch
            (MSDN on AWA2: 50, at a batch of 40); 0 for the batch size.
        batches: steps an epoch, instead of that formula; 0 for the formula.
        sampler: ``random`` (independent draw of images) or ``classes`` (``shots`` images of each class drawn).
        shots: see ``sampler``; a batch is of ``batch_size / shots`` classes.
        optimizer: ``rmsprop``, ``sgd`` or ``adamw``.
        lr, weight_decay, momentum: of the optimizer.
        lr_factor, lr_every: every ``lr_every`` epochs, ``lr`` is multiplied by ``lr_factor``.
        lr_early: epochs by which each of these changes comes earlier; 1 makes it at the start of epoch ``lr_every``
            (Mg-MRN's release), 0 after its end.
        average: weights are tested and kept as their exponential moving average over steps with this decay; 0 for the
            last step's.
    """

    epochs: int = 30
    batch_size: int = 50
    step_images: int = 0
    batches: int = 0
    sampler: str = "random"
    shots: int = 1
    optimizer: str = "rmsprop"
    lr: float = 1e-4
    weight_decay: float = 1e-4
    momentum: float = 0.9
    lr_factor: float = 1.0
    lr_every: int = 1
    lr_early: int = 0
    average: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self, "sampler", ("random", "classes"))
        check_choice(self, "optimizer", ("rmsprop", "sgd", "adamw"))
        least = dict.fromkeys(("epochs", "batch_size", "shots", "lr_every"), 1)
        least |= dict.fromkeys(("step_images", "batches", "lr", "weight_decay", "momentum", "lr_factor", "lr_early"), 0)
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UnseenError(f"{name} is {getattr(self, name)}", hint=f"use {low} or more")
        if not 0 <= self.average < 1:
            raise UnseenError(f"average is {self.average}", hint="use 0 or more, and less than 1")
        if self.sampler != "classes" and self.shots > 1:
            raise UnseenError(f"{self.shots} shots with independent images", hint="pass sampler=classes")
        if self.batch_size % self.shots:
            problem = f"batch_size {self.batch_size} is not a multiple of {self.shots} shots"
            raise UnseenError(problem, where="recipe", hint="use a batch_size that is a multiple of shots")

    def lr_of(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.lr * self.lr_factor ** ((epoch - 1 + self.lr_early) // self.lr_every)

    def make_optimizer(self, parameters: Iterator[nn.Parameter], capturable: bool = False) -> torch.optim.Optimizer:
        """The optimiser over the parameters that train; ``capturable`` in a CUDA graph."""
        trained = [p for p in parameters if p.requires_grad]
        common: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "rmsprop":
            return torch.optim.RMSprop(trained, momentum=self.momentum, capturable=capturable, **common)
        if self.optimizer == "sgd":  # has no state that a graph could not hold
            made = torch.optim.SGD(trained, momentum=self.momentum, fused=True, **common)  # the same to the bit
            if self.momentum:  # at zero, as it starts: a fused step fails where only some parameters have theirs yet
                for parameter in trained:
                    made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return made
        return torch.optim.AdamW(trained, capturable=capturable, **common)


@dataclass(frozen=True, kw_only=True)
class EndToEndRecipe(Recipe):
    """How a method and its backbone are trained together, on images.

    Args:
        resize: short side that training images are resized to, times the input size; a random crop is taken of them.
        flip: whether every other training image is mirrored.
        batch_norm: what the backbone's batch normalisation trains with: ``frozen``, the statistics of the pre-training,
            or ``batch``, each batch's own, whose running averages are used in tests.
        checkpointing: compute the backbone's activations again in the backward pass instead of keeping them all.
    """

    resize: float = 8 / 7
    flip: bool = True
    batch_norm: str = "frozen"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "batch_norm", ("frozen", "batch"))
        if not 1 <= self.resize <= 4:
            raise UnseenError(f"resize is {self.resize}", hint="use 1 to 4 times the input size")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every method's settings."""

    @classmethod
    def changed(cls, base: Self, changes: Mapping[str, Any]) -> Self:
        """``base`` with some settings changed: values of their kind, or text as on the command line.

        Raises:
            UnseenError: no such setting, or a value of the wrong kind.
        """
        return _changed(base, changes, "setting")


def as_text(values: Mapping[str, Any] | Settings | Recipe) -> dict[str, str]:
    """Settings or recipe entries as the command line takes them: a run keeps them so.

    Args:
        values: by name, of their kind or as text; or an instance, which stands for all its entries.

    Raises:
        UnseenError: a value is neither text, number, truth value nor a list of those.
    """
    if not isinstance(values, Mapping):
        values = {f.name: getattr(values, f.name) for f in fields(values)}
    return {name: _text(value, name) for name, value in values.items()}


def _text(value: Any, name: str) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple | list) and value:
        return ",".join(_text(v, name) for v in value)
    raise UnseenError(
        f"{value!r} has the wrong type", where=f"setting {name}", hint="use a number, true or false, or text"
    )


_Changed = TypeVar("_Changed", bound=Settings | Recipe)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _changed(base: _Changed, changes: Mapping[str, Any], what: str) -> _Changed:
    known = {f.name: f for f in fields(base)}
    values: dict[str, Any] = {}
    for name, text in as_text(changes).items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(known) or 'none'}"
            raise UnseenError(f'no {what} "{name}"', hint=hint)
        now = getattr(base, name)
        try:
            if isinstance(now, bool):
                values[name] = _TRUTH[text.lower()]
            elif isinstance(now, tuple):
                values[name] = tuple(type(now[0])(v) for v in text.split(","))
                if len(values[name]) != len(now):
                    raise ValueError
            else:
                values[name] = type(now)(text)
            numbers = values[name] if isinstance(now, tuple) else (values[name],)
            if not all(math.isfinite(v) for v in numbers if isinstance(v, float)):
                raise ValueError
        except (ValueError, KeyError):
            kind = f"{len(now)} values, comma-separated" if isinstance(now, tuple) else _KINDS[type(now)]
            raise UnseenError(f'"{text}" has the wrong type', where=f"{what} {name}", hint=f"use {kind}") from None
    return replace(base, **values)


def change_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some entries changed: values of their kind, or text."""
    return _changed(recipe, changes, "recipe entry")


@dataclass(frozen=True)
class Preset:
    """Named settings of a method with where they come from."""

    settings: Settings
    recipe: Recipe | None
    source: str


@dataclass(frozen=True)
class Ablation:
    """A method with something taken away or exchanged.

    Args:
        says: what is taken away or exchanged, in a few words.
        changes: settings or recipe entries to change, as text.
        method: another method to stand in the row instead (with its own settings).
    """

    says: str
    changes: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
