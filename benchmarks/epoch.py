"""Time of an epoch by part: training through the engine against the parts of its steps done by hand.

    python -m benchmarks.epoch [--shapes cub,awa2] [--grid 7] [--steps 20] [--precision 32-true] [--output FILE]

Random features in memory, released settings of MSDN++. "engine" is the time beyond reading, forward, loss, backward and
optimizer: loops, checks of the losses, records, and one checkpoint at the end. Takes less than a minute on an idle
machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measured import finish
from benchmarks.steps import CHANNELS, DIM, SHAPES
from unseen.methods import ClassSpace
from unseen.methods.msdnpp import MSDNPP, MSDNPPSettings
from unseen.training.engine import Training, train
from unseen.training.fabric import PRECISIONS, make_fabric
from unseen.training.steps import to_weight_precision

PARTS = ("reading", "forward and loss", "backward", "optimiser")


class Kept:
    """Prepared regions in memory."""

    def __init__(self, regions):
        self.regions = regions

    def __len__(self):
        return len(self.regions)

    def batch(self, positions):
        return self.regions[torch.as_tensor(positions)]


def by_hand(stage, fabric, steps, clock):
    """Seconds of each part for the given number of steps."""
    spent = dict.fromkeys(PARTS, 0.0)
    method, labels = stage.method.train(), torch.as_tensor(stage.labels)
    optimizer = stage.recipe.make_optimizer(method.parameters())
    draw = np.random.default_rng(0)
    for _ in range(steps):
        times = [clock()]
        positions = draw.choice(len(labels), stage.recipe.batch_size, replace=False)
        regions = stage.features.batch(positions)
        times.append(clock())
        with fabric.autocast():
            branches = method(regions)
        to_weight_precision(branches, stage.classes)
        loss = method.loss(branches, labels[torch.as_tensor(positions)], stage.classes)["total"]
        times.append(clock())
        loss.backward()
        times.append(clock())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(clock())
        for part, start, end in zip(PARTS, times, times[1:], strict=False):
            spent[part] += end - start
    return spent


def measure(shape, grid, precision, steps, clock):
    b, k, n, unseen = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    cls = MSDNPP
    preset = cls.presets[shape]
    settings = preset.settings
    assert isinstance(settings, MSDNPPSettings)
    assert preset.recipe is not None
    recipe = replace(preset.recipe, epochs=1, batches=steps, sampler="random")
    regions = torch.rand(2 * b, grid * grid, CHANNELS, generator=generator)
    labels = torch.arange(2 * b).remainder(n - unseen).numpy()
    classes = ClassSpace(torch.rand(n, k, generator=generator), torch.arange(n) < n - unseen)
    vectors = torch.randn(k, DIM, generator=generator)
    fabric = make_fabric("cpu", precision)

    def stage():
        method = cls(CHANNELS, vectors, settings, torch.Generator().manual_seed(1))
        prepared = Kept(method.prepare(regions).to(PRECISIONS[precision]))
        return Training(method, prepared, labels, classes, recipe, 0, 1)

    by_hand(stage(), fabric, 1, clock)
    parts, made = by_hand(stage(), fabric, steps, clock), stage()
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        train(made, fabric, Path(folder))
        whole = clock() - start
    row = {"shape": f"{shape} {grid}x{grid}", "precision": precision, "ms a step": round(1e3 * whole / steps, 1)}
    shares = {f"{part}, %": round(100 * seconds / whole, 1) for part, seconds in parts.items()}
    return row | shares | {"engine, %": round(100 * (1 - sum(parts.values()) / whole), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=["cub", "awa2"])
    parser.add_argument("--grid", type=int, default=7)
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["32-true", "bf16-mixed"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="measure processor time, for a busy machine; use with --threads 1"
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    rows = [
        measure(shape, arguments.grid, precision, arguments.steps, clock)
        for shape in arguments.shapes
        for precision in arguments.precisions
    ]
    finish(arguments.output, {"Where an epoch goes": rows}, began=began, steps=arguments.steps)


if __name__ == "__main__":
    main()
