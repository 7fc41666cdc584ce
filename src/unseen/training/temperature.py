"""Softmax temperature of the class scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from unseen.evaluation.scores import calibrated


@dataclass(frozen=True)
class Held:
    """Class scores of the held-out images of one draw: float ``(M, N)``, labels ``(M,)``, seen flags ``(N,)``."""

    scores: np.ndarray
    labels: np.ndarray
    seen: np.ndarray


def fit_temperature(draws: Sequence[Held], gamma: float) -> float:
    """Temperature with the smallest cross-entropy of softmax((S - gamma seen) / T) on the held-out images of all draws.

    A log-normal prior around the scores' own spread, worth one image, keeps it finite if a few images are all predicted
    correctly.
    """
    shifted = [calibrated(torch.from_numpy(held.scores).double(), held.seen, gamma) for held in draws]
    targets = [torch.from_numpy(held.labels) for held in draws]
    count = sum(len(target) for target in targets)
    spread = float(torch.cat([scores.std(dim=1) for scores in shifted]).mean().log().clamp(min=-20))

    def loss(log_temperature: float) -> float:
        scale = np.exp(log_temperature)
        data = sum(
            float(torch.nn.functional.cross_entropy(scores / scale, target, reduction="sum"))
            for scores, target in zip(shifted, targets, strict=True)
        )
        return data / count + (log_temperature - spread) ** 2 / (2 * count)

    return float(np.exp(minimize_scalar(loss, bounds=(spread - 7, spread + 7), method="bounded").x))
