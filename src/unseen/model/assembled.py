"""A method and its backbone as one module that trains on images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.methods import create_method, find_method
from unseen.methods.base import Branch, GradientMethod, Method, RefitMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Settings


def method_hooks() -> set[str]:
    """Names of all hooks that :class:`GradientMethod` adds to a module."""
    kinds = (Method, GradientMethod)
    declared = {name for kind in kinds for name in (*vars(kind), *vars(kind).get("__annotations__", ()))}
    return {name for name in declared if not name.startswith("_")}


class EndToEnd(GradientMethod):
    """A method on the maps of a fine-tuned backbone, with the interface of a method, but images as input.

    Its state dict holds both, with the backbone's weights below ``backbone``. Methods defined here take images; every
    other hook is forwarded to the head, see the end of this module.

    Args:
        head: the method, on the backbone's stages.
        backbone: its weights become trainable.
        checkpointing, batch_norm, layers: see :meth:`unseen.backbones.backbone.Backbone.fine_tuned`.
    """

    end_to_end = True

    def __init__(
        self,
        head: GradientMethod,
        backbone: Backbone,
        checkpointing: bool = False,
        batch_norm: str = "frozen",
        layers: str = "all",
    ) -> None:
        super().__init__()
        self.head = head
        self.backbone = backbone.fine_tuned(checkpointing, batch_norm, layers)
        self.to(memory_format=torch.channels_last)  # as the images, to avoid conversions

    @property
    def vectors(self) -> Tensor | None:
        """Attribute vectors of the head."""
        found = getattr(self.head, "vectors", None)
        return found if isinstance(found, Tensor) else None

    @property
    def static_step(self) -> bool:
        """False: images are drawn anew for every step."""
        return False

    @staticmethod
    def prepare(pixels: Tensor) -> Tensor:
        """Return the images unchanged."""
        return pixels

    def _maps(self, pixels: Tensor) -> Any:
        maps = self.backbone.maps(pixels)
        return maps[0] if len(maps) == 1 else maps

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """The start of the head, on the maps of images."""
        self.head.start(((self._maps(pixels), labels) for pixels, labels in batches), classes)

    def refit(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """The refit of the head, on the maps of images."""
        self.head.refit(((self._maps(pixels), labels) for pixels, labels in batches), classes)

    def forward(self, pixels: Tensor) -> dict[str, Branch]:
        """Transformed images ``(B, 3, H, W)`` to the branches of the sub-nets in use."""
        found: dict[str, Branch] = self.head(self._maps(pixels))
        return found

    @torch.inference_mode()
    def regions(self, pixels: Tensor) -> Tensor:
        """Region features ``(B, R, C)`` of images, from the last stage after training."""
        result: Tensor = self.backbone(pixels)[-1]
        return result

    def forward_pass(self, pixels: Tensor, trained: tuple[int, ...]) -> dict[str, Branch]:
        """The forward pass of the head, on the maps of images."""
        return self.head.forward_pass(self._maps(pixels), trained)

    def maps(self, pixels: Tensor) -> dict[str, Branch]:
        """Maps of the head, on the maps of images; regions are positions of the last stage."""
        return self.head.maps(self._maps(pixels))

    def answers_and_maps(self, pixels: Tensor) -> tuple[dict[str, Branch], dict[str, Branch]]:
        """Results of forward and maps of the head, in one pass through the backbone."""
        maps = self._maps(pixels)
        return self.head(maps), self.head.maps(maps)

    @property
    def refitted(self) -> RefitMethod:
        """The head, if it solves a closed form anew."""
        assert isinstance(self.head, RefitMethod)
        return self.head

    def solvable(self, pixels: Tensor) -> Tensor:
        """What the closed form of the head takes, from the maps of images."""
        return self.refitted.solvable(self._maps(pixels))

    def parts(self, pixels: Tensor) -> dict[str, Tensor]:
        """Learned parts of the head, on the maps of images."""
        return self.head.parts(self._maps(pixels))


def _heads(name: str) -> property:
    return property(lambda self: getattr(self.head, name), doc="The head's.")


for _name in sorted(method_hooks() - set(vars(EndToEnd))):
    setattr(EndToEnd, _name, _heads(_name))


def build_method(
    name: str | type[Method],
    backbone: Backbone,
    vectors: Tensor,
    settings: Settings,
    *,
    seed: int = 0,
    checkpointing: bool = False,
    batch_norm: str = "frozen",
    layers: str = "all",
) -> Method:
    """Create a method with fresh weights for a backbone: on its regions, or joined with it for end-to-end training.

    Args:
        name: as in :func:`unseen.methods.find_method`.
        backbone: becomes part of an end-to-end method, and its weights then train.
        vectors: ``(K, D)`` attribute vectors; the weights take their dtype.
        settings: settings of the method.
        seed: seed of the method's initial weights.
        checkpointing: recompute the backbone's activations; end to end only.
        batch_norm: statistics of the backbone's batch normalization in training; end to end only.
        layers: layers of the backbone that train; end to end only.
    """
    kind = find_method(name)
    channels = backbone.parts[0] if kind.stages == 1 else tuple(backbone.channels)
    made = create_method(kind, channels=channels, vectors=vectors, settings=settings, seed=seed)
    if not kind.end_to_end:
        return made
    assert isinstance(made, GradientMethod)
    return EndToEnd(made, backbone.to(vectors.dtype), checkpointing, batch_norm, layers)
