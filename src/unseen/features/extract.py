"""Extraction: run a frozen network on every image once, and store the features."""

import errno
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unseen.backbones.backbone import Backbone
from unseen.backbones.engines import available_labels, is_auto
from unseen.backbones.transform import Transform
from unseen.backbones.vision import timm
from unseen.errors import DataError, StoreError
from unseen.features.hashes import content_hashes
from unseen.features.layout import (
    FORMAT,
    JOURNAL,
    Layout,
    bits,
    check_finite,
    disk_full,
    finished_chunk,
    locked,
    start_layout,
    sync,
    torch_dtype,
)
from unseen.features.reading import read_batches, stacked
from unseen.features.store import RegionStore, finished_store
from unseen.ground.devices import find_device
from unseen.ground.distributed import first_before_others, is_first, local_processes, part, processes, wait_for_all
from unseen.ground.distributed import position as own_position
from unseen.ground.journal import Journal
from unseen.ground.threads import plain_threads
from unseen.ground.words import counted

_THREADS = 2  # threads that read images if no processes do


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction is about to do.

    Attributes:
        folder: folder of the store.
        images: number of images in the store.
        todo: number of images without features.
        nbytes: size of the finished store.
        needed: bytes to write.
        free: free bytes on the disk.
        seconds: estimated time, from a few images timed beforehand; None if it is short.
    """

    folder: Path
    images: int
    todo: int
    nbytes: int
    needed: int
    free: int
    seconds: float | None = None

    def __str__(self) -> str:
        """Readable summary before it starts."""
        disk = f"{self.needed / 1e9:,.1f} GB to write, {self.free / 1e9:,.1f} GB free"
        time = "" if self.seconds is None else f", {duration(self.seconds)}"
        return f"{counted(self.todo, 'image')}, {disk}{time}"


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
    engine: str | None = None,
    earlier: str | None = None,
    tick: Callable[[int, int], None] | None = None,
    on_plan: Callable[[ExtractionPlan], None] | None = None,
) -> "RegionStore":
    """Compute the region features of images, or only the missing ones, and open their store.

    The store's folder is named by a fingerprint of the images' content, names and order, the backbone with its weights
    and transform, and the dtype, and by the engine that computes it, so a store of something else is never used. An
    extraction that was killed resumes at the first unfinished chunk, with its engine.

    Args:
        files: the images.
        backbone: the network; moves to `device`.
        folder: cache root, shared by all stores.
        names: one name per image, as in the dataset.
        dtype: "float16", "bfloat16" or "float32".
        batch_size: images per forward pass, and per chunk of a new store.
        workers: processes that read images; 0 reads them in threads of this process; -1 chooses: up to 8 for a GPU, 0
            for a CPU.
        device: where the network runs; see :func:`unseen.ground.devices.find_device`.
        engine: engine of the network, see :func:`unseen.backbones.engines.chosen_engine`. With "auto", a store that
            another engine has finished is used as it is, and one that it has started is finished with it.
        earlier: the store to prefer among these: that of an earlier run, by its manifest.
        tick: called with (images done, all images) after every chunk.
        on_plan: called with the plan before it starts.

    Several processes (:mod:`unseen.ground.distributed`) share the chunks; all of them must see the folder.
    """
    torch_dtype(dtype)
    if len(names) != len(files):
        raise ValueError(f"{counted(len(names), 'name')} for {counted(len(files), 'file')}")
    if not files:
        raise DataError("no images for feature extraction")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = find_device(device)
    workers = chosen_workers(workers, device)
    with first_before_others():
        hashes = content_hashes(files, folder / "hashes.json")
    identity = store_fingerprint(backbone.fingerprint, dtype, names, hashes)
    backbone.to(device).use(engine, folder.parent)
    with first_before_others():
        label = chosen_label(folder, identity, backbone, engine, earlier)
    store, fingerprint = folder / store_name(identity, label), engine_fingerprint(identity, label)
    if processes() == 1 and (found := finished_store(store, fingerprint)) is not None:
        if on_plan is not None:
            on_plan(ExtractionPlan(store, len(found), 0, found.nbytes, 0, shutil.disk_usage(store).free))
        return found
    if label != backbone.engine.label:
        backbone.use((label or "torch").split()[0], folder.parent)
    if backbone.ready().label != label:  # "auto" has fallen back to torch
        label = backbone.engine.label
        store, fingerprint = folder / store_name(identity, label), engine_fingerprint(identity, label)
    meta = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "backbone": backbone.spec.to_json(),
        "engine": label,
        "dtype": dtype,
        "chunk": batch_size,
        "stages": [
            {"stage": stage, "file": f"stage{i}.bin", "grid": list(grid), "channels": sum(parts)}
            | ({"parts": list(parts)} if len(parts) > 1 else {})
            for i, (stage, grid, parts) in enumerate(
                zip(backbone.spec.stages, backbone.grids, backbone.parts, strict=True)
            )
        ],
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "names": list(names),
    }
    with locked(store) if is_first() else nullcontext():
        with first_before_others():
            layout, finished = start_layout(store, meta)
        wait_for_all()  # until all processes know what is finished
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
            raise disk_full(store, needed, free)
        if mine:
            try:
                _fill(layout, mine, layout.count - left, files, backbone, batch_size, workers, tick)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                left = sum(len(layout.images(c)) for c in todo if c not in layout.journal())
                raise disk_full(store, left * layout.image_bytes, shutil.disk_usage(store).free) from None
        wait_for_all()
        with first_before_others():
            layout.join_journals()
        return RegionStore.open(store)


def store_fingerprint(backbone: str, dtype: str, names: Sequence[str], hashes: Sequence[str]) -> str:
    """SHA-256 of what determines features: fingerprint of a backbone, dtype, and images by name and content."""
    images = list(zip(names, hashes, strict=True))
    facts = {"format": FORMAT, "backbone": backbone, "dtype": dtype, "images": images}
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def engine_fingerprint(identity: str, label: str | None) -> str:
    """Fingerprint of a store: what determines its features, and the engine (:attr:`Engine.label`)."""
    return identity if label is None else hashlib.sha256(f"{identity} {label}".encode()).hexdigest()


def store_name(identity: str, label: str | None) -> str:
    """Folder name of a store; those of other engines have the same prefix."""
    return "-".join([identity[:16], *(label or "").split()])


def chosen_label(
    folder: Path, identity: str, backbone: Backbone, engine: str | None = None, earlier: str | None = None
) -> str | None:
    """Label of the engine whose store is used: that of `backbone.engine`, unless "auto" finds another one."""
    own = backbone.engine.label
    if not is_auto(engine):
        return own
    begun: list[str | None] = []
    finished: list[str | None] = []
    for place in sorted(folder.glob(f"{identity[:16]}*")):
        with suppress(StoreError):
            layout = Layout.read(place)
            layout.check_sizes()
            label = layout.meta["engine"]
            if layout.meta["fingerprint"] == engine_fingerprint(identity, label):
                (finished if len(layout.journal()) == layout.chunks else begun).append(label)
    here = available_labels(backbone.device)
    first = [None if earlier.startswith("torch") else earlier] if earlier else []
    wanted = (*first, own, None, *(label for label in finished if label and "bf16" not in label))
    whole = [label for label in wanted if label in finished]
    resumable = [label for label in (own, *begun) if label in begun and label in here]
    return [*whole, *resumable, own][0]


def chosen_workers(workers: int, device: torch.device) -> int:
    """Number of processes that read images: as requested; for -1 up to 8 for a GPU, none for a CPU, which is busy."""
    if workers >= 0:
        return workers
    return max(1, min(8, _processors() // local_processes())) if device.type == "cuda" else 0


def _processors() -> int:
    """Number of CPUs that this process may use, if the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _estimate(
    files: Sequence[Path], backbone: Backbone, batch_size: int, workers: int, device: str | torch.device
) -> float | None:
    """Estimated seconds for images, from a few of them; None if they are done soon anyway."""
    if len(files) < 8 * batch_size:
        return None
    backbone = backbone.to(device)
    started = time.monotonic()
    pixels = torch.stack([backbone.transform.cropped(file) for file in files[:4]])
    reading = (time.monotonic() - started) / len(pixels)
    size = batch_size if torch.device(device).type == "cuda" else len(pixels)
    batch = pixels[torch.arange(size) % len(pixels)].to(device)
    for trial in (batch[:1], batch):  # the first one is slower
        started = time.monotonic()
        _ = [regions.cpu() for regions in backbone.regions(trial)]
    network = (time.monotonic() - started) / size
    return len(files) * (max(reading / workers, network) if workers else reading + network)


def duration(seconds: float) -> str:
    """Readable duration: "about 2 h 10 min", "about 3 min", "less than a minute"."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours and not minutes:
        return "less than a minute"
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"


def _fill(
    layout: Layout,
    todo: Sequence[int],
    before: int,
    files: Sequence[Path],
    backbone: Backbone,
    batch_size: int,
    workers: int,
    tick: Callable[[int, int], None] | None,
) -> None:
    """Compute and write the chunks; each is journaled once its bytes are on disk.

    Progress assumes that other processes are as far; `before` images existed at the start.
    """
    batches = [
        list(images[start : start + batch_size])
        for images in map(layout.images, todo)
        for start in range(0, len(images), batch_size)
    ]
    device = next(backbone.parameters()).device
    chunk_of = {layout.images(chunk)[-1]: chunk for chunk in todo}
    done, mine = 0, sum(map(len, batches))
    dtype = torch_dtype(layout.meta["dtype"])
    with ExitStack() as stack:
        outputs = [stack.enter_context(path.open("r+b")) for path in layout.files]
        name = JOURNAL if is_first() else f"{JOURNAL}.{own_position()}"
        journal = stack.enter_context(Journal(layout.folder / name))
        checksums = [0] * len(outputs)

        def write(batch: Sequence[int], computed: Callable[[], list[tuple[Tensor, Tensor]]]) -> None:
            for i, ((kept, extremes), output) in enumerate(zip(computed(), outputs, strict=True)):
                check_finite(extremes, kept, [files[position] for position in batch])
                data = bits(kept).data.cast("B")
                checksums[i] = zlib.crc32(data, checksums[i])
                output.seek(batch[0] * layout.stage_bytes[i])
                output.write(data)
            if batch[-1] in chunk_of:
                for output in outputs:
                    sync(output)
                journal.append(finished_chunk(chunk_of[batch[-1]], checksums))
                checksums[:] = [0] * len(outputs)

        def finish(batch: Sequence[int], writing: Future[None]) -> None:
            nonlocal done
            writing.result()
            done += len(batch)
            if batch[-1] in chunk_of and tick is not None:
                tick(before + (layout.count - before) * done // mine, layout.count)

        reading = stack.enter_context(closing(_read(files, batches, backbone.transform, workers, device)))
        writer = stack.enter_context(plain_threads(1, "store"))
        last: tuple[Sequence[int], Future[None]] | None = None
        try:
            for batch, pixels in zip(batches, reading, strict=True):
                computed = _compute(backbone, pixels.to(device, non_blocking=True), dtype)
                if last is not None:  # write one batch while computing the next
                    finish(*last)
                last = batch, writer.submit(write, batch, computed)
        finally:  # keep what was computed before an error
            if last is not None:
                finish(*last)


def _read(
    files: Sequence[Path], batches: Sequence[list[int]], transform: Transform, workers: int, device: torch.device
) -> Generator[Tensor]:
    """Bytes (b, 3, H, W) of each batch of images, read ahead by processes, or by threads of this process for 0."""
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


class _Images(Dataset[Tensor | DataError]):
    """Images as bytes, which take a quarter of the memory of normalized ones.

    A broken image is returned as its error, because raising in a worker would garble it.
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
    return stacked([item for item in items if isinstance(item, Tensor)])


@torch.inference_mode()
def _compute(backbone: Backbone, pixels: Tensor, dtype: torch.dtype) -> Callable[[], list[tuple[Tensor, Tensor]]]:
    """Start the computation of a batch; the result waits for each stage's regions and their (least, largest)."""
    regions = backbone.regions(pixels)

    def convert() -> list[tuple[Tensor, Tensor]]:
        return [(stage.to(dtype).contiguous(), torch.stack(stage.aminmax())) for stage in regions]

    if pixels.device.type == "cpu":
        return convert
    found = convert()
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
