"""Use a trained model: predict, explain, and change classes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from unseen.backbones.towers import PREFIX
from unseen.classes.prior import Prior
from unseen.errors import DataError, UnseenError
from unseen.ground.checked import whole
from unseen.model.predictions import Prediction, Predictions
from unseen.model.scored import CHANGING
from unseen.model.support import SupportImage
from unseen.model.trained import TrainedModel
from unseen.recognizer.answers import Explanation, PartMaps
from unseen.recognizer.batches import (
    class_scores,
    embeddings,
    inputs_of,
    predict_each,
    predict_together,
    without_errors,
)
from unseen.recognizer.card import CardFields
from unseen.recognizer.class_images import read_images
from unseen.recognizer.embedding import Embeddings
from unseen.recognizer.given import images_of, path_of, upright_of
from unseen.recognizer.hub import fetch, push
from unseen.recognizer.look import Look, Reading, reading_of
from unseen.recognizer.occasions import weigher
from unseen.recognizer.opening import find_parts
from unseen.recognizer.saved import read_saved
from unseen.recognizer.saving import save

if TYPE_CHECKING:
    from unseen.classes.table import Values


class Recognizer(TrainedModel):
    """A trained model that predicts and explains images, and whose classes can change."""

    @classmethod
    def load(
        cls,
        folder: PathLike[str] | str,
        *,
        seed: int | None = None,
        device: str = "auto",
        engine: str | None = None,
        as_trained: bool = False,
    ) -> Self:
        """Load a model from a run folder, a folder written by :meth:`save`, or the hub.

        Args:
            folder: a run, its folder, or a saved folder; or ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``, see
                :meth:`from_pretrained`.
            seed: for a run, the seed of the model; by default the first.
            device: where to compute.
            engine: engine of a frozen network, see :func:`unseen.backbones.engines.chosen_engine`.
            as_trained: use the classes of the training and ignore changes by ``unseen classes``.

        Raises:
            RunError: the folder is not a model, unfinished, damaged, or from a newer version.
            UnseenError: the backbone's weights are missing or have changed.
        """
        if str(folder).startswith(PREFIX):
            name, _, revision = str(folder).removeprefix(PREFIX).partition("@")
            return cls.from_pretrained(name, revision=revision or None, device=device, engine=engine)
        try:
            return find_parts(Path(folder).expanduser(), seed).build(cls, device, as_trained)._using(engine)
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
        """Load a model from a saved folder or the Hugging Face hub. Downloads only the files that :meth:`save` writes.

        Args:
            folder_or_id: a folder that :meth:`save` wrote, or the hub's ``OWNER/NAME``.
            revision: branch, tag or commit on the hub.
            token: for private repositories; by default that of ``hf auth login``.
            cache_dir: folder for downloaded files; by default the hub's cache.
            local_files_only: use downloaded files only, without a network.
            device: where to compute.
            engine: as in :meth:`load`.

        Raises:
            RunError: no such model, no network, or not an unseen model.
        """
        folder = fetch(folder_or_id, revision, token, cache_dir, local_files_only)
        return read_saved(folder).build(cls, device)._using(engine)

    def eval(self) -> Self:
        """Return itself: a trained model is always in evaluation mode."""
        return self

    def _using(self, engine: str | None) -> Self:
        if not self.method.end_to_end:
            self.backbone.use(engine)
        return self

    def save(
        self,
        folder: PathLike[str] | str,
        *,
        include_backbone: bool = False,
        include_references: bool = False,
        card: CardFields | None = None,
    ) -> Path:
        """Save the model to a self-contained folder, without pickle: weights, classes, backbone and model card.

        The folder includes a backbone from local files or with random weights. A pretrained backbone from timm or the
        hub is stored by name and downloaded again. A fine-tuned backbone is part of the method's weights.

        Args:
            folder: new, empty, or written by an earlier save.
            include_backbone: also store a pretrained backbone, so that loading needs no download.
            include_references: also store attribute scores, labels and file names of the training images.
            card: license, author and other facts for the model card.

        Raises:
            RunError: the folder is a file or holds something else.
        """
        return save(self, Path(folder), include_backbone, include_references, card or CardFields())

    save_pretrained = save
    """:meth:`save`, under the name that matches :meth:`from_pretrained` and :meth:`push_to_hub`."""

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
        """Save the model and upload it to the Hugging Face hub. Returns the address of the commit.

        Args:
            repo_id: ``OWNER/NAME``; created if needed.
            private: create a private repository.
            token: by default that of ``hf auth login``.
            message: commit message.
            include_backbone, include_references, card: as in :meth:`save`.

        Raises:
            RunError: not logged in, no network, or the hub refuses.
        """
        return push(self, repo_id, private, token, message, include_backbone, include_references, card or CardFields())

    def add_class(
        self,
        name: str,
        attributes: Values | Mapping[str, object] | None = None,
        *,
        trained: int | None = None,
        images: Any = (),
        taxa: Mapping[str, str] | None = None,
    ) -> None:
        """Add a class from attributes, images or both, without retraining.

        Args:
            name: name of the new class.
            attributes: as in :meth:`TrainedModel.add_class`; ``None`` for a class that has only images.
            trained, taxa: as in :meth:`TrainedModel.add_class`.
            images: images of the class, in any form of :func:`unseen.recognizer.given.images_of`.

        Raises:
            UnseenError: neither attributes nor images, or as in :meth:`add_images`.
        """
        given = read_images(self, images)
        if attributes is None and not given:
            raise UnseenError(f'class "{name}" has neither attributes nor images', hint="give it some")
        row = self.table.unknown if attributes is None else attributes
        with CHANGING:
            super().add_class(name, row, trained=trained, taxa=taxa)
            self.support = self.support.without(name)
            if given:
                self.support, _ = self.support.added(name, *given, attributes=attributes is not None)

    def add_images(self, name: str, images: Any) -> list[SupportImage]:
        """Add support images to a class, seen or unseen, without retraining.

        Their weight grows with their number, see :mod:`unseen.model.support`.

        Args:
            name: the class.
            images: in any form of :func:`unseen.recognizer.given.images_of`.

        Returns:
            Images that the class already has, by content; they count once.

        Raises:
            DataError: no such class, or an unreadable image; no image is added then.
            UnseenError: the training chose no rule for support images.
        """
        name = self.table.names[self.table.index(name)]
        given = read_images(self, images)
        if not given:
            raise UnseenError("no images", hint="give one or more")
        with CHANGING:
            self.support, again = self.support.added(name, *given)
        return again

    def remove_images(self, name: str, files: Sequence[str] | None = None) -> None:
        """Remove support images of a class.

        Args:
            name: the class.
            files: paths or file names as in :meth:`class_images`, or SHA-256; by default all.

        Raises:
            DataError: no such class or image, or a class without attributes would keep no image.
        """
        with CHANGING:
            self.support = self.support.removed(self.table.names[self.table.index(name)], files)

    def undo_images(self, name: str) -> None:
        """Undo the last :meth:`add_images` of a class; raises like :meth:`remove_images`."""
        with CHANGING:
            self.support = self.support.undone(self.table.names[self.table.index(name)])

    def class_images(self, name: str) -> tuple[SupportImage, ...]:
        """Support images of a class: file, SHA-256, and time of addition."""
        return self.support[self.table.names[self.table.index(name)]].images

    def predict(self, images: Any, *, broken: Callable[[DataError], None] | None = None, **options: Any) -> Predictions:
        """Predict the classes of images, in order; :meth:`iter_predict` yields them one by one.

        Args:
            images: one or many, in any form of :func:`unseen.recognizer.given.images_of`.
            broken: called with the error of every unreadable image, which is then skipped.
            options: as in :meth:`outcomes`.

        Raises:
            DataError: an image cannot be read and ``broken`` is not given.
        """
        return Predictions(self.iter_predict(images, broken=broken, **options))

    __call__ = predict

    def iter_predict(
        self, images: Any, *, broken: Callable[[DataError], None] | None = None, **options: Any
    ) -> Generator[Prediction]:
        """Yield the predictions of :meth:`predict` in bounded memory; images are read as you consume them.

        Args:
            images, broken, options: as in :meth:`predict`.

        Raises:
            DataError: an image cannot be read and ``broken`` is not given; earlier images have been yielded.
        """
        return without_errors(self.outcomes(images, **options), broken)

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
        rank: str | None = None,
        prior: Prior | Callable[[Any], Prior] | None = None,
    ) -> Generator[Prediction | DataError]:
        """Yield the predictions of :meth:`iter_predict`, with the error in place of an unreadable image.

        Images are read ahead of the network, by at most two batches, which bounds the memory. All are predicted among
        the classes at the time of the call, even if classes change in between.

        Args:
            images: one or many, in any form of :func:`unseen.recognizer.given.images_of`.
            top: number of candidates per image.
            among: ``all``, ``seen`` or ``unseen`` classes.
            only, exclude: names of candidate classes, and of classes to exclude; confidence is over the remaining ones.
            unknown: confidence below which the answer is "unknown": ``auto`` (:attr:`threshold`, if there is
                one), ``off`` or a number.
            batch_size: images per batch.
            workers: threads that read images; 0 reads them in this thread.
            together: predict all images together (transductive, :mod:`unseen.model.together`); each answer then depends
                on all images, which are read first; their features stay in memory.
            rank: answer at this rank, such as family, with its taxa as candidates. By default the candidates are
                classes, and :attr:`Prediction.coarser` has the answer if no class reaches the threshold.
            prior: how likely each class is before the image is seen (``Prior.read("prior.csv").at("coast", 5)``), or a
                callable that returns the prior of each image. Confidences are then posterior probabilities, and
                :attr:`Prediction.weighed` has the answer from the image alone.

        Raises:
            UnseenError: an unknown class or rank, no candidate class, an invalid number, threshold or prior; raised
                before any image is read.
        """
        reading = whole(batch_size, "batch_size", 1), whole(workers, "workers", 0)
        if together:
            self.space  # noqa: B018 - read once, for later calls too
        now = self.as_now()
        allowed = now.allowed(among, only, exclude)
        choice = now.choice(whole(top, "top", 1), allowed, unknown, rank)
        weigh = None if prior is None else weigher(prior, now.table)
        if together:
            now.together(np.zeros((0, len(now.table))), torch.zeros(0, now.space.channels), allowed)
            return predict_together(now, images_of(images), choice, *reading, weigh)
        return predict_each(now, images_of(images), choice, *reading, weigh)

    def scores(self, images: Any, *, batch_size: int = 32) -> np.ndarray:
        """Raw class scores, float64 ``(n, N)``, in the order of :attr:`classes`.

        Args:
            images: n images, as in :meth:`predict`.
            batch_size: images per batch.

        Raises:
            DataError: an image cannot be read.
        """
        return class_scores(self.as_now(), images_of(images), whole(batch_size, "batch_size", 1))

    def embed(
        self,
        images: Any,
        *,
        broken: Callable[[DataError], None] | None = None,
        batch_size: int = 32,
        workers: int = 2,
    ) -> Embeddings:
        """Compute pooled features, standardized features, and attribute scores.

        Args:
            images: in any form of :func:`unseen.recognizer.given.images_of`.
            broken: called with the error of every unreadable image, which is then skipped.
            batch_size: images per batch.
            workers: threads that read images.

        Raises:
            DataError: an image cannot be read and ``broken`` is not given.
        """
        reading = whole(batch_size, "batch_size", 1), whole(workers, "workers", 0)
        return embeddings(self, images_of(images), broken, *reading)

    @torch.inference_mode()
    def look(self, image: Any) -> Look:
        """Run the network on one image; the result can then be ranked and explained in milliseconds."""
        upright = upright_of(image)
        inputs = inputs_of(self, upright)
        branches, maps = self.method.answers_and_maps(inputs)
        answer = self.answer_of(branches)
        query = answer.query[0].cpu().double().numpy()
        pooled = self.pooled(inputs)[0].cpu().numpy() if self.takes_images else None
        return Look(self, upright, path_of(image), maps, answer.attribute_scores[0], query, pooled)

    def reading(
        self,
        attribute_scores: Sequence[float] | np.ndarray,
        query: Sequence[float] | np.ndarray | None = None,
        pooled: Sequence[float] | np.ndarray | None = None,
    ) -> Reading:
        """A :class:`Reading` from the numbers of an earlier look.

        Args:
            attribute_scores: ``(K,)``.
            query: ``(D,)``; by default the attribute scores, for methods that score attributes.
            pooled: ``(C,)`` pooled features, needed if classes have support images.

        Raises:
            UnseenError: the wrong number of values.
        """
        return reading_of(self, attribute_scores, query, pooled)

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
        """Explain why an image is predicted as a class, by attribute and region.

        Args:
            image: in any form of :func:`unseen.recognizer.given.from_one`.
            target: class to explain; by default the predicted class.
            rival: class to compare with; by default the best other class.
            among, only, exclude, unknown: as in :meth:`outcomes`.
            corrections: attribute to its true value, in the class table's unit.
            nearest: number of similar training images.
        """
        return (
            self.as_now()
            .look(image)
            .explanation(
                corrections,
                target=target,
                rival=rival,
                among=among,
                only=only,
                exclude=exclude,
                unknown=unknown,
                nearest=nearest,
            )
        )

    def correct(self, image: Any, corrections: Mapping[str, float], **options: Any) -> tuple[Prediction, Prediction]:
        """Predict an image without and with corrected attributes; see :meth:`Look.corrected`.

        Args:
            image: in any form of :func:`unseen.recognizer.given.from_one`.
            corrections: attribute to its true value, in the class table's unit.
            options: ``top``, ``among``, ``only``, ``exclude`` and ``unknown`` as in :meth:`outcomes`.
        """
        look = self.as_now().look(image)
        return look.prediction(**options), look.prediction(corrections, **options)

    @torch.inference_mode()
    def parts(self, image: Any) -> PartMaps:
        """Attention of each learned part in an image.

        Raises:
            UnseenError: the method learns no parts.
        """
        upright = upright_of(image)
        found = self.method.parts(inputs_of(self, upright))
        if not found:
            hint = "train mgmrn with --set grouping=parts"
            raise UnseenError("this model has no learned parts", where=self.method.name, hint=hint)
        maps = {name: shares[0].cpu().double().numpy() for name, shares in found.items()}
        return PartMaps(upright, maps, self.backbone.transform.crop_box(*upright.size))
