"""Recognize classes without training images, from a table of their attributes.

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
    from unseen.backbones.spec import BackboneSpec
    from unseen.classes.attributes import Attributes
    from unseen.classes.prior import Prior
    from unseen.classes.table import ClassTable
    from unseen.classes.taxonomy import Taxonomy
    from unseen.data.catalogue import load_dataset
    from unseen.data.dataset import Dataset
    from unseen.data.holding import make_dataset
    from unseen.errors import UnseenError
    from unseen.export import export_onnx
    from unseen.integrations.sklearn import ZeroShotClassifier
    from unseen.methods import (
        Ablation,
        Branch,
        ClassSpace,
        ClosedFormMethod,
        GradientMethod,
        Method,
        Preset,
        Recipe,
        Settings,
        create_method,
        register_method,
    )
    from unseen.model.predictions import Candidate, Reason, Taxon, Weighed
    from unseen.recognizer import Prediction, Predictions, Recognizer
    from unseen.recognizer.answers import Explanation
    from unseen.recognizer.card import CardFields
    from unseen.recognizer.look import Look
    from unseen.training.folder import Run

_HOME = {
    "Attributes": "unseen.classes.table",
    "BackboneSpec": "unseen.backbones.backbone",
    "ClassTable": "unseen.classes.table",
    "Prediction": "unseen.recognizer",
    "Prior": "unseen.classes.prior",
    "Predictions": "unseen.recognizer",
    "Recognizer": "unseen.recognizer",
    "Run": "unseen.training.folder",
    "UnseenError": "unseen.errors",
    "ZeroShotClassifier": "unseen.integrations.sklearn",
    **dict.fromkeys(
        (
            "Ablation",
            "Branch",
            "ClassSpace",
            "ClosedFormMethod",
            "GradientMethod",
            "Method",
            "Preset",
            "Recipe",
            "Settings",
            "create_method",
            "register_method",
        ),
        "unseen.methods",
    ),
    "Look": "unseen.recognizer.look",
    "Explanation": "unseen.recognizer.answers",
    "Candidate": "unseen.model.predictions",
    "Taxon": "unseen.model.predictions",
    "Weighed": "unseen.model.predictions",
    "Reason": "unseen.model.predictions",
    "CardFields": "unseen.recognizer.card",
    "Taxonomy": "unseen.classes.taxonomy",
    "evaluate": "unseen.api",
    "export_onnx": "unseen.export",
    "fit": "unseen.api",
    "list_methods": "unseen.api",
    "load": "unseen.api",
    "load_dataset": "unseen.data.catalogue",
    "Dataset": "unseen.data.dataset",
    "make_dataset": "unseen.data.holding",
}
__all__ = [
    "Ablation",
    "Attributes",
    "BackboneSpec",
    "Branch",
    "Candidate",
    "CardFields",
    "ClassSpace",
    "ClassTable",
    "ClosedFormMethod",
    "Dataset",
    "Explanation",
    "GradientMethod",
    "Look",
    "Method",
    "Prediction",
    "Predictions",
    "Preset",
    "Prior",
    "Reason",
    "Recipe",
    "Recognizer",
    "Run",
    "Settings",
    "Taxon",
    "Taxonomy",
    "UnseenError",
    "Weighed",
    "ZeroShotClassifier",
    "__version__",
    "create_method",
    "evaluate",
    "export_onnx",
    "fit",
    "list_methods",
    "load",
    "load_dataset",
    "make_dataset",
    "register_method",
]


def __getattr__(name: str) -> Any:
    """Import names on first use, so that ``import unseen`` is fast."""
    if name in _HOME:
        try:
            return getattr(import_module(_HOME[name]), name)
        except ModuleNotFoundError as error:
            _tell_missing(error, f"unseen.{name}")
            raise
    raise AttributeError(f"module 'unseen' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Also the names that are imported on first use, for completion."""
    return sorted({*globals(), *__all__})


def _tell_missing(error: ModuleNotFoundError, what: str) -> None:
    """Raise an error of one line if a module of an extra is missing."""
    from unseen.ground.extras import EXTRA_OF, missing

    name = (error.name or "").partition(".")[0]
    if name in EXTRA_OF:
        raise missing(name, what) from None
