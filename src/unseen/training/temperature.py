"""The temperature of the softmax over class scores."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from unseen.evaluation.scores import calibrated


def fit_temperature(scores: Tensor, labels: np.ndarray, seen: np.ndarray, gamma: float) -> float:
    """The temperature of least cross-entropy of softmax((S - gamma seen) / T) on held-out images.

    A log-normal prior around the scores' own spread, worth one image, keeps it finite where a few images are all
    named right.
    """
    shifted = calibrated(scores, seen, gamma)
    target = torch.from_numpy(labels)
    spread = float(shifted.std(dim=1).mean().log().clamp(min=-20))

    def loss(log_temperature: float) -> float:
        data = float(torch.nn.functional.cross_entropy(shifted / np.exp(log_temperature), target))
        return data + (log_temperature - spread) ** 2 / (2 * len(labels))

    return float(np.exp(minimize_scalar(loss, bounds=(spread - 7, spread + 7), method="bounded").x))
