"""How well attribute scores follow the class table: rank measures of all attributes at once."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every column ``(K,)``; ties count half, NaN if all or none have it.

    The rank-sum form (Hanley and McNeil, Radiology 1982).

    Args:
        scores: ``(M, K)``.
        has: bool ``(M, K)``.
    """
    from scipy.stats import rankdata  # slow to import

    positives = has.sum(axis=0).astype(float)
    negatives = len(has) - positives
    ranks = rankdata(scores, axis=0) if len(scores) else scores
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = ((ranks * has).sum(axis=0) - positives * (positives + 1) / 2) / (positives * negatives)
        return result


def spearman(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rank correlation of every column ``(K,)`` of two ``(M, K)``, with mean ranks for ties; NaN if one is constant."""
    from scipy.stats import rankdata

    if not len(scores):
        return np.full(scores.shape[1], np.nan)
    a, b = (ranks - ranks.mean(axis=0) for ranks in (rankdata(scores, axis=0), rankdata(values, axis=0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        return result
