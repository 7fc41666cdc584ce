"""From a folder of photographs to tested numbers: the obvious script against `unseen train`, one after the other.

    python -m benchmarks.end_to_end cub50:600 cub50 flo64 --output results.json

``DATA[:IMAGES]`` is ``cub50`` or ``flo64`` below UNSEEN_DATA, all of it or about so many images, equally many per
class. The script (:data:`SCRIPT`) is what a person would write: timm's network and transform in torch, a DataLoader,
pooled features kept in memory, ESZSL in NumPy with gamma, lambda and the seen/unseen offset chosen on one draw of
validation classes. `unseen` extracts regions to disk, chooses on five draws, calibrates, and writes model and report.
Both read MobileNetV2's weights at 224 px and start from empty caches. Memory is the largest of a process. Without an
argument it takes UNSEEN_DATA's cub50 with 600 images.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from benchmarks.closed_forms import NETWORKS, flowers
from benchmarks.measured import finish

CLASSES = """
import numpy as np, pandas as pd
images = pd.read_csv(f"{folder}/images.csv", dtype={"class": str})
classes = pd.read_csv(f"{folder}/classes.csv", dtype={"class": str}).set_index("class")
seen = classes.pop("seen").astype(bool).to_numpy()
if "unit" in classes.index: classes = classes.drop("unit")
z = classes.to_numpy(float)
z /= np.linalg.norm(z, axis=1, keepdims=True)
y = classes.index.get_indexer(images["class"])
"""
FEATURES = """
import timm, torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms

model = timm.create_model("mobilenetv2_100", num_classes=0, pad_type="same")
model.load_state_dict(load_file(weights), strict=False)
model.eval()
transform = transforms.Compose([
    transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224),
    transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3),
])

class Photos(torch.utils.data.Dataset):
    def __len__(self): return len(images)
    def __getitem__(self, i): return transform(Image.open(f"{folder}/images/{images['file'][i]}").convert("RGB"))

with torch.inference_mode():
    loader = torch.utils.data.DataLoader(Photos(), 64, num_workers=workers)
    x = torch.cat([model(batch) for batch in loader]).double().numpy()
"""
CHOICE = """
x /= np.linalg.norm(x, axis=1, keepdims=True)

def eszsl(x, y, s, gamma, lam):
    target = 2.0 * (y[:, None] == np.arange(len(s))) - 1
    left = np.linalg.solve(x.T @ x + gamma * np.eye(x.shape[1]), x.T @ target @ s)
    return left @ np.linalg.inv(s.T @ s + lam * np.eye(s.shape[1]))

def measure(scores, y, seen, offset):
    by = lambda named, which: np.mean([np.mean(named[y == c] == c) for c in which if (y == c).any()])
    named = (scores - offset * seen).argmax(1)
    u, s = by(named, np.flatnonzero(~seen)), by(named, np.flatnonzero(seen))
    return by(np.where(seen, -np.inf, scores).argmax(1), np.flatnonzero(~seen)), u, s, 2 * u * s / max(u + s, 1e-9)

rng, train = np.random.default_rng(0), (images["split"] == "trainval").to_numpy()
held = np.zeros(len(z), bool)
held[rng.permutation(np.flatnonzero(seen))[: max(2, seen.sum() // 5)]] = True
fit = train & ~held[y] & (rng.random(len(y)) < 0.8)
validate, known = train & ~fit, np.flatnonzero(seen & ~held)
best = (-1,)
for gamma in 10.0 ** np.arange(-3, 4):
    for lam in 10.0 ** np.arange(-3, 4):
        scores = x[validate] @ eszsl(x[fit], np.searchsorted(known, y[fit]), z[known], gamma, lam) @ z[seen].T
        place = np.cumsum(seen)[y[validate]] - 1
        for offset in np.linspace(0, 1, 21) * scores.std() * 5:
            best = max(best, (measure(scores, place, ~held[seen], offset)[3], gamma, lam, offset))
_, gamma, lam, offset = best
known = np.flatnonzero(seen)
scores = x[~train] @ eszsl(x[train], np.searchsorted(known, y[train]), z[known], gamma, lam) @ z.T
numbers = [round(100 * v, 1) for v in measure(scores, y[~train], seen, offset)]
"""
SCRIPT = f"""
import sys
folder, weights, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
{CLASSES}{FEATURES}{CHOICE}
print("T1 U S H", *numbers)
"""


def subset(source: Path, count: int | None, place: Path) -> tuple[Path, int]:
    """A dataset folder with about so many images of ``source``, and their number."""
    images = pd.read_csv(source / "images.csv", dtype={"class": str})
    if count is not None:
        order = images.sample(frac=1, random_state=0).groupby("class").cumcount()
        images = images[order.reindex(images.index) < max(1, round(count / images["class"].nunique()))]
    place.mkdir()
    images[["file", "class", "split"]].to_csv(place / "images.csv", index=False)
    for name in ("classes.csv", "attributes.csv", "attribute_vectors.npy"):
        if (source / name).is_file():
            (place / name).write_bytes((source / name).read_bytes())
    (place / "images").symlink_to((source / "images").resolve())
    return place, len(images)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds, memory, disk and output of a command."""
    folder.mkdir()
    began = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, said = time.monotonic() - began, (folder / "output.txt").read_text()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{said[-2000:]}")
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    return {"s": seconds, "memory": used.ru_maxrss / 1024, "disk": size / 2**20, "said": said}


@dataclass(frozen=True)
class Job:
    """A dataset, and how to start a script and `unseen train` on it."""

    name: str
    folder: Path
    images: int
    script: list[str]
    train: list[str]

    @classmethod
    def of(cls, data: str, place: Path, script: str) -> Self:
        """The job for ``DATA[:IMAGES]``, with its files below ``place``."""
        name, _, count = data.partition(":")
        root = Path(os.environ["UNSEEN_DATA"])
        source = flowers(root / name, place / "cache") if name == "flo64" else root / name
        folder, images = subset(source, int(count) if count else None, place / f"{name}-{count or 'all'}")
        weights = str(root / "weights" / NETWORKS["mobilenetv2"][1])
        (written := place / "script.py").write_text(script)
        network = ["--backbone", "mobilenetv2_100", "--backbone-weights", weights, "--backbone-option", "pad_type=same"]
        network += ["--mean", "0.5", "--std", "0.5", "--image-size", "224", "--device", "cpu"]
        train = [sys.executable, "-m", "unseen", "train", str(folder), *network, "--output", "run"]
        return cls(name, folder, images, [sys.executable, str(written), str(folder), weights], train)


def measure(data: str, place: Path, rounds: int, train: list[str]) -> list[dict]:
    """Rows of one dataset."""
    job = Job.of(data, place, SCRIPT)
    sides = {"script": [*job.script, str(os.cpu_count())]}
    sides |= {f"unseen train {words}": [*job.train, *words.split()] for words in train}
    found: dict[str, dict] = {}
    for turn in range(rounds):
        for side, command in sides.items():
            mine = place / f"{job.folder.name}-{turn}-{len(found)}-{len(side)}"
            environment = {**os.environ, "UNSEEN_CACHE": str(mine / "cache")}
            made = run(command, mine, environment)
            if side == "script":
                numbers = re.findall(r"[\d.]+", made["said"].splitlines()[-1].replace("T1", ""))
            else:
                seed = json.loads((mine / "run" / "results.json").read_text())["protocols"]["honest"]["seeds"]["0"]
                numbers = [round(100 * seed[name], 1) for name in ("T1", "U", "S", "H")]
            made["T1"], made["H"] = float(numbers[0]), float(numbers[3])
            if side not in found or made["s"] < found[side]["s"]:
                found[side] = made
    return [
        {
            "images": job.images,
            "data": job.name,
            "side": side,
            "seconds": round(made["s"], 1),
            "script to it": round(found["script"]["s"] / made["s"], 2),
            "memory, MiB": round(made["memory"]),
            "disk, MiB": round(made["disk"], 1),
            "T1": made["T1"],
            "H": made["H"],
        }
        for side, made in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["cub50:600"], metavar="DATA[:IMAGES]")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--train",
        nargs="+",
        default=["--method eszsl", "--method eszsl --pixels fast"],
        help="options of each `unseen train`",
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if "UNSEEN_DATA" not in os.environ:
        parser.error("set UNSEEN_DATA to the folder that holds cub50, flo64 and weights")
    began, rows = time.monotonic(), []
    for data in options.data:
        with tempfile.TemporaryDirectory(prefix="end-to-end") as place:
            rows += measure(data, Path(place), options.rounds, options.train)
        finish(options.output, {"End to end": rows}, began=began, rounds=options.rounds)


if __name__ == "__main__":
    main()
