"""The share of a seen class's own training images in its score: evidence that need not come from the table.

A class score is based on attributes. For a seen class, a part of it is replaced by what the class's own images give::

    w_c <- (1 - b s_c) w_c + b s_c e_c        s_c: 1 for a class with training images, else 0

w_c are weights of the solutions for the training classes (class means, one-vs-rest answers), and e_c is the class's own
one. b is chosen on validation classes. Unseen and added classes are scored as without it. Ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unseen.methods.class_space import ClassSpace
from unseen.methods.preparation import FittedBuffers


class OwnImages(FittedBuffers):
    """The share; empty until it is fitted.

    Buffers: ``share`` b ``()``; ``rows`` ``(N seen, C)`` b times the row that multiplies a prepared feature, for each
    class trained on, in training order; ``typical`` ``(C,)`` the mean prepared feature of training images.
    """

    share: Tensor
    rows: Tensor
    typical: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("rows", torch.zeros(0, 0))
        self.register_buffer("typical", torch.zeros(0))

    def fit(self, share: float, rows: Tensor, features: Tensor, like: Tensor) -> None:
        """Set the share; 0 for none.

        Args:
            share: b.
            rows: ``(N seen, C)``.
            features: ``(n, C)`` prepared features of the training images.
            like: tensor whose dtype and device the buffers take.
        """
        self.share = like.new_tensor(share)
        self.rows = (share * rows).to(like).contiguous() if share else like.new_zeros(0, 0)
        self.typical = features.mean(dim=0).to(like) if share else like.new_zeros(0)

    def __len__(self) -> int:
        """C, or 0 without a share."""
        return len(self.typical)

    def left(self, classes: ClassSpace) -> Tensor:
        """``(N, 1)``: 1 - b s_c, the share of the attributes."""
        return 1 - self.share * self._present(classes)

    def of(self, classes: ClassSpace) -> Tensor:
        """``(N, C)``: the own row of each class, 0 for a class without images."""
        chosen: Tensor = self.rows[classes.trained.clamp(0, len(self.rows) - 1)]
        return chosen * self._present(classes)

    def _present(self, classes: ClassSpace) -> Tensor:
        known = (classes.trained >= 0) & (classes.trained < len(self.rows))
        return known.to(self.rows.dtype)[:, None]


def present_rows(rows: Tensor, present: Tensor, seen: Tensor) -> Tensor:
    """Rows of the classes with training images, spread over all seen classes; 0 for a seen class without images.

    Args:
        rows: ``(n, C)``.
        present: ``(n,)`` positions of the rows among all classes.
        seen: bool ``(N,)``.
    """
    every = rows.new_zeros(len(seen), rows.shape[1])
    every[present] = rows
    return every[seen]
