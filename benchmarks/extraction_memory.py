"""Memory of an extraction beyond that of its backbone, with readers in separate processes.

    python -m benchmarks.extraction_memory IMAGES --workers 0 2 8 --output results.json

The backbone's memory is that of a process which runs it on batches of the same size. Memory is the peak of the
proportional set size, summed over the process and all its children.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ALONE = """
import sys, torch
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
backbone = Backbone(BackboneSpec(sys.argv[1], image_size=int(sys.argv[2]), weights="random"))
pixels = torch.rand(32, 3, int(sys.argv[2]), int(sys.argv[2]))
with torch.inference_mode():
    for _ in range(4):
        backbone(pixels)
"""
EXTRACT = """
import sys
from pathlib import Path
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.features.extract import extract
from unseen.data.finding import find_images
files = find_images([Path(sys.argv[3])])[: int(sys.argv[4])]
backbone = Backbone(BackboneSpec(sys.argv[1], image_size=int(sys.argv[2]), weights="random"))
extract(files, backbone, Path(sys.argv[5]), names=[str(f) for f in files], workers=int(sys.argv[6]))
"""


def peak(script: str, *arguments: object) -> float:
    """MB."""
    process = psutil.Popen([sys.executable, "-c", script, *map(str, arguments)])
    highest = 0.0
    while process.poll() is None:
        total = 0
        for one in (process, *_children(process)):
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        highest = max(highest, total / 1e6)
        time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "extraction")
    return highest


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 8])
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    own = peak(ALONE, options.backbone, options.size)
    found = {"backbone": options.backbone, "size": options.size, "images": options.count, "alone_mb": round(own)}
    print(json.dumps(found), flush=True)
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as store:
            most = peak(EXTRACT, options.backbone, options.size, options.images, options.count, store, workers)
        found[f"{workers} readers, beyond_mb"] = round(most - own)
        print(json.dumps({"workers": workers, "peak_mb": round(most), "beyond_mb": round(most - own)}), flush=True)
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
