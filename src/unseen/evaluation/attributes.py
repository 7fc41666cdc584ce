"""How well attribute scores follow the class table: rank measures of all attributes at once."""

from __future__ import annotations

import numpy as np


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Float64 ``(M, K)`` ranks in every column, from 1; equal values share their mean, a column with a NaN has none.

    As ``scipy.stats.rankdata``, which takes half a second to import.
    """
    order = values.argsort(axis=0, kind="stable")
    ascending = np.take_along_axis(values, order, axis=0)
    place = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    rises = ascending[1:] > ascending[:-1]
    first, last = place.copy(), place.copy()
    first[1:][~rises] = 0
    last[:-1][~rises] = len(values)
    first = np.maximum.accumulate(first, axis=0)
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=0)
    return np.where(np.isnan(values).any(axis=0), np.nan, ranks)


def auroc(scores: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every column ``(K,)``; ties count half, NaN if all or none have it.

    The rank-sum form (Hanley and McNeil, Radiology 1982).

    Args:
        scores: ``(M, K)``.
        has: bool ``(M, K)``.
    """
    positives = has.sum(axis=0).astype(float)
    negatives = len(has) - positives
    ranks = mean_ranks(scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = ((ranks * has).sum(axis=0) - positives * (positives + 1) / 2) / (positives * negatives)
        return result


def spearman(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rank correlation of every column ``(K,)`` of two ``(M, K)``, with mean ranks for ties; NaN if one is constant."""
    if not len(scores):
        return np.full(scores.shape[1], np.nan)
    a, b = (ranks - ranks.mean(axis=0) for ranks in (mean_ranks(scores), mean_ranks(values)))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        return result
