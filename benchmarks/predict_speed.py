"""Speed of a recognizer: images per second, the first image, a new class, and answers of the page.

    python -m benchmarks.predict_speed [--run RUN] [--images FOLDER] [--count 512] [--requests 150] [--output FILE]
    python -m benchmarks.predict_speed --run RUN --images FOLDER --counts 1 64 2889 [--engines torch onnxruntime]

Without a run, ESZSL is trained on fieldguide, whose small network makes everything else visible. Images per second: the
network alone on pixels in memory, a plain loop (timm's network, the method, the largest score), `Recognizer.predict`,
and `predict_to_file`, which is `unseen predict --output` after its start. A new class is timed together with the scores
that follow. The page is requested over loopback, one request after another. Results are medians.

``--counts`` measures only whole commands, from start to exit, for so many images: `unseen predict RUN --list FILE
--output FILE` with each engine against the plain loop as a script, which builds the network by timm, in turn.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

import unseen
from benchmarks.measured import finish
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.catalogue import load_dataset
from unseen.ground.progress import bars
from unseen.methods import create_method
from unseen.recognizer import Recognizer
from unseen.recognizer.stream import Options, predict_to_file


def plain(recognizer: Recognizer, files: list[Path], batch: int) -> list[int]:
    """Best classes as in a plain script."""
    spec, method = recognizer.backbone.spec, recognizer.method
    ours = recognizer.backbone.transform
    transform = create_transform(
        (3, ours.size, ours.size), interpolation="bicubic", crop_pct=spec.crop, mean=ours.mean, std=ours.std
    )
    classes = recognizer.scorer._blocks[0].embeddings[: len(recognizer.table)]
    lowered = recognizer.gamma * torch.from_numpy(recognizer.table.seen.copy()).float()
    found: list[int] = []
    with torch.inference_mode():
        for first in range(0, len(files), batch):
            pixels = torch.stack([transform(Image.open(f).convert("RGB")) for f in files[first : first + batch]])
            regions = recognizer.backbone.model.forward_features(pixels).flatten(2).transpose(1, 2)
            query = method.query(method(method.prepare(regions)))
            found += (query @ classes.T - lowered).argmax(1).tolist()
    return found


SCRIPT = """
import sys
from pathlib import Path
import torch
from benchmarks.predict_speed import plain
from unseen.recognizer import Recognizer

recognizer = Recognizer.load(Path(sys.argv[1]), device="cpu")
names = recognizer.table.names
files = [Path(line) for line in Path(sys.argv[2]).read_text().splitlines()]
rows = [f"{file},{names[best]}\\n" for file, best in zip(files, plain(recognizer, files, 64))]
Path(sys.argv[3]).write_text("image,class\\n" + "".join(rows))
"""


def commands(run: Path, files: list[Path], counts: list[int], engines: list[str], rounds: int) -> list[dict]:
    """Seconds, memory and processor time of whole commands for the first images of a folder."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            mine = files[:: max(1, len(files) // count)][:count]
            (listed := Path(folder) / "images.txt").write_text("".join(f"{file}\n" for file in mine))
            out = Path(folder) / "found.csv"
            sides = {"plain loop, a script": [sys.executable, "-c", SCRIPT, str(run), str(listed), str(out)]}
            for engine in engines:
                command = ["predict", str(run), "--list", str(listed), "--engine", engine, "--output", str(out)]
                sides[f"unseen predict, {engine}"] = [sys.executable, "-m", "unseen", *command]
            took: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
            answers: dict[str, list[str]] = {}
            for turn in range(rounds + 1):  # the first round converts the network and fills the file cache
                if not turn and count > 64:
                    continue
                for side, command in sides.items():
                    out.unlink(missing_ok=True)
                    began = time.perf_counter()
                    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    _, status, used = os.wait4(process.pid, 0)
                    process.returncode = os.waitstatus_to_exitcode(status)
                    if process.returncode:
                        raise SystemExit(f"failed: {' '.join(map(str, command))}")
                    seconds = time.perf_counter() - began
                    with out.open(newline="") as read:
                        answers[side] = [row.get("best_class") or row["class"] for row in csv.DictReader(read)]
                    if turn:
                        took[side].append((seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
            first = statistics.median(t[0] for t in took["plain loop, a script"])
            for side, times in took.items():
                seconds, processor, memory = (statistics.median(t[i] for t in times) for i in range(3))
                same = [a == b for a, b in zip(answers[side], answers["plain loop, a script"], strict=True)]
                rows.append(
                    {
                        "images": count,
                        "side": side,
                        "seconds": seconds,
                        "images/s": count / seconds,
                        "to the plain loop": first / seconds,
                        "processor s": processor,
                        "memory, MiB": round(memory),
                        "same best class": sum(same) / len(same),
                    }
                )
    return rows


def rates(recognizer: Recognizer, files: list[Path], batch: int, rounds: int) -> list[dict]:
    transform = recognizer.backbone.transform
    held = torch.stack([transform.cropped(file) for file in files[:batch]])

    def alone() -> None:
        for first in range(0, len(files), batch):
            recognizer.backbone.regions(held[: len(files) - first])

    def to_file() -> None:
        with tempfile.TemporaryDirectory() as folder:
            predict_to_file(recognizer, files, Path(folder) / "found.csv", Options(batch_size=batch))

    sides: dict[str, Callable[[], object]] = {
        "network alone": alone,
        "plain loop": lambda: plain(recognizer, files, batch),
        "Recognizer.predict": lambda: recognizer.predict(files, batch_size=batch),
        "unseen predict --output": to_file,
    }
    wall: dict[str, list[float]] = {side: [] for side in sides}
    used: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        for side, run in sides.items():
            processor, began = time.process_time(), time.perf_counter()
            run()
            if turn:
                wall[side].append((time.perf_counter() - began) / len(files))
                used[side].append((time.process_time() - processor) / len(files))
    seconds = {side: statistics.median(found) for side, found in wall.items()}
    return [
        {
            "images at once": batch,
            "side": side,
            "images/s": 1 / seconds[side],
            "processor ms an image": 1000 * statistics.median(used[side]),
            "to the network alone": seconds["network alone"] / seconds[side],
            "to the plain loop": seconds["plain loop"] / seconds[side],
        }
        for side in sides
    ]


def first(run: Path, files: list[Path], rounds: int) -> list[dict]:
    """Milliseconds to load, and to the first and the second image after it."""
    found: dict[str, list[float]] = {"load": [], "first image": [], "second image": []}
    for _ in range(rounds):
        began = time.perf_counter()
        recognizer = Recognizer.load(run, device="cpu")
        for what, do in (
            ("load", lambda: None),
            ("first image", lambda r=recognizer: r.predict(files[0])),
            ("second image", lambda r=recognizer: r.predict(files[1])),
        ):
            do()
            found[what].append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
    return [{"what": what, "ms": statistics.median(times)} for what, times in found.items()]


def added(recognizer: Recognizer, classes: int, attributes: int = 312, rounds: int = 15) -> dict:
    rng = np.random.default_rng(0)
    values = rng.random((classes, attributes))
    names = tuple(f"class {i}" for i in range(classes))
    table = ClassTable(names, Attributes(tuple(f"a{k}" for k in range(attributes))), values, rng.random(classes) < 0.5)
    method = create_method("eszsl", channels=8, vectors=torch.zeros(attributes, 1)).eval()
    one = Recognizer(recognizer.backbone, method, table, device="cpu")
    query, times, alone = rng.standard_normal((1, attributes)), [], []
    one.class_scores(query)
    for i in range(rounds):
        began = time.perf_counter()
        one.add_class(f"new {i}", rng.random(attributes))
        alone.append(1000 * (time.perf_counter() - began))
        one.class_scores(query)
        times.append(1000 * (time.perf_counter() - began))
    return {
        "classes": classes,
        "attributes": attributes,
        "add_class, ms": statistics.median(alone),
        "with the next image's scores, ms": statistics.median(times),
    }


def page(run: Path, image: bytes, requests: int, threads: int) -> list[dict]:
    import httpx

    from benchmarks.serve_load import start, timed

    process, url = start(run, threads)
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            explain = client.post("/api/explain", files={"image": ("a", image)}).json()
            body = {"look": explain["look"], "corrections": {explain["reasons"][0]["attribute"]: 0.0}, "top": 1000}
            asks = {
                "predict": lambda: client.post("/api/predict", files={"images": ("a", image)}),
                "explain": lambda: client.post("/api/explain", files={"image": ("a", image)}),
                "rank, one attribute corrected": lambda: client.post("/api/rank", json=body),
            }
            rows = []
            for name, ask in asks.items():
                timed(ask, 10)
                latency = timed(ask, requests)
                rows.append({"request": name, "median ms": latency["median_ms"], "95% within, ms": latency["p95_ms"]})
            return rows
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict_speed", description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--images", type=Path, help="folder of images (default: those of fieldguide)")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--counts", type=int, nargs="+", help="whole commands for so many images, nothing else")
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=150, help="number of requests of each kind")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(options.threads)
    if options.counts:
        if not (options.run and options.images):
            parser.error("--counts needs --run and --images")
        files = sorted(options.images.rglob("*.jpg"))
        rows = commands(options.run, files, options.counts, options.engines, options.rounds)
        finish(options.output, {"Whole commands": rows}, began=began, rounds=options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            unseen.fit("eszsl", "fieldguide", run, device="cpu", progress=progress)
        if options.images is None:
            files = load_dataset("fieldguide", progress=progress).paths()
        else:
            files = sorted(options.images.rglob("*.jpg"))
        files = files[:: max(1, len(files) // options.count)][: options.count]
        recognizer = Recognizer.load(run, device="cpu")
        best = [recognizer.table.index(p.candidates[0].name) for p in recognizer.predict(files)]
        agree = float(np.mean(np.array(plain(recognizer, files, 64)) == best))
        tables = {
            "Images a second": [
                *rates(recognizer, files[: len(files) // 4], 1, options.rounds),
                *rates(recognizer, files, 64, options.rounds),
            ],
            "The first image": first(run, files, options.rounds),
            "A new class": [added(recognizer, classes) for classes in (200, 10_000)],
            "The page": page(run, files[0].read_bytes(), options.requests, options.threads),
        }
    spec = recognizer.backbone.spec
    finish(
        options.output,
        tables,
        began=began,
        run={
            "method": recognizer.method.name,
            "network": f"{spec.name} at {spec.image_size} px",
            "classes": len(recognizer.table),
            "attributes": len(recognizer.table.attributes),
        },
        images=len(files),
        same_best_class_as_the_plain_loop=agree,
    )


if __name__ == "__main__":
    main()
