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

UNKNOWN = "unknown"
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
class Prediction:
    """Prediction for an image.

    Args:
        image: path of the image, or ``""`` for pixels.
        candidates: candidate classes, best first.
        attributes: present attributes with the most evidence for the best class.
        known: false if the confidence of the best class is below the threshold; the answer is then "unknown".
        together: whether the images were predicted together (transductive); the answer then depends on all of them.
    """

    image: str
    candidates: tuple[Candidate, ...]
    attributes: tuple[tuple[str, float], ...]
    known: bool = True
    together: bool = False

    @property
    def best(self) -> Candidate:
        """The first candidate."""
        return self.candidates[0]

    @property
    def confidence(self) -> float:
        """Confidence of the best class."""
        return self.best.confidence

    @property
    def name(self) -> str:
        """The best class, or "unknown"."""
        return self.best.name if self.known else UNKNOWN

    def as_dict(self) -> dict[str, Any]:
        """The prediction as JSON types."""
        found = {field.name: field.json(self) for field in FIELDS if field.json is not None}
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
        )

    def row(self, count: int) -> dict[str, Any]:
        """One flat row: all fields of a table, and class and confidence of the other candidates.

        Args:
            count: number of classes with columns, see :func:`columns`; missing values are ``None``.
        """
        row: dict[str, Any] = dict.fromkeys(columns(count, self.together))
        row |= {TOGETHER: True} if self.together else {}
        row |= {field.name: field.cell(self) for field in FIELDS if field.cell is not None}
        for rank, other in enumerate(self.candidates[1:count], 2):
            row |= {f"class_{rank}": other.name, f"confidence_{rank}": other.confidence}
        return row


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
            lines.append(f"  {p.image or 'image'}: {p.name}{about}, {p.best.confidence:.0%}")
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

        count = max((len(p.candidates) for p in self._found), default=1)
        names = [name for name in columns(count, any(p.together for p in self._found)) if name != "error"]
        return pd.DataFrame([p.row(count) for p in self._found], columns=names)

    def to_csv(self, path: Path | str) -> None:
        """Write :meth:`to_frame` as a CSV file, whole or not at all."""
        write_text(Path(path), self.to_frame().to_csv(index=False))


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


def columns(count: int, together: bool = False) -> dict[str, type]:
    """Columns of a table of predictions with their types, for a number of candidates per image; ``error`` comes last.

    With ``together``, a column notes for every number that it depends on the other images.
    """
    table = [(field.name, field.kind) for field in FIELDS if field.cell is not None]
    others = [(f"{name}_{rank}", kind) for rank in range(2, count + 1) for name, kind in _EACH]
    mark = [(TOGETHER, bool)] if together else []
    return dict([*table[:-1], *others, *mark, table[-1], ("error", str)])


_EACH = (("class", str), ("confidence", float))
"""Columns of every further candidate."""


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
