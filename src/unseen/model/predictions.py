"""Answers of a trained model: candidates, predictions, reasons, comparisons.

:data:`FIELDS` is the registry of a prediction's fields; JSON, rows of CSV and Parquet, and the web API are made from
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from unseen.classes.naming import label
from unseen.ground.files import write_text

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN, CLASS = "unknown", "class"
SHOWN = 6
"""Number of predictions that a printed list shows."""
TOGETHER = "together"
"""Key and column of images that were predicted together."""
OWN = "its own training images"
"""What training images of a seen class add, in methods that use them (:mod:`unseen.methods.own`)."""


@dataclass(frozen=True)
class Candidate:
    """A class with the model's confidence.

    Args:
        name: the class.
        seen: whether it has training images.
        confidence: softmax over the candidate classes of (score - gamma if seen) / temperature.
        score: raw class score.
    """

    name: str
    seen: bool
    confidence: float
    score: float


@dataclass(frozen=True)
class Taxon:
    """The most likely taxon of an image at one rank, such as the family Ardeidae.

    Args:
        rank: name of the rank.
        name: name of the taxon.
        confidence: sum of the confidences of its candidate classes.
        probably: the most likely of these classes.
        sure: whether it stands out from chance enough to be the answer, see :mod:`unseen.model.ranks`.
    """

    rank: str
    name: str
    confidence: float
    probably: str
    sure: bool


@dataclass(frozen=True)
class Weighed:
    """Effect of a prior on a prediction.

    Args:
        without: best candidate from the image alone.
        prior: prior probability of the best candidate, among the candidate classes.
    """

    without: Candidate
    prior: float


@dataclass(frozen=True)
class Prediction:
    """Prediction for an image.

    Args:
        image: path of the image, or ``""`` for pixels.
        candidates: candidates, best first: classes, or taxa if a rank was requested.
        attributes: present attributes with the most evidence for the best class.
        known: false if the confidence of the best class is below the threshold; the answer is then "unknown".
        together: whether the images were predicted together (transductive); the answer then depends on all of them.
        ranks: the most likely taxon of each rank, coarsest first; empty if the classes have no ranks.
        rank: the requested rank, to which the candidates belong; ``""`` if they are classes.
        weighed: effect of the prior; ``None`` without one.
    """

    image: str
    candidates: tuple[Candidate, ...]
    attributes: tuple[tuple[str, float], ...]
    known: bool = True
    together: bool = False
    ranks: tuple[Taxon, ...] = ()
    rank: str = ""
    weighed: Weighed | None = None

    @property
    def best(self) -> Candidate:
        """The first candidate."""
        return self.candidates[0]

    @property
    def confidence(self) -> float:
        """Confidence of the best candidate."""
        return self.best.confidence

    @property
    def coarser(self) -> Taxon | None:
        """The finest sure taxon, if the best candidate is below the threshold; ``None`` if no taxon is sure."""
        if self.known:
            return None
        above = [taxon.rank for taxon in self.ranks]
        known = self.ranks[: above.index(self.rank)] if self.rank in above else self.ranks
        return next((taxon for taxon in reversed(known) if taxon.sure), None)

    @property
    def answer(self) -> str:
        """The best candidate, else a sure taxon, else "unknown"."""
        return self.best.name if self.known else self.coarser.name if self.coarser else UNKNOWN

    @property
    def answer_rank(self) -> str:
        """Kind of :attr:`answer`: "class", a rank, or ``""``."""
        return (self.rank or CLASS) if self.known else self.coarser.rank if self.coarser else ""

    @property
    def said(self) -> str:
        """The answer in words: "Night Heron", "Ardeidae (family), probably Night Heron" or "unknown"."""
        found = self.coarser
        return self.answer if found is None else f"{found.name} ({found.rank}), probably {found.probably}"

    @property
    def name(self) -> str:
        """The best candidate, or "unknown"; :attr:`answer` has what can be said instead."""
        return self.best.name if self.known else UNKNOWN

    @property
    def extent(self) -> Extent:
        """Fields of this prediction beyond those of every prediction."""
        ranks = tuple(taxon.rank for taxon in self.ranks)
        return Extent(len(self.candidates), self.together, ranks, bool(self.rank), self.weighed is not None)

    def as_dict(self) -> dict[str, Any]:
        """The prediction as JSON types."""
        found = {field.name: field.json(self) for field in FIELDS if field.json is not None}
        if self.ranks:
            found |= {"answer": self.answer, "answer_rank": self.answer_rank, "ranks": [vars(t) for t in self.ranks]}
        if self.rank:
            found |= {"rank": self.rank}
        if self.weighed is not None:
            found |= {"prior": self.weighed.prior, "without_prior": vars(self.weighed.without)}
        return found | ({TOGETHER: True} if self.together else {})

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_dict` returned."""
        return cls(
            record["image"],
            tuple(Candidate(**entry) for entry in record["classes"]),
            tuple((entry["attribute"], entry["evidence"]) for entry in record["attributes"]),
            record["known"],
            bool(record.get(TOGETHER)),
            tuple(Taxon(**entry) for entry in record.get("ranks", ())),
            record.get("rank", ""),
            Weighed(Candidate(**record["without_prior"]), record["prior"]) if "prior" in record else None,
        )

    def row(self, extent: Extent | None = None) -> dict[str, Any]:
        """One flat row: all fields of a table, and class and confidence of the other candidates.

        Args:
            extent: columns of the table, see :func:`columns`; by default those of this prediction. Missing values are
                ``None``.
        """
        extent = extent or self.extent
        row: dict[str, Any] = dict.fromkeys(columns(extent))
        row |= {field.name: field.cell(self) for field in FIELDS if field.cell is not None}
        for place, other in enumerate(self.candidates[1 : extent.count], 2):
            row |= {f"class_{place}": other.name, f"confidence_{place}": other.confidence}
        further: dict[str, Any] = {"answer": self.answer, "answer_rank": self.answer_rank, "rank": self.rank}
        for taxon in self.ranks:
            further |= {taxon.rank: taxon.name, f"{taxon.rank}_confidence": taxon.confidence}
        if self.weighed is not None:
            without = self.weighed.without
            further |= {"class_without_prior": without.name, "confidence_without_prior": without.confidence}
            further |= {"prior": self.weighed.prior}
        further |= {TOGETHER: True if self.together else None}
        return row | {name: value for name, value in further.items() if name in row}


class Predictions(Sequence[Prediction]):
    """Predictions for several images, in order: a sequence that converts to a table.

    Args:
        predictions: one prediction per image.
    """

    def __init__(self, predictions: Iterable[Prediction] = ()) -> None:
        self._found = tuple(predictions)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        """One prediction, or those of a slice."""
        return Predictions(self._found[index]) if isinstance(index, slice) else self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predictions) and self._found == other._found

    def __hash__(self) -> int:
        return hash(self._found)

    def __add__(self, other: Predictions) -> Predictions:
        """Append the predictions of further images."""
        return Predictions((*self._found, *other._found)) if isinstance(other, Predictions) else NotImplemented

    def __repr__(self) -> str:
        """The first images with class and confidence, one per line."""
        lines = []
        for p in self._found[:SHOWN]:
            about = " (unseen)" if p.known and not p.best.seen else ""
            confidence = p.best.confidence if p.coarser is None else p.coarser.confidence
            lines.append(f"  {p.image or 'image'}: {p.said}{about}, {confidence:.0%}")
        lines += [f"  ... {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([f"<{len(self)} prediction{'' if len(self) == 1 else 's'}>", *lines])

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        html: str = self.to_frame().to_html(max_rows=2 * SHOWN, notebook=True)
        return html

    @property
    def classes(self) -> list[str]:
        """Class of each image, or "unknown"."""
        return [p.name for p in self._found]

    @property
    def confidences(self) -> list[float]:
        """Confidence of each image's best class."""
        return [p.confidence for p in self._found]

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with one row per image and the columns of ``unseen predict --output``, except ``error``."""
        import pandas as pd

        extent = Extent.of(p.extent for p in self._found)
        names = [name for name in columns(extent) if name != "error"]
        return pd.DataFrame([p.row(extent) for p in self._found], columns=names)

    def to_csv(self, path: Path | str) -> None:
        """Write :meth:`to_frame` as a CSV file, atomically."""
        write_text(Path(path), self.to_frame().to_csv(index=False))


@dataclass(frozen=True)
class Extent:
    """Fields of predictions beyond those of every prediction; determines the columns of their table.

    Args:
        count: candidates per image.
        together: whether images were predicted together.
        ranks: ranks of the classes, coarsest first.
        rank: whether the candidates are taxa of one rank.
        prior: whether there was a prior.
    """

    count: int = 1
    together: bool = False
    ranks: tuple[str, ...] = ()
    rank: bool = False
    prior: bool = False

    @classmethod
    def of(cls, extents: Iterable[Extent]) -> Self:
        """The extent of several predictions: the union over them."""
        found = list(extents)
        ranks = max((one.ranks for one in found), key=len, default=())
        flags = {name: any(getattr(one, name) for one in found) for name in ("together", "rank", "prior")}
        return cls(max((one.count for one in found), default=1), ranks=ranks, **flags)


@dataclass(frozen=True)
class Field:
    """One field of a prediction.

    Args:
        name: key in JSON, and column of a table.
        meaning: description in a few words.
        kind: type of a table's cells: ``str``, ``float`` or ``bool``.
        json: computes the value in JSON; ``None`` if JSON lacks the field.
        cell: computes the value in a table; ``None`` if tables lack the field.
    """

    name: str
    meaning: str
    kind: type = str
    json: Callable[[Prediction], Any] | None = None
    cell: Callable[[Prediction], Any] | None = None


FIELDS = (
    Field("image", "path of the image", json=lambda p: p.image, cell=lambda p: p.image),
    Field("known", "whether the best class's confidence reaches the threshold", bool, json=lambda p: p.known),
    Field("classes", "candidates, best first", json=lambda p: [vars(c) for c in p.candidates]),
    Field("class", 'the best class, or "unknown"', cell=lambda p: p.name),
    Field("best_class", "the best class", cell=lambda p: p.best.name),
    Field("confidence", "of the best class", float, cell=lambda p: p.best.confidence),
    Field("seen", "whether the best class has training images", bool, cell=lambda p: p.best.seen),
    Field(
        "attributes",
        "the attributes with the most evidence for the best class",
        json=lambda p: [{"attribute": name, "evidence": value} for name, value in p.attributes],
        cell=lambda p: "; ".join(label(name) for name, _ in p.attributes),
    ),
)
"""Fields in the order of JSON keys and table columns; those of other candidates come before the last."""


def columns(extent: Extent) -> dict[str, type]:
    """Columns of a table of predictions with their types; ``error`` comes last.

    With ``together``, a column notes for every number that it depends on the other images.
    """
    table = [(field.name, field.kind) for field in FIELDS if field.cell is not None]
    others = [(f"{name}_{place}", kind) for place in range(2, extent.count + 1) for name, kind in _EACH]
    further: list[tuple[str, type]] = [("rank", str)] if extent.rank else []
    further += [("answer", str), ("answer_rank", str)] if extent.ranks else []
    further += [(f"{rank}{end}", kind) for rank in extent.ranks for end, kind in (("", str), ("_confidence", float))]
    further += _WITHOUT if extent.prior else []
    further += [(TOGETHER, bool)] if extent.together else []
    return dict([*table[:-1], *others, *further, table[-1], ("error", str)])


_EACH = (("class", str), ("confidence", float))
"""Columns of every further candidate."""
_WITHOUT: list[tuple[str, type]] = [("class_without_prior", str), ("confidence_without_prior", float), ("prior", float)]
"""The answer from the image alone, and the prior probability of the best candidate."""


@dataclass(frozen=True)
class Reason:
    """Contribution of one attribute to a decision.

    Args:
        attribute, group, part: names.
        score: attribute score psi_k.
        evidence: (psi_k - m_k) z_ck, its contribution to the class score.
        against: (psi_k - m_k) (z_ck - z_jk), its contribution to the lead over the rival j.
        value, rival_value: z_ck and z_jk, as the method scores with them.
        typical: m_k, the mean of psi_k over the training images; 0 if unknown.
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
class Term:
    """Part of class scores that is not evidence of attributes.

    Args:
        name: readable name.
        evidence: contribution to the target's score.
        against: contribution to the target's lead over the rival.
    """

    name: str
    evidence: float
    against: float


IMAGES = "its own images"
"""Similarity to the support images of a class, with any method."""
AVERAGE = "what an average image gets"
UNSEEN_BONUS = "offset for classes without training images"
"""Calibration: gamma is subtracted from the scores of seen classes."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of two classes for an image.

    The evidence of reasons and terms sums to the target's class score, and their ``against`` to its lead over the
    rival, with gamma subtracted from seen classes.

    Args:
        target, rival: the class to explain, and the one to compare it with.
        reasons: one per attribute, strongest evidence first.
        terms: other contributions: the class's own images, the score of an image with average attribute scores (if
            training images are known), the offset of the method, and gamma; without those that are 0 for both classes.
    """

    target: Candidate
    rival: Candidate
    reasons: tuple[Reason, ...]
    terms: tuple[Term, ...]
