"""From image files to the network's bytes: Pillow, as by default, against `--pixels fast` and other decoders.

    python -m benchmarks.decoding FOLDER [--count 200] [--size 224] [--enlarge 1 8] [--pillow FOLDER] [--output FILE]

Each side reads, decodes, resizes (short side, bicubic where it can) and crops the same JPEGs on one core, in turn; the
median of the rounds in processor time. ``--enlarge 8`` also takes the images at 8 times their size, like photos of a
camera, saved once. ``--pillow`` compares another Pillow, in a process of its own: that which
``CC="cc -mavx2" pip install --no-deps --target FOLDER pillow-simd`` installs. Packages that are not installed are left
out. Pixels are compared with the default's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, features

from benchmarks.measured import alternately, finish
from unseen.backbones.transform import Transform

OTHER = """
import json, sys, time
import numpy as np
import PIL
from PIL import Image
out, *sized = sys.argv[1:]
sized = [(file, tuple(map(int, size.split("x")))) for file, size in zip(sized[::2], sized[1::2])]
def resized(file, size):
    return np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC))
times = []
for _ in range(3):
    began = time.process_time()
    for one in sized:
        resized(*one)
    times.append(time.process_time() - began)
np.savez(out, *[resized(*one) for one in sized[:50]])
print(json.dumps([PIL.__version__, sorted(times)[1]]))
"""
"""Decodes and resizes; the crop, which costs nothing, is left to the caller."""
HALF = (0.5,) * 3
Side = Callable[[Path], np.ndarray]


def cropped(pixels: np.ndarray, size: int) -> np.ndarray:
    """The centre of an image ``(h, w, 3)``."""
    top, left = (round((side - size) / 2) for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def scaled(width: int, height: int, short: int) -> tuple[int, int]:
    """Size with a short side."""
    return Transform._resized(width, height, short)


def ours(transform: Transform, file: Path) -> np.ndarray:
    """What `predict` and `extract` do."""
    return transform.cropped(file).permute(1, 2, 0).numpy()


def sides(size: int) -> dict[str, Side]:
    """Each side's function from a file to bytes ``(size, size, 3)``."""
    found: dict[str, Side] = {}
    for name, fast in (("Pillow: the default", False), ("--pixels fast", True)):
        transform = Transform(size, HALF, HALF, fast=fast)
        found[name] = partial(ours, transform)

    def decoded(file: Path) -> np.ndarray:
        Image.open(file).load()
        return np.zeros(0)

    found["Pillow, decoding alone"] = decoded

    def resized(image: Image.Image, gap: float | None = None) -> np.ndarray:
        pixels = image.resize(scaled(*image.size, size), Image.Resampling.BICUBIC, reducing_gap=gap)
        return cropped(np.asarray(pixels), size)

    found["Pillow, reducing_gap 2"] = lambda file: resized(Image.open(file).convert("RGB"), gap=2.0)
    with suppress(ImportError):
        import simplejpeg

        found["simplejpeg, Pillow's resize"] = lambda file: resized(
            Image.fromarray(simplejpeg.decode_jpeg(file.read_bytes()))
        )
    with suppress(ImportError):
        from torchvision.io import decode_jpeg, read_file
        from torchvision.transforms.v2 import functional as F

        def torchvision(file: Path) -> np.ndarray:
            pixels = decode_jpeg(read_file(str(file)))
            return cropped(F.resize(pixels, [size], F.InterpolationMode.BICUBIC).permute(1, 2, 0).numpy(), size)

        found["torchvision"] = torchvision
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)

        def opencv(file: Path) -> np.ndarray:
            image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
            height, width = image.shape[:2]
            return cropped(cv2.resize(image, scaled(width, height, size), interpolation=cv2.INTER_AREA), size)

        found["OpenCV, INTER_AREA"] = opencv
    with suppress(ImportError, OSError):
        import pyvips

        def vips(file: Path) -> np.ndarray:
            image = pyvips.Image.thumbnail(str(file), size, height=size, crop="centre")
            return np.asarray(image.numpy())[:, :, :3]

        found["pyvips, thumbnail"] = vips
    return found


def other(folder: Path, files: list[Path], size: int) -> tuple[str, float, list[np.ndarray]]:
    """Name, seconds and first outputs of the Pillow in a folder."""
    with tempfile.TemporaryDirectory() as place:
        out, arguments = Path(place) / "found.npz", []
        for file in files:
            with Image.open(file) as image:
                arguments += [str(file), "{}x{}".format(*scaled(*image.size, size))]
        command = [sys.executable, "-c", OTHER, str(out), *arguments]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder)}
        )
        version, seconds = json.loads(done.stdout)
        with np.load(out) as found:
            return f"Pillow {version}", seconds, [cropped(found[name], size) for name in found.files]


def measure(files: list[Path], size: int, rounds: int, what: str, pillow: Path | None) -> list[dict]:
    """Rows of one kind of images."""
    usable, outputs = {}, {}
    for name, side in sides(size).items():
        with suppress(Exception):  # a decoder that cannot read these images
            outputs[name] = [side(file) for file in files[:50]]
            usable[name] = lambda side=side: [side(file) for file in files]
    seconds = alternately(usable, rounds, time.process_time, warm_up=0)
    if pillow is not None:
        name, seconds_of, found = other(pillow, files, size)
        seconds, outputs[name] = {**seconds, name: seconds_of}, found
    wanted, rows = outputs["Pillow: the default"], []
    for name, found in outputs.items():
        apart = [np.abs(a.astype(int) - b) for a, b in zip(found, wanted, strict=True) if a.shape == b.shape]
        rows.append(
            {
                "images": what,
                "side": name,
                "images/s a core": round(len(files) / seconds[name], 1),
                "to the default": seconds["Pillow: the default"] / seconds[name],
                "largest difference": max((int(d.max()) for d in apart), default=None),
                "mean difference": float(np.mean([d.mean() for d in apart])) if apart else None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--enlarge", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--pillow", type=Path, help="folder with another Pillow")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    torch.set_num_threads(1)
    every = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = every[:: max(1, len(every) // options.count)][: options.count]
    with tempfile.TemporaryDirectory() as place:
        for factor in options.enlarge:
            mine, count = [], max(1, len(files) // factor)
            for i, file in enumerate(files[:count]):
                with Image.open(file) as image:
                    width, height = (factor * side for side in image.size)
                    used = file if factor == 1 else Path(place) / f"{factor}-{i}.jpg"
                    if factor > 1:
                        image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(used, quality=90)
                mine.append(used)
            rows += measure(mine, options.size, options.rounds, f"{count} of about {width} x {height}", options.pillow)
    turbo = features.version_feature("libjpeg_turbo")
    finish(options.output, {"Decoding": rows}, began=began, rounds=options.rounds, pillow=PIL.__version__, turbo=turbo)


if __name__ == "__main__":
    main()
