"""MSDN from stored regions: a loop of one's own against `unseen train`, one after the other.

    python -m benchmarks.msdn_loop cub50:600 cub50 --epochs 10 --output results.json

``DATA[:IMAGES]`` as in :mod:`benchmarks.end_to_end`. The loop (:data:`SCRIPT`) is what a person would write: regions of
timm's network in memory as float32, every formula of MSDN as an einsum, RMSprop with the release's settings for CUB, a
test after every epoch. `unseen` takes as many steps on batches of the same size and tests as often (protocol `paper`,
no class hold-outs), and also writes checkpoints, model and report. Both start from stored regions of MobileNetV2 at 224
px, which is not timed. T1 and H are each the best epoch's, as in the paper. Without an argument it takes UNSEEN_DATA's
cub50 with 600 images, in about three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import Job, run
from benchmarks.measured import finish

SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np, pandas as pd, torch
import torch.nn.functional as F

folder, weights, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
images = pd.read_csv(f"{folder}/images.csv", dtype={"class": str})
classes = pd.read_csv(f"{folder}/classes.csv", dtype={"class": str}).set_index("class")
seen = torch.tensor(classes.pop("seen").astype(bool).to_numpy())
if "unit" in classes.index: classes = classes.drop("unit")
z = F.normalize(torch.tensor(classes.to_numpy(float)).float(), dim=1)
y = torch.tensor(classes.index.get_indexer(images["class"]))

if not epochs:  # store the regions
    import timm
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
    with torch.inference_mode():
        read = lambda name: transform(Image.open(f"{folder}/images/{name}").convert("RGB"))
        parts = [torch.stack([*map(read, images["file"][i : i + 64])]) for i in range(0, len(images), 64)]
        np.save(f"{folder}/regions.npy", torch.cat([model.forward_features(part).flatten(2) for part in parts]))
    sys.exit()

f = torch.from_numpy(np.load(f"{folder}/regions.npy"))  # images, channels, regions
f = F.normalize(f, dim=1)
train = torch.tensor((images["split"] == "trainval").to_numpy())
places, tests = train.nonzero().flatten(), (~train).nonzero().flatten()
given = Path(folder) / "attribute_vectors.npy"
words = torch.from_numpy(np.load(given)).float() if given.is_file() else torch.randn(z.shape[1], 300)
c, d = f.shape[1], words.shape[1]
a = F.normalize(words, dim=1)
w1, w2, w11, w21 = torch.randn(d, c), torch.zeros(d, c), torch.zeros(c, d), torch.zeros(d, c)
parameters = [p.requires_grad_() for p in (a, w1, w2, w11, w21)]
optimizer = torch.optim.RMSprop(parameters, lr=1e-4, weight_decay=1e-4, momentum=0.9)
margin = torch.where(seen, -1.0, 1.0)

def scores(f):
    s = torch.einsum("kd,dc,bcr->bkr", a, w1, f)
    attention = torch.einsum("kd,dc,bcr->bkr", a, w2, f).softmax(2)
    s2 = torch.einsum("bcr,cd,kd->brk", f, w11, a)
    attention2 = torch.einsum("kd,dc,bcr->brk", a, w21, f).softmax(2)
    psi, psi2 = torch.einsum("bkr,bkr->bk", attention, s), torch.einsum("brk,brk->bk", attention2, s2)
    return psi @ z.T, psi2 @ z.T

def loss_of(one, two, labels):
    loss = 0
    for plain in (one, two):
        mass = (plain + margin).softmax(1)[:, ~seen].sum(1).mean()
        loss = loss + F.cross_entropy(plain, labels) - 0.1 * mass.log()
    difference, p, q = one - two, (one + margin).softmax(1), (two + margin).softmax(1)
    half = (p + q) / 2
    divergence = 0.5 * ((p * (p / half).log()).sum(1) + (q * (q / half).log()).sum(1)).mean()
    return loss + 1e-3 * ((difference.abs() ** 3).sum(1) / difference.norm(dim=1)).mean() + 1e-3 * divergence

@torch.no_grad()
def test():
    found = torch.cat([0.9 * one + 0.1 * two for one, two in (scores(f[part]) for part in tests.split(200))]) + margin
    truth, of_unseen = y[tests], found.masked_fill(seen, -torch.inf).argmax(1)
    def mean(named, which):
        hits = [(named[truth == k] == k).float().mean().item() for k in which.nonzero().flatten() if (truth == k).any()]
        return np.mean(hits)
    u, s = mean(found.argmax(1), ~seen), mean(found.argmax(1), seen)
    return mean(of_unseen, ~seen), 2 * u * s / max(u + s, 1e-9)

best, seconds, ends = [0, 0], [], [len(places) * (e + 1) // 50 for e in range(epochs)]
for epoch, end in enumerate(ends):
    began = time.monotonic()
    for _ in range(end - (ends[epoch - 1] if epoch else 0)):
        batch = places[torch.randperm(len(places))[:50]]
        loss = loss_of(*scores(f[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = [max(pair) for pair in zip(best, test())]
    seconds.append(time.monotonic() - began)
print(json.dumps({"T1": best[0], "H": best[1], "seconds": seconds}))
"""


def measure(data: str, place: Path, epochs: int) -> list[dict]:
    """Rows of one dataset."""
    job = Job.of(data, place, SCRIPT)
    ours = [*job.train, "--method", "msdn", "--preset", "cub", "--protocol", "paper", "--holdouts", "0"]
    environment = {**os.environ, "UNSEEN_CACHE": str(place / "cache")}
    run([*job.script, "0"], place / f"{job.folder.name}-regions", environment)
    run([*job.train, "--method", "eszsl"], place / f"{job.folder.name}-store", environment)
    rows: list[dict[str, Any]] = []
    for side, command in (
        ("einsum loop", [*job.script, str(epochs)]),
        ("unseen train", [*ours, "--epochs", str(epochs)]),
    ):
        mine = place / f"{job.folder.name}-{side.replace(' ', '-')}"
        made = run(command, mine, environment)
        if side == "einsum loop":
            found = json.loads(made["said"].splitlines()[-1])
        else:
            found = json.loads((mine / "run" / "results.json").read_text())["protocols"]["paper"]["seeds"]["0"]
            records = (mine / "run" / "seed-0" / "final" / "metrics.jsonl").read_text().splitlines()
            found["seconds"] = [json.loads(line)["seconds"] for line in records]
        rows.append(
            {
                "data": job.name,
                "images": job.images,
                "epochs": len(found["seconds"]),
                "side": side,
                "seconds": round(made["s"], 1),
                "seconds an epoch": round(statistics.median(found["seconds"]), 2),
                "memory, MiB": round(made["memory"]),
                "T1": round(100 * found["T1"], 1),
                "H": round(100 * found["H"], 1),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["cub50:600"], metavar="DATA[:IMAGES]")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if "UNSEEN_DATA" not in os.environ:
        parser.error("set UNSEEN_DATA to the folder that holds cub50, flo64 and weights")
    began, rows = time.monotonic(), []
    for data in options.data:
        with tempfile.TemporaryDirectory(prefix="msdn-loop") as place:
            rows += measure(data, Path(place), options.epochs)
        finish(options.output, {"MSDN from stored regions": rows}, began=began, epochs=options.epochs)


if __name__ == "__main__":
    main()
