"""Few-shot episodes: some images of held-out classes become their support images, the others are queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHOTS = (0, 1, 2, 5, 10, 20)
"""Numbers of support images per class at which accuracy is reported."""


@dataclass(frozen=True, eq=False)
class Episode:
    """A draw of support images from held-out images.

    Args:
        queries: increasing positions of the query images; the same for every number of shots.
        support: class to positions of its support images; the first n are those for n shots.
    """

    queries: np.ndarray
    support: dict[int, np.ndarray]

    @classmethod
    def draw(cls, labels: np.ndarray, classes: np.ndarray, most: int, rng: np.random.Generator) -> Episode:
        """Draw support images for some classes; at least half of a class's images are queries.

        Args:
            labels: ``(M,)`` labels of held-out images.
            classes: positions of the classes that get support images; those with a single image get none.
            most: largest number of images per class.
            rng: generator of the draw.
        """
        support = {}
        for c in classes:
            mine = rng.permutation(np.flatnonzero(labels == c))
            if count := min(most, len(mine) // 2):
                support[int(c)] = mine[:count]
        taken = np.concatenate([np.zeros(0, int), *support.values()])
        return cls(np.setdiff1d(np.arange(len(labels)), taken), support)

    def similarities(
        self, vectors: np.ndarray, shots: int, classes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Similarity of the queries to classes with support images.

        Args:
            vectors: ``(M, C)`` unit vectors of the held-out images.
            shots: images per class, at least 1; fewer if a class has fewer.
            classes: only these; by default all that have support images.

        Returns:
            Increasing positions of the classes ``(P,)``, images of each ``(P,)``, and cosines of queries and mean
            support vectors ``(Q, P)``.
        """
        chosen = np.array(sorted(c for c in self.support if classes is None or c in classes), dtype=int)
        mine = [self.support[c][:shots] for c in chosen.tolist()]
        if not mine:
            return chosen, np.zeros(0, int), np.zeros((len(self.queries), 0))
        means = np.stack([vectors[rows].mean(axis=0, dtype=np.float64) for rows in mine])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return chosen, np.array([len(rows) for rows in mine]), vectors[self.queries].astype(np.float64) @ means.T
