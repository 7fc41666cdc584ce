"""Training from region stores of growing size: steps per second and memory, starting with an empty page cache.

    python -m benchmarks.large_store FOLDER [--sizes 2 8 22] [--steps 24] [--output FILE]

Stores of generated float16 features, AWA2's 14 x 14 regions of 2048 channels, are made one after another in FOLDER by
the store's own writer, used by MSDN for training from disk with a batch of 50, and deleted. The extraction uses a
backbone that does nothing, so its memory is that of reading and writing. The training keeps no features (a budget of 0
bytes), and the store is dropped from the system's page cache before it starts; it is compared with the same training on
256 images in memory. Each runs in its own process. The result is the median over the last three quarters of the steps.
What matters is the time that a step waits for its images: the rest depends on the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.transform import Transform
from unseen.features.extract import extract
from unseen.features.source import RegionSource
from unseen.features.store import RegionStore
from unseen.methods import ClassSpace, create_method, find_method
from unseen.training import batches, engine
from unseen.training.engine import Training, train
from unseen.training.fabric import make_fabric

GRID, CHANNELS, BATCH, CLASSES, ATTRIBUTES = 14, 2048, 50, 50, 85
IMAGE_BYTES = GRID * GRID * CHANNELS * 2


def status(field: str) -> float:
    """An entry of this process's memory in MB: VmHWM (peak), VmRSS (now)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


class Generator(Backbone):
    """A backbone whose features depend on the image's first pixel, at no cost."""

    def __init__(self, transform: Transform) -> None:
        super().__init__(BackboneSpec("test_resnet", image_size=64, weights="random"))
        self.transform, self.fingerprint = transform, "generated"
        self.grids, self.channels, self.parts = [(GRID, GRID)], [CHANNELS], [(CHANNELS,)]
        self.base = torch.randn(2 * GRID * GRID, CHANNELS, generator=torch.Generator().manual_seed(0)).half()

    def regions(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        starts = (self.transform.normalized(pixels)[:, 0, 0, 0] * 64).long() % (GRID * GRID)
        return [torch.stack([self.base[s : s + GRID * GRID] for s in starts.tolist()])]


def fill(folder: Path, count: int) -> dict[str, Any]:
    """A store of ``count`` generated images; rate and memory of its extraction."""
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    files = [images / f"{i:06}.png" for i in range(count)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (GRID, GRID, 3), dtype=np.uint8)).save(file)
    backbone = Generator(Transform(GRID, (0.0,) * 3, (1.0,) * 3))
    plans: list[Any] = []
    before, started = status("VmRSS"), time.monotonic()
    store = extract(
        files, backbone, folder / "regions", names=[f.name for f in files], engine="torch", on_plan=plans.append
    )
    seconds = time.monotonic() - started
    assert store.nbytes == count * IMAGE_BYTES
    shutil.rmtree(images)
    return {
        "store": str(store.folder),
        "says": str(plans[0]),
        "mb_per_second": round(store.nbytes / 1e6 / seconds, 1),
        "memory_before_mb": round(before),
        "memory_peak_mb": round(status("VmHWM")),
    }


def drop_cache(store: Path) -> None:
    """Drop a store's files from the system's page cache."""
    for file in store.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, steps: int, resident: bool) -> dict[str, Any]:
    """Train from a store; the first quarter of the steps is not timed."""
    store = RegionStore.open(folder)
    count = len(store)
    fabric = make_fabric("cpu")
    kind = find_method("msdn")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES - 10, count)
    classes = ClassSpace(
        torch.from_numpy(rng.random((CLASSES, ATTRIBUTES))).float(), torch.arange(CLASSES) < CLASSES - 10
    )
    vectors = torch.from_numpy(rng.standard_normal((ATTRIBUTES, 300))).float()
    preset = kind.presets["awa2"]
    assert preset.recipe is not None
    recipe = type(preset.recipe)(epochs=1, batch_size=BATCH, batches=steps, lr=1e-5)
    method: Any = create_method("msdn", channels=CHANNELS, vectors=vectors, settings=preset.settings, seed=0)
    read_before = psutil.Process().io_counters().read_bytes
    indices = np.arange(256) if resident else np.arange(count)
    source = RegionSource(store, indices, prepare=kind.prepare, budget_bytes=2**62 if resident else 0)
    before, times, used, waits = status("VmRSS"), [time.monotonic()], [time.process_time()], []

    def tick(task: str, done: int, total: int, note: str = "") -> None:
        times.append(time.monotonic())
        used.append(time.process_time())

    def timed(*arguments: Any, real: Any = batches.ahead) -> Iterator[Any]:
        found, started = real(*arguments), time.monotonic()
        for batch in found:
            waits.append(time.monotonic() - started)
            yield batch
            started = time.monotonic()

    vars(engine)["ahead"] = timed  # the name under which the engine calls it
    with tempfile.TemporaryDirectory() as temporary:
        job = Training(method, source, labels[: len(indices)], classes, recipe, 0, 1)
        train(job, fabric, Path(temporary), progress=tick, checkpoint_seconds=1e9)
    taken, cpu = (np.diff(clock[: steps + 1])[steps // 4 :] for clock in (times, used))
    return {
        "seconds_per_step": round(float(np.median(taken)), 3),
        "steps_per_second": round(1 / float(np.median(taken)), 3),
        "cpu_seconds_per_step": round(float(np.median(cpu)), 3),
        "seconds_waiting_per_step": round(float(np.mean(waits[steps // 4 :])), 3),
        "gb_read": round((psutil.Process().io_counters().read_bytes - read_before) / 1e9, 2),
        "memory_before_mb": round(before),
        "memory_peak_mb": round(status("VmHWM")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=float, nargs="+", default=[2, 8, 22], help="sizes of the stores in GB")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=("disk", "memory"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.fill:
        print(json.dumps(fill(asked.folder, asked.fill)))
        return
    if asked.measure:
        print(json.dumps(measure(asked.folder, asked.steps, asked.measure == "memory")))
        return

    def child(folder: Path, *options: str) -> dict[str, Any]:
        command = [sys.executable, __file__, str(folder), "--steps", str(asked.steps), *options]
        found: dict[str, Any] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
        return found

    rows = []
    for size in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            count = round(size * 1e9 / IMAGE_BYTES)
            written = child(Path(name), "--fill", str(count))
            store = Path(written.pop("store"))
            trained = {}
            for where in ("memory", "disk"):
                drop_cache(store)
                trained[where] = child(store, "--measure", where)
            row = {"images": count, "gb": round(count * IMAGE_BYTES / 1e9, 2), "extraction": written, **trained}
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9),
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "steps": asked.steps,
        "stores": rows,
    }
    if asked.output is not None:
        asked.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
