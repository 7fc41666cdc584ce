"""Answers about images and looks, without HTTP: everything here runs in the worker's thread."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from unseen.classes.prior import ANY, Prior
from unseen.errors import DataError, UnseenError
from unseen.model.references import Neighbour
from unseen.recognizer import Candidate, Comparison, Reading, Recognizer
from unseen.recognizer.advice import separate
from unseen.recognizer.look import check_correctable
from unseen.serve import schema
from unseen.serve.settings import Refusal, Settings
from unseen.serve.thumbnails import PREVIEW, THUMBNAIL, data_uri
from unseen.serve.uploads import Upload, decode

NEAREST = 6


class Service:
    """Answers the questions of the API with a recognizer.

    Args:
        recognizer: model, used only by this service from now on.
        settings: settings of the server.

    Attributes:
        no_corrections: why attributes cannot be corrected; ``None`` if they can.
    """

    def __init__(self, recognizer: Recognizer, settings: Settings) -> None:
        self.recognizer = recognizer
        self.settings = settings
        self.no_corrections: str | None = None
        try:
            check_correctable(recognizer)
        except UnseenError as error:
            self.no_corrections = f"{error.problem}; {error.hint}"

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
        return prior.named_now(self.recognizer.table).only(self.recognizer.classes)  # classes come and go on the page

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
            preview=data_uri(image, PREVIEW) if preview else None,
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
            "why_coarser": [] if weighed else list(reading.why_coarser(found, corrections, **_among(choice))),
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
        return data_uri(image, THUMBNAIL)

    def separate(self, first: str, second: str) -> schema.Separation:
        """What separates two classes, and what could."""
        return schema.Separation.model_validate(asdict(separate(self.recognizer, first, second)))


def _among(choice: schema.Choice) -> dict[str, Any]:
    """The candidate classes, as arguments of the recognizer."""
    return {"among": choice.among, "only": choice.only or None, "exclude": choice.exclude or None}


def _candidate(found: Candidate) -> schema.Candidate:
    return schema.Candidate(name=found.name, seen=found.seen, confidence=found.confidence, score=found.score)


def _bytes(heat: np.ndarray) -> list[list[int]]:
    rows: list[list[int]] = np.rint(255 * heat / max(float(heat.max()), 1e-12)).astype(int).tolist()
    return rows
