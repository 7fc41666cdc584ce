"""Networks that turn images into grids of region features: timm, CLIP and SigLIP towers, your own modules."""

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.backbones import own, towers
from unseen.backbones.building import build, check_patches
from unseen.backbones.engines import Compiled, Engine, chosen_engine, compiled, is_auto
from unseen.backbones.frozen import Skipped, last_frozen, output_of_frozen, skip_frozen
from unseen.backbones.naming import check_name, is_own
from unseen.backbones.reduction import Reduction
from unseen.backbones.spec import FAST, FINAL, TRUNK, BackboneSpec, joined_maps
from unseen.backbones.transform import Transform
from unseen.backbones.vision import timm
from unseen.backbones.weights import first_line
from unseen.backbones.zoom import assembled, beside, merged, reduced, stacked, tiles, together, unstacked
from unseen.errors import UnseenError
from unseen.ground.cache import cache_folder
from unseen.ground.distributed import processes

_CPU_PIXELS = 4 * 224 * 224
"""Number of pixels that a network on a CPU gets at once, see :meth:`Backbone.regions`."""
_log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A network in evaluation mode that maps images to regions; frozen unless `fine_tuned`.

    Attributes:
        spec: the spec, resolved.
        fingerprint: `spec.fingerprint()` at the time the weights were loaded; for a reduced backbone that of its
            regions.
        network_fingerprint: the same without the reduction.
        transform: the matching image transform.
        grids: (height, width) of each stage's region grid.
        channels: channels of each stage.
        parts: of each stage, the channels of the maps that it joins; one number if it joins none.
        reduction: reduction of the regions; `None` for none.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        if spec.imported:
            problem = "imported features have no network, so the model cannot read images"
            raise UnseenError(problem, where=spec.name, hint="train with --backbone to predict images")
        self.spec = spec = spec.resolved()
        self.fingerprint = self.network_fingerprint = spec.fingerprint()
        assert spec.image_size and spec.mean and spec.std  # noqa: PT018
        side = spec.image_size * spec.zoom
        self.transform = Transform(side, spec.mean, spec.std, spec.crop, spec.pixels == FAST, spec.view)
        self.model: Any = build(spec).eval().requires_grad_(False)
        self._prefix = getattr(self.model, "num_prefix_tokens", 0)
        self._channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        check_patches(self.model, spec)
        self._indices = self._intermediates()
        self.reduction: Reduction | None = None
        self._batch_statistics = False
        self._momenta: list[Any] = []
        self._skipped: Skipped | None = None
        self._wanted: str | None = None
        self._compiled: Compiled | None = None
        self._cache: Path | None = None
        self.grids: list[tuple[int, int]] = []
        self.channels: list[int] = []
        self.parts: list[tuple[int, ...]] = []
        try:
            with torch.inference_mode():
                single = self._seen_maps(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            problem = f"cannot take {spec.image_size}-pixel images: {first_line(error)}"
            raise UnseenError(problem, where=spec.name) from None
        for stage in spec.stages:
            maps = [single[one] for one in joined_maps(stage)]
            self.grids.append((maps[-1].shape[2], maps[-1].shape[3]))
            self.parts.append(tuple(m.shape[1] for m in maps))
            self.channels.append(sum(self.parts[-1]))

    @property
    def network(self) -> Any:
        """The network itself; for a user's network without the wrapper that adds timm's interface."""
        return self.model.network if isinstance(self.model, own.Plain) else self.model

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, without dropout, except for batch normalization that trains with its batch."""
        super().train(False)
        if mode and self._batch_statistics:
            for layer in self._normalizations():
                layer.train()
        return self

    def _normalizations(self) -> list[Any]:
        kinds = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
        return [module for module in self.model.modules() if isinstance(module, kinds)]

    def fine_tuned(self, checkpointing: bool = False, batch_norm: str = "frozen", layers: str = "all") -> Self:
        """Make weights trainable, including those of batch normalization; returns itself.

        Args:
            checkpointing: recompute activations in the backward pass instead of storing them (timm's
                `set_grad_checkpointing`, block by block); the gradients are the same.
            batch_norm: `frozen` to normalize with the statistics of the pre-training; `batch` to train with those of
                each batch and to test with running averages.
            layers: `all`, or `last` for those after the last stage but one.

        Raises:
            UnseenError: the network offers no checkpointing or names no stages, or several processes share each
                batch.
        """
        for parameter in self.model.parameters() if layers == "all" else self._last_layers():
            parameter.requires_grad_(True)
        self.use("torch")
        moving = self._normalizations() if batch_norm == "batch" else []
        self._batch_statistics = bool(moving)
        self._momenta = [layer.momentum for layer in moving if checkpointing]
        if self._batch_statistics and processes() > 1:
            problem = f"each of {processes()} processes would normalize its own part of a batch"
            raise UnseenError(problem, where=self.spec.name, hint="--recipe batch_norm=frozen, or use one process")
        if checkpointing:
            try:
                self.model.set_grad_checkpointing()
            except (AttributeError, AssertionError):
                raise UnseenError(
                    "timm has no gradient checkpointing for this network",
                    where=self.spec.name,
                    hint="--recipe checkpointing=false",
                ) from None
        return self

    def _last_layers(self) -> list[nn.Parameter]:
        """Weights of the layers after the last stage but one, in the order in which the network lists them."""
        names, weights = zip(*self.network.named_parameters(), strict=True)
        end = last_frozen(self.network)
        inside = [i for i, name in enumerate(names) if end and name.startswith(f"{end}.")]
        if not inside or inside[-1] + 1 == len(names):
            raise UnseenError("the network does not name its stages", where=self.spec.name, hint="--recipe layers=all")
        return list(weights[inside[-1] + 1 :])

    def skip_frozen(self) -> Self:
        """Take the maps of stage "trunk" instead of images from now on; returns itself.

        A backbone with several looks also takes maps of stage "trunk" of one, and returns the maps of this single look.

        Raises:
            UnseenError: the network does not name its stages, or its later layers use more than that.
        """
        side = self.transform.size // self.spec.zoom
        image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        image = image.to(next(self.model.parameters()))
        if self.spec.tower is None and last_frozen(self.network) is not None:

            def maps(pixels: Tensor) -> list[Tensor]:
                return list(self._single_maps(pixels).values())

            with torch.no_grad():
                output = output_of_frozen(self.network, lambda: maps(image))
            self._skipped = skip_frozen(self.network, maps, image, output)
        if self._skipped is None:
            problem = "the output of its frozen layers cannot replace images"
            raise UnseenError(problem, where=self.spec.name, hint="--recipe views=0")
        return self

    def reduced(self, reduction: Reduction) -> Self:
        """Reduce the regions of this one-stage backbone from now on; returns itself.

        Raises:
            UnseenError: the reduction belongs to another grid or number of channels.
        """
        grid, channels = self.grids[0], self.channels[0]
        axes = reduction.components
        if reduction.full_grid != grid or (axes is not None and axes.shape[1] != channels):
            raise UnseenError("its regions differ from those of the reduction", where=self.spec.name)
        self.reduction = reduction
        self.grids, self.channels = [reduction.grid], [reduction.channels(channels)]
        self.parts = [(self.channels[0],)]
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} {reduction.fingerprint}".encode()).hexdigest()
        return self

    def use(self, engine: str | None = None, cache: Path | None = None) -> Self:
        """Choose the engine of :meth:`regions`; see :func:`unseen.backbones.engines.chosen_engine`.

        Args:
            engine: name of the engine; None is ``$UNSEEN_ENGINE``, else "auto", which falls back to torch if another
                engine cannot run the network.
            cache: cache folder for converted networks; None is the default one.

        Raises:
            UnseenError: the engine does not exist, is not installed, or does not run on the network's device.
        """
        self._wanted, self._cache, self._compiled = engine, cache, None
        _ = self.engine
        return self

    @property
    def engine(self) -> Engine:
        """Engine of :meth:`regions` on the network's device."""
        return chosen_engine(self._wanted, self.device)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def ready(self) -> Engine:
        """The engine, with the network converted and loaded if necessary.

        Raises:
            UnseenError: the requested engine cannot run the network.
        """
        engine = self.engine
        if engine.name != "torch" and self._compiled is None:
            try:
                self._compiled = compiled(self, engine, cache_folder(self._cache) / "engines")
            except UnseenError as error:
                if not is_auto(self._wanted):
                    raise
                _log.warning("%s; torch computes instead", error)
                self._wanted, engine = "torch", chosen_engine("torch")
        return engine

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Region features of every stage.

        Args:
            pixels: transformed images (B, 3, H, W).

        Returns:
            One tensor (B, R, C) per stage, the R = h·w regions in row-major order.
        """
        found = [feature_map.flatten(2).transpose(1, 2) for feature_map in self.maps(pixels)]
        return found if self.reduction is None else [self.reduction(found[0])]

    @torch.inference_mode()
    def regions(self, cropped: Tensor) -> list[Tensor]:
        """Region features of every stage, equal to `forward`, computed by the :attr:`engine`.

        torch on a CPU gets a few images at a time: the C library requests the activations of a large batch from the
        system and returns them in every layer, and clearing their pages takes as long as the layers.

        Args:
            cropped: images as bytes (B, 3, H, W), on the network's device (:meth:`Transform.cropped`).
        """
        cpu = cropped.device.type == "cpu"
        if cpu and self.ready().name != "torch":
            assert self._compiled is not None
            found = self._compiled(cropped)
            return found if self.reduction is None else [self.reduction(found[0])]
        size = max(1, _CPU_PIXELS // cropped[0, 0].numel()) if cpu else len(cropped)
        parts = [self(self.transform.normalized(part)) for part in cropped.split(size)]
        return parts[0] if len(parts) == 1 else [torch.cat(stage) for stage in zip(*parts, strict=True)]

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """One map (B, C, h, w) per stage of transformed images (B, 3, H, W), with gradients if fine-tuned.

        With :meth:`skip_frozen`, of the maps of stage "trunk".
        """
        with self._counted_once():
            return self._maps(pixels.contiguous(memory_format=torch.channels_last))  # faster for convolutions

    @contextmanager
    def _counted_once(self) -> Iterator[None]:
        """Move running averages only in the first forward pass, not when the backward pass recomputes activations."""
        layers = self._normalizations() if self._momenta else []
        for layer, momentum in zip(layers, self._momenta, strict=True):
            layer.momentum = momentum
        yield
        for layer in layers:
            layer.momentum = 0.0

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        found = self._seen_maps(pixels)
        return [_joined([found[one] for one in joined_maps(stage)]) for stage in self.spec.stages]

    def _seen_maps(self, pixels: Tensor) -> dict[str | int, Tensor]:
        """Every map that a stage takes or joins, of all looks at the image."""
        skipped = self._skipped
        if not self.spec.mirror or (skipped is not None and pixels.shape[2] == skipped.height):
            return self._zoomed_maps(pixels)
        both = beside(pixels) if skipped is None else torch.cat(pixels.chunk(2, dim=2))
        seen = self._zoomed_maps(both)
        if self.spec.stages == (TRUNK,):
            return {TRUNK: torch.cat(seen[TRUNK].chunk(2), dim=2)}
        return {name: merged(found) for name, found in seen.items()}

    def _zoomed_maps(self, pixels: Tensor) -> dict[str | int, Tensor]:
        """The same of the image and its tiles."""
        zoom, skipped = self.spec.zoom, self._skipped
        single = self._single_maps if skipped is None else partial(skipped.call, self._single_maps)
        if zoom == 1 or (skipped is not None and pixels.shape[2] == skipped.height):
            return single(pixels)
        whole, near = (reduced(pixels, zoom), tiles(pixels, zoom)) if skipped is None else unstacked(pixels, zoom)
        seen, close = single(whole), single(near)
        if self.spec.stages == (TRUNK,):
            return {TRUNK: stacked(seen[TRUNK], close[TRUNK], zoom)}
        return {name: together(found, assembled(close[name], zoom)) for name, found in seen.items()}

    def _single_maps(self, pixels: Tensor) -> dict[str | int, Tensor]:
        """Every map that a stage takes or joins, of images of the network's size."""
        if self.spec.stages == (TRUNK,):
            return {TRUNK: self._trunk(pixels)}
        if not self._indices:
            return {FINAL: self._final(self.model.forward_features(pixels))}
        indices = sorted(set(self._indices.values()))
        if FINAL in self._names():
            final, found = self.model.forward_intermediates(pixels, indices=indices)
        else:
            final, found = (
                None,
                self.model.forward_intermediates(pixels, indices=indices, intermediates_only=True, stop_early=True),
            )
        by_index = dict(zip(indices, found, strict=True))
        return {s: self._final(final) if s == FINAL else by_index[self._indices[s]] for s in self._names()}

    def _trunk(self, pixels: Tensor) -> Tensor:
        if last_frozen(self.network) is None:
            raise UnseenError("the network does not name its stages", where=self.spec.name)
        how: dict[str, Any] = {"indices": [-2], "intermediates_only": True, "stop_early": True}
        return output_of_frozen(self.network, lambda: self.model.forward_intermediates(pixels, **how))

    def _names(self) -> list[str | int]:
        return [one for stage in self.spec.stages for one in joined_maps(stage)]

    def _final(self, features: Any) -> Tensor:
        if isinstance(features, Tensor) and features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self._channels_last else features
        if isinstance(features, Tensor) and features.ndim == 3:
            tokens = features[:, self._prefix :]
            side = math.isqrt(tokens.shape[1])
            if side and side * side == tokens.shape[1]:
                result: Tensor = tokens.transpose(1, 2).unflatten(2, (side, side))
                return result
        raise UnseenError(
            f'the "{FINAL}" features do not form a grid of regions',
            where=self.spec.name,
            hint=f"use one of {self._listing()}",
        )

    def _intermediates(self) -> dict[str | int, int]:
        """Absolute index of each requested intermediate stage."""
        wanted = [stage for stage in self._names() if isinstance(stage, int)]
        if wanted and not hasattr(self.model, "forward_intermediates"):
            raise UnseenError(
                "timm returns only the last feature map of this network", where=self.spec.name, hint=f'use "{FINAL}"'
            )
        count = len(self.model.feature_info) if wanted else 0
        for stage in wanted:
            if not -count <= stage < count:
                raise UnseenError(f"no stage {stage}", where=self.spec.name, hint=f"use one of {self._listing()}")
        return {stage: stage % count for stage in wanted}

    def _listing(self) -> str:
        info = enumerate(self.model.feature_info)
        return f'"{FINAL}", ' + ", ".join(f"{i} ({s['num_chs']} channels, 1/{s['reduction']})" for i, s in info)


def _joined(maps: list[Tensor]) -> Tensor:
    """Maps ``(B, C, h, w)`` as one of all their channels, on the grid of the last."""
    grid = maps[-1].shape[2], maps[-1].shape[3]
    return torch.cat([m if tuple(m.shape[2:]) == grid else F.adaptive_avg_pool2d(m, grid) for m in maps], dim=1)


def list_stages(name: str) -> list[tuple[str | int, int, int]]:
    """Stage, channels and reduction of every feature map of a model; creates no weights."""
    check_name(name)
    if name.startswith(towers.PREFIX):
        facts = towers.model_facts(name.removeprefix(towers.PREFIX))
        return [(FINAL, facts.channels, facts.patch_size)]
    if is_own(name):
        made = Backbone(BackboneSpec(name))
        stages = [(i, s["num_chs"], s["reduction"]) for i, s in enumerate(getattr(made.model, "feature_info", []))]
        return [(FINAL, made.channels[0], round((made.spec.image_size or 0) / made.grids[0][0])), *stages]
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
    info = [] if not hasattr(model, "forward_intermediates") else model.feature_info
    found: list[tuple[str | int, int, int]] = [(i, s["num_chs"], s["reduction"]) for i, s in enumerate(info)]
    last = model.feature_info[-1]["reduction"] if hasattr(model, "feature_info") else 0
    return [(FINAL, model.num_features, last), *found]
