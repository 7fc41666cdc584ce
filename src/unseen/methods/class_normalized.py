"""Class normalisation (Skorokhodov and Elhoseiny, ICLR 2021): a network makes a prototype of a class's attributes.

With a_c the unit attribute vector of a class, x the pooled feature, both networks and normalisations over classes::

    h_c = CN(ReLU(CN(W2 ReLU(W1 a_c))))          CN: every coordinate to mean 0, variance 1 over the classes of a step
    p_c = W3 h_c,   S_c = scale^2 <x / |x|, p_c / |p_c|>

In training CN takes mean and variance of the seen classes and keeps running averages, with which classes are tested, so
that a class's prototype depends on no other class. Cross-entropy is over the seen classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.base import Branch, Card, GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.pooled import pool
from unseen.methods.preparation import region_shares
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, Recipe, Settings


@dataclass(frozen=True, kw_only=True)
class ClassNormalizedSettings(Settings):
    """Settings of :class:`ClassNormalized`.

    Args:
        hidden: units of both hidden layers.
        scale: gamma; class scores are its square times a cosine.
        normalize: whether hidden values are normalised over classes; without, it is the plain network.
    """

    hidden: int = 1024
    scale: float = 5.0
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.scale <= 0:
            problem = f"hidden is {self.hidden}, scale {self.scale}"
            raise UnseenError(problem, hint="give 1 or more, and more than 0")


class ClassNormalization(nn.Module):
    """Columns to mean 0 and variance 1 over classes in training, by their running averages afterwards.

    Args:
        units: columns.
        like: a tensor of the type and device wanted.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, units: int, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", like.new_zeros(units))
        self.register_buffer("variance", like.new_ones(units))

    def forward(self, values: Tensor) -> Tensor:
        """``(N, units)`` in and out."""
        return F.batch_norm(values, self.mean, self.variance, training=self.training)


@register_method
class ClassNormalized(GradientMethod):
    """See the module's docstring. The attribute vectors are not used.

    ``mean`` is the seen classes' mean unit attribute vector, ``directions`` ``(K, C)`` by how much each attribute moves
    the scores of a class that has it; they are made for testing, where no step changes them.
    """

    name = "cn"
    card = Card(
        title="CN: class-normalised prototypes",
        paper="Skorokhodov and Elhoseiny, ICLR 2021 (arXiv 2006.11328)",
        exact="normalised and scaled scores, class normalisation of the hidden layers and the variance 1/(hidden x "
        "channels) of the last layer's initial weights, as the paper describes them; checked against loops",
        ours="written from the description, not from the authors' code; two hidden layers of 1024, no ReLU after the "
        "last layer; features are mean-pooled regions of unit length; the recipe; attribute scores, for figures alone",
    )
    settings_class = ClassNormalizedSettings
    presets: ClassVar = {
        "default": Preset(
            ClassNormalizedSettings(),
            Recipe(epochs=30, batch_size=64, optimizer="adamw", lr=5e-4, weight_decay=1e-4),
            "scale as the paper's; width and recipe ours, not tuned",
        )
    }
    prepare = staticmethod(pool)
    settings: ClassNormalizedSettings
    mean: Tensor
    directions: Tensor

    def __init__(
        self,
        channels: int,
        vectors: Tensor,
        settings: ClassNormalizedSettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        k, hidden = len(vectors), settings.hidden
        like = {"dtype": vectors.dtype, "device": vectors.device}
        self.first = nn.utils.skip_init(nn.Linear, k, hidden, **like)
        self.second = nn.utils.skip_init(nn.Linear, hidden, hidden, **like)
        self.last = nn.utils.skip_init(nn.Linear, hidden, channels, **like)
        self.inner, self.outer = (ClassNormalization(hidden, vectors) for _ in range(2))
        self.register_buffer("mean", vectors.new_zeros(k))
        self.register_buffer("directions", vectors.new_zeros(k, channels))
        last = (3 / channels / hidden) ** 0.5  # uniform, of variance 1 / (hidden channels)
        for layer, bound in ((self.first, k**-0.5), (self.second, hidden**-0.5), (self.last, last)):
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()

    @property
    def by_attributes(self) -> bool:
        """No: attributes work together in a prototype."""
        return False

    @property
    def offset_name(self) -> str:
        """The prototype as a whole."""
        return "the class's prototype"

    def prototypes(self, attributes: Tensor) -> Tensor:
        """``(N, C)`` unit prototypes of unit attribute vectors ``(N, K)``, normalised over them in training."""
        hidden = self.second(F.relu(self.first(attributes)))
        hidden = self.outer(F.relu(self.inner(hidden))) if self.settings.normalize else F.relu(hidden)
        return F.normalize(self.last(hidden), dim=1)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)``, as they are and with attribute scores."""
        return {"prototypes": Branch(F.linear(regions[:, 0], self.directions), embedding=regions[:, 0])}

    def train(self, mode: bool = True) -> Self:
        """As the base's; for testing the directions of attributes are made anew."""
        super().train(mode)
        if not mode:
            with torch.inference_mode(False), torch.no_grad():
                k = len(self.mean)
                moved = self.mean + torch.eye(k, dtype=self.mean.dtype, device=self.mean.device) / k**0.5
                found = self.prototypes(torch.cat([moved, self.mean[None]]))
                self.directions = self.settings.scale**2 * (found[:-1] - found[-1:])
        return self

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)`` to the attribute scores; there is no attention."""
        contributions = (region_shares(regions) @ self.directions.T).transpose(1, 2)
        return {"prototypes": Branch(contributions.sum(dim=2), None, contributions, embedding=pool(regions)[:, 0])}

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)``."""
        return branches["prototypes"].attribute_scores

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` zeros: no score is a sum over attributes."""
        return torch.zeros_like(classes.vectors)

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, C)`` pooled features."""
        embedding = branches["prototypes"].embedding
        assert embedding is not None
        return embedding.to(self.mean.dtype)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, C)`` prototypes times ``scale^2``."""
        return self.settings.scale**2 * self.prototypes(classes.unit)

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy over the seen classes."""
        seen = classes.unit[classes.seen]
        self.mean.copy_(seen.mean(dim=0))
        scores = self.settings.scale**2 * self.query(branches) @ self.prototypes(seen).T
        return {"total": F.cross_entropy(scores, (torch.cumsum(classes.seen, 0) - 1)[labels])}
