"""What a recognizer answers: candidates, predictions, explanations, part maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from unseen.errors import DataError
from unseen.model.references import Neighbour


@dataclass(frozen=True)
class Candidate:
    """A class and how sure the model is.

    Args:
        name: the class.
        seen: whether it had training images.
        confidence: softmax over the classes in question of (score - gamma if seen) / temperature.
        score: the raw class score.
    """

    name: str
    seen: bool
    confidence: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """What an image shows.

    Args:
        image: its path, or ``""`` for one given as pixels.
        candidates: best first.
        attributes: the attributes that were seen and speak most for the best class, with their evidence.
        known: false where the best class's confidence is below the threshold: then the answer is "unknown".
    """

    image: str
    candidates: tuple[Candidate, ...]
    attributes: tuple[tuple[str, float], ...]
    known: bool = True

    @property
    def best(self) -> Candidate:
        """The first candidate."""
        return self.candidates[0]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "image": self.image,
            "known": self.known,
            "classes": [vars(c) for c in self.candidates],
            "attributes": [{"attribute": name, "evidence": value} for name, value in self.attributes],
        }


@dataclass(frozen=True)
class Reason:
    """One attribute's part in a decision.

    Args:
        attribute, group, part: its names.
        score: attribute score psi_k.
        evidence: (psi_k - m_k) z_ck, what it adds to the class score.
        against: (psi_k - m_k) (z_ck - z_jk), what it adds to the lead over the rival j.
        value, rival_value: z_ck and z_jk, as the method scores with them.
        typical: m_k, the mean of psi_k over the training images; 0 where they are not known.
    """

    attribute: str
    group: str
    part: str
    score: float
    evidence: float
    against: float
    value: float
    rival_value: float
    typical: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Why an image is taken for one class rather than for another.

    Args:
        target, rival: the class explained, and the one it is compared with.
        reasons: one an attribute, strongest evidence first. Their evidence adds up to the class score less ``offset``.
        offset: what the score holds beside the evidence: what an image of average attribute scores gets, where
            training images are known, and such as the method's seen/unseen margin.
        offset_name: what that is called.
        lead_offset: what these and gamma add to the target's lead over the rival; the lead is this plus the sum of
            ``against``. Without known training images it is 0 where both are seen or both unseen.
    """

    target: Candidate
    rival: Candidate
    reasons: tuple[Reason, ...]
    offset: float
    lead_offset: float
    offset_name: str


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
            raise DataError(f'no attribute "{attribute}"', hint=f"one of {', '.join(list(self.order)[:5])}, ...")
        k = self.order[attribute]
        looked = [maps[k] for name, maps in self.attention.items() if name in self.counted]
        if looked:
            return np.mean([one / max(one.max(), 1e-12) for one in looked], axis=0)
        share = next(r.typical for r in self.reasons if r.attribute == attribute) / self.contributions[k].size
        return (self.contributions[k] - share).clip(min=0)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with a heat map an attribute."""
        return {
            **self.prediction.as_dict(),
            "target": vars(self.target),
            "rival": vars(self.rival),
            "offset": self.offset,
            "lead_offset": self.lead_offset,
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
