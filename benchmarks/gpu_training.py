"""A whole MSDN training of CUB's size on one GPU, through the engine and with the literal formulas.

    python -m benchmarks.gpu_training [--small] [--seeds 3] [--epochs 30] [--output FILE]

7,057 + 4,731 images of 196 regions with 2,048 channels are generated on the device: every class shows its attributes'
patterns in some regions, with noise. The task can be learned, unseen classes can be recognized from their attributes,
and no disk is read. MSDN as released is trained for 30 epochs of 141 steps with 50 images, and tested on all test
images after every epoch. The clock starts when features are on the device, and includes everything that the engine then
does, including its files. Rows are precisions, as single operations and as CUDA graphs, each with several seeds. The
literal loop is timed on as many epochs as fit in its time.

`--small` runs everything except the graphs on a CPU with small shapes, in half a minute. The full benchmark takes about
5 minutes and 35 GB of GPU memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measured import finish
from benchmarks.steps import literal_inference, literal_loss
from unseen.data.samplers import random_images
from unseen.methods import ClassSpace, create_method, find_preset
from unseen.methods.msdn import MSDN
from unseen.methods.settings import Recipe
from unseen.training.deciding import decide
from unseen.training.engine import Training, epoch_ends, train
from unseen.training.fabric import make_fabric
from unseen.training.outcomes import measure

GOAL = 15.0
"""Time limit of a whole training in seconds."""
PRECISIONS = {"float32": "32-true", "tf32": "32-true", "bfloat16": "bf16-mixed"}


@dataclass(frozen=True)
class Shape:
    """A dataset's counts: training, seen and unseen test images, regions, channels, attributes, classes, words."""

    train: int
    test_seen: int
    test_unseen: int
    regions: int
    channels: int
    attributes: int
    classes: int
    unseen: int
    dim: int
    epochs: int


CUB = Shape(7057, 1764, 2967, 196, 2048, 312, 200, 50, 300, 30)
SMALL = Shape(300, 60, 60, 16, 64, 24, 20, 5, 16, 4)


class Kept:
    """Features on the device, as the engine reads them."""

    resident = True

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def batch(self, positions: Any) -> torch.Tensor:
        return self.tensor[torch.as_tensor(positions, dtype=torch.int64, device=self.tensor.device)]


class MadeUp:
    """Data of a shape on a device: `train` and `test` features in a dtype, labels, classes and attribute vectors."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, rng = shape, np.random.default_rng(0)
        # similar enough, and images varied enough (see _features), that some predictions are wrong
        table = 0.3 * rng.random(shape.attributes) + 0.7 * rng.random((shape.classes, shape.attributes)) ** 4
        seen = torch.arange(shape.classes) < shape.classes - shape.unseen
        self.vectors = torch.from_numpy(rng.standard_normal((shape.attributes, shape.dim))).float()
        self.classes = ClassSpace(torch.from_numpy(table).float(), seen).to(device, torch.float32)
        ends = (shape.classes - shape.unseen, shape.classes)
        counts = ((shape.train, 0, ends[0]), (shape.test_seen, 0, ends[0]), (shape.test_unseen, *ends))
        labels = [np.arange(count) % (high - low) + low for count, low, high in counts]
        self.train_labels, self.test_labels = labels[0], np.concatenate(labels[1:])
        self._generator = torch.Generator(device).manual_seed(0)
        self._patterns = self._random(shape.attributes, shape.channels)
        self.train, self.test = (Kept(self._features(mine, dtype)) for mine in (self.train_labels, self.test_labels))
        self.seen = seen.numpy()

    def _random(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self._generator, device=self._generator.device)

    def _features(self, labels: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        """``(n, R, C)`` unit regions: each shows some attribute's pattern as strongly as its class has it."""
        shape, device = self.shape, self._generator.device
        kept = torch.empty(len(labels), shape.regions, shape.channels, dtype=dtype, device=device)
        own = self.classes.vectors[torch.from_numpy(labels).to(device)]
        own = own + 0.3 * self._random(*own.shape)
        for start in range(0, len(labels), 64):
            values = own[start : start + 64]
            size = (len(values), shape.regions)
            shown = torch.randint(shape.attributes, size, generator=self._generator, device=device)
            strength = torch.gather(values, 1, shown)
            regions = 2 * strength[..., None] * self._patterns[shown] + self._random(*size, shape.channels)
            kept[start : start + 64] = F.normalize(regions, dim=-1).to(dtype)
        return kept


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def wait(device: torch.device) -> float:
    """The time, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def recipe_of(shape: Shape) -> Recipe:
    _, preset = find_preset(MSDN, "cub", "cub")
    assert preset.recipe is not None
    return replace(preset.recipe, epochs=shape.epochs)


def new_method(data: MadeUp, seed: int, device: torch.device) -> Any:
    return create_method("msdn", channels=data.shape.channels, vectors=data.vectors, seed=seed).to(device)


def whole(data: MadeUp, precision: str, graph: bool, seed: int, device: torch.device) -> dict[str, Any]:
    """One training through the engine, tested after every epoch."""
    fabric = make_fabric(device.type, PRECISIONS[precision])
    method = new_method(data, seed, device)
    stage = Training(
        method, data.train, data.train_labels, data.classes, recipe_of(data.shape), seed, data.shape.epochs
    )
    testing = 0.0

    def on_epoch(epoch: int, tested: Any, earlier: Any) -> dict[str, Any]:
        nonlocal testing
        began = time.perf_counter()
        found = measure(decide(tested, data.test, data.test_labels, data.classes, fabric), data.seen)
        testing += time.perf_counter() - began
        return found

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, tf32(precision == "tf32"):
        began = wait(device)
        records = train(stage, fabric, Path(folder), on_epoch=on_epoch, graph=graph)
        seconds = wait(device) - began
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    best = {name: max(r["metrics"][name] for r in records) for name in ("T1", "best_H")}
    weights = {name: value.detach().clone() for name, value in method.state_dict().items()}
    return {"seconds": seconds, "testing": testing, "peak": peak, "weights": weights, **best, "records": records}


def literal(data: MadeUp, seed: int, device: torch.device, most: float) -> tuple[float, int]:
    """Seconds a step of the formulas as they stand, testing once included in proportion, and how many were timed."""
    shape, recipe = data.shape, recipe_of(data.shape)
    method = new_method(data, seed, device)
    parameters, optimizer = dict(method.named_parameters()), recipe.make_optimizer(method.parameters())
    sampler = random_images(shape.train, recipe.batch_size, seed)
    labels = torch.from_numpy(data.train_labels).to(device)
    z, seen = data.classes.unit, data.classes.seen
    began, steps = wait(device), 0
    while steps < epoch_ends(shape.train, recipe)[-1] and (steps < 3 or time.perf_counter() - began < most):
        images = torch.from_numpy(sampler(steps)).to(device)
        regions = data.train.batch(images).float().transpose(1, 2)
        loss = literal_loss(parameters, regions, labels[images], z, seen, method.settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        steps += 1
    training = (wait(device) - began) / steps
    began = wait(device)
    scores = []
    with torch.no_grad():
        for start in range(0, len(data.test), 64):
            regions = data.test.batch(np.arange(start, min(start + 64, len(data.test)))).float().transpose(1, 2)
            scores.append(literal_inference(parameters, regions, z, seen, method.settings).cpu().numpy())
    assert len(np.concatenate(scores)) == len(data.test)
    an_epoch = (wait(device) - began) * shape.epochs / epoch_ends(shape.train, recipe)[-1]
    return training + an_epoch, steps


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


def device_of(small: bool) -> torch.device:
    """The GPU, or the CPU with --small; exits with status 2 if there is none."""
    if not small and not torch.cuda.is_available():
        print("needs a CUDA device; --small tries everything on the CPU")
        sys.exit(2)
    return torch.device("cpu" if small else "cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="use small shapes on the CPU, without graphs")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per row")
    parser.add_argument("--epochs", type=int, help="epochs (default: 30)")
    parser.add_argument("--literal-seconds", type=float, default=30.0, help="time limit of the literal loop")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device, began = device_of(options.small), time.monotonic()
    shape = SMALL if options.small else CUB
    shape = replace(shape, epochs=options.epochs or shape.epochs)
    rows, accuracy = [], []
    steps = epoch_ends(shape.train, recipe_of(shape))[-1]
    data = MadeUp(shape, device, torch.float32)
    whole(replace_epochs(data, 1), "float32", False, 0, device)  # libraries initialize
    a_step, timed = literal(data, 0, device, 1.0 if options.small else options.literal_seconds)
    times = {"literal loop, float32": a_step * steps}
    rows.append(row("literal loop, float32", a_step * steps, steps, None, f"{timed} steps timed"))
    for precision in PRECISIONS:
        if precision == "bfloat16":
            del data  # 19 GB
            data = MadeUp(shape, device, torch.bfloat16)
        for graph in (False, True) if device.type == "cuda" else (False,):
            name = f"{precision}, {'graphs' if graph else 'one by one'}"
            print(name, file=sys.stderr, flush=True)
            found = [whole(data, precision, graph, seed, device) for seed in range(options.seeds)]
            times[name] = statistics.median(f["seconds"] for f in found)
            rows.append(row(name, times[name], steps, found[0], "", times["literal loop, float32"]))
            loss = [found[0]["records"][0]["start"], found[0]["records"][-1]["loss"]["total"]]
            accuracy.append(
                {"training": name, "seeds": options.seeds, "loss at start": loss[0], "loss in the last epoch": loss[1]}
                | {f"{label}, %": spread([f[key] for f in found]) for label, key in (("T1", "T1"), ("H", "best_H"))}
            )
    seconds = {name: round(t, 2) for name, t in times.items()}
    met = None if options.small else min(times.values()) <= GOAL
    tables = {"A whole training": rows, "Accuracy over seeds": accuracy}
    finish(options.output, tables, began=began, shape=vars(shape), whole_seconds=seconds, goal=GOAL, goal_met=met)


def replace_epochs(data: MadeUp, epochs: int) -> MadeUp:
    """The same data, trained on for fewer epochs."""
    other = object.__new__(MadeUp)
    other.__dict__.update(data.__dict__, shape=replace(data.shape, epochs=epochs))
    return other


def row(
    name: str, seconds: float, steps: int, found: dict[str, Any] | None, note: str, literal: float | None = None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"training": name, "seconds": round(seconds, 2), "ms a step": 1000 * seconds / steps}
    facts["of which testing, s"] = None if found is None else round(found["testing"], 2)
    facts["times the literal loop"] = None if literal is None else round(literal / seconds, 1)
    facts["GPU memory, GB"] = None if found is None or np.isnan(found["peak"]) else round(found["peak"], 1)
    return facts | {"note": note or None}


if __name__ == "__main__":
    main()
