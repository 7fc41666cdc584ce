"""What a user can set: settings of a method and its training recipe, as values or as text."""

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
from unseen.ground.compiler import uncompiled
from unseen.ground.words import counted


def check_choice(settings: object, name: str, allowed: tuple[str, ...]) -> None:
    """Raise an :class:`UnseenError` if a setting is not one of the allowed texts."""
    value = getattr(settings, name)
    if value not in allowed:
        raise UnseenError(
            f'"{value}" is not a valid choice', where=f"setting {name}", hint=f"use one of {', '.join(allowed)}"
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training recipe of a gradient method.

    Args:
        epochs: passes over the training images; the number of steps is images * epochs // batch_size.
        batch_size: images per step.
        step_images: images that a step counts for in that formula, if a release counts other than the batch (MSDN on
            AWA2: 50, with batches of 40); 0 for the batch size.
        batches: steps per epoch, instead of that formula; 0 for the formula.
        sampler: ``random`` (images drawn independently) or ``classes`` (``shots`` images of each drawn class).
        shots: see ``sampler``; a batch holds ``batch_size / shots`` classes.
        optimizer: ``rmsprop``, ``sgd`` or ``adamw``.
        lr, weight_decay, momentum: parameters of the optimizer.
        lr_factor, lr_every: ``lr`` is multiplied by ``lr_factor`` every ``lr_every`` epochs.
        lr_early: number of epochs by which these changes come earlier; with 1 at the start of epoch ``lr_every``
            (Mg-MRN's release), with 0 after its end.
        average: decay of the exponential moving average of the weights over steps, which is tested and stored; 0 uses
            the weights of the last step.
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

    def lr_at(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, among all steps of the recipe."""
        return self.lr_of(epoch)

    def make_optimizer(self, parameters: Iterator[nn.Parameter], capturable: bool = False) -> torch.optim.Optimizer:
        """Create the optimizer for the trainable parameters; ``capturable`` for use in a CUDA graph."""
        trained = [p for p in parameters if p.requires_grad]
        common: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "rmsprop":
            return uncompiled(torch.optim.RMSprop)(trained, momentum=self.momentum, capturable=capturable, **common)
        if self.optimizer == "sgd":  # no state that a graph could not hold
            # a fused step is equal bit for bit
            made = uncompiled(torch.optim.SGD)(trained, momentum=self.momentum, fused=True, **common)
            if self.momentum:  # set to the initial value 0: a fused step fails if only some parameters have a buffer
                for parameter in trained:
                    made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return made
        return uncompiled(torch.optim.AdamW)(trained, capturable=capturable, **common)


@dataclass(frozen=True, kw_only=True)
class EndToEndRecipe(Recipe):
    """Recipe for training a method together with its backbone, on images.

    Args:
        resize: short side to which training images are resized, as a factor of the input size; followed by a random
            crop.
        flip: whether to mirror half of the training images at random.
        batch_norm: statistics of the backbone's batch normalization in training: ``frozen`` (of the pre-training) or
            ``batch`` (of each batch, with running averages at test).
        checkpointing: recompute the backbone's activations in the backward pass instead of storing them all.
        layers: layers of the backbone that train: ``all``, or ``last`` for those after its last stage but one.
        views: number of views of each image on which layers that don't train are computed, once; steps draw from
            them. Needs ``layers=last``. 0 computes all layers in every step, on random crops.
        warm_up: share of the steps in which the learning rate rises linearly from 0 to ``lr``, to fall to 0 after that
            along half a cosine; 0 for ``lr_factor``.
    """

    resize: float = 8 / 7
    flip: bool = True
    batch_norm: str = "frozen"
    checkpointing: bool = False
    layers: str = "all"
    views: int = 0
    warm_up: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "batch_norm", ("frozen", "batch"))
        check_choice(self, "layers", ("all", "last"))
        if not 1 <= self.resize <= 4:
            raise UnseenError(f"resize is {self.resize}", hint="use 1 to 4 times the input size")
        if self.views < 0 or (self.views and (self.layers, self.batch_norm) != ("last", "frozen")):
            hint = "use 0, or 1 or more together with layers=last and batch_norm=frozen"
            raise UnseenError(f"views is {self.views}", where="recipe", hint=hint)
        if not 0 <= self.warm_up < 1:
            raise UnseenError(f"warm_up is {self.warm_up}", where="recipe", hint="use 0 or more, and less than 1")

    def lr_at(self, epoch: int, step: int, steps: int) -> float:
        """As in the base class."""
        if not self.warm_up:
            return self.lr_of(epoch)
        rising = self.warm_up * steps
        if step < rising:
            return self.lr * min(1.0, (step + 1) / rising)
        return self.lr * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class of all settings of methods."""

    @classmethod
    def changed(cls, base: Self, changes: Mapping[str, Any]) -> Self:
        """Return ``base`` with some settings changed, given as values or as text like on the command line.

        Raises:
            UnseenError: no such setting, or a value of the wrong type.
        """
        return _changed(base, changes, "setting")


def as_text(values: Mapping[str, Any] | Settings | Recipe) -> dict[str, str]:
    """Settings or recipe entries as text, as on the command line and in the files of a run.

    Args:
        values: values or texts by name; or an instance, for all its entries.

    Raises:
        UnseenError: a value is not text, a number, a truth value or a list of these.
    """
    if isinstance(values, Settings | Recipe):
        values = {f.name: getattr(values, f.name) for f in fields(values)}
    elif not isinstance(values, Mapping):
        raise UnseenError(f"{type(values).__name__} holds no settings", hint='pass a dict, such as {"lr": 1e-3}')
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
            kind = f"{counted(len(now), 'value')}, comma-separated" if isinstance(now, tuple) else _KINDS[type(now)]
            raise UnseenError(f'"{text}" has the wrong type', where=f"{what} {name}", hint=f"use {kind}") from None
    return replace(base, **values)


def change_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some entries changed, given as values or as text."""
    return _changed(recipe, changes, "recipe entry")


@dataclass(frozen=True)
class Preset:
    """Named settings of a method and their source.

    Args:
        settings: an instance of the method's ``settings_class``.
        recipe: how it is trained; ``None`` for a closed form.
        source: where the numbers come from, in a few words.
    """

    settings: Settings
    recipe: Recipe | None
    source: str


@dataclass(frozen=True)
class Ablation:
    """A method with something removed or replaced.

    Args:
        says: what is removed or replaced, in a few words.
        changes: settings or recipe entries to change, as values or as text.
        method: another method to use in this row instead, with its own settings.
    """

    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None
