"""Manifest of a run: what its numbers depend on and were computed with."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from unseen.data.dataset import digest
from unseen.features.store import RegionStore
from unseen.methods import find_method
from unseen.training.config import plain
from unseen.training.inputs import RunInputs
from unseen.training.plan import engine_of
from unseen.version import __version__


def manifest_of(inputs: RunInputs) -> dict[str, Any]:
    """What the numbers depend on and were computed with."""
    import timm

    final, validation = inputs.partition("final"), inputs.partition("validation")
    store, spec, device = inputs.store, inputs.config.backbone, inputs.fabric.device
    grid, channels = store.grid(), store.channels()
    return {
        "unseen": __version__,
        "git": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "lightning_fabric": version("lightning_fabric"),
            "numpy": np.__version__,
        },
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "device": str(device) if device.type != "cuda" else torch.cuda.get_device_name(device),
        },
        "data": inputs.dataset.describe() | {"images": str(inputs.dataset.images.resolve())},
        "warnings": list(inputs.notes),
        "splits": {
            "final": final.fingerprint(inputs.dataset),
            "validation": validation.fingerprint(inputs.dataset),
            "validation_source": validation.source,
            "validation_draws": inputs.config.draw_count,
            "validation_folds": inputs.config.folds,
            "validation_classes": [inputs.dataset.table.names[c] for c in validation.classes[~validation.seen]],
        },
        "backbone": {
            "name": spec.name,
            "weights": str(store.backbone["made_with"])
            if isinstance(store, RegionStore) and spec.imported
            else Path(spec.weights).name,
            "image_size": inputs.config.backbone.resolved().image_size,
            "zoom": spec.zoom,
            "mirror": spec.mirror,
            "regions": f"{grid[0]}x{grid[1]}",
            "stages": list(spec.stages),
            "channels": list(channels) if isinstance(channels, tuple) else channels,
            "reduce": inputs.config.reduce,
            "frozen": not find_method(inputs.config.method).end_to_end,
            "fingerprint": spec.fingerprint()[:16],
            "store": store.fingerprint[:16],
            "engine": engine_of(store),
        },
        "semantics": {
            "attributes": len(inputs.dataset.table.attributes),
            "vectors": inputs.vectors_label,
            "vector_length": inputs.vectors.shape[1],
            "digest": vectors_digest(inputs.vectors),
        },
        "method": {
            "name": find_method(inputs.config.method).name,
            "preset": inputs.preset,
            "preset_source": find_method(inputs.config.method).presets[inputs.preset].source,
            "settings": plain(inputs.settings),
            "recipe": None if inputs.recipe is None else plain(inputs.recipe),
        },
    }


def vectors_digest(vectors: np.ndarray) -> str:
    """Digest of the attribute vectors ``(K, D)`` of a run."""
    return digest(vectors)


def _git_commit() -> str | None:
    """Git commit of the checkout that this package runs from; ``None`` outside a checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # not the repository around a virtual environment
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb() -> int:
    """Peak memory of this process, in MiB."""
    try:  # unlike ru_maxrss, it does not start with the memory of the parent process
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)
    except (OSError, StopIteration, ValueError):
        if sys.platform == "win32":
            return round(psutil.Process().memory_info().peak_wset / 2**20)
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1024**2 if sys.platform == "darwin" else 1024))
