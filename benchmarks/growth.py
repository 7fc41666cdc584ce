"""Growth of time and memory with images, regions, attributes and classes, each up to ten times as large.

    python -m benchmarks.growth [--output FILE]

Seconds are processor time of one thread, as the median of some repeats; memory is the peak of a call above the level
before it, by Linux's count for the process. The exponent is the slope of log time over log size at one, three and ten
times the initial size: 1 means proportional. A constant part of the cost lowers it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measured import alternately, exponent, finish
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.evaluation.metrics import evaluate
from unseen.features.extract import extract
from unseen.methods import ClassSpace, create_method
from unseen.model.references import References
from unseen.training.deciding import decide
from unseen.training.fabric import make_fabric

FACTORS = (1, 3, 10)


@dataclass(frozen=True)
class Sizes:
    """Size of a problem: images in a step or a test, regions, channels, attributes, classes."""

    images: int = 32
    regions: int = 49
    channels: int = 256
    attributes: int = 64
    classes: int = 100


class InMemory:
    """Regions by position, made on demand so that they do not count as measured memory."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.block = torch.nn.functional.normalize(torch.rand(64, sizes.regions, sizes.channels), dim=-1)

    def __len__(self) -> int:
        return self.sizes.images

    def batch(self, positions: np.ndarray) -> torch.Tensor:
        return self.block[: len(positions)]


def problem(name: str, sizes: Sizes) -> tuple[Any, ClassSpace, np.ndarray, torch.Tensor]:
    """A method, classes, labels of seen classes, and regions of a step."""
    torch.manual_seed(0)
    seen = torch.arange(sizes.classes) % 5 != 0
    classes = ClassSpace(torch.rand(sizes.classes, sizes.attributes), seen)
    method = create_method(name, channels=sizes.channels, vectors=torch.randn(sizes.attributes, 64), seed=0)
    labels = np.random.default_rng(0).choice(np.flatnonzero(seen.numpy()), sizes.images)
    regions = torch.nn.functional.normalize(torch.rand(sizes.images, sizes.regions, sizes.channels), dim=-1)
    return method, classes, labels, regions


def step(sizes: Sizes) -> Callable[[], object]:
    """A training step of MSDN++ without the optimizer."""
    method, classes, labels, regions = problem("msdnpp", sizes)
    method.train()
    wanted = torch.as_tensor(labels)

    def call() -> None:
        method.zero_grad()
        method.loss(method.forward_pass(regions, ()), wanted, classes)["total"].backward()

    return call


def test(sizes: Sizes) -> Callable[[], object]:
    """Scoring of a test set by MSDN++, and all its metrics."""
    method, classes, labels, _ = problem("msdnpp", sizes)
    features, fabric = InMemory(sizes), make_fabric("cpu")
    labels = labels.copy()
    labels[::2] = np.flatnonzero(~classes.seen.numpy())[0]  # both parts of the test set
    return lambda: evaluate(decide(method, features, labels, classes, fabric), classes.seen.numpy())


def closed_form(sizes: Sizes) -> Callable[[], object]:
    """The fit of ESZSL on pooled features."""
    method, classes, labels, _ = problem("eszsl", replace(sizes, regions=1))
    pooled, wanted = torch.rand(sizes.images, 1, sizes.channels), torch.as_tensor(labels)
    candidate = method.grid()[0]

    def call() -> None:
        method.fit(pooled, wanted, classes)
        method.use(candidate)

    return call


def neighbours(sizes: Sizes) -> Callable[[], object]:
    """The nearest training images of one image."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((sizes.images, sizes.attributes)).astype(np.float32)
    labels = rng.integers(0, sizes.classes, sizes.images)
    names = np.array([f"class {i}" for i in range(sizes.classes)])
    values = rng.random((sizes.classes, sizes.attributes))
    files = np.array([f"{i}.jpg" for i in range(sizes.images)])
    references = References(scores.astype(np.float16), labels, files, names, values)
    return lambda: references.nearest(scores[0], 5)


def extraction(sizes: Sizes) -> Callable[[], object]:
    """Extraction from photographs: hashes, decoding, network, checksums, the store on disk."""
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(0)
    files = []
    for i in range(sizes.images):
        path = Path(folder.name) / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(path)
        files.append(path)
    backbone = Backbone(BackboneSpec(name="test_resnet", weights="random", image_size=64))

    def call() -> None:
        with tempfile.TemporaryDirectory() as cache:
            extract(files, backbone, Path(cache), names=[f.name for f in files], workers=0)

    call.folder = folder  # type: ignore[attr-defined]
    return call


CASES: dict[str, tuple[Callable[[Sizes], Callable[[], object]], Sizes, tuple[str, ...]]] = {
    "training step (MSDN++)": (step, Sizes(), ("images", "regions", "attributes", "classes")),
    "test and metrics (MSDN++)": (test, Sizes(images=500), ("images", "regions", "attributes", "classes")),
    "closed form (ESZSL)": (closed_form, Sizes(images=5000), ("images", "attributes", "classes")),
    "nearest training images": (neighbours, Sizes(images=5000), ("images", "attributes")),
    "extraction": (extraction, Sizes(images=100), ("images",)),
}


def peak_mb(call: Callable[[], object]) -> float:
    """Peak memory of a call above the level before it, in MB."""

    def line(name: str) -> int:
        found = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(name))
        return int(next(found).split()[1])

    before = line("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    call()
    return max(0, line("VmHWM:") - before) * 1024 / 1e6


def measure(name: str, dimension: str, size: int, repeats: int) -> tuple[float, float]:
    """Processor seconds, and MB."""
    torch.set_num_threads(1)
    make, start, _ = CASES[name]
    call = make(replace(start, **{dimension: size}))
    held = peak_mb(call)
    return alternately({"it": call}, repeats, time.process_time)["it"], held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    rows = []
    for name, (_, start, dimensions) in CASES.items():
        for dimension in dimensions:
            sizes = [getattr(start, dimension) * factor for factor in FACTORS]
            found = []
            for size in sizes:  # each in its own process with fresh memory
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    found.append(pool.submit(measure, name, dimension, size, options.repeats).result())
            seconds, held = zip(*found, strict=True)
            rows.append(
                {
                    "what": name,
                    "grows": f"{dimension} {sizes[0]:,} to {sizes[-1]:,}",
                    "ms at the start": round(seconds[0] * 1e3, 2),
                    "ms at ten times": round(seconds[-1] * 1e3, 2),
                    "exponent": round(exponent(sizes, seconds), 2),
                    "MB at the start": round(held[0], 1),
                    "MB at ten times": round(held[-1], 1),
                }
            )
            print(rows[-1], flush=True)
    finish(options.output, {"Growth of time and memory": rows}, began=began, start=str(Sizes()))


if __name__ == "__main__":
    main()
