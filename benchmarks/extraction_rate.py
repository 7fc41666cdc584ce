"""Images per second of feature extraction, against the network alone and against a plain timm + DataLoader loop.

    python -m benchmarks.extraction_rate [--networks mobilenetv2_100@224:192 resnet50@224:64] [--images FOLDER]
                                         [--device cpu] [--workers -1] [--output FILE]

Three sides take turns: the network alone on normalized pixels in memory, in batches and in the sizes that `unseen` uses
(a few images at a time on a CPU); a plain loop with timm's transform, a DataLoader and an array on disk; and `extract`,
with hashing, checksums, journal and fsync, into an empty folder. Weights are random. Without a folder the images are
500 x 375 JPEGs of smooth noise. Results are medians of the rounds; processor time includes all processes and threads.
On a GPU: --device cuda --networks resnet101@448:4096 mobilenetv2_100@224:8192
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch.utils.data import DataLoader, Dataset

from benchmarks.measured import finish
from unseen.backbones.backbone import _CPU_PIXELS, Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.features.extract import chosen_workers, extract


def draw(folder: Path, count: int) -> list[Path]:
    """JPEGs with the size and content of photographs."""
    rng = np.random.default_rng(0)
    files = [folder / f"{i:05}.jpg" for i in range(count)]
    for file in files:
        noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)
    return files


class Images(Dataset):
    def __init__(self, files: list[Path], transform: Callable) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def plain(model: Any, files: list[Path], size: int, batch: int, workers: int, device: str) -> np.ndarray:
    """Features of all images, written as they come, as in a plain script."""
    cuda = device == "cuda"
    transform = create_transform((3, size, size), interpolation="bicubic", crop_pct=1.0)
    loader = DataLoader(Images(files, transform), batch, num_workers=workers, pin_memory=cuda)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        out, done = None, 0
        for read in loader:
            pixels = read.to(device, non_blocking=True, memory_format=torch.channels_last)
            maps = model.forward_features(pixels).flatten(2).transpose(1, 2).half().cpu().numpy()
            if out is None:
                shape = (len(files), *maps.shape[1:])
                out = np.lib.format.open_memmap(Path(folder) / "features.npy", "w+", np.float16, shape)
            out[done : done + len(maps)] = maps
            done += len(maps)
        assert out is not None
        out.flush()
        return np.array(out[:batch])


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(network: str, options: argparse.Namespace, folder: Path) -> tuple[list[dict], float]:
    name, _, rest = network.partition("@")
    size, count = (int(n) for n in rest.split(":"))
    if options.images:
        found = sorted(options.images.rglob("*.jpg"))
        files = found[:: max(1, len(found) // count)][:count]
    else:
        files = draw(folder, count)
    backbone = Backbone(BackboneSpec(name, weights="random", image_size=size)).to(options.device)
    cuda, batch = options.device == "cuda", options.batch
    workers = chosen_workers(options.workers, torch.device(options.device))
    plain_workers = workers if cuda else options.plain_workers
    held = torch.stack([backbone.transform(file) for file in files[:batch]]).to(options.device)
    held = held.contiguous(memory_format=torch.channels_last)
    few = len(held) if cuda else max(1, _CPU_PIXELS // size**2)

    @torch.inference_mode()
    def alone(at_once: int) -> None:
        for start in range(0, len(files), batch):
            for part in held[: len(files) - start].split(at_once):
                backbone.model.forward_features(part)
        if cuda:
            torch.cuda.synchronize()

    def ours() -> np.ndarray:
        with tempfile.TemporaryDirectory() as cache:
            names = [str(i) for i in range(len(files))]
            store = extract(
                files, backbone, Path(cache), names=names, batch_size=batch, workers=workers, device=options.device
            )
            return store.read(range(min(batch, len(files)))).numpy()

    def loop() -> np.ndarray:
        return plain(backbone.model, files, size, batch, plain_workers, options.device)

    sides: dict[str, Callable[[], object]] = {
        f"network alone, {batch} at once": lambda: alone(batch),
        f"network alone, {few} at once": lambda: alone(few),
        f"timm + DataLoader, {plain_workers} processes": loop,
        "unseen": ours,
    }
    theirs, mine = loop().astype(np.float32), ours().astype(np.float32)  # also warms up
    differ = float(np.abs(theirs - mine).max() / np.abs(theirs).max())
    alone(few)
    wall: dict[str, list[float]] = {side: [] for side in sides}
    used: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, run in sides.items():
            processor, start = processor_seconds(), time.perf_counter()
            run()
            wall[side].append((time.perf_counter() - start) / len(files))
            used[side].append((processor_seconds() - processor) / len(files))
    seconds = {side: statistics.median(found) for side, found in wall.items()}
    rows = [
        {
            "network": f"{name}, {size} px",
            "side": side,
            "images/s": 1 / seconds[side],
            "processor ms an image": 1000 * statistics.median(used[side]),
            "unseen to it": seconds[side] / seconds["unseen"],
            "by processor time": statistics.median(used[side]) / statistics.median(used["unseen"]),
        }
        for side in sides
    ]
    return rows, differ


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction_rate", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["mobilenetv2_100@224:192", "resnet50@224:64"])
    parser.add_argument("--images", type=Path, help="folder of JPEGs (default: generated images)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=-1, help="workers of extract")
    parser.add_argument("--plain-workers", type=int, default=2, help="workers of the plain loop on a CPU")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(options.threads)
    tables: dict[str, list[dict]] = {}
    differences = {}
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows, differences[network] = measure(network, options, Path(folder))
        tables.setdefault(f"Extraction, {options.device}", []).extend(rows)
    finish(
        options.output,
        tables,
        began=began,
        rounds=options.rounds,
        batch=options.batch,
        images="drawn, 500 x 375" if options.images is None else "a folder's",
        largest_relative_difference_to_the_plain_loop=differences,
    )


if __name__ == "__main__":
    main()
