"""An exported model against torch: do real images get the same answers, and which is faster?

python -m benchmarks.onnx_speed RUN IMAGES [--threads 2] [--images 200] [--output FILE.json]

Both sides read the same images, each with its own code, and compute class scores from the same class table. Times are
those of the network alone, without reading images. The two take turns, and the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from unseen.export import INPUTS, Graph, export_onnx
from unseen.recognizer import Recognizer


def reader():
    where = Path(__file__).parents[1] / "examples" / "onnx_predict.py"
    spec = importlib.util.spec_from_file_location("onnx_predict", where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_image


def agreement(recognizer, session, files):
    """Largest differences of scores and confidence, and number of images with another best class."""
    transform, read_image = recognizer.backbone.transform, reader()
    vectors, seen = recognizer.table.values.astype(np.float32), recognizer.table.seen
    index = {name: i for i, name in enumerate(recognizer.table.names)}
    worst = {"bytes": 0, "score": 0.0, "score_unit": 0.0, "confidence": 0.0, "other_best": 0}
    for file, told in zip(files, recognizer.predict(files, top=len(seen)), strict=True):
        pixels = read_image(file, transform.size, transform.short_side)
        worst["bytes"] += int((pixels != transform.cropped(file).permute(1, 2, 0).numpy()).sum())
        scores = session.run(["scores"], dict(zip(INPUTS, (pixels[None], vectors, seen), strict=True)))[0][0]
        shifted = (scores - recognizer.gamma * seen) / (recognizer.temperature or 1.0)
        confidence = np.exp(shifted - shifted.max())
        confidence /= confidence.sum()
        for candidate in told.candidates:
            i = index[candidate.name]
            worst["score"] = max(worst["score"], abs(candidate.score - float(scores[i])))
            worst["score_unit"] = max(worst["score_unit"], abs(candidate.score))
            worst["confidence"] = max(worst["confidence"], abs(candidate.confidence - float(confidence[i])))
        worst["other_best"] += int(index[told.best.name] != int(shifted.argmax()))
    return {"images": len(files), **worst}


def seconds(graph, session, recognizer, batch, rounds):
    """Median seconds of both sides, which take turns."""
    size, table = recognizer.backbone.transform.size, recognizer.table
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    arrays = pixels, table.values.astype(np.float32), table.seen
    given, tensors = dict(zip(INPUTS, arrays, strict=True)), [torch.from_numpy(np.array(a)) for a in arrays]
    times: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
    with torch.inference_mode():
        for turn in range(rounds + 2):
            for side, call in (("torch", lambda: graph(*tensors)), ("onnxruntime", lambda: session.run(None, given))):
                start = time.perf_counter()
                call()
                if turn > 1:  # the first two warm up
                    times[side].append(time.perf_counter() - start)
    return {side: statistics.median(found) for side, found in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recognizer = Recognizer.load(arguments.run, device="cpu")
    files = sorted(p for p in arguments.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = files[:: max(1, len(files) // arguments.images)][: arguments.images]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        exported = export_onnx(recognizer, Path(folder) / "m.onnx")
        export_seconds, megabytes = time.perf_counter() - start, exported.model.stat().st_size / 1e6
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        session = onnxruntime.InferenceSession(str(exported.model), options, providers=["CPUExecutionProvider"])
    graph = Graph(recognizer).eval()
    found = {
        "method": recognizer.method.name,
        "backbone": recognizer.backbone.spec.name,
        "image_size": recognizer.backbone.transform.size,
        "classes": len(recognizer.table),
        "agreement": agreement(recognizer, session, files),
        "export": {"seconds": export_seconds, "megabytes": megabytes, "differences": exported.differences},
        "seconds": {},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": arguments.threads},
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }
    for batch in (1, 16):
        times = seconds(graph, session, recognizer, batch, arguments.rounds)
        found["seconds"][str(batch)] = {**times, "torch / onnxruntime": times["torch"] / times["onnxruntime"]}
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
