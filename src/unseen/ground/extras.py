"""Import packages of extras on demand; a missing one gives one line with the install command."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from unseen.errors import UnseenError

EXTRA_OF = {
    "defusedxml": "tables",
    "pyarrow": "tables",
    "matplotlib": "figures",
    "sklearn": "sklearn",
    "h5py": "benchmarks",
    "tensorboard": "tracking",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "fastapi": "app",
    "uvicorn": "app",
    "multipart": "app",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "openvino",
    "transformers": "clip",
    "open_clip": "clip",
    "sentencepiece": "clip",
    "datasets": "huggingface",
    "httpx": "describe",
    "ray": "ray",
    "pillow_heif": "heif",
}
"""Optional modules, and the extra of ``pyproject.toml`` that provides each."""


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'unseen[{extra}]'"


def missing(module: str, what: str = "") -> UnseenError:
    """Error for a module that is not installed.

    Args:
        module: a module of :data:`EXTRA_OF`, or one below it.
        what: what needs it, in a few words.
    """
    name = module.partition(".")[0]
    subject = f"{what} needs {name}, which" if what else name
    return UnseenError(f"{subject} is not installed", hint=install(EXTRA_OF[name]))


def require(*modules: str, what: str = "") -> None:
    """Raise :func:`missing` for the first missing module, without importing any."""
    for module in modules:
        name = module.partition(".")[0]
        there = sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None
        if not there:
            raise missing(name, what)


def needed(module: str, what: str = "") -> Any:
    """Import a module of an extra.

    Raises:
        UnseenError: it, or a module that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = (error.name or module).partition(".")[0]
        raise missing(name if name in EXTRA_OF else module, what) from None
