"""Parts of a trained model, wherever they were found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from unseen.backbones.backbone import Backbone
from unseen.backbones.reduction import Reduction
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.towers import TEXTS
from unseen.classes.changes import check_tables, table_in_use, trained_table
from unseen.classes.spreadsheets.columns import Encoding
from unseen.errors import RunError, UnseenError
from unseen.ground.checked import checked
from unseen.methods import Settings, find_method
from unseen.model.assembled import build_method
from unseen.model.ranks import RankThreshold
from unseen.model.support import read_support
from unseen.model.trained import TrainedModel
from unseen.model.weights import load_weights
from unseen.recognizer.names import AGAIN, FACTS

M = TypeVar("M", bound=TrainedModel)


@dataclass(frozen=True)
class Parts:
    """Parts of a recognizer.

    Args:
        folder: folder with class table and texts.
        spec: spec of the backbone.
        weights: file of the method's weights.
        references: attribute scores of the training images, if available.
        method, settings, vector_length: method, its settings, and the length of attribute vectors.
        gamma, temperature, threshold, rank_thresholds, store_dtype, about, encoding: as in
            :class:`~unseen.model.trained.TrainedModel`.
        typical: ``(K,)`` attribute scores of the average training image, if there are no references.
        reduction: file of the reduction of the backbone's regions, if any.
        tables: SHA-256 of the class tables, by file; other files are not checked.
        space: file of the space of support images, if the model has a rule for them.
    """

    folder: Path
    spec: BackboneSpec
    weights: Path
    references: Path | None
    method: str
    settings: Settings
    vector_length: int
    gamma: float
    temperature: float | None
    threshold: float | None
    rank_thresholds: Mapping[str, RankThreshold]
    store_dtype: str
    about: Mapping[str, Any]
    encoding: Encoding | None
    typical: np.ndarray | None = None
    reduction: Path | None = None
    tables: Mapping[str, str] = field(default_factory=dict)
    space: Path | None = None

    def build(self, kind: type[M], device: str = "auto", as_trained: bool = False) -> M:
        """The model.

        Args:
            kind: :class:`TrainedModel` or a subclass.
            device: where to compute.
            as_trained: use the classes of the training, without later changes.
        """
        check_tables(self.folder, self.tables)
        table = trained_table(self.folder) if as_trained else table_in_use(self.folder)
        shape = (len(table.attributes), self.vector_length)
        if self.typical is not None and len(self.typical) != shape[0]:
            raise RunError(f"typical is not {shape[0]} numbers", where=self.folder / FACTS, hint=AGAIN)
        self._check_length(shape)
        # weights of an end-to-end method include those of the backbone
        spec = replace(self.spec, weights="random") if find_method(self.method).end_to_end else self.spec
        backbone = Backbone(spec)
        if self.reduction is not None:
            backbone.reduced(Reduction.load(self.reduction))
        method = build_method(self.method, backbone, torch.ones(shape), self.settings)
        load_weights(self.weights, method)
        made = kind(
            backbone,
            method,
            table,
            gamma=self.gamma,
            temperature=self.temperature,
            threshold=self.threshold,
            rank_thresholds=self.rank_thresholds,
            store_dtype=self.store_dtype,
            device=device,
            about=self.about,
            encoding=self.encoding,
            references=self.references,
            typical=self.typical,
            space=self.space,
            support=None if as_trained else read_support(self.folder),
        )
        if method.reads_text:
            made.text_tower.load(self.folder / TEXTS)
        return made

    def _check_length(self, shape: tuple[int, int]) -> None:
        """Check that the weights have this vector length before memory is allocated for it."""
        try:
            with safe_open(self.weights, "pt") as file:
                for name in {"vectors", "head.vectors"} & set(file.keys()):
                    if tuple(file.get_slice(name).get_shape()) != shape:
                        raise RunError(f"its vectors are not {shape[0]} of {shape[1]}", where=self.weights, hint=AGAIN)
        except (SafetensorError, OSError):
            pass  # reading the weights gives a better error


def checked_settings(method: str, values: Mapping[str, Any], where: Path) -> Settings:
    """Settings of a method from JSON, each of the type of the method's default."""
    from unseen.recognizer.schema import settings_model

    kind = find_method(method, from_file=where).settings_class
    found = checked(settings_model(kind()), values, f"{where}, settings", error=RunError, hint=AGAIN)
    try:
        return kind(**vars(found))
    except UnseenError as error:
        raise RunError(str(error), where=where, hint=AGAIN) from None
