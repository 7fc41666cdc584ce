"""Region stores with reduced regions: made from a full store if there is one, else during extraction.

The axes are fitted once on some of the given images and cached by their inputs; a store's folder has its own copy. The
numbers do not depend on whether a full store existed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from unseen.backbones.backbone import Backbone
from unseen.backbones.reduction import FILE, Reduction, ReductionSpec
from unseen.errors import RunError
from unseen.features.extract import chosen_label, engine_fingerprint, extract, store_fingerprint, store_name
from unseen.features.hashes import content_hashes
from unseen.features.store import RegionStore, finished_store, write_store
from unseen.ground.devices import find_device
from unseen.ground.distributed import first_before_others
from unseen.ground.progress import Progress, silent

MOST = 1000
"""Largest number of images to fit axes on; with 49 regions each they give 38 regions for each of 1280 channels."""
_BATCH = 32


def extract_reduced(
    files: Sequence[Path],
    backbone: Backbone,
    folder: Path,
    *,
    names: Sequence[str],
    spec: ReductionSpec,
    fit_on: np.ndarray,
    kept: Path | None = None,
    dtype: str = "float16",
    device: str | torch.device = "cpu",
    engine: str | None = None,
    earlier: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> RegionStore:
    """Like :func:`unseen.features.extract.extract`, with reduced regions; the backbone becomes a reduced one.

    Args:
        files, backbone, folder, names, dtype, device, engine, earlier: as there.
        spec: the reduction.
        fit_on: positions of the images to fit axes on.
        kept: file of a reduction to use instead, if it exists: that of a run.
        progress: progress callback for everything except extracting.
        options: further arguments of ``extract``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with first_before_others():
        hashes = content_hashes(files, folder / "hashes.json")
    identity = store_fingerprint(backbone.fingerprint, dtype, names, hashes)
    device = find_device(device)
    backbone = backbone.to(device).use(engine, folder.parent)
    label = chosen_label(folder, identity, backbone, engine, earlier)
    full = finished_store(folder / store_name(identity, label), engine_fingerprint(identity, label))
    if full is None:
        label = backbone.ready().label

    @torch.inference_mode()
    def look(images: np.ndarray) -> Tensor:
        pixels = torch.stack([backbone.transform.cropped(files[i]) for i in images])
        return backbone.regions(pixels.to(device))[0]

    key = (backbone.fingerprint, dtype, [(names[i], hashes[i]) for i in fit_on], *([label] if label else []))
    read = look if full is None else full.read
    reduction = _reduction(spec, backbone.grids[0], dtype, read, fit_on, key, folder, kept, progress)
    backbone.reduced(reduction.to(device))
    if full is None:
        where: dict[str, Any] = {"device": device, "engine": engine, "earlier": earlier}
        store = extract(files, backbone, folder, names=names, dtype=dtype, **where, **options)
    else:
        identity = store_fingerprint(backbone.fingerprint, dtype, names, hashes)
        place = folder / store_name(identity, label)
        store = _derive(full, reduction, place, engine_fingerprint(identity, label), device, progress)
    return _with_copy(store, reduction)


def reduce_store(
    full: RegionStore,
    folder: Path,
    *,
    spec: ReductionSpec,
    fit_on: np.ndarray,
    kept: Path | None = None,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
) -> RegionStore:
    """The reduced store of a one-stage store, such as imported features; arguments as above."""
    device, dtype = find_device(device), str(full.dtype).removeprefix("torch.")
    key = (full.fingerprint, dtype, [full.names[i] for i in fit_on])
    folder.mkdir(parents=True, exist_ok=True)
    reduction = _reduction(spec, full.grid(), dtype, full.read, fit_on, key, folder, kept, progress).to(device)
    fingerprint = hashlib.sha256(f"{full.fingerprint} {reduction.fingerprint}".encode()).hexdigest()
    return _with_copy(_derive(full, reduction, folder / fingerprint[:16], fingerprint, device, progress), reduction)


def _reduction(
    spec: ReductionSpec,
    grid: tuple[int, int],
    dtype: str,
    read: Callable[[np.ndarray], Tensor],
    fit_on: np.ndarray,
    key: tuple[Any, ...],
    folder: Path,
    kept: Path | None,
    progress: Progress,
) -> Reduction:
    """The reduction of the run, of the cache, or a new one; fitted on at most :data:`MOST` images, drawn once."""
    if kept is not None and kept.is_file():
        return Reduction.load(kept)
    fingerprint = hashlib.sha256(json.dumps([str(spec), MOST, *key]).encode()).hexdigest()
    path = folder / f"reduction-{fingerprint[:16]}.safetensors"
    with suppress(RunError):  # read without a lock, since its folder may be read-only
        return Reduction.load(path)
    with first_before_others(), FileLock(path.with_suffix(".lock")):
        with suppress(RunError):
            return Reduction.load(path)
        made = Reduction(spec, grid, dtype=dtype)
        images = np.sort(np.random.default_rng(0).permutation(fit_on)[:MOST])

        def regions(start: int) -> Tensor:
            progress("fitting principal axes", min(start + _BATCH, len(images)), len(images))
            return read(images[start : start + _BATCH])

        made.fit(regions(start) for start in range(0, len(images), _BATCH))
        made.save(path)
        return made


def _derive(
    full: RegionStore,
    reduction: Reduction,
    folder: Path,
    fingerprint: str,
    device: str | torch.device,
    progress: Progress,
) -> RegionStore:
    @torch.inference_mode()
    def read(start: int, stop: int) -> np.ndarray:
        found: np.ndarray = reduction(full.read(range(start, stop)).to(device)).cpu().numpy()
        return found

    with first_before_others():
        return write_store(
            folder,
            read,
            names=full.names,
            grid=reduction.grid,
            channels=reduction.channels(full.channels()),
            source=full.backbone,
            dtype=str(full.dtype).removeprefix("torch."),
            fingerprint=fingerprint,
            engine=full.engine,
            tick=lambda done, total: progress("reducing regions", done, total),
        )


def _with_copy(store: RegionStore, reduction: Reduction) -> RegionStore:
    with first_before_others():
        try:
            Reduction.load(store.folder / FILE)
        except RunError:
            reduction.save(store.folder / FILE)
    return store
