"""A model that scores classes: backbone, trained method, class table and support images, with their calibration."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.backbones.towers import TextTower
from unseen.classes.changes import values_of
from unseen.classes.spreadsheets.columns import Encoding
from unseen.classes.table import ClassTable
from unseen.errors import RunError, UnseenError
from unseen.ground.devices import find_device
from unseen.ground.words import counted
from unseen.methods import Branch, Method
from unseen.model.assembled import EndToEnd
from unseen.model.ranks import RankThreshold
from unseen.model.references import References
from unseen.model.scoring import BLOCK, ClassScorer
from unseen.model.support import OwnImages, Support, SupportSpace, pooled

if TYPE_CHECKING:
    from unseen.classes.table import Values

CHANGING = threading.RLock()
"""Held while the classes of a model change, so that no other thread changes or reads them in between."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Results of the network for B images; they stay valid when the class table changes.

    Args:
        query: ``(B, D)`` of :meth:`Method.query`, on the model's device.
        attribute_scores: float64 ``(B, K)`` fused attribute scores psi.
        pooled: float32 ``(B, C)`` pooled features (:meth:`ScoredModel.pooled`), needed if classes have support images.
    """

    query: Tensor
    attribute_scores: np.ndarray
    pooled: Tensor | None = None


class ScoredModel:
    """Backbone, trained method, class table and support images, with calibration and facts about the training.

    Args:
        backbone: the network; for an end-to-end method part of the method.
        method: trained method; its input is unprepared regions, or images if trained end to end.
        table: candidate classes; set :attr:`table` to change them.
        gamma: subtracted from the scores of seen classes.
        temperature: softmax temperature of the confidence; ``None`` if not fitted (then 1).
        threshold: confidence below which an image counts as unknown, chosen on validation data; ``None`` for none.
        rank_thresholds: thresholds of ranks above the class, also chosen on validation data; others follow
            ``threshold``.
        store_dtype: dtype that regions are rounded to, as in training.
        device: see :func:`unseen.ground.devices.find_device`.
        about: other facts (data, protocol), stored when saving.
        encoding: how the columns of a spreadsheet became attributes, for classes added later.
        references: how the model scores its training images, or the file of that, which is read on first use.
        typical: ``(K,)`` attribute scores of the average training image, if there are no references.
        space: space in which support images are compared, or the file of that, which is read on first use; ``None`` if
            training chose no rule for them.
        support: support images of classes, used beside their attributes.
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
        rank_thresholds: Mapping[str, RankThreshold] | None = None,
        store_dtype: str = "float16",
        device: str = "auto",
        about: Mapping[str, Any] | None = None,
        encoding: Encoding | None = None,
        references: References | Path | None = None,
        typical: np.ndarray | None = None,
        space: SupportSpace | Path | None = None,
        support: Support | None = None,
    ) -> None:
        self.device = find_device(device)
        self.backbone = backbone.to(self.device)
        self.method = method.eval().to(self.device)
        self._table = self._opened = table
        self._made: ClassScorer | None = None
        self._vectors: tuple[ClassScorer, np.ndarray] | None = None
        self.gamma = gamma
        self.temperature = temperature
        self.threshold = threshold
        self.rank_thresholds = dict(rank_thresholds or {})
        self.store_dtype = store_dtype
        self.about = dict(about or {})
        self.encoding = encoding
        self._references = references
        self._typical = typical
        self._space = space
        self.support = support or Support()
        self._own: tuple[ClassTable, Support, OwnImages] | None = None

    def __repr__(self) -> str:
        """One-line description."""
        seen = int(self._table.seen.sum())
        classes = f"{seen} seen and {counted(len(self._table) - seen, 'unseen class')}"
        parts = (
            self.method.name,
            self.backbone.spec.name,
            classes,
            f"{counted(len(self._table.attributes), 'attribute')}",
        )
        return f"<{type(self).__name__}: {', '.join(parts)}, on {self.device}>"

    def to(self, device: str) -> Self:
        """Move to another device, see :func:`unseen.ground.devices.find_device`; returns itself."""
        self.device = find_device(device)
        self.backbone.to(self.device)
        self.method.to(self.device)
        self._made = self._own = None
        if isinstance(self._space, SupportSpace):
            self._space.preparation.to(self.device)
        return self

    # the classes

    def as_now(self) -> Self:
        """The same model with its current classes, for work during which they may change."""
        with CHANGING:
            _ = self.references, self.scorer, self.own_images  # what is read on first use stays with the original
            return copy.copy(self)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in table order."""
        return self._table.names

    @property
    def table(self) -> ClassTable:
        """The candidate classes; see :meth:`add_class`, :meth:`edit_class`, :meth:`remove_class`."""
        return self._table

    @table.setter
    def table(self, table: ClassTable) -> None:
        if table.attributes.names != self._table.attributes.names:
            raise UnseenError("the table has other attributes", hint="keep the attribute columns of the training")
        self._table = table

    def add_class(
        self,
        name: str,
        attributes: Values | Mapping[str, object],
        *,
        trained: int | None = None,
        taxa: Mapping[str, str] | None = None,
    ) -> None:
        """Add a class from its attributes, without retraining.

        Args:
            name: name that is new to the table.
            attributes: K numbers in the table's unit, or a mapping or Series from attribute names (the others get the
                mean); for a model trained from a spreadsheet, also a mapping with words and columns of the spreadsheet,
                such as ``{"crown color": "red", "leg length": "12 mm"}``.
            trained: for a removed class that comes back, its position among the seen classes of the training; it then
                counts as seen. By default that of the class of this name that the model had at first
                (:meth:`ClassTable.back_from`), else -1.
            taxa: rank to taxon, such as ``{"family": "Ardeidae"}``; see :meth:`ClassTable.with_taxa`.
        """
        attributes = self._in_numbers(attributes)
        with CHANGING:
            trained = self._table.back_from(self._opened, name) if trained is None else trained
            self.table = self._table.with_class(name, attributes, seen=trained >= 0, trained=trained, taxa=taxa)

    def edit_class(self, name: str, attributes: Values | Mapping[str, object]) -> None:
        """Change attribute values of a class, without retraining.

        Args:
            name: name of the class.
            attributes: as in :meth:`add_class`; attributes that a mapping does not name stay.
        """
        with CHANGING:
            attributes = self._in_numbers(attributes, self._table.values[self._table.index(name)])
            self.table = self._table.with_values(name, attributes)
            self.support = self.support.described(self._table.names[self._table.index(name)])

    def _in_numbers(self, attributes: Any, start: np.ndarray | None = None) -> Values:
        """Values of a description that has cells of the spreadsheet; any other one unchanged."""
        given: Values = attributes
        if self.encoding is None or not isinstance(attributes, Mapping):
            return given
        words = any(isinstance(v, str) or k not in self._table.attributes.positions for k, v in attributes.items())
        return values_of(attributes, self._table, self.encoding, start=start) if words else given

    def edit_taxa(self, name: str, taxa: Mapping[str, str]) -> None:
        """Change the taxa of a class; see :meth:`ClassTable.with_taxa`."""
        with CHANGING:
            self.table = self._table.with_taxa(name, taxa)

    def remove_class(self, name: str) -> None:
        """Remove a class."""
        with CHANGING:
            name = self._table.names[self._table.index(name)]
            self.table, self.support = self._table.without(name), self.support.without(name)

    def rename_class(self, old: str, new: str) -> None:
        """Rename a class."""
        with CHANGING:
            old = self._table.names[self._table.index(old)]
            self.table, self.support = self._table.renamed(old, new), self.support.renamed(old, new)

    # the training images

    @property
    def references(self) -> References | None:
        """How the model scores its training images; ``None`` if this was not stored. Read on first use."""
        if isinstance(self._references, Path):
            found = References.load(self._references)
            if found.attribute_scores.shape[1] != len(self._table.attributes):
                raise RunError("its attributes differ from the model's", where=self._references, hint="train again")
            self._references = found
        return self._references

    @references.setter
    def references(self, references: References | None) -> None:
        self._references = references

    @property
    def named_now(self) -> dict[str, str]:
        """Class of the training to its name in the table, for classes with training images that are still there."""
        if self.references is None:
            return {}
        trained = self.references.class_names[np.unique(self.references.labels)]
        places, names = self._table.images_of, self._table.names
        found = {str(trained[t]): names[c] for c, t in enumerate(places) if 0 <= t < len(trained)}
        # positions do not agree if a class of the training has no images
        return {} if any(now in trained and now != then for then, now in found.items()) else found

    @property
    def typical(self) -> np.ndarray:
        """``(K,)`` attribute scores of the average training image, relative to which evidence counts; 0 if unknown."""
        if self.references is not None:
            return self.references.mean
        return np.zeros(len(self._table.attributes)) if self._typical is None else self._typical

    @property
    def images(self) -> Path | None:
        """Folder of the training images; ``None`` if unknown or gone."""
        folder = self.about.get("data", {}).get("images")
        return Path(folder) if folder and Path(folder).is_dir() else None

    # support images

    @property
    def space(self) -> SupportSpace:
        """Space in which support images are compared; read on first use.

        Raises:
            UnseenError: training chose no rule for support images.
        """
        if isinstance(self._space, Path):
            self._space = SupportSpace.load(self._space)
            self._space.preparation.to(self.device)
        if self._space is None:
            problem, hint = (
                "this model has no rule for support images",
                "train it again; the honest protocol chooses one",
            )
            if self.method.end_to_end:
                problem += ": its backbone is trained, and validation needs features that training does not change"
                hint = "train a model with a frozen backbone, such as --method eszsl or msdnpp"
            raise UnseenError(problem, where=self.method.name, hint=hint)
        return self._space

    @property
    def takes_images(self) -> bool:
        """Whether classes can have support images, see :attr:`space`."""
        return self._space is not None

    @property
    def own_images(self) -> OwnImages | None:
        """Effect of support images on class scores; ``None`` if no class has any."""
        if not self.support:
            return None
        kept = self._own
        if kept is None or kept[0] is not self._table or kept[1] is not self.support:
            known = {} if kept is None else kept[2].means
            own = OwnImages(self._table.names, self.support, self.space, BLOCK, known)
            kept = self._own = self._table, self.support, own
        return kept[2] if len(kept[2].positions) else None

    @property
    def attribute_shares(self) -> np.ndarray:
        """Float64 ``(N,)`` weight of attributes and gamma in each class score; 1 without support images."""
        own = self.own_images
        return np.ones(len(self._table)) if own is None else own.keep

    # the network

    @cached_property
    def text_tower(self) -> TextTower:
        """Text tower of a method that reads text."""
        assert self.backbone.spec.tower is not None
        return TextTower(self.backbone.spec.tower)

    @torch.inference_mode()
    def inputs(self, cropped: Tensor) -> Tensor:
        """Inputs of the method: raw regions ``(B, R, C)``, rounded as in the region store, or images.

        Args:
            cropped: images cropped to the network's input size, as bytes ``(B, 3, h, w)``.
        """
        cropped = cropped.to(self.device)
        if self.method.end_to_end:
            return self.backbone.transform.normalized(cropped)
        return self.backbone.regions(cropped)[0].to(getattr(torch, self.store_dtype)).float()

    @torch.inference_mode()
    def answer(self, inputs: Tensor) -> Answer:
        """Run the method on images, given as :meth:`inputs`."""
        branches = self.method(self.method.prepare(inputs))
        return self.answer_of(branches, self.pooled(inputs) if self.support else None)

    @torch.inference_mode()
    def answer_of(self, branches: dict[str, Branch], pooled: Tensor | None = None) -> Answer:
        """The answer from the method's branches, with :meth:`pooled` features."""
        psi = self.method.fused_attribute_scores(branches).cpu().double().numpy()
        return Answer(self.method.query(branches), psi, pooled)

    @torch.inference_mode()
    def pooled(self, inputs: Tensor) -> Tensor:
        """Float32 ``(B, C)`` mean of the raw regions of images, given as :meth:`inputs`, scaled to unit length."""
        return pooled(self.method.regions(inputs) if isinstance(self.method, EndToEnd) else inputs)

    # scores

    @property
    def scorer(self) -> ClassScorer:
        """Scorer for the current table; a change of the table recomputes only the affected blocks of classes."""
        made = self._made
        if made is None or made.table is not self._table:
            tower = self.text_tower if self.method.reads_text else None
            made = self._made = ClassScorer.of_table(self.method, self._table, self.device, tower, made)
        return made

    @property
    def class_vectors(self) -> np.ndarray:
        """Float64 ``(N, K)`` class vectors as used by the method's scores; all 0 if it has none."""
        scorer, kept = self.scorer, self._vectors
        if kept is None or kept[0] is not scorer:
            kept = self._vectors = scorer, scorer.vectors(range(len(scorer.seen)))
        return kept[1]

    def class_scores(self, query: Tensor | np.ndarray, pooled: Tensor | np.ndarray | None = None) -> np.ndarray:
        """Float64 ``(B, N)`` raw class scores of B images.

        Args:
            query: ``(B, D)`` of :meth:`Method.query`.
            pooled: ``(B, C)`` of :meth:`pooled`; needed if classes have support images.

        Raises:
            UnseenError: classes have support images, but pooled features are missing.
        """
        scores = self.scorer.scores(torch.as_tensor(query).to(self.device, torch.float32))
        own = self.own_images
        return scores if own is None else own.mixed(scores, self._support_vectors(pooled))

    def _support_vectors(self, pooled: Tensor | np.ndarray | None) -> Tensor:
        """``(B, C)`` images in the space of support images."""
        if pooled is None:
            problem = "classes have images, and there are no pooled features of this image to compare with them"
            raise UnseenError(problem, hint="look at the image again")
        return self.space.vectors(torch.as_tensor(pooled).to(self.device, torch.float32))

    def image_evidence(self, pooled: Tensor | np.ndarray | None) -> np.ndarray:
        """Float64 ``(B, N)`` contribution of support images to each class score; 0 without."""
        own = self.own_images
        if own is None:
            return np.zeros((1 if pooled is None else len(pooled), len(self._table)))
        vectors = self._support_vectors(pooled)
        found = np.zeros((len(vectors), len(self._table)))
        found[:, own.positions] = own.evidence(vectors)
        return found
