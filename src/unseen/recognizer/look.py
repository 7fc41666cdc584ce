"""One picture as a model sees it: ranked and explained again without the network, attributes corrected by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.classes import ClassTable
from unseen.errors import DataError, UnseenError
from unseen.methods import Branch
from unseen.recognizer.answers import Candidate, Explanation, Prediction, Reason
from unseen.training.references import Neighbour, References

if TYPE_CHECKING:
    from unseen.recognizer.model import Recognizer


def _rest(score: float, evidence: np.ndarray) -> float:
    """What a class score holds beside its evidence; 0 where that is float32's rounding alone."""
    rest = float(score - evidence.sum())
    return 0.0 if abs(rest) < 1e-5 * max(1.0, float(np.abs(evidence).sum())) else rest


class Look:
    """What the network made of one picture; from :meth:`Recognizer.look`.

    Everything here is computed from attribute scores and the recogniser's classes as they are when asked, so that it
    takes milliseconds and follows classes that come and go.

    Args:
        recognizer: whose classes, references and calibration count.
        image: upright RGB.
        picture: its path, or ``""``.
        branches: of :meth:`Method.maps`, a batch of one.
        scores: ``(K,)`` fused attribute scores psi.
    """

    def __init__(
        self, recognizer: Recognizer, image: Image.Image, picture: str, branches: dict[str, Branch], scores: np.ndarray
    ) -> None:
        self.recognizer = recognizer
        self.image = image
        self.picture = picture
        self.branches = branches
        self.attribute_scores = scores
        self._last: tuple[ClassTable, np.ndarray] | None = None

    def class_scores(self, corrections: Mapping[str, float] | None = None) -> np.ndarray:
        """``(N,)`` raw class scores; with corrections each moves by (psi' - psi) z_c, see :meth:`corrected`."""
        table = self.recognizer.table
        if self._last is None or self._last[0] is not table:
            self._last = table, self.recognizer.class_scores(self.branches)[0]
        if not corrections:
            return self._last[1]
        moved: np.ndarray = self.corrected(corrections) - self.attribute_scores
        return self._last[1] + self.recognizer.class_vectors @ moved

    def corrected(self, corrections: Mapping[str, float] | None) -> np.ndarray:
        """``(K,)`` attribute scores psi', those of corrected attributes as the model typically gives them.

        What is typical is said by the training pictures, see :meth:`AttributeFit.expected`. This way of correcting is
        ours.

        Args:
            corrections: attribute to what it is in truth, in the class table's unit.

        Raises:
            UnseenError: a method that scores classes as a whole, or a model without references.
            DataError: an unknown attribute, or a value outside the class table's.
        """
        if not corrections:
            return self.attribute_scores
        recognizer = self.recognizer
        if not recognizer.class_vectors.any():
            problem = "this model compares pictures with classes as a whole; no attribute can be corrected"
            raise UnseenError(problem, where=recognizer.method.name, mend="use a method that scores attributes")
        fit = self._references().fit
        attributes = recognizer.table.attributes
        values, rows = np.zeros(len(attributes)), []
        for name, value in corrections.items():
            k = attributes.index(name)
            if not (math.isfinite(value) and fit.least[k] <= value <= fit.largest[k]):
                allowed = f"{fit.least[k]:g} to {fit.largest[k]:g}"
                raise DataError(f"{value:g} is outside {allowed}", where=name, mend="give it in the class table's unit")
            values[k] = value
            rows.append(k)
        scores = self.attribute_scores.copy()
        scores[rows] = fit.expected(values)[rows]
        return scores

    def _references(self) -> References:
        if self.recognizer.references is None:
            problem = "this model has no attribute scores of its training pictures to go by"
            raise UnseenError(problem, where=self.recognizer.method.name, mend="train again, which keeps them")
        return self.recognizer.references

    def estimates(self) -> np.ndarray:
        """``(K,)`` the class value that each attribute score points to, in the class table's unit.

        The least-squares line of value on score over the training pictures, within the table's values; NaN where the
        attribute was not learned.
        """
        fit = self._references().fit
        middle = (fit.mean - fit.intercept) / np.where(fit.learned, fit.slope, 1)
        back = np.divide(fit.correlation**2, fit.slope, out=np.zeros_like(fit.slope), where=fit.learned)
        value = middle + back * (self.attribute_scores - fit.mean)
        return np.where(fit.learned, value.clip(fit.least, fit.largest), np.nan)

    def rank(
        self,
        corrections: Mapping[str, float] | None = None,
        *,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
    ) -> list[Candidate]:
        """All classes to choose among, best first.

        Args:
            corrections: see :meth:`corrected`.
            among, only, exclude: as in :meth:`Recognizer.predict`.
        """
        allowed = self.recognizer._allowed(among, only, exclude)
        return self.recognizer._rank(self.class_scores(corrections), allowed)

    def prediction(
        self, corrections: Mapping[str, float] | None = None, *, top: int = 5, among: str = "all"
    ) -> Prediction:
        """The first classes, with the attributes that speak for the best; arguments as in :meth:`rank`."""
        return self._prediction(self.rank(corrections, among=among)[:top], self.corrected(corrections))

    def _prediction(self, candidates: list[Candidate], psi: np.ndarray) -> Prediction:
        table = self.recognizer.table
        evidence = psi * self.recognizer.class_vectors[table.index(candidates[0].name)]
        speaking = [k for k in np.argsort(-evidence, kind="stable")[:5] if evidence[k] > 0]
        reasons = tuple((table.attributes.names[k], float(evidence[k])) for k in speaking)
        known = candidates[0].confidence >= (self.recognizer.threshold or 0.0)
        return Prediction(self.picture, tuple(candidates), reasons, known)

    def nearest(self, count: int = 6, corrections: Mapping[str, float] | None = None) -> list[Neighbour]:
        """The training pictures with the most similar attribute scores, itself left out; none without references."""
        references, images = self.recognizer.references, self.recognizer.images
        if references is None or count < 1:
            return []
        itself = []
        if images is not None and self.picture and Path(self.picture).resolve().is_relative_to(images.resolve()):
            itself = [Path(self.picture).resolve().relative_to(images.resolve()).as_posix()]
        return references.nearest(self.corrected(corrections), count, itself)

    def explanation(
        self,
        corrections: Mapping[str, float] | None = None,
        *,
        target: str | None = None,
        rival: str | None = None,
        among: str = "all",
        nearest: int = 6,
    ) -> Explanation:
        """Why, attribute by attribute and region by region; see :meth:`Recognizer.explain`."""
        with torch.inference_mode():
            return self._explanation(corrections or {}, target, rival, among, nearest)

    def _explanation(
        self, corrections: Mapping[str, float], target: str | None, rival: str | None, among: str, nearest: int
    ) -> Explanation:
        recognizer, table = self.recognizer, self.recognizer.table
        scores, psi, vectors = self.class_scores(corrections), self.corrected(corrections), recognizer.class_vectors
        ranked = {c.name: c for c in self.rank(corrections, among=among)}
        wanted = self._one(ranked, target, ())
        other = self._one(ranked, rival, (wanted.name,))
        if other.name == wanted.name:
            raise UnseenError(f'"{wanted.name}" cannot be its own rival', mend="compare it with another class")
        c, j = table.index(wanted.name), table.index(other.name)
        typical = recognizer.references.fit.mean if recognizer.references is not None else np.zeros_like(psi)
        evidence, against = (psi - typical) * vectors[c], (psi - typical) * (vectors[c] - vectors[j])
        attributes = table.attributes
        reasons = tuple(
            Reason(
                attributes.names[k],
                attributes.groups[k],
                attributes.parts[k],
                float(psi[k]),
                float(evidence[k]),
                float(against[k]),
                float(vectors[c, k]),
                float(vectors[j, k]),
                float(typical[k]),
            )
            for k in np.argsort(-evidence, kind="stable")
        )
        own, others = (_rest(scores[i], psi * vectors[i]) for i in (c, j))  # margins and the like
        usual = vectors[[c, j]] @ typical
        name = recognizer.method.offset_name
        grid = recognizer.backbone.grids[-1]

        def to_grid(values: Tensor) -> np.ndarray:
            return values.cpu().double().numpy().reshape(-1, *grid)

        return Explanation(
            self.image,
            self._prediction(list(ranked.values())[:5], psi),
            wanted,
            other,
            reasons,
            own + float(usual[0]),
            own - others + float(usual[0] - usual[1]) - recognizer.gamma * (int(wanted.seen) - int(other.seen)),
            {name: to_grid(b.attention[0]) for name, b in self.branches.items() if b.attention is not None},
            tuple(recognizer.method.counted(self.branches)),
            to_grid(recognizer.method.fused_contributions(self.branches)[0]),
            recognizer.backbone.transform.crop_box(*self.image.size),
            attributes.positions,
            name if not usual.any() else f"average picture, {name}" if own or others else "average picture",
            dict(corrections),
            tuple(self.rank(among=among)[:5]) if corrections else (),
            tuple(self.nearest(nearest, corrections)),
        )

    def _one(self, ranked: Mapping[str, Candidate], name: str | None, without: tuple[str, ...]) -> Candidate:
        if name is not None:
            self.recognizer.table.index(name)  # an unknown name is told apart from one not chosen among
            if name not in ranked:
                raise UnseenError(f'"{name}" is not among the classes asked for', mend="choose among all")
            return ranked[name]
        return next((c for c in ranked.values() if c.name not in without), next(iter(ranked.values())))
