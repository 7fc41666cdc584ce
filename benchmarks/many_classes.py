"""The five best of up to 1,000,000 classes x 312 attributes: in blocks, against all scores at once.

    python -m benchmarks.many_classes [--classes 1000 10000 100000 1000000] [--attributes 312] [--batch 1 64]
                                      [--repeats 5] [--output FILE]

Both sides start from the images' attribute scores and end with classes and confidence (softmax over all classes). The
plain side scores all classes in one product, takes the softmax in float64 and sorts only the five best. Every size runs
in its own process. "processor" is processor time, so other processes do not count. Memory is the peak of a call above
the level before it, and "with the classes" that of the process with class table and scorer, by Linux's count. The
exponent is the slope of log time over log classes, from a hundredth of the largest number of classes on.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.measured import exponent, finish
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.methods import create_method
from unseen.model.scoring import BLOCK, CHUNK, ClassScorer

BEST = 5


def memory(name: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def most_beyond(call) -> float:
    """Peak memory of a call above the level before it, in MiB."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    call()
    return max(0.0, memory("VmHWM") - before)


def measure(count: int, attributes: int, batches: list[int], repeats: int, threads: int) -> list[dict]:
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    values = np.empty((count, attributes))
    for start in range(0, count, 10_000):
        values[start : start + 10_000] = rng.random((min(10_000, count - start), attributes), dtype=np.float32)
    values.flags.writeable = False  # the table keeps it instead of a copy
    names = tuple(f"class {i}" for i in range(count))
    table = ClassTable(names, Attributes(tuple(f"a{k}" for k in range(attributes))), values, rng.random(count) < 0.5)
    del values
    method = create_method("eszsl", channels=8, vectors=torch.zeros(attributes, 1)).eval()
    began = time.process_time()
    scorer = ClassScorer.of_table(method, table, torch.device("cpu"))
    made = time.process_time() - began
    gc.collect()
    held = memory("VmRSS")
    allowed, seen = np.arange(count), torch.from_numpy(table.seen.copy()).double()
    vectors = torch.cat([block.embeddings for block in scorer._blocks])[:count]
    rows = []
    for batch in batches:
        query = torch.from_numpy(rng.standard_normal((batch, attributes), dtype=np.float32))

        def in_blocks(query=query):
            return scorer.best(query, BEST, allowed, gamma=0.1, temperature=0.05)

        @torch.inference_mode()
        def at_once(query=query):
            shifted = ((query @ vectors.T).double() - 0.1 * seen) / 0.05
            best = shifted.softmax(dim=1).topk(BEST, dim=1)
            return best.indices.numpy(), best.values.numpy()

        beyond = most_beyond(in_blocks), most_beyond(at_once)
        found, (index, confidence) = in_blocks(), at_once()
        np.testing.assert_allclose(found.confidence, confidence, rtol=1e-4)
        took: dict[str, list[list[float]]] = {"blocks": [], "at once": []}
        for _ in range(repeats):
            for name, call in (("blocks", in_blocks), ("at once", at_once)):
                began, used = time.perf_counter(), time.process_time()
                call()
                took[name].append([time.perf_counter() - began, time.process_time() - used])
        wall, processor = (
            {name: 1000 * statistics.median(t[i] for t in times) / batch for name, times in took.items()}
            for i in (0, 1)
        )
        rows.append(
            {
                "classes": count,
                "images at once": batch,
                "ms an image": wall["blocks"],
                "processor ms an image": processor["blocks"],
                "at once, processor": processor["at once"],
                "at once to blocks": processor["at once"] / processor["blocks"],
                "MiB": round(beyond[0], 1),
                "at once, MiB": round(beyond[1], 1),
                "with the classes, MiB": round(held),
                "to prepare, s": made,
                "same classes": float((found.index == index).mean()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--attributes", type=int, default=312)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    for count in options.classes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            arguments = count, options.attributes, options.batch, options.repeats, options.threads
            rows += pool.submit(measure, *arguments).result()
    slopes = {}
    for batch in options.batch:
        mine = [r for r in rows if r["images at once"] == batch and r["classes"] * 100 >= max(options.classes)]
        if len(mine) > 1:
            slopes[batch] = exponent([r["classes"] for r in mine], [r["processor ms an image"] for r in mine])
    finish(
        options.output,
        {"Very many classes": rows},
        began=began,
        attributes=options.attributes,
        block=BLOCK,
        blocks_ranked_at_a_time=CHUNK,
        threads_of_a_call=options.threads,
        exponent_of_time_over_classes={batch: round(slope, 3) for batch, slope in slopes.items()},
    )


if __name__ == "__main__":
    main()
