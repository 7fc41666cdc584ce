"""Class normalization (Skorokhodov and Elhoseiny, ICLR 2021): a network maps a class's attributes to a prototype.

With a_c the unit attribute vector of a class, x the pooled feature, and both networks normalized over classes::

    h_c = CN(ReLU(CN(W2 ReLU(W1 a_c))))          CN: every coordinate to mean 0, variance 1 over the classes of a step
    p_c = W3 h_c,   S_c = scale^2 <x / |x|, p_c / |p_c|>

In training CN uses mean and variance of the seen classes and updates running averages. At test it uses the running
averages, so a class's prototype depends on no other class. Cross-entropy is over the seen classes.
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
        hidden: units of each hidden layer.
        scale: gamma; class scores are gamma squared times a cosine.
        normalize: whether to normalize hidden values over classes; without, it is a plain network.
    """

    hidden: int = 1024
    scale: float = 5.0
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.scale <= 0:
            problem = f"hidden is {self.hidden}, scale {self.scale}"
            raise UnseenError(problem, hint="give 1 or more, and more than 0")


class ClassNormalization(nn.Module):
    """Normalize columns over classes in training, and by running averages afterwards.

    Args:
        units: number of columns.
        like: tensor of the wanted dtype and device.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, units: int, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", like.new_zeros(units))
        self.register_buffer("variance", like.new_ones(units))

    def forward(self, values: Tensor) -> Tensor:
        """``(N, units)`` to ``(N, units)``."""
        return F.batch_norm(values, self.mean, self.variance, training=self.training)


@register_method
class ClassNormalized(GradientMethod):
    """See the module's docstring. Ignores the attribute vectors.

    ``mean`` is the mean unit attribute vector of the seen classes; ``directions`` ``(K, C)`` is how much each attribute
    moves the scores of a class that has it. Both are computed for testing and then stay fixed.
    """

    name = "cn"
    card = Card(
        title="CN: class-normalized prototypes",
        paper="Skorokhodov and Elhoseiny, ICLR 2021 (arXiv 2006.11328)",
        exact="normalized and scaled scores, class normalization of the hidden layers and the variance 1/(hidden x "
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
        last = (3 / channels / hidden) ** 0.5  # uniform, with variance 1 / (hidden channels)
        for layer, bound in ((self.first, k**-0.5), (self.second, hidden**-0.5), (self.last, last)):
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()

    @property
    def by_attributes(self) -> bool:
        """False: the prototype is a nonlinear function of all attributes."""
        return False

    @property
    def offset_name(self) -> str:
        """Name of the prototype's part of a score."""
        return "the class's prototype"

    def prototypes(self, attributes: Tensor) -> Tensor:
        """``(N, C)`` unit prototypes of unit attribute vectors ``(N, K)``, normalized over them in training."""
        hidden = self.second(F.relu(self.first(attributes)))
        hidden = self.outer(F.relu(self.inner(hidden))) if self.settings.normalize else F.relu(hidden)
        return F.normalize(self.last(hidden), dim=1)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to the same features and attribute scores."""
        return {"prototypes": Branch(F.linear(regions[:, 0], self.directions), embedding=regions[:, 0])}

    def train(self, mode: bool = True) -> Self:
        """As in the base class; entering test mode recomputes the directions of attributes."""
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
        """``(B, K)`` attribute scores."""
        return branches["prototypes"].attribute_scores

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` zeros, because no score is a sum over attributes."""
        return torch.zeros_like(classes.vectors)

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, C)`` pooled features."""
        embedding = branches["prototypes"].embedding
        assert embedding is not None
        return embedding.to(self.mean.dtype)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, C)`` prototypes times gamma squared."""
        return self.settings.scale**2 * self.prototypes(classes.unit)

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Cross-entropy over the seen classes."""
        seen = classes.unit[classes.seen]
        self.mean.copy_(seen.mean(dim=0))
        scores = self.settings.scale**2 * self.query(branches) @ self.prototypes(seen).T
        return {"total": F.cross_entropy(scores, (torch.cumsum(classes.seen, 0) - 1)[labels])}
