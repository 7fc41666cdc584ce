"""Plan of a run: its configuration with all names resolved, its data, and the source of its regions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.backbones.backbone import Backbone
from unseen.backbones.engines import chosen_engine
from unseen.backbones.naming import IMPORTED
from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.reduction import ReductionSpec
from unseen.backbones.spec import SINGLE, TRUNK, BackboneSpec
from unseen.data.catalogue import FIELDGUIDE, load_dataset
from unseen.data.dataset import Dataset, Partition, final_partition, validation_partition
from unseen.data.folder_images import need_images
from unseen.data.frozen import AnyStore, FrozenStore
from unseen.data.images import ImageStore
from unseen.data.importing import imported_store
from unseen.errors import DataError, UnseenError
from unseen.features.extract import ExtractionPlan, chosen_workers, extract
from unseen.features.reduced import extract_reduced, reduce_store
from unseen.features.store import RegionStore
from unseen.ground.devices import find_device
from unseen.ground.progress import Progress, silent
from unseen.methods import find_method, find_preset
from unseen.methods.base import Method, RefitMethod, StartedMethod
from unseen.methods.settings import EndToEndRecipe, Recipe, Settings, change_recipe
from unseen.releases import BENCHMARKS
from unseen.training.config import RunConfig
from unseen.training.fabric import make_fabric
from unseen.training.folder import Run
from unseen.vectors.sources import attribute_vectors

FROZEN = {
    "cuda": BackboneSpec(name="vit_base_patch14_reg4_dinov2.lvd142m", image_size=336),
    "cpu": BackboneSpec(name="vit_small_patch14_reg4_dinov2.lvd142m", image_size=224),
}
"""Defaults for your own images, by kind of device; docs/explanation/default-backbone.md says why."""
RESNET = {
    "cuda": BackboneSpec(name="resnet101.tv_in1k", image_size=448),
    "cpu": BackboneSpec(name="resnet50.tv_in1k", image_size=320),
}
"""Defaults for the benchmarks, whose published results are on ResNet-101, and for methods that train their backbone."""


def default_backbone(dataset: str, device: str = "cuda", methods: Sequence[str | type[Method]] = ()) -> BackboneSpec:
    """The default backbone: on fieldguide its own, else one of :data:`FROZEN` or :data:`RESNET`.

    Args:
        dataset: ``fieldguide`` or a dataset folder; a folder with the name of a benchmark holds that benchmark.
        device: kind of device; another than ``cpu`` counts as ``cuda``.
        methods: the methods that are going to read it.
    """
    if dataset == FIELDGUIDE:
        from unseen.fieldguide import BACKBONE, WEIGHTS

        return BackboneSpec(
            name=BACKBONE["name"],
            image_size=BACKBONE["image_size"],
            weights=WEIGHTS,
            options=BACKBONE["options"],
            mean=BACKBONE["mean"],
            std=BACKBONE["std"],
        )
    kinds = [find_method(method) for method in methods]
    whole = any(kind.end_to_end and not issubclass(kind, RefitMethod) for kind in kinds)
    classic = Path(dataset).name.lower() in BENCHMARKS or whole
    return (RESNET if classic else FROZEN)["cpu" if device == "cpu" else "cuda"]


def kind_of_device(device: str, folder: Path) -> str:
    """Type of device for :func:`default_backbone`; for a run or comparison that resumes, that of the first call.

    Args:
        device: as in :func:`unseen.training.fabric.make_fabric`.
        folder: the folder of a run, or of a comparison with a run in each subfolder.
    """
    for run in (folder, *sorted(config.parent for config in folder.glob("*/config.json"))):
        with suppress(UnseenError):
            name = Run(run).config.backbone.name
            return "cpu" if name in (FROZEN["cpu"].name, RESNET["cpu"].name) else "cuda"
    return make_fabric(device).device.type


def resolve_settings(config: RunConfig, dataset: str) -> tuple[str, Settings, Recipe | None]:
    """Name of the preset, settings and recipe of a configuration on a dataset of that name.

    Raises:
        UnseenError: no such method, preset, setting or recipe entry, or a value that does not fit.
    """
    kind = find_method(config.method)
    name, preset = find_preset(kind, dataset, config.preset)
    settings = type(preset.settings).changed(preset.settings, dict(config.settings))
    if preset.recipe is None and config.recipe:
        raise UnseenError(f"{kind.name} has a closed-form solution", hint="omit epochs and recipe")
    recipe = None if preset.recipe is None else change_recipe(preset.recipe, dict(config.recipe))
    return name, settings, recipe


def check_held_out(dataset: Dataset, protocol: str, config: RunConfig) -> None:
    """Raise :class:`DataError` if a protocol has no held-out images for its choices, or too few draws of classes."""
    paper = protocol == "paper"
    for draw in (0,) if paper else {0, config.draw_count - 1}:
        partition = final_partition(dataset) if paper else validation_partition(dataset, **_draw_of(config, draw))
        hint = "use --protocol honest" if paper else "provide 2 or more images of every class"
        for kind, images in (("seen", partition.test_seen), ("unseen", partition.test_unseen)):
            if not len(images):
                problem = f"the {protocol} protocol needs held-out images of {kind} classes for its choices"
                raise DataError(problem, where=dataset.name, hint=hint)


def _draw_of(config: RunConfig, draw: int) -> dict[str, Any]:
    return {"seed": config.split_seed, "draw": draw, "folds": config.folds}


@dataclass(frozen=True)
class Plan:
    """A configuration with resolved names and loaded data."""

    config: RunConfig
    dataset: Dataset
    settings: Settings
    recipe: Recipe | None
    preset: str
    vectors: np.ndarray
    vectors_label: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What readers of the results should know of the data and of the configuration, one line each."""
        if self.config.protocols != ("paper",) or not issubclass(kind := find_method(self.config.method), RefitMethod):
            return self.dataset.warnings
        line = (
            f"{kind.name} under the paper protocol alone is solved with the hyperparameters of its "
            f"start, {kind.start_method.name}, after every epoch; only --protocol both chooses them anew, on "
            "validation classes"
        )
        return (*self.dataset.warnings, line)

    @classmethod
    def of(cls, config: RunConfig, cache: Path, progress: Progress = silent, dataset: Dataset | None = None) -> Plan:
        """Resolve a configuration; finds every error in it before long work starts.

        ``dataset`` is that of the configuration, if it has been read already.
        """
        method = find_method(config.method)
        if method.reads_text and config.backbone.tower is None:
            problem = f"{method.name} needs a text tower"
            hint = "use --backbone hf:MODEL, such as hf:google/siglip-base-patch16-224"
            raise UnseenError(problem, where=f"backbone {config.backbone.name}", hint=hint)
        if not config.backbone.imported:
            need_images(Path(config.dataset))
        config.backbone.fingerprint()  # the weights exist
        dataset = dataset or load_dataset(config.dataset, cache=cache, progress=progress)
        name, settings, recipe = resolve_settings(config, dataset.name)
        vectors, label = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors, config.vectors)
        return cls(config, dataset, settings, recipe, name, vectors, label)

    def validation(self, draw: int = 0) -> Partition:
        """Images and classes of a draw of validation classes."""
        return validation_partition(self.dataset, **_draw_of(self.config, draw))

    def extract(
        self,
        cache: Path,
        device: str | torch.device,
        workers: int,
        progress: Progress = silent,
        budget_bytes: int | None = None,
        folder: Path | None = None,
        engine: str | None = None,
    ) -> AnyStore:
        """The region store of all images of the dataset; for a method trained end to end, its images or frozen outputs.

        Regions are reduced as stored in the run ``folder``. Without one, axes are fitted on the training images of the
        validation stage, which no protocol tests on.
        """
        cache, device = cache / "regions", find_device(device)
        reducing: dict[str, Any] = {}
        if self.config.reduce:
            reducing = {
                "spec": ReductionSpec.parse(self.config.reduce),
                "fit_on": self.validation().train,
                "kept": None if folder is None else folder / REDUCTION,
                "progress": progress,
            }
        if self.config.backbone.imported:
            full = imported_store(self.dataset, Path(self.config.backbone.weights))
            return reduce_store(full, cache, device=device, **reducing) if reducing else full
        backbone = Backbone(self.config.backbone)
        names, note = self.dataset.files, ""

        def extracted(backbone: Backbone, task: str = "extracting features", **more: Any) -> RegionStore:
            def tell(done: int, total: int) -> None:
                progress(task, done, total, note)

            def announce(plan: ExtractionPlan) -> None:
                nonlocal note
                if plan.todo:
                    note = f"({plan})"
                    tell(plan.images - plan.todo, plan.images)

            more = {"dtype": self.config.store_dtype, **more}
            return (extract_reduced if reducing else extract)(
                self.dataset.paths(),
                backbone,
                cache,
                names=names,
                device=device,
                workers=workers,
                engine=engine,
                earlier=_earlier_engine(folder),
                tick=tell,
                on_plan=announce,
                **more,
            )

        kind = find_method(self.config.method)
        if not kind.end_to_end:
            return extracted(backbone, **reducing)
        regions = extracted(backbone) if issubclass(kind, StartedMethod) else None
        assert isinstance(self.recipe, EndToEndRecipe)
        if not self.recipe.views:
            workers = chosen_workers(workers, device)
            return ImageStore(
                self.dataset.paths(),
                backbone,
                cache,
                names=names,
                workers=workers,
                budget_bytes=budget_bytes,
                regions=regions,
            )
        trunk = replace(backbone.spec, stages=(TRUNK,))
        backbone.skip_frozen()  # else the network cannot be trained in this way
        views = []
        for view in range(self.recipe.views):
            frozen = Backbone(replace(trunk, view=view, **(SINGLE if view else {})))
            exact = {"dtype": "float32"} if not view else {}  # as predictions of the trained model
            views.append(extracted(frozen, f"extracting features, view {view + 1} of {self.recipe.views}", **exact))
        return FrozenStore(views, backbone, regions)


def _earlier_engine(folder: Path | None) -> str | None:
    """Engine that computed the regions of the run in a folder, by its manifest."""
    with suppress(UnseenError, KeyError):
        return None if folder is None else Run(folder).manifest["backbone"]["engine"]
    return None


def engine_of(store: AnyStore) -> str | None:
    """Engine that computed the regions of a store; ``None`` for imported ones."""
    if isinstance(store, RegionStore) and store.backbone["name"].startswith(IMPORTED):
        return None
    return getattr(store, "engine", None) or str(chosen_engine("torch"))
