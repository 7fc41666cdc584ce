"""Engines compute a frozen network on a CPU: torch always works; ONNX Runtime and OpenVINO are faster.

An engine processes single images, several of them in parallel on as many threads as torch may use. The features of an
image are therefore the same bit for bit whatever else is in the batch. A network is converted once and cached.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unseen.backbones.spec import BackboneSpec
from unseen.backbones.transform import Transform
from unseen.errors import UnseenError
from unseen.ground.files import read_json, write_json

ENGINES = ("auto", "torch", "onnxruntime", "openvino")
VARIABLE = "UNSEEN_ENGINE"
"""Environment variable with the name of the engine, used if nothing else names one."""
TOLERANCE = 1e-3
"""Largest difference between features of an engine and of torch, relative to the largest feature."""
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino"}
"""Extra that installs each engine, the first choice first."""
_FILES = {"openvino": "network.xml", "onnxruntime": "network.onnx"}
_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """An engine and its version.

    Attributes:
        name: "torch", "openvino" or "onnxruntime".
        precision: "f32", or "bf16" for OpenVINO.
        version: version of the package.
    """

    name: str = "torch"
    precision: str = "f32"
    version: str = ""

    def __str__(self) -> str:
        """The form in stores and manifests: "openvino 2026.4.1"."""
        return " ".join([self.name, self.version] + [self.precision] * (self.precision != "f32"))

    @property
    def label(self) -> str | None:
        """Part of the identity of features; None for torch, the reference for all others."""
        return None if self.name == "torch" else str(self)


def chosen_engine(wanted: str | None = None, device: str | torch.device = "cpu") -> Engine:
    """The engine for a name and a device.

    Args:
        wanted: "torch", "openvino", "onnxruntime", "openvino:bf16", or "auto": on a CPU the first installed one of
            ONNX Runtime, OpenVINO and torch, elsewhere torch. None is ``$UNSEEN_ENGINE``, else "auto".
        device: device of the network.

    Raises:
        UnseenError: the engine does not exist, is not installed, or does not run on the device.
    """
    wanted = wanted or os.environ.get(VARIABLE) or "auto"
    name, _, precision = wanted.partition(":")
    if name not in ENGINES or precision not in ("", "f32", "bf16") or (precision == "bf16" and name != "openvino"):
        raise UnseenError(
            f'unknown engine "{wanted}"', where="--engine", hint=f"use one of {', '.join(ENGINES)} or openvino:bf16"
        )
    on_cpu = torch.device(device).type == "cpu"
    if name == "auto":
        name = next((n for n in _EXTRAS if on_cpu and _installed(n)), "torch")
    elif name != "torch" and not on_cpu:
        raise UnseenError(f"{name} runs on a CPU only", where=f"device {device}", hint="--engine auto")
    elif name != "torch" and not _installed(name):
        raise UnseenError(f"{name} is not installed", where="--engine", hint=f"pip install 'unseen[{_EXTRAS[name]}]'")
    if precision == "bf16" and "BF16" not in _openvino_abilities():
        problem = "this processor does not support bfloat16"
        raise UnseenError(problem, where="--engine", hint="omit :bf16; it needs AVX-512 BF16 or AMX")
    return Engine(name, precision or "f32", torch.__version__.split("+")[0] if name == "torch" else version(name))


def available_labels(device: torch.device) -> set[str | None]:
    """:attr:`Engine.label` of all engines that can compute on a device in full precision."""
    names = [name for name in _EXTRAS if _installed(name)] if device.type == "cpu" else []
    return {None, *(chosen_engine(name).label for name in names)}


def is_auto(wanted: str | None) -> bool:
    """Whether :func:`chosen_engine` makes the choice."""
    return (wanted or os.environ.get(VARIABLE) or "auto") == "auto"


@cache
def _installed(name: str) -> bool:
    with suppress(PackageNotFoundError, ValueError):
        return find_spec(name) is not None and bool(version(name))
    return False


@cache
def _openvino_abilities() -> list[str]:
    import openvino

    result: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return result


class Compiled(ABC):
    """A converted network, ready to compute; threads may call it one after another.

    Args:
        file: network written by :meth:`convert`.
        threads: number of threads that it may use.
        precision: as in :class:`Engine`.
    """

    def __init__(self, file: Path, threads: int, precision: str) -> None:
        self._lock = Lock()

    @classmethod
    @abstractmethod
    def convert(cls, network: nn.Module, example: Tensor, file: Path) -> None:
        """Write a network for images like ``example``, bytes (1, 3, H, W)."""

    @abstractmethod
    def run(self, images: np.ndarray) -> list[list[np.ndarray]]:
        """Outputs (1, R, C) for each of the images (B, 3, H, W), given as bytes."""

    def __call__(self, cropped: Tensor) -> list[Tensor]:
        """Regions (B, R, C) of each stage of images as bytes (B, 3, H, W)."""
        with self._lock:
            found = self.run(np.ascontiguousarray(cropped.numpy()))
        return [torch.from_numpy(np.concatenate(stage)) for stage in zip(*found, strict=True)]


class OpenVino(Compiled):
    """A network in OpenVINO's CPU plugin, one image per request."""

    def __init__(self, file: Path, threads: int, precision: str) -> None:
        import openvino

        super().__init__(file, threads, precision)
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads,
        }
        self._model = openvino.Core().compile_model(str(file), "CPU", settings)
        self._queue = openvino.AsyncInferQueue(self._model, min(threads, self._streams()))
        self._queue.set_callback(self._keep)
        self._found: list[list[np.ndarray]] = []

    def _streams(self) -> int:
        return int(self._model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def _keep(self, request: Any, position: int) -> None:
        self._found[position] = [np.array(tensor.data) for tensor in request.output_tensors]

    @classmethod
    def convert(cls, network: nn.Module, example: Tensor, file: Path) -> None:  # noqa: D102
        import openvino

        traced = torch.jit.trace(network, example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
        model.reshape(list(example.shape))
        openvino.save_model(model, str(file), compress_to_fp16=False)

    def run(self, images: np.ndarray) -> list[list[np.ndarray]]:  # noqa: D102
        self._found = [[] for _ in images]
        for position in range(len(images)):
            self._queue.start_async({0: images[position : position + 1]}, position)
        self._queue.wait_all()
        found, self._found = self._found, []
        return found


class OnnxRuntime(Compiled):
    """A network in ONNX Runtime, one image per thread."""

    def __init__(self, file: Path, threads: int, precision: str) -> None:
        import onnxruntime

        super().__init__(file, threads, precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="network")

    @classmethod
    def convert(cls, network: nn.Module, example: Tensor, file: Path) -> None:  # noqa: D102
        def export(**how: Any) -> None:
            with redirect_stdout(StringIO()):
                torch.onnx.export(network, (example,), str(file), input_names=["images"], **how)

        try:
            export(dynamo=False, opset_version=17)
        except torch.onnx.errors.UnsupportedOperatorError:  # the other exporter supports more, ten times slower
            export(dynamo=True, external_data=False, verbose=False)

    def run(self, images: np.ndarray) -> list[list[np.ndarray]]:  # noqa: D102
        ones = (images[i : i + 1] for i in range(len(images)))
        return list(self._pool.map(lambda one: self._session.run(None, {self._input: one}), ones))


_KINDS: dict[str, type[Compiled]] = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}


class Convertible(Protocol):
    """What a conversion needs of a :class:`unseen.backbones.backbone.Backbone`."""

    spec: BackboneSpec
    model: Any
    transform: Transform
    network_fingerprint: str

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """One map (B, C, h, w) per stage of transformed images (B, 3, H, W)."""


class _Network(nn.Module):
    """The network from bytes to regions, as one graph."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Convertible) -> None:
        super().__init__()
        self.maps: Callable[[Tensor], list[Tensor]] = backbone.maps
        self.parts = backbone.model
        for name, values in (("mean", backbone.transform.mean), ("std", backbone.transform.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = self.maps((pixels.float() - self.mean) / self.std)
        return tuple(found.flatten(2).transpose(1, 2).contiguous() for found in maps)


def compiled(backbone: Convertible, engine: Engine, cache: Path) -> Compiled:
    """A backbone's network in an engine, without the backbone's reduction.

    Args:
        backbone: a backbone on the CPU.
        engine: any engine except torch.
        cache: folder for converted networks.

    Raises:
        UnseenError: the engine cannot run the network.
    """
    kind, threads = _KINDS[engine.name], torch.get_num_threads()
    facts = [_FORMAT, backbone.network_fingerprint, _weights_digest(backbone.model), str(engine), torch.__version__]
    folder = cache / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    file = folder / _FILES[engine.name]
    with suppress(Exception):  # missing, damaged, or no longer readable by the engine: convert again
        if read_json(folder / "digests.json") == _digests(folder):
            return kind(file, threads, engine.precision)
    _log.info("converting %s for %s (done once)", backbone.spec.name, engine)
    size = backbone.transform.size
    try:
        with tempfile.TemporaryDirectory(prefix=".engine-") as made:
            with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
                warnings.simplefilter("ignore")  # tracing prints long warnings
                example = torch.zeros(1, 3, size, size, dtype=torch.uint8)
                kind.convert(_Network(backbone).eval(), example, Path(made) / file.name)
            ready = kind(Path(made) / file.name, threads, engine.precision)
            with suppress(OSError, UnseenError):  # continue without a cache that cannot be written
                _keep(Path(made), folder)
    except Exception as error:  # any exception of a converter
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnseenError(
            f"{engine} cannot run this network: {line}", where=backbone.spec.name, hint="--engine torch"
        ) from None
    return ready


def _weights_digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _keep(made: Path, folder: Path) -> None:
    """Move into the cache atomically."""
    write_json(made / "digests.json", _digests(made))
    folder.parent.mkdir(parents=True, exist_ok=True)
    near = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shutil.copytree(made, near, dirs_exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        near.rename(folder)
    finally:
        shutil.rmtree(near, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for file in sorted(folder.iterdir()):
        if file.name != "digests.json":
            with file.open("rb") as opened:
                found[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found
