"""Difference between two trainings with the same seed on one GPU: `python -m benchmarks.gpu_determinism [--small]`.

MSDN and MSDN++ (which draws random numbers in every step) are trained twice on the generated features of
benchmarks/gpu_training.py, as single operations and as CUDA graphs, and a third time with an interruption half-way.
Reports the largest difference of a weight, relative to the largest weight of its tensor, and the largest difference of
metrics in points. On a CPU (`--small`) everything is 0. Takes about 2 minutes for 6 epochs of CUB's size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu_training import CUB, SMALL, MadeUp, device_of, recipe_of
from benchmarks.measured import finish
from unseen.methods import create_method
from unseen.training.deciding import decide
from unseen.training.engine import Training, train
from unseen.training.fabric import PRECISIONS, make_fabric
from unseen.training.outcomes import measure

TOLERANCE = 1e-2
"""Two trainings count as equal if no weight differs by more than this share of the largest of its tensor."""


def trained(data: MadeUp, method: str, precision: str, graph: bool, stops: tuple[int, ...]) -> tuple[Any, Any]:
    """Weights and last metrics of one training, interrupted after the given epochs and resumed."""
    device = data.classes.seen.device
    fabric, shape = make_fabric(device.type, precision), data.shape

    def on_epoch(epoch: int, tested: Any, earlier: Any) -> dict[str, Any]:
        return measure(decide(tested, data.test, data.test_labels, data.classes, fabric), data.seen)

    with tempfile.TemporaryDirectory() as folder:
        for epochs in (*stops, shape.epochs):
            made: Any = create_method(method, channels=shape.channels, vectors=data.vectors, seed=0).to(device)
            stage = Training(made, data.train, data.train_labels, data.classes, recipe_of(shape), 0, epochs)
            records = train(stage, fabric, Path(folder), on_epoch=on_epoch, graph=graph)
    return {n: v.detach().clone() for n, v in made.state_dict().items()}, records[-1]["metrics"]


def apart(first: tuple[Any, Any], second: tuple[Any, Any]) -> dict[str, float]:
    """Largest difference of weights, relative to the largest of its tensor, and of metrics in points."""
    largest = max(
        ((second[0][name] - value).abs().max() / value.abs().max().clamp(min=1e-12)).item()
        for name, value in first[0].items()
    )
    metrics = max(100 * abs(first[1][name] - second[1][name]) for name in ("T1", "U", "S", "H", "AUSUC"))
    return {"weights": largest, "metrics, points": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="use small shapes on the CPU, without graphs")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device, began = device_of(options.small), time.monotonic()
    shape = replace(SMALL if options.small else CUB, epochs=options.epochs)
    rows: list[dict[str, Any]] = []
    for precision in ("32-true", "bf16-mixed"):
        data = MadeUp(shape, device, PRECISIONS[precision])
        for method in ("msdn", "msdnpp"):
            reference = trained(data, method, precision, False, ())
            compared: dict[str, tuple[bool, tuple[int, ...]]] = {
                "again": (False, ()),
                "stopped and resumed": (False, (options.epochs // 2,)),
            }
            if device.type == "cuda":
                compared |= {"as graphs": (True, ()), "as graphs, resumed": (True, (options.epochs // 2,))}
            for name, (graph, stops) in compared.items():
                difference = apart(reference, trained(data, method, precision, graph, stops))
                rows.append({"method": method, "precision": precision, "second training": name, **difference})
        del data
    worst = max(row["weights"] for row in rows)
    tables = {"Two trainings with one seed": rows}
    finish(options.output, tables, began=began, shape=vars(shape), tolerance=TOLERANCE, within=worst <= TOLERANCE)


if __name__ == "__main__":
    main()
