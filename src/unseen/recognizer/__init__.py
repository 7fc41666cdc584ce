"""A trained model in use: predict and explain images, and change classes."""

from unseen.features.reading import ImageInput
from unseen.model.predictions import Candidate, Comparison, Prediction, Predictions, Reason
from unseen.model.trained import AMONG
from unseen.recognizer.answers import Explanation, PartMaps
from unseen.recognizer.look import Look, Reading
from unseen.recognizer.recognizer import Recognizer

__all__ = [
    "AMONG",
    "Candidate",
    "Comparison",
    "Explanation",
    "ImageInput",
    "Look",
    "PartMaps",
    "Prediction",
    "Predictions",
    "Reading",
    "Reason",
    "Recognizer",
]
