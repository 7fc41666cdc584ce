"""A small trainable problem without images: regions with planted attributes."""

from __future__ import annotations

import numpy as np
import torch

from unseen.methods import ClassSpace


class Planted:
    """n images of N classes; each attribute lights one channel in one region."""

    def __init__(self, n=60, regions=9, channels=16, attributes=6, classes=5, unseen=2, seed=0, dtype=torch.float32):
        rng = np.random.default_rng(seed)
        self.table = rng.random((classes, attributes)).round(1) + 0.1
        self.labels = rng.integers(0, classes - unseen, n)
        features = 0.3 * rng.standard_normal((n, regions, channels))
        for i, label in enumerate(self.labels):
            for k in range(attributes):
                features[i, rng.integers(regions), k] += 3 * self.table[label, k]
        self.tensor = torch.nn.functional.normalize(torch.from_numpy(features), dim=-1).to(dtype)
        seen = torch.arange(classes) < classes - unseen
        self.classes = ClassSpace(torch.from_numpy(self.table).to(dtype), seen)
        self.vectors = torch.from_numpy(rng.standard_normal((attributes, 8))).to(dtype)

    def __len__(self):
        return len(self.labels)

    def batch(self, positions):
        return self.tensor[torch.as_tensor(positions)]
