"""The metrics of generalized zero-shot learning, for class scores from any source.

import unseen.metrics
found = unseen.metrics.gzsl(scores, labels, seen)       # {"T1": 0.61, "U": 0.52, ...}, every registered metric
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unseen.errors import UnseenError
from unseen.evaluation.metrics import LEADING, Decisions, SeenUnseenCurve
from unseen.evaluation.registry import Decided, Metric, every_metric, measure, register_metric

__all__ = ["Decided", "Metric", "SeenUnseenCurve", "curve", "every_metric", "gzsl", "register_metric"]


def gzsl(scores: Any, labels: Any, seen: Any, gamma: float = 0.0, taxonomy: Any = None) -> dict[str, float]:
    """Every registered metric, as fractions in [0, 1]; NaN if there is no image to measure it on.

    Args:
        scores: ``(M, N)`` class scores of M images, higher for the likelier class.
        labels: ``(M,)`` true classes, as positions among the N.
        seen: bool ``(N,)``, classes trained on.
        gamma: calibration offset, subtracted from the scores of seen classes (calibrated stacking, Chao et al., ECCV
            2016).
        taxonomy: ``(N, L)`` ancestors of every class (genus, family, ...), ``""`` or -1 where unknown, for the
            hierarchical distance.

    Raises:
        UnseenError: the shapes do not match, or a number is not finite.
    """
    return measure(_decided(scores, labels, seen, gamma, taxonomy))


def curve(scores: Any, labels: Any, seen: Any) -> SeenUnseenCurve:
    """U and S at every calibration offset where either changes; its ``area`` is AUSUC. Arguments as in :func:`gzsl`."""
    return SeenUnseenCurve.of(_decided(scores, labels, seen, 0.0, None).decisions)


def _decided(scores: Any, labels: Any, seen: Any, gamma: float, taxonomy: Any) -> Decided:
    table, kinds = np.asarray(scores, dtype=np.float64), np.asarray(seen, dtype=bool)
    true = np.asarray(labels)
    if true.size and (true.dtype.kind not in "iuf" or (true != np.floor(true)).any()):
        raise UnseenError(f"labels such as {true.flat[0]!s:.60}", hint="use positions of the classes, whole numbers")
    true = true.astype(np.int64)
    if table.ndim != 2 or kinds.shape != table.shape[1:] or true.shape != table.shape[:1]:
        problem = f"scores {table.shape}, labels {true.shape} and seen {kinds.shape} do not match"
        raise UnseenError(problem, hint="pass scores (M, N), labels (M,) and seen (N,)")
    if not np.isfinite(table).all():
        raise UnseenError("a class score is not finite", hint="omit such images")
    if len(true) and not (true.min() >= 0 and true.max() < len(kinds)):
        raise UnseenError(f"labels go from {true.min()} to {true.max()}", hint=f"use positions 0 to {len(kinds) - 1}")
    ranks = None if taxonomy is None else np.asarray(taxonomy)
    if ranks is not None and ranks.ndim == 2 and ranks.dtype.kind not in "iu":
        codes = [np.unique(column, return_inverse=True)[1] for column in ranks.astype(str).T]
        ranks = np.where(ranks.astype(str) == "", -1, np.stack(codes, axis=1).reshape(ranks.shape))
    if ranks is not None and (ranks.ndim != 2 or len(ranks) != len(kinds)):
        raise UnseenError(f"a taxonomy of shape {ranks.shape}", hint=f"pass ({len(kinds)}, ranks)")
    return Decided(Decisions.from_scores(table, true, kinds, LEADING), gamma, ranks)
