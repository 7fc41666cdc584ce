"""The trained model as one value, used by everything that ranks, explains, reports, serves or exports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from unseen.errors import UnseenError
from unseen.evaluation.scores import Best
from unseen.model.predictions import Candidate, Extent, Prediction, Weighed
from unseen.model.ranks import NEVER, Choice, RankedTaxa, probabilities, shares_of, unshifted
from unseen.model.scored import Answer, ScoredModel
from unseen.model.together import together

AMONG = ("all", "seen", "unseen")
SPEAKING = 5
"""Largest number of attributes that a prediction names."""


class TrainedModel(ScoredModel):
    """A model that chooses among classes, ranks them, and makes predictions; arguments as in :class:`ScoredModel`."""

    def allowed(
        self, among: str = "all", only: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> np.ndarray:
        """Increasing positions of the candidate classes.

        Args:
            among: ``all``, ``seen`` or ``unseen`` classes.
            only, exclude: names of candidate classes, and of classes to exclude.

        Raises:
            UnseenError: an unknown class name, or no class remains.
        """
        if among not in AMONG:
            raise UnseenError(f'cannot choose among "{among}"', hint=f"use one of {', '.join(AMONG)}")
        seen = self._table.seen
        chosen = {"all": seen | ~seen, "seen": seen, "unseen": ~seen}[among]
        if not len(seen):
            raise UnseenError("the table has no class", hint="add one")
        if not chosen.any():
            raise UnseenError(f"the table has no {among} class", hint='use among="all"')
        if only is not None:
            chosen = chosen & self._named(only)
        if exclude is not None:
            chosen = chosen & ~self._named(exclude)
        if not chosen.any():
            raise UnseenError("no candidate class remains", hint="pass more classes, or exclude fewer")
        return np.flatnonzero(chosen)

    def choices(
        self, among: str = "all", only: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> list[str]:
        """Names of the candidate classes; see :meth:`allowed`."""
        return [self._table.names[i] for i in self.allowed(among, only, exclude)]

    def extent(
        self,
        top: int,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        *,
        together: bool = False,
        rank: str | None = None,
        prior: object = None,
    ) -> Extent:
        """Fields of predictions, which determine the columns of their table; arguments as for a prediction."""
        allowed, taxonomy = self.allowed(among, only, exclude), self._table.taxonomy
        at = self.rank_of(rank, allowed)
        count = len(allowed)
        if taxonomy is not None and at is not None:
            count = len(set(taxonomy.codes[allowed, at].tolist()) - {-1})
        ranks = () if taxonomy is None else taxonomy.ranks
        return Extent(min(top, count), together, ranks, at is not None, prior is not None)

    def _named(self, names: Iterable[str]) -> np.ndarray:
        """Bool ``(N,)``; raises for an unknown class name."""
        found = np.zeros(len(self._table), dtype=bool)
        found[[self._table.index(name) for name in ([names] if isinstance(names, str) else names)]] = True
        return found

    def rank(self, asked: Answer | np.ndarray, count: int, allowed: np.ndarray) -> Best:
        """The best classes of B images; an answer and its class scores give the same ranks bit for bit.

        Args:
            asked: an answer, or raw class scores ``(B, N)``, which corrections may have changed.
            count: number of classes, or fewer if fewer are allowed.
            allowed: positions from :meth:`allowed`.
        """
        how = {"gamma": self.gamma, "temperature": self.temperature or 1.0}
        own = self.own_images
        if isinstance(asked, Answer):
            if own is None:
                return self.scorer.best(asked.query, count, allowed, **how)
            asked = self.class_scores(asked.query, asked.pooled)
        lowered = None if own is None else own.keep * self._table.seen
        return self.scorer.best_of(asked, count, allowed, **how, lowered=lowered)

    def candidates(self, best: Best) -> list[list[Candidate]]:
        """The classes of :meth:`rank` by name, one list per image."""
        names, seen = self._table.names, self._table.seen
        return [
            [
                Candidate(names[c], bool(seen[c]), float(confidence), float(score))
                for c, confidence, score in zip(*row, strict=True)
            ]
            for row in zip(best.index, best.confidence, best.score, strict=True)
        ]

    def evidence(self, attribute_scores: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """(psi_k - m_k) z_k: contribution of each attribute to a class score, relative to the average training image.

        Args:
            attribute_scores: psi ``(..., K)``.
            vectors: z ``(..., K)`` from :attr:`class_vectors`, or a difference of two.
        """
        evidence: np.ndarray = (attribute_scores - self.typical) * vectors
        return evidence

    def threshold_of(self, unknown: float | str) -> float:
        """Confidence below which an image counts as unknown.

        Args:
            unknown: ``auto`` (:attr:`threshold`, if there is one), ``off`` or a number from 0 to 1.
        """
        if unknown == "off" or (unknown == "auto" and self.threshold is None):
            return 0.0
        threshold = self.threshold if unknown == "auto" else unknown
        if isinstance(threshold, str) or threshold is None or not 0 <= threshold <= 1:
            raise UnseenError(f'"{unknown}" is not a threshold', hint="use auto, off, or a confidence from 0 to 1")
        return threshold

    def together(self, scores: np.ndarray, pooled: Tensor, allowed: np.ndarray) -> np.ndarray:
        """Raw class scores of a batch that is predicted together, see :mod:`unseen.model.together`.

        Args:
            scores: ``(B, N)`` scores of the single images.
            pooled: ``(B, C)`` of :meth:`pooled`.
            allowed: positions from :meth:`allowed`.

        Raises:
            UnseenError: there is no rule for this, or validation found that it does not help.
        """
        rule = self.space.rule
        if not rule.together:
            problem = "naming a batch as a whole gained nothing on validation batches of this model"
            raise UnseenError(problem, where=self.method.name, hint="name its images one by one")
        seen = self._table.seen[allowed]
        lowered = self.gamma * self.attribute_shares[allowed] * seen
        vectors = self._support_vectors(pooled).cpu().numpy()
        moved = scores.copy()
        moved[:, allowed] = lowered + together(
            scores[:, allowed] - lowered, vectors, seen, rule, rule.together, self.temperature or 1.0
        )
        return moved

    def predictions(
        self,
        images: Sequence[str],
        best: Best,
        attribute_scores: np.ndarray,
        threshold: float,
        together: bool = False,
    ) -> list[Prediction]:
        """Make predictions; the only place that does.

        Args:
            images: B paths, or ``""``.
            best: from :meth:`rank`.
            attribute_scores: psi ``(B, K)``.
            threshold: from :meth:`threshold_of`.
            together: whether ``best`` comes from :meth:`together`.
        """
        first = best.index[:, 0]
        evidence = self.evidence(attribute_scores, self.scorer.vectors(first)) * self.attribute_shares[first, None]
        evidence = np.where(attribute_scores > self.typical, evidence, 0)  # number of attributes that were seen
        names = self._table.attributes.names
        return [
            Prediction(
                image,
                tuple(candidates),
                tuple((names[k], float(mine[k])) for k in np.argsort(-mine, kind="stable")[:SPEAKING] if mine[k] > 0),
                candidates[0].confidence >= threshold,
                together,
            )
            for image, candidates, mine in zip(images, self.candidates(best), evidence, strict=True)
        ]

    def predict_inputs(
        self, images: Sequence[str], inputs: Tensor, choice: Choice, weights: np.ndarray | None = None
    ) -> list[Prediction]:
        """Predictions of B images, given as :meth:`inputs`; arguments as in :meth:`respond`."""
        answer = self.answer(inputs)
        return self.respond(images, answer, answer.attribute_scores, choice, weights)

    def respond(
        self,
        images: Sequence[str],
        asked: Answer | np.ndarray,
        attribute_scores: np.ndarray,
        choice: Choice,
        weights: np.ndarray | None = None,
        together: bool = False,
    ) -> list[Prediction]:
        """Predictions of B images, with ranks if the classes have any, and weighted by a prior if there is one.

        Args:
            images: B paths, or ``""``.
            asked: as in :meth:`rank`.
            attribute_scores: psi ``(B, K)``.
            choice: the candidates.
            weights: ``(B, N)`` prior weights of all classes, see :mod:`unseen.classes.prior`.
            together: whether ``asked`` are scores of :meth:`together`.
        """
        allowed, threshold, taxonomy = choice.allowed, choice.threshold, self._table.taxonomy
        if taxonomy is None and weights is None:
            return self.predictions(
                images, self.rank(asked, choice.top, allowed), attribute_scores, threshold, together
            )
        scores = self.class_scores(asked.query, asked.pooled) if isinstance(asked, Answer) else asked
        temperature, lowered = self.temperature or 1.0, self.attribute_shares * self._table.seen
        best, without, log_weights = self.rank(scores, choice.top, allowed), None, None
        prior = np.full((len(scores), len(allowed)), 1 / len(allowed))
        if weights is not None:
            without = self.candidates(Best(*(part[:, :1] for part in (best.index, best.score, best.confidence))))
            prior = shares_of(weights[:, allowed], images)
            moved = scores.copy()
            log_weights = np.log(prior, out=np.full_like(prior, NEVER), where=prior > 0)
            moved[:, allowed] += temperature * log_weights
            best = unshifted(self.rank(moved, choice.top, allowed), scores)
        found = self.predictions(images, best, attribute_scores, threshold, together)
        if weights is not None and without is not None:
            place = np.searchsorted(allowed, best.index[:, 0])
            given = prior[np.arange(len(place)), place]
            found = [
                replace(one, weighed=Weighed(alone[0], float(share)))
                for one, alone, share in zip(found, without, given, strict=True)
            ]
        if taxonomy is None or not found:
            return found
        confidence = probabilities(scores[:, allowed], lowered[allowed], self.gamma, temperature, log_weights)
        ranked = [RankedTaxa(taxonomy, rank, allowed, confidence, prior, choice) for rank in range(len(taxonomy.ranks))]
        names = self._table.names
        found = [
            replace(one, ranks=tuple(t for r in ranked if (t := r.first(i, names)) is not None))
            for i, one in enumerate(found)
        ]
        if choice.rank is None:
            return found
        alone = ranked[choice.rank]
        if log_weights is not None:
            confidence = probabilities(scores[:, allowed], lowered[allowed], self.gamma, temperature)
            alone = RankedTaxa(taxonomy, choice.rank, allowed, confidence, prior, choice)
        return self._at_rank(found, attribute_scores, choice, ranked[choice.rank], alone, scores)

    def _at_rank(
        self,
        found: list[Prediction],
        attribute_scores: np.ndarray,
        choice: Choice,
        ranked: RankedTaxa,
        alone: RankedTaxa,
        scores: np.ndarray,
    ) -> list[Prediction]:
        """Predictions with the taxa of a rank as candidates; ``alone`` are those without a prior."""
        seen = self._table.seen
        firsts = np.array([ranked.best_class(i, int(ranked.order[i, 0])) for i in range(len(found))])
        best = Best(firsts[:, None], scores[np.arange(len(found)), firsts][:, None], np.ones((len(found), 1)))
        spoken = self.predictions([one.image for one in found], best, attribute_scores, 0.0)
        result = []
        for i, one in enumerate(found):
            taxon, weighed = int(ranked.order[i, 0]), one.weighed
            if weighed is not None:
                weighed = Weighed(alone.candidates(i, 1, seen, scores)[0], float(ranked.guess[i, taxon]))
            result.append(
                replace(
                    one,
                    candidates=tuple(ranked.candidates(i, choice.top, seen, scores)),
                    attributes=spoken[i].attributes,
                    known=not choice.threshold or bool(ranked.known[i, taxon]),
                    rank=ranked.rank,
                    weighed=weighed,
                )
            )
        return result

    def choice(self, top: int, allowed: np.ndarray, unknown: float | str = "auto", rank: str | None = None) -> Choice:
        """What predictions choose from.

        Args:
            top: number of candidates per image.
            allowed: positions from :meth:`allowed`.
            unknown: as in :meth:`threshold_of`; thresholds of ranks belong to ``auto``.
            rank: rank to answer at; ``None`` for classes.
        """
        chosen = self.rank_thresholds if unknown == "auto" and self.threshold is not None else {}
        return Choice(max(1, top), allowed, self.threshold_of(unknown), self.rank_of(rank, allowed), chosen)

    def rank_of(self, name: str | None, allowed: np.ndarray) -> int | None:
        """Position of a rank to answer at; ``None`` for classes.

        Raises:
            UnseenError: no such rank, or fewer than two candidate taxa.
        """
        if name is None:
            return None
        taxonomy = self._table.taxonomy
        if taxonomy is None:
            hint = "add them: `unseen classes edit RUN --attributes FILE` with columns class and genus, family, ..."
            raise UnseenError(f'the classes have no ranks, and no rank "{name}"', hint=hint)
        rank = taxonomy.rank(name)
        taxa = set(taxonomy.codes[allowed, rank].tolist()) - {-1}
        if len(taxa) < 2:
            problem = f"the candidate classes are of {len(taxa)} {taxonomy.ranks[rank]}: there is nothing to choose"
            raise UnseenError(problem, hint="use a finer rank, or more candidate classes")
        return rank
