"""Explanations with heat maps, and part maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from unseen.errors import DataError
from unseen.model.predictions import Candidate, Comparison, Prediction, Reason
from unseen.model.references import Neighbour


@dataclass(frozen=True, repr=False)
class Explanation(Comparison):
    """A comparison with heat maps; the arguments of :class:`Comparison` come first.

    Args:
        image: upright RGB.
        prediction: as returned by :meth:`Recognizer.predict`.
        attention: name of a sub-net to ``(K, h, w)`` in the table's attribute order; empty without attention.
        counted: names of the sub-nets that contribute to the score.
        contributions: ``(K, h, w)`` contribution of each region to each attribute score, sub-nets fused.
        crop: left, top, right, bottom of the network's input, in pixels of the image.
        order: attribute to its position.
        corrections: corrected attributes and their values; scores and ranking use them, heat maps don't.
        before: the first classes without corrections, if there are corrections.
        nearest: training images with the most similar attribute scores; empty if unknown.
        coarser: why the answer is a taxon or unknown, empty if a class reaches the threshold or there are no ranks.
    """

    image: Image.Image
    prediction: Prediction
    attention: Mapping[str, np.ndarray]
    counted: tuple[str, ...]
    contributions: np.ndarray
    crop: tuple[float, float, float, float]
    order: Mapping[str, int]
    corrections: Mapping[str, float] = field(default_factory=dict)
    before: tuple[Candidate, ...] = ()
    nearest: tuple[Neighbour, ...] = ()
    coarser: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Target, rival, and the attributes with the most evidence."""
        most = ", ".join(f"{r.attribute} {r.evidence:+.3g}" for r in self.reasons[:3])
        return f"<Explanation: {self.target.name} rather than {self.rival.name}, by {most}>"

    def strongest(self, count: int) -> list[Reason]:
        """Attributes that separate target and rival most, in either direction; without those that count for nothing."""
        counting = [r for r in self.reasons if r.evidence or r.against]
        return sorted(counting, key=lambda r: -abs(r.against))[:count]

    def looked_for(self, count: int) -> list[Reason]:
        """Attributes whose presence is evidence for the target, ordered by how much they separate it from the rival."""
        return [r for r in self.strongest(len(self.reasons)) if r.evidence > 0 and r.score > r.typical][:count]

    def heat(self, attribute: str) -> np.ndarray:
        """Heat map ``(h, w)``: mean attention of the counted sub-nets, or contributions of regions.

        For contributions, the part that exceeds an equal share of the typical attribute score.
        """
        if attribute not in self.order:
            raise DataError(f'no attribute "{attribute}"', hint=f"use one of {', '.join(list(self.order)[:5])}, ...")
        k = self.order[attribute]
        looked = [maps[k] for name, maps in self.attention.items() if name in self.counted]
        if looked:
            result: np.ndarray = np.mean([one / max(one.max(), 1e-12) for one in looked], axis=0)
            return result
        share = next(r.typical for r in self.reasons if r.attribute == attribute) / self.contributions[k].size
        result = (self.contributions[k] - share).clip(min=0)
        return result

    def as_dict(self) -> dict[str, Any]:
        """The explanation as JSON types, with a heat map per attribute."""
        return {
            **self.prediction.as_dict(),
            "target": vars(self.target),
            "rival": vars(self.rival),
            "terms": [vars(t) for t in self.terms],
            "crop": list(self.crop),
            "corrections": dict(self.corrections),
            "before": [vars(c) for c in self.before],
            "nearest": [vars(n) for n in self.nearest],
            "why_coarser": list(self.coarser),
            "reasons": [{**vars(r), "heat": np.round(self.heat(r.attribute), 5).tolist()} for r in self.reasons],
        }


@dataclass(frozen=True)
class PartMaps:
    """Attention of a model's learned parts in an image.

    Args:
        image: upright RGB.
        maps: name of a sub-net to ``(P, h, w)``, each position's shares of the P parts, which sum to one.
        crop: left, top, right, bottom of the network's input, in pixels of the image.
    """

    image: Image.Image
    maps: Mapping[str, np.ndarray]
    crop: tuple[float, float, float, float]
