"""The API without HTTP: everything here runs in the worker's thread."""

from __future__ import annotations

import base64
import hashlib
import io
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unseen.classes.changes import (
    changes_since,
    changing,
    keep_table,
    read_described,
    taxa_in,
    trained_table,
    unit_doubt,
    values_of,
)
from unseen.classes.expectations import expectations
from unseen.classes.naming import label
from unseen.classes.prior import ANY, Prior
from unseen.classes.spreadsheets.workbook import write_workbook
from unseen.classes.table import ClassTable
from unseen.errors import DataError, UnseenError
from unseen.explain.figures import thumbnail
from unseen.model.references import Neighbour
from unseen.model.support import SupportImage, keep_support, read_support
from unseen.recognizer import Candidate, Comparison, Reading, Recognizer
from unseen.recognizer.advice import closest, nearly_equal, separate
from unseen.recognizer.look import check_correctable
from unseen.serve import schema
from unseen.serve.settings import Refusal, Settings
from unseen.serve.uploads import Upload, decode

PREVIEW = 900
THUMBNAIL = 160
"""Longest side of the thumbnails sent to the page."""
NEAREST = 6
NEAR, MOST_NEAR = 3, 20
"""Number of near classes reported for a new one, and of new classes with such a report."""
EXAMPLES = 6
"""Number of example images."""
ROWS = 1000
"""Largest number of classes in one table."""
_NO_NAME = {"Cc", "Cs", "Cn", "Zl", "Zp"}


class Service:
    """Answers the questions of the API with a recognizer.

    Args:
        recognizer: model, used only by this service from now on.
        settings: settings of the server.

    Attributes:
        no_corrections: why attributes cannot be corrected; ``None`` if they can.
        sent: thumbnails of support images sent to this server, by SHA-256.
    """

    def __init__(self, recognizer: Recognizer, settings: Settings) -> None:
        self.recognizer = recognizer
        self.settings = settings
        self.no_corrections: str | None = None
        self.sent: dict[str, bytes] = {}
        try:
            check_correctable(recognizer)
        except UnseenError as error:
            self.no_corrections = f"{error.problem}; {error.hint}"
        self._most = len(recognizer.table) + settings.added
        self._trained = recognizer.table if settings.save is None else trained_table(settings.save)

    def check(self, choice: schema.Choice) -> None:
        """Raise an error if there are no candidate classes."""
        self.recognizer.choices(**_among(choice))
        if (prior := self._prior(choice)) is not None:
            prior.weights(self.recognizer.classes)

    def _prior(self, choice: schema.Choice) -> Prior | None:
        """The server's prior for the requested place and month, summed over what the request leaves open."""
        prior = self.settings.prior
        if prior is None:
            if choice.place or choice.month:
                raise UnseenError("this server has no prior", hint="start it with --prior FILE")
            return None
        prior = prior.at(choice.place or None, choice.month or None)
        place = ANY if prior.places and not prior.place else None
        prior = prior.at(place, ANY if prior.months and not prior.month else None)
        return prior.only(self.recognizer.classes)  # classes come and go on the page

    def predict(self, upload: Upload, choice: schema.Choice) -> schema.Prediction:
        """Prediction for an image, or the reason why there is none."""
        try:
            image = decode(upload, self.settings.max_pixels)
            how = {"top": choice.top, "prior": self._prior(choice), **_among(choice)}
            (found,) = self.recognizer.predict([image], batch_size=1, workers=0, **how)
        except Refusal as refusal:
            return schema.Prediction(image=upload.name, error=refusal.detail, hint=refusal.hint)
        except DataError as error:
            return schema.Prediction(image=upload.name, error=error.problem, hint=error.hint)
        support = self.recognizer.support
        used = bool(support) and hashlib.sha256(upload.data).hexdigest() in support.digests
        record = found.as_dict() | {"image": upload.name, "used": used}
        return schema.Prediction(unknown=not record.pop("known"), **record)

    def explain(
        self,
        upload: Upload,
        choice: schema.Choice,
        target: str | None,
        rival: str | None,
        preview: bool,
        thumbnails: bool,
    ) -> schema.Explanation:
        """Explanation of a prediction, with a heat map per attribute."""
        image = decode(upload, self.settings.max_pixels)
        look = self.recognizer.look(image)
        if target is None and (prior := self._prior(choice)) is not None:
            target = look.prediction(prior=prior, **_among(choice)).best.name
        why = look.explanation(target=target, rival=rival, nearest=NEAREST, **_among(choice))
        same = np.array_equal(look.query, look.attribute_scores)
        numbers = schema.Look(
            attribute_scores=look.attribute_scores.tolist(),
            query=None if same else look.query.tolist(),
            pooled=None if look.pooled is None else look.pooled.tolist(),
        )
        reasons = self._reasons(look, why, {})
        return schema.Explanation(
            **self._ranking(look, why, choice, {}),
            reasons=[schema.ReasonSeen(**r, heat=_bytes(why.heat(r["attribute"]))) for r in reasons],
            image=upload.name,
            width=image.width,
            height=image.height,
            crop=list(why.crop),
            look=numbers,
            nearest=[schema.Near(**vars(n), thumbnail=self._thumbnail(n) if thumbnails else None) for n in why.nearest],
            preview=_data_uri(image, PREVIEW) if preview else None,
        )

    def rank(self, request: schema.RankRequest) -> schema.Ranking:
        """Rank classes by a look whose attributes may be corrected; needs no image."""
        reading = self.recognizer.reading(request.look.attribute_scores, request.look.query, request.look.pooled)
        corrections = request.corrections
        target, prior = request.target, self._prior(request)
        if target is None and prior is not None:
            target = reading.prediction(corrections, prior=prior, **_among(request)).best.name
        why = reading.compare(corrections, target=target, rival=request.rival, **_among(request))
        reasons = self._reasons(reading, why, corrections)
        return schema.Ranking(
            **self._ranking(reading, why, request, corrections), reasons=[schema.Reason(**r) for r in reasons]
        )

    def _ranking(
        self, reading: Reading, why: Comparison, choice: schema.Choice, corrections: Mapping[str, float]
    ) -> dict[str, Any]:
        """Fields of a ranking without the reasons."""
        prior = self._prior(choice)
        found = reading.prediction(corrections, top=choice.top, prior=prior, **_among(choice))
        weighed = found.weighed
        return {
            "classes": [_candidate(c) for c in found.candidates],
            "unknown": not found.known,
            "ranks": [schema.Taxon(**vars(taxon)) for taxon in found.ranks],
            "answer": found.answer if found.ranks else None,
            "answer_rank": found.answer_rank if found.ranks else None,
            "without_prior": None if weighed is None else _candidate(weighed.without),
            "prior": None if weighed is None else weighed.prior,
            "target": _candidate(why.target),
            "rival": _candidate(why.rival),
            "terms": [schema.Term(**vars(t)) for t in why.terms],
        }

    def _reasons(self, reading: Reading, why: Comparison, corrections: Mapping[str, float]) -> list[dict[str, Any]]:
        attributes = self.recognizer.table.attributes
        values = np.full(len(attributes), np.nan) if self.no_corrections else reading.estimates()
        read = {name: None if np.isnan(v) else float(v) for name, v in zip(attributes.names, values, strict=True)}
        read |= corrections
        fields = schema.Reason.model_fields.keys() - {"reading"}
        return [{name: getattr(r, name) for name in fields} | {"reading": read[r.attribute]} for r in why.reasons]

    def _thumbnail(self, near: Neighbour) -> str | None:
        """Thumbnail of a training image; ``None`` if it cannot be read, or is elsewhere."""
        images = self.recognizer.images
        if images is None or not (images / near.file).resolve().is_relative_to(images.resolve()):
            return None
        try:
            image = decode(Upload(near.file, (images / near.file).read_bytes()), self.settings.max_pixels)
        except (OSError, DataError, Refusal):
            return None
        return _data_uri(image, THUMBNAIL)

    def separate(self, first: str, second: str) -> schema.Separation:
        """What separates two classes, and what could."""
        return schema.Separation.model_validate(asdict(separate(self.recognizer, first, second)))

    def classes(self) -> list[schema.ClassEntry]:
        """All classes without their values."""
        table, trained = self.recognizer.table, self._trained
        support = self.recognizer.support  # a class known from images alone has no expectation
        small = self._thumbnails_of_classes()
        expected = {e.name: e.text for e in expectations(table, trained) if support[e.name].attributes}
        rows = zip(
            table.names, table.seen, changes_since(table, trained), self.recognizer.attribute_shares, strict=True
        )
        return [
            schema.ClassEntry(
                name=name,
                seen=bool(seen),
                change=change or None,
                expectation=expected.get(name),
                ranks=table.taxa(c) or None,
                images=len(support[name].images) or None,
                image_weight=1 - float(share) if support[name].images else None,
                thumbnail=small.get(name),
            )
            for c, (name, seen, change, share) in enumerate(rows)
        ]

    def entry(self, name: str) -> schema.ClassEntry:
        """A class with its values."""
        return self._entries([name])[0]

    def _entries(self, names: Sequence[str]) -> list[schema.ClassEntry]:
        table, every = self.recognizer.table, self.classes()
        found = []
        for c in map(self.index, names):
            values = dict(zip(table.attributes.names, table.values[c].tolist(), strict=True))
            found.append(every[c].model_copy(update={"values": values}))
        return found

    def attributes(self) -> list[schema.AttributeEntry]:
        """All attributes, in table order."""
        table, references = self.recognizer.table, self.recognizer.references
        values = table.values if references is None else references.class_values
        low, high = values.min(axis=0).clip(max=0), values.max(axis=0).clip(min=0)
        least, most = _range(table.values)
        means = table.unknown
        a = table.attributes
        return [
            schema.AttributeEntry(
                name=a.names[k],
                label=label(a.names[k]),
                group=label(a.groups[k]),
                part=a.parts[k],
                low=low[k],
                high=high[k],
                least=least[k],
                most=most[k],
                mean=means[k],
            )
            for k in range(len(a))
        ]

    def template(self) -> dict[str, str]:
        """The first class as a row of a table for adding classes: in words if the model's classes came in words."""
        table, encoding = self.recognizer.table, self.recognizer.encoding
        if encoding is not None:
            return encoding.decode(table.values[0])
        return {name: f"{value:g}" for name, value in zip(table.attributes.names, table.values[0], strict=True)}

    def add(self, new: schema.NewClass) -> schema.Changed:
        """Add a class from its attributes."""
        with self.change():
            table = self.recognizer.table
            start = None if new.like is None else table.values[self.index(new.like)]
            there = new.name in table.names  # reported first
            row = table.unknown if there else _values(new.values, table, start)
            self.add_described(new.name, row, new.ranks)
        return self._changed([new.name])

    def add_table(self, data: bytes, suffix: str) -> schema.Changed:
        """Add classes from a table with a column ``class`` and one per attribute or spreadsheet column: all or none.

        Args:
            data: content of the table.
            suffix: format: ``.csv``, ``.tsv`` or ``.xlsx``.
        """
        if suffix == ".xlsx":
            _check_workbook(data, self.settings.max_upload)
        described = read_described(Path(f"upload{suffix}"), data)
        if len(described) > ROWS:
            raise Refusal(413, f"{len(described)} classes in one table", f"send at most {ROWS} at once")
        names = [one.name for one in described if one.name is not None]
        if len(names) < len(described):
            raise DataError("the table has no class name", hint='add a column "class"')
        with self.change():
            for name, one in zip(names, described, strict=True):
                table, encoding = self.recognizer.table, self.recognizer.encoding
                cells, taxa = taxa_in(one.cells, table, encoding)
                self.add_described(name, values_of(cells, table, encoding, where=one.where), taxa)
        return self._changed(names)

    def save(self) -> schema.Saved:
        """Save the classes with the run."""
        folder = self.settings.save or self.settings.folder
        if folder is None:
            raise Refusal(403, "this server does not keep classes", "start it with --save on a folder of your own")
        with changing(folder):
            keep_table(folder, self.recognizer.table)
            keep_support(folder, self.recognizer.support)
        return schema.Saved(folder=str(folder))

    @cached_property
    def _training(self) -> list[tuple[str, Path]]:
        """Class and path of a training image of each class; empty where they lie elsewhere."""
        folder, references = self.recognizer.images, self.recognizer.references
        if folder is None or references is None:
            return []
        found: dict[str, Path] = {}
        for c, file in zip(references.labels, references.files, strict=True):
            name, path = str(references.class_names[c]), folder / str(file)
            if name not in found and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
                found[name] = path
        return list(found.items())

    @property
    def examples(self) -> list[str]:
        """Classes of the images to try."""
        return [name for name, _ in self._training[:EXAMPLES]]

    def example(self, number: int, small: bool) -> bytes:
        """A training image as JPEG: of those to try, or of another class."""
        if number >= len(self._training):
            raise Refusal(404, f"no example {number}", "see /api/examples")
        path = self._training[number][1]
        image = decode(Upload(path.name, path.read_bytes()), self.settings.max_pixels)
        return jpeg(image, THUMBNAIL if small else PREVIEW)

    def _thumbnails_of_classes(self) -> dict[str, str]:
        """Class to the address of a small image of it: of the training, else of its support images."""
        found = {name: f"/api/examples/{i}?small=1" for i, (name, _) in enumerate(self._training)}
        for name, mine in self.recognizer.support.classes.items():
            shown = (image.sha256 for image in mine.images if image.sha256 in self.sent or on_disk(image))
            if name not in found and (digest := next(shown, None)):
                found[name] = f"/api/thumbnails/{digest}"
        return found

    def workbook(self, table: schema.Table) -> bytes:
        """A table as XLSX."""
        if any(len(row) != len(table.columns) for row in table.rows):
            raise Refusal(422, "a row of another length than the header", "send a cell a column in every row")
        file = io.BytesIO()
        write_workbook(file, "predictions", table.columns, table.rows)
        return file.getvalue()

    def add_described(self, name: str, values: np.ndarray, taxa: Mapping[str, str] | None = None) -> None:
        """Add a class, inside :meth:`change`."""
        self.must_be_new(name)
        if len(self.recognizer.table) >= self._most:
            raise Refusal(409, f"{self.settings.added} classes are already added", "remove some first")
        if np.abs(values).max() > schema.LARGEST:
            raise Refusal(422, f'class "{name}": a value beyond {schema.LARGEST:g}', "use a larger unit")
        trained = self.recognizer.table.back_from(self._trained, name)
        self.recognizer.add_class(name, values, trained=trained, taxa=taxa)

    def edit(self, name: str, change: schema.ClassChange) -> schema.Changed:
        """Change name, values, or both."""
        with self.change():
            c, table = self.index(name), self.recognizer.table
            if change.values:
                self.recognizer.edit_class(name, _values(change.values, table, table.values[c]))
            if change.ranks:
                self.recognizer.edit_taxa(name, change.ranks)
            if change.name is not None and change.name != name:
                self.must_be_new(change.name)
                self.recognizer.rename_class(name, change.name)
        return self._changed([change.name or name])

    def remove(self, name: str) -> schema.Changed:
        """Remove the class."""
        with self.change():
            self.index(name)
            if len(self.recognizer.table) <= 2:
                raise Refusal(409, "at least two classes must remain", "add another class first")
            self.recognizer.remove_class(name)
        return self._changed([])

    def index(self, name: str) -> int:
        """Position of a class in the table; Refusal (404) if there is none."""
        try:
            return self.recognizer.table.index(name)
        except DataError as error:
            raise Refusal(404, error.problem, error.hint or "") from None

    def must_be_new(self, name: str) -> None:
        """Reject an invalid class name, or one that is taken."""
        if len(name) > 200 or name in (".", "..") or any(unicodedata.category(c) in _NO_NAME for c in name):
            raise Refusal(422, "not a valid class name", "use 1 to 200 printable characters")
        if name in self.recognizer.table.names:
            raise Refusal(409, f'class "{name}" already exists', "choose another name")

    @contextmanager
    def change(self) -> Iterator[None]:
        """Context for a change, all or nothing; if changes are saved, starts from the table of other processes."""
        recognizer, folder = self.recognizer, self.settings.save
        before = recognizer.table, recognizer.support
        try:
            if folder is None:
                yield
                return
            with changing(folder) as recognizer.table:
                recognizer.support = read_support(folder)
                yield
                keep_table(folder, recognizer.table)
                keep_support(folder, recognizer.support)
        except BaseException:
            recognizer.table, recognizer.support = before
            raise

    def _changed(self, names: Sequence[str]) -> schema.Changed:
        warnings = [line for name in names for line in self._warnings(name)]
        entries = self._entries(names) if names else []
        described = [name for name in names if self.recognizer.support[name].attributes]
        near = {name: [n.name for n in closest(self.recognizer, name, NEAR)] for name in described[:MOST_NEAR]}
        return schema.Changed(classes=entries, warnings=warnings, nearest=near, saved=self.settings.save is not None)

    def entry_of(self, name: str) -> dict[str, Any]:
        """Fields of an answer about the support images of a class."""
        return {"classes": [self.entry(name)], "saved": self.settings.save is not None}

    def _warnings(self, name: str) -> Iterator[str]:
        if not self.recognizer.support[name].attributes:
            return
        near = nearly_equal(self.recognizer, name)
        if near is not None and not near.differing:
            yield f'"{name}" has the same attributes as "{near.name}", so the model cannot separate them.'
        elif near is not None:
            count = f"{near.differing} attribute{'s differ' if near.differing > 1 else ' differs'}"
            yield f'"{name}" is nearly equal to "{near.name}": {count}, so they are easily confused.'
        table = self.recognizer.table
        doubt = unit_doubt(table.values[table.index(name)], table.without(name))
        if doubt is not None:
            yield f'"{name}": {doubt}; check the unit'


def _values(given: Mapping[str, float | None], table: ClassTable, start: np.ndarray | None) -> np.ndarray:
    """Values of a class from numbers and nulls, which mean unknown."""
    values = values_of({name: value for name, value in given.items() if value is not None}, table, start=start)
    for name, value in given.items():
        if value is None:
            k = table.attributes.index(name)
            values[k] = table.unknown[k]
    return values


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest meaningful value of each attribute: of a share or percentage, else the table's own."""
    low, high = values.min(axis=0).clip(max=0), values.max(axis=0).clip(min=0)
    if low.min() >= 0 and high.max() <= 100:
        high = np.full_like(high, 1.0 if high.max() <= 1 else 100.0)
    return low, high


def _among(choice: schema.Choice) -> dict[str, Any]:
    """The candidate classes, as arguments of the recognizer."""
    return {"among": choice.among, "only": choice.only or None, "exclude": choice.exclude or None}


def _candidate(found: Candidate) -> schema.Candidate:
    return schema.Candidate(name=found.name, seen=found.seen, confidence=found.confidence, score=found.score)


def _bytes(heat: np.ndarray) -> list[list[int]]:
    rows: list[list[int]] = np.rint(255 * heat / max(float(heat.max()), 1e-12)).astype(int).tolist()
    return rows


def jpeg(image: Image.Image, side: int) -> bytes:
    """The image as JPEG with this longest side."""
    buffer = io.BytesIO()
    thumbnail(image, side).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _data_uri(image: Image.Image, side: int) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image, side)).decode()


def on_disk(image: SupportImage) -> bool:
    """Whether a support image still lies where it was added from."""
    return Path(image.file).is_absolute() and Path(image.file).is_file()


def _check_workbook(data: bytes, limit: int) -> None:
    """Reject an archive that is not a workbook, or that unpacks to more than a request may have."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError):
        raise DataError("cannot read the workbook", where="upload.xlsx", hint="save it again") from None
    if size > limit:
        raise Refusal(413, f"the workbook unpacks to {size / 1e6:.0f} MB", "save the table as CSV")
