"""What a recognizer says of an image's regions: explanations with heat maps, and part maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from unseen.errors import DataError
from unseen.model.predictions import Candidate, Comparison, Prediction, Reason
from unseen.model.references import Neighbour


@dataclass(frozen=True)
class Explanation(Comparison):
    """The same with where in the image the network looked; the arguments of :class:`Comparison` come first.

    Args:
        image: upright RGB.
        prediction: as :meth:`Recognizer.predict` gives it.
        attention: name of a sub-net to ``(K, h, w)`` in the table's attribute order; empty without attention.
        counted: names of the sub-nets whose scores count.
        contributions: ``(K, h, w)`` what each region adds to each attribute score, sub-nets fused.
        crop: left, top, right, bottom of what the network saw, in the image's pixels.
        order: attribute to its position.
        corrections: attributes corrected by hand, with the values that they were given; scores and ranking are with
            them, maps are as the network sees the image.
        before: the first classes without the corrections, where there are some.
        nearest: the training images with the most similar attribute scores; empty where they are not known.
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

    def strongest(self, count: int) -> list[Reason]:
        """The attributes that tell target and rival apart most, either way; none that counts for nothing."""
        counting = [r for r in self.reasons if r.evidence or r.against]
        return sorted(counting, key=lambda r: -abs(r.against))[:count]

    def looked_for(self, count: int) -> list[Reason]:
        """Of the attributes that speak for the target by being there, those that tell it from the rival most."""
        return [r for r in self.strongest(len(self.reasons)) if r.evidence > 0 and r.score > r.typical][:count]

    def heat(self, attribute: str) -> np.ndarray:
        """``(h, w)`` where the model looked for it: the counted sub-nets' mean attention, else contributions.

        Of contributions, what exceeds a region's equal share of the typical attribute score.
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
        """JSON form, with a heat map an attribute."""
        return {
            **self.prediction.as_dict(),
            "target": vars(self.target),
            "rival": vars(self.rival),
            "terms": [vars(t) for t in self.terms],
            "crop": list(self.crop),
            "corrections": dict(self.corrections),
            "before": [vars(c) for c in self.before],
            "nearest": [vars(n) for n in self.nearest],
            "reasons": [{**vars(r), "heat": np.round(self.heat(r.attribute), 5).tolist()} for r in self.reasons],
        }


@dataclass(frozen=True)
class PartMaps:
    """What a model's learned parts attend to in an image.

    Args:
        image: upright RGB.
        maps: name of a sub-net to ``(P, h, w)``, each position's shares of the P parts, which sum to one.
        crop: left, top, right, bottom of what the network saw, in the image's pixels.
    """

    image: Image.Image
    maps: Mapping[str, np.ndarray]
    crop: tuple[float, float, float, float]
