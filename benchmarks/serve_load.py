"""Latency, memory and behavior of `unseen serve` under load, over loopback.

    python -m benchmarks.serve_load RUN IMAGE [--requests 2000] [--burst 500] [--output FILE]

One process serves, and this one sends requests. Latency is that of one request after another; memory is the server's
resident set, after a warm-up of 100 requests and at the end; the burst sends all its requests at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil


def start(run: Path, threads: int) -> tuple[subprocess.Popen, str]:
    path = Path(tempfile.mkdtemp()) / "log"
    command = [sys.executable, "-m", "unseen", "serve", str(run), "--threads", str(threads)]
    with path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "300"})
    while "Ctrl-C" not in (text := path.read_text()):
        if process.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.1)
    return process, next(word for word in text.split() if word.startswith("http"))


def timed(ask, count: int) -> dict[str, float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        ask().raise_for_status()
        times.append(1000 * (time.perf_counter() - begun))
    times.sort()
    return {"median_ms": round(statistics.median(times), 1), "p95_ms": round(times[int(0.95 * count)], 1)}


async def burst(url: str, image: bytes, count: int) -> dict[str, object]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def one() -> str:
            try:
                return str((await client.post("/api/predict", files={"images": ("a", image)})).status_code)
            except httpx.HTTPError as error:
                return type(error).__name__

        begun = time.perf_counter()
        found = await asyncio.gather(*(one() for _ in range(count)))
        return {
            "seconds": round(time.perf_counter() - begun, 2),
            "answers": {status: found.count(status) for status in sorted(set(found))},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--burst", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    image = options.image.read_bytes()
    process, url = start(options.run, options.threads)
    try:
        server = psutil.Process(process.pid)
        with httpx.Client(base_url=url, timeout=120) as client:
            classes = client.get("/api/about").json()["classes"]
            explain = client.post("/api/explain", files={"image": ("a", image)}).json()
            correction = {explain["reasons"][0]["attribute"]: 0.0}
            body = {"look": explain["look"], "corrections": correction, "top": 1000}
            asks = {
                "predict": lambda: client.post("/api/predict", files={"images": ("a", image)}),
                "explain": lambda: client.post("/api/explain", files={"image": ("a", image)}),
                "rank": lambda: client.post("/api/rank", json=body),
            }
            for ask in asks.values():
                timed(ask, 33)
            before = server.memory_info().rss
            latency = {name: timed(ask, options.requests // 3) for name, ask in asks.items()}
            after = server.memory_info().rss
        loaded = asyncio.run(burst(url, image, options.burst))
        found = {
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
            "run": {"classes": classes, "attributes": len(explain["reasons"])},
            "requests": 3 * (options.requests // 3),
            "latency": latency,
            "memory_mb": {"before": before >> 20, "after": after >> 20, "after_burst": server.memory_info().rss >> 20},
            "burst": {"requests": options.burst, **loaded},
        }
    finally:
        process.terminate()
        process.wait()
    print(json.dumps(found, indent=2))
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
