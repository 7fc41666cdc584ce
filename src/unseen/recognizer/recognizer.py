"""A trained model in use: images in, classes and reasons out, with classes that come and go."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.backbones.towers import PREFIX, TEXTS, TextTower
from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.table import ClassTable
from unseen.errors import DataError, RunError, UnseenError
from unseen.features.reading import ImageInput, read_batches
from unseen.ground.devices import find_device
from unseen.ground.images import open_image, upright_rgb
from unseen.methods import Method
from unseen.model.references import References
from unseen.model.scoring import ClassScorer
from unseen.recognizer.answers import Candidate, Explanation, PartMaps, Prediction
from unseen.recognizer.card import CardFields
from unseen.recognizer.look import Look, Reading
from unseen.recognizer.saving import Parts, fetch, find_parts, push, read_saved, save

AMONG = ("all", "seen", "unseen")


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


class Recognizer:
    """Backbone, trained method and class table.

    Args:
        backbone: the network; that of an end-to-end method is part of the method.
        method: trained, with unprepared regions as its raw input, or images where it is trained end to end.
        table: the classes to choose from.
        gamma: taken off the scores of seen classes.
        temperature: of the confidence's softmax; ``None`` where it was not fitted (then 1).
        threshold: confidence below which an image counts as unknown, chosen on validation data; ``None`` without.
        store_dtype: regions are rounded to it, as in training.
        device: see :func:`unseen.ground.devices.find_device`.
        about: whatever else is known (data, protocol), kept when saving.
        encoding: how a spreadsheet's columns became attributes, for classes to come.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        table: ClassTable,
        *,
        gamma: float = 0.0,
        temperature: float | None = None,
        threshold: float | None = None,
        store_dtype: str = "float16",
        device: str = "auto",
        about: Mapping[str, Any] | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        self.device = find_device(device)
        self.backbone = backbone.to(self.device)
        self.method = method.eval().to(self.device)
        self._table = table
        self._made: ClassScorer | None = None
        self.gamma = gamma
        self.temperature = temperature
        self.threshold = threshold
        self.store_dtype = store_dtype
        self.about = dict(about or {})
        self.encoding = encoding
        self.references_file: Path | None = None
        self._references: References | None = None
        self._typical: np.ndarray | None = None

    @classmethod
    def load(
        cls, folder: Path | str, *, seed: int | None = None, device: str = "auto", as_trained: bool = False
    ) -> Self:
        """From a run folder, a folder that :meth:`save` wrote, or the hub.

        Args:
            folder: either folder; or ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``, see :meth:`from_pretrained`.
            seed: of a run: which seed's model, default the first.
            device: where to compute.
            as_trained: with the classes of the training, not as ``unseen classes`` has changed them.

        Raises:
            RunError: it is neither, unfinished, damaged, or of a newer version.
            UnseenError: the backbone's weights are gone or have changed.
        """
        if str(folder).startswith(PREFIX):
            name, _, revision = str(folder).removeprefix(PREFIX).partition("@")
            return cls.from_pretrained(name, revision=revision or None, device=device)
        try:
            return cls._of(find_parts(Path(folder), seed), device, as_trained)
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
    ) -> Self:
        """From a saved folder, or from the Hugging Face hub; only the files that :meth:`save` writes are fetched.

        Args:
            folder_or_id: a folder that :meth:`save` wrote, or the hub's ``OWNER/NAME``.
            revision: branch, tag or commit of the hub's.
            token: for private repositories; default that of ``hf auth login``.
            cache_dir: where fetched files are kept; default the hub's own cache.
            local_files_only: use what was fetched before, without a network.
            device: where to compute.

        Raises:
            RunError: no such model, no network, or not one of ours.
        """
        folder = fetch(folder_or_id, revision, token, cache_dir, local_files_only)
        return cls._of(read_saved(folder), device)

    @classmethod
    def _of(cls, parts: Parts, device: str, as_trained: bool = False) -> Self:
        backbone, method, table = parts.build(as_trained)
        made = cls(
            backbone,
            method,
            table,
            gamma=parts.gamma,
            temperature=parts.temperature,
            threshold=parts.threshold,
            store_dtype=parts.store_dtype,
            device=device,
            about=parts.about,
            encoding=parts.encoding,
        )
        made.references_file = parts.references
        made._typical = parts.typical
        if method.reads_text:
            made._text_tower.load(parts.folder / TEXTS)
        return made

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
        message: str = "Model of unseen",
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

    @property
    def table(self) -> ClassTable:
        """The classes to choose from; see :meth:`add_class`, :meth:`edit_class`, :meth:`remove_class`."""
        return self._table

    @table.setter
    def table(self, table: ClassTable) -> None:
        if table.attributes.names != self._table.attributes.names:
            raise UnseenError("a table of other attributes", hint="keep the attribute columns that it was trained with")
        self._table = table
        self.__dict__.pop("class_vectors", None)

    @property
    def _scorer(self) -> ClassScorer:
        """For the table as it is; blocks of classes that a change of the table left alone are not made again."""
        if self._made is None or self._made.table is not self._table:
            tower = self._text_tower if self.method.reads_text else None
            self._made = ClassScorer.of_table(self.method, self._table, self.device, tower, self._made)
        return self._made

    @cached_property
    def _text_tower(self) -> TextTower:
        assert self.backbone.spec.tower is not None
        return TextTower(self.backbone.spec.tower)

    @property
    def references(self) -> References | None:
        """How the model scores its training images; ``None`` where that was not kept. Read when first asked for."""
        if self._references is None and self.references_file is not None:
            self._references = References.load(self.references_file)
            if self._references.attribute_scores.shape[1] != len(self._table.attributes):
                raise RunError("it has other attributes than the model", where=self.references_file, hint="train again")
        return self._references

    @references.setter
    def references(self, references: References | None) -> None:
        self._references, self.references_file = references, None

    @property
    def typical(self) -> np.ndarray:
        """``(K,)`` attribute scores of the average training image, from which evidence counts; 0 if not known."""
        if self.references is not None:
            return self.references.mean
        return np.zeros(len(self._table.attributes)) if self._typical is None else self._typical

    @property
    def images(self) -> Path | None:
        """The folder of the training images; ``None`` where it is not known or no longer there."""
        folder = self.about.get("data", {}).get("images")
        return Path(folder) if folder and Path(folder).is_dir() else None

    @cached_property
    def class_vectors(self) -> np.ndarray:
        """Float64 ``(N, K)``: the classes in the form that the method scores with; all 0 where it does not."""
        return self._scorer.vectors(range(len(self._table)))

    def class_scores(self, query: np.ndarray) -> np.ndarray:
        """Float64 ``(B, N)`` raw class scores of what :meth:`Method.query` gave for B images, ``(B, D)``."""
        return self._scorer.scores(torch.from_numpy(query).to(self.device, torch.float32))

    def add_class(
        self, name: str, values: Sequence[float] | np.ndarray | Mapping[str, float], *, seen: bool = False
    ) -> None:
        """A new class from its attributes, without retraining.

        Args:
            name: new to the table.
            values: K numbers in the table's unit, or a mapping from attribute names, the others 0.
            seen: whether the model was trained on images of it (a class that was removed comes back).
        """
        self.table = self._table.with_class(name, values, seen=seen)

    def edit_class(self, name: str, values: Sequence[float] | np.ndarray | Mapping[str, float]) -> None:
        """Other attribute values for a class, without retraining.

        Args:
            name: the class.
            values: K numbers in the table's unit, or a mapping from attribute names, the others as they are.
        """
        self.table = self._table.with_values(name, values)

    def remove_class(self, name: str) -> None:
        """Choose among the other classes from now on."""
        self.table = self._table.without(name)

    def rename_class(self, old: str, new: str) -> None:
        """Call a class something else."""
        self.table = self._table.renamed(old, new)

    @torch.inference_mode()
    def _inputs(self, images: Sequence[Image.Image]) -> Tensor:
        """What the method reads: raw regions ``(B, R, C)``, rounded as the region store does, or the images."""
        return self._network_inputs(torch.stack([self.backbone.transform.cropped(image) for image in images]))

    @torch.inference_mode()
    def _network_inputs(self, cropped: Tensor) -> Tensor:
        """The same from images cropped to the network's size, as bytes ``(B, 3, h, w)``."""
        cropped = cropped.to(self.device)
        if self.method.end_to_end:
            return self.backbone.transform.normalized(cropped)
        return self.backbone.regions(cropped)[0].to(getattr(torch, self.store_dtype)).float()

    def _allowed(
        self, among: str, only: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> np.ndarray:
        """Rising positions of the classes in question."""
        if among not in AMONG:
            raise UnseenError(f'cannot choose among "{among}"', hint=f"one of {', '.join(AMONG)}")
        seen = self._table.seen
        chosen = {"all": seen | ~seen, "seen": seen, "unseen": ~seen}[among]
        if not chosen.any():
            raise UnseenError(f"there is no {among} class to choose from", hint="choose among all")
        if only is not None:
            chosen = chosen & self._named(only)
        if exclude is not None:
            chosen = chosen & ~self._named(exclude)
        if not chosen.any():
            raise UnseenError("no class is left to choose from", hint="name more classes, or exclude fewer")
        return np.flatnonzero(chosen)

    def choices(
        self, among: str = "all", only: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> list[str]:
        """The classes that these options leave to choose from; see :meth:`outcomes`."""
        return [self._table.names[i] for i in self._allowed(among, only, exclude)]

    def _named(self, names: Iterable[str]) -> np.ndarray:
        """Bool ``(N,)``; raises on a name that is no class's."""
        found = np.zeros(len(self._table), dtype=bool)
        found[[self._table.index(name) for name in ([names] if isinstance(names, str) else names)]] = True
        return found

    def _threshold(self, unknown: float | str) -> float:
        if unknown == "off" or (unknown == "auto" and self.threshold is None):
            return 0.0
        threshold = self.threshold if unknown == "auto" else unknown
        if isinstance(threshold, str) or threshold is None or not 0 <= threshold <= 1:
            raise UnseenError(f'"{unknown}" is no threshold', hint="auto, off, or a confidence from 0 to 1")
        return threshold

    def predict(
        self,
        images: Iterable[ImageInput] | ImageInput,
        *,
        broken: Callable[[DataError], None] | None = None,
        **options: Any,
    ) -> Generator[Prediction]:
        """Name what images show, in their order, a batch at a time.

        Args:
            images: files or PIL images, or one of them.
            broken: told of every image that cannot be read, which is then left out.
            options: as in :meth:`outcomes`.

        Raises:
            DataError: an image cannot be read, and there is no ``broken``; those before it have been given.
        """
        return _readable(self.outcomes(images, **options), broken)

    def outcomes(
        self,
        images: Iterable[ImageInput] | ImageInput,
        *,
        top: int = 5,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: float | str = "auto",
        batch_size: int = 32,
        workers: int = 2,
    ) -> Generator[Prediction | DataError]:
        """What :meth:`predict` gives, with the error in the place of an image that cannot be read.

        Images are read ahead of the network, two batches at most, which is also what is held in memory.

        Args:
            images: files or PIL images, or one of them.
            top: candidates an image.
            among: ``all``, ``seen`` or ``unseen`` classes.
            only, exclude: names of the classes to choose from, and not to choose from; confidence is over those left.
            unknown: confidence below which an image counts as unknown: ``auto`` (:attr:`threshold`, where there is
                one), ``off`` or a number.
            batch_size: images at once.
            workers: threads that read images; 0 reads them here, when their batch is due.

        Raises:
            UnseenError: a name that is no class's, no class left, or no such threshold; before any image is read.
        """
        allowed, threshold = self._allowed(among, only, exclude), self._threshold(unknown)
        stream = iter([images] if isinstance(images, str | Path | Image.Image) else images)
        return self._outcomes(stream, max(1, top), allowed, threshold, batch_size, workers)

    def _outcomes(
        self,
        stream: Iterator[ImageInput],
        top: int,
        allowed: np.ndarray,
        threshold: float,
        batch_size: int,
        workers: int,
    ) -> Generator[Prediction | DataError]:
        batches = iter(lambda: list(islice(stream, batch_size)), [])
        with closing(read_batches(batches, self.backbone.transform, workers)) as read:
            for images, pixels in read:
                readable = [i for i, found in enumerate(pixels) if isinstance(found, Tensor)]
                named: dict[int, Prediction] = {}
                if readable:
                    inputs = self._network_inputs(torch.stack([found for found in pixels if isinstance(found, Tensor)]))
                    mine = [images[i] for i in readable]
                    named = dict(zip(readable, self._predict(mine, inputs, top, allowed, threshold), strict=True))
                for i, found in enumerate(pixels):
                    yield found if isinstance(found, DataError) else named[i]

    @torch.inference_mode()
    def _predict(
        self, images: Sequence[ImageInput], inputs: Tensor, top: int, allowed: np.ndarray, threshold: float
    ) -> list[Prediction]:
        branches = self.method(self.method.prepare(inputs))
        best = self._scorer.best(
            self.method.query(branches), top, allowed, gamma=self.gamma, temperature=self.temperature or 1.0
        )
        psi = self.method.fused_attribute_scores(branches).cpu().double().numpy()
        names, seen = self._table.names, self._table.seen
        excess = psi - self.typical
        evidence = np.where(excess > 0, excess * self._scorer.vectors(best.index[:, 0]), 0)
        return [
            self._prediction(
                image,
                [
                    Candidate(names[c], bool(seen[c]), float(confidence), float(score))
                    for c, confidence, score in zip(best.index[i], best.confidence[i], best.score[i], strict=True)
                ],
                evidence[i],
                threshold,
            )
            for i, image in enumerate(images)
        ]

    def _prediction(
        self, image: ImageInput, candidates: Sequence[Candidate], evidence: np.ndarray, threshold: float
    ) -> Prediction:
        """Candidates with the five attributes of most evidence ``(K,)`` for the first; 0 for those not seen."""
        strongest = np.argsort(-evidence, kind="stable")[:5]
        names = self._table.attributes.names
        return Prediction(
            "" if isinstance(image, Image.Image) else str(image),
            tuple(candidates),
            tuple((names[k], float(evidence[k])) for k in strongest if evidence[k] > 0),
            candidates[0].confidence >= threshold,
        )

    def _rank(self, scores: np.ndarray, allowed: np.ndarray) -> list[Candidate]:
        seen = self._table.seen
        shifted = (scores - self.gamma * seen)[allowed] / (self.temperature or 1.0)
        confidence = np.exp(shifted - shifted.max())
        confidence /= confidence.sum()
        order = np.argsort(-shifted, kind="stable")
        names = self._table.names
        return [
            Candidate(names[allowed[j]], bool(seen[allowed[j]]), float(confidence[j]), float(scores[allowed[j]]))
            for j in order
        ]

    @torch.inference_mode()
    def look(self, image: ImageInput) -> Look:
        """Ask the network about one image; what it made of it can then be ranked and explained in milliseconds."""
        own = isinstance(image, Image.Image)
        upright = upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)
        branches, maps = self.method.answers_and_maps(self._inputs([upright]))
        psi = self.method.fused_attribute_scores(branches)[0].cpu().double().numpy()
        query = self.method.query(branches)[0].cpu().double().numpy()
        return Look(self, upright, "" if own else str(image), maps, psi, query)

    def reading(
        self, attribute_scores: Sequence[float] | np.ndarray, query: Sequence[float] | np.ndarray | None = None
    ) -> Reading:
        """A :class:`Reading` from the numbers of an earlier look.

        Args:
            attribute_scores: ``(K,)``.
            query: ``(D,)``; default the attribute scores, which it is where the method scores attributes.

        Raises:
            UnseenError: too few numbers or too many.
        """
        psi = np.asarray(attribute_scores, np.float64)
        asked = psi if query is None else np.asarray(query, np.float64)
        for name, found, count in (
            ("attribute scores", psi, len(self._table.attributes)),
            ("query numbers", asked, self._scorer.width),
        ):
            if found.shape != (count,):
                raise UnseenError(f"{found.size} {name}", hint=f"give {count}, as a look of this model has them")
        return Reading(self, psi, asked)

    def explain(
        self,
        image: ImageInput,
        *,
        target: str | None = None,
        rival: str | None = None,
        among: str = "all",
        only: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        corrections: Mapping[str, float] | None = None,
        nearest: int = 6,
    ) -> Explanation:
        """Why an image is taken for a class, attribute by attribute and region by region.

        Args:
            image: file or PIL image.
            target: the class to explain; default the best one.
            rival: the class to compare with; default the best one other than the target.
            among, only, exclude: classes to choose among, as in :meth:`outcomes`.
            corrections: attributes that the model has wrong, with what they are in truth, in the class table's unit.
            nearest: how many training images with similar attribute scores.
        """
        return self.look(image).explanation(
            corrections, target=target, rival=rival, among=among, only=only, exclude=exclude, nearest=nearest
        )

    def correct(
        self, image: ImageInput, corrections: Mapping[str, float], *, top: int = 5, among: str = "all"
    ) -> tuple[Prediction, Prediction]:
        """What an image shows by the model alone, and with attributes corrected by hand; see :meth:`Look.corrected`.

        Args:
            image: file or PIL image.
            corrections: attribute to what it is in truth, in the class table's unit.
            top: candidates.
            among: classes to choose among.
        """
        look = self.look(image)
        return look.prediction(top=top, among=among), look.prediction(corrections, top=top, among=among)

    @torch.inference_mode()
    def parts(self, image: ImageInput) -> PartMaps:
        """What each learned part attends to in an image.

        Raises:
            UnseenError: the method learns no parts.
        """
        upright = upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)
        found = self.method.parts(self._inputs([upright]))
        if not found:
            hint = "train mgmrn with --set grouping=parts"
            raise UnseenError("this model learned no parts", where=self.method.name, hint=hint)
        maps = {name: shares[0].cpu().double().numpy() for name, shares in found.items()}
        return PartMaps(upright, maps, self.backbone.transform.crop_box(*upright.size))
