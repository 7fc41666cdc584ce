"""Auto: the closed forms race on the same validation draws, and the best one is the model.

Every candidate of every method in the race is a candidate of one grid, so that choosing the method is choosing a
hyper-parameter: on validation classes, on all draws together. It takes what its methods take together, seconds. Ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unseen.methods.base import Branch, Candidate, Card, ClosedFormMethod, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.eszsl import ESZSL
from unseen.methods.kernel_prototypes import Prototypes
from unseen.methods.pooled import pool
from unseen.methods.preparation import FittedBuffers
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, Settings

RACING: tuple[type[ClosedFormMethod], ...] = (ESZSL, Prototypes)


@dataclass(frozen=True, kw_only=True)
class AutoSettings(Settings):
    """Settings of :class:`Auto`; none: each method races with its preset ``recommended``."""


class _Chosen(FittedBuffers):
    """The position of a method as the length of a buffer: a shape, so that a traced graph is of one method."""

    position: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.zeros(0))


@register_method
class Auto(ClosedFormMethod):
    """See the module's docstring; ``racing`` holds the methods, ``chosen`` says which is the best."""

    name = "auto"
    card = Card(
        title="Auto: the best closed form on validation classes",
        paper="ESZSL (ICML 2015) and prototypes (ours)",
        exact="-",
        ours="the selection: all candidates of all methods form one grid, chosen on the same draws "
        "of validation classes",
    )
    settings_class = AutoSettings
    presets: ClassVar = {"recommended": Preset(AutoSettings(), None, "ours")}
    prepare = staticmethod(pool)

    def __init__(
        self, channels: int, vectors: Tensor, settings: AutoSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.racing = nn.ModuleList(
            kind(channels, vectors, kind.presets["recommended"].settings, generator) for kind in RACING
        )
        self.chosen = _Chosen()

    @property
    def best(self) -> Method:
        """The method that was chosen."""
        found = self.racing[len(self.chosen.position)]
        assert isinstance(found, Method)
        return found

    def _methods(self) -> Iterator[ClosedFormMethod]:
        for method in self.racing:
            assert isinstance(method, ClosedFormMethod)
            yield method

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Fit all of them."""
        for method in self._methods():
            method.fit(regions, labels, classes)

    def grid(self) -> list[Candidate]:
        """Every candidate of every method, with the method's name."""
        return [{"method": method.name, **found} for method in self._methods() for found in method.grid()]

    def use(self, candidate: Candidate) -> None:
        """The method of one candidate, at its solution."""
        own = {key: value for key, value in candidate.items() if key != "method"}
        for position, method in enumerate(self._methods()):
            if method.name == candidate["method"]:
                self.chosen.position = torch.zeros(position)
                method.use(own)

    def sweep(self, regions: Tensor, classes: ClassSpace) -> Iterator[tuple[Candidate, Tensor]]:
        """The sweeps of all methods, one after the other."""
        for method in self._methods():
            for candidate, scores in method.sweep(regions, classes):
                yield {"method": method.name, **candidate}, scores

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """The best method's answer."""
        return self.best.forward(regions)

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """The best method's maps."""
        return self.best.maps(regions)

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` of the best method."""
        return self.best.fused_attribute_scores(branches)

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` of the best method."""
        return self.best.class_vectors(classes)

    @property
    def by_attributes(self) -> bool:
        """Whether the best method scores by attributes."""
        return self.best.by_attributes

    @property
    def own_query(self) -> Tensor | None:
        """The best method's."""
        return self.best.own_query

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """The best method's query."""
        return self.best.query(branches)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """The best method's embeddings of classes."""
        return self.best.class_embeddings(classes)

    def class_offsets(self, classes: ClassSpace) -> Tensor | None:
        """The best method's offsets."""
        return self.best.class_offsets(classes)
