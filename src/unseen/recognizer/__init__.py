"""A trained model in use: pictures in, classes and reasons out, with classes that come and go."""

from unseen.recognizer.answers import Candidate, Explanation, PartMaps, Prediction, Reason
from unseen.recognizer.look import AMONG, Look
from unseen.recognizer.model import Picture, Recognizer

__all__ = ["AMONG", "Candidate", "Explanation", "Look", "PartMaps", "Picture", "Prediction", "Reason", "Recognizer"]
