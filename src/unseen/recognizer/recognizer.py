"""A trained model in use: images in, classes and reasons out, with classes that come and go."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.backbones.towers import PREFIX
from unseen.errors import DataError, UnseenError
from unseen.features.reading import ImageInput, read_batches
from unseen.ground.images import EncodedImage, open_image, upright_rgb
from unseen.model.predictions import Prediction, Predictions
from unseen.model.support import SupportImage
from unseen.model.trained import TrainedModel
from unseen.recognizer.answers import Explanation, PartMaps
from unseen.recognizer.card import CardFields
from unseen.recognizer.class_images import read_images
from unseen.recognizer.embedding import Embeddings
from unseen.recognizer.given import from_one, images_of
from unseen.recognizer.hub import fetch, push
from unseen.recognizer.look import Look, Reading
from unseen.recognizer.opening import find_parts
from unseen.recognizer.saved import read_saved
from unseen.recognizer.saving import save


def _readable(
    outcomes: Generator[Prediction | DataError], broken: Callable[[DataError], None] | None
) -> Generator[Prediction]:
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, Prediction):
                yield outcome
            elif broken is None:
                raise outcome
            else:
                broken(outcome)


def _upright(image: Any) -> Image.Image:
    image = from_one(image)
    if isinstance(image, EncodedImage):
        return image.open()
    return upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)


def _path(image: Any) -> str:
    """Its path; ``""`` of one given as pixels or bytes."""
    return str(image) if isinstance(image, str | Path | EncodedImage) else ""


class Recognizer(TrainedModel):
    """A trained model with images in front of it: files and PIL images in, classes and reasons out."""

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        seed: int | None = None,
        device: str = "auto",
        engine: str | None = None,
        as_trained: bool = False,
    ) -> Self:
        """From a run folder, a folder that :meth:`save` wrote, or the hub.

        Args:
            folder: either folder; or ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``, see :meth:`from_pretrained`.
            seed: of a run: which seed's model, default the first.
            device: where to compute.
            engine: what computes a frozen network, see :func:`unseen.backbones.engines.chosen_engine`.
            as_trained: with the classes of the training, not as ``unseen classes`` has changed them.

        Raises:
            RunError: it is neither, unfinished, damaged, or of a newer version.
            UnseenError: the backbone's weights are gone or have changed.
        """
        if str(folder).startswith(PREFIX):
            name, _, revision = str(folder).removeprefix(PREFIX).partition("@")
            return cls.from_pretrained(name, revision=revision or None, device=device, engine=engine)
        try:
            return find_parts(Path(folder), seed).build(cls, device, as_trained)._using(engine)
        except UnseenError as error:
            if str(folder) in str(error):
                raise
            where = ", ".join(str(place) for place in (folder, error.where) if place)
            raise type(error)(error.problem, where=where, hint=error.hint) from None

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: Path | str,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: Path | str | None = None,
        local_files_only: bool = False,
        device: str = "auto",
        engine: str | None = None,
    ) -> Self:
        """From a saved folder, or from the Hugging Face hub; only the files that :meth:`save` writes are fetched.

        Args:
            folder_or_id: a folder that :meth:`save` wrote, or the hub's ``OWNER/NAME``.
            revision: branch, tag or commit of the hub's.
            token: for private repositories; default that of ``hf auth login``.
            cache_dir: where fetched files are kept; default the hub's own cache.
            local_files_only: use what was fetched before, without a network.
            device: where to compute.
            engine: as in :meth:`load`.

        Raises:
            RunError: no such model, no network, or not one of ours.
        """
        folder = fetch(folder_or_id, revision, token, cache_dir, local_files_only)
        return read_saved(folder).build(cls, device)._using(engine)

    def _using(self, engine: str | None) -> Self:
        if not self.method.end_to_end:
            self.backbone.use(engine)
        return self

    def save(
        self,
        folder: Path | str,
        *,
        include_backbone: bool = False,
        include_references: bool = False,
        card: CardFields | None = None,
    ) -> Path:
        """Write a folder that :meth:`load` reads on another machine: weights, classes, backbone, model card; no pickle.

        A backbone from files of this machine or with random weights is stored along; a pretrained one of timm's or the
        hub's is named, and fetched again. A fine-tuned one is among the method's weights.

        Args:
            folder: new, empty, or written by an earlier save.
            include_backbone: store a pretrained backbone along too, so that nothing is fetched.
            include_references: store attribute scores, labels and file names of the training images along.
            card: licence, author and so on, for the model card.

        Raises:
            RunError: the folder holds something else.
        """
        return save(self, Path(folder), include_backbone, include_references, card or CardFields())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str = "Add unseen model",
        include_backbone: bool = False,
        include_references: bool = False,
        card: CardFields | None = None,
    ) -> str:
        """:meth:`save`, and upload the folder to the Hugging Face hub; returns the address of the commit.

        Args:
            repo_id: ``OWNER/NAME``, made where there is none.
            private: of a new repository.
            token: default that of ``hf auth login``.
            message: of the commit.
            include_backbone, include_references, card: as in :meth:`save`.

        Raises:
            RunError: nobody is logged in, no network, or the hub refuses.
        """
        return push(self, repo_id, private, token, message, include_backbone, include_references, card or CardFields())

    def add_class(
        self,
        name: str,
        values: Sequence[float] | np.ndarray | Mapping[str, float] | None = None,
        *,
        trained: int = -1,
        images: Any = (),
    ) -> None:
        """A new class from its attributes, from images of it, or from both, without retraining.

        Args:
            name: new to the table.
            values: K numbers in the table's unit, or a mapping from attribute names, the others unknown; ``None`` for
                a class that is known by its images alone.
            trained: as in :meth:`TrainedModel.add_class`.
            images: of the class, in any form of :func:`unseen.recognizer.given.images_of`.

        Raises:
            UnseenError: neither attributes nor images, or as in :meth:`add_images`.
        """
        given = read_images(self, images)
        if values is None and not given:
            raise UnseenError(f'class "{name}" has neither attributes nor images', hint="give it some")
        super().add_class(name, self.table.unknown if values is None else values, trained=trained)
        self.support = self.support.without(name)
        if given:
            self.support, _ = self.support.added(name, *given, attributes=values is not None)

    def add_images(self, name: str, images: Any) -> list[SupportImage]:
        """Images of a class, seen or unseen, as evidence beside its attributes, without retraining.

        The more there are the more they count, see :mod:`unseen.model.support`.

        Args:
            name: the class.
            images: in any form of :func:`unseen.recognizer.given.images_of`.

        Returns:
            Those that the class had already, by their content; they count once.

        Raises:
            DataError: no such class, or an image that cannot be read; then none is added.
            UnseenError: training chose no rule for images of classes.
        """
        name = self.table.names[self.table.index(name)]
        given = read_images(self, images)
        if not given:
            raise UnseenError("no images", hint="give one or more")
        self.support, again = self.support.added(name, *given)
        return again

    def remove_images(self, name: str, files: Sequence[str] | None = None) -> None:
        """Take images of a class away.

        Args:
            name: the class.
            files: their paths or file names, as :meth:`class_images` has them, or SHA-256; default all.

        Raises:
            DataError: no such class or image, or a class without attributes would be left with nothing.
        """
        self.support = self.support.removed(self.table.names[self.table.index(name)], files)

    def undo_images(self, name: str) -> None:
        """Take away the images of a class that were added last; raises as :meth:`remove_images`."""
        self.support = self.support.undone(self.table.names[self.table.index(name)])

    def class_images(self, name: str) -> tuple[SupportImage, ...]:
        """Where the images of a class came from: file, SHA-256, when they were added."""
        return self.support[self.table.names[self.table.index(name)]].images

    def predict(self, images: Any, *, broken: Callable[[DataError], None] | None = None, **options: Any) -> Predictions:
        """Name what images show, in their order; :meth:`iter_predict` gives them one by one.

        Args:
            images: one or many, in any form of :func:`unseen.recognizer.given.images_of`.
            broken: told of every image that cannot be read, which is then left out.
            options: as in :meth:`outcomes`.

        Raises:
            DataError: an image cannot be read, and there is no ``broken``.
        """
        return Predictions(self.iter_predict(images, broken=broken, **options))

    def iter_predict(
        self, images: Any, *, broken: Callable[[DataError], None] | None = None, **options: Any
    ) -> Generator[Prediction]:
        """What :meth:`predict` gives, as a stream in bounded memory: images are read as it is consumed.

        Args:
            images, broken, options: as in :meth:`predict`.

        Raises:
            DataError: an image cannot be read, and there is no ``broken``; those before it have been given.
        """
        return _readable(self.outcomes(images, **options), broken)

    def outcomes(
        self,
        images: Any,
        *,
        top: int = 5,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: float | str = "auto",
        batch_size: int = 32,
        workers: int = 2,
        together: bool = False,
    ) -> Generator[Prediction | DataError]:
        """What :meth:`iter_predict` gives, with the error in the place of an image that cannot be read.

        Images are read ahead of the network, two batches at most, which is also what is held in memory.

        Args:
            images: one or many, in any form of :func:`unseen.recognizer.given.images_of`.
            top: candidates an image.
            among: ``all``, ``seen`` or ``unseen`` classes.
            only, exclude: names of the classes to choose from, and not to choose from; confidence is over those left.
            unknown: confidence below which an image counts as unknown: ``auto`` (:attr:`threshold`, where there is
                one), ``off`` or a number.
            batch_size: images at once.
            workers: threads that read images; 0 reads them here, when their batch is due.
            together: name all images as a whole (transductive, :mod:`unseen.model.together`): an answer then depends on
                the other images, and none comes before all have been read; their features are held in memory.

        Raises:
            UnseenError: a name that is no class's, no class left, or no such threshold; before any image is read.
        """
        allowed, threshold = self.allowed(among, only, exclude), self.threshold_of(unknown)
        if together:
            self.together(np.zeros((0, len(self.table))), torch.zeros(0, self.space.channels), allowed)
            return self._together(images_of(images), max(1, top), allowed, threshold, batch_size, workers)
        return self._outcomes(images_of(images), max(1, top), allowed, threshold, batch_size, workers)

    def _together(
        self,
        stream: Iterator[ImageInput],
        top: int,
        allowed: np.ndarray,
        threshold: float,
        batch_size: int,
        workers: int,
    ) -> Generator[Prediction | DataError]:
        """The outcomes once the scores of all images are known."""
        outcomes: list[str | DataError] = []
        scores, psi, pooled = [np.zeros((0, len(self.table)))], [np.zeros((0, len(self.table.attributes)))], []
        for images, pixels in self._read(stream, batch_size, workers):
            outcomes += [
                found if isinstance(found, DataError) else _path(image)
                for image, found in zip(images, pixels, strict=True)
            ]
            if readable := [found for found in pixels if isinstance(found, Tensor)]:
                inputs = self.inputs(torch.stack(readable))
                pooled.append(self.pooled(inputs))
                answer = replace(self.answer(inputs), pooled=pooled[-1])
                scores.append(self.class_scores(answer.query, answer.pooled))
                psi.append(answer.attribute_scores)
        named: Iterator[Prediction] = iter(())
        if pooled:
            moved = self.together(np.concatenate(scores), torch.cat(pooled), allowed)
            mine = [found for found in outcomes if isinstance(found, str)]
            best = self.rank(moved, top, allowed)
            named = iter(self.predictions(mine, best, np.concatenate(psi), threshold, together=True))
        for found in outcomes:
            yield found if isinstance(found, DataError) else next(named)

    def _read(
        self, stream: Iterator[ImageInput], batch_size: int, workers: int
    ) -> Generator[tuple[Sequence[ImageInput], Sequence[Tensor | DataError]]]:
        """Images with their pixels in batches, read ahead."""
        batches = iter(lambda: list(islice(stream, batch_size)), [])
        with closing(read_batches(batches, self.backbone.transform, workers)) as read:
            yield from read

    def _outcomes(
        self,
        stream: Iterator[ImageInput],
        top: int,
        allowed: np.ndarray,
        threshold: float,
        batch_size: int,
        workers: int,
    ) -> Generator[Prediction | DataError]:
        with closing(self._read(stream, batch_size, workers)) as read:
            for images, pixels in read:
                readable = [i for i, found in enumerate(pixels) if isinstance(found, Tensor)]
                named: dict[int, Prediction] = {}
                if readable:
                    inputs = self.inputs(torch.stack([found for found in pixels if isinstance(found, Tensor)]))
                    mine = [_path(images[i]) for i in readable]
                    found_of = self.predict_inputs(mine, inputs, top=top, allowed=allowed, threshold=threshold)
                    named = dict(zip(readable, found_of, strict=True))
                for i, found in enumerate(pixels):
                    yield found if isinstance(found, DataError) else named[i]

    def scores(self, images: Any, *, batch_size: int = 32) -> np.ndarray:
        """Raw class scores, float64 ``(n, N)``, in the order of :attr:`classes`.

        Args:
            images: n images, as in :meth:`predict`.
            batch_size: images at once.

        Raises:
            DataError: an image cannot be read.
        """
        found = [np.zeros((0, len(self.table)))]
        stream = images_of(images)
        while batch := list(islice(stream, batch_size)):
            crops = torch.stack([self.backbone.transform.cropped(image) for image in batch])
            answer = self.answer(self.inputs(crops))
            found.append(self.class_scores(answer.query, answer.pooled))
        return np.concatenate(found)

    def embed(
        self,
        images: Any,
        *,
        broken: Callable[[DataError], None] | None = None,
        batch_size: int = 32,
        workers: int = 2,
    ) -> Embeddings:
        """Images as numbers: pooled features, these standardised, and attribute scores.

        Args:
            images: in any form of :func:`unseen.recognizer.given.images_of`.
            broken: told of every image that cannot be read, which is then left out.
            batch_size: images at once.
            workers: threads that read images.

        Raises:
            DataError: an image cannot be read, and there is no ``broken``.
        """
        names: list[str] = []
        pooled, psi = (
            [np.zeros((0, self.backbone.channels[0]), np.float32)],
            [np.zeros((0, len(self.table.attributes)))],
        )
        for batch, pixels in self._read(images_of(images), batch_size, workers):
            readable = []
            for image, found in zip(batch, pixels, strict=True):
                if isinstance(found, Tensor):
                    readable.append(found)
                    names.append(_path(image))
                elif broken is None:
                    raise found
                else:
                    broken(found)
            if readable:
                inputs = self.inputs(torch.stack(readable))
                pooled.append(self.pooled(inputs).cpu().numpy())
                psi.append(self.answer(inputs).attribute_scores)
        every = np.concatenate(pooled[1:] or pooled)
        standardised = None
        if self.takes_images:
            standardised = self.space.vectors(torch.from_numpy(every).to(self.device)).cpu().numpy()
        scores = np.concatenate(psi).astype(np.float32)
        return Embeddings(tuple(names), every, standardised, scores, self.table.attributes.names)

    @torch.inference_mode()
    def look(self, image: Any) -> Look:
        """Ask the network about one image; what it made of it can then be ranked and explained in milliseconds."""
        upright = _upright(image)
        inputs = self._inputs_of(upright)
        branches, maps = self.method.answers_and_maps(inputs)
        answer = self.answer_of(branches)
        query = answer.query[0].cpu().double().numpy()
        pooled = self.pooled(inputs)[0].cpu().numpy() if self.takes_images else None
        return Look(self, upright, _path(image), maps, answer.attribute_scores[0], query, pooled)

    def _inputs_of(self, upright: Image.Image) -> Tensor:
        # stacked as batches are: another layout in memory would round otherwise
        return self.inputs(torch.stack([self.backbone.transform.cropped(upright)]))

    def reading(
        self,
        attribute_scores: Sequence[float] | np.ndarray,
        query: Sequence[float] | np.ndarray | None = None,
        pooled: Sequence[float] | np.ndarray | None = None,
    ) -> Reading:
        """A :class:`Reading` from the numbers of an earlier look.

        Args:
            attribute_scores: ``(K,)``.
            query: ``(D,)``; default the attribute scores, which it is where the method scores attributes.
            pooled: ``(C,)`` pooled features, needed where classes have images.

        Raises:
            UnseenError: too few numbers or too many.
        """
        psi = np.asarray(attribute_scores, np.float64)
        asked = psi if query is None else np.asarray(query, np.float64)
        for name, found, count in (
            ("attribute scores", psi, len(self._table.attributes)),
            ("query numbers", asked, self.scorer.width),
        ):
            if found.shape != (count,):
                raise UnseenError(f"{found.size} {name}", hint=f"pass {count}, as in a look of this model")
        if pooled is None or not self.takes_images:
            return Reading(self, psi, asked)
        features = np.asarray(pooled, np.float32)
        if features.shape != (self.space.channels,):
            problem = f"{features.size} pooled features"
            raise UnseenError(problem, hint=f"pass {self.space.channels}, as in a look of this model")
        return Reading(self, psi, asked, features)

    def explain(
        self,
        image: Any,
        *,
        target: str | None = None,
        rival: str | None = None,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: float | str = "auto",
        corrections: Mapping[str, float] | None = None,
        nearest: int = 6,
    ) -> Explanation:
        """Why an image is taken for a class, attribute by attribute and region by region.

        Args:
            image: in any form of :func:`unseen.recognizer.given.from_one`.
            target: the class to explain; default the best one.
            rival: the class to compare with; default the best one other than the target.
            among, only, exclude, unknown: as in :meth:`outcomes`.
            corrections: attributes that the model has wrong, with what they are in truth, in the class table's unit.
            nearest: how many training images with similar attribute scores.
        """
        return self.look(image).explanation(
            corrections,
            target=target,
            rival=rival,
            among=among,
            only=only,
            exclude=exclude,
            unknown=unknown,
            nearest=nearest,
        )

    def correct(self, image: Any, corrections: Mapping[str, float], **options: Any) -> tuple[Prediction, Prediction]:
        """What an image shows by the model alone, and with attributes corrected by hand; see :meth:`Look.corrected`.

        Args:
            image: in any form of :func:`unseen.recognizer.given.from_one`.
            corrections: attribute to what it is in truth, in the class table's unit.
            options: ``top``, ``among``, ``only``, ``exclude`` and ``unknown`` as in :meth:`outcomes`.
        """
        look = self.look(image)
        return look.prediction(**options), look.prediction(corrections, **options)

    @torch.inference_mode()
    def parts(self, image: Any) -> PartMaps:
        """What each learned part attends to in an image.

        Raises:
            UnseenError: the method learns no parts.
        """
        upright = _upright(image)
        found = self.method.parts(self._inputs_of(upright))
        if not found:
            hint = "train mgmrn with --set grouping=parts"
            raise UnseenError("this model has no learned parts", where=self.method.name, hint=hint)
        maps = {name: shares[0].cpu().double().numpy() for name, shares in found.items()}
        return PartMaps(upright, maps, self.backbone.transform.crop_box(*upright.size))
