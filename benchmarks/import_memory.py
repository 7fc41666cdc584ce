"""Peak memory of `unseen import` on generated region features: `python -m benchmarks.import_memory [IMAGES ...]`.

Each size runs in its own process. The features are 2048 x 14 x 14 float32, as in the field's HDF5 files.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measured import ROOT, finish
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset
from unseen.data.importing import import_features

SHAPE = (2048, 14, 14)
CLASSES = 4


def one(images: int, folder: Path) -> None:
    labels = np.arange(images) % CLASSES
    seen = np.arange(CLASSES) < CLASSES - 1
    split = np.where(labels < CLASSES - 1, "trainval", "test_unseen").astype(object)
    table = ClassTable(tuple("abcd"), Attributes(("x", "y")), np.arange(1.0, 9.0).reshape(4, 2), seen)
    dataset = Dataset("generated", folder, table, tuple(f"{i}.jpg" for i in range(images)), labels, split)
    path = folder / "features.hdf5"
    with h5py.File(path, "w") as file:
        file["labels"] = labels
        features = file.create_dataset("feature_map", (images, *SHAPE), dtype=np.float32)
        block = np.random.default_rng(0).random((8, *SHAPE), dtype=np.float32)
        for start in range(0, images, 8):
            features[start : start + 8] = block[: min(8, images - start)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    store = import_features(path, dataset, folder, "generated")
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {
        "images": images,
        "HDF5 GB": round(path.stat().st_size / 1e9, 2),
        "store GB": round(store.nbytes / 1e9, 2),
        "seconds": round(seconds, 1),
        "MB/s": round(path.stat().st_size / 1e6 / seconds),
        "peak MB": round(peak / 1024),
        "above the start": round((peak - before) / 1024),
    }
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="*", default=[200, 800, 3200])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    options, began = parser.parse_args(), time.monotonic()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            one(options.images[0], Path(folder))
        return
    rows = []
    for images in options.images:
        command = [sys.executable, "-m", "benchmarks.import_memory", "--one", str(images)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout))
    finish(options.output, {"Import of region features": rows}, began=began)


if __name__ == "__main__":
    main()
