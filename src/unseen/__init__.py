"""Recognise classes nobody has photographed, from a table of their attributes.

import unseen
dataset = unseen.load_dataset("fieldguide")
run = unseen.fit("msdn", "fieldguide", "runs/first")
recognizer = unseen.Recognizer.load(run.folder)
print(recognizer.predict(["bird.jpg"])[0].best)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unseen.version import __version__

if TYPE_CHECKING:
    from unseen.api import evaluate, fit, list_methods, load
    from unseen.backbones.backbone import BackboneSpec
    from unseen.classes.table import Attributes, ClassTable
    from unseen.data.catalogue import load_dataset
    from unseen.data.dataset import Dataset
    from unseen.data.holding import make_dataset
    from unseen.errors import UnseenError
    from unseen.integrations.sklearn import ZeroShotClassifier
    from unseen.methods import (
        Branch,
        ClassSpace,
        ClosedFormMethod,
        GradientMethod,
        Method,
        Recipe,
        Settings,
        create_method,
        register_method,
    )
    from unseen.recognizer import Predictions, Recognizer
    from unseen.training.folder import Run

_HOME = {
    "Attributes": "unseen.classes.table",
    "BackboneSpec": "unseen.backbones.backbone",
    "ClassTable": "unseen.classes.table",
    "Predictions": "unseen.recognizer",
    "Recognizer": "unseen.recognizer",
    "Run": "unseen.training.folder",
    "UnseenError": "unseen.errors",
    "ZeroShotClassifier": "unseen.integrations.sklearn",
    **dict.fromkeys(
        (
            "Branch",
            "ClassSpace",
            "ClosedFormMethod",
            "GradientMethod",
            "Method",
            "Recipe",
            "Settings",
            "create_method",
            "register_method",
        ),
        "unseen.methods",
    ),
    "evaluate": "unseen.api",
    "fit": "unseen.api",
    "list_methods": "unseen.api",
    "load": "unseen.api",
    "load_dataset": "unseen.data.catalogue",
    "Dataset": "unseen.data.dataset",
    "make_dataset": "unseen.data.holding",
}
__all__ = [
    "Attributes",
    "BackboneSpec",
    "Branch",
    "ClassSpace",
    "ClassTable",
    "ClosedFormMethod",
    "Dataset",
    "GradientMethod",
    "Method",
    "Predictions",
    "Recipe",
    "Recognizer",
    "Run",
    "Settings",
    "UnseenError",
    "ZeroShotClassifier",
    "__version__",
    "create_method",
    "evaluate",
    "fit",
    "list_methods",
    "load",
    "load_dataset",
    "make_dataset",
    "register_method",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import unseen`` costs nothing."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'unseen' has no attribute '{name}'")
