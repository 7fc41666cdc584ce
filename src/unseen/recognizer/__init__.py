"""A trained model in use: pictures in, classes and reasons out, with classes that come and go."""

from unseen.recognizer.answers import Candidate, Explanation, PartMaps, Prediction, Reason
from unseen.recognizer.look import Look
from unseen.recognizer.model import AMONG, Picture, Recognizer

__all__ = ["AMONG", "Candidate", "Explanation", "Look", "PartMaps", "Picture", "Prediction", "Reason", "Recognizer"]
