"""Files of a region store: its description, one file of numbers per stage, and the journal of finished chunks."""

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from unseen.errors import StoreError
from unseen.ground.files import is_left_over, read_json, write_json, write_with
from unseen.ground.journal import intact_records, journal_line

FORMAT = 1
META, JOURNAL = "store.json", "journal.jsonl"
# NumPy has no bfloat16, so its bits are stored as int16
DTYPES = {
    "float16": (torch.float16, np.float16),
    "bfloat16": (torch.bfloat16, np.int16),
    "float32": (torch.float32, np.float32),
}
_OWN = re.compile(r"stage\d+\.bin|journal\.jsonl.*")
_log = logging.getLogger(__name__)


def torch_dtype(name: str) -> torch.dtype:
    """Type of a store's features by its name; StoreError lists the known ones."""
    if name not in DTYPES:
        raise StoreError(f'unknown type "{name}"', where="store dtype", hint=f"use one of {', '.join(DTYPES)}")
    return DTYPES[name][0]


@dataclass(frozen=True)
class Layout:
    """Paths and sizes of everything in a store, finished or not."""

    folder: Path
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and validate a description; StoreError tells what is wrong."""
        hint = "extract the features again"
        from unseen.features.description import Description
        from unseen.ground.checked import checked

        meta = read_json(folder / META, StoreError, hint)
        if isinstance(meta, dict) and (found := meta.get("format", FORMAT)) != FORMAT:
            raise StoreError(f"format {found} instead of {FORMAT}", where=folder, hint=hint)
        try:
            checked(Description, meta, folder / META, error=StoreError, hint=hint)
        except StoreError as error:
            raise StoreError(f"damaged ({error.problem})", where=error.where, hint=hint) from None
        return cls(folder, meta)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """File, grid and channels of each stage."""
        result: list[dict[str, Any]] = self.meta["stages"]
        return result

    @property
    def files(self) -> list[Path]:
        """One file of features per stage."""
        return [self.folder / stage["file"] for stage in self.stages]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(R, C) of each stage."""
        return [(stage["grid"][0] * stage["grid"][1], stage["channels"]) for stage in self.stages]

    @property
    def stage_bytes(self) -> list[int]:
        """Bytes per image of each stage."""
        size = DTYPES[self.meta["dtype"]][0].itemsize
        return [regions * channels * size for regions, channels in self.shapes]

    @property
    def image_bytes(self) -> int:
        """Bytes per image of all stages."""
        return sum(self.stage_bytes)

    @property
    def count(self) -> int:
        """Number of images in the whole store."""
        return len(self.meta["names"])

    @property
    def chunks(self) -> int:
        """Number of chunks in which images are computed and checked."""
        result: int = -(-self.count // self.meta["chunk"])
        return result

    def images(self, chunk: int) -> range:
        """Image positions of a chunk."""
        size = self.meta["chunk"]
        return range(chunk * size, min((chunk + 1) * size, self.count))

    def check_sizes(self) -> None:
        """Raise StoreError if a file has not the size of its features."""
        for path, per_image in zip(self.files, self.stage_bytes, strict=True):
            size = path.stat().st_size if path.exists() else 0
            if size != per_image * self.count:
                raise StoreError(f"{size} bytes instead of {per_image * self.count}", where=path, hint="extract again")

    def journal(self) -> dict[int, list[int]]:
        """Checksums, one per stage, of the finished chunks; ignores a line torn by a crash."""
        finished: dict[int, list[int]] = {}
        for path in self.journals():
            for entry in intact_records(path):
                with suppress(LookupError, TypeError):
                    if entry["chunk"] in range(self.chunks) and len(entry["crc32"]) == len(self.stages):
                        finished[entry["chunk"]] = entry["crc32"]
        return finished

    def journals(self) -> list[Path]:
        """The journal, and those of other processes of an unfinished extraction."""
        return sorted(self.folder.glob(f"{JOURNAL}*"))

    def join_journals(self) -> None:
        """Merge journals into one in chunk order, as a single process would have written it."""
        if self.journals() != [self.folder / JOURNAL]:
            self.write_journal(self.journal())

    def write_journal(self, finished: Mapping[int, list[int]]) -> None:
        """Replace all journals by one with these chunks."""
        lines = [journal_line(finished_chunk(chunk, checksums)) for chunk, checksums in sorted(finished.items())]
        write_with(self.folder / JOURNAL, lambda temporary: temporary.write_bytes(b"".join(lines)))
        for path in self.journals():
            if path.name != JOURNAL:
                path.unlink()


def start_layout(folder: Path, meta: Mapping[str, Any]) -> tuple[Layout, dict[int, list[int]]]:
    """The layout to fill and its finished chunks: those of a stopped extraction, or none."""
    with suppress(StoreError):
        layout = Layout.read(folder)
        layout.check_sizes()
        if layout.meta["fingerprint"] == meta["fingerprint"]:
            return layout, layout.journal()
    if folder.is_dir():
        remove_store(folder)
    if folder.exists():
        raise StoreError(
            "the folder holds something else", where=folder, hint="choose another name, or move that folder"
        )
    folder.mkdir()
    layout = Layout(folder, meta)
    for path, per_image in zip(layout.files, layout.stage_bytes, strict=True):
        with path.open("wb") as file:
            file.truncate(per_image * layout.count)
    write_json(folder / META, meta, sealed=True)
    return layout, {}


def finished_chunk(chunk: int, checksums: Sequence[int]) -> dict[str, Any]:
    """Journal record of a finished chunk, with one checksum per stage."""
    return {"chunk": chunk, "crc32": list(checksums)}


def sync(file: BinaryIO) -> None:
    """Wait until the disk has what was written."""
    file.flush()
    os.fsync(file.fileno())


def remove_store(folder: Path) -> None:
    """Remove everything from a store's folder that does not belong to it."""
    for file in list(folder.iterdir()):
        if _is_ours(file) or is_left_over(file):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _is_ours(file: Path) -> bool:
    return file.is_file() and (file.name in (META, "reduction.safetensors") or bool(_OWN.fullmatch(file.name)))


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Lock a store's folder for writing; waits for another process."""
    lock = FileLock(store.with_name(f".{store.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("%s: waiting for another process that extracts these features", store)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_finite(extremes: Tensor, kept: Tensor, places: Sequence[object]) -> None:
    """Raise a :class:`StoreError` for the first image whose features are not finite, or not in the stored dtype.

    Args:
        extremes: smallest and largest of the features (B, R, C), NaN if one of them is.
        kept: features in the stored dtype.
        places: names of the images.
    """
    if extremes.to(kept.dtype).isfinite().all():
        return
    row = int(torch.nonzero(~kept.flatten(1).isfinite().all(dim=1))[0])
    largest = extremes.abs().max().item()
    if not math.isfinite(largest):
        raise StoreError(f"a feature value is {largest:g}", where=places[row], hint="fix its source")
    kind = str(kept.dtype).removeprefix("torch.")
    problem = f"feature values up to {largest:g} overflow {kind}"
    raise StoreError(problem, where=places[row], hint="pass --store-dtype bfloat16 or float32")


def bits(regions: Tensor) -> np.ndarray:
    """Memory of the tensor as an array."""
    return (regions.view(torch.int16) if regions.dtype == torch.bfloat16 else regions).numpy()


def disk_full(folder: Path, needed: int, free: int) -> StoreError:
    """Error for a disk with too few free bytes."""
    return StoreError(
        f"the disk has {free / 1e6:,.1f} MB free and {needed / 1e6:,.1f} MB more are needed",
        where=folder,
        hint="free some disk space or choose another cache folder; finished work is kept",
    )
