"""The interface of a method: regions to attribute scores, and attribute scores to class scores.

A method knows nothing of files, devices or datasets. Shapes: B images, R regions, C channels, K attributes,
N classes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, wraps
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unseen.errors import UnseenError


def _kept(compute: Callable[[Any], Tensor]) -> cached_property[Tensor]:
    """A tensor made once, and fit for training even if it is first asked for in inference mode."""

    @wraps(compute)
    def outside(self: Any) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return compute(self)

    return cached_property(outside)


@dataclass(frozen=True)
class Words:
    """What classes and attributes are called, for methods that read text.

    Args:
        classes: N class names as words.
        attributes: K attributes as words ("red crown color").
        groups: K names of attribute groups.
        encode: texts and a device to ``(M, D)`` unit vectors, a text each, in the space of the pooled regions.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    groups: tuple[str, ...]
    encode: Callable[[Sequence[str], torch.device], Tensor]


class ClassSpace:
    """Classes as tensors on the device of the method.

    Args:
        vectors: ``(N, K)`` attribute values, any unit.
        seen: bool ``(N,)``, classes trained on.
        words: their names, for methods with ``reads_text``.
        trained: int64 ``(N,)`` which of the classes trained on, in the order of the training, has a class's images, -1
            for none; by default the seen classes in order.
    """

    def __init__(
        self, vectors: Tensor, seen: Tensor, words: Words | None = None, trained: Tensor | None = None
    ) -> None:
        self.vectors = vectors
        self.seen = seen
        self.words = words
        self.trained = torch.where(seen, torch.cumsum(seen, 0) - 1, -1) if trained is None else trained

    @_kept
    def unit(self) -> Tensor:
        """``(N, K)`` rows of length 1."""
        return nn.functional.normalize(self.vectors, dim=1)

    @_kept
    def unit_nonnegative(self) -> Tensor:
        """``(N, K)`` rows of length 1 after negative entries (AWA2's "unknown") are set to 0."""
        return nn.functional.normalize(self.vectors.clamp(min=0), dim=1)

    @_kept
    def unseen_indices(self) -> Tensor:
        """Positions of the unseen classes."""
        return torch.nonzero(~self.seen).flatten()

    def blocks(self, size: int) -> list[ClassSpace]:
        """The classes in runs of ``size``; itself where there are no more."""
        if len(self.vectors) <= size:
            return [self]
        runs = [slice(start, start + size) for start in range(0, len(self.vectors), size)]
        words = [self.words and replace(self.words, classes=self.words.classes[run]) for run in runs]
        return [
            ClassSpace(self.vectors[run], self.seen[run], w, self.trained[run])
            for run, w in zip(runs, words, strict=True)
        ]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ClassSpace:
        """The same classes on another device."""
        return ClassSpace(self.vectors.to(device, dtype), self.seen.to(device), self.words, self.trained.to(device))


@dataclass
class Branch:
    """Output of a sub-net. A subclass may hold more ``(B, ...)`` tensors.

    Args:
        attribute_scores: ``(B, K)``.
        attention: ``(B, K, R)`` attention of each attribute, if requested.
        contributions: ``(B, K, R)`` contribution of each region, which sum to the attribute score, if requested.
        counterfactual: ``(B, K)`` attribute scores under an intervention on the attention (MSDN++, in training).
        embedding: ``(B, C)`` of whole images, where classes are compared with it directly (CLIP).
    """

    attribute_scores: Tensor
    attention: Tensor | None = None
    contributions: Tensor | None = None
    counterfactual: Tensor | None = None
    embedding: Tensor | None = None

    def change(self, to: Callable[[Tensor], Tensor]) -> None:
        """Replace every tensor in it, those of a subclass's own fields too; each has B rows."""
        for entry in fields(self):
            if isinstance(value := getattr(self, entry.name), Tensor):
                setattr(self, entry.name, to(value))


@dataclass(frozen=True)
class Card:
    """Who a method is by, and what of it is exact.

    Args:
        title: full name.
        paper: authors' venue and year, with the arXiv number where there is one.
        exact: what equals the paper or release, and how that is checked.
        ours: what is our reading or addition.
    """

    title: str
    paper: str = "unpublished"
    exact: str = "not stated"
    ours: str = "all of it"


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


Candidate = dict[str, Any]
"""Hyper-parameters by name: numbers, and names of preparations."""


class Method(nn.Module):
    """Base of all methods; see the module's docstring.

    Args:
        channels: C of the regions; for a method of several stages, of each.
        vectors: ``(K, D)`` attribute vectors, unused by methods that need none.
        settings: the method's own.
        generator: for initial weights.
    """

    name: ClassVar[str]
    card: ClassVar[Card]
    settings_class: ClassVar[type[Settings]] = Settings
    presets: ClassVar[dict[str, Preset]]
    """Named settings; where a class has none, the defaults of its settings and of the recipe."""
    closed_form: ClassVar[bool] = False
    end_to_end: ClassVar[bool] = False
    """Whether it is trained together with its backbone: it is given maps ``(B, C, h, w)`` instead of regions."""
    stages: ClassVar[int] = 1
    """How many stages of a backbone it reads; of several it is given a list."""
    sweeps_gamma: ClassVar[bool] = False
    """Whether the published protocol of the method sweeps the calibration offset (on the test set)."""

    reads_text: ClassVar[bool] = False
    """Whether it needs ``ClassSpace.words``, and so a backbone with a text tower."""
    ablations: ClassVar[Mapping[str, Ablation]] = {}
    """Rows of ``unseen ablate``, by name."""

    settings: Any

    @property
    def offset_name(self) -> str:
        """What a class score holds beside the attributes' evidence."""
        return "seen/unseen offset"

    @staticmethod
    def prepare(regions: Tensor) -> Tensor:
        """Prepare regions ``(B, R, C)`` without parameters, once per image."""
        raise NotImplementedError

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Compute the sub-nets in use from prepared regions ``(B, R', C)``."""
        raise NotImplementedError

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` scores whose product with a class vector is the class score, seen margin apart."""
        raise NotImplementedError

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors in the form that the method scores with."""
        return classes.unit

    @property
    def by_attributes(self) -> bool:
        """Whether a class score is a sum over attributes, apart from :meth:`class_offsets` and :attr:`own_query`."""
        return True

    @property
    def own_query(self) -> Tensor | None:
        """``(D - K,)`` of the average training image, where a seen class's own training images share in its score.

        A method :attr:`by_attributes` for which this is not ``None`` has K entries of :meth:`query` and
        :meth:`class_embeddings` for attributes, and then D - K more.
        """
        return None

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, D)`` what is multiplied with :meth:`class_embeddings`."""
        return self.fused_attribute_scores(branches)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, D)``, each row from its own class alone; :meth:`class_vectors` unless not :attr:`by_attributes`."""
        return self.class_vectors(classes)

    def class_offsets(self, classes: ClassSpace) -> Tensor | None:
        """``(N,)`` what a class score holds beside the product, each entry from its own class alone."""
        return None

    def class_scores(self, branches: dict[str, Branch], classes: ClassSpace) -> Tensor:
        """``(B, N)`` class scores: query times embeddings, plus offsets."""
        scores, offsets = self.query(branches) @ self.class_embeddings(classes).T, self.class_offsets(classes)
        return scores if offsets is None else scores + offsets

    def fused_contributions(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K, R)`` what each region adds to the fused attribute scores; needs the branches of :meth:`maps`.

        Fusion is linear, so it holds for every region's contribution as for their sum.
        """
        by_region = {}
        for name, branch in branches.items():
            assert branch.contributions is not None
            by_region[name] = Branch(branch.contributions.transpose(1, 2).flatten(0, 1))
        first = next(iter(branches.values())).contributions
        assert first is not None
        b, k, r = first.shape
        return self.fused_attribute_scores(by_region).view(b, r, k).transpose(1, 2)

    def counted(self, branches: dict[str, Branch]) -> list[str]:
        """Names of the sub-nets whose scores count at test."""
        return list(branches)

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """As :meth:`forward` on unprepared regions ``(B, R, C)``, with attention and contributions of every region."""
        raise NotImplementedError

    def answers_and_maps(self, regions: Tensor) -> tuple[dict[str, Branch], dict[str, Branch]]:
        """What :meth:`forward` and :meth:`maps` say of unprepared regions; they round differently."""
        return self(self.prepare(regions)), self.maps(regions)

    def parts(self, regions: Tensor) -> dict[str, Tensor]:
        """``(B, P, h, w)`` shares of each position in P learned parts, by sub-net; empty where none are learned."""
        return {}


class GradientMethod(Method):
    """A method trained by gradient steps."""

    @property
    def static_step(self) -> bool:
        """Whether every step is the same operations on the device, which a CUDA graph can hold.

        So it is where neither forward nor loss asks for a tensor's value, draws on the CPU, or makes tensors whose
        shapes depend on values.
        """
        return False

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Initial weights from the training images, where a method wants some; called once, before the first step.

        Args:
            batches: prepared regions ``(B, R', C)`` and labels ``(B,)`` of every training image, read when asked for.
            classes: of the stage.
        """

    def passes(self) -> tuple[tuple[int, ...], ...]:
        """What of the method each of a batch's optimiser steps trains; most take one step for all of it."""
        return ((),)

    def forward_pass(self, regions: Tensor, trained: tuple[int, ...]) -> dict[str, Branch]:
        """:meth:`forward` for one of :meth:`passes`."""
        result: dict[str, Branch] = self(regions)
        return result

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Loss terms, each a scalar; ``total`` is differentiated."""
        raise NotImplementedError


class ClosedFormMethod(Method):
    """A method with a closed-form solution and a grid of hyperparameters."""

    closed_form = True

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Prepare the solution from the prepared regions ``(n, R', C)`` of the training images."""
        raise NotImplementedError

    def grid(self) -> list[Candidate]:
        """Hyperparameter candidates; the first of equally good ones wins."""
        raise NotImplementedError

    def use(self, candidate: Candidate) -> None:
        """Set the weights to the solution of a candidate; call :meth:`fit` first."""
        raise NotImplementedError

    def sweep(self, regions: Tensor, classes: ClassSpace) -> Iterator[tuple[Candidate, Tensor]]:
        """Class scores of held-out images under every candidate, in the order of :meth:`grid`.

        A method with a large grid computes what its candidates share once. The scores then differ from those of
        :meth:`use` by rounding.

        Args:
            regions: prepared, ``(M, R', C)``.
            classes: N classes.

        Returns:
            Candidates with scores ``(M, N)``; those without a finite solution are left out.
        """
        for candidate in self.grid():
            self.use(candidate)
            if all(value.isfinite().all() for value in self.state_dict().values() if value.is_floating_point()):
                yield candidate, self.class_scores(self(regions), classes)


class AnchoredMethod(GradientMethod):
    """A gradient method on top of a closed form, which is chosen first, on the same draws of validation classes.

    Its class scores are the closed form's plus a share w of what each trained part changes in them. With shares of 0
    they are the closed form's to the bit.
    """

    start_method: ClassVar[type[ClosedFormMethod]]
    """The closed form."""
    trained_parts: ClassVar[Mapping[str, tuple[float, ...]]]
    """The parts that are trained, each with the candidates of its share beside 0."""
    candidate: Candidate | None = None
    """The closed form's hyper-parameters, set before training."""

    @staticmethod
    def start_settings(settings: Any) -> Settings:
        """Settings of the closed form, from this method's."""
        raise NotImplementedError

    @staticmethod
    def fixed_shares(settings: Any) -> dict[str, float]:
        """The shares that settings fix, by part; the others are chosen on validation classes."""
        return {}

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """:meth:`begin` with :attr:`candidate`."""
        if self.candidate is None:
            raise UnseenError("its closed form was not chosen", where=self.name, hint="set candidate before training")
        self.begin(batches, classes, self.candidate)

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace, candidate: Candidate) -> None:
        """Solve the closed form on all training images, see :meth:`start`; shares are 0 then."""
        raise NotImplementedError

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Set the share of each part; of one that is not named to 0."""
        raise NotImplementedError
