"""The region store: features of every image, computed once, stored on disk and read batch by batch."""

import errno
import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unseen.errors import StoreError
from unseen.features.layout import (
    DTYPES,
    FORMAT,
    JOURNAL,
    META,
    Layout,
    bits,
    check_finite,
    disk_full,
    finished_chunk,
    locked,
    remove_store,
    start_layout,
    sync,
    torch_dtype,
)
from unseen.ground.distributed import is_first
from unseen.ground.journal import Journal
from unseen.ground.words import counted

_PIECE = 1 << 20  # bytes per checksum update


class RegionStore:
    """A finished store of region features, read from disk image by image.

    Nothing is memory-mapped, so the memory of a process does not grow with what it has read. A chunk's checksum is
    verified before its first image is read.

    Attributes:
        folder: folder of the store.
        names: names of the images, in order.
        stages: stored backbone stages; arguments below refer to their positions here.
        dtype: dtype of the features.
        fingerprint: SHA-256 of what determines the features.
        backbone: spec of the backbone as JSON.
        engine: engine that computed the features, such as "openvino 2026.4.1"; None for torch and for imported ones.
        prepared: pooled features that sources have in common, and which images they hold.
    """

    def __init__(self, layout: "Layout") -> None:
        self._layout = layout
        self.folder = layout.folder
        self.names: list[str] = layout.meta["names"]
        self.stages: tuple[str | int, ...] = tuple(s["stage"] for s in layout.stages)
        self.dtype: torch.dtype = DTYPES[layout.meta["dtype"]][0]
        self.fingerprint: str = layout.meta["fingerprint"]
        self.backbone: Mapping[str, Any] = layout.meta["backbone"]
        self.engine: str | None = layout.meta["engine"]
        self._opened = [path.open("rb", buffering=0) for path in layout.files]
        self._checksums = layout.journal()
        self._checked: set[tuple[int, int]] = set()
        self._position = threading.Lock()
        self.prepared: dict[Any, tuple[torch.Tensor, np.ndarray]] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a store; StoreError if it is unfinished or truncated."""
        layout = Layout.read(Path(folder))
        layout.check_sizes()
        finished = layout.journal()
        if len(finished) < layout.chunks:
            done = sum(len(layout.images(chunk)) for chunk in finished)
            raise StoreError(
                f"unfinished: {done} of {counted(layout.count, 'image')}",
                where=folder,
                hint="repeat the extraction to resume",
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
        """Number of channels per region."""
        result: int = self._layout.stages[stage]["channels"]
        return result

    def parts(self, stage: int = 0) -> tuple[int, ...]:
        """Channels of each map that the stage joins; one number where it joins none."""
        return tuple(self._layout.stages[stage].get("parts") or [self.channels(stage)])

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return len(self) * self._layout.image_bytes

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, stage: int = 0) -> Tensor:
        """Features (B, R, C) of the images at these B indices, in the store's dtype.

        Raises:
            StoreError: the bytes differ from those that were written.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"image {wanted.min()} or {wanted.max()} of {len(self)}")
        result = torch.empty(len(wanted), *self._layout.shapes[stage], dtype=self.dtype)
        target = bits(result).view(np.uint8).reshape(len(wanted), self._layout.stage_bytes[stage])
        for chunk in np.unique(wanted // self._layout.meta["chunk"]).tolist():
            self._check(chunk, stage)
        for position in np.argsort(wanted, kind="stable"):  # in disk order
            self._read_into(target[position], stage, int(wanted[position]) * target.shape[1])
        return result

    def _read_into(self, target: np.ndarray, stage: int, start: int) -> None:
        """Fill an array with bytes of the stage's file, from an offset on."""
        file, done = self._opened[stage], 0
        while done < len(target):
            if hasattr(os, "preadv"):
                count: int | None = os.preadv(file.fileno(), [target[done:].data], start + done)
            else:  # Windows; the file has one position, so one thread at a time
                with self._position:
                    file.seek(start + done)
                    count = file.readinto(target[done:].data)
            if not count:
                raise StoreError("is truncated", where=file.name, hint="extract again")
            done += count

    def _check(self, chunk: int, stage: int) -> None:
        if (chunk, stage) in self._checked:
            return
        if self._checksum(chunk, stage) != self._checksums[chunk][stage]:
            rows = self._layout.images(chunk)
            raise StoreError(
                f"damaged: chunk {chunk} (images {rows.start} to {rows.stop - 1}) has a wrong checksum",
                where=self._layout.files[stage],
                hint=f"unseen stores {self.folder} --fix, then repeat the command; only damaged chunks are "
                "computed again",
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
        """Verify every checksum not verified yet; StoreError names the first chunk that differs."""
        for chunk in range(self._layout.chunks):
            for stage in range(len(self.stages)):
                self._check(chunk, stage)


def finished_store(folder: Path, fingerprint: str) -> "RegionStore | None":
    """A complete store with this fingerprint; needs no lock, since its folder may be read-only."""
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
    engine: str | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> "RegionStore":
    """Fill a store with features computed elsewhere, or with the missing ones, and open it.

    Holds one chunk in memory. A store that was stopped continues at the first unfinished chunk.

    Args:
        folder: folder of the store.
        read: returns the features (b, R, C) of the images from one position up to another.
        names: one name per image.
        grid: (height, width) of the grid of regions.
        channels: C.
        source: origin and file of the features; JSON.
        dtype: "float16", "bfloat16" or "float32".
        chunk: images per read.
        fingerprint: fingerprint of the features; by default from the other arguments.
        engine: engine that computed them, see :attr:`RegionStore.engine`.
        tick: called with (images done, all images) after every chunk.
    """
    facts = {"format": FORMAT, "source": dict(source), "dtype": dtype, "images": list(names), "grid": list(grid)}
    fingerprint = fingerprint or hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    meta = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "backbone": dict(source),
        "engine": engine,
        "dtype": dtype,
        "chunk": chunk,
        "stages": [{"stage": "final", "file": "stage0.bin", "grid": list(grid), "channels": channels}],
        "versions": {"torch": torch.__version__},
        "names": list(names),
    }
    if is_first() and (whole := finished_store(folder, str(meta["fingerprint"]))) is not None:
        return whole
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        layout, finished = start_layout(folder, meta)
        todo = [index for index in range(layout.chunks) if index not in finished]
        needed, free = sum(len(layout.images(i)) for i in todo) * layout.image_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise disk_full(folder, needed, free)
        try:
            with layout.files[0].open("r+b") as output, Journal(folder / JOURNAL) as journal:
                for index in todo:
                    rows = layout.images(index)
                    regions = torch.from_numpy(np.ascontiguousarray(read(rows.start, rows.stop)))
                    kept = regions.to(torch_dtype(dtype))
                    check_finite(torch.stack(regions.aminmax()), kept, [f"row {i + 1} ({names[i]})" for i in rows])
                    data = bits(kept).data.cast("B")
                    output.seek(rows.start * layout.image_bytes)
                    output.write(data)
                    sync(output)
                    journal.append(finished_chunk(index, [zlib.crc32(data)]))
                    if tick is not None:
                        tick(rows.stop, layout.count)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise disk_full(folder, needed, shutil.disk_usage(folder).free) from None
        return RegionStore.open(folder)


@dataclass(frozen=True)
class StoreState:
    """State of a store, from :func:`inspect`.

    Attributes:
        folder: folder of the store.
        backbone: name of the network, or of imported features; empty if the description is lost.
        images: number of images.
        nbytes: bytes of their features.
        finished: number of images with features, including damaged ones.
        damaged: positions of the damaged images.
        problem: what prevents reading all of it; None if nothing does.
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
        """Whether nothing is missing or damaged."""
        return not self.problem and not self.damaged and self.finished == self.images


def inspect(folder: Path, fix: bool = False, tick: Callable[[int, int], None] | None = None) -> StoreState:
    """Verify every checksum of a store, finished or not.

    Args:
        folder: folder of the store.
        fix: drop what is damaged, so that only this is computed (or imported) again. A store without description is
            removed.
        tick: called with (chunks checked, all chunks).
    """
    with locked(folder) if fix else nullcontext():
        try:
            layout = Layout.read(folder)
        except StoreError as error:
            if fix and error.problem.startswith(
                ("damaged", "no such file")
            ):  # not one that cannot be read, or is newer
                remove_store(folder)
            return StoreState(folder, problem=error.problem)
        problem = None
        try:
            layout.check_sizes()
        except StoreError as error:
            problem = error.problem
        if fix:
            for path, per_image in zip(layout.files, layout.stage_bytes, strict=True):
                with path.open("ab") as file:
                    file.truncate(per_image * layout.count)
        finished, damaged = layout.journal(), []
        if fix or problem is None:
            store = RegionStore(layout)
            for done, (chunk, checksums) in enumerate(sorted(finished.items())):
                if [store._checksum(chunk, stage) for stage in range(len(store.stages))] != checksums:
                    damaged.append(chunk)
                if tick is not None:
                    tick(done + 1, len(finished))
        if fix and (damaged or problem):
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
    """The store in a folder, or those in a cache folder or among a dataset's imported features."""
    if _is_store(folder):
        return [folder]
    places = (folder, folder / "regions", folder / "features")
    return sorted(below for place in places if place.is_dir() for below in place.iterdir() if _is_store(below))


def _is_store(folder: Path) -> bool:
    """Whether a folder holds a store, possibly a damaged one; foreign folders may have files of the same names."""
    return any(folder.glob("stage*.bin")) and any((folder / name).is_file() for name in (META, JOURNAL))
