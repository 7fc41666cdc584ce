"""The interface of a method: regions to attribute scores, and attribute scores to class scores.

A method knows nothing about files, devices or datasets. Shapes: B images, R regions, C channels, K attributes,
N classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Ablation, Preset, Settings

if TYPE_CHECKING:
    from unseen.methods.preparation import FeaturePreparation


@dataclass
class Branch:
    """Output of a sub-net. A subclass may hold more ``(B, ...)`` tensors.

    Args:
        attribute_scores: ``(B, K)`` attribute scores.
        attention: ``(B, K, R)`` attention of each attribute, if requested.
        contributions: ``(B, K, R)`` contribution of each region, which sum to the attribute score, if requested.
        counterfactual: ``(B, K)`` attribute scores under an intervention on the attention (MSDN++, in training).
        embedding: ``(B, C)`` embeddings of whole images, for methods that compare them with classes directly (CLIP).
    """

    attribute_scores: Tensor
    attention: Tensor | None = None
    contributions: Tensor | None = None
    counterfactual: Tensor | None = None
    embedding: Tensor | None = None

    def change(self, to: Callable[[Tensor], Tensor]) -> None:
        """Apply ``to`` to every tensor, including those of a subclass; each must keep its B rows."""
        for entry in fields(self):
            if isinstance(value := getattr(self, entry.name), Tensor):
                setattr(self, entry.name, to(value))


@dataclass(frozen=True)
class Card:
    """Origin of a method, and which parts of it are exact.

    Args:
        title: full name.
        paper: venue and year, with the arXiv number if there is one.
        exact: what equals the paper or release, and how this is checked.
        ours: what is our interpretation or addition.
    """

    title: str
    paper: str = "unpublished"
    exact: str = "not stated"
    ours: str = "all of it"


Candidate = dict[str, Any]
"""Hyperparameters by name: numbers, and names of preparations."""


class Method(nn.Module):
    """Base class of all methods; see the module's docstring.

    Args:
        channels: C of the regions; for a method of several stages, one number per stage; for one that :attr:`joins`,
            one per map that the stage joins, if it joins several.
        vectors: ``(K, D)`` attribute vectors, unused by methods that need none.
        settings: settings of the method.
        generator: for initial weights.
    """

    name: ClassVar[str]
    card: ClassVar[Card]
    settings_class: ClassVar[type[Settings]] = Settings
    presets: ClassVar[dict[str, Preset]]
    """Named settings. A class without presets has one with the defaults of its settings and recipe."""
    closed_form: ClassVar[bool] = False
    end_to_end: ClassVar[bool] = False
    """Whether the method trains together with its backbone; it then gets maps ``(B, C, h, w)`` instead of regions."""
    stages: ClassVar[int] = 1
    """Number of backbone stages that the method reads; it gets a list if there are several."""
    joins: ClassVar[bool] = False
    """Whether it tells the maps of a joined stage apart."""
    drawn_stage: ClassVar[str | None] = None
    """The stage that it reads of the network of the drawn field guide unless another one is named."""
    draws: ClassVar[int] = 0
    """Draws of validation classes by default; 0 for the usual number of its kind."""
    sweeps_gamma: ClassVar[bool] = False
    """Whether the published protocol sweeps the calibration offset (on the test set)."""

    reads_text: ClassVar[bool] = False
    """Whether the method needs ``ClassSpace.words``, and so a backbone with a text tower."""
    ablations: ClassVar[Mapping[str, Ablation]] = {}
    """Rows of ``unseen ablate``, by name."""

    settings: Any

    @property
    def offset_name(self) -> str:
        """Name of the part of a class score that is not evidence of attributes."""
        return "seen/unseen offset"

    @staticmethod
    def prepare(regions: Tensor) -> Tensor:
        """Prepare regions ``(B, R, C)`` once per image, without parameters."""
        raise NotImplementedError

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Compute the sub-nets in use from prepared regions ``(B, R', C)``."""
        raise NotImplementedError

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` scores; their product with a class vector is the class score without the seen margin."""
        raise NotImplementedError

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors as used by the class scores."""
        return classes.unit

    @property
    def by_attributes(self) -> bool:
        """Whether a class score is a sum over attributes, apart from :meth:`class_offsets` and :attr:`own_query`."""
        return True

    @property
    def own_query(self) -> Tensor | None:
        """``(D - K,)`` of the average training image, if training images of a seen class contribute to its score.

        If this is not ``None``, a method :attr:`by_attributes` has K entries of :meth:`query` and
        :meth:`class_embeddings` for attributes, followed by D - K more.
        """
        return None

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, D)`` factor that multiplies :meth:`class_embeddings`."""
        return self.fused_attribute_scores(branches)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, D)``; each row depends on its own class only. Equals :meth:`class_vectors` if :attr:`by_attributes`."""
        return self.class_vectors(classes)

    def class_offsets(self, classes: ClassSpace) -> Tensor | None:
        """``(N,)`` terms added to the product; each entry depends on its own class only."""
        return None

    def class_scores(self, branches: dict[str, Branch], classes: ClassSpace) -> Tensor:
        """``(B, N)`` class scores: query times embeddings, plus offsets."""
        scores, offsets = self.query(branches) @ self.class_embeddings(classes).T, self.class_offsets(classes)
        return scores if offsets is None else scores + offsets

    def fused_contributions(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K, R)`` contribution of each region to the fused attribute scores; needs the branches of :meth:`maps`.

        Valid because the fusion is linear.
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
        """Names of the sub-nets that count at test."""
        return list(branches)

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Like :meth:`forward` on raw regions ``(B, R, C)``, with attention and contributions of every region."""
        raise NotImplementedError

    def answers_and_maps(self, regions: Tensor) -> tuple[dict[str, Branch], dict[str, Branch]]:
        """Results of :meth:`forward` and :meth:`maps` on raw regions; the two round differently."""
        return self(self.prepare(regions)), self.maps(regions)

    def parts(self, regions: Tensor) -> dict[str, Tensor]:
        """``(B, P, h, w)`` shares of each position in P learned parts, by sub-net; empty if none are learned."""
        return {}


class GradientMethod(Method):
    """A method trained by gradient steps."""

    @property
    def static_step(self) -> bool:
        """Whether every step runs the same operations on the device, so that a CUDA graph can record it.

        True if neither forward nor loss reads a tensor's value, draws random numbers on the CPU, or creates tensors
        whose shapes depend on values.
        """
        return False

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Set initial weights from the training images; called once, before the first step.

        Args:
            batches: prepared regions ``(B, R', C)`` and labels ``(B,)`` of all training images, read lazily.
            classes: classes of the stage.
        """

    tests_start: ClassVar[bool] = False
    """Whether it is a model before the first step, too; a run then tests it as epoch 0."""

    refits: ClassVar[bool] = False
    """Whether :meth:`refit` is called after every epoch."""

    def refit(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Solve anew what follows from the trained weights; called on a copy to test an epoch, and after the last one.

        Args:
            batches, classes: as in :meth:`start`.
        """

    def passes(self) -> tuple[tuple[int, ...], ...]:
        """Parts of the method that each optimizer step on a batch trains; by default one step trains everything."""
        return ((),)

    def forward_pass(self, regions: Tensor, trained: tuple[int, ...]) -> dict[str, Branch]:
        """:meth:`forward` for one of :meth:`passes`."""
        result: dict[str, Branch] = self(regions)
        return result

    def loss(self, branches: dict[str, Branch], labels: Tensor, classes: ClassSpace) -> dict[str, Tensor]:
        """Loss terms, each a scalar; ``total`` is differentiated.

        Args:
            branches: of :meth:`forward` on the B images of a step.
            labels: int64 ``(B,)`` positions in ``classes``.
            classes: all N classes; those without training images are not ``seen``.
        """
        raise NotImplementedError


SWEEP_BLOCK = 1 << 21
"""Class scores that a sweep computes at a time."""
SweepPart = Iterator[tuple[list[Candidate], Tensor]]
"""Several candidates at a time with their class scores of M held-out images, ``(n, M, N)``."""


class ClosedFormMethod(Method):
    """A method with a closed-form solution and a grid of hyperparameters."""

    closed_form = True

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Prepare the solution.

        Args:
            regions: prepared regions ``(n, R', C)`` of the training images.
            labels: int64 ``(n,)`` positions in ``classes``.
            classes: all N classes; those without training images are not ``seen``.
        """
        raise NotImplementedError

    def grid(self) -> list[Candidate]:
        """Hyperparameter candidates, numbers and texts by name; the first one wins ties."""
        raise NotImplementedError

    def use(self, candidate: Candidate) -> None:
        """Set the weights to the solution of a candidate; call :meth:`fit` first.

        A candidate without a solution (``torch.linalg.LinAlgError``, or weights that are not finite) is left out.
        """
        raise NotImplementedError

    def settle(self) -> bool:
        """Free what :meth:`use` of the candidates of the last sweep does not need.

        Whether it then needs little memory, and solves nothing again. Other candidates cannot be used any more.
        """
        return False

    @property
    def whitened(self) -> FeaturePreparation | None:
        """The preparation ``whitened`` of pooled features, fitted to the training images, if it is known."""
        return None

    def sweep(self, regions: Tensor, classes: ClassSpace) -> Iterator[tuple[Candidate, Tensor]]:
        """Class scores of held-out images under every candidate, in the order of :meth:`grid`.

        Args:
            regions: prepared regions ``(M, R', C)``.
            classes: N classes.

        Returns:
            Candidates with scores ``(M, N)``, without those that have no finite solution.
        """
        for part in self.sweep_parts(regions, classes):
            for candidates, scores in part:
                yield from zip(candidates, scores, strict=True)

    def sweep_parts(self, regions: Tensor, classes: ClassSpace) -> Sequence[SweepPart]:
        """As :meth:`sweep`, in parts that may be computed side by side, those that take longest last.

        A method with a large grid computes what candidates share once. The scores then differ from those of :meth:`use`
        by rounding.
        """
        return [self._one_by_one(regions, classes)]

    def _one_by_one(self, regions: Tensor, classes: ClassSpace) -> SweepPart:
        for candidate in self.grid():
            try:
                self.use(candidate)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
                continue
            if all(value.isfinite().all() for value in self.state_dict().values() if value.is_floating_point()):
                yield [candidate], self.class_scores(self(regions), classes)[None]


def solution_blocks(candidates: Sequence[Candidate], answers: Tensor, weights: Tensor, like: Tensor) -> SweepPart:
    """Blocks of a sweep: scores ``answers @ weights[i].T`` of candidate i, without candidates that are not finite.

    Args:
        candidates: n candidates.
        answers: ``(M, B)`` of the held-out images, float64.
        weights: ``(n, N, B)``.
        like: tensor whose dtype and device the scores take.
    """
    size = max(1, SWEEP_BLOCK // max(len(answers) * weights.shape[1], 1))
    for start in range(0, len(candidates), size):
        part = weights[start : start + size]
        scores = (part.flatten(0, 1) @ answers.T).unflatten(0, part.shape[:2])
        named, scores = finite(candidates[start : start + size], scores)
        if named:
            yield named, scores.to(like).transpose(1, 2)


def finite(candidates: Sequence[Candidate], scores: Tensor) -> tuple[list[Candidate], Tensor]:
    """Those candidates whose scores ``(n, N, M)`` are all finite, with their scores."""
    if scores.sum().isfinite():  # else NaN or infinity is among them, or the sum is too large
        return list(candidates), scores
    fine = scores.isfinite().flatten(1).all(dim=1)
    return [c for c, kept in zip(candidates, fine.tolist(), strict=True) if kept], scores[fine]


class StartedMethod(GradientMethod):
    """A gradient method that starts as a closed form, which is chosen first on the same draws of validation classes."""

    start_method: ClassVar[type[ClosedFormMethod]]
    """Class of the closed form."""
    candidate: Candidate | None = None
    """Hyperparameters of the closed form, set before training."""

    @staticmethod
    def start_settings(settings: Any) -> Settings:
        """Settings of the closed form, derived from this method's settings."""
        raise NotImplementedError

    def start(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Call :meth:`begin` with :attr:`candidate`."""
        if self.candidate is None:
            raise UnseenError("its closed form was not chosen", where=self.name, hint="set candidate before training")
        self.begin(batches, classes, self.candidate)

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace, candidate: Candidate) -> None:
        """Solve the closed form on all training images, as in :meth:`start`."""
        raise NotImplementedError


class RefitMethod(StartedMethod):
    """A method that trains the features of its closed form, which is solved anew on them after every epoch."""

    tests_start = True
    refits = True
    refit_candidate: Candidate | None = None
    """Hyperparameters to solve it anew with; by default those of the start."""

    def refit(self, batches: Iterable[tuple[Tensor, Tensor]], classes: ClassSpace) -> None:
        """Call :meth:`begin` with :attr:`refit_candidate`."""
        candidate = self.candidate if self.refit_candidate is None else self.refit_candidate
        assert candidate is not None
        self.begin(batches, classes, candidate)

    solved_on: Tensor | None = None
    """``(n, R', C)`` what :meth:`begin` has solved the closed form on."""

    @staticmethod
    def solvable(regions: Tensor) -> Tensor:
        """``(B, R', C)`` what the closed form takes, from what :meth:`forward` takes."""
        raise NotImplementedError

    def of_solvable(self, features: Tensor) -> dict[str, Branch]:
        """:meth:`forward` from ``(B, R', C)`` what the closed form takes."""
        raise NotImplementedError


class AnchoredMethod(StartedMethod):
    """A method on top of its closed form.

    Its class scores are those of the closed form plus, for each trained part, a share of what the part changes. With
    shares of 0, as after :meth:`begin`, they equal those of the closed form bit for bit.
    """

    trained_parts: ClassVar[Mapping[str, tuple[float, ...]]]
    """Trained parts, each with the candidates of its share other than 0."""

    @staticmethod
    def fixed_shares(settings: Any) -> dict[str, float]:
        """Shares that the settings fix, by part; the others are chosen on validation classes."""
        return {}

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Set the share of each part; parts that are not named get 0."""
        raise NotImplementedError
