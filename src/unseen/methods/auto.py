"""Auto: closed forms compete on the same validation draws, and the best one becomes the model.

The grid holds every candidate of every competing method, so choosing a method is choosing a hyperparameter on
validation classes, over all draws together. Takes the sum of the methods' times: seconds. Ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unseen.methods.base import Branch, Candidate, Card, ClosedFormMethod, SweepPart
from unseen.methods.class_space import ClassSpace
from unseen.methods.eszsl import ESZSL, Solutions
from unseen.methods.joint import JointSettings
from unseen.methods.kernel_prototypes import Prototypes
from unseen.methods.pooled import PooledLinear, pool
from unseen.methods.preparation import AUTO, FeaturePreparation, FittedBuffers
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, check_choice

RACING: tuple[type[ClosedFormMethod], ...] = (ESZSL, Prototypes)
CHOICES = (AUTO, *(kind.name for kind in RACING))


@dataclass(frozen=True, kw_only=True)
class AutoSettings(JointSettings):
    """Settings of :class:`Auto`; otherwise each method uses its preset ``recommended``.

    Args:
        features, rows, earlier: see :class:`JointSettings`.
        methods: ``auto`` for all, or the name of one.
    """

    methods: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "methods", CHOICES)


class _Chosen(FittedBuffers):
    """The position of a method, stored as the length of a buffer: a shape, so that a traced graph holds one method."""

    position: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.zeros(0))


def _named(method: str, part: SweepPart) -> SweepPart:
    for candidates, scores in part:
        yield [{"method": method, **candidate} for candidate in candidates], scores


@register_method
class Auto(ClosedFormMethod):
    """See the module's docstring; ``racing`` holds the methods, ``chosen`` the position of the best one."""

    name = "auto"
    card = Card(
        title="Auto: the best method on validation classes",
        paper="chooses among ESZSL (ICML 2015), prototypes (ours), MSDN++ (IJCV) and tuned (ours)",
        exact="-",
        ours="the selection: all candidates of all methods form one grid, chosen on the same draws "
        "of validation classes",
    )
    settings_class = AutoSettings
    joins = True
    presets: ClassVar = {"recommended": Preset(AutoSettings(), None, "ours")}
    prepare = staticmethod(pool)

    def __init__(
        self,
        channels: int | Sequence[int],
        vectors: Tensor,
        settings: AutoSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.racing = nn.ModuleList(
            kind(channels, vectors, self._settings_of(kind), generator)
            for kind in RACING
            if settings.methods in (AUTO, kind.name)
        )
        self.chosen = _Chosen()

    def _settings_of(self, kind: type[ClosedFormMethod]) -> Any:
        settings: Any = kind.presets["recommended"].settings
        shared = {name: getattr(self.settings, name) for name in ("features", "rows", "earlier")}
        return replace(settings, **shared)

    @property
    def best(self) -> PooledLinear:
        """The chosen method."""
        found = self.racing[len(self.chosen.position)]
        assert isinstance(found, PooledLinear)
        return found

    def _methods(self) -> Iterator[ClosedFormMethod]:
        for method in self.racing:
            assert isinstance(method, ClosedFormMethod)
            yield method

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Fit all methods; equal solutions of features are computed once."""
        shared: Solutions | None = None
        for method in self._methods():
            method.fit(regions, labels, classes)
            assert isinstance(method, ESZSL | Prototypes)
            if shared is not None and shared.equals(method.solutions):
                method.solutions = shared
            shared = method.solutions

    def grid(self) -> list[Candidate]:
        """Every candidate of every method, together with the method's name."""
        return [{"method": method.name, **found} for method in self._methods() for found in method.grid()]

    def use(self, candidate: Candidate) -> None:
        """Choose the method of a candidate, and set it to the candidate's solution."""
        own = {key: value for key, value in candidate.items() if key != "method"}
        for position, method in enumerate(self._methods()):
            if method.name == candidate["method"]:
                self.chosen.position = torch.zeros(position)
                method.use(own)

    def settle(self) -> bool:
        """As in the base class; all methods have to agree."""
        return all(method.settle() for method in self._methods())

    @property
    def whitened(self) -> FeaturePreparation | None:
        """As in the base class."""
        return next((found for method in self._methods() if (found := method.whitened) is not None), None)

    def sweep(self, regions: Tensor, classes: ClassSpace) -> Iterator[tuple[Candidate, Tensor]]:
        """The sweeps of all methods in turn."""
        for method in self._methods():
            for candidate, scores in method.sweep(regions, classes):
                yield {"method": method.name, **candidate}, scores

    def sweep_parts(self, regions: Tensor, classes: ClassSpace) -> Sequence[SweepPart]:
        """One for each preparation of features, with all methods in turn, which share its solutions."""
        by_method = [
            [_named(method.name, part) for part in method.sweep_parts(regions, classes)] for method in self._methods()
        ]
        return [chain(*parts) for parts in zip(*by_method, strict=True)]

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Compute the best method."""
        return self.best.forward(regions)

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Maps of the best method."""
        return self.best.maps(regions)

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` scores of the best method."""
        return self.best.fused_attribute_scores(branches)

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors of the best method."""
        return self.best.class_vectors(classes)

    @property
    def by_attributes(self) -> bool:
        """Whether the best method scores classes by attributes."""
        return self.best.by_attributes

    @property
    def own_query(self) -> Tensor | None:
        """The own query of the best method."""
        return self.best.own_query

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """The query of the best method."""
        return self.best.query(branches)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """Class embeddings of the best method."""
        return self.best.class_embeddings(classes)

    def class_offsets(self, classes: ClassSpace) -> Tensor | None:
        """Class offsets of the best method."""
        return self.best.class_offsets(classes)
