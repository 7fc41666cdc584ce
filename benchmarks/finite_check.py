"""Cost of checking after every step that losses and weights are finite: `python -m benchmarks.finite_check`.

Compares a whole step of the engine with the check in it (norm of all weights, transfer with the loss terms), in
processor time, at CUB's shape: MSDN on regions, and `global` on pooled features, whose step is the cheapest. Takes half
a minute on one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_training import CUB, Kept
from benchmarks.measured import alternately, finish
from unseen.methods import ClassSpace, create_method, find_preset
from unseen.methods.base import GradientMethod
from unseen.methods.global_linear import GlobalLinear
from unseen.methods.msdn import MSDN
from unseen.training.fabric import make_fabric
from unseen.training.steps import Steps


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began, rows, generator = time.monotonic(), [], torch.Generator().manual_seed(0)
    seen = torch.arange(CUB.classes) < CUB.classes - CUB.unseen
    classes = ClassSpace(torch.rand(CUB.classes, CUB.attributes, generator=generator), seen)
    vectors = torch.randn(CUB.attributes, CUB.dim, generator=generator)
    images = np.arange(50)
    kinds: tuple[tuple[type[GradientMethod], int], ...] = ((MSDN, CUB.regions), (GlobalLinear, 1))
    for kind, regions in kinds:
        method = create_method(kind.name, channels=CUB.channels, vectors=vectors, seed=0)
        assert isinstance(method, GradientMethod)
        _, preset = find_preset(kind, "cub")
        assert preset.recipe is not None
        features = Kept(kind.prepare(torch.rand(50, regions, CUB.channels, generator=generator)))
        optimizer = preset.recipe.make_optimizer(method.parameters())
        labels = images % int(seen.sum())
        steps = Steps(method.train(), optimizer, features, labels, classes, 50, 1, make_fabric("cpu"))
        weights, terms = [p.detach() for p in method.parameters()], [torch.tensor(1.0) for _ in range(6)]
        times = alternately(
            {
                "step": lambda steps=steps: steps(images).tolist(),  # type: ignore[misc]
                "check": lambda weights=weights, terms=terms: torch.stack(  # type: ignore[misc]
                    [*terms, torch.nn.utils.get_total_norm(weights)]
                ).tolist(),
            },
            options.repeats,
            clock=time.process_time,
        )
        rows.append(
            {
                "method": kind.name,
                "step, ms": round(1000 * times["step"], 1),
                "check, ms": round(1000 * times["check"], 2),
                "share, %": round(100 * times["check"] / times["step"], 2),
            }
        )
    finish(options.output, {"Looking at every step": rows}, began=began)


if __name__ == "__main__":
    main()
