"""Results of the network for one image, to rank, correct and explain without running it again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.classes.prior import Prior
from unseen.classes.table import ClassTable
from unseen.errors import DataError, UnseenError
from unseen.evaluation.scores import Best
from unseen.methods import Branch
from unseen.model.predictions import AVERAGE, IMAGES, OWN, UNSEEN_BONUS, Candidate, Comparison, Prediction, Reason, Term
from unseen.model.references import Neighbour, References
from unseen.model.support import Support
from unseen.model.trained import TrainedModel
from unseen.recognizer.answers import Explanation
from unseen.recognizer.coarser import why_coarser

ROUNDING = 1e-5
"""Rounding of float32 scores, as a share of the evidence that they add up."""


def _rest(score: float, evidence: np.ndarray) -> float:
    """The part of a class score that is not evidence; 0 if it is only rounding of float32."""
    rest = float(score - evidence.sum())
    return 0.0 if abs(rest) < ROUNDING * max(1.0, float(np.abs(evidence).sum())) else rest


def check_correctable(model: TrainedModel) -> None:
    """Raise an error if attributes cannot be corrected.

    Raises:
        UnseenError: the method scores classes as a whole, or the model has no references.
    """
    if not model.class_vectors.any():
        problem = "this model does not score attributes, so none can be corrected"
        raise UnseenError(problem, where=model.method.name, hint="use a method that scores attributes")
    _references(model)


def _references(model: TrainedModel) -> References:
    if model.references is None:
        problem = "this model has no attribute scores of its training images"
        raise UnseenError(problem, where=model.method.name, hint="train again; the training stores them")
    return model.references


class Reading:
    """Numbers that a model computed from one image, enough to rank and explain classes; without image and network.

    All results follow from these numbers and the current classes of the model, so they take milliseconds and include
    changed classes. You can store the numbers and pass them to :meth:`Recognizer.reading`.

    Args:
        model: model whose classes, references and calibration are used.
        scores: float64 ``(K,)`` fused attribute scores psi.
        query: float64 ``(D,)`` of :meth:`Method.query`; psi itself if the method scores attributes.
        pooled: float32 ``(C,)`` of :meth:`TrainedModel.pooled`, needed if classes have support images.
        file: path of the image, or ``""``.
    """

    def __init__(
        self,
        model: TrainedModel,
        scores: np.ndarray,
        query: np.ndarray,
        pooled: np.ndarray | None = None,
        file: str = "",
    ) -> None:
        self.model = model
        self.attribute_scores = scores
        self.query = query
        self.pooled = pooled
        self.file = file
        self._last: tuple[ClassTable, Support, np.ndarray] | None = None

    def class_scores(self, corrections: Mapping[str, float] | None = None) -> np.ndarray:
        """``(N,)`` raw class scores; with corrections the method's move by (psi' - psi) z_c, see :meth:`corrected`."""
        model = self.model
        if self._last is None or self._last[0] is not model.table or self._last[1] is not model.support:
            self._last = model.table, model.support, model.class_scores(self.query[None], self._pooled)[0]
        if not corrections:
            return self._last[2]
        moved: np.ndarray = self.corrected(corrections) - self.attribute_scores
        result: np.ndarray = self._last[2] + model.attribute_shares * (model.class_vectors @ moved)
        return result

    @property
    def _pooled(self) -> np.ndarray | None:
        return None if self.pooled is None else self.pooled[None]

    def corrected(self, corrections: Mapping[str, float] | None) -> np.ndarray:
        """Attribute scores psi' ``(K,)`` in which corrected ones have the score that their value typically gets.

        Typical scores come from the training images, see :meth:`AttributeFit.expected`. This method is ours.

        Args:
            corrections: attribute to its true value, in the class table's unit.

        Raises:
            UnseenError: see :func:`check_correctable`.
            DataError: an unknown attribute, or a value outside the class table's.
        """
        if not corrections:
            return self.attribute_scores
        check_correctable(self.model)
        fit = _references(self.model).fit
        attributes = self.model.table.attributes
        values, rows = np.zeros(len(attributes)), []
        for name, value in corrections.items():
            k = attributes.index(name)
            number = isinstance(value, Real)
            if not (number and math.isfinite(value) and fit.least[k] <= value <= fit.largest[k]):
                allowed = f"{fit.least[k]:g} to {fit.largest[k]:g}"
                given = f"{value:g}" if number else repr(value)
                raise DataError(f"{given} is outside {allowed}", where=name, hint="use the class table's unit")
            values[k] = value
            rows.append(k)
        scores = self.attribute_scores.copy()
        scores[rows] = fit.expected(values)[rows]
        return scores

    def estimates(self) -> np.ndarray:
        """Class value ``(K,)`` that each attribute score corresponds to, in the class table's unit.

        By the least-squares line of value on score over the training images, clipped to the table's values; NaN if the
        attribute was not learned.

        Raises:
            UnseenError: the model has no references.
        """
        fit = _references(self.model).fit
        middle = (fit.mean - fit.intercept) / np.where(fit.learned, fit.slope, 1)
        back = np.divide(fit.correlation**2, fit.slope, out=np.zeros_like(fit.slope), where=fit.learned)
        value = middle + back * (self.attribute_scores - fit.mean)
        return np.where(fit.learned, value.clip(fit.least, fit.largest), np.nan)

    def _best(self, corrections: Mapping[str, float] | None, **choice: Any) -> Best:
        """All classes, best first; ``choice`` as in :meth:`rank`."""
        allowed = self.model.allowed(**choice)
        return self.model.rank(self.class_scores(corrections)[None], len(allowed), allowed)

    def rank(
        self,
        corrections: Mapping[str, float] | None = None,
        *,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
    ) -> list[Candidate]:
        """Rank all candidate classes, best first.

        Args:
            corrections: see :meth:`corrected`.
            among, only, exclude: as in :meth:`Recognizer.predict`.
        """
        return self.model.candidates(self._best(corrections, among=among, only=only, exclude=exclude))[0]

    def prediction(
        self,
        corrections: Mapping[str, float] | None = None,
        *,
        top: int = 5,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: float | str = "auto",
        rank: str | None = None,
        prior: Prior | None = None,
    ) -> Prediction:
        """Predict like :meth:`Recognizer.predict`, equal bit for bit without corrections.

        Args:
            corrections: see :meth:`corrected`.
            top, among, only, exclude, unknown, rank, prior: as in :meth:`Recognizer.predict`.
        """
        model, allowed = self.model, self.model.allowed(among, only, exclude)
        choice = model.choice(top, allowed, unknown, rank)
        scores, psi = self.class_scores(corrections)[None], self.corrected(corrections)[None]
        weights = None if prior is None else prior.named_now(model.table).weights(model.table.names)[None]
        return model.respond([self.file], scores, psi, choice, weights)[0]

    def why_coarser(
        self,
        prediction: Prediction,
        corrections: Mapping[str, float] | None = None,
        *,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: float | str = "auto",
    ) -> tuple[str, ...]:
        """Why a prediction by these arguments is a taxon or unknown; see :mod:`unseen.recognizer.coarser`."""
        choice = self.model.choice(1, self.model.allowed(among, only, exclude), unknown)
        return tuple(why_coarser(self.model, prediction, choice, self.corrected(corrections)))

    def nearest(self, count: int = 6, corrections: Mapping[str, float] | None = None) -> list[Neighbour]:
        """Training images with the most similar attribute scores, without the image itself; none without references."""
        references, images = self.model.references, self.model.images
        if references is None or count < 1:
            return []
        itself = []
        if images is not None and self.file and Path(self.file).resolve().is_relative_to(images.resolve()):
            itself = [Path(self.file).resolve().relative_to(images.resolve()).as_posix()]
        names = self.model.named_now
        found = references.nearest(self.corrected(corrections), count, itself)
        return [replace(near, name=names.get(near.name, near.name)) for near in found]

    def compare(
        self,
        corrections: Mapping[str, float] | None = None,
        *,
        target: str | None = None,
        rival: str | None = None,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
    ) -> Comparison:
        """Compare two classes attribute by attribute.

        Args:
            corrections: see :meth:`corrected`.
            target: by default the best class.
            rival: by default the best other class.
            among, only, exclude: as in :meth:`rank`.

        Raises:
            UnseenError: there is no other class, or target and rival are the same.
        """
        ranked = self.rank(corrections, among=among, only=only, exclude=exclude)
        return self._compare(ranked, corrections, target, rival)

    def _compare(
        self,
        ranked: Sequence[Candidate],
        corrections: Mapping[str, float] | None,
        target: str | None,
        rival: str | None,
    ) -> Comparison:
        model, table = self.model, self.model.table
        if len(ranked) < 2:
            problem = f'"{ranked[0].name}" is the only candidate class'
            raise UnseenError(problem, hint="use more candidate classes")
        wanted = self._one(ranked, target, ())
        other = self._one(ranked, rival, (wanted.name,))
        if other.name == wanted.name:
            raise UnseenError(
                f'"{wanted.name}" cannot be compared with itself', hint="choose another class to compare with"
            )
        scores, psi = self.class_scores(corrections), self.corrected(corrections)
        values, shares = model.class_vectors, model.attribute_shares
        c, j = table.index(wanted.name), table.index(other.name)
        pair = [c, j]
        typical, weighted = model.typical, values[pair] * shares[pair, None]
        evidence, against = model.evidence(psi, weighted[0]), model.evidence(psi, weighted[0] - weighted[1])
        attributes = table.attributes
        reasons = tuple(
            Reason(
                attributes.names[k],
                attributes.groups[k],
                attributes.parts[k],
                float(psi[k]),
                float(evidence[k]),
                float(against[k]),
                float(values[c, k]),
                float(values[j, k]),
                float(typical[k]),
            )
            for k in np.argsort(-evidence, kind="stable")
        )
        asked = torch.from_numpy(self.query[None]).to(model.device, torch.float32)
        trained = model.scorer.own(asked, pair)[0] * shares[pair]
        images, usual = model.image_evidence(self._pooled)[0, pair], weighted @ typical
        rest = [
            _rest(scores[i] - beside, psi * row)
            for i, beside, row in zip(pair, images + trained, weighted, strict=True)
        ]
        if abs(rest[0] - rest[1]) < ROUNDING * max(1.0, *np.abs(psi * weighted).sum(axis=1)):
            rest[1] = rest[0]
        lowered = [-model.gamma * shares[i] * bool(table.seen[i]) for i in pair]
        found = {IMAGES: images, OWN: trained, AVERAGE: usual, model.method.offset_name: rest}
        terms = [Term(name, float(a), float(a - b)) for name, (a, b) in found.items()]
        terms.append(Term(UNSEEN_BONUS, 0.0, float(lowered[0] - lowered[1])))
        return Comparison(wanted, other, reasons, tuple(term for term in terms if term.evidence or term.against))

    def _one(self, ranked: Sequence[Candidate], name: str | None, without: tuple[str, ...]) -> Candidate:
        if name is None:
            return next(c for c in ranked if c.name not in without)
        names = self.model.table.names
        name = names[self.model.table.index(name)]  # an unknown name gets another error than one that is no candidate
        for candidate in ranked:
            if candidate.name == name:
                return candidate
        raise UnseenError(f'"{name}" is not a candidate class', hint='use among="all"')


class Look(Reading):
    """Result of the network for one image; from :meth:`Recognizer.look`.

    Args:
        model, file, scores, query, pooled: as in :class:`Reading`.
        image: upright RGB.
        branches: maps of :meth:`Method.maps`, for a batch of one.
    """

    def __init__(
        self,
        model: TrainedModel,
        image: Image.Image,
        file: str,
        branches: dict[str, Branch],
        scores: np.ndarray,
        query: np.ndarray,
        pooled: np.ndarray | None = None,
    ) -> None:
        super().__init__(model, scores, query, pooled, file)
        self.image = image
        self.branches = branches

    @torch.inference_mode()
    def explanation(
        self,
        corrections: Mapping[str, float] | None = None,
        *,
        target: str | None = None,
        rival: str | None = None,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: float | str = "auto",
        nearest: int = 6,
    ) -> Explanation:
        """Explain by attribute and region; see :meth:`compare` and :meth:`Recognizer.explain`."""
        model = self.model
        choice: dict[str, Any] = {
            "among": among,
            "only": None if only is None else list(only),
            "exclude": None if exclude is None else list(exclude),
        }
        ranked = self.rank(corrections, **choice)
        prediction = self.prediction(corrections, unknown=unknown, **choice)
        grid = model.backbone.grids[-1]

        def to_grid(values: Tensor) -> np.ndarray:
            return values.cpu().double().numpy().reshape(-1, *grid)

        return Explanation(
            **vars(self._compare(ranked, corrections, target, rival)),
            image=self.image,
            prediction=prediction,
            attention={name: to_grid(b.attention[0]) for name, b in self.branches.items() if b.attention is not None},
            counted=tuple(model.method.counted(self.branches)),
            contributions=to_grid(model.method.fused_contributions(self.branches)[0]),
            crop=model.backbone.transform.crop_box(*self.image.size),
            order=model.table.attributes.positions,
            corrections=dict(corrections or {}),
            before=tuple(self.rank(**choice)[:5]) if corrections else (),
            nearest=tuple(self.nearest(nearest, corrections)),
            coarser=self.why_coarser(prediction, corrections, unknown=unknown, **choice),
        )


def reading_of(
    model: TrainedModel,
    attribute_scores: Sequence[float] | np.ndarray,
    query: Sequence[float] | np.ndarray | None,
    pooled: Sequence[float] | np.ndarray | None,
) -> Reading:
    """See :meth:`unseen.recognizer.recognizer.Recognizer.reading`."""
    psi = np.asarray(attribute_scores, np.float64)
    asked = psi if query is None else np.asarray(query, np.float64)
    for name, found, count in (
        ("attribute scores", psi, len(model.table.attributes)),
        ("query numbers", asked, model.scorer.width),
    ):
        if found.shape != (count,):
            raise UnseenError(f"{found.size} {name}", hint=f"pass {count}, as in a look of this model")
    if pooled is None or not model.takes_images:
        return Reading(model, psi, asked)
    features = np.asarray(pooled, np.float32)
    if features.shape != (model.space.channels,):
        problem = f"{features.size} pooled features"
        raise UnseenError(problem, hint=f"pass {model.space.channels}, as in a look of this model")
    return Reading(model, psi, asked, features)
