"""The interface of a method: regions to attribute scores, and attribute scores to class scores.

A method knows nothing of files, devices or datasets. Shapes: B images, R regions, C channels, K attributes,
N classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Ablation, Preset, Settings


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
