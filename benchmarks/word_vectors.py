"""Time and memory for reading a few words from a word2vec binary file of GoogleNews' shape (3,000,000 x 300).

    python -m benchmarks.word_vectors FOLDER [--output FILE]

The file is generated in FOLDER (3.6 GB) and deleted afterwards.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.measured import finish
from unseen.vectors.word_files import open_word_file, read_word_vectors

WORDS, DIM = 3_000_000, 300


def generate(path: Path) -> None:
    """Words ``w0``, ``w1``, ... with distinct numbers."""
    with path.open("wb", buffering=1 << 22) as file:
        file.write(f"{WORDS} {DIM}\n".encode())
        for i in range(WORDS):
            file.write(b"w%d " % i + np.float32(i).tobytes() * DIM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path)
    options, began = parser.parse_args(), time.monotonic()
    path = options.folder / "generated.bin"
    generate(path)
    try:
        size = path.stat().st_size
        process = psutil.Process()
        before, peak = process.memory_info().rss, 0

        def watch(task: str, done: int, total: int, note: str = "") -> None:
            nonlocal peak
            peak = max(peak, process.memory_info().rss)

        started = time.monotonic()
        found = read_word_vectors(open_word_file(path), {f"w{i}" for i in range(0, WORDS, 20_000)} | {"absent"}, watch)
        seconds = time.monotonic() - started
        assert len(found) == 150
        assert all(vector[0] == int(word[1:]) for word, vector in found.items())
    finally:
        path.unlink()
    result = {
        "file_gb": round(size / 1e9, 2),
        "words_read": len(found),
        "seconds": round(seconds, 1),
        "memory_grown_mb": round((peak - before) / 1e6, 1),
    }
    finish(options.output, {"Words of a large file": [result]}, began=began)


if __name__ == "__main__":
    main()
