"""Why the answer to an image is a taxon, or none, in words."""

from __future__ import annotations

import numpy as np

from unseen.classes.naming import label
from unseen.model.predictions import Prediction, Taxon
from unseen.model.ranks import Choice, required
from unseen.model.trained import TrainedModel

SHARED = 3
"""Largest number of attributes named as shared by a taxon."""


def why_coarser(model: TrainedModel, found: Prediction, choice: Choice, attribute_scores: np.ndarray) -> list[str]:
    """Sentences from the class to the finest sure rank; empty if a class reaches the threshold or there are no ranks.

    Args:
        model: the model.
        found: prediction of classes, without a prior.
        choice: its candidates and thresholds.
        attribute_scores: psi ``(K,)`` of the image.
    """
    taxonomy = model.table.taxonomy
    if taxonomy is None or found.known or found.rank:
        return []
    best, needed = found.best, _percent(choice.threshold)
    lines = [f"no class reaches the threshold: {best.name} has {_percent(best.confidence)}, and {needed} is needed"]
    for taxon in reversed(found.ranks):
        rank = taxonomy.rank(taxon.rank)
        codes = taxonomy.codes[choice.allowed, rank]
        inside = codes == taxonomy.names(rank).index(taxon.name)
        lines.append(_line(taxon, choice, int(inside.sum())))
        if taxon.sure:
            shared = _shared(model, attribute_scores, choice.allowed[inside], choice.allowed[~inside])
            if shared:
                lines.append(f"what sets {taxon.name} apart from the other classes: {', '.join(shared)}")
            break
    else:
        lines.append("so the answer is unknown")
    return lines


def _line(taxon: Taxon, choice: Choice, count: int) -> str:
    """Confidence of a taxon beside what is needed."""
    guess, own = count / len(choice.allowed), choice.ranks.get(taxon.rank)
    of = f"its {count} candidate classes" if count > 1 else "its only candidate class"
    text = f"{taxon.rank} {taxon.name}: {_percent(taxon.confidence)} over {of}"
    if count == len(choice.allowed):
        return f"{text}, as for any image"
    needed = float(required(choice.threshold, guess, len(choice.allowed)))
    if own is not None:
        if own.coarser is None:
            return f"{text}; but too few answers at this rank were right on validation images to give any"
        needed = guess + own.coarser * (1 - guess)
    text += f", where {_percent(needed)} is needed and guessing gives {_percent(guess)}"
    return f"{text}, so it is the answer; probably {taxon.probably}" if taxon.sure else text


def _shared(model: TrainedModel, scores: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> list[str]:
    """Present attributes with most evidence for the mean of some classes over that of others."""
    vectors = model.class_vectors
    evidence = model.evidence(scores, vectors[inside].mean(axis=0) - vectors[outside].mean(axis=0))
    evidence = np.where(scores > model.typical, evidence, 0)
    best = np.argsort(-evidence, kind="stable")[:SHARED]
    names = model.table.attributes.names
    return [f"{label(names[k])} ({evidence[k]:+.2g})" for k in best if evidence[k] > 0]


def _percent(share: float) -> str:
    """Whole percent; more digits near 0% and 100%."""
    return f"{100 * share:.0f}%" if 0.005 <= share <= 0.99 else f"{100 * share:.1f}%"
