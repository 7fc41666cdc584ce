"""The region store: features of every image, computed once, kept on disk and read a batch at a time."""

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import psutil
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unseen.backbones.backbone import Backbone, Transform
from unseen.backbones.vision import timm
from unseen.errors import DataError, StoreError, UnseenError
from unseen.features.reading import read_batches
from unseen.ground.distributed import first_before_others, is_first, local_processes, part, processes, wait_for_all
from unseen.ground.distributed import position as own_position
from unseen.ground.files import is_left_over, read_json, write_json, write_with

_FORMAT = 1
_META, _JOURNAL = "store.json", "journal.jsonl"
# NumPy has no bfloat16: its bits are kept as int16
_DTYPES = {
    "float16": (torch.float16, np.float16),
    "bfloat16": (torch.bfloat16, np.int16),
    "float32": (torch.float32, np.float32),
}
_PIECE = 1 << 20  # bytes whose checksum is computed at a time
_THREADS = 2  # that read images where no processes do
_OWN = re.compile(r"stage\d+\.bin|journal\.jsonl.*")
_RACY_NS = 2 * 10**9  # a file this fresh can change again without its time changing
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction is about to do.

    Attributes:
        folder: the store's folder.
        images: images in the store.
        todo: images whose features are not there yet.
        nbytes: size of the finished store.
        needed: bytes still to be written.
        free: bytes free on the disk.
        seconds: about how long it will take, by a few images timed beforehand; None where that is not worth it.
    """

    folder: Path
    images: int
    todo: int
    nbytes: int
    needed: int
    free: int
    seconds: float | None = None

    def __str__(self) -> str:
        """What a person wants to know before it starts."""
        disk = f"{self.needed / 1e9:,.1f} GB to write, {self.free / 1e9:,.1f} GB free"
        time = "" if self.seconds is None else f", {duration(self.seconds)}"
        return f"{self.todo:,} images, {disk}{time}"


def extract(
    files: Sequence[Path],
    backbone: Backbone,
    folder: Path,
    *,
    names: Sequence[str],
    dtype: str = "float16",
    batch_size: int = 32,
    workers: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
    on_plan: Callable[[ExtractionPlan], None] | None = None,
) -> "RegionStore":
    """Computes the region features of images, or only what of them is missing, and opens their store.

    The store lies in a folder named by a fingerprint of the images' content, names and order, the
    backbone with its weights and transform, and the dtype, so that one of something else is never used.
    An extraction that was killed goes on with the first unfinished chunk.

    Args:
        files: the images.
        backbone: the network; moved to `device`.
        folder: cache root, shared by any number of stores.
        names: one name per image, as in the dataset.
        dtype: "float16", "bfloat16" or "float32".
        batch_size: images per forward pass, and per chunk of a new store.
        workers: processes that read images; 0 reads them in threads here, -1 chooses: up to 8 for a GPU, 0 for a CPU.
        device: where the network runs.
        progress: told (images done, images in all) after every chunk.
        on_plan: told what is to be done before it is.

    Several processes (:mod:`unseen.ground.distributed`) share the chunks; the folder must be one that all of them see.
    """
    if dtype not in _DTYPES:
        raise StoreError(f"unknown dtype {dtype!r}", where="region store", hint=f"use one of {', '.join(_DTYPES)}")
    if len(names) != len(files):
        raise ValueError(f"{len(names)} names for {len(files)} files")
    if not files:
        raise DataError("no images to extract features of")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workers = chosen_workers(workers, torch.device(device))
    with first_before_others():
        hashes = content_hashes(files, folder / "hashes.json")
    fingerprint = store_fingerprint(backbone.fingerprint, dtype, names, hashes)
    store = folder / fingerprint[:16]
    meta = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "backbone": backbone.spec.to_json(),
        "dtype": dtype,
        "chunk": batch_size,
        "stages": [
            {"stage": stage, "file": f"stage{i}.bin", "grid": list(grid), "channels": channels}
            for i, (stage, grid, channels) in enumerate(
                zip(backbone.spec.stages, backbone.grids, backbone.channels, strict=True)
            )
        ],
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "names": list(names),
    }
    if processes() == 1 and (found := _finished(store, fingerprint)) is not None:
        if on_plan is not None:
            on_plan(ExtractionPlan(store, len(found), 0, found.nbytes, 0, shutil.disk_usage(store).free))
        return found
    with locked(store) if is_first() else nullcontext():
        with first_before_others():
            layout, finished = _start(store, meta)
        wait_for_all()  # until all know what is finished
        todo = [chunk for chunk in range(layout.chunks) if chunk not in finished]
        left = sum(len(layout.images(chunk)) for chunk in todo)
        needed, free = left * layout.image_bytes, shutil.disk_usage(store).free
        mine = [todo[i] for i in part(len(todo))]
        if on_plan is not None:
            seconds = _estimate(
                [files[p] for c in mine for p in layout.images(c)], backbone, batch_size, workers, device
            )
            nbytes = layout.count * layout.image_bytes
            on_plan(ExtractionPlan(store, layout.count, left, nbytes, needed, free, seconds))
        if needed > free:
            raise _disk_full(store, needed, free)
        if mine:
            try:
                _fill(layout, mine, layout.count - left, files, backbone.to(device), batch_size, workers, progress)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                left = sum(len(layout.images(c)) for c in todo if c not in layout.journal())
                raise _disk_full(store, left * layout.image_bytes, shutil.disk_usage(store).free) from None
        wait_for_all()
        with first_before_others():
            layout.join_journals()
        return RegionStore.open(store)


def store_fingerprint(backbone: str, dtype: str, names: Sequence[str], hashes: Sequence[str]) -> str:
    """SHA-256 of what features are made of: fingerprint of a backbone, dtype, and images by name and content."""
    images = list(zip(names, hashes, strict=True))
    facts = {"format": _FORMAT, "backbone": backbone, "dtype": dtype, "images": images}
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _finished(folder: Path, fingerprint: str) -> "RegionStore | None":
    """A whole store of this fingerprint, which needs no lock: its folder may be read-only."""
    with suppress(StoreError):
        store = RegionStore.open(folder)
        return store if store.fingerprint == fingerprint else None
    return None


def write_store(
    folder: Path,
    read: Callable[[int, int], np.ndarray],
    *,
    names: Sequence[str],
    grid: tuple[int, int],
    channels: int,
    source: Mapping[str, Any],
    dtype: str = "float16",
    chunk: int = 32,
    fingerprint: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "RegionStore":
    """Fills a store with features made elsewhere, or with what of them is missing, and opens it.

    One chunk is held at a time. A store that was stopped goes on with the first unfinished chunk.

    Args:
        folder: the store's own folder.
        read: gives the features (b, R, C) of the images from one position up to another.
        names: one name per image.
        grid: (height, width) of the grid of regions.
        channels: C.
        source: what the features are and of what file; JSON.
        dtype: "float16", "bfloat16" or "float32".
        chunk: images read at once.
        fingerprint: of the features; default one of the other arguments.
        progress: told (images done, images in all) after every chunk.
    """
    facts = {"format": _FORMAT, "source": dict(source), "dtype": dtype, "images": list(names), "grid": list(grid)}
    fingerprint = fingerprint or hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    meta = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "backbone": dict(source),
        "dtype": dtype,
        "chunk": chunk,
        "stages": [{"stage": "final", "file": "stage0.bin", "grid": list(grid), "channels": channels}],
        "versions": {"torch": torch.__version__},
        "names": list(names),
    }
    if is_first() and (whole := _finished(folder, str(meta["fingerprint"]))) is not None:
        return whole
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        layout, finished = _start(folder, meta)
        todo = [index for index in range(layout.chunks) if index not in finished]
        needed, free = sum(len(layout.images(i)) for i in todo) * layout.image_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise _disk_full(folder, needed, free)
        try:
            with layout.files[0].open("r+b") as output, _repaired(folder / _JOURNAL) as journal:
                for index in todo:
                    rows = layout.images(index)
                    regions = torch.from_numpy(np.ascontiguousarray(read(rows.start, rows.stop)))
                    kept = regions.to(_DTYPES[dtype][0])
                    _check_finite(torch.stack(regions.aminmax()), kept, [f"row {i + 1} ({names[i]})" for i in rows])
                    data = _bits(kept).data.cast("B")
                    output.seek(rows.start * layout.image_bytes)
                    output.write(data)
                    _sync(output)
                    journal.write(_journal_line(index, [zlib.crc32(data)]))
                    _sync(journal)
                    if progress is not None:
                        progress(rows.stop, layout.count)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _disk_full(folder, needed, shutil.disk_usage(folder).free) from None
        return RegionStore.open(folder)


def chosen_workers(workers: int, device: torch.device) -> int:
    """How many processes read images: as asked, or for -1 up to 8 for a GPU and none for a CPU, which is busy."""
    if workers >= 0:
        return workers
    return max(1, min(8, len(os.sched_getaffinity(0)) // local_processes())) if device.type == "cuda" else 0


def _estimate(
    files: Sequence[Path], backbone: Backbone, batch_size: int, workers: int, device: str | torch.device
) -> float | None:
    """Seconds that images will take, by a few of them; None where they are soon done anyway."""
    if len(files) < 8 * batch_size:
        return None
    backbone = backbone.to(device)
    started = time.monotonic()
    pixels = torch.stack([backbone.transform.cropped(file) for file in files[:4]])
    reading = (time.monotonic() - started) / len(pixels)
    size = batch_size if torch.device(device).type == "cuda" else len(pixels)
    batch = pixels[torch.arange(size) % len(pixels)].to(device)
    for trial in (batch[:1], batch):  # the first is slower
        started = time.monotonic()
        _ = [regions.cpu() for regions in backbone.regions(trial)]
    network = (time.monotonic() - started) / size
    return len(files) * (max(reading / workers, network) if workers else reading + network)


def duration(seconds: float) -> str:
    """As one says it: "about 2 h 10 min", "about 3 min", "less than a minute"."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours and not minutes:
        return "less than a minute"
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"


class RegionStore:
    """A finished store of region features, read from disk image by image.

    Nothing is mapped into memory, so that what a process holds does not grow with what it has read. A chunk's checksum
    is computed before its first image is read.

    Attributes:
        folder: where it lies.
        names: the images' names, in order.
        stages: the backbone stages kept; a stage is named below by its position here.
        dtype: dtype of the features.
        fingerprint: SHA-256 of what the features were made of.
        backbone: the backbone spec as JSON.
    """

    def __init__(self, layout: "_Layout") -> None:
        self._layout = layout
        self.folder = layout.folder
        self.names: list[str] = layout.meta["names"]
        self.stages: tuple[str | int, ...] = tuple(s["stage"] for s in layout.stages)
        self.dtype: torch.dtype = _DTYPES[layout.meta["dtype"]][0]
        self.fingerprint: str = layout.meta["fingerprint"]
        self.backbone: Mapping[str, Any] = layout.meta["backbone"]
        self._opened = [path.open("rb", buffering=0) for path in layout.files]
        self._checksums = layout.journal()
        self._checked: set[tuple[int, int]] = set()

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Opens a store; StoreError if it is unfinished or truncated."""
        layout = _Layout.read(Path(folder))
        layout.check_sizes()
        finished = layout.journal()
        if len(finished) < layout.chunks:
            done = sum(len(layout.images(chunk)) for chunk in finished)
            raise StoreError(
                f"unfinished: {done} of {layout.count} images",
                where=folder,
                hint="extract again; it goes on where it stopped",
            )
        return cls(layout)

    def __len__(self) -> int:
        return self._layout.count

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.folder,)

    def grid(self, stage: int = 0) -> tuple[int, int]:
        """(height, width) of the grid of regions."""
        height, width = self._layout.stages[stage]["grid"]
        return height, width

    def channels(self, stage: int = 0) -> int:
        """Numbers per region."""
        return self._layout.stages[stage]["channels"]

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return len(self) * self._layout.image_bytes

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, stage: int = 0) -> Tensor:
        """Features (B, R, C) of the images at these B indices, in the store's dtype.

        Raises:
            StoreError: the bytes are not those that were written.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"image {wanted.min()} or {wanted.max()} of {len(self)}")
        result = torch.empty(len(wanted), *self._layout.shapes[stage], dtype=self.dtype)
        target = _bits(result).view(np.uint8).reshape(len(wanted), self._layout.stage_bytes[stage])
        for chunk in np.unique(wanted // self._layout.meta["chunk"]).tolist():
            self._check(chunk, stage)
        for position in np.argsort(wanted, kind="stable"):  # in the order of the disk
            self._read_into(target[position], stage, int(wanted[position]) * target.shape[1])
        return result

    def _read_into(self, target: np.ndarray, stage: int, start: int) -> None:
        """Fill an array with the bytes of the stage's file from one on."""
        file, done = self._opened[stage], 0
        while done < len(target):
            count = os.preadv(file.fileno(), [target[done:].data], start + done)
            if not count:
                raise StoreError("has become shorter", where=file.name, hint="extract again")
            done += count

    def _check(self, chunk: int, stage: int) -> None:
        if (chunk, stage) in self._checked:
            return
        if self._checksum(chunk, stage) != self._checksums[chunk][stage]:
            rows = self._layout.images(chunk)
            raise StoreError(
                f"damaged: chunk {chunk} (images {rows.start} to {rows.stop - 1}) is not what was written",
                where=self._layout.files[stage],
                hint=f"unseen stores {self.folder} --hint, then repeat the command; only what is damaged is done again",
            )
        self._checked.add((chunk, stage))

    def _checksum(self, chunk: int, stage: int) -> int:
        rows, size = self._layout.images(chunk), self._layout.stage_bytes[stage]
        piece = np.empty(min(_PIECE, len(rows) * size), dtype=np.uint8)
        found = 0
        for start in range(rows.start * size, rows.stop * size, _PIECE):
            part = piece[: min(_PIECE, rows.stop * size - start)]
            self._read_into(part, stage, start)
            found = zlib.crc32(part.data, found)
        return found

    def verify(self) -> None:
        """Computes every checksum not yet computed; StoreError names the first chunk that differs."""
        for chunk in range(self._layout.chunks):
            for stage in range(len(self.stages)):
                self._check(chunk, stage)


@dataclass(frozen=True)
class StoreState:
    """What :func:`inspect` found of a store.

    Attributes:
        folder: where it lies.
        backbone: name of the network, or of imported features; empty where the description is lost.
        images: in the whole store.
        nbytes: of their features.
        finished: images whose features are there, damaged ones among them.
        damaged: positions of the damaged images.
        problem: what keeps all of it from being read; None where it can be.
    """

    folder: Path
    backbone: str = ""
    images: int = 0
    nbytes: int = 0
    finished: int = 0
    damaged: tuple[int, ...] = ()
    problem: str | None = None

    @property
    def whole(self) -> bool:
        """Nothing of it is missing or damaged."""
        return not self.problem and not self.damaged and self.finished == self.images


def inspect(folder: Path, hint: bool = False, progress: Callable[[int, int], None] | None = None) -> StoreState:
    """Computes every checksum of a store, finished or not.

    Args:
        folder: the store's own.
        hint: drop what is damaged, so that the next extraction (or import) does it again, and only it. A store whose
            description is lost goes as a whole.
        progress: told (chunks checked, chunks in all).
    """
    with locked(folder) if hint else nullcontext():
        try:
            layout = _Layout.read(folder)
        except StoreError as error:
            if hint and error.problem.startswith(
                ("damaged", "no such file")
            ):  # not one that cannot be read, or is newer
                _remove(folder)
            return StoreState(folder, problem=error.problem)
        problem = None
        try:
            layout.check_sizes()
        except StoreError as error:
            problem = error.problem
        if hint:
            for path, per_image in zip(layout.files, layout.stage_bytes, strict=True):
                with path.open("ab") as file:
                    file.truncate(per_image * layout.count)
        finished, damaged = layout.journal(), []
        if hint or problem is None:
            store = RegionStore(layout)
            for done, (chunk, checksums) in enumerate(sorted(finished.items())):
                if [store._checksum(chunk, stage) for stage in range(len(store.stages))] != checksums:
                    damaged.append(chunk)
                if progress is not None:
                    progress(done + 1, len(finished))
        if hint and (damaged or problem):
            layout.write_journal({chunk: found for chunk, found in finished.items() if chunk not in damaged})
        return StoreState(
            folder,
            str(layout.meta["backbone"]["name"]),
            layout.count,
            layout.count * layout.image_bytes,
            sum(len(layout.images(chunk)) for chunk in finished),
            tuple(image for chunk in damaged for image in layout.images(chunk)),
            problem,
        )


def find_stores(folder: Path) -> list[Path]:
    """The store that lies in a folder, or those in a cache folder or among a dataset's imported features."""
    if _is_store(folder):
        return [folder]
    places = (folder, folder / "regions", folder / "features")
    return sorted(below for place in places if place.is_dir() for below in place.iterdir() if _is_store(below))


def _is_store(folder: Path) -> bool:
    """Whether a folder holds a store, perhaps a damaged one; other people's folders may have files of our names."""
    return any(folder.glob("stage*.bin")) and any((folder / name).is_file() for name in (_META, _JOURNAL))


def _is_ours(file: Path) -> bool:
    return file.is_file() and (file.name in (_META, "reduction.safetensors") or bool(_OWN.fullmatch(file.name)))


def _remove(folder: Path) -> None:
    """A store without anything else that lies in its folder."""
    for file in list(folder.iterdir()):
        if _is_ours(file) or is_left_over(file):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


class RegionSource:
    """The regions that training reads: some images of a store, prepared, on a device.

    Prepared features that fit in the budget are computed once and kept on the device; others are read
    and prepared batch by batch. The values are the same.

    Args:
        store: the store.
        indices: the images' indices in the store.
        stage: position of the stage in `store.stages`.
        device: where batches are wanted.
        dtype: dtype that features are prepared in.
        prepare: what is done to features (B, R, C) to give (B, R', C'), image by image and without
            gradients, such as normalising or pooling regions.
        budget_bytes: how much may be kept on the device; None is half of its free memory.

    Attributes:
        resident: whether the features are kept on the device.
        streams: whether batches are read from disk.
        shape: (R', C').
        nbytes: bytes of all prepared features.
    """

    def __init__(
        self,
        store: RegionStore,
        indices: Sequence[int] | np.ndarray | Tensor,
        stage: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        prepare: Callable[[Tensor], Tensor] | None = None,
        budget_bytes: int | None = None,
    ) -> None:
        self._store, self._stage, self._prepare = store, stage, prepare
        self._indices = np.asarray(indices, dtype=np.int64)
        self._device, self._dtype = torch.device(device), dtype
        first = self._compute(self._indices[:1])
        self.shape: tuple[int, ...] = tuple(first.shape[1:])
        self.nbytes = len(self) * math.prod(self.shape) * first.itemsize
        self.resident = self.nbytes <= (free_memory(self._device) // 2 if budget_bytes is None else budget_bytes)
        self.streams = not self.resident
        if self.resident:
            self._kept = first.new_empty(len(self), *self.shape)
            for start in range(0, len(self), 64):
                self._kept[start : start + 64] = self._compute(self._indices[start : start + 64])

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, positions: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Prepared features (B, R', C') of the images at these positions of `indices`."""
        if self.resident:
            return self._kept[torch.as_tensor(positions, dtype=torch.int64, device=self._device)]
        return self._compute(self._indices[np.asarray(torch.as_tensor(positions).cpu(), dtype=np.int64)])

    @torch.no_grad()
    def _compute(self, indices: np.ndarray) -> Tensor:
        regions = self._store.read(indices, self._stage).to(self._device).to(self._dtype)
        return regions if self._prepare is None else self._prepare(regions)


@dataclass(frozen=True)
class _Layout:
    """Where everything in a store lies, finished or not."""

    folder: Path
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        hint = "extract the features again"
        layout = cls(folder, read_json(folder / _META, StoreError, hint))
        try:
            if layout.meta["format"] != _FORMAT:
                raise StoreError(f"format {layout.meta['format']} instead of {_FORMAT}", where=folder, hint=hint)
            layout._check()
        except (LookupError, TypeError, ValueError) as error:
            raise StoreError(f"damaged ({error!r})", where=folder / _META, hint=hint) from None
        return layout

    def _check(self) -> None:
        """Raise LookupError, TypeError or ValueError where an entry is missing or of another kind."""
        meta, sizes = self.meta, [size for s in self.stages for size in (*s["grid"], s["channels"])]
        texts = [meta["fingerprint"], meta["dtype"], *meta["names"], *(s["file"] for s in self.stages)]
        if not all(isinstance(text, str) for text in texts) or any(
            Path(s["file"]).name != s["file"] for s in self.stages
        ):
            raise ValueError("a name is no text")
        if any(type(size) is not int or size < 1 for size in (*sizes, meta["chunk"])):
            raise ValueError("a size is no whole number from 1")
        if not isinstance(meta["backbone"].get("name"), str) or not isinstance(meta["names"], list) or not self.stages:
            raise ValueError("no backbone, names or stages")
        _ = [s["stage"] for s in self.stages], self.image_bytes
        if any(len(s["grid"]) != 2 for s in self.stages):
            raise ValueError("a grid is not of two sides")

    @property
    def stages(self) -> list[dict[str, Any]]:
        return self.meta["stages"]

    @property
    def files(self) -> list[Path]:
        return [self.folder / stage["file"] for stage in self.stages]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return [(stage["grid"][0] * stage["grid"][1], stage["channels"]) for stage in self.stages]

    @property
    def stage_bytes(self) -> list[int]:
        """Bytes per image of each stage."""
        size = _DTYPES[self.meta["dtype"]][0].itemsize
        return [regions * channels * size for regions, channels in self.shapes]

    @property
    def image_bytes(self) -> int:
        return sum(self.stage_bytes)

    @property
    def count(self) -> int:
        return len(self.meta["names"])

    @property
    def chunks(self) -> int:
        return -(-self.count // self.meta["chunk"])

    def images(self, chunk: int) -> range:
        size = self.meta["chunk"]
        return range(chunk * size, min((chunk + 1) * size, self.count))

    def check_sizes(self) -> None:
        for path, per_image in zip(self.files, self.stage_bytes, strict=True):
            size = path.stat().st_size if path.exists() else 0
            if size != per_image * self.count:
                raise StoreError(f"{size} bytes instead of {per_image * self.count}", where=path, hint="extract again")

    def journal(self) -> dict[int, list[int]]:
        """Checksums, one per stage, of the finished chunks; a line torn by a crash counts for nothing."""
        finished: dict[int, list[int]] = {}
        for path in self.journals():
            for line in path.read_bytes().splitlines():
                with suppress(ValueError, LookupError, TypeError):
                    entry = json.loads(line)
                    if entry["chunk"] in range(self.chunks) and len(entry["crc32"]) == len(self.stages):
                        finished[entry["chunk"]] = entry["crc32"]
        return finished

    def journals(self) -> list[Path]:
        """The journal, and those of the other processes of an extraction that is not finished."""
        return sorted(self.folder.glob(f"{_JOURNAL}*"))

    def join_journals(self) -> None:
        """One journal in the order of the chunks, as one process alone would have written it."""
        if self.journals() != [self.folder / _JOURNAL]:
            self.write_journal(self.journal())

    def write_journal(self, finished: Mapping[int, list[int]]) -> None:
        """One journal of these chunks in the place of all."""
        lines = [_journal_line(chunk, checksums) for chunk, checksums in sorted(finished.items())]
        write_with(self.folder / _JOURNAL, lambda temporary: temporary.write_bytes(b"".join(lines)))
        for path in self.journals():
            if path.name != _JOURNAL:
                path.unlink()


def _journal_line(chunk: int, checksums: Sequence[int]) -> bytes:
    return json.dumps({"chunk": chunk, "crc32": checksums}).encode() + b"\n"


class _Images(Dataset[Tensor | DataError]):
    """Images as bytes, a quarter as large to hand over as normalised ones.

    A broken one is handed on as its error, which a worker would garble by raising.
    """

    def __init__(self, files: Sequence[Path], transform: Transform) -> None:
        self.files, self.transform = files, transform

    def __getitem__(self, index: int) -> Tensor | DataError:
        try:
            return self.transform.cropped(self.files[index])
        except DataError as error:
            return error


def _collate(items: list[Tensor | DataError]) -> Tensor | DataError:
    for item in items:
        if isinstance(item, DataError):
            return item
    return torch.stack(items)  # type: ignore[arg-type]


def _start(folder: Path, meta: Mapping[str, Any]) -> tuple[_Layout, dict[int, list[int]]]:
    """The layout to fill and its finished chunks: those of an extraction that stopped, or none."""
    with suppress(StoreError):
        layout = _Layout.read(folder)
        layout.check_sizes()
        if layout.meta["fingerprint"] == meta["fingerprint"]:
            return layout, layout.journal()
    if folder.is_dir():
        _remove(folder)
    if folder.exists():
        raise StoreError("it holds something else", where=folder, hint="choose another name, or move that away")
    folder.mkdir()
    layout = _Layout(folder, meta)
    for path, per_image in zip(layout.files, layout.stage_bytes, strict=True):
        with path.open("wb") as file:
            file.truncate(per_image * layout.count)
    write_json(folder / _META, meta, sealed=True)
    return layout, {}


def _fill(
    layout: _Layout,
    todo: Sequence[int],
    before: int,
    files: Sequence[Path],
    backbone: Backbone,
    batch_size: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Computes and writes the chunks, each one journalled once its bytes are on the disk.

    Progress is told as if the other processes were as far; `before` images were there at the start.
    """
    batches = [
        list(images[start : start + batch_size])
        for images in map(layout.images, todo)
        for start in range(0, len(images), batch_size)
    ]
    device = next(backbone.parameters()).device
    chunk_of = {layout.images(chunk)[-1]: chunk for chunk in todo}
    done, mine = 0, sum(map(len, batches))
    dtype = _DTYPES[layout.meta["dtype"]][0]
    with ExitStack() as stack:
        outputs = [stack.enter_context(path.open("r+b")) for path in layout.files]
        name = _JOURNAL if is_first() else f"{_JOURNAL}.{own_position()}"
        journal = stack.enter_context(_repaired(layout.folder / name))
        checksums = [0] * len(outputs)

        def write(batch: Sequence[int], computed: Callable[[], list[tuple[Tensor, Tensor]]]) -> None:
            for i, ((kept, extremes), output) in enumerate(zip(computed(), outputs, strict=True)):
                _check_finite(extremes, kept, [files[position] for position in batch])
                data = _bits(kept).data.cast("B")
                checksums[i] = zlib.crc32(data, checksums[i])
                output.seek(batch[0] * layout.stage_bytes[i])
                output.write(data)
            if batch[-1] in chunk_of:
                for output in outputs:
                    _sync(output)
                journal.write(_journal_line(chunk_of[batch[-1]], checksums))
                _sync(journal)
                checksums[:] = [0] * len(outputs)

        def finish(batch: Sequence[int], writing: Future[None]) -> None:
            nonlocal done
            writing.result()
            done += len(batch)
            if batch[-1] in chunk_of and progress is not None:
                progress(before + (layout.count - before) * done // mine, layout.count)

        reading = stack.enter_context(closing(_read(files, batches, backbone.transform, workers, device)))
        writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
        last: tuple[Sequence[int], Future[None]] | None = None
        try:
            for batch, pixels in zip(batches, reading, strict=True):
                computed = _compute(backbone, pixels.to(device, non_blocking=True), dtype)
                if last is not None:  # one batch is written while the next is computed
                    finish(*last)
                last = batch, writer.submit(write, batch, computed)
        finally:  # what was computed before an error is kept
            if last is not None:
                finish(*last)


def _read(
    files: Sequence[Path], batches: Sequence[list[int]], transform: Transform, workers: int, device: torch.device
) -> Generator[Tensor]:
    """Bytes (b, 3, H, W) of each batch of images, read ahead by processes, or by threads of this one for 0."""
    if workers:
        loader = DataLoader(
            _Images(files, transform),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
        )
        for found in loader:
            if isinstance(found, DataError):
                raise found
            yield found
        return
    with closing(read_batches(([files[i] for i in batch] for batch in batches), transform, _THREADS)) as read:
        for _, images in read:
            found = _collate(images)
            if isinstance(found, DataError):
                raise found
            yield found


@torch.inference_mode()
def _compute(backbone: Backbone, pixels: Tensor, dtype: torch.dtype) -> Callable[[], list[tuple[Tensor, Tensor]]]:
    """Starts the computation of a batch; the result waits for each stage's regions and their (least, largest)."""
    regions = backbone.regions(pixels)
    found = [(stage.to(dtype).contiguous(), torch.stack(stage.aminmax())) for stage in regions]
    if pixels.device.type != "cuda":
        here = [(kept.cpu(), extremes.cpu()) for kept, extremes in found]
        return lambda: here
    coming = [(k.to("cpu", non_blocking=True), e.to("cpu", non_blocking=True)) for k, e in found]  # to pinned memory
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> list[tuple[Tensor, Tensor]]:
        arrived.synchronize()
        return coming

    return wait


def _check_finite(extremes: Tensor, kept: Tensor, places: Sequence[object]) -> None:
    """Raise a :class:`StoreError` at the first image whose features are no numbers, or none as they are kept.

    Args:
        extremes: the least and the largest of the features (B, R, C), NaN where one of them is.
        kept: the features as they are to be stored.
        places: what the images are called.
    """
    if extremes.to(kept.dtype).isfinite().all():
        return
    row = int(torch.nonzero(~kept.flatten(1).isfinite().all(dim=1))[0])
    largest = extremes.abs().max().item()
    if not math.isfinite(largest):
        raise StoreError(f"a feature is {largest:g}", where=places[row], hint="hint what it comes from")
    kind = str(kept.dtype).removeprefix("torch.")
    problem = f"features as large as {largest:g} do not fit in {kind}"
    raise StoreError(problem, where=places[row], hint="store them as bfloat16 or float32")


def _bits(regions: Tensor) -> np.ndarray:
    """The tensor's memory as an array."""
    return (regions.view(torch.int16) if regions.dtype == torch.bfloat16 else regions).numpy()


def _repaired(path: Path) -> BinaryIO:
    """The journal opened for appending, a torn last line ended so that the next one stands alone."""
    file = path.open("a+b")
    if file.tell() and not path.read_bytes().endswith(b"\n"):
        file.write(b"\n")
    return file


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """A store's folder, this process's alone to write; waits for another."""
    lock = FileLock(store.with_name(f".{store.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("%s: another process is extracting these features; waiting for it", store)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def content_hashes(files: Sequence[Path], cache: Path) -> list[str]:
    """SHA-256 of every file's content, remembered by path, size and times of change."""
    known: dict[str, list[Any]] = {}
    with suppress(UnseenError):
        known = read_json(cache)
    if not isinstance(known, dict):
        known = {}
    now = time.time_ns()
    fresh: dict[str, list[Any]] = {}

    def digest(file: Path) -> str:
        try:
            stat, key = os.stat(file), os.path.abspath(file)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = known.get(key)
            if entry is not None and entry[:3] == state:
                return entry[3]
            with open(file, "rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=file) from None
        if max(stat.st_mtime_ns, stat.st_ctime_ns) < now - _RACY_NS:
            fresh[key] = [*state, found]
        return found

    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(digest, files))
    if fresh:
        with suppress(UnseenError):  # a cache that cannot be written is done without
            write_json(cache, dict(sorted((known | fresh).items())), sealed=True)
    return hashes


def free_memory(device: torch.device) -> int:
    """Bytes free on a device; of the machine's memory this process's share of what its control group leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(min(psutil.virtual_memory().available, _allowed_memory())) // local_processes()


def _allowed_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the control groups of this process (a container, a Slurm job) leave it; infinite without a limit."""
    least = math.inf
    with suppress(OSError, ValueError, IndexError):
        group = root / own.read_text().partition("0::")[2].splitlines()[0].lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                limit = int((folder / "memory.max").read_text())
                used = int((folder / "memory.current").read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                least = min(least, max(0, limit - used + int(stat["file"])))  # cached files give way
            if folder == root:
                break
    return least


def _disk_full(folder: Path, needed: int, free: int) -> StoreError:
    return StoreError(
        f"the disk has {free / 1e6:,.1f} MB free and {needed / 1e6:,.1f} MB more are needed",
        where=folder,
        hint="make room or choose another cache folder; what is done is kept",
    )
