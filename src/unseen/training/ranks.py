"""Thresholds of answers above the class, chosen on validation classes.

A coarser answer is for images whose class is not sure, and many of these show a class that the table lacks. Every
validation image therefore counts twice: once with its class among the candidates (``listed``), and once without it
(``missing``), with or without others of its taxon as the draw has them. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unseen.classes.taxonomy import Taxonomy
from unseen.evaluation.calibration import MISTAKES, Answers
from unseen.model.ranks import RankThreshold, by_taxon, excess, probabilities
from unseen.training.temperature import Held

RIGHT = 0.75
"""Share of coarser answers that has to be right on the validation images, listed and missing together."""
CASES = ("listed", "missing")


@dataclass(frozen=True, eq=False)
class Ranked:
    """The likeliest taxon of M images at each of L ranks.

    Args:
        confidence: ``(M,)`` confidence of the best class.
        excess: ``(M, L)`` confidence of the likeliest taxon above chance.
        right: bool ``(M, L)``, whether it is the true one.
        judged: bool ``(M, L)``, whether the true class has a known taxon.
    """

    confidence: np.ndarray
    excess: np.ndarray
    right: np.ndarray
    judged: np.ndarray

    @classmethod
    def of(cls, held: Held, taxonomy: Taxonomy, gamma: float, temperature: float, missing: bool) -> Ranked:
        """From class scores; ``missing``: without each image's own class among the candidates."""
        images, classes = held.scores.shape
        own = np.arange(images), held.labels
        scores, prior = held.scores.astype(float), np.full((images, classes), 1 / max(classes - missing, 1))
        if missing:
            scores[own], prior[own] = -np.inf, 0.0
        probability = probabilities(scores, held.seen.astype(float), gamma, temperature)
        parts = []
        for codes, names in zip(taxonomy.codes.T, map(taxonomy.names, range(len(taxonomy.ranks))), strict=True):
            sums, guess = (by_taxon(share, codes, len(names)) for share in (probability, prior))
            best = np.arange(images), sums.argmax(axis=1)
            parts.append((excess(sums[best], guess[best]), best[1] == codes[held.labels], codes[held.labels] >= 0))
        return cls(probability.max(axis=1, initial=0.0), *(np.stack(part, axis=1) for part in zip(*parts, strict=True)))

    @classmethod
    def joined(cls, parts: Sequence[Ranked]) -> Ranked:
        """Join the images of several draws."""
        names = ("confidence", "excess", "right", "judged")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def both_cases(
    draws: Sequence[Held], taxonomies: Sequence[Taxonomy], gamma: float, temperature: float
) -> dict[str, Ranked]:
    """The likeliest taxa of all images, for each of :data:`CASES`."""
    return {
        case: Ranked.joined(
            [
                Ranked.of(held, taxonomy, gamma, temperature, case == "missing")
                for held, taxonomy in zip(draws, taxonomies, strict=True)
            ]
        )
        for case in CASES
    }


def choose_ranks(
    draws: Sequence[Held], taxonomies: Sequence[Taxonomy], gamma: float, temperature: float, threshold: float
) -> dict[str, Any]:
    """Choose the thresholds of each rank, and measure them on the validation images.

    From the finest rank to the coarsest, ``coarser`` is the lowest value with which at least :data:`RIGHT` of the
    answers at the rank are right, over the images without a sure class or finer rank in both cases; ``None`` if no
    :data:`~unseen.evaluation.calibration.MISTAKES` answers are. ``asked`` is chosen as the threshold of classes is.

    Args:
        draws: class scores of the held-out images of every draw.
        taxonomies: of the classes of every draw.
        gamma, temperature, threshold: of the class.

    Returns:
        ``thresholds``: rank to :class:`~unseen.model.ranks.RankThreshold`, and ``validation``: :func:`answered` with
        them; all as JSON types.
    """
    found, ranks = both_cases(draws, taxonomies, gamma, temperature), taxonomies[0].ranks
    left = {case: ranked.confidence < threshold for case, ranked in found.items()}
    chosen: dict[str, RankThreshold] = {}
    for rank in reversed(range(len(ranks))):
        listed = found["listed"]
        mine = listed.judged[:, rank] & np.isfinite(listed.excess[:, rank])
        nothing = np.zeros(int(mine.sum()))
        answers = Answers(listed.excess[mine, rank], listed.right[mine, rank], nothing > 0, nothing)
        pool = [_open(ranked, left[case], rank) for case, ranked in found.items()]
        value = _lowest(*(np.concatenate(part) for part in zip(*pool, strict=True)))
        chosen[ranks[rank]] = RankThreshold(answers.threshold() if mine.any() else None, value)
        if value is not None:
            left = {case: left[case] & (ranked.excess[:, rank] < value) for case, ranked in found.items()}
    chosen = {rank: chosen[rank] for rank in ranks}
    return {
        "thresholds": {rank: asdict(one) for rank, one in chosen.items()},
        "validation": answered(found, chosen, threshold),
    }


def _open(ranked: Ranked, left: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Excess and correctness of the images that a rank may answer."""
    kept = left & ranked.judged[:, rank] & np.isfinite(ranked.excess[:, rank])
    return ranked.excess[kept, rank], ranked.right[kept, rank]


def _lowest(values: np.ndarray, right: np.ndarray) -> float | None:
    """The lowest value above which enough answers are right."""
    order = np.argsort(-values, kind="stable")
    values, count = values[order], np.arange(1, len(values) + 1)
    last = np.append(values[1:] < values[:-1], np.ones(min(len(values), 1), dtype=bool))  # equal values come together
    enough = np.flatnonzero(last & (count >= MISTAKES) & (np.cumsum(right[order]) >= RIGHT * count))
    return float(values[enough[-1]]) if len(enough) else None


def answered(
    found: dict[str, Ranked], thresholds: dict[str, RankThreshold], threshold: float
) -> dict[str, dict[str, Any]]:
    """Coarser answers at thresholds, for each case and rank.

    Returns:
        By case: ``images``, ``unsure`` (no sure class) and ``ranks``, the number of ``answers`` and of ``right`` ones
        for each rank. Images whose true taxon is unknown do not count as answers.
    """
    numbers: dict[str, dict[str, Any]] = {}
    for case, ranked in found.items():
        left, at = ranked.confidence < threshold, {}
        numbers[case] = {"images": len(left), "unsure": int(left.sum())}
        for rank, (name, one) in reversed(list(enumerate(thresholds.items()))):
            given = left & (ranked.excess[:, rank] >= (np.inf if one.coarser is None else one.coarser))
            left, judged = left & ~given, given & ranked.judged[:, rank]
            at[name] = {"answers": int(judged.sum()), "right": int((judged & ranked.right[:, rank]).sum())}
        numbers[case]["ranks"] = dict(reversed(at.items()))
    return numbers
