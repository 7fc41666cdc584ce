"""int8 and bfloat16 of a frozen network on a CPU: speed, and their price in features and accuracy.

    python -m benchmarks.precisions [FOLDER --weights FILE] [--calibrate 100] [--rounds 3] [--output FILE]

``FOLDER`` is a dataset folder such as cub50 (images/, images.csv with splits, classes.csv), the network MobileNetV2 at
224 px; by default cub50 and its weights below UNSEEN_DATA. int8 is ONNX Runtime's static quantization with one scale
per channel, calibrated on training images; its weights keep 7 bits where the processor has no VNNI, since sums of two
products would overflow. bfloat16 is OpenVINO's precision hint, set even where the processor has no such units. Engines
take turns on 32 images in memory. Accuracy is that of ESZSL on pooled features of all images, chosen as in the script
of benchmarks/end_to_end.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.end_to_end import CHOICE, CLASSES
from benchmarks.extraction_rate import processor_seconds
from benchmarks.measured import finish
from unseen.backbones.backbone import Backbone
from unseen.backbones.engines import OnnxRuntime, OpenVino, _Network, _openvino_abilities
from unseen.backbones.spec import BackboneSpec
from unseen.features.reading import read_batches, stacked


class Sample(CalibrationDataReader):
    """Images one by one."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = iter(images)

    def get_next(self) -> dict | None:
        one = next(self.images, None)
        return None if one is None else {"images": one[None].numpy()}


def quantized(network: Path, sample: torch.Tensor, vnni: bool) -> Path:
    """The network in int8, beside it."""
    ready, made = network.with_name("ready.onnx"), network.with_name("int8.onnx")
    quant_pre_process(str(network), str(ready))
    quantize_static(
        str(ready),
        str(made),
        Sample(sample),
        per_channel=True,
        reduce_range=not vnni,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return made


def accuracy(folder: Path, pooled: np.ndarray) -> list[float]:
    """T1, U, S and H of ESZSL in percent."""
    names: dict[str, Any] = {"folder": folder, "x": pooled.astype(float)}
    exec(CLASSES + CHOICE, names)  # noqa: S102
    found: list[float] = names["numbers"]
    return found


def main() -> None:
    data = Path(os.environ.get("UNSEEN_DATA", "."))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=data / "cub50")
    parser.add_argument("--weights", type=Path, default=data / "weights" / "mobilenetv2_100_imagenet.safetensors")
    parser.add_argument("--calibrate", type=int, default=100, help="number of training images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(options.threads)
    spec = BackboneSpec(
        "mobilenetv2_100",
        weights=str(options.weights),
        image_size=224,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        options={"pad_type": "same"},
    )
    backbone = Backbone(spec)
    images = pd.read_csv(options.folder / "images.csv")
    files = [options.folder / "images" / name for name in images["file"]]
    train = [file for file, split in zip(files, images["split"], strict=True) if split == "trainval"]
    sample = stacked([backbone.transform.cropped(f) for f in train[:: len(train) // options.calibrate]])
    vnni = any("vnni" in line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    with tempfile.TemporaryDirectory() as place:
        network, example = _Network(backbone).eval(), sample[:1]
        onnx, xml = Path(place) / "network.onnx", Path(place) / "network.xml"
        with torch.no_grad():
            OnnxRuntime.convert(network, example, onnx)
            OpenVino.convert(network, example, xml)
        prepared = time.monotonic()
        small = quantized(onnx, sample, vnni)
        prepared = time.monotonic() - prepared
        engines = {
            "onnxruntime, float32": OnnxRuntime(onnx, options.threads, "f32"),
            "onnxruntime, int8": OnnxRuntime(small, options.threads, "f32"),
            "openvino, float32": OpenVino(xml, options.threads, "f32"),
            "openvino, bfloat16": OpenVino(xml, options.threads, "bf16"),
        }
        used = {
            name: str(e._model.get_property("INFERENCE_PRECISION_HINT").to_string())
            for name, e in engines.items()
            if isinstance(e, OpenVino)
        }
        took: dict[str, list[float]] = {name: [] for name in engines}
        work: dict[str, list[float]] = {name: [] for name in engines}
        for turn in range(options.rounds + 1):
            for name, engine in engines.items():
                start, processor = time.perf_counter(), processor_seconds()
                for _ in range(3):
                    engine(sample[:32])
                if turn:
                    took[name].append((time.perf_counter() - start) / 96)
                    work[name].append((processor_seconds() - processor) / 96)
        pooled: dict[str, list[np.ndarray]] = {name: [] for name in engines}
        batches = (files[i : i + 32] for i in range(0, len(files), 32))
        for _, read in read_batches(batches, backbone.transform, 2):
            pixels = stacked([found for found in read if isinstance(found, torch.Tensor)])
            for name, engine in engines.items():
                pooled[name].append(engine(pixels)[0].mean(1).numpy())
    features = {name: np.concatenate(found) for name, found in pooled.items()}
    wanted, rows = features["onnxruntime, float32"], []
    middle = {name: statistics.median(times) for name, times in took.items()}
    for name, found in features.items():
        first = next(iter(n for n in engines if n.split(",")[0] == name.split(",")[0]))
        cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
        rows.append(
            {
                "engine": name,
                "alone, images/s": 1 / middle[name],
                "processor ms an image": 1000 * statistics.median(work[name]),
                "to its float32": middle[first] / middle[name],
                "largest difference": float(np.abs(found - wanted).max() / np.abs(wanted).max()),
                "least cosine": float(cosine.min()),
                **dict(zip(("T1", "U", "S", "H"), accuracy(options.folder, found), strict=True)),
            }
        )
    finish(
        options.output,
        {"Precisions": rows},
        began=began,
        images=len(files),
        calibrated_on=len(sample),
        seconds_to_quantize=round(prepared, 1),
        vnni=vnni,
        openvino={"abilities": _openvino_abilities(), "precision used": used},
    )


if __name__ == "__main__":
    main()
