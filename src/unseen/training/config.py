"""Configuration of a run: everything that determines its numbers, as one JSON-able record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Any, Self

from unseen.backbones.reduction import ReductionSpec
from unseen.backbones.spec import FINAL, SINGLE, BackboneSpec
from unseen.data.dataset import DRAWN_BY
from unseen.errors import RunError, UnseenError
from unseen.ground.checked import whole
from unseen.ground.files import located
from unseen.methods import find_method, method_reference
from unseen.methods.base import AnchoredMethod, Method
from unseen.methods.settings import as_text
from unseen.vectors.sources import SENTENCE, TEXT

PROTOCOLS = ("honest", "paper")
STORE_DTYPES = ("float16", "bfloat16", "float32")
SELECT = ("H", "T1", "AUSUC")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run.

    Args:
        method: name in the registry, or ``package.module:Class``.
        dataset: ``fieldguide`` or a dataset folder.
        backbone: network, weights and image size; a method of several stages uses the last ones unless it names them.
        preset: named settings of the method; ``None`` for those of the dataset.
        settings: changes to the method's settings, as values or text; stored as text.
        recipe: changes to the training recipe, likewise.
        vectors: attribute vectors, see :func:`unseen.vectors.sources.attribute_vectors`.
        protocols: ``honest``, ``paper`` or both; see ``docs/explanation/protocols.md``.
        seeds: seeds to train, one training each.
        split_seed: seed of the draws of validation classes and images.
        draws: number of draws of validation classes for the choices; 0 for :attr:`draw_count`.
        folds: which classes a draw holds out, ``random`` or ``axes``; see
            :func:`unseen.data.dataset.validation_partition`.
        select: validation metric that picks epoch or hyperparameters in ``honest``; H is taken at its best gamma.
        store_dtype: dtype of the region store.
        reduce: reduction of the regions, see :class:`unseen.backbones.reduction.ReductionSpec`; ``""`` for none.
        precision: Fabric's precision for training.
        accumulate: micro-batches per step.
        holdouts: number of class hold-outs, used if no unseen class has test images (:mod:`unseen.training.holdouts`).
            0 for none, ``None`` for :attr:`holdout_count`.
        time: seconds in which a run of ``auto`` should finish; determines what is tried. 0 for no limit.
        raced: whether the method won a race, see :mod:`unseen.training.race`.
        looked: entries of the backbone that did, of ``mirror`` and ``zoom``.
    """

    method: str
    dataset: str
    backbone: BackboneSpec
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    vectors: str = "auto"
    protocols: tuple[str, ...] = ("honest",)
    seeds: tuple[int, ...] = (0,)
    split_seed: int = 0
    draws: int = 0
    folds: str = "random"
    select: str = "H"
    store_dtype: str = "float16"
    reduce: str = ""
    precision: str = "32-true"
    accumulate: int = 1
    holdouts: int | None = None
    time: float = 0.0
    raced: bool = False
    looked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        kind = find_method(self.method)
        object.__setattr__(self, "method", method_reference(kind))
        object.__setattr__(self, "settings", as_text(self.settings))
        object.__setattr__(self, "recipe", as_text(self.recipe))
        object.__setattr__(self, "backbone", read_by(kind, self.backbone.located()))
        object.__setattr__(self, "vectors", located(located(self.vectors, TEXT), SENTENCE))
        object.__setattr__(self, "reduce", str(ReductionSpec.parse(self.reduce)))
        if self.reduce and (kind.end_to_end or kind.reads_text):
            problem = f"{kind.name} uses the backbone's full features"
            raise UnseenError(problem, where="--reduce", hint="omit it, or use a method on frozen regions")

    def _check_names(self) -> None:
        for protocol in self.protocols:
            if protocol not in PROTOCOLS:
                raise UnseenError(f'unknown protocol "{protocol}"', hint='use "honest", "paper", or both in a list')
        if self.select not in SELECT:
            raise UnseenError(f'unknown selection metric "{self.select}"', hint=f"use one of {', '.join(SELECT)}")
        if self.folds not in DRAWN_BY:
            raise UnseenError(f'unknown folds "{self.folds}"', hint=f"use {' or '.join(DRAWN_BY)}")
        if set(self.looked) - set(SINGLE):
            raise UnseenError(f"{list(self.looked)}", where="looked", hint=f"use only {' and '.join(SINGLE)}")
        if self.store_dtype not in STORE_DTYPES:
            raise UnseenError(
                f'unknown type "{self.store_dtype}"', where="store dtype", hint=f"use one of {', '.join(STORE_DTYPES)}"
            )

    def _check_numbers(self) -> None:
        if not isinstance(self.time, Real):
            raise UnseenError(f"time is {self.time!r}", where="time", hint="give a number of seconds")
        object.__setattr__(self, "time", float(self.time))  # numbers may be NumPy's, which JSON does not have
        object.__setattr__(self, "seeds", tuple(whole(seed, "seeds", 0) for seed in self.seeds))
        for name, least in (("split_seed", 0), ("accumulate", 1), ("draws", 0), ("holdouts", 0)):
            if (value := getattr(self, name)) is not None or name != "holdouts":
                object.__setattr__(self, name, whole(value, name, least))
        if not self.protocols or not self.seeds:
            raise UnseenError("no protocol or no seed", hint="pass at least one of each")
        if len(set(self.seeds)) != len(self.seeds):
            raise UnseenError("a seed appears twice", where="seeds", hint="list each seed once")
        if max(*self.seeds, self.split_seed) >= 2**63:
            raise UnseenError("a seed is too large", where="seeds", hint="use less than 2^63")
        if self.time < 0 or (self.time and self.method != "auto" and not self.raced):
            problem = f"time is {self.time:g}" if self.time < 0 else f"{self.method} tries nothing else"
            raise UnseenError(problem, where="time", hint="give a time above 0, and method auto")

    @property
    def draw_count(self) -> int:
        """Draws of validation classes: by default five; three for methods trained by gradients; one end to end.

        Anchored methods also use five, and a method may have a number of its own.
        """
        kind = find_method(self.method)
        five = kind.closed_form or issubclass(kind, AnchoredMethod)
        return self.draws or kind.draws or (5 if five else 1 if kind.end_to_end else 3)

    @property
    def holdout_count(self) -> int:
        """Class hold-outs: by default five; three for methods trained by gradients; one end to end."""
        kind = find_method(self.method)
        return self.holdouts if self.holdouts is not None else 5 if kind.closed_form else 1 if kind.end_to_end else 3

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON types."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {
            "backbone": self.backbone.to_json(),
            "settings": dict(self.settings),
            "recipe": dict(self.recipe),
            "protocols": list(self.protocols),
            "seeds": list(self.seeds),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: object = None) -> Self:
        """Read what :meth:`to_json` wrote; raises :class:`RunError` if invalid."""
        known = {entry.name for entry in fields(cls)}
        if isinstance(data, Mapping) and (unknown := [name for name in data if name not in known]):
            problem = f'the configuration has an unknown entry "{unknown[0]}", perhaps from another version of unseen'
            raise RunError(problem, where=where, hint="delete the run, or train into another folder")
        try:
            if wrong := [name for name in ("settings", "recipe") if not isinstance(data.get(name, {}), Mapping)]:
                raise TypeError(f"{wrong[0]} is not a mapping")
            find_method(data["method"], from_file=where or "a configuration")
            return cls(
                **{
                    **data,
                    "backbone": BackboneSpec.from_json(data["backbone"], where or "backbone spec", "train again"),
                    "protocols": tuple(data["protocols"]),
                    "seeds": tuple(data["seeds"]),
                    "looked": tuple(data.get("looked", ())),
                }
            )
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            raise RunError(f"not a valid run configuration ({error!r})", where=where, hint="train again") from None
        except UnseenError as error:
            raise RunError(str(error), where=where, hint="train again") from None

    def difference(self, other: RunConfig) -> list[str]:
        """Names of the entries that differ between two configurations."""
        mine, theirs = self.to_json(), other.to_json()
        return [name for name in mine if mine[name] != theirs[name]]


def read_by(kind: type[Method], backbone: BackboneSpec) -> BackboneSpec:
    """A backbone with the stages that a method reads: those named, else the last ones; its own of the drawn network."""
    needed = kind.stages
    if needed > 1 and (backbone.tower is not None or backbone.imported):
        problem = f"has one stage; {kind.name} needs {needed}"
        raise UnseenError(problem, where=backbone.name, hint="use a timm model")
    if kind.end_to_end and backbone.imported:
        hint = "use a timm model, or a method on frozen features, such as prototypes"
        raise UnseenError(f"imported features have no network for {kind.name} to train", where=backbone.name, hint=hint)
    if backbone.stages == (FINAL,) and kind.drawn_stage is not None:
        from unseen.fieldguide import WEIGHTS

        if backbone.weights == WEIGHTS:
            return replace(backbone, stages=(kind.drawn_stage,))
    if backbone.stages == (FINAL,):
        return replace(backbone, stages=(*range(-needed, -1), FINAL))
    if len(backbone.stages) != needed:
        hint = "these methods use one" if needed == 1 else f"pass {needed} stages for {kind.name}, shallow to deep"
        raise UnseenError(f"{len(backbone.stages)} stages", where="backbone", hint=hint)
    return backbone


def plain(value: Any) -> dict[str, Any]:
    """A settings dataclass as JSON types."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items()}
