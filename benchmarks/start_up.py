"""Seconds from a command to its first answer, against importing torch and against a plain script with torch and timm.

    python -m benchmarks.start_up [--repeats 7] [--output FILE]

The plain script loads the same network and photograph and prints the mean of its features. Every side is a new process,
and sides take turns; the first round, which warms the file cache, does not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import unseen
from benchmarks.measured import alternately, finish
from unseen.data.catalogue import load_dataset
from unseen.ground.cache import cache_folder

PLAIN = """
import json, sys, timm, torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform
name, options, weights, size, image = sys.argv[1:]
model = timm.create_model(name, num_classes=0, **json.loads(options)).eval()
model.load_state_dict(load_file(weights), strict=False)
pixels = create_transform(int(size))(Image.open(image).convert("RGB"))[None]
with torch.inference_mode():
    print(model.forward_features(pixels).mean().item())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    from unseen.fieldguide import BACKBONE

    dataset = load_dataset("fieldguide", cache=cache_folder(None))
    image = str(dataset.paths()[0])
    with tempfile.TemporaryDirectory() as place:
        run = unseen.fit("eszsl", "fieldguide", Path(place) / "run", device="cpu").folder
        command = [sys.executable, "-m", "unseen"]
        made = [BACKBONE["name"], json.dumps(BACKBONE["options"]), str(BACKBONE["weights"])]
        plain = [*made, str(BACKBONE["image_size"]), image]
        sides = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import torch": [sys.executable, "-c", "import torch"],
            "import timm": [sys.executable, "-c", "import timm"],
            "a plain script: torch, timm, one photograph": [sys.executable, "-c", PLAIN, *plain],
            "unseen --help": [*command, "--help"],
            "unseen classes list": [*command, "classes", "list", str(run)],
            "unseen predict, one photograph": [*command, "predict", str(run), image],
            "unseen predict, 64 photographs": [*command, "predict", str(run), *map(str, dataset.paths()[:64])],
        }

        def timed(what: list) -> None:
            subprocess.run(what, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        seconds = alternately({name: partial(timed, what) for name, what in sides.items()}, options.repeats)
    least = seconds["a plain script: torch, timm, one photograph"]
    rows = [
        {"what": name, "seconds": round(value, 2), "of the plain script": round(value / least, 2)}
        for name, value in seconds.items()
    ]
    finish(options.output, {"Start-up": rows}, began=began)


if __name__ == "__main__":
    main()
