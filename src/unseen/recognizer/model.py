"""A trained model in use: pictures in, classes and reasons out, with classes that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.backbones import Backbone, open_picture, upright_rgb
from unseen.classes import ClassTable
from unseen.data.columns import Encoding
from unseen.errors import DataError, UnseenError
from unseen.methods import ClassSpace, Method
from unseen.recognizer.answers import Candidate, Explanation, PartMaps, Prediction, Reason
from unseen.recognizer.card import CardFields
from unseen.recognizer.saving import Parts, fetch, find_parts, push, read_saved, save
from unseen.semantics import name_things
from unseen.towers import PREFIX, TEXTS, TextTower
from unseen.training.engine import make_fabric

Picture = Path | str | Image.Image
AMONG = ("all", "seen", "unseen")


def _rest(score: float, evidence: np.ndarray) -> float:
    """What a class score holds beside its evidence; 0 where that is float32's rounding alone."""
    rest = float(score - evidence.sum())
    return 0.0 if abs(rest) < 1e-5 * max(1.0, float(np.abs(evidence).sum())) else rest


class Recognizer:
    """Backbone, trained method and class table.

    Args:
        backbone: the network; that of an end-to-end method is part of the method.
        method: trained, with unprepared regions as its raw input, or pictures where it is trained end to end.
        table: the classes to choose from.
        gamma: taken off the scores of seen classes.
        temperature: of the confidence's softmax; ``None`` where it was not fitted (then 1).
        store_dtype: regions are rounded to it, as in training.
        device: see :func:`unseen.training.engine.make_fabric`.
        about: whatever else is known (data, protocol), kept when saving.
        threshold: confidence below which the answer is "unknown"; ``None`` for never.
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
        store_dtype: str = "float16",
        device: str = "auto",
        about: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        self.device = make_fabric(device).device
        self.backbone = backbone.to(self.device)
        self.method = method.eval().to(self.device)
        self._table = table
        self.gamma = gamma
        self.temperature = temperature
        self.store_dtype = store_dtype
        self.about = dict(about or {})
        self.threshold = threshold
        self.encoding = encoding
        self.references_file: Path | None = None

    @classmethod
    def load(cls, folder: Path | str, *, seed: int | None = None, device: str = "auto") -> Self:
        """From a run folder, a folder that :meth:`save` wrote, or the hub.

        Args:
            folder: either folder; or ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``, see :meth:`from_pretrained`.
            seed: of a run: which seed's model, default the first.
            device: where to compute.

        Raises:
            RunError: it is neither, unfinished, damaged, or of a newer version.
            UnseenError: the backbone's weights are gone or have changed.
        """
        if str(folder).startswith(PREFIX):
            name, _, revision = str(folder).removeprefix(PREFIX).partition("@")
            return cls.from_pretrained(name, revision=revision or None, device=device)
        return cls._of(find_parts(Path(folder), seed), device)

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
    def _of(cls, parts: Parts, device: str) -> Self:
        backbone, method, table = parts.build()
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
            include_references: store attribute scores, labels and file names of the training pictures along.
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
        """The classes to choose from; see :meth:`add_class`, :meth:`remove_class`, :meth:`rename_class`."""
        return self._table

    @table.setter
    def table(self, table: ClassTable) -> None:
        if table.attributes.names != self._table.attributes.names:
            raise UnseenError("a table of other attributes", mend="keep the attribute columns that it was trained with")
        self._table = table
        self.__dict__.pop("_classes", None)

    @cached_property
    def _classes(self) -> ClassSpace:
        vectors = torch.from_numpy(self._table.values.copy())
        seen = torch.from_numpy(self._table.seen.copy())
        words = None
        if self.method.reads_text:
            words = name_things(self._table.names, self._table.attributes, self._text_tower)
        return ClassSpace(vectors, seen, words).to(self.device, torch.float32)

    @cached_property
    def _text_tower(self) -> TextTower:
        assert self.backbone.spec.tower is not None
        return TextTower(self.backbone.spec.tower)

    def add_class(self, name: str, values: Sequence[float] | Mapping[str, float]) -> None:
        """A new unseen class from its attributes, without retraining.

        Args:
            name: new to the table.
            values: K numbers in the table's unit, or a mapping from attribute names, the others 0.
        """
        self.table = self._table.with_class(name, values)

    def remove_class(self, name: str) -> None:
        """Choose among the other classes from now on."""
        self.table = self._table.without(name)

    def rename_class(self, old: str, new: str) -> None:
        """Call a class something else."""
        self.table = self._table.renamed(old, new)

    @torch.inference_mode()
    def _inputs(self, images: Sequence[Image.Image]) -> Tensor:
        """What the method reads: raw regions ``(B, R, C)``, rounded as the region store does, or the pictures."""
        pixels = torch.stack([self.backbone.transform(image) for image in images]).to(self.device)
        if self.method.end_to_end:
            return pixels
        return self.backbone(pixels)[0].to(getattr(torch, self.store_dtype)).float()

    def _allowed(self, among: str) -> np.ndarray:
        if among not in AMONG:
            raise UnseenError(f'cannot choose among "{among}"', mend=f"one of {', '.join(AMONG)}")
        seen = self._table.seen
        allowed = np.flatnonzero({"all": seen | ~seen, "seen": seen, "unseen": ~seen}[among])
        if not len(allowed):
            raise UnseenError(f"there is no {among} class to choose from", mend="choose among all")
        return allowed

    def predict(
        self,
        pictures: Iterable[Picture] | Picture,
        *,
        top: int = 5,
        among: str = "all",
        batch_size: int = 32,
        broken: Callable[[DataError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Name what pictures show, in their order, a batch at a time.

        Args:
            pictures: files or PIL pictures, or one of them.
            top: candidates a picture.
            among: ``all``, ``seen`` or ``unseen`` classes.
            batch_size: pictures at once; memory is O(batch).
            broken: told of every picture that cannot be read, which is then left out.

        Raises:
            DataError: a picture cannot be read, and there is no ``broken``; those of earlier batches have been given.
        """
        allowed = self._allowed(among)
        stream = iter([pictures] if isinstance(pictures, str | Path | Image.Image) else pictures)
        while batch := list(islice(stream, batch_size)):
            yield from self._predict(batch, top, allowed, broken)

    @torch.inference_mode()
    def _predict(
        self, batch: list[Picture], top: int, allowed: np.ndarray, broken: Callable[[DataError], None] | None
    ) -> list[Prediction]:
        images, readable = [], []
        for picture in batch:
            try:
                images.append(upright_rgb(picture) if isinstance(picture, Image.Image) else open_picture(picture))
                readable.append(picture)
            except DataError as error:
                if broken is None:
                    raise
                broken(error)
        if not images:
            return []
        branches = self.method(self.method.prepare(self._inputs(images)))
        scores = self.method.class_scores(branches, self._classes).cpu().double().numpy()
        psi = self.method.fused_attribute_scores(branches).cpu().double().numpy()
        vectors = self.method.class_vectors(self._classes).cpu().double().numpy()
        return [
            self._prediction(picture, self._rank(scores[i], allowed)[:top], psi[i], vectors)
            for i, picture in enumerate(readable)
        ]

    def _prediction(
        self, picture: Picture, candidates: Sequence[Candidate], psi: np.ndarray, vectors: np.ndarray
    ) -> Prediction:
        """Candidates with the five attributes that speak most for the first."""
        evidence = psi * vectors[self._table.index(candidates[0].name)]
        strongest = np.argsort(-evidence, kind="stable")[:5]
        names = self._table.attributes.names
        return Prediction(
            "" if isinstance(picture, Image.Image) else str(picture),
            tuple(candidates),
            tuple((names[k], float(evidence[k])) for k in strongest if evidence[k] > 0),
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
    def explain(
        self, picture: Picture, *, target: str | None = None, rival: str | None = None, among: str = "all"
    ) -> Explanation:
        """Why a picture is taken for a class, attribute by attribute and region by region.

        Args:
            picture: file or PIL picture.
            target: the class to explain; default the best one.
            rival: the class to compare with; default the best one other than the target.
            among: classes to choose among.
        """
        image = upright_rgb(picture) if isinstance(picture, Image.Image) else open_picture(picture)
        allowed = self._allowed(among)
        branches = self.method.maps(self._inputs([image]))
        scores = self.method.class_scores(branches, self._classes)[0].cpu().double().numpy()
        psi = self.method.fused_attribute_scores(branches)[0].cpu().double().numpy()
        vectors = self.method.class_vectors(self._classes).cpu().double().numpy()
        ranked = {c.name: c for c in self._rank(scores, allowed)}
        wanted = self._one(ranked, target, ())
        other = self._one(ranked, rival, (wanted.name,))
        if other.name == wanted.name:
            raise UnseenError(f'"{wanted.name}" cannot be its own rival', mend="compare it with another class")
        c, j = self._table.index(wanted.name), self._table.index(other.name)
        evidence, against = psi * vectors[c], psi * (vectors[c] - vectors[j])
        attributes = self._table.attributes
        order = np.argsort(-evidence, kind="stable")
        reasons = tuple(
            Reason(
                attributes.names[k],
                attributes.groups[k],
                attributes.parts[k],
                float(psi[k]),
                float(evidence[k]),
                float(against[k]),
                float(vectors[c, k]),
                float(vectors[j, k]),
            )
            for k in order
        )
        offset = _rest(scores[c], evidence)
        grid = self.backbone.grids[-1]

        def to_grid(values: Tensor) -> np.ndarray:
            return values.cpu().double().numpy().reshape(-1, *grid)

        prediction = self._prediction(picture, list(ranked.values())[:5], psi, vectors)
        return Explanation(
            image,
            prediction,
            wanted,
            other,
            reasons,
            offset,
            offset - _rest(scores[j], psi * vectors[j]) - self.gamma * (int(wanted.seen) - int(other.seen)),
            {name: to_grid(b.attention[0]) for name, b in branches.items() if b.attention is not None},
            tuple(self.method.counted(branches)),
            to_grid(self.method.fused_contributions(branches)[0]),
            self.backbone.transform.crop_box(*image.size),
            {name: k for k, name in enumerate(attributes.names)},
            self.method.offset_name,
        )

    @torch.inference_mode()
    def parts(self, picture: Picture) -> PartMaps:
        """What each learned part attends to in a picture.

        Raises:
            UnseenError: the method learns no parts.
        """
        image = upright_rgb(picture) if isinstance(picture, Image.Image) else open_picture(picture)
        found = self.method.parts(self._inputs([image]))
        if not found:
            mend = "train mgmrn with --set grouping=parts"
            raise UnseenError("this model learned no parts", where=self.method.name, mend=mend)
        maps = {name: shares[0].cpu().double().numpy() for name, shares in found.items()}
        return PartMaps(image, maps, self.backbone.transform.crop_box(*image.size))

    def _one(self, ranked: Mapping[str, Candidate], name: str | None, without: tuple[str, ...]) -> Candidate:
        if name is not None:
            self._table.index(name)  # an unknown name is told apart from one not chosen among
            if name not in ranked:
                raise UnseenError(f'"{name}" is not among the classes asked for', mend="choose among all")
            return ranked[name]
        return next((c for c in ranked.values() if c.name not in without), next(iter(ranked.values())))
