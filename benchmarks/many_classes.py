"""The five best of up to 100,000 classes x 1,024 attributes: in blocks, against all scores at once.

    python -m benchmarks.many_classes [--classes 1000 3000 10000 30000 100000] [--batch 64] [--repeats 5]
                                      [--output benchmarks/results/many_classes.json]

Both sides start from the images' attribute scores and end with classes and confidence (softmax over all classes). The
plain side scores all classes in one product, takes the softmax in float64 and sorts only the five best. Every size runs
in its own process. Seconds are processor time, so other processes do not count. Memory is the peak of a call above the
level before it, by Linux's count for the process. The exponent is the slope of log time over log classes, from a
hundredth of the largest number of classes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.methods import create_method
from unseen.model.scoring import BLOCK, CHUNK, ClassScorer

ATTRIBUTES, BEST = 1024, 5


def memory(name):
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def most_beyond(call):
    """Peak memory of a call above the level before it, in MiB."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    call()
    return max(0.0, memory("VmHWM") - before)


def measure(count, batch, repeats):
    rng = np.random.default_rng(0)
    values = rng.random((count, ATTRIBUTES), dtype=np.float32)
    names = tuple(f"class {i}" for i in range(count))
    table = ClassTable(names, Attributes(tuple(f"a{k}" for k in range(ATTRIBUTES))), values, rng.random(count) < 0.5)
    del values
    method = create_method("eszsl", channels=8, vectors=torch.zeros(ATTRIBUTES, 1)).eval()
    began = time.process_time()
    scorer = ClassScorer.of_table(method, table, torch.device("cpu"))
    made = time.process_time() - began
    query = torch.from_numpy(rng.standard_normal((batch, ATTRIBUTES), dtype=np.float32))
    allowed, seen = np.arange(count), torch.from_numpy(table.seen.copy()).double()
    vectors = torch.cat([block.embeddings for block in scorer._blocks])[:count]

    def in_blocks():
        return scorer.best(query, BEST, allowed, gamma=0.1, temperature=0.05)

    @torch.inference_mode()
    def at_once():
        shifted = ((query @ vectors.T).double() - 0.1 * seen) / 0.05
        best = shifted.softmax(dim=1).topk(BEST, dim=1)
        return best.indices.numpy(), best.values.numpy()

    held = {"blocks": most_beyond(in_blocks), "at once": most_beyond(at_once)}
    found, (index, confidence) = in_blocks(), at_once()
    np.testing.assert_allclose(found.confidence, confidence, rtol=1e-4)
    agree = float((found.index == index).mean())
    seconds: dict[str, list[float]] = {"blocks": [], "at once": []}
    for _ in range(repeats):
        for name, call in (("blocks", in_blocks), ("at once", at_once)):
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "classes": count,
        "seconds": {name: round(value, 5) for name, value in middle.items()},
        "at once / blocks": round(middle["at once"] / middle["blocks"], 2),
        "MiB beyond the classes": {name: round(value, 1) for name, value in held.items()},
        "seconds to prepare the classes": round(made, 3),
        "same classes": agree,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 3000, 10000, 30000, 100000])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    spawn, rows = multiprocessing.get_context("spawn"), []
    for count in arguments.classes:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            rows.append(pool.submit(measure, count, arguments.batch, arguments.repeats).result())
        print(json.dumps(rows[-1]), flush=True)
    large = [row for row in rows if row["classes"] * 100 >= max(arguments.classes)]
    logs = np.log([[row["classes"], row["seconds"]["blocks"]] for row in large])
    found = {
        "attributes": ATTRIBUTES,
        "images a batch": arguments.batch,
        "block": BLOCK,
        "blocks ranked at a time": CHUNK,
        "rows": rows,
        "exponent of time over classes": round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 3),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
