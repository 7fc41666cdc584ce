"""A trained model in use: pictures in, classes and reasons out, with classes that come and go."""

from unseen.recognizer.answers import Candidate, Comparison, Explanation, PartMaps, Prediction, Reason
from unseen.recognizer.look import Look, Reading
from unseen.recognizer.recognizer import AMONG, Picture, Recognizer

__all__ = [
    "AMONG",
    "Candidate",
    "Comparison",
    "Explanation",
    "Look",
    "PartMaps",
    "Picture",
    "Prediction",
    "Reading",
    "Reason",
    "Recognizer",
]
