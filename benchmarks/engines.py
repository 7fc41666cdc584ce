"""Extraction in each installed engine against torch: complete, with decoding, hashing, checksums and `fsync`.

    python -m benchmarks.engines [--networks mobilenetv2_100@224:2889 ...] [--images FOLDER]
                                 [--rounds 3] [--engines NAME ...] [--pixels exact fast] [--workers 0 1 2]
                                 [--output FILE]

Engines take turns, each into an empty folder and already converted; "alone" is the engine on pixels in memory. The time
to convert and load is measured once; "load" is the time to load a converted network. Weights are random. Without a
folder the images are 500 x 375 JPEGs of smooth noise. Times are medians of the rounds; memory is that of a new process.
The bound is the rate of cores that do nothing but decode and compute: their number over the processor time of decoding
one image (in one thread, up to 200 images) and of the network alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.extraction_rate import draw, processor_seconds
from benchmarks.measured import finish
from unseen.backbones.backbone import Backbone
from unseen.backbones.engines import available_labels
from unseen.backbones.spec import BackboneSpec
from unseen.features.extract import extract
from unseen.ground.threads import plain_threads

MEMORY = """
import sys, torch
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.training.manifest import peak_memory_mb
name, size, engine = sys.argv[1:]
backbone = Backbone(BackboneSpec(name, weights="random", image_size=int(size))).use(engine)
for _ in range(3):
    backbone.regions(torch.zeros(32, 3, int(size), int(size), dtype=torch.uint8))
print(peak_memory_mb())
"""


def measure(
    network: str, files: list[Path], rounds: int, pixels: str, only: list[str], workers: list[int], cores: int
) -> list[dict]:
    name, size = network.partition("@")[0], int(network.partition("@")[2])
    spec = BackboneSpec(name, weights="random", image_size=size, pixels=pixels)
    engines = ["torch", *sorted(label.split()[0] for label in available_labels(torch.device("cpu")) if label)]
    engines = [engine for engine in engines if not only or engine in ("torch", *only)]
    timed = [engine for engine in engines if not only or engine in only]
    names, made = [str(i) for i in range(len(files))], {}
    load: dict[str, float] = {}
    convert: dict[str, float] = {}
    for engine in engines:
        for seconds in (convert, load):
            made[engine] = Backbone(spec).use(engine)
            began = time.perf_counter()
            made[engine].ready()
            seconds[engine] = time.perf_counter() - began
    held = torch.stack([made["torch"].transform.cropped(file) for file in files[:32]])
    wanted = made["torch"].regions(held)[0]
    differ = {e: float((made[e].regions(held)[0] - wanted).abs().max() / wanted.abs().max()) for e in engines}

    some = files[:: max(1, len(files) // 200)]

    def decode() -> None:
        with plain_threads(1, "decode") as pool:
            pool.submit(lambda: [made["torch"].transform.cropped(file) for file in some]).result()

    def whole(engine: str, workers: int) -> None:
        with tempfile.TemporaryDirectory(dir=os.environ["UNSEEN_CACHE"]) as place:
            folder = Path(place) / "regions"
            (Path(place) / "engines").symlink_to(Path(os.environ["UNSEEN_CACHE"]) / "engines")
            extract(files, made[engine], folder, names=names, engine=engine, workers=workers)

    def alone(engine: str) -> None:
        for start in range(0, len(files), 32):
            made[engine].regions(held[: len(files) - start])

    took: dict[tuple, list[float]] = {}
    used: dict[tuple, list[float]] = {}

    def timed_once(side: tuple, images: int, run: Callable[[], None]) -> None:
        began, processor = time.perf_counter(), processor_seconds()
        run()
        used.setdefault(side, []).append((processor_seconds() - processor) / images)
        took.setdefault(side, []).append((time.perf_counter() - began) / images)

    for _ in range(rounds):
        timed_once(("decode",), len(some), decode)
        for engine in timed:
            timed_once((engine, "alone"), len(files), partial(alone, engine))
            for count in workers:
                timed_once((engine, count), len(files), partial(whole, engine, count))
    middle, work = ({s: statistics.median(found) for s, found in sides.items()} for sides in (took, used))
    bound = {engine: cores / (work["decode",] + work[engine, "alone"]) for engine in timed}

    def memory(engine: str) -> int:
        command = [sys.executable, "-c", MEMORY, name, str(size), engine]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    return [
        {
            "network": f"{name}, {size} px",
            "engine": engine,
            "pixels": pixels,
            **({"workers": count} if len(workers) > 1 else {}),
            "alone, images/s": 1 / middle[engine, "alone"],
            "extraction, images/s": 1 / middle[engine, count],
            **({"to torch": middle["torch", count] / middle[engine, count]} if "torch" in timed else {}),
            "to itself alone": middle[engine, "alone"] / middle[engine, count],
            "decoding, ms": 1000 * work["decode",],
            "network, ms": 1000 * work[engine, "alone"],
            "all, ms": 1000 * work[engine, count],
            "bound, images/s": bound[engine],
            "bound to itself alone": bound[engine] * middle[engine, "alone"],
            "decoding and network of all": (work["decode",] + work[engine, "alone"]) / work[engine, count],
            "to the bound": 1 / middle[engine, count] / bound[engine],
            "largest difference": differ[engine],
            "convert, s": convert[engine],
            "load, s": load[engine],
            "memory, MiB": memory(engine),
        }
        for engine in timed
        for count in workers
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument(
        "--networks",
        nargs="+",
        default=["mobilenetv2_100@224:2889", "resnet50@224:2889", "vit_small_patch14_dinov2@224:600"],
    )
    parser.add_argument("--images", type=Path, help="folder of JPEGs (default: generated images)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=[], help="only these (default: all installed)")
    parser.add_argument("--pixels", nargs="+", default=["exact"], choices=("exact", "fast"))
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="processes that decode; 0 for threads")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["UNSEEN_CACHE"] = place
        for asked in options.networks:
            network, _, count = asked.partition(":")
            files = sorted(options.images.rglob("*.jpg")) if options.images else draw(Path(place), int(count))
            mine = files[:: max(1, len(files) // int(count))][: int(count)]
            for pixels in options.pixels:
                rows += measure(
                    network, mine, options.rounds, pixels, options.engines, options.workers, options.threads
                )
    finish(
        options.output,
        {"Engines": rows},
        began=began,
        rounds=options.rounds,
        images="drawn, 500 x 375" if options.images is None else "a folder's",
    )


if __name__ == "__main__":
    main()
