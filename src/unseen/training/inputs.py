"""Run inputs: everything that the trainings of a run share."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from unseen.backbones.backbone import Backbone
from unseen.backbones.towers import TEXTS, TextTower
from unseen.data.dataset import Partition, final_partition
from unseen.data.frozen import AnyStore, FrozenStore
from unseen.features.store import RegionStore
from unseen.methods import create_method, find_method
from unseen.methods.base import Candidate, Method, RefitMethod, StartedMethod
from unseen.methods.settings import EndToEndRecipe, as_text
from unseen.model.assembled import EndToEnd, build_method
from unseen.training.fabric import weight_dtype
from unseen.training.plan import Plan
from unseen.training.records import OnRecord, untold

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RunInputs(Plan):
    """A plan with its regions and device: what every training needs except the seed.

    Args:
        store: regions of all images; for methods trained end to end the images, or the output of frozen layers.
        fabric: device and precision.
        tower: text tower for methods that read text.
        budget_bytes: memory for regions on the device, see :class:`unseen.features.source.RegionSource`.
        graph: launch each training step as one CUDA graph.
        with_images: choose how support images count beside attributes (:mod:`unseen.training.support`).
        on_record: called with the record of every epoch.
        start: hyperparameters of the closed form that a method starts from.
        refit: those that it is solved anew with on trained features.
    """

    store: AnyStore
    fabric: Fabric
    tower: TextTower | None = None
    budget_bytes: int | None = None
    graph: bool = False
    with_images: bool = True
    on_record: OnRecord = untold
    start: Candidate | None = None
    refit: Candidate | None = None

    @classmethod
    def of_plan(
        cls,
        plan: Plan,
        store: AnyStore,
        fabric: Fabric,
        folder: Path | None = None,
        *,
        budget_bytes: int | None = None,
        graph: bool = False,
        with_images: bool = True,
        on_record: OnRecord = untold,
    ) -> Self:
        """Combine them; texts whose vectors the run ``folder`` has are not embedded again."""
        tower = None
        if find_method(plan.config.method).reads_text and plan.config.backbone.tower is not None:
            tower = TextTower(plan.config.backbone.tower)
            if folder is not None:
                tower.load(folder / TEXTS)
        return cls(
            **vars(plan),
            store=store,
            fabric=fabric,
            tower=tower,
            budget_bytes=budget_bytes,
            graph=graph,
            with_images=with_images,
            on_record=on_record,
        )

    def partition(self, stage: str, draw: int = 0) -> Partition:
        """Images and classes of ``final``, of ``validation``, or of one of its draws."""
        if stage == "validation":
            return self.validation(draw)
        return final_partition(self.dataset)

    def new_method(self, seed: int) -> Any:
        """Create the method with a seed's initial weights, on the device."""
        vectors = torch.from_numpy(self.vectors).to(weight_dtype(self.config.precision))
        name, settings = self.config.method, self.settings
        if isinstance(self.store, RegionStore):
            channels = self.store.parts(0)
            made = create_method(name, channels=channels, vectors=vectors, settings=settings, seed=seed)
        else:
            assert isinstance(self.recipe, EndToEndRecipe)
            how = {key: getattr(self.recipe, key) for key in ("checkpointing", "batch_norm", "layers")}
            made = build_method(name, Backbone(self.store.spec), vectors, settings, seed=seed, **how)
        head = made.head if isinstance(made, EndToEnd) else made
        if isinstance(head, StartedMethod):
            head.candidate = self.start
        if isinstance(head, RefitMethod):
            head.refit_candidate = self.refit
        return self._taking(made).to(self.fabric.device)

    def adapted(self, method: Method) -> Method:
        """A method that takes what the store holds; a copy if that is the output of frozen layers."""
        return self._taking(copy.deepcopy(method)) if isinstance(self.store, FrozenStore) else method

    def _taking(self, method: Method) -> Method:
        if isinstance(self.store, FrozenStore):
            assert isinstance(method, EndToEnd)
            method.backbone.skip_frozen()
        return method

    def of_start(self) -> RunInputs:
        """The inputs for the closed form that a method starts from, on the same draws."""
        kind, store = find_method(self.config.method), self.store
        assert issubclass(kind, StartedMethod)
        if not isinstance(store, RegionStore):
            assert store.regions is not None
            store = store.regions
        settings = kind.start_settings(self.settings)
        config = replace(self.config, method=kind.start_method.name, preset=None, settings=as_text(settings), recipe={})
        return replace(self, config=config, settings=settings, recipe=None, store=store, with_images=False)

    def keep_texts(self, folder: Path) -> None:
        """Store embedded texts with the run, so that its model needs no text tower."""
        if self.tower is not None:
            self.tower.save(folder / TEXTS)
