"""A method and its backbone as one module that is trained on images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.methods import create_method, find_method
from unseen.methods.base import Branch, GradientMethod, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Settings


def method_hooks() -> set[str]:
    """Names of what a method is asked for: all that :class:`GradientMethod` adds to a module."""
    kinds = (Method, GradientMethod)
    declared = {name for kind in kinds for name in (*vars(kind), *vars(kind).get("__annotations__", ()))}
    return {name for name in declared if not name.startswith("_")}


class EndToEnd(GradientMethod):
    """A method on the maps of a fine-tuned backbone, asked as any other method is, with images instead of regions.

    Its state dict holds both, the backbone's weights below ``backbone``. What is written here takes images; every other
    hook of a method is the head's, see the end of this module.

    Args:
        head: the method, on the backbone's stages.
        backbone: its weights train from here on.
        checkpointing, batch_norm: see :meth:`unseen.backbones.backbone.Backbone.fine_tuned`.
    """

    end_to_end = True

    def __init__(
        self, head: GradientMethod, backbone: Backbone, checkpointing: bool = False, batch_norm: str = "frozen"
    ) -> None:
        super().__init__()
        self.head = head
        self.backbone = backbone.fine_tuned(checkpointing, batch_norm)
        self.to(memory_format=torch.channels_last)  # as the images come: no convolution lays its weights out anew

    @property
    def vectors(self) -> Tensor | None:
        """The head's attribute vectors."""
        found = getattr(self.head, "vectors", None)
        return found if isinstance(found, Tensor) else None

    @property
    def static_step(self) -> bool:
        """Never: images are drawn anew for every step."""
        return False

    @staticmethod
    def prepare(pixels: Tensor) -> Tensor:
        """Images are taken as they are."""
        return pixels

    def _maps(self, pixels: Tensor) -> Any:
        maps = self.backbone.maps(pixels)
        return maps[0] if len(maps) == 1 else maps

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """The head's, on the maps of images."""
        self.head.start(((self._maps(pixels), labels) for pixels, labels in batches), classes)

    def forward(self, pixels: Tensor) -> dict[str, Branch]:
        """Transformed images ``(B, 3, H, W)`` to the answers of the sub-nets in use."""
        found: dict[str, Branch] = self.head(self._maps(pixels))
        return found

    @torch.inference_mode()
    def regions(self, pixels: Tensor) -> Tensor:
        """Region features ``(B, R, C)`` of images, of the last stage as it has become."""
        result: Tensor = self.backbone(pixels)[-1]
        return result

    def forward_pass(self, pixels: Tensor, trained: tuple[int, ...]) -> dict[str, Branch]:
        """The head's, on the maps of images."""
        return self.head.forward_pass(self._maps(pixels), trained)

    def maps(self, pixels: Tensor) -> dict[str, Branch]:
        """The head's, on the maps of images; regions are positions of the last."""
        return self.head.maps(self._maps(pixels))

    def answers_and_maps(self, pixels: Tensor) -> tuple[dict[str, Branch], dict[str, Branch]]:
        """The head's, both on the same maps: one pass through the backbone."""
        maps = self._maps(pixels)
        return self.head(maps), self.head.maps(maps)

    def parts(self, pixels: Tensor) -> dict[str, Tensor]:
        """The head's, on the maps of images."""
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
) -> Method:
    """A method with fresh weights for a backbone: on its regions, or joined with it where it is trained end to end.

    Args:
        name: as :func:`unseen.methods.find_method` takes it.
        backbone: becomes part of an end-to-end method, and its weights then train.
        vectors: ``(K, D)`` attribute vectors; their dtype is the weights'.
        settings: the method's.
        seed: of the method's initial weights.
        checkpointing: of the backbone's activations, end to end only.
        batch_norm: what the backbone's batch normalisation trains with, end to end only.
    """
    kind = find_method(name)
    channels = backbone.channels[0] if kind.stages == 1 else tuple(backbone.channels)
    made = create_method(kind, channels=channels, vectors=vectors, settings=settings, seed=seed)
    if not kind.end_to_end:
        return made
    assert isinstance(made, GradientMethod)
    return EndToEnd(made, backbone.to(vectors.dtype), checkpointing, batch_norm)
