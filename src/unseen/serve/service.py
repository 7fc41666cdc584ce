"""What the API does, apart from HTTP: everything here runs in the worker's thread."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unseen.classes import ClassTable
from unseen.data.tables import no_repeats, numbers
from unseen.errors import DataError, UnseenError
from unseen.explain.figures import label, thumbnail
from unseen.recognizer import Candidate, Recognizer
from unseen.recognizer.model import _rest
from unseen.serve import schema
from unseen.serve.settings import Refusal, Settings
from unseen.serve.uploads import Upload, decode

NEAR = 0.25
PREVIEW = 900


class Service:
    """A recognizer that answers the API's questions.

    Args:
        recognizer: the model; from here on this service's alone.
        settings: the server's.

    Attributes:
        table: all classes, also while a question narrows the recognizer's.
    """

    def __init__(self, recognizer: Recognizer, settings: Settings) -> None:
        self.recognizer = recognizer
        self.settings = settings
        self.table = recognizer.table
        self._kept: tuple[ClassTable, np.ndarray] | None = None

    def predict(self, pictures: Sequence[Upload], choice: schema.Choice) -> list[schema.Prediction]:
        """What pictures show, one at a time, so that one decoded picture is in memory."""
        with self._narrowed(choice):
            found = [self._predict(upload, choice.top) for upload in pictures]
        return found

    def _predict(self, upload: Upload, top: int) -> schema.Prediction:
        try:
            image = decode(upload, self.settings.max_pixels)
            (prediction,) = self.recognizer.predict([image], top=top, batch_size=1)
        except Refusal as refusal:
            return schema.Prediction(picture=upload.name, error=refusal.detail, mend=refusal.mend)
        except DataError as error:
            return schema.Prediction(picture=upload.name, error=error.problem, mend=error.mend)
        return schema.Prediction(
            picture=upload.name,
            classes=[_candidate(c) for c in prediction.candidates],
            unknown=self._unknown(prediction.best),
            attributes=[schema.Speaks(attribute=name, evidence=value) for name, value in prediction.attributes],
        )

    def explain(
        self, upload: Upload, choice: schema.Choice, target: str | None, rival: str | None, preview: bool
    ) -> schema.Explanation:
        """Why a picture is taken for a class, with a heat map an attribute."""
        image = decode(upload, self.settings.max_pixels)
        with self._narrowed(choice):
            found = self.recognizer.explain(image, target=target, rival=rival)
        (every,) = self.recognizer.predict([image], top=len(self.table), batch_size=1)
        psi = np.zeros(len(self.table.attributes))
        for reason in found.reasons:
            psi[found.order[reason.attribute]] = reason.score
        vectors = self._vectors()
        rest = {c.name: _rest(c.score, psi * vectors[self.table.index(c.name)]) for c in every.candidates}
        readings = self._readings(psi)
        look = schema.Look(attribute_scores=psi.tolist(), rest=rest)
        ranking = self.rank(schema.RankRequest(look=look, target=target, rival=rival, **choice.model_dump()))
        return schema.Explanation(
            **{name: getattr(ranking, name) for name in schema.Ranking.model_fields if name != "reasons"},
            picture=upload.name,
            width=image.width,
            height=image.height,
            crop=list(found.crop),
            look=look,
            reasons=[
                schema.ReasonSeen(
                    attribute=r.attribute,
                    score=r.score,
                    evidence=r.evidence,
                    against=r.against,
                    value=r.value,
                    rival_value=r.rival_value,
                    reading=readings[found.order[r.attribute]],
                    heat=_bytes(found.heat(r.attribute)),
                )
                for r in found.reasons
            ],
            preview=_data_uri(image) if preview else None,
        )

    def rank(self, request: schema.RankRequest) -> schema.Ranking:
        """Classes by a look whose attributes may be corrected; no picture is needed.

        A correction in the table's unit becomes an attribute score by a straight line: the column's lowest and highest
        value stand for the 5th and 95th percentile of the look's scores.
        """
        attributes = self.table.attributes
        psi = np.array(request.look.attribute_scores)
        if len(psi) != len(attributes):
            raise UnseenError(f"{len(psi)} attribute scores", mend=f"give {len(attributes)}, as in /api/about")
        low, high = self._ranges()
        bottom, top = _typical(psi)
        for name, value in request.corrections.items():
            k = attributes.index(name)
            psi[k] = bottom + (top - bottom) * (value - low[k]) / (high[k] - low[k])
        allowed, vectors = self._allowed(request), self._vectors()
        scores = vectors @ psi + self._rests(request.look.rest)
        ranked = self.recognizer._rank(scores, allowed)
        target = self._one(ranked, request.target)
        others = [c for c in ranked if c.name != target.name]
        if request.rival == target.name:
            raise UnseenError(f'"{target.name}" cannot be its own rival', mend="compare it with another class")
        rival = self._one(ranked, request.rival) if request.rival else (others[0] if others else None)
        own = vectors[self.table.index(target.name)]
        other = own if rival is None else vectors[self.table.index(rival.name)]
        evidence, against, readings = psi * own, psi * (own - other), self._readings(psi, (bottom, top))
        return schema.Ranking(
            classes=[_candidate(c) for c in ranked[: request.top]],
            unknown=self._unknown(ranked[0]),
            target=_candidate(target),
            rival=None if rival is None else _candidate(rival),
            offset=_rest(target.score, evidence),
            offset_name=self.recognizer.method.offset_name,
            reasons=[
                schema.Reason(
                    attribute=attributes.names[k],
                    score=psi[k],
                    evidence=evidence[k],
                    against=against[k],
                    value=own[k],
                    rival_value=other[k],
                    reading=readings[k],
                )
                for k in np.argsort(-evidence, kind="stable")
            ],
        )

    def _one(self, ranked: Sequence[Candidate], name: str | None) -> Candidate:
        if name is None:
            return ranked[0]
        self.table.index(name)
        for candidate in ranked:
            if candidate.name == name:
                return candidate
        raise UnseenError(f'"{name}" is not among the classes asked for', mend="choose among all")

    def _rests(self, rest: Mapping[str, float]) -> np.ndarray:
        """``(N,)``; a class added since the look has the mean of its kind."""
        kinds = list(zip(self.table.names, self.table.seen.tolist(), strict=True))
        usual = {}
        for seen in (True, False):
            known = [rest[name] for name, one in kinds if one is seen and name in rest]
            usual[seen] = float(np.mean(known)) if known else 0.0
        return np.array([rest.get(name, usual[seen]) for name, seen in kinds])

    def _vectors(self) -> np.ndarray:
        """``(N, K)`` class vectors as the method scores with them; made once for the same table."""
        if self._kept is None or self._kept[0] is not self.table:
            made = self.recognizer.method.class_vectors(self.recognizer._classes)
            self._kept = self.table, made.detach().cpu().double().numpy()
        return self._kept[1]

    def _ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """``(K,)`` lowest and highest value of each attribute, never equal."""
        low, high = self.table.values.min(axis=0), self.table.values.max(axis=0)
        return low, np.where(high > low, high, low + 1)

    def _readings(self, psi: np.ndarray, typical: tuple[float, float] | None = None) -> list[float]:
        low, high = self._ranges()
        bottom, top = typical or _typical(psi)
        return list((low + (high - low) * ((psi - bottom) / (top - bottom)).clip(0, 1)).tolist())

    def _unknown(self, best: Candidate) -> bool:
        threshold = getattr(self.recognizer, "threshold", None)
        return threshold is not None and best.confidence < threshold

    def _allowed(self, choice: schema.Choice) -> np.ndarray:
        """Positions of the classes asked for."""
        allowed = self.recognizer._allowed(choice.among)
        if choice.only:
            allowed = np.intersect1d(allowed, [self.table.index(name) for name in choice.only])
        if choice.exclude:
            allowed = np.setdiff1d(allowed, [self.table.index(name) for name in choice.exclude])
        if not len(allowed):
            raise UnseenError("no class is left to choose from", mend="ask for more classes, or exclude fewer")
        return allowed

    @contextmanager
    def _narrowed(self, choice: schema.Choice) -> Iterator[None]:
        """The recognizer with the classes asked for alone."""
        allowed = self._allowed(choice)
        if len(allowed) == len(self.table):
            yield
            return
        self.recognizer.table = self.table.select(allowed)
        try:
            yield
        finally:
            self.recognizer.table = self.table

    def classes(self) -> list[schema.ClassEntry]:
        """All classes without their values."""
        return [schema.ClassEntry(name=n, seen=bool(s)) for n, s in zip(self.table.names, self.table.seen, strict=True)]

    def entry(self, name: str) -> schema.ClassEntry:
        """A class with its values."""
        c = self._index(name)
        values = dict(zip(self.table.attributes.names, self.table.values[c].tolist(), strict=True))
        return schema.ClassEntry(name=name, seen=bool(self.table.seen[c]), values=values)

    def attributes(self) -> list[schema.AttributeEntry]:
        """All attributes, in the table's order."""
        table = self.table
        low, high = self._ranges()
        means = table.values.mean(axis=0)
        a = table.attributes
        return [
            schema.AttributeEntry(
                name=a.names[k],
                label=label(a.names[k]),
                group=label(a.groups[k]),
                part=a.parts[k],
                low=low[k],
                high=high[k],
                mean=means[k],
            )
            for k in range(len(a))
        ]

    def add(self, new: schema.NewClass) -> schema.Changed:
        """A class from its attributes."""
        self._must_be_new(new.name)
        row = (
            np.zeros(len(self.table.attributes))
            if new.like is None
            else self.table.values[self._index(new.like)].copy()
        )
        self._set(row, new.values)
        return self._changed(self.table.with_class(new.name, list(row)), [new.name])

    def add_table(self, data: bytes) -> schema.Changed:
        """Classes from a CSV file with a column ``class`` and one an attribute: all of them or none."""
        frame = self._frame(data)
        names = self.table.attributes.names
        where = Path("upload")
        no_repeats(frame, "class", where)
        for column in frame.columns:
            if column not in names and column not in ("class", "seen", "validation"):
                raise DataError(f'"{column}" is no attribute of this model', where="upload, row 1", mend="remove it")
        missing = next((n for n in names if n not in frame.columns), None)
        if missing is not None:
            raise DataError(f'no column "{missing}"', where="upload, row 1", mend="give a column for every attribute")
        table = self.table
        for name, row in zip(frame["class"], numbers(frame, names, where), strict=True):
            self._must_be_new(name)
            table = table.with_class(name, list(row))
        return self._changed(table, list(frame["class"]))

    @staticmethod
    def _frame(data: bytes) -> pd.DataFrame:
        try:
            rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
        except UnicodeDecodeError:
            raise DataError("the table is not UTF-8", mend='save it as "CSV UTF-8"') from None
        except csv.Error as error:
            raise DataError(f"not a CSV table: {error}", mend="mend the quotes") from None
        header, *body = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)] or [[]]
        if "class" not in header or not body:
            raise DataError(
                "no class in the table" if "class" in header else 'no column "class"',
                where="upload",
                mend="give a column class, a column an attribute and a row a class, separated by commas",
            )
        for i, cells in enumerate(body):
            if len(cells) != len(header):
                problem = f"{len(cells)} cells for {len(header)} columns"
                raise DataError(
                    problem, where=f"upload, row {i + 2}", mend="give every row as many cells as the header"
                )
        if len(set(header)) != len(header):
            raise DataError("a column appears twice", where="upload, row 1", mend="remove one")
        return pd.DataFrame(body, columns=header, dtype=str)

    def edit(self, name: str, change: schema.ClassChange) -> schema.Changed:
        """Another name, other values, or both."""
        c = self._index(name)
        values = self.table.values.copy()
        self._set(values[c], change.values)
        table = replace(self.table, values=values)
        if change.name is not None and change.name != name:
            self._must_be_new(change.name)
            table = table.renamed(name, change.name)
        return self._changed(table, [change.name or name])

    def remove(self, name: str) -> schema.Changed:
        """Choose among the other classes from now on."""
        self._index(name)
        if len(self.table) <= 2:
            raise Refusal(409, "only two classes are left", "add others first")
        return self._changed(self.table.without(name), [])

    def _index(self, name: str) -> int:
        try:
            return self.table.index(name)
        except DataError as error:
            raise Refusal(404, error.problem, error.mend or "") from None

    def _must_be_new(self, name: str) -> None:
        if name in self.table.names:
            raise Refusal(409, f'there is a class "{name}" already', "choose another name")

    def _set(self, row: np.ndarray, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            row[self.table.attributes.index(name)] = value

    def _changed(self, table: ClassTable, names: Sequence[str]) -> schema.Changed:
        self.recognizer.table = self.table = table
        if self.settings.save is not None:
            table.to_csv(self.settings.save / "classes.csv")
        warnings = [line for name in names if (line := self._warning(name))]
        entries = [self.entry(name) for name in names]
        return schema.Changed(classes=entries, warnings=warnings, saved=self.settings.save is not None)

    def _warning(self, name: str) -> str | None:
        """Said of a class much nearer to another than classes usually are."""
        low, high = self._ranges()
        values = (self.table.values - low) / (high - low)
        c = self.table.index(name)
        apart = np.abs(values - values[c]).mean(axis=1)
        apart[c] = np.inf
        nearest = int(apart.argmin())
        sample = np.delete(values, c, axis=0)[:: max(1, len(values) // 100)]
        others = [np.partition(np.abs(values - row).mean(axis=1), 1)[1] for row in sample]
        if apart[nearest] >= NEAR * float(np.median(others)):
            return None
        other = self.table.names[nearest]
        which = int(np.abs(values[nearest] - values[c]).argmax())
        if apart[nearest] < 1e-9:
            return f'"{name}" has the same attributes as "{other}": the two cannot be told apart.'
        most = label(self.table.attributes.names[which])
        return f'"{name}" is almost the same as "{other}"; they differ most in "{most}".'


def _typical(psi: np.ndarray) -> tuple[float, float]:
    """A low and a high attribute score of a look, never equal."""
    low, high = (float(v) for v in np.percentile(psi, (5, 95)))
    return (low, high) if high > low else (low - 1, low + 1)


def _candidate(found: Candidate) -> schema.Candidate:
    return schema.Candidate(name=found.name, seen=found.seen, confidence=found.confidence, score=found.score)


def _bytes(heat: np.ndarray) -> list[list[int]]:
    rows: list[list[int]] = np.rint(255 * heat / max(float(heat.max()), 1e-12)).astype(int).tolist()
    return rows


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    thumbnail(image, PREVIEW).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
