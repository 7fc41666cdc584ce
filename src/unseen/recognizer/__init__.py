"""A trained model in use: images in, classes and reasons out, with classes that come and go."""

from unseen.recognizer.answers import Candidate, Comparison, Explanation, PartMaps, Prediction, Reason
from unseen.recognizer.look import Look, Reading
from unseen.recognizer.recognizer import AMONG, ImageInput, Recognizer

__all__ = [
    "AMONG",
    "Candidate",
    "Comparison",
    "Explanation",
    "Image",
    "ImageInput",
    "Look",
    "PartMaps",
    "Prediction",
    "Reading",
    "Reason",
    "Recognizer",
]
